"""Many tasks at once: enqueue_many, map, and the group of their results."""

from __future__ import annotations

import threading
import time

import pytest

from geventhuey import (
    ConfigurationError,
    DataStoreGetException,
    DataStoreTimeout,
    EnqueueOutcomeUnknown,
    MemoryHuey,
    QueueWriteException,
    RedisHuey,
    ResultGroup,
    SerializationError,
    TaskException,
    TaskResultWrapper,
    TaskRevoked,
)
from geventhuey.exceptions import StorageOutcomeUnknown, StorageUnavailable
from geventhuey.result import LOOK_AGAIN
from geventhuey.testing import drain
from tests.api.kit import BOUND, InThread, wait_until


@pytest.fixture
def add(huey):
    @huey.task(name='add', retries=2)
    def add(a, b=0):
        if a == 'fail':
            raise ValueError('as it should')
        return a + b
    return add


@pytest.fixture
def calls(huey, monkeypatch):
    """How many messages each call of the storage brought."""
    calls = []
    enqueue = huey.storage.enqueue

    def counted(messages):
        calls.append(len(messages))
        enqueue(messages)

    monkeypatch.setattr(huey.storage, 'enqueue', counted)
    return calls


# -- enqueueing ------------------------------------------------------------------------------------------------

def test_map_enqueues_a_call_for_each_item_and_a_tuple_is_several_arguments(huey, add):
    results = add.map([1, (2, 3), (4,)])
    assert [(task.get_data(), task.retries) for task in huey.pending()] == [(((4,), {}), 2), (((2, 3), {}), 2), (((1,), {}), 2)]
    drain(huey)
    assert results.get() == [1, 5, 4]


def test_1200_tasks_are_in_the_queue_in_their_order_after_three_trips(huey, add, calls):
    results = huey.enqueue_many([add.s(n) for n in range(1200)])
    assert calls == [500, 500, 200]
    assert huey.pending_count() == 1200
    assert [result.task_id for result in results] == [task.task_id for task in reversed(huey.pending())]
    drain(huey)
    assert results.get() == list(range(1200))


def test_what_an_iterator_gives_is_sent_as_it_comes(huey, add):
    seen = []

    def numbers():
        for n in range(1001):
            if n % 500 == 0:
                seen.append(huey.pending_count())
            yield n

    add.map(numbers())
    assert seen == [0, 500, 1000]
    assert huey.pending_count() == 1001


def test_large_arguments_travel_in_smaller_portions(huey, add, calls):
    add.map('x' * 300_000 for _ in range(10))
    assert calls == [4, 4, 2]


def test_tasks_with_a_time_are_scheduled_and_the_others_enqueued(huey, add):
    import datetime
    later, past = add.s(1), add.s(2)
    later.execute_time = datetime.datetime(2200, 1, 1)
    past.execute_time = datetime.datetime(2000, 1, 1)
    results = huey.enqueue_many([later, past, add.s(3)])
    assert next(iter(results)).task_id == huey.scheduled()[0].task_id == later.task_id
    assert huey.pending_count() == 2


def test_priorities_are_kept(huey, add):
    tasks = [add.s(n) for n in range(4)]
    tasks[2].priority = 5
    huey.enqueue_many(tasks)
    assert [task.get_data()[0][0] for task in reversed(huey.pending())] == [2, 0, 1, 3]


def test_nothing_at_all_is_fine(huey, add, calls):
    assert len(huey.enqueue_many([])) == 0 and add.map(()).get(blocking=True, timeout=0) == []
    assert calls == []


@pytest.mark.parametrize('wrong, error', [(object(), SerializationError), (None, TypeError)])
def test_a_list_with_something_wrong_in_it_is_refused_as_a_whole(huey, add, wrong, error):
    tasks = [add.s(n) for n in range(700)]
    tasks.append(wrong if wrong is None else add.s(wrong))
    with pytest.raises(error, match='None' if wrong is None else "argument 'a'"):
        huey.enqueue_many(tasks)
    assert huey.pending_count() == 0
    with pytest.raises(SerializationError):
        add.map([1, 2, object()])
    assert huey.pending_count() == 0


