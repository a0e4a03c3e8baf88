"""Blocking results: threads and greenlets that wait, and how their waiting ends."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter

import pytest
import redis

from geventhuey import DataStoreTimeout, RedisHuey, TaskException, TaskLost, TaskRevoked
from geventhuey.exceptions import ResultConsumed
from geventhuey.result import LOOK_AGAIN
from geventhuey.testing import drain
from tests.api.kit import BOUND, InThread, wait_until


@pytest.fixture
def echo(huey):
    @huey.task(name='echo')
    def echo(value):
        return value
    return echo


@pytest.fixture
def looks(huey, monkeypatch):
    """How often the storage was asked for each result."""
    looks = Counter()
    asked = huey.storage.results_of

    def results_of(task_ids, preserve):
        looks.update(task_ids)
        return asked(task_ids, preserve)

    monkeypatch.setattr(huey.storage, 'results_of', results_of)
    return looks


def waiting(looks, get, task_id):
    """A thread that waits with ``get``, and has found nothing so far."""
    before = looks[task_id]
    thread = InThread(get)
    wait_until(lambda: looks[task_id] > before)
    assert not thread.is_over()
    return thread


def test_a_thread_gets_the_value_as_soon_as_it_is_there(huey, echo, looks):
    result = echo('a value')
    thread = waiting(looks, lambda: result.get(blocking=True), result.task_id)
    drain(huey)
    ended = time.monotonic()
    assert thread.result() == 'a value'
    assert time.monotonic() - ended < LOOK_AGAIN / 2


def test_nobody_polls(huey, echo, looks):
    result = echo('a value')
    with pytest.raises(DataStoreTimeout):
        result.get(blocking=True, timeout=0.6)
    assert looks[result.task_id] <= 3
    thread = waiting(looks, lambda: result.get(blocking=True, timeout=BOUND), result.task_id)
    drain(huey)
    assert thread.result() == 'a value'
    assert looks[result.task_id] <= 6


def test_many_threads_wait_for_many_results(huey, echo, looks):
    results = [echo(number) for number in range(50)]
    threads = [InThread(lambda result=result: result.get(blocking=True, timeout=BOUND)) for result in results]
    wait_until(lambda: len(looks) == 50)
    drain(huey)
    assert [thread.result() for thread in threads] == list(range(50))
    assert max(looks.values()) <= 4


def test_many_wait_for_one_result_that_is_preserved(huey, echo, looks):
    task_id = echo('a value').task_id
    threads = [InThread(lambda: huey.result(task_id, blocking=True, timeout=BOUND, preserve=True)) for _ in range(20)]
    wait_until(lambda: looks[task_id] >= 20)
    drain(huey)
    assert [thread.result() for thread in threads] == ['a value'] * 20


def test_of_many_who_wait_for_one_result_one_gets_it_and_the_others_are_told(huey, echo, looks):
    task_id = echo('a value').task_id

    def get():
        try:
            return huey.result(task_id, blocking=True, timeout=BOUND)
        except ResultConsumed:
            return ResultConsumed

    threads = [InThread(get) for _ in range(10)]
    wait_until(lambda: looks[task_id] >= 10)
    drain(huey)
    assert Counter(thread.result() for thread in threads) == {'a value': 1, ResultConsumed: 9}


def test_who_waits_is_told_when_somebody_reads_it_in_passing(huey, echo, looks, monkeypatch):
    """Nobody waits longer because another was faster."""
    result = echo('a value')
    thread = waiting(looks, lambda: huey.result(result.task_id, blocking=True, timeout=BOUND), result.task_id)
    taken = huey.storage.results_of
    monkeypatch.setattr(huey.storage, 'results_of', lambda task_ids, preserve: [None for _ in task_ids])
    drain(huey)
    monkeypatch.setattr(huey.storage, 'results_of', taken)
    assert result.get() == 'a value'
    with pytest.raises(ResultConsumed):
        thread.result()


def test_a_result_of_none_returns_at_once(huey, echo, looks):
    result = echo(None)
    thread = waiting(looks, lambda: result.get(blocking=True), result.task_id)
    drain(huey)
    ended = time.monotonic()
    assert thread.result() is None
    assert time.monotonic() - ended < LOOK_AGAIN / 2


@pytest.mark.parametrize('end', ['failure', 'revocation', 'flush'])
def test_an_end_without_a_value_is_told_at_once(huey, looks, end):
    @huey.task()
    def fail():
        raise ValueError('it went wrong')

    result = fail()
    thread = waiting(looks, lambda: result.get(blocking=True), result.task_id)
    if end == 'revocation':
        huey.revoke(result.task)
    if end == 'flush':
        huey.flush()
    drain(huey)
    ended = time.monotonic()
    expected = {'failure': (TaskException, 'it went wrong'), 'revocation': (TaskRevoked, 'was revoked'),
                'flush': (TaskLost, 'flushed away')}[end]
    with pytest.raises(expected[0], match=expected[1]) as raised:
        thread.result()
    assert type(raised.value) is expected[0]
    assert time.monotonic() - ended < LOOK_AGAIN / 2


def test_who_comes_after_the_flush_finds_nothing(huey, echo):
    result = echo('a value')
    drain(huey)
    huey.flush()
    assert result.get() is None
    with pytest.raises(DataStoreTimeout):
        result.get(blocking=True, timeout=0.01)


def test_timeouts_of_many_come_in_time(huey, echo):
    begun = time.monotonic()

    def get(timeout):
        with pytest.raises(DataStoreTimeout, match=f'within {timeout} s'):
            huey.result('nobody', blocking=True, timeout=timeout)
        return time.monotonic() - begun

    timeouts = [0.1, 0.2, 0.3]
    threads = [InThread(lambda timeout=timeout: get(timeout)) for timeout in timeouts]
    for timeout, thread in zip(timeouts, threads):
        assert timeout <= thread.result() < timeout + 2


def test_one_who_gives_up_does_not_disturb_the_others(huey, echo, looks):
    result = echo('a value')
    patient = waiting(looks, lambda: huey.result(result.task_id, blocking=True, timeout=BOUND), result.task_id)
    for _ in range(5):
        with pytest.raises(DataStoreTimeout):
            huey.result(result.task_id, blocking=True, timeout=0.01)
    assert not patient.is_over()
    drain(huey)
    assert patient.result() == 'a value'


def test_one_who_comes_as_the_last_one_goes_is_told_too(redis_huey, monkeypatch):
    from geventhuey.storage.redis import listener
    going, gone = threading.Event(), threading.Event()
    push = listener._ThreadCarrier.push

    def slow_to_go(self):
        if any(kind == 'UNSUBSCRIBE' for kind, _ in self._posted) and not going.is_set():
            going.set()
            gone.wait(BOUND)
        push(self)

    monkeypatch.setattr(listener._ThreadCarrier, 'push', slow_to_go)
    huey = redis_huey
    first = InThread(lambda: huey.result('an-id', blocking=True, timeout=0.05))
    assert going.wait(BOUND)
    looked = []
    asked = huey.storage.results_of
    monkeypatch.setattr(huey.storage, 'results_of', lambda *args: (asked(*args), looked.append(1))[0])
    second = InThread(lambda: huey.result('an-id', blocking=True, timeout=BOUND))
    wait_until(lambda: looked)
    gone.set()
    with pytest.raises(DataStoreTimeout):
        first.result()
    begun = time.monotonic()
    huey.storage.put_result('an-id', b'V' + huey.envelope.dumps(b'result', 'a value'), 60)
    assert second.result() == 'a value'
    assert time.monotonic() - begun < LOOK_AGAIN / 2


def test_revoke_on_timeout_prevents_the_task(huey, echo):
    result = echo('a value')
    with pytest.raises(DataStoreTimeout):
        result.get(blocking=True, timeout=0.01, revoke_on_timeout=True)
    assert drain(huey) == []


def test_waiting_leaves_nothing_behind(huey, echo):
    results = [echo(number) for number in range(10)]
    threads = [InThread(lambda result=result: result.get(blocking=True)) for result in results]
    drain(huey)
    for thread in threads:
        thread.result()
    waiting = huey.storage._watchers if huey.storage.in_process else huey.storage._results._waiting
    assert waiting == {}


# -- greenlets in a process that gevent has not patched ---------------------------------------------------------------

def in_a_hub_of_its_own(run):
    """``run()`` in a native thread with a gevent hub, which is gone afterwards."""
    def work():
        import gevent
        try:
            return run()
        finally:
            gevent.get_hub().destroy(destroy_loop=True)
    return InThread(work)


def test_a_greenlet_that_waits_lets_the_others_go_on(huey, echo, looks):
    results = [echo(number) for number in range(20)]
    turns = []

    def run():
        import gevent
        waiters = [gevent.spawn(result.get, blocking=True, timeout=BOUND) for result in results]
        while not all(waiter.ready() for waiter in waiters):
            turns.append(1)
            gevent.sleep(0.001)
        return [waiter.get() for waiter in waiters]

    thread = in_a_hub_of_its_own(run)
    wait_until(lambda: len(looks) == 20)
    before = len(turns)
    wait_until(lambda: len(turns) > before + 5)
    drain(huey)
    assert thread.result() == list(range(20))


def test_a_greenlet_s_own_timeout_interrupts_its_waiting(huey, echo):
    result = echo('a value')

    def run():
        import gevent
        with pytest.raises(gevent.Timeout):
            with gevent.Timeout(0.05):
                result.get(blocking=True)
        gevent.spawn(drain, huey)
        return result.get(blocking=True, timeout=BOUND)

    assert in_a_hub_of_its_own(run).result() == 'a value'


def test_a_killed_greenlet_does_not_disturb_the_others(huey, echo, looks):
    result, other = echo('a value'), echo('another')

    def run():
        import gevent
        waiter = gevent.spawn(result.get, blocking=True)
        patient = gevent.spawn(other.get, blocking=True, timeout=BOUND)
        while not (looks[result.task_id] and looks[other.task_id]):
            gevent.sleep(0.001)
        waiter.kill()
        drain(huey)
        return patient.get()

    assert in_a_hub_of_its_own(run).result() == 'another'


# -- connections ------------------------------------------------------------------------------------------------------

@pytest.fixture
def counted(redis_url):
    """An application of a name that no other has had: what is connected under it is its own."""
    huey = RedisHuey(f'counted-{uuid.uuid4()}', url=redis_url)
    yield huey
    huey.close()


def connections(huey, redis_url):
    """How many connections the application has, by their roles."""
    names = [client['name'] for client in redis.Redis.from_url(redis_url).client_list()]
    return Counter(name.rpartition(':')[2] for name in names if name.startswith(f'geventhuey:{huey.name}:'))


def test_five_hundred_wait_over_one_connection(counted, redis_url):
    @counted.task(name='echo')
    def echo(value):
        return value

    results = [echo(number) for number in range(500)]

    def run():
        import gevent
        waiters = [gevent.spawn(result.get, blocking=True, timeout=BOUND) for result in results]
        return [waiter.get() for waiter in waiters]

    thread = in_a_hub_of_its_own(run)
    wait_until(lambda: len(redis.Redis.from_url(redis_url).pubsub_channels(f'gh:{{{counted.name}}}:result:*')) == 500)
    assert connections(counted, redis_url) == {'producer': 1, 'results': 1}
    drain(counted)
    assert thread.result() == list(range(500))
    assert connections(counted, redis_url) == {'producer': 1, 'results': 1}
    wait_until(lambda: not redis.Redis.from_url(redis_url).pubsub_channels(f'gh:{{{counted.name}}}:result:*'))


def test_threads_share_the_connections_too(counted, redis_url):
    @counted.task(name='echo')
    def echo(value):
        return value

    results = [echo(number) for number in range(50)]
    threads = [InThread(lambda result=result: result.get(blocking=True, timeout=BOUND)) for result in results]
    wait_until(lambda: len(redis.Redis.from_url(redis_url).pubsub_channels(f'gh:{{{counted.name}}}:result:*')) == 50)
    assert connections(counted, redis_url) == {'producer': 1, 'results': 1}
    drain(counted)
    assert [thread.result() for thread in threads] == list(range(50))


def test_who_never_waits_needs_no_connection_for_it(counted, redis_url):
    @counted.task(name='echo')
    def echo(value):
        return value

    result = echo(1)
    drain(counted)
    assert result() == 1
    assert connections(counted, redis_url) == {'producer': 1}


def test_closing_closes_every_connection(counted, redis_url):
    @counted.task(name='echo')
    def echo(value):
        return value

    result = echo(1)
    drain(counted)
    assert result.get(blocking=True) == 1
    assert connections(counted, redis_url)
    counted.close()
    wait_until(lambda: not connections(counted, redis_url), bound=2)
