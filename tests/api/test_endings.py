"""How a task may end: whatever it raises is its own affair, and whatever a message holds does not end who runs it."""

from __future__ import annotations

import gc
import itertools
import logging
import pickle
import weakref

import gevent
import greenlet
import pytest

from geventhuey import TaskException
from geventhuey.exceptions import SerializationError, TaskInterrupted
from geventhuey.executor import DEAD, FAILED, FINISHED, RELEASED, RETRYING
from geventhuey.lease import Lease
from geventhuey.message import Message
from geventhuey.storage.base import Bury, Delivery, Keep, NoteError, Publish, Settlement
from geventhuey.testing import drain
from geventhuey.texts import MAX_TEXT, MAX_TRACEBACK


class BrokenRepr(Exception):
    def __repr__(self):
        raise RuntimeError('no repr')

    __str__ = __repr__


class BrokenReprForGood(Exception):
    def __repr__(self):
        raise SystemExit('no repr')

    __str__ = __repr__


class NoText(Exception):
    def __repr__(self):
        return None

    __str__ = __repr__


class BrokenPickle(Exception):
    def __reduce__(self):
        raise RuntimeError('no pickle')


class BrokenTruth(Exception):
    def __bool__(self):
        raise RuntimeError('neither true nor false')

    __len__ = __bool__


class Surrogate(Exception):
    def __repr__(self):
        return 'Surrogate \udc80 \x1b[31m'


def recurse():
    recurse()


def hoard():
    return bytes(2 ** 62)


def run_out():
    return next(iter(()))


def time_out():
    with gevent.Timeout(0):
        gevent.sleep(60)


def raise_from():
    try:
        raise BrokenRepr
    except BrokenRepr as exc:
        raise ValueError('from it') from exc


def raising(error):
    def work():
        raise error
    return work


ENDINGS = {
    'Exception': raising(Exception('text')),
    'SystemExit': raising(SystemExit('text')),
    'KeyboardInterrupt': raising(KeyboardInterrupt('text')),
    'GreenletExit': raising(greenlet.GreenletExit('text')),
    'GeneratorExit': raising(GeneratorExit('text')),
    'StopIteration': run_out,
    'Timeout': time_out,
    'Timeout that is somebody else\'s': raising(gevent.Timeout(5)),
    'MemoryError': hoard,
    'RecursionError': recurse,
    'BaseException': raising(BaseException('text')),
    'a class of ones own': raising(type('Mine', (BaseException,), {})('text')),
    'an interrupt that is not ours': raising(TaskInterrupted('text')),
    'broken repr': raising(BrokenRepr()),
    'repr that exits': raising(BrokenReprForGood()),
    'repr that is no text': raising(NoText()),
    'broken pickle': raising(BrokenPickle('text')),
    'broken truth': raising(BrokenTruth('text')),
    'text that is no text': raising(Surrogate()),
    'an error of ours': raising(SerializationError('text')),
    'from a broken one': raise_from,
    'with a long text': raising(ValueError('x' * 1_000_000)),
    'no exception': lambda: (_ for _ in ()).throw(TypeError('exceptions must derive from BaseException')),
}


def take(huey):
    """The next delivery, held by nobody who matters."""
    lease = Lease()
    lease.register(huey.storage)
    delivery, = lease.fetch(huey.storage, {'default': 1}, 1).deliveries
    return delivery


@pytest.mark.parametrize('ending', ENDINGS)
def test_whatever_a_task_raises_is_recorded_as_its_failure(huey, ending):
    @huey.task(name='work')
    def work():
        ENDINGS[ending]()

    result = work()
    delivery = take(huey)
    outcome = huey.executor().execute(delivery)
    assert outcome.status == FAILED
    assert [type(effect) for effect in outcome.effects] == [NoteError, Keep]
    huey.storage.settle(delivery.consumer, [Settlement(delivery.tag, outcome.effects)])
    with pytest.raises(TaskException) as raised:
        result.get()
    entry, = huey.errors()
    name = type(outcome.error).__name__
    assert name in entry['error']
    assert str(raised.value) == entry['error']
    assert len(entry['error']) <= MAX_TEXT and len(entry['traceback']) <= MAX_TRACEBACK
    assert name in entry['traceback'] or len(entry['traceback']) == MAX_TRACEBACK


@pytest.mark.parametrize('ending', ENDINGS)
def test_whatever_a_task_raises_it_is_retried(huey, ending):
    runs = []

    @huey.task(name='work', retries=2)
    def work():
        runs.append(1)
        ENDINGS[ending]()

    work()
    drain(huey)
    assert len(runs) == 3


@pytest.mark.parametrize('ending', ENDINGS)
def test_whatever_a_task_raises_those_who_listen_are_told(huey, ending):
    @huey.task(name='work')
    def work():
        ENDINGS[ending]()

    work()
    outcome = huey.executor(lambda: True).execute(take(huey))
    assert sum(isinstance(effect, Publish) for effect in outcome.effects) == 1