def test_an_iterator_with_something_wrong_says_how_many_are_enqueued(huey, add):
    with pytest.raises(SerializationError) as caught:
        add.map(iter([*range(700), object()]))
    assert caught.value.enqueued == huey.pending_count() == 500


def test_an_iterator_that_fails_or_gives_what_is_no_task_says_how_many_are_enqueued(huey, add):
    def broken():
        yield from map(add.s, range(700))
        raise KeyError('mine')

    with pytest.raises(KeyError) as caught:
        huey.enqueue_many(broken())
    assert caught.value.enqueued == huey.pending_count() == 500
    with pytest.raises(TypeError) as caught:
        huey.enqueue_many(iter([*map(add.s, range(500)), 'no task']))
    assert caught.value.enqueued == 500 and huey.pending_count() == 1000


def test_what_is_no_iterable_is_refused(huey, add):
    with pytest.raises(TypeError):
        add.map(3)
    with pytest.raises(TypeError):
        huey.enqueue_many(add.s(1))


def test_a_task_that_no_consumer_could_know_is_refused(huey):
    other = MemoryHuey('other')
    foreign = other.task(name='foreign')(lambda: None)
    with pytest.raises(ConfigurationError, match='not registered'):
        huey.enqueue_many([foreign.s()])


@pytest.mark.parametrize('broken, error', [(StorageUnavailable, QueueWriteException), (StorageOutcomeUnknown, EnqueueOutcomeUnknown)])
def test_an_outage_in_between_says_how_many_are_enqueued(huey, add, monkeypatch, broken, error):
    enqueue, count = huey.storage.enqueue, []

    def enqueue_twice(messages):
        if len(count) == 2:
            raise broken('gone')
        count.append(1)
        enqueue(messages)

    monkeypatch.setattr(huey.storage, 'enqueue', enqueue_twice)
    with pytest.raises(error, match='1000 tasks have been enqueued') as caught:
        add.map(range(1700))
    assert type(caught.value) is error and caught.value.enqueued == huey.pending_count() == 1000


def test_an_outage_between_the_two_halves_of_a_chunk_leaves_its_outcome_unknown(huey, add, monkeypatch):
    import datetime

    def away(*args, **kwargs):
        raise StorageUnavailable('gone')

    monkeypatch.setattr(huey.storage, 'schedule', away)
    later = add.s(1)
    later.execute_time = datetime.datetime(2200, 1, 1)
    with pytest.raises(QueueWriteException) as caught:
        huey.enqueue_many([later])
    assert not isinstance(caught.value, EnqueueOutcomeUnknown)
    with pytest.raises(EnqueueOutcomeUnknown):
        huey.enqueue_many([later, add.s(2)])


def test_a_real_outage_is_said_at_once(huey, add, kind):
    if kind == 'memory':        # which has none
        return
    away = RedisHuey('away', url='redis://127.0.0.1:1/0')
    echo = away.task(name='echo')(lambda n: n)
    with pytest.raises(QueueWriteException, match='0 tasks have been enqueued, and no others') as caught:
        echo.map(range(10))
    assert caught.value.enqueued == 0


def test_without_results_nothing_is_returned(make):
    huey = make(result_store=False)
    echo = huey.task(name='echo')(lambda n: n)
    assert echo.map([1, 2]) is None and huey.pending_count() == 2


def test_eager_calls_are_run_in_their_order(make):
    huey = make(always_eager=True)
    ran = []
    echo = huey.task(name='echo')(lambda n: ran.append(n) or n)
    results = echo.map([1, 2, 3])
    assert ran == [1, 2, 3] == results.get() == list(results.as_completed()) and results[1] == 2
    with pytest.raises(TypeError):
        huey.enqueue_many([results])


# -- results ---------------------------------------------------------------------------------------------------

