"""Huey.periodic_task(validate_datetime), and what it adds to the function."""

from __future__ import annotations

import datetime

import pytest

from geventhuey import PeriodicQueueTask, crontab
from geventhuey.message import PERIODIC
from geventhuey.testing import drain

AT_FIVE_PAST = datetime.datetime(2035, 6, 1, 12, 5)
AT_SIX_PAST = datetime.datetime(2035, 6, 1, 12, 6)


@pytest.fixture
def ran():
    return []


@pytest.fixture
def every_five_minutes(huey, ran):
    """The seed's example."""
    @huey.periodic_task(crontab(minute='*/5'))
    def every_five_minutes():
        """Runs often."""
        ran.append('five')
        return 'a value'
    return every_five_minutes


def tick(huey, moment):
    """A consumer's minute has come: what is due has been enqueued and has run."""
    for task in huey.read_periodic(moment):
        huey.storage.tick(task.task_name, int(moment.timestamp()), huey.registry.message(task, PERIODIC))
    return drain(huey)


def test_a_call_is_an_ordinary_call(huey, every_five_minutes, ran):
    assert every_five_minutes() == 'a value'
    assert ran == ['five']
    assert huey.pending_count() == 0


def test_it_is_marked_for_the_consumer(huey, every_five_minutes):
    name = every_five_minutes.task_class.task_name
    assert huey.get_periodic_tasks() == [name]
    assert huey.get_regular_tasks() == []
    assert [cls.task_name for cls in huey.registry.periodic()] == [name]


def test_it_runs_when_validate_datetime_says_so(huey, every_five_minutes, ran):
    tick(huey, AT_SIX_PAST)
    assert ran == []
    tick(huey, AT_FIVE_PAST)
    assert ran == ['five']


def test_it_runs_once_in_a_minute_however_many_ask(huey, every_five_minutes, ran):
    tick(huey, AT_FIVE_PAST)
    tick(huey, AT_FIVE_PAST)
    assert ran == ['five']
    tick(huey, AT_FIVE_PAST + datetime.timedelta(minutes=5))
    assert ran == ['five', 'five']


def test_validate_datetime_is_any_callable_of_a_datetime(huey, ran):
    asked = []

    def only_at_six_past(moment):
        asked.append(moment)
        return moment.minute == 6

    @huey.periodic_task(only_at_six_past)
    def at_six_past():
        ran.append('six')

    tick(huey, AT_FIVE_PAST)
    tick(huey, AT_SIX_PAST)
    assert ran == ['six']
    assert asked == [AT_FIVE_PAST, AT_SIX_PAST]


def test_what_validate_datetime_answers_is_taken_for_true_or_false(huey):
    @huey.periodic_task(lambda moment: 'yes')
    def always():
        pass

    assert always.task_class().validate_datetime(AT_SIX_PAST) is True


def test_without_a_moment_it_is_now(make, clock):
    huey = make()

    asked = []

    @huey.periodic_task(asked.append)
    def never():
        pass

    assert huey.read_periodic() == []
    assert asked == [datetime.datetime.fromtimestamp(clock.now(), datetime.timezone.utc).replace(tzinfo=None)]


def test_each_run_has_an_id_of_its_own(huey, every_five_minutes):
    first, second = every_five_minutes.task_class(), every_five_minutes.task_class()
    assert first.task_id != second.task_id


@pytest.mark.parametrize('result_store', [True, False])
def test_what_it_returns_is_not_kept(make, ran, result_store):
    huey = make(result_store=result_store, store_none=True)

    @huey.periodic_task(crontab())
    def always():
        return 'a value'

    assert len(tick(huey, AT_FIVE_PAST)) == 1
    assert huey.result_count() == 0


def test_an_error_of_it_is_noted(huey):
    @huey.periodic_task(crontab())
    def always():
        raise ValueError('it went wrong')

    tick(huey, AT_FIVE_PAST)
    entry, = huey.errors()
    assert entry['name'] == always.task_class.task_name
    assert huey.result_count() == 0