def test_a_failed_task_leaves_no_garbage(memory_huey):
    """Its frames, and all that they hold, go at once, not when the collector comes."""
    huey = memory_huey
    witnesses = []

    class Held:
        pass

    @huey.task()
    def work():
        held = Held()
        witnesses.append(weakref.ref(held))
        raise ValueError

    work()
    delivery = take(huey)
    gc.collect()
    gc.disable()
    try:
        outcome = huey.executor().execute(delivery)
        del outcome
        assert witnesses[0]() is None
    finally:
        gc.enable()


def test_each_task_runs_in_a_context_of_its_own(huey):
    import contextvars
    variable = contextvars.ContextVar('variable', default='unset')
    variable.set("the consumer's")
    seen = []

    @huey.task()
    def work(value):
        seen.append(variable.get())
        variable.set(value)

    work('one')
    work('two')
    drain(huey)
    assert seen == ['unset', 'unset']
    assert variable.get() == "the consumer's"


# -- what a task does to itself -------------------------------------------------------------------------------------

@pytest.mark.parametrize('trace', [2, lambda: 0], ids=['data', 'no data'])
def test_a_retry_starts_with_the_arguments_that_came(huey, trace):
    seen = []

    @huey.task(retries=1)
    def work(items):
        seen.append(list(items))
        items.append(trace)
        raise ValueError

    work([1])
    drain(huey)
    assert seen == [[1], [1]]


def test_a_retry_starts_with_the_arguments_that_the_task_has_set(huey):
    seen = []

    @huey.task(retries=1, include_task=True)
    def work(step, task):
        seen.append(step)
        task.set_data(((step + 1,), {}))
        raise ValueError

    work(1)
    drain(huey)
    assert seen == [1, 2]


def test_a_task_that_sets_arguments_that_cannot_travel_fails(huey):
    @huey.task(retries=1, include_task=True)
    def work(step, task):
        task.set_data(((lambda: 0,), {}))
        raise ValueError('the reason')

    result = work(1)
    drain(huey)
    with pytest.raises(TaskException, match='the reason.*cannot be tried again'):
        result()


@pytest.mark.parametrize(('name', 'value'), [
    ('retries', 'many'), ('retries', 1.5), ('retries', 10 ** 9), ('retry_delay', -1), ('retry_delay', 'long'),
    ('retry_delay', float('nan')), ('retry_delay', float('inf')), ('timeout', 'soon'), ('priority', 'high'), ('priority', 10 ** 9),
    ('queue', None), ('task_id', 5), ('task_name', None)])
def test_a_task_that_spoils_its_own_settings_fails(huey, name, value):
    @huey.task(retries=1, include_task=True)
    def work(task):
        setattr(task, name, value)
        raise ValueError('the reason')

    work()
    outcome = huey.executor().execute(take(huey))
    assert outcome.status in (FAILED, DEAD)
    assert outcome.effects


def test_a_task_may_choose_its_next_delay(make, clock):
    huey = make()
    runs = []

    @huey.task(retries=2, retry_delay=10, include_task=True)
    def work(task):
        runs.append(clock.now())
        task.retry_delay *= 2
        raise ValueError

    work()
    for _ in range(100):
        drain(huey)
        clock.advance(1)
    assert [later - earlier for earlier, later in itertools.pairwise(runs)] == [20, 40]


# -- interrupts -----------------------------------------------------------------------------------------------------

def interrupted(huey, work):
    """How a task ends that the consumer interrupts while it runs."""
    executor = huey.executor()
    executor.interrupting = TaskInterrupted('the consumer shuts down')
    huey.task(name='work', retries=1, include_task=True)(lambda task: work(executor.interrupting))()
    return executor.execute(take(huey))


def plainly(interrupt):
    raise interrupt


def while_it_cleans_up(interrupt):
    try:
        raise interrupt
    finally:
        raise ValueError('while it cleaned up')


def as_something_else(interrupt):
    try:
        raise interrupt
    except BaseException as exc:
        raise BrokenTruth from exc


def from_something_else(interrupt):
    try:
        raise interrupt
    except BaseException:
        raise BrokenTruth from KeyError('an earlier one')


def without_a_cause(interrupt):
    try:
        raise interrupt
    except BaseException:
        raise ValueError('hidden') from None


@pytest.mark.parametrize('work', [plainly, while_it_cleans_up, as_something_else, from_something_else, without_a_cause])
def test_an_interrupted_task_goes_back_to_its_queue(huey, work):
    outcome = interrupted(huey, work)
    assert (outcome.status, outcome.effects) == (RELEASED, ())


def test_a_task_that_fails_by_itself_while_it_could_be_interrupted_has_failed(huey):
    def fail(interrupt):
        raise ValueError

    assert interrupted(huey, fail).status == RETRYING


def test_a_task_that_ends_all_the_same_has_ended(huey):
    def carry_on(interrupt):
        try:
            raise interrupt
        except BaseException:
            pass

    assert interrupted(huey, carry_on).status == FINISHED