def test_a_group_is_a_sequence_of_wrappers_whose_items_are_values(huey, add):
    results = add.map([1, 2])
    assert isinstance(results, ResultGroup) and len(results) == 2 and repr(results) == '<ResultGroup of 2>'
    assert results.get() == [None, None]
    drain(huey)
    assert results[0] == 1 and results[-1] == 2
    assert [result.get() for result in results] == results() == [1, 2]


def test_a_group_waits_for_all(huey, add):
    results = add.map(range(700))
    thread = InThread(lambda: results.get(blocking=True, timeout=BOUND))
    drain(huey)
    assert thread.result() == list(range(700))
    assert huey.result_count() == 0


def test_results_come_in_the_order_in_which_the_tasks_end(huey, add):
    results = add.map(range(3))
    ids = [result.task_id for result in results]
    coming = results.as_completed(timeout=BOUND)
    for n in (2, 0, 1):
        huey.storage.put_result(ids[n], b'V' + huey.envelope.dumps(b'result', n), 60)
        assert next(coming) == n
    assert list(coming) == []
    assert list(results.as_completed()) == [0, 1, 2]


def test_a_loop_that_is_left_loses_nothing(huey, add):
    results = add.map(range(50))
    drain(huey)
    for _ in results.as_completed(timeout=BOUND):
        break
    assert results.get() == list(range(50))


def test_the_first_failure_is_raised_and_the_others_can_still_be_had(huey, add):
    results = add.map([1, 'fail', 3])
    thread = InThread(lambda: results.get(blocking=True, timeout=BOUND))
    drain(huey)
    with pytest.raises(TaskException, match='as it should'):
        thread.result()
    with pytest.raises(TaskException):
        results.get(blocking=True, timeout=BOUND)
    assert [result.get() for result in list(results)[::2]] == [1, 3]


def test_a_failure_is_raised_while_others_still_run(huey, add):
    results = add.map([1, 2])
    (_, second) = results
    results.revoke()
    second.restore()
    assert huey.pending_count() == 2
    thread = InThread(lambda: results.get(blocking=True, timeout=BOUND))
    drain(huey)
    with pytest.raises(TaskRevoked):
        thread.result()
    assert second.get(blocking=True, timeout=BOUND) == 2


def test_the_time_is_for_all_together_and_the_text_says_how_many_are_missing(huey, add):
    results = add.map(range(5))
    begun = time.monotonic()
    with pytest.raises(DataStoreTimeout, match=r'no result of 5 of 5 tasks within 0\.05 s: no consumer'):
        results.get(blocking=True, timeout=0.05)
    assert time.monotonic() - begun < 2
    with pytest.raises(DataStoreTimeout):
        list(results.as_completed(timeout=0.01))


def test_those_that_are_late_can_be_revoked(huey, add):
    results = add.map(range(3))
    with pytest.raises(DataStoreTimeout):
        results.get(blocking=True, timeout=0.01, revoke_on_timeout=True)
    assert all(huey.is_revoked(result.task) for result in results)


def test_the_same_task_twice_in_a_group_is_read_once(huey, add):
    result = add(1)
    group = ResultGroup(huey, [result, TaskResultWrapper(huey, result.task)])
    drain(huey)
    assert group.get(blocking=True, timeout=BOUND) == [1, 1]


def test_a_thread_that_comes_too_late_spoils_nothing_for_those_that_share_its_group(huey, add, monkeypatch):
    results = add.map(range(3))
    drain(huey)
    first, results_of = results.as_completed(timeout=BOUND), huey.storage.results_of

    def late(task_ids, preserve):
        monkeypatch.undo()
        assert next(first) == 0         # which has read all three, and has answered one
        return results_of(task_ids, preserve)

    monkeypatch.setattr(huey.storage, 'results_of', late)
    assert results.get() == [0, 1, 2] == [0, *first]


def test_a_group_is_of_results_of_its_application(huey, add, make):
    other = make(name='other')
    with pytest.raises(ConfigurationError, match='another application'):
        ResultGroup(other, [add(1)])
    with pytest.raises(TypeError):
        ResultGroup(huey, [1])


