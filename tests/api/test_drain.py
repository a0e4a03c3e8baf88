"""drain: the tasks in the queue, run here and now."""

from __future__ import annotations

import pytest

from geventhuey import TaskException, TaskRevoked
from geventhuey.testing import RedisServer, drain


@pytest.fixture
def ran():
    return []


@pytest.fixture
def note(huey, ran):
    @huey.task(name='note')
    def note(value):
        ran.append(value)
        return value
    return note


def test_it_runs_what_is_in_the_queue_in_order(huey, note, ran):
    results = [note(number) for number in range(5)]
    tasks = drain(huey)
    assert ran == [0, 1, 2, 3, 4]
    assert tasks == [result.task for result in results]
    assert [result() for result in results] == ran


def test_it_leaves_nothing_behind(huey, note):
    note(1)
    drain(huey)
    assert huey.pending_count() == 0
    assert huey.storage.consumers() == {}
    assert huey.storage.consumer_info() == {}


def test_nothing_is_nothing(huey):
    assert drain(huey) == []


def test_limit_is_how_many_run_at_most(huey, note, ran):
    for number in range(5):
        note(number)
    assert drain(huey, limit=0) == []
    assert len(drain(huey, limit=2)) == 2
    assert ran == [0, 1]
    assert len(drain(huey, 9)) == 3


def test_it_runs_what_comes_into_the_queue_meanwhile(huey, note, ran):
    @huey.task()
    def more(left):
        note(left)
        if left:
            more(left - 1)

    more(3)
    assert len(drain(huey)) == 8
    assert ran == [3, 2, 1, 0]


def test_a_task_may_drain_too(huey, note, ran):
    @huey.task()
    def work():
        note(1)
        drain(huey)
        return list(ran)

    result = work()
    drain(huey)
    assert result() == [1]


def test_errors_do_not_come_out_and_are_recorded(huey, note, ran):
    @huey.task()
    def fail():
        raise SystemExit('out')

    result = fail()
    note(1)
    assert len(drain(huey)) == 2
    assert ran == [1]
    assert [entry['error'] for entry in huey.errors()] == ["SystemExit('out')"]
    with pytest.raises(TaskException, match='out'):
        result()


def test_retries_are_included(huey):
    @huey.task(retries=2)
    def fail():
        raise ValueError

    fail()
    assert [task.retries for task in drain(huey)] == [2, 1, 0]


def test_what_is_not_due_stays(make, clock):
    huey = make()

    @huey.task(retries=1, retry_delay=10)
    def fail():
        raise ValueError

    fail.schedule(delay=5)
    assert drain(huey) == []
    clock.advance(5)
    assert len(drain(huey)) == 1
    assert drain(huey) == []
    clock.advance(10)
    assert len(drain(huey)) == 1
    assert huey.scheduled_count() == 0


def test_revoked_tasks_are_not_run_and_told(huey, note, ran):
    result = note(1)
    result.revoke()
    assert drain(huey) == []
    assert ran == []
    with pytest.raises(TaskRevoked):
        result(blocking=True, timeout=5)


def test_unknown_tasks_go_to_the_dead_letters(huey, note):
    note(1)
    huey.registry.unregister(note.task_class)
    assert drain(huey) == []
    assert len(huey.storage.dead()) == 1


def test_those_who_listen_hear_of_it(huey):
    @huey.task(retries=1)
    def fail():
        raise ValueError

    events = iter(huey.storage)
    fail()
    drain(huey)
    heard = [next(events)['status'] for _ in range(5)]
    assert heard == ['started', 'error-task', 'retrying', 'started', 'error-task']


def test_the_tasks_are_as_they_came(huey):
    @huey.task(include_task=True)
    def work(items, task=None):
        items.append('changed')
        task.retries = 7

    work(['as it came'])
    task, = drain(huey)
    assert task.data == ((['as it came'],), {})
    assert task.retries == 0


def test_the_kit_is_importable_from_one_place():
    assert callable(drain) and callable(RedisServer)