def test_an_interrupt_that_comes_while_a_failure_is_logged_changes_nothing(huey):
    executor = huey.executor()
    executor.interrupting = TaskInterrupted('the consumer shuts down')

    class Interrupting(logging.Handler):
        def emit(self, record):
            raise executor.interrupting

    @huey.task()
    def work():
        raise ValueError

    work()
    delivery = take(huey)
    handler = Interrupting()
    logging.getLogger('geventhuey.executor').addHandler(handler)
    try:
        outcome = executor.execute(delivery)
    finally:
        logging.getLogger('geventhuey.executor').removeHandler(handler)
    assert outcome.status == FAILED
    assert [type(effect) for effect in outcome.effects] == [NoteError, Keep]


# -- messages that should not be ------------------------------------------------------------------------------------

class Exits:
    def __setstate__(self, state):
        raise SystemExit('as it was read')


class Fails:
    def __setstate__(self, state):
        raise KeyError('as it was read')


def holding(huey, cls):
    """A payload with an object of this class."""
    huey.allow(cls)
    instance = cls()
    instance.attribute = 1
    return pickle.dumps(((instance,), {}), 5)


@pytest.fixture
def work(huey):
    @huey.task(name='work')
    def work(*args):
        return 1
    return work


def settings(**kwargs):
    return lambda huey: huey.envelope.dumps(b'task', (((), {}), kwargs))


PAYLOADS = {
    'nothing': lambda huey: b'',
    'junk': lambda huey: b'junk',
    'half a pickle': lambda huey: huey.envelope.dumps(b'task', (((1, 2, 3), {}), {}))[:-5],
    'a number': lambda huey: huey.envelope.dumps(b'task', 5),
    'three things': lambda huey: huey.envelope.dumps(b'task', (1, 2, 3)),
    'settings that are no dict': lambda huey: huey.envelope.dumps(b'task', (((), {}), [1])),
    'retries that are no number': settings(retries='x'),
    'retries without a number of them': settings(retries=[]),
    'retries below nothing': settings(retries=-1),
    'retries without an end': settings(retries=10 ** 30),
    'a delay that is no number': settings(retries=1, retry_delay='x'),
    'a delay that is not a number': settings(retries=1, retry_delay=float('nan')),
    'an eta that is no number': settings(eta='x'),
    'an eta beyond time': settings(eta=1e300),
    'a timeout that is no number': settings(timeout={}),
    'a class of nobody': lambda huey: b'\x80\x04\x8c\x04a\xed\xb2\x80\x8c\x01b\x93.',
    'a class with a line of the log': lambda huey: b'\x80\x04\x8c\x07a\nERROR\x8c\x01b\x93.',
    'a class with a long name': lambda huey: b'\x80\x04X\x40\x42\x0f\x00' + b'x' * 1_000_000 + b'\x8c\x01b\x93.',
    'an argument that exits': lambda huey: holding(huey, Exits),
    'an argument that fails': lambda huey: holding(huey, Fails),
}


@pytest.mark.parametrize('payload', PAYLOADS)
@pytest.mark.parametrize('flags', [0, 1])
def test_a_message_with_a_payload_that_is_none_goes_to_the_dead_letters(huey, work, payload, flags):
    data = PAYLOADS[payload](huey)
    huey.storage.enqueue([Message('an-id', 'work', data, flags=flags)])
    delivery = take(huey)
    outcome = huey.executor(lambda: True).execute(delivery)
    assert outcome.status == DEAD
    huey.storage.settle(delivery.consumer, [Settlement(delivery.tag, outcome.effects)])
    (_, reason, raw), = huey.storage.dead()
    assert raw == delivery.message
    assert 0 < len(reason) <= MAX_TEXT and reason.isprintable()
    if flags:
        with pytest.raises(TaskException, match='an-id'):
            huey.result('an-id')


@pytest.mark.parametrize('payload', [b'', b'junk'])
def test_arguments_that_are_none_make_the_task_fail(huey, work, payload):
    huey.storage.enqueue([Message('an-id', 'work', huey.envelope.dumps(b'task', (payload or 5, {})))])
    assert huey.executor().execute(take(huey)).status == FAILED


@pytest.mark.parametrize('raw', [b'', b'\x01', b'junk' * 20, b'\x01' + bytes(60), b'\x00' * 24, b'\xff' * 100])
def test_bytes_that_are_no_message_go_to_the_dead_letters(huey, raw):
    outcome = huey.executor(lambda: True).execute(Delivery('somebody', 1, raw))
    assert outcome.status == DEAD
    assert outcome.effects[0] == Bury(raw, '', outcome.effects[0].reason)
    assert outcome.effects[0].reason


@pytest.mark.parametrize('flags', [0, 1])
def test_a_message_that_has_expired_is_not_run(make, clock, flags):
    huey = make()
    ran = []

    @huey.task(name='work')
    def work():
        ran.append(1)

    message = huey.registry.message(work.task_class(((), {}), 'an-id'), flags)
    huey.storage.enqueue([message._replace(expires=clock.now() + 10)])
    clock.advance(10)
    assert drain(huey) == []
    assert ran == []
    if flags:
        with pytest.raises(TaskException, match='expired'):
            huey.result('an-id')
