"""Signals, hooks, and what is called when a consumer starts and stops."""

from __future__ import annotations

import contextvars
import datetime
import pickle

import gevent
import pytest

from geventhuey import (
    CancelExecution,
    ConfigurationError,
    RetryTask,
    TaskCancelled,
    TaskException,
    TaskLost,
)
from geventhuey.signals import SIGNALS
from geventhuey.testing import drain
from tests.api.kit import BOUND, wait_until


@pytest.fixture
def told(huey):
    """What the signals have said: (signal, name of the task, error)."""
    told = []

    @huey.signal()
    def note(signal, task, exc=None):
        told.append((signal, task.task_name, type(exc).__name__ if exc else None))
    return told


@pytest.fixture
def work(huey):
    """A task that does as it is told."""
    @huey.task(name='work')
    def work(error=None):
        if error is not None:
            raise error
        return 'done'
    huey.allow(RetryTask)
    huey.allow(CancelExecution)
    return work


# -- signals ---------------------------------------------------------------------------------------------------

def test_signals_accompany_a_task_on_its_way(huey, work, told):
    work()
    work.map([ValueError('as it should')])
    assert told == [('enqueued', 'work', None)] * 2
    drain(huey)
    assert told[2:] == [('executing', 'work', None), ('complete', 'work', None),
                        ('executing', 'work', None), ('error', 'work', 'ValueError')]


def test_signals_of_what_is_scheduled_retried_revoked_and_expired(huey, told):
    @huey.task(name='again', retries=1, retry_delay=60)
    def again():
        raise ValueError('as it should')

    @huey.task(name='other', expires=datetime.datetime(2020, 1, 1))
    def other():
        pass

    again()
    drain(huey)
    assert [signal for signal, *_ in told] == ['enqueued', 'executing', 'error', 'retrying', 'scheduled']
    told.clear()
    again.schedule(delay=60)
    revoked = again()
    revoked.revoke()
    other()
    drain(huey)
    assert [(signal, name) for signal, name, _ in told] == [
        ('scheduled', 'again'), ('enqueued', 'again'), ('enqueued', 'other'), ('revoked', 'again'), ('expired', 'other')]


def test_a_handler_hears_only_what_it_asked_for_until_it_is_disconnected(huey, work):
    heard = []

    @huey.signal('complete', 'error')
    def handler(signal, task, exc=None):
        heard.append(signal)

    work()
    drain(huey)
    huey.disconnect_signal(handler, 'error')
    work(ValueError('as it should'))
    work()
    drain(huey)
    huey.disconnect_signal(handler)
    work()
    drain(huey)
    assert heard == ['complete', 'complete']


def test_a_handler_that_fails_changes_nothing_and_is_logged(huey, work, told, caplog):
    @huey.signal('executing')
    def broken(signal, task):
        raise LookupError('of the handler')

    result = work()
    drain(huey)
    assert result.get() == 'done' and ('complete', 'work', None) in told
    assert 'broken' in caplog.text and 'of the handler' in caplog.text


def test_an_unknown_signal_and_missing_parentheses_are_refused(huey):
    with pytest.raises(ConfigurationError, match="no signal 'finished'; there are canceled, complete"):
        huey.signal('finished')(print)
    for decorator in (huey.signal, huey.pre_execute, huey.post_execute, huey.on_startup, huey.on_shutdown):
        with pytest.raises(TypeError, match='parentheses'):
            @decorator
            def function():
                pass
        with pytest.raises(TypeError):
            huey.pre_execute()(3)
    assert len(SIGNALS) == 10


def test_eager_tasks_have_signals_and_hooks_too(make):
    huey = make(always_eager=True)
    heard = []
    huey.signal()(lambda signal, task, exc=None: heard.append(signal))
    huey.pre_execute('before')(lambda task: heard.append('before'))
    huey.post_execute('after')(lambda task, value, error: heard.append((value, type(error).__name__)))
    double = huey.task(name='double')(lambda n: n * 2)
    assert double(2).get() == 4
    with pytest.raises(TypeError):
        double(None)
    assert heard == ['executing', 'before', (4, 'NoneType'), 'complete', 'executing', 'before', (None, 'TypeError'), 'error']