def test_what_is_preserved_can_be_read_again(huey, add):
    results = add.map(range(3))
    drain(huey)
    assert results.get(preserve=True) == [0, 1, 2]
    results.reset()
    assert results.get(blocking=True, timeout=BOUND) == [0, 1, 2]
    results.reset()
    assert results.get() == [None, None, None]


def test_a_lost_push_costs_seconds_only_even_while_others_come(huey, add, monkeypatch):
    """One of the results is written without a word, while others are told all the time."""
    import geventhuey.result
    monkeypatch.setattr(geventhuey.result, 'LOOK_AGAIN', 0.2)
    assert LOOK_AGAIN > 0.2
    results = add.map(range(40))
    ids = [result.task_id for result in results]
    over = threading.Event()
    records = [b'V' + huey.envelope.dumps(b'result', n) for n in range(40)]
    thread = InThread(lambda: next(n for n in results.as_completed(timeout=BOUND) if n == 0))

    def tell_the_others():
        for n in range(1, 40):
            huey.storage.put_result(ids[n], records[n], 60)
            if over.wait(0.05):
                return

    others = InThread(tell_the_others)
    silently(huey, ids[0], records[0])
    assert thread.result() == 0
    over.set()
    others.result()


def silently(huey, task_id, record):
    """The record is there, and nobody is told."""
    storage = huey.storage
    if hasattr(storage, 'keys'):
        storage._call(('SET', storage.keys.result(task_id), record))
    else:
        storage._results[task_id] = (record, None)


def test_a_storage_that_cannot_be_reached_is_said_at_once(huey, add, monkeypatch):
    results = add.map(range(3))

    def away(*args):
        raise StorageUnavailable('gone')

    monkeypatch.setattr(huey.storage, 'results_of', away)
    for get in (results.get, lambda: results.get(blocking=True), lambda: list(results.as_completed())):
        with pytest.raises(DataStoreGetException, match='gone'):
            get()


def test_a_negative_time_is_refused(huey, add):
    results = add.map([1])
    for get in (lambda: results.get(blocking=True, timeout=-1), lambda: list(results.as_completed(timeout=-1))):
        with pytest.raises(ValueError, match='timeout=-1'):
            get()


def test_many_who_wait_for_many_share_one_connection(redis_huey):
    huey = redis_huey
    echo = huey.task(name='echo')(lambda n: n)
    groups = [echo.map(range(300)) for _ in range(4)]
    threads = [InThread(lambda group=group: group.get(blocking=True, timeout=BOUND)) for group in groups]
    channel = huey.storage.keys.result('*')
    wait_until(lambda: len(huey.storage._call(('PUBSUB', 'CHANNELS', channel))) == 1200)
    clients = [line for line in huey.storage._call(('CLIENT', 'LIST')).decode().splitlines() if f':{huey.name}:results' in line]
    assert len(clients) == 1
    drain(huey)
    assert [thread.result() for thread in threads] == [list(range(300))] * 4


# -- what is easily done wrong -----------------------------------------------------------------------------------

def test_the_text_of_an_error_says_which_item_it_was(huey, add):
    with pytest.raises(SerializationError, match="^item 700: add: argument 'a'"):
        add.map([*range(700), object()])
    with pytest.raises(TypeError, match='^item 1: a task is needed, not 7$'):
        huey.enqueue_many([add.s(1), 7])


def test_a_call_instead_of_a_task_is_explained(huey, add):
    with pytest.raises(TypeError, match=r'has been enqueued already; add\.s\(1, 2\) makes a task'):
        huey.enqueue_many([add(1, 2)])
    with pytest.raises(TypeError, match=r'add\.s\(1, 2\) makes one of a function'):
        huey.enqueue_many([add])
    with pytest.raises(TypeError, match=r'for one there is huey\.enqueue\(task\)'):
        huey.enqueue_many(add.s(1))


@pytest.mark.parametrize('timeout', ['soon', True])
def test_a_time_that_is_no_number_is_refused(huey, add, timeout):
    with pytest.raises(TypeError, match='timeout must be a number of seconds'):
        add.map([1]).get(blocking=True, timeout=timeout)
