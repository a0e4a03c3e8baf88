"""What a task may be told beside its arguments (priority, expiry, a context to run in), and what can be done with it later."""

from __future__ import annotations

import contextlib
import datetime
import time
from types import SimpleNamespace

import pytest

from geventhuey import CancelExecution, ConfigurationError, DataStoreGetException, SerializationError, TaskLost, crontab
from geventhuey.exceptions import StorageUnavailable
from geventhuey.testing import drain
from tests.api.kit import BOUND


@pytest.fixture
def app(huey):
    """Two tasks that note their argument."""
    ran = []
    plain = huey.task(name='plain')(lambda n: ran.append(n))
    urgent = huey.task(name='urgent', priority=10, expires=3600)(lambda n: ran.append(n))
    return SimpleNamespace(ran=ran, plain=plain, urgent=urgent)


# -- priority ----------------------------------------------------------------------------------------------------

def test_what_has_a_higher_priority_runs_first(huey, app):
    app.plain(1)
    app.urgent(2)
    app.plain.schedule((3,), priority=20)
    app.plain.schedule((4,), priority=-1)
    app.urgent.schedule((5,), priority=0)
    huey.enqueue_many([app.plain.s(6), app.urgent.s(7)])
    drain(huey)
    assert app.ran == [3, 2, 7, 1, 5, 6, 4]


def test_a_retry_keeps_its_priority_and_expiry(huey, app):
    @huey.task(name='fails', retries=1, priority=5, expires=60)
    def fails():
        raise ValueError('as it should')

    fails()
    drain(huey, limit=1)
    (task,) = huey.pending()
    assert task.priority == 5 and 0 < task.expires - time.time() <= 60


@pytest.mark.parametrize('priority, error', [(1.5, TypeError), ('high', TypeError), (True, TypeError), (40_000, ConfigurationError)])
def test_what_is_no_priority_is_refused(huey, app, priority, error):
    for attempt in (lambda: huey.task(priority=priority), lambda: app.plain.schedule((1,), priority=priority),
                    lambda: huey.periodic_task(crontab(), priority=priority)):
        with pytest.raises(error, match='priority'):
            attempt()
    assert huey.pending_count() == 0


# -- expiry ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('expires', [0.01, datetime.timedelta(milliseconds=10), datetime.datetime(2020, 1, 1)])
def test_a_task_that_was_not_started_in_time_is_lost(huey, app, expires):
    late = huey.task(name='late', expires=expires)(lambda: app.ran.append('late'))
    results = [late(), app.plain.schedule((1,), expires=expires), late.schedule(expires=3600)]
    time.sleep(0.02)
    drain(huey)
    for result in results[:2]:
        with pytest.raises(TaskLost, match='expired'):
            result.get(blocking=True, timeout=BOUND)
    assert app.ran == ['late']


def test_expiry_counts_from_the_call(huey, app):
    before = time.time()
    app.urgent(1)
    app.urgent.schedule((1,), delay=60)
    (task,), (later,) = huey.pending(), huey.scheduled()
    for one in (task, later):
        assert before + 3600 - 0.001 <= one.expires <= time.time() + 3600 + 0.001


def test_a_local_datetime_and_an_aware_one_are_understood(huey, app):
    moment = datetime.datetime(2100, 1, 1, 12)
    app.plain.schedule((1,), expires=moment)
    app.plain.schedule((1,), expires=moment.replace(tzinfo=datetime.timezone.utc))
    utc, local = huey.pending()
    assert local.expires == moment.timestamp() and utc.expires == 4102488000


@pytest.mark.parametrize('expires, error', [
    (0, ConfigurationError), (-1, ConfigurationError), ('soon', TypeError), (1e12, ConfigurationError)])
def test_what_is_no_expiry_is_refused(huey, app, expires, error):
    for attempt in (lambda: huey.task(expires=expires), lambda: app.plain.schedule((1,), expires=expires),
                    lambda: huey.periodic_task(crontab(), expires=expires)):
        with pytest.raises(error, match='expires'):
            attempt()