# -- hooks -----------------------------------------------------------------------------------------------------

def test_hooks_are_called_before_and_after_each_task(huey, work):
    calls = []
    huey.pre_execute()(lambda task: calls.append(('first', task.task_name)))
    huey.pre_execute('second')(lambda task: calls.append(('second', task.get_data()[1])))
    huey.post_execute('after')(lambda task, value, error: calls.append((value, str(error or ''))))
    work()
    work(error=ValueError('as it should'))
    drain(huey)
    assert calls[:3] == [('first', 'work'), ('second', {}), ('done', '')]
    assert calls[3] == ('first', 'work') and calls[5] == (None, 'as it should')
    assert huey.unregister_pre_execute('second') and not huey.unregister_pre_execute('second')
    assert huey.unregister_post_execute('after')
    calls.clear()
    work()
    drain(huey)
    assert calls == [('first', 'work')]


def test_a_hook_before_can_cancel_the_task(huey, work, told):
    @huey.pre_execute()
    def refuse(task):
        raise CancelExecution('not today')

    result = work()
    drain(huey)
    with pytest.raises(TaskCancelled, match='not today'):
        result.get(blocking=True, timeout=BOUND)
    assert [signal for signal, *_ in told] == ['enqueued', 'executing', 'canceled']
    assert huey.errors() == [] and huey.unregister_pre_execute(refuse)


def test_a_hook_that_fails_is_logged_and_the_task_is_run(huey, work, caplog):
    @huey.pre_execute()
    def before(task):
        raise LookupError('before it')

    @huey.post_execute()
    def after(task, value, error):
        raise LookupError('after it')

    result = work()
    drain(huey)
    assert result.get() == 'done' and 'before it' in caplog.text and 'after it' in caplog.text


def test_a_hook_before_is_in_the_context_of_its_task(huey):
    name = contextvars.ContextVar('name', default='nobody')
    huey.pre_execute()(lambda task: name.set(task.task_id))
    who = huey.task(name='who')(name.get)
    one, two = who(), who()
    drain(huey)
    assert [one.get(), two.get()] == [one.task_id, two.task_id] and name.get() == 'nobody'


@pytest.mark.filterwarnings('ignore:greenlet workers')
@pytest.mark.parametrize('worker_type', ['thread', 'greenlet'])
def test_a_consumer_calls_what_is_to_be_called_as_it_starts_and_stops(huey, work, worker_type, caplog):
    calls = []

    @huey.on_startup()
    def start():
        calls.append(('startup', huey.pending_count()))

    @huey.on_startup('broken')
    def broken():
        raise LookupError('as it starts')

    @huey.on_shutdown()
    def stop():
        calls.append('shutdown')

    result = work()
    with huey.consumer(worker_type=worker_type):
        assert result.get(blocking=True, timeout=BOUND) == 'done'
        assert calls == [('startup', 1)]
    assert calls == [('startup', 1), 'shutdown'] and 'as it starts' in caplog.text
    assert huey.unregister_on_startup('broken') and huey.unregister_on_startup(start) and huey.unregister_on_shutdown(stop)
    with huey.consumer(worker_type=worker_type):
        pass
    assert len(calls) == 2


# -- tasks that end themselves -----------------------------------------------------------------------------------

def test_a_task_that_asks_for_it_is_run_again_and_that_is_no_failure(huey, told):
    runs = []

    @huey.task(name='patient')
    def patient(data):
        data.append(1)
        runs.append(len(data))
        if len(runs) < 4:
            raise RetryTask('not ready')
        return len(runs)

    result = patient([])
    drain(huey)
    assert result.get() == 4 and runs == [1, 1, 1, 1] and huey.errors() == []
    assert [signal for signal, *_ in told].count('retrying') == 3 and 'error' not in [signal for signal, *_ in told]


