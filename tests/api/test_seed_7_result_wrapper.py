"""TaskResultWrapper(huey, task): get, __call__, revoke, restore."""

from __future__ import annotations

import datetime

import pytest

from geventhuey import DataStoreTimeout, Result, TaskResultWrapper
from geventhuey.testing import drain
from tests.api.kit import BOUND, InThread


@pytest.fixture
def beans(huey):
    @huey.task()
    def count_some_beans(num):
        return f'Counted {num} beans'
    return count_some_beans


def test_it_is_what_a_call_returns(huey, beans):
    result = beans(100)
    assert isinstance(result, TaskResultWrapper)
    assert result.huey is huey
    assert isinstance(result.task, beans.task_class)
    assert result.task_id == result.id == result.task.task_id
    assert repr(result) == f'<TaskResultWrapper {result.task_id}>'


def test_it_has_the_name_of_later_versions_too():
    assert Result is TaskResultWrapper


def test_it_can_be_made_by_hand(huey, beans):
    task_id = beans(100).task_id
    drain(huey)
    result = TaskResultWrapper(huey, beans.task_class(((), {}), task_id))
    assert result.get() == 'Counted 100 beans'


# -- get and __call__ ---------------------------------------------------------------------------------------------

@pytest.fixture(params=['get', '__call__'])
def getting(request):
    """``get`` of a wrapper, under both of its names."""
    return lambda result: getattr(result, request.param)


def test_not_ready_is_none(beans, getting):
    assert getting(beans(100))() is None


def test_ready_is_the_value(huey, beans, getting):
    result = beans(100)
    drain(huey)
    assert getting(result)() == 'Counted 100 beans'


def test_blocking_waits_for_the_value(huey, beans, getting):
    result = beans(100)
    waiting = InThread(lambda: getting(result)(blocking=True))
    drain(huey)
    assert waiting.result() == 'Counted 100 beans'


def test_the_timeout_raises(beans, getting):
    with pytest.raises(DataStoreTimeout):
        getting(beans(100))(blocking=True, timeout=0.01)


def test_after_a_timeout_one_may_wait_again(huey, beans, getting):
    result = beans(100)
    with pytest.raises(DataStoreTimeout):
        getting(result)(blocking=True, timeout=0.01)
    drain(huey)
    assert getting(result)(blocking=True, timeout=BOUND) == 'Counted 100 beans'


def test_backoff_and_max_delay_are_accepted(huey, beans, getting):
    result = beans(100)
    drain(huey)
    assert getting(result)(blocking=True, backoff=3, max_delay=9.0) == 'Counted 100 beans'


def test_revoke_on_timeout_revokes(huey, beans, getting):
    result = beans(100)
    with pytest.raises(DataStoreTimeout):
        getting(result)(blocking=True, timeout=0.01, revoke_on_timeout=True)
    assert huey.is_revoked(result.task)
    assert drain(huey) == []


def test_the_store_forgets_what_was_read(huey, beans, getting):
    result = beans(100)
    drain(huey)
    getting(result)()
    assert huey.result(result.task_id) is None
    assert huey.result_count() == 0


def test_the_wrapper_remembers_what_was_read(huey, beans, getting):
    result = beans(100)
    drain(huey)
    for _ in range(3):
        assert getting(result)() == 'Counted 100 beans'
        assert getting(result)(blocking=True, timeout=0) == 'Counted 100 beans'


def test_preserve_leaves_it_in_the_store(huey, beans, getting):
    result = beans(100)
    drain(huey)
    assert getting(result)(preserve=True) == 'Counted 100 beans'
    assert huey.result(result.task_id) == 'Counted 100 beans'
    assert huey.result(result.task_id) is None
    assert getting(result)() == 'Counted 100 beans'


def test_everything_may_be_given_by_position(huey, beans, getting):
    result = beans(100)
    drain(huey)
    assert getting(result)(True, BOUND, 1.15, 1.0, False, True) == 'Counted 100 beans'
    assert huey.result_count() == 1


def test_reset_asks_the_store_again(huey, beans):
    result = beans(100)
    drain(huey)
    assert result(preserve=True) == 'Counted 100 beans'
    huey.flush()
    assert result() == 'Counted 100 beans'
    result.reset()
    assert result() is None


# -- revoke and restore -------------------------------------------------------------------------------------------

def test_revoke_prevents_a_scheduled_task(make, clock):
    huey = make()
    ran = []

    @huey.task()
    def count_some_beans(num):
        ran.append(num)

    in_an_hour = datetime.datetime.fromtimestamp(clock.now() + 3600)
    result = count_some_beans.schedule(args=(100000,), eta=in_an_hour)
    assert result.revoke() is None
    clock.advance(3601)
    drain(huey)
    assert ran == []


def test_restore_lets_it_run_as_scheduled(make, clock):
    huey = make()
    ran = []

    @huey.task()
    def count_some_beans(num):
        ran.append(num)

    result = count_some_beans.schedule(args=(100000,), delay=3600)
    result.revoke()
    assert result.restore() is True
    assert result.restore() is False
    clock.advance(3599)
    drain(huey)
    assert ran == []
    clock.advance(2)
    drain(huey)
    assert ran == [100000]


def test_once_it_was_skipped_restore_comes_too_late(huey, beans):
    result = beans(100)
    result.revoke()
    drain(huey)
    result.restore()
    assert drain(huey) == []