def test_the_first_instant_of_1970_is_no_never(huey, app):
    app.plain.schedule((1,), expires=datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc))
    drain(huey)
    assert app.ran == []


@pytest.mark.parametrize('wrong', [float('nan'), float('inf'), float('-inf')])
def test_what_is_no_ordinary_number_is_refused(huey, app, wrong):
    for setting in ({'delay': wrong}, {'expires': wrong}, {'priority': wrong}):
        with pytest.raises((ConfigurationError, TypeError), match=next(iter(setting))):
            app.plain.schedule((1,), **setting)


@pytest.mark.parametrize('setting, wrong', [('priority', 1.5), ('priority', None), ('priority', 40_000), ('expires', float('nan')),
                                            ('expires', float('inf')), ('expires', 'soon'), ('expires', datetime.datetime(2100, 1, 1))])
@pytest.mark.parametrize('secret', [(), 'of sixteen bytes or more'])
def test_what_a_task_was_told_by_hand_is_looked_at_before_it_is_sent(make, setting, wrong, secret):
    huey = make(secret=secret)
    task = huey.task(name='plain')(lambda: None).s()
    setattr(task, setting, wrong)
    with pytest.raises((ConfigurationError, TypeError), match=setting):
        huey.enqueue(task)
    assert huey.pending_count() == 0


def test_a_task_that_expired_before_1970_is_not_run(huey, app):
    app.plain.schedule((1,), expires=datetime.datetime(1900, 1, 1))
    drain(huey)
    assert app.ran == []


# -- periodic tasks ----------------------------------------------------------------------------------------------

def test_a_periodic_run_has_the_settings_of_its_task(huey):
    @huey.periodic_task(crontab(), name='each', retries=3, retry_delay=2.5, priority=7, expires=30)
    def each():
        pass

    run = each.task_class.run('an-id', 1000.0)
    assert (run.task_id, run.retries, run.retry_delay, run.priority, run.expires) == ('an-id', 3, 2.5, 7, 1030.0)
    plain = huey.periodic_task(crontab(), name='plain')(lambda: None).task_class.run('an-id', 1000.0)
    assert (plain.retries, plain.retry_delay, plain.priority, plain.expires) == (0, 0, 0, None)


def test_wrong_settings_of_a_periodic_task_are_refused(huey):
    for wrong in ({'retries': -1}, {'retry_delay': -1}, {'retries': 1.5}):
        with pytest.raises((ConfigurationError, TypeError), match=next(iter(wrong))):
            huey.periodic_task(crontab(), **wrong)


# -- a context to run in -----------------------------------------------------------------------------------------

def test_a_task_runs_within_a_context(huey):
    seen = []


    class Database:
        def __enter__(self):
            seen.append('open')
            return 'a connection'

        def __exit__(self, *error):
            seen.append('closed')

    @huey.context_task(Database(), retries=2)
    def count(table):
        """How many rows there are."""
        seen.append(table)

    @huey.context_task(Database(), as_argument=True, name='insert')
    def insert(connection, row):
        seen.append((connection, row))

    assert count.__doc__ == 'How many rows there are.' and count.s('t').retries == 2
    assert count.task_class.task_name == f'{__name__}.count'
    count('t')
    insert('r')
    drain(huey)
    assert seen == ['open', 't', 'closed', 'open', ('a connection', 'r'), 'closed']
    with pytest.raises(TypeError, match='with'):
        huey.context_task(3)


def test_a_context_of_contextlib_is_entered_for_each_run(huey):
    @contextlib.contextmanager
    def connection():
        yield 5

    times = huey.context_task(connection(), as_argument=True, name='times')(lambda given, n: given * n)
    results = times.map([1, 2])
    drain(huey)
    assert results.get(blocking=True, timeout=BOUND) == [5, 10]


def test_an_argument_that_cannot_travel_is_named_beside_a_context(huey):
    @huey.context_task(contextlib.nullcontext(), as_argument=True, name='insert')
    def insert(connection, row):
        pass

    with pytest.raises(SerializationError, match="argument 'row'"):
        insert(object())