def test_a_task_says_when_it_is_to_be_run_again(huey, work):
    work.schedule(args=(RetryTask(delay=3600),), task_id='delayed')
    work.schedule(args=(RetryTask(eta=datetime.datetime.now() + datetime.timedelta(days=30)),), task_id='later')
    work.schedule(args=(RetryTask(eta=datetime.datetime(2000, 1, 1)),), task_id='past')
    drain(huey, limit=3)
    assert [task.task_id for task in huey.scheduled()] == ['delayed', 'later']
    assert [task.task_id for task in huey.pending()] == ['past']


@pytest.mark.parametrize('wrong', [{'delay': -1}, {'delay': 'soon'}, {'eta': 'soon'}, {'eta': datetime.datetime(2900, 1, 1)}])
def test_a_task_that_asks_for_an_impossible_time_has_failed(huey, work, wrong):
    result = work(RetryTask(**wrong))
    drain(huey)
    with pytest.raises(TaskException, match='delay|datetime|eta'):
        result.get(blocking=True, timeout=BOUND)


def test_a_task_can_cancel_itself(huey, work, told):
    result = work(CancelExecution())
    drain(huey)
    assert result.is_ready()
    with pytest.raises(TaskCancelled, match='CancelExecution'):
        result.get()
    assert [signal for signal, *_ in told] == ['enqueued', 'executing', 'canceled']


@pytest.mark.parametrize('retries, retry, runs', [(0, None, 1), (2, None, 3), (2, False, 1), (0, True, None), (2, True, None)])
def test_whether_a_cancelled_task_is_run_again(huey, retries, retry, runs):
    count = []

    @huey.task(name='cancels', retries=retries)
    def cancels():
        count.append(1)
        raise CancelExecution(retry=retry)

    cancels()
    drain(huey, limit=10)
    assert len(count) == (10 if runs is None else runs)


def test_a_lost_task_is_no_cancelled_one():
    assert not issubclass(TaskCancelled, TaskLost) and issubclass(TaskCancelled, TaskException)


# -- what else may happen in them --------------------------------------------------------------------------------

def test_a_callers_timeout_strikes_although_a_handler_is_slow(huey, work):
    huey.signal('enqueued')(lambda signal, task: gevent.sleep(BOUND))
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
        work()
    assert huey.pending_count() == 1


@pytest.mark.parametrize('error', [SystemExit(1), gevent.GreenletExit(), gevent.Timeout(), KeyboardInterrupt()])
def test_whatever_a_callback_raises_the_task_is_run(huey, work, error):
    def broken(*args):
        raise error

    for decorate in (huey.pre_execute(), huey.post_execute(), huey.signal('executing', 'complete')):
        decorate(broken)
    result = work()
    drain(huey)
    assert result.get() == 'done'


def test_hooks_of_one_name_are_all_called_unless_it_was_given(huey, work):
    called = []
    for number in range(3):
        @huey.pre_execute()
        def setup(task, number=number):
            called.append(number)

        @huey.pre_execute('replaced')
        def replaced(task, number=number):
            called.append(f'replaced {number}')

    work()
    drain(huey)
    assert sorted(called, key=str) == [0, 1, 2, 'replaced 2']
    assert huey.unregister_pre_execute(setup) and huey.unregister_pre_execute('replaced')
    called.clear()
    work()
    drain(huey)
    assert called == [0, 1]


def test_a_retry_starts_without_what_a_hook_has_set(huey):
    seen = []

    @huey.pre_execute()
    def add(task):
        args, kwargs = task.get_data()
        task.set_data(((*args, 'of the hook'), kwargs))

    @huey.task(name='fails', retries=2)
    def fails(*args):
        seen.append(args)
        raise ValueError('as it should')

    fails(1)
    drain(huey)
    assert seen == [(1, 'of the hook')] * 3


def test_a_hook_after_is_in_the_context_of_its_task(huey, work):
    name = contextvars.ContextVar('name', default='nobody')
    seen = []
    huey.pre_execute()(lambda task: name.set(task.task_id))
    huey.post_execute()(lambda task, value, error: seen.append(name.get()))
    results = [work(), work(ValueError('as it should'))]
    drain(huey)
    assert seen == [result.task_id for result in results]


