"""Huey.pending, scheduled, all_results; and what else looks at what is there."""

from __future__ import annotations

import datetime

import pytest

from geventhuey import QueueTask
from geventhuey.message import Message
from geventhuey.testing import drain


@pytest.fixture
def add(huey):
    @huey.task()
    def add(a, b):
        return a + b
    return add


def numbers(tasks):
    return [task.data[0][0] for task in tasks]


# -- pending --------------------------------------------------------------------------------------------------

def test_pending_is_every_unexecuted_task_in_the_queue(huey, add):
    assert huey.pending() == []
    result = add(1, 2)
    task, = huey.pending()
    assert isinstance(task, QueueTask)
    assert task == result.task
    assert task.data == ((1, 2), {})
    drain(huey)
    assert huey.pending() == []


def test_pending_is_the_newest_first(huey, add):
    for number in range(5):
        add(number, 0)
    assert numbers(huey.pending()) == [4, 3, 2, 1, 0]


def test_limit_is_how_many_there_are_at_most(huey, add):
    for number in range(5):
        add(number, 0)
    assert numbers(huey.pending(limit=2)) == [4, 3]
    assert numbers(huey.pending(2)) == [4, 3]
    assert len(huey.pending(limit=9)) == 5
    assert len(huey.pending(limit=0)) == len(huey.pending(limit=None)) == 5


def test_a_scheduled_task_is_not_pending(huey, add):
    add.schedule(args=(1, 2), delay=60)
    assert huey.pending() == []


def test_looking_changes_nothing(huey, add):
    result = add(1, 2)
    for _ in range(3):
        assert len(huey.pending()) == 1
    drain(huey)
    assert len(huey.all_results()) == len(huey.all_results()) == 1
    assert result() == 3


def test_tasks_of_other_programs_are_left_out(huey, add):
    add(1, 2)
    huey.storage.enqueue([Message('an-id', 'somebody.else', huey.envelope.dumps(b'task', (((), {}), {})))])
    assert numbers(huey.pending()) == [1]
    assert huey.pending_count() == 2


# -- scheduled ------------------------------------------------------------------------------------------------

def test_scheduled_is_every_task_in_the_schedule_the_soonest_first(huey, add):
    assert huey.scheduled() == []
    for delay in (300, 100, 200):
        add.schedule(args=(delay, 0), delay=delay)
    assert numbers(huey.scheduled()) == [100, 200, 300]
    assert numbers(huey.scheduled(limit=2)) == [100, 200]
    assert numbers(huey.scheduled(1)) == [100]
    assert len(huey.scheduled(limit=0)) == len(huey.scheduled(limit=9)) == 3


def test_scheduled_tasks_say_when(huey, add):
    moment = datetime.datetime(2035, 6, 1, 12, 0, 0, 123_000)
    add.schedule(args=(1, 2), eta=moment, convert_utc=False)
    assert huey.scheduled()[0].execute_time == moment


# -- all_results ----------------------------------------------------------------------------------------------

def test_all_results_maps_ids_to_pickled_results(huey, add):
    assert huey.all_results() == {}
    first, second = add(1, 2), add(3, 4)
    drain(huey)
    results = huey.all_results()
    assert {task_id: huey.serializer.loads(data) for task_id, data in results.items()} == {first.task_id: 3, second.task_id: 7}
    assert all(isinstance(data, bytes) for data in results.values())


def test_all_results_leaves_out_what_was_removed(huey, add):
    first, second = add(1, 2), add(3, 4)
    drain(huey)
    first()
    assert list(huey.all_results()) == [second.task_id]


def test_all_results_has_no_tombstones_and_no_revocations(huey, add):
    @huey.task()
    def nothing():
        pass

    nothing()
    huey.revoke(add(1, 2).task)
    drain(huey)
    assert huey.all_results() == {}
    assert huey.result_count() == 0


# -- counts, names ----------------------------------------------------------------------------------------------

def test_counts(huey, add):
    assert (len(huey), huey.pending_count(), huey.scheduled_count(), huey.result_count()) == (0, 0, 0, 0)
    add(1, 2)
    add(3, 4)
    add.schedule(args=(1, 2), delay=60)
    assert (len(huey), huey.pending_count(), huey.scheduled_count()) == (2, 2, 1)
    drain(huey)
    assert (huey.pending_count(), huey.result_count()) == (0, 2)


def test_an_application_is_true_also_when_its_queue_is_empty(huey):
    assert huey


def test_the_names_of_the_tasks(huey, add):
    @huey.task(name='zero')
    def zero():
        pass

    @huey.periodic_task(lambda moment: True, name='clockwork')
    def clockwork():
        pass

    assert huey.get_tasks() == ['clockwork', f'{__name__}.add', 'zero']
    assert huey.get_regular_tasks() == [f'{__name__}.add', 'zero']
    assert huey.get_periodic_tasks() == ['clockwork']


# -- errors -----------------------------------------------------------------------------------------------------

def test_errors_are_dicts_the_most_recent_first(huey):
    @huey.task(retries=1, retry_delay=0, name='failing')
    def fail(number):
        raise ValueError(number)

    result = fail(7)
    drain(huey)
    last, first = huey.errors()
    assert first == {
        'id': result.task_id, 'task': 'failing', 'name': 'failing', 'retries': 1, 'retry_delay': 0, 'execute_time': None,
        'error': 'ValueError(7)', 'traceback': first['traceback']}
    assert first['traceback'].startswith('Traceback') and first['traceback'].endswith('ValueError: 7\n')
    assert (last['id'], last['retries']) == (result.task_id, 0)


def test_errors_limit_and_offset(huey):
    @huey.task()
    def fail(number):
        raise ValueError(number)

    for number in range(4):
        fail(number)
    drain(huey)

    def shown(*args, **kwargs):
        return [entry['error'] for entry in huey.errors(*args, **kwargs)]

    assert shown(limit=2) == ['ValueError(3)', 'ValueError(2)']
    assert shown(2, 1) == ['ValueError(2)', 'ValueError(1)']
    assert shown(offset=3) == ['ValueError(0)']
    assert shown(limit=0) == shown() == ['ValueError(3)', 'ValueError(2)', 'ValueError(1)', 'ValueError(0)']
    assert shown(offset=9) == []


# -- flush ------------------------------------------------------------------------------------------------------

def test_flush_empties_everything(huey, add):
    @huey.task()
    def fail():
        raise ValueError

    add(1, 2)
    fail()
    drain(huey)
    waiting = add(3, 4)
    add.schedule(args=(1, 2), delay=60)
    huey.revoke(waiting.task)
    huey.flush()
    assert (huey.pending(), huey.scheduled(), huey.all_results(), huey.errors()) == ([], [], {}, [])
    assert not huey.is_revoked(waiting.task)
    assert drain(huey) == []


def test_flush_leaves_other_applications_alone(make):
    one, two = make('one'), make('two')

    @two.task()
    def add(a, b):
        return a + b

    add(1, 2)
    one.flush()
    assert two.pending_count() == 1


def test_an_application_shows_itself_without_a_password(redis_server):
    from geventhuey import RedisHuey
    huey = RedisHuey('app', url=f'redis://user:secret@127.0.0.1:{redis_server.port}/1')
    assert 'secret' not in repr(huey)
    assert repr(huey) == f"<RedisHuey 'app' at redis://user:***@127.0.0.1:{redis_server.port}/1>"
