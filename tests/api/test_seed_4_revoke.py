"""Huey.revoke, restore, revoke_by_id, restore_by_id, is_revoked."""

from __future__ import annotations

import datetime

import pytest

from geventhuey import TaskRevoked, crontab
from geventhuey.testing import drain

LATER = datetime.timedelta(hours=1)


@pytest.fixture
def ran():
    return []


@pytest.fixture
def note(huey, ran):
    @huey.task()
    def note(value):
        ran.append(value)
        return value
    return note


def by_task(huey):
    """The methods that take the task, as functions of a result."""
    return (lambda result, **kw: huey.revoke(result.task, **kw), lambda result: huey.restore(result.task),
            lambda result, **kw: huey.is_revoked(result.task, **kw))


def by_id(huey):
    """The methods that take the id."""
    return (lambda result, **kw: huey.revoke_by_id(result.task_id, **kw), lambda result: huey.restore_by_id(result.task_id),
            lambda result, **kw: huey.is_revoked(result.task_id, **kw))


@pytest.fixture(params=[by_task, by_id])
def methods(huey, request):
    """revoke, restore and is_revoked; of both kinds, for they are to be exactly the same."""
    return request.param(huey)


def test_a_revoked_task_is_thrown_away(huey, note, ran, methods):
    revoke, _, is_revoked = methods
    first, second = note(1), note(2)
    assert not is_revoked(first)
    assert revoke(first) is None
    assert is_revoked(first)
    drain(huey)
    assert ran == [2]
    assert (first(), second()) == (None, 2)


def test_a_restored_task_runs(huey, note, ran, methods):
    revoke, restore, is_revoked = methods
    result = note(1)
    revoke(result)
    assert restore(result) is True
    assert not is_revoked(result)
    assert restore(result) is False
    drain(huey)
    assert ran == [1]


def test_revoke_until_a_datetime(make, clock, ran):
    huey = make()

    @huey.task()
    def note(value):
        ran.append(value)

    now = datetime.datetime.fromtimestamp(clock.now())
    result, same = note(1), note(2)
    huey.revoke(result.task, now + LATER)
    huey.revoke_by_id(same.task_id, revoke_until=now + LATER)
    for one in (result.task, same.task_id):
        assert huey.is_revoked(one)
        assert huey.is_revoked(one, dt=now)
        assert not huey.is_revoked(one, now + LATER)
        assert not huey.is_revoked(one, now + 2 * LATER)
    drain(huey)
    assert ran == []
    clock.advance(3601)
    assert not huey.is_revoked(result.task)


def test_a_revocation_that_is_over_lets_it_run(huey, note, ran, methods):
    revoke, _, is_revoked = methods
    result = note(1)
    revoke(result, revoke_until=datetime.datetime.now() - LATER)
    assert not is_revoked(result)
    drain(huey)
    assert ran == [1]


def test_revoke_once_skips_the_next_execution_only(huey, note, ran, methods):
    revoke, _, is_revoked = methods
    result = note(1)
    revoke(result, revoke_once=True)
    assert is_revoked(result)
    drain(huey)
    assert ran == []
    assert not is_revoked(result)
    huey.enqueue(result.task)
    drain(huey)
    assert ran == [1]


def test_each_revocation_overwrites_the_one_before(huey, note, methods):
    revoke, _, is_revoked = methods
    result = note(1)
    revoke(result)
    revoke(result, revoke_until=datetime.datetime.now() - LATER)
    assert not is_revoked(result)
    revoke(result, revoke_until=datetime.datetime.now() + LATER)
    assert is_revoked(result)
    assert not is_revoked(result, dt=datetime.datetime.now() + 2 * LATER)
    revoke(result)
    assert is_revoked(result, dt=datetime.datetime.now() + 2 * LATER)


def test_revoking_one_task_does_not_touch_another_of_the_function(huey, note, ran):
    first, second = note(1), note(2)
    huey.revoke(first.task)
    assert not huey.is_revoked(second.task)
    assert not note.is_revoked()
    drain(huey)
    assert ran == [2]


def test_a_scheduled_task_can_be_revoked(make, clock, ran):
    huey = make()

    @huey.task()
    def note(value):
        ran.append(value)

    huey.revoke(note.schedule(args=(1,), delay=60).task)
    clock.advance(61)
    assert drain(huey) == []
    assert ran == []
    assert huey.scheduled_count() == 0


def test_it_has_no_effect_on_a_task_that_has_run(huey, note):
    result = note(1)
    drain(huey)
    huey.revoke(result.task)
    assert result() == 1


def test_a_task_that_runs_is_not_touched(huey):
    @huey.task(include_task=True)
    def revoke_myself(task=None):
        huey.revoke(task)
        return 'done'

    result = revoke_myself()
    drain(huey)
    assert result() == 'done'


def test_a_periodic_task_is_revoked_as_a_whole(huey):
    @huey.periodic_task(crontab())
    def always():
        pass

    huey.revoke(always.task_class())
    assert always.is_revoked()
    assert huey.is_revoked(always.task_class())
    assert huey.restore(always.task_class()) is True
    assert not always.is_revoked()


def test_a_function_revokes_all_its_tasks(huey, note, ran):
    result = note(1)
    note.revoke()
    assert note.is_revoked()
    assert huey.is_revoked(result.task)
    note(2)
    drain(huey)
    assert ran == []
    assert note.restore() is True
    note(3)
    drain(huey)
    assert ran == [3]


def test_peek_says_whether_a_revoke_once_is_used_up(huey, note):
    result = note(1)
    huey.revoke(result.task, revoke_once=True)
    assert huey.is_revoked(result.task, peek=True)
    assert huey.is_revoked(result.task, peek=False)
    assert not huey.is_revoked(result.task, peek=False)


def test_who_waits_for_a_revoked_task_is_told(huey, note):
    result = note(1)
    huey.revoke(result.task)
    drain(huey)
    with pytest.raises(TaskRevoked, match=result.task_id):
        result.get(blocking=True, timeout=5)


def test_a_task_that_was_never_enqueued_can_be_revoked(huey, note, ran):
    task = note.task_class(((1,), {}))
    huey.revoke(task)
    huey.enqueue(task)
    drain(huey)
    assert ran == []


def test_an_unknown_id_is_not_revoked(huey):
    assert not huey.is_revoked('unknown')
    assert huey.restore_by_id('unknown') is False


def test_an_unknown_id_can_be_revoked_in_advance(huey, note, ran):
    huey.revoke_by_id('to-come')
    note.schedule(args=(1,), task_id='to-come')
    drain(huey)
    assert ran == []