def test_a_cancelled_task_is_no_error_when_it_is_run_eagerly(make):
    huey, heard = make(always_eager=True), []
    huey.signal()(lambda signal, task: heard.append(signal))
    huey.pre_execute('refuse')(_refuse)
    with pytest.raises(CancelExecution):
        huey.task(name='plain')(lambda: None)()
    assert heard == ['executing', 'canceled']


def _refuse(task):
    raise CancelExecution('not today')


@pytest.mark.filterwarnings('ignore:greenlet workers')
@pytest.mark.parametrize('slow', ['post_execute', 'complete'])
def test_a_task_that_has_ended_stays_so_when_the_consumer_cannot_wait_for_what_follows(huey, slow):
    begun = []

    def wait(*args):
        begun.append(1)
        gevent.sleep(BOUND)

    (huey.post_execute() if slow == 'post_execute' else huey.signal(slow))(wait)
    result = huey.task(name='once', at_most_once=True)(lambda: 'done')()
    consumer = huey.create_consumer(worker_type='greenlet').start()
    wait_until(lambda: begun)
    consumer.stop(0.0)
    assert result.get(blocking=True, timeout=BOUND) == 'done' and huey.pending_count() == 0 and huey.dead() == []


@pytest.mark.filterwarnings('ignore:greenlet workers')
@pytest.mark.parametrize('slow', ['pre_execute', 'executing'])
def test_a_task_that_has_not_begun_goes_back_when_the_consumer_stops(huey, slow):
    begun, heard = [], []

    def wait(*args):
        begun.append(1)
        gevent.sleep(BOUND)

    (huey.pre_execute() if slow == 'pre_execute' else huey.signal(slow))(wait)
    huey.signal('interrupted')(lambda signal, task: heard.append(signal))
    huey.task(name='plain')(lambda: 'done')()
    consumer = huey.create_consumer(worker_type='greenlet').start()
    wait_until(lambda: begun)
    consumer.stop(0.0)
    assert heard == ['interrupted'] and huey.pending_count() == 1


def test_a_task_that_has_spoilt_its_own_retries_has_failed(huey):
    @huey.task(name='spoils', include_task=True)
    def spoils(task):
        task.retries = None
        raise ValueError('as it should')

    result = spoils()
    drain(huey)
    with pytest.raises(TaskException, match='as it should'):
        result.get(blocking=True, timeout=BOUND)


def test_one_cancelled_task_of_a_signing_application_leaves_the_others_of_its_group(make):
    huey = make(secret='of sixteen bytes or more')

    @huey.task(name='odd', at_most_once=True)
    def odd(n):
        if n == 1:
            raise CancelExecution('not \ud800 this')
        return n

    group = odd.map([0, 1, 2])
    drain(huey)
    values = group.as_completed(timeout=BOUND)
    with pytest.raises(TaskCancelled, match=r'not \? this'):
        list(values)
    with pytest.raises(TaskCancelled):
        group.get(blocking=True, timeout=BOUND)
    assert [group[0], group[2]] == [0, 2]


@pytest.mark.parametrize('error', [CancelExecution('x', True), RetryTask('x', delay=3), TaskCancelled('x', {'task_id': 'y'}),
                                   RetryTask('x', datetime.datetime(2020, 1, 1))])
def test_what_they_raise_can_be_pickled(error):
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_a_number_instead_of_a_message_is_refused_where_it_is_raised():
    with pytest.raises(TypeError, match=r'write RetryTask\(delay=30\)'):
        RetryTask(30)
    with pytest.raises(TypeError, match=r'write CancelExecution\(retry=True\)'):
        CancelExecution(True)


def test_a_signal_is_given_names_and_then_a_function(huey):
    with pytest.raises(ConfigurationError, match='no signal'):
        huey.signal('error', print)
    with pytest.raises(TypeError, match='calls a function'):
        huey.signal('error')(5)
