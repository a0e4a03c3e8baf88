"""Redis restarts, disappears, stands still, cuts connections, forgets scripts, changes its password: each task runs exactly once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from geventhuey.testing.redis_server import RedisServer
from tests.consumer.kit import Program, Work, wait_until

AWAY, BACK = 'the storage is away', 'the storage is back'


def check_exactly_once(work: Work, results: list) -> None:
    """Every task of 0, 1, 2, ... ran once and left its result; nothing is in flight, nothing waits."""
    work.wait_idle(60)
    assert [result.get(blocking=True, timeout=30) for result in results] == [n * 10 for n in range(len(results))]
    once = {str(n): 1 for n in range(len(results))}
    assert work.journal.times('start') == once
    assert work.journal.times('end') == once


def check_said_once(consumer: Program) -> None:
    """The consumer said once that the storage was away and once that it is back, and showed no traceback."""
    consumer.wait_for(BACK)
    assert len(consumer.lines(AWAY)) == len(consumer.lines(BACK)) == 1
    assert 'Traceback' not in consumer.text()


@contextmanager
def again_and_again(step: Callable[[], object], pause: float) -> Iterator[list[int]]:
    """Meanwhile the step is taken over and over; answers how often, in a list of one."""
    count, over = [0], threading.Event()

    def run() -> None:
        while not over.wait(pause):
            try:
                step()
                count[0] += 1
            except redis.ConnectionError:       # what is cut may be our own
                pass
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield count
    finally:
        over.set()
        thread.join()


# -- it goes and comes back ------------------------------------------------------------------------------------

@pytest.mark.parametrize('options', [('-w', '300'), ('-k', 'thread', '-w', '100')], ids=['greenlet', 'thread'])
def test_a_restart_of_redis_costs_nothing(fragile, own_redis, options):
    consumer = fragile.consume(*options)
    results = [fragile.send('rest', n, 0.2 + n % 10 * 0.2) for n in range(150)]
    fragile.journal.wait_for('start', 100)
    own_redis.kill()
    consumer.wait_for(AWAY)
    fragile.journal.wait_for('end', 50)             # what runs, runs on
    own_redis.restart()
    check_exactly_once(fragile, results)
    check_said_once(consumer)
    assert not consumer.lines('runs twice')
    assert consumer.stop() == 0
    assert fragile.leftovers() == set()


@pytest.mark.slow
def test_an_outage_longer_than_the_lease_costs_nothing(fragile, own_redis):
    consumers = [fragile.consume('-w', '100', '--lease', '2') for _ in range(2)]
    results = [fragile.send('rest', n, 1 + n % 5) for n in range(200)]
    fragile.journal.wait_for('start', 200)
    own_redis.kill()
    for consumer in consumers:
        consumer.wait_for(AWAY)
    time.sleep(4)               # twice the lease
    own_redis.restart()
    check_exactly_once(fragile, results)
    for consumer in consumers:
        check_said_once(consumer)
        assert not consumer.lines('is dead')
        assert consumer.stop() == 0


@pytest.mark.slow
def test_a_redis_that_stands_still_costs_nothing(fragile, own_redis):
    consumers = [fragile.consume('-w', '100', '--lease', '4') for _ in range(2)]
    results = [fragile.send('rest', n, 0.5 + n % 6) for n in range(150)]
    fragile.journal.wait_for('start', 150)
    own_redis.pause()
    for consumer in consumers:
        consumer.wait_for(AWAY)
    own_redis.resume()
    check_exactly_once(fragile, results)
    for consumer in consumers:
        check_said_once(consumer)
        assert not consumer.lines('is dead')
        assert consumer.stop() == 0


@pytest.mark.parametrize('kind', ['greenlet', 'thread'])
def test_a_redis_that_is_not_up_yet_is_waited_for(fragile, own_redis, kind):
    own_redis.kill()
    consumer = fragile.consume('-k', kind, '-w', '4', ready=False)
    consumer.wait_for(AWAY)
    own_redis.restart()
    results = [fragile.send('rest', n, 0.1) for n in range(4)]
    check_exactly_once(fragile, results)
    check_said_once(consumer)
    assert consumer.stop() == 0


def test_an_empty_redis_after_a_restart_ends_no_consumer(tmp_path):
    with RedisServer() as server:       # it forgets all when it is killed
        work = Work(server.url, tmp_path)
        try:
            consumer = work.consume()
            work.send('rest', 0, 3)
            work.journal.wait_for('start')
            server.kill()
            consumer.wait_for(AWAY)
            server.restart()
            work.huey.close()           # its connection is gone, too, and perhaps only just
            assert work.send('add', 1, 2).get(blocking=True, timeout=30) == 3
            work.journal.wait_for('end')
            consumer.wait_for('was not ours any more')      # its record is gone with the rest
            assert consumer.stop() == 0
        finally:
            work.close()


# -- it cuts and forgets ---------------------------------------------------------------------------------------

@pytest.mark.parametrize('options', [('-w', '20'), ('-k', 'thread', '-w', '20')], ids=['greenlet', 'thread'])
def test_connections_that_are_cut_over_and_over_cost_nothing(work, options):
    consumers = [work.consume(*options) for _ in range(2)]
    results = [work.send('rest', n, n % 7 * 0.01) for n in range(1000)]
    with again_and_again(lambda: work.redis.execute_command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes'), 0.02) as cuts:
        work.journal.wait_for('end', 1000, 90)
    assert cuts[0] >= 5
    check_exactly_once(work, results)
    for consumer in consumers:
        assert not consumer.lines('is dead') + consumer.lines('taken for dead') + consumer.lines('runs twice')
        assert 'Traceback' not in consumer.text()
        assert consumer.stop() == 0


def test_scripts_that_are_forgotten_over_and_over_cost_nothing(work):
    consumer = work.consume('-w', '30')
    results = [work.send('rest', n, n % 7 * 0.01) for n in range(1000)]
    with again_and_again(lambda: work.redis.execute_command('SCRIPT', 'FLUSH'), 0.01) as flushes:
        work.journal.wait_for('end', 1000, 90)
    assert flushes[0] >= 5
    check_exactly_once(work, results)
    assert not consumer.lines('ERROR')
    assert consumer.stop() == 0


# -- it does not let us in -------------------------------------------------------------------------------------

def test_a_password_that_changes_is_waited_for(tmp_path: Path):
    with RedisServer(extra=['--requirepass', 'secret']) as server:
        work = Work(f'redis://:secret@127.0.0.1:{server.port}/0', tmp_path)
        try:
            consumer = work.consume()
            results = [work.send('rest', n, 0.5) for n in range(3)]
            work.journal.wait_for('start', 3)
            work.redis.config_set('requirepass', 'other')
            work.redis.execute_command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
            consumer.wait_for('refuses the user or the password')
            work.journal.wait_for('end', 3)
            work.redis.config_set('requirepass', 'secret')
            check_exactly_once(work, results)
            check_said_once(consumer)
            assert 'other' not in consumer.text()
            assert consumer.stop() == 0
        finally:
            work.close()


# -- the consumer itself stands still --------------------------------------------------------------------------

@pytest.mark.parametrize('wakes', ['while they run elsewhere', 'when they have ended elsewhere'])
@pytest.mark.slow
def test_a_consumer_that_stood_still_longer_than_its_lease_changes_nothing_and_goes_on(work, wakes):
    zombie = work.consume('-w', '5', '--lease', '2')
    results = [work.send('whose', n, 4.0) for n in range(5)]
    work.journal.wait_for('start', 5)
    other = work.consume('-w', '5', '--lease', '2')
    zombie.signal(signal.SIGSTOP)
    try:
        work.journal.wait_for('start', 10)
        assert other.wait_for(r'consumer \S+ is dead: (\d+) of its tasks are back')[1] == '5'
        if wakes == 'when they have ended elsewhere':
            wait_until(lambda: all(result.get(preserve=True) for result in results))
            for result in results:
                result.reset()
    finally:
        zombie.signal(signal.SIGCONT)
    work.journal.wait_for('end', 10)
    zombie.wait_for('was not ours any more', count=5)
    assert [result.get(blocking=True, timeout=30) for result in results] == [other.pid] * 5
    work.wait_idle()
    # it goes on: with the other one out of the way, it does the work
    assert other.stop() == 0
    wait_until(lambda: len(work.consumers()) == 1)
    assert work.send('whose', 9, 0.0).get(blocking=True, timeout=30) == zombie.pid
    assert zombie.stop() == 0
    assert work.leftovers() == set()