def test_arguments_with_defaults_are_fine(huey, ran):
    @huey.periodic_task(crontab())
    def always(a=1, *rest, b=2, **more):
        ran.append((a, rest, b, more))

    tick(huey, AT_FIVE_PAST)
    assert ran == [(1, (), 2, {})]


def test_the_function_keeps_its_name_and_its_text(every_five_minutes):
    assert every_five_minutes.__name__ == 'every_five_minutes'
    assert every_five_minutes.__doc__ == 'Runs often.'


def test_a_name_of_ones_own(huey):
    @huey.periodic_task(crontab(), name='backup')
    def anything():
        pass

    assert huey.get_periodic_tasks() == ['backup']


def test_task_class_is_the_class_of_its_tasks(every_five_minutes):
    cls = every_five_minutes.task_class
    assert issubclass(cls, PeriodicQueueTask)
    assert cls.__name__ == 'queuecmd_every_five_minutes'
    assert cls.__module__ == __name__


# -- {function}.revoke, .is_revoked, .restore -------------------------------------------------------------------

def test_revoke_prevents_it_from_executing(huey, every_five_minutes, ran):
    every_five_minutes.revoke()
    assert every_five_minutes.is_revoked()
    for minute in (5, 10, 15):
        tick(huey, AT_FIVE_PAST.replace(minute=minute))
    assert ran == []


def test_revoke_once_skips_the_next_execution_only(huey, every_five_minutes, ran):
    every_five_minutes.revoke(revoke_once=True)
    tick(huey, AT_FIVE_PAST)
    assert ran == []
    assert not every_five_minutes.is_revoked()
    tick(huey, AT_FIVE_PAST.replace(minute=10))
    assert ran == ['five']


def test_revoke_until_a_datetime(make, clock, ran):
    huey = make()

    @huey.periodic_task(crontab())
    def always():
        ran.append(1)

    def local(seconds):
        return datetime.datetime.fromtimestamp(clock.now() + seconds)

    always.revoke(local(86400))
    assert always.is_revoked()
    assert always.is_revoked(local(86399))
    assert not always.is_revoked(local(86400))
    assert not always.is_revoked(local(86401))
    tick(huey, AT_FIVE_PAST)
    assert ran == []
    clock.advance(86401)
    assert not always.is_revoked()
    tick(huey, AT_SIX_PAST)
    assert ran == [1]


def test_each_revocation_overwrites_the_one_before(huey, every_five_minutes):
    every_five_minutes.revoke()
    every_five_minutes.revoke(datetime.datetime.now() - datetime.timedelta(seconds=1))
    assert not every_five_minutes.is_revoked()
    every_five_minutes.revoke(revoke_once=True)
    assert every_five_minutes.is_revoked()
    every_five_minutes.revoke()
    tick(huey, AT_FIVE_PAST)
    assert every_five_minutes.is_revoked()


def test_asking_does_not_use_up_a_revoke_once(every_five_minutes):
    every_five_minutes.revoke(revoke_once=True)
    assert every_five_minutes.is_revoked()
    assert every_five_minutes.is_revoked()


def test_restore_clears_every_revocation(huey, every_five_minutes, ran):
    for arguments in ({}, {'revoke_once': True}, {'revoke_until': datetime.datetime.now() + datetime.timedelta(days=1)}):
        every_five_minutes.revoke(**arguments)
        assert every_five_minutes.restore() is True
        assert not every_five_minutes.is_revoked()
        assert every_five_minutes.restore() is False
    tick(huey, AT_FIVE_PAST)
    assert ran == ['five']


def test_a_revocation_does_not_touch_other_functions(huey, every_five_minutes):
    @huey.periodic_task(crontab())
    def another():
        pass

    every_five_minutes.revoke()
    assert not another.is_revoked()


def test_a_revoked_one_can_still_be_called(every_five_minutes, ran):
    every_five_minutes.revoke()
    every_five_minutes()
    assert ran == ['five']
