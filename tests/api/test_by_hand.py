"""dequeue() and execute(): a program that runs its tasks itself."""

from __future__ import annotations

import pytest

from geventhuey import QueueException, SerializationError, TaskException, crontab
from geventhuey.message import Message
from geventhuey.testing import drain
from tests.api.kit import InThread, wait_until


@pytest.fixture
def add(huey):
    @huey.task()
    def add(a, b):
        return a + b
    return add


def held(huey):
    """How many deliveries anybody holds."""
    return sum(len(huey.storage.held(name)) for name in huey.storage.consumers())


def test_an_empty_queue_gives_none(huey):
    assert huey.dequeue() is None


def test_dequeue_takes_the_next_task(huey, add):
    first, second = add(1, 2), add(3, 4)
    assert huey.dequeue() == first.task
    assert huey.dequeue() == second.task
    assert huey.dequeue() is None
    assert huey.pending_count() == 0


def test_execute_runs_it_and_stores_the_result(huey, add):
    result = add(1, 2)
    assert huey.execute(huey.dequeue()) == 3
    assert result() == 3
    assert held(huey) == 0


def test_execute_raises_what_the_task_raised_and_notes_it(huey):
    @huey.task()
    def fail():
        raise ValueError('as it is')

    result = fail()
    with pytest.raises(ValueError, match='as it is') as raised:
        huey.execute(huey.dequeue())
    assert raised.traceback[-1].name == 'fail'
    assert [entry['error'] for entry in huey.errors()] == ["ValueError('as it is')"]
    with pytest.raises(TaskException, match='as it is'):
        result()
    assert held(huey) == 0


def test_a_task_with_retries_goes_back(huey):
    @huey.task(retries=1)
    def fail():
        raise ValueError

    fail()
    for left in (1, 0):
        task = huey.dequeue()
        assert task.retries == left
        with pytest.raises(ValueError):
            huey.execute(task)
    assert huey.dequeue() is None


@pytest.mark.parametrize('thing', [None, 'add', object(), 42])
def test_execute_takes_tasks_only(huey, thing):
    with pytest.raises(TypeError, match='Unknown object'):
        huey.execute(thing)


def test_execute_of_a_task_that_was_never_enqueued(huey, add):
    task = add.task_class(((1, 2), {}))
    assert huey.execute(task) == 3
    assert huey.result(task.task_id) == 3


def test_execute_keeps_no_none_unless_it_is_told_to(make):
    for store_none in (False, True):
        huey = make(f'app{store_none}', store_none=store_none)

        @huey.task()
        def nothing():
            pass

        assert huey.execute(nothing.task_class(((), {}))) is None
        assert huey.result_count() == store_none


def test_execute_of_a_periodic_task_keeps_no_result(huey):
    @huey.periodic_task(crontab())
    def always():
        return 'a value'

    assert huey.execute(always.task_class()) == 'a value'
    assert huey.result_count() == 0


def test_execute_of_an_error_that_is_nobodys_delivery_is_noted(huey):
    @huey.task(retries=2)
    def fail():
        raise ValueError('as it is')

    task = fail.task_class(((), {}), retries=2)
    with pytest.raises(ValueError):
        huey.execute(task)
    assert len(huey.errors()) == 1
    assert huey.pending_count() == 0


def test_a_task_of_an_unknown_name(huey, add):
    add(1, 2)
    huey.registry.unregister(add.task_class)
    with pytest.raises(QueueException, match='add not found in TaskRegistry'):
        huey.dequeue()
    assert huey.dequeue() is None
    assert len(huey.storage.dead()) == 1
    assert held(huey) == 0


def test_a_task_whose_arguments_cannot_be_read(huey, add):
    huey.storage.enqueue([Message('an-id', add.task_class.task_name, b'\x80\x05no pickle')])
    with pytest.raises(SerializationError):
        huey.dequeue()
    assert huey.dequeue() is None
    assert len(huey.storage.dead()) == 1


def test_what_was_taken_and_not_executed_goes_back(huey, add):
    first, second = add(1, 2), add(3, 4)
    huey.dequeue()
    huey.dequeue()
    huey.close()
    assert huey.pending_count() == 2
    assert huey.dequeue() == first.task
    assert huey.dequeue() == second.task


def test_closing_leaves_nobody_registered(huey, add):
    add(1, 2)
    huey.dequeue()
    assert len(huey.storage.consumers()) == 1
    huey.close()
    assert huey.storage.consumers() == {}
    huey.close()


def test_an_execution_that_comes_too_late_keeps_nothing(huey, add, caplog):
    result = add(1, 2)
    task = huey.dequeue()
    huey.close()
    assert huey.execute(task) == 3
    assert 'not held any more' in caplog.text
    assert result() is None
    drain(huey)
    assert result() == 3


def test_a_revoked_task_says_so(huey, add):
    result = add(1, 2)
    result.revoke()
    task = huey.dequeue()
    assert huey.is_revoked(task)
    huey.restore(result.task)
    assert huey.is_revoked(task), 'it was looked up when it was taken'


def test_a_revoked_task_that_is_run_all_the_same_is_retried_as_any_other(huey):
    @huey.task(retries=1)
    def fail():
        raise ValueError

    result = fail()
    result.revoke()
    task = huey.dequeue()
    result.restore()
    with pytest.raises(ValueError):
        huey.execute(task)
    assert not huey.is_revoked(huey.dequeue())


@pytest.mark.parametrize('n', [8])
def test_threads_that_take_at_the_same_time_never_take_the_same(huey, add, n):
    expected = {add(number, 0).task_id for number in range(25 * n)}

    def take_all():
        taken = []
        while (task := huey.dequeue()) is not None:
            taken.append(task.task_id)
            huey.execute(task)
        return taken

    taken = [task_id for thread in [InThread(take_all) for _ in range(n)] for task_id in thread.result()]
    assert len(taken) == 25 * n
    assert set(taken) == expected


def test_a_thread_that_waits_for_a_task_does_not_hold_up_the_others(make):
    huey = make(blocking=True, read_timeout=3.0)

    @huey.task()
    def add(a, b):
        return a + b

    huey.blocking = False
    huey.dequeue()                          # the connection is there
    huey.blocking = True
    waiting = InThread(huey.dequeue)
    assert not waiting.is_over()
    assert not huey.is_revoked('x')         # answered, although somebody waits
    assert not waiting.is_over()
    add(1, 2)
    assert waiting.result() is not None


def test_what_it_holds_is_kept_by_a_beat(huey, add, monkeypatch):
    from geventhuey import lease
    monkeypatch.setattr(lease, 'BEAT_INTERVAL', 0.01)
    add(1, 2)
    huey.dequeue()
    name, = huey.storage.consumers()
    before = huey.storage.consumers()[name]
    wait_until(lambda: huey.storage.consumers()[name] != before)