# -- afterwards --------------------------------------------------------------------------------------------------

def test_is_ready_says_that_a_task_has_ended_and_takes_nothing(huey, app):
    result = app.plain(1)
    assert not result.is_ready()
    drain(huey)
    assert result.is_ready() and result.is_ready()
    value = huey.task(name='value')(lambda: 3)()
    drain(huey)
    assert value.is_ready() and value.get() == 3 and value.is_ready()


def test_is_ready_says_when_the_storage_cannot_be_asked(huey, app, monkeypatch):
    def away(*args):
        raise StorageUnavailable('gone')

    result = app.plain(1)
    monkeypatch.setattr(huey.storage, 'results_of', away)
    with pytest.raises(DataStoreGetException, match='gone'):
        result.is_ready()


def test_a_task_is_rescheduled(huey, app):
    first = app.urgent.schedule((1,), delay=600)
    second = first.reschedule(delay=1200)
    third = second.reschedule()
    assert [result.task_id for result in (first, second)] == [task.task_id for task in huey.scheduled()]
    (task,) = huey.pending()
    assert task.task_id == third.task_id and (task.priority, task.get_data()) == (10, ((1,), {})) and task.expires is not None
    assert huey.is_revoked(first.task) and huey.is_revoked(second.task) and not huey.is_revoked(third.task)
    fourth = third.reschedule(eta=datetime.datetime.now() + datetime.timedelta(minutes=30))
    drain(huey)
    assert app.ran == [] and huey.scheduled()[-1].task_id == fourth.task_id
    with pytest.raises(ValueError):
        fourth.reschedule(eta=datetime.datetime(2100, 1, 1), delay=3)


def test_a_run_of_a_periodic_task_is_rescheduled_and_the_others_stay(huey):
    ran = []
    each = huey.periodic_task(crontab(), name='each')(lambda: ran.append(1))
    first = each.task_class()
    huey.enqueue(first)
    huey.reschedule(first)
    drain(huey)
    assert ran == [1] and not each.is_revoked()


def test_is_ready_whatever_the_end(huey):
    @huey.task(name='ends')
    def ends(error=None):
        if error:
            raise {'exit': SystemExit, 'cancelled': CancelExecution, 'failed': ValueError}[error]('as it should')

    results = [ends(), ends('exit'), ends('cancelled'), ends('failed'), ends.schedule(expires=datetime.datetime(2020, 1, 1)), ends()]
    results[-1].revoke()
    assert not any(result.is_ready() for result in results)
    drain(huey)
    assert all(result.is_ready() for result in results)
    results[0].get()
    results[0].reset()
    assert results[0].is_ready()


def test_all_tasks_of_a_class_are_revoked_and_restored(huey, app):
    app.plain(1)
    huey.revoke_all(app.plain.task_class, revoke_once=True)
    app.plain(2)
    drain(huey)
    assert app.ran == [2]
    huey.revoke_all(app.plain.task_class)
    assert app.plain.is_revoked() and huey.restore_all(app.plain.task_class) and not huey.restore_all(app.plain.task_class)


def test_a_task_that_would_expire_before_it_is_due_is_refused(huey, app):
    month = datetime.datetime.now() + datetime.timedelta(days=30)
    for attempt in (lambda: app.plain.schedule((1,), delay=60, expires=10), lambda: app.urgent.schedule((1,), eta=month),
                    lambda: app.urgent.schedule((1,), delay=60).reschedule(delay=7200)):
        with pytest.raises(ConfigurationError, match='would expire .* before it is due'):
            attempt()
    assert huey.pending_count() == 0 and huey.scheduled_count() == 1


def test_a_group_is_ready_when_all_have_ended(huey, app):
    results = app.plain.map([1, 2])
    assert not results.is_ready()
    drain(huey, limit=1)
    assert not results.is_ready()
    drain(huey)
    assert results.is_ready() and results.get(blocking=True, timeout=BOUND) == [None, None] and results.is_ready()
