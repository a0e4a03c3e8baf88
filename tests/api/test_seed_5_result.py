"""Huey.result(task_id, blocking, timeout, backoff, max_delay, revoke_on_timeout, preserve)."""

from __future__ import annotations

import time

import pytest

from geventhuey import DataStoreTimeout, ResultTimeout, TaskException
from geventhuey.testing import drain
from tests.api.kit import BOUND, InThread, wait_until


@pytest.fixture
def add(huey):
    @huey.task()
    def add(a, b):
        return a + b
    return add


def test_it_fetches_the_value_by_the_id(huey, add):
    task_id = add(1, 2).task_id
    drain(huey)
    assert huey.result(task_id) == 3


def test_it_is_none_while_it_is_not_ready(huey, add):
    assert huey.result(add(1, 2).task_id) is None


def test_it_is_none_for_an_unknown_id(huey):
    assert huey.result('unknown') is None
    assert huey.result('unknown', preserve=True) is None


def test_reading_it_deletes_it(huey, add):
    task_id = add(1, 2).task_id
    drain(huey)
    assert huey.result(task_id) == 3
    assert huey.result(task_id) is None
    assert huey.result_count() == 0


def test_preserve_keeps_it(huey, add):
    task_id = add(1, 2).task_id
    drain(huey)
    assert huey.result(task_id, preserve=True) == 3
    assert huey.result(task_id, preserve=True) == 3
    assert huey.result(task_id) == 3
    assert huey.result(task_id) is None


@pytest.mark.parametrize('value', [0, '', False, [], 0.0, ()])
def test_a_value_that_is_false_is_a_value(huey, value):
    @huey.task()
    def give():
        return value

    task_id = give().task_id
    drain(huey)
    found = huey.result(task_id)
    assert found == value and type(found) is type(value)


def test_blocking_waits_until_it_is_ready(huey, add):
    task_id = add(1, 2).task_id
    waiting = InThread(lambda: huey.result(task_id, blocking=True))
    drain(huey)
    assert waiting.result() == 3


def test_blocking_finds_what_is_there_already(huey, add):
    task_id = add(1, 2).task_id
    drain(huey)
    assert huey.result(task_id, blocking=True, timeout=BOUND) == 3


def test_after_the_timeout_an_exception_is_raised(huey, add):
    task_id = add(1, 2).task_id
    begun = time.monotonic()
    with pytest.raises(DataStoreTimeout, match=task_id):
        huey.result(task_id, blocking=True, timeout=0.1)
    assert 0.1 <= time.monotonic() - begun < 3
    assert huey.pending_count() == 1


def test_the_timeout_has_the_name_of_later_versions_too():
    assert ResultTimeout is DataStoreTimeout


def test_without_blocking_the_timeout_is_without_effect(huey, add):
    assert huey.result(add(1, 2).task_id, timeout=BOUND) is None


def test_a_timeout_of_zero_does_not_wait(huey, add):
    begun = time.monotonic()
    with pytest.raises(DataStoreTimeout):
        huey.result(add(1, 2).task_id, blocking=True, timeout=0)
    assert time.monotonic() - begun < 3


def test_a_timeout_of_zero_finds_what_is_there(huey, add):
    result = add(1, 2)
    drain(huey)
    assert huey.result(result.task_id, blocking=True, timeout=0) == 3


def test_backoff_and_max_delay_are_accepted(huey, add):
    task_id = add(1, 2).task_id
    waiting = InThread(lambda: huey.result(task_id, blocking=True, timeout=BOUND, backoff=2.0, max_delay=1000.0))
    drain(huey)
    assert waiting.result() == 3


@pytest.mark.parametrize('revoke', [True, False])
def test_revoke_on_timeout(huey, add, revoke):
    task_id = add(1, 2).task_id
    with pytest.raises(DataStoreTimeout):
        huey.result(task_id, blocking=True, timeout=0.01, revoke_on_timeout=revoke)
    assert huey.is_revoked(task_id) is revoke
    assert len(drain(huey)) == (not revoke)


def test_revoke_on_timeout_does_nothing_without_a_timeout(huey, add):
    task_id = add(1, 2).task_id
    drain(huey)
    assert huey.result(task_id, blocking=True, timeout=BOUND, revoke_on_timeout=True) == 3
    assert not huey.is_revoked(task_id)


def test_preserve_goes_with_blocking(huey, add):
    task_id = add(1, 2).task_id
    drain(huey)
    assert huey.result(task_id, blocking=True, timeout=BOUND, preserve=True) == 3
    assert huey.result(task_id) == 3


def test_of_a_failed_task_it_raises_what_is_known(huey):
    @huey.task()
    def fail():
        raise ValueError('it went wrong')

    task_id = fail().task_id
    drain(huey)
    with pytest.raises(TaskException, match='it went wrong') as raised:
        huey.result(task_id)
    assert raised.value.metadata['task_id'] == task_id
    assert raised.value.metadata['error'] == "ValueError('it went wrong')"
    assert 'def fail' not in str(raised.value)
    assert 'raise ValueError' in raised.value.metadata['traceback']


def test_everything_may_be_given_by_position(huey, add):
    task_id = add(1, 2).task_id
    drain(huey)
    assert huey.result(task_id, True, BOUND, 1.15, 1.0, False, True) == 3
    assert huey.result(task_id) == 3


def test_waiting_does_not_start_before_the_task_does(huey, add):
    waiting = [InThread(lambda: huey.result('later', blocking=True, timeout=BOUND))]
    add.schedule(args=(1, 2), task_id='later')
    drain(huey)
    wait_until(waiting[0].is_over)
    assert waiting[0].result() == 3
