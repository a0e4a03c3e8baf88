"""The master dies, or hands over, and Sentinel makes the replica the master: what had reached the replica is run, and work goes on."""

from __future__ import annotations

import threading
import time

import pytest
import redis

from geventhuey.exceptions import QueueWriteException, StorageRefused, StorageUnavailable
from geventhuey.storage.redis import RedisStorage
from geventhuey.storage.redis.discovery import Sentinel
from geventhuey.testing.redis_constellations import SentinelSet
from tests.faults.reach import FoundWork, Producer, check_said

KINDS = pytest.mark.parametrize('options', [('-w', '60'), ('-k', 'thread', '-w', '60')], ids=['greenlet', 'thread'])


@pytest.fixture
def servers():
    with SentinelSet(password='sesame', sentinel_password='open') as servers:
        yield servers


@pytest.fixture(scope='module')
def calm():
    """Servers that no test hurts."""
    with SentinelSet(password='sesame', sentinel_password='open') as servers:
        yield servers


@pytest.fixture
def work(servers, tmp_path):
    work = FoundWork(servers.url, tmp_path)
    yield work
    work.close()


def replicated(servers: SentinelSet) -> None:
    """Everything that has been written so far has reached the replica."""
    with redis.Redis(port=servers.master.port, password=servers.password) as client:
        client.set('replicated', '')        # WAIT counts what its own connection has written, and so all before that
        assert client.wait(1, 20000) == 1


def produce_until(producer: Producer, seconds: float, over: threading.Event) -> threading.Thread:
    """A thread that enqueues until it is over."""
    thread = threading.Thread(target=producer.send_while, args=(lambda: not over.is_set(), seconds, 0.02))
    thread.start()
    return thread


@pytest.mark.parametrize('how', ['is killed', pytest.param('stands still', marks=pytest.mark.slow)])
@KINDS
def test_a_master_that_ends_costs_nothing_that_was_replicated(servers, work, options, how):
    consumer = work.consume(*options)
    producer, over = Producer(work), threading.Event()
    thread = produce_until(producer, 0.5, over)
    try:
        work.journal.wait_for('end', 40)
        came_over = set(producer.done)
        replicated(servers)
        master = servers.master
        master.kill() if how == 'is killed' else master.pause()
        at_the_end = set(producer.done)
        new = servers.wait_for_master(other_than=master)
        work.journal.wait_for('end', work.journal.count('end') + 100)
    finally:
        over.set()
        thread.join()
    work.wait_idle(60)
    lost = {n for n in producer.done if str(n) not in work.journal.times('end')}
    twice = [n for n, times in work.journal.times('start').items() if times > 1]
    print(f'{producer.count} tasks: {producer.refused} times refused, {len(producer.unknown)} unknown, {len(lost)} lost, '
          f'{len(twice)} ran twice')
    assert len(came_over) >= 40 and len(producer.done.keys() - at_the_end) >= 50
    assert lost <= at_the_end - came_over          # what Redis had said yes to and not yet passed on
    assert len(twice) <= 60                         # what ran at the end of it
    producer.check_results(producer.done.keys() - lost)
    # one that stands still is noticed by each part of the consumer in its own time
    check_said(consumer, at_most=1 if how == 'is killed' else 4)
    assert consumer.lines('the storage is away'), consumer.text()
    # the old one comes back as a replica: nobody takes it for the master
    master.start() if how == 'is killed' else master.resume()
    for n in range(10):
        producer.send(0.01 * n)
    producer.check_results(range(producer.count - 10, producer.count))
    assert servers.master is new
    assert 'sesame' not in consumer.text() and 'open' not in consumer.text()
    assert consumer.stop() == 0
    assert work.leftovers() == set()


@pytest.mark.slow
@KINDS
def test_a_planned_failover_under_load_costs_nothing(tmp_path, options):
    with SentinelSet(min_replicas=1) as servers:
        work = FoundWork(servers.url, tmp_path)
        try:
            consumer = work.consume(*options)
            producer, over = Producer(work), threading.Event()
            thread = produce_until(producer, 0.3, over)
            try:
                work.journal.wait_for('end', 30)
                servers.fail_over()
                servers.wait_for_master(other_than=servers.servers[0])
                servers.wait_for_replica()
                work.journal.wait_for('end', work.journal.count('end') + 60)
            finally:
                over.set()
                thread.join()
            work.wait_idle()
            # what the old master took in the moment before it noticed that its replica had left is lost with it
            lost = {str(n) for n in producer.done} - set(work.journal.times('end'))
            twice = [n for n, times in work.journal.times('start').items() if times > 1]
            print(f'{producer.count} tasks: {producer.refused} times refused, {len(producer.unknown)} unknown, {len(lost)} lost, '
                  f'{len(twice)} ran twice')
            assert len(lost) <= 3
            producer.check_results([n for n in producer.done if str(n) not in lost])
            check_said(consumer, at_most=2)
            assert consumer.stop() == 0
        finally:
            work.close()


def test_sentinels_that_are_dead_or_behind_are_passed_over(servers, work):
    first, second, _ = servers.sentinels
    first.kill()
    second.pause()
    try:
        started = time.monotonic()
        assert work.huey.pending_count() == 0
        assert time.monotonic() - started < 10
        work.huey.close()
        started = time.monotonic()
        assert work.huey.pending_count() == 0       # the one that answered is asked first
        assert time.monotonic() - started < 5
    finally:
        second.resume()


def test_nothing_that_answers_is_said_within_about_a_second(servers, work):
    for sentinel in servers.sentinels:
        sentinel.kill()
    with pytest.raises(QueueWriteException, match="the master of 'tasks' cannot be reached by way of 127.0.0.1:") as caught:
        work.send('add', 1, 2)
    assert 'sesame' not in str(caught.value)


def test_a_service_that_no_sentinel_knows_is_said(calm):
    storage = RedisStorage('app', calm.url.replace('/tasks', '/taks'))
    with pytest.raises(StorageUnavailable, match="knows no service 'taks'"):
        storage.errors()
    storage.close()


def test_a_wrong_password_of_the_sentinels_is_said(calm):
    storage = RedisStorage('app', calm.url.replace('sentinel_password=open', 'sentinel_password=wrong'))
    with pytest.raises(StorageRefused, match='refuses the user or the password'):
        storage.check()
    storage.close()


def test_a_replica_that_is_taken_for_the_master_is_not_used(calm):
    """A sentinel that has not heard yet names a server that is the master no more."""
    asked = []

    class Behind(Sentinel):
        def _ask(self, node, open):
            asked.append(node)
            return ('127.0.0.1', calm.replica.port) if len(asked) < 3 else super()._ask(node, open)

    storage = RedisStorage('app', calm.url)
    found_by = storage.address.found_by
    found_by.__class__ = Behind
    storage.note_error(b'entry')
    assert storage.errors() == [b'entry']
    assert len(asked) >= 3
    storage.close()


def test_events_come_from_the_master_after_a_failover(servers, work):
    listening = work.huey.storage.listener()
    master = servers.master
    master.kill()
    servers.wait_for_master(other_than=master)
    deadline = time.monotonic() + 60
    message = None
    while message is None and time.monotonic() < deadline:
        work.huey.storage.publish([b'{}'])
        try:
            message = listening.get_message(ignore_subscribe_messages=True, timeout=0.2)
        except redis.ConnectionError:       # redis-py tries again with the next call
            time.sleep(0.1)
    assert message is not None and message['data'] == b'{}'
    listening.close()


def test_a_pool_of_sentinels_is_an_address(calm):
    from redis.sentinel import Sentinel as Manager
    manager = Manager([('127.0.0.1', sentinel.port) for sentinel in calm.sentinels], sentinel_kwargs={'password': 'open'},
                      password='sesame')
    storage = RedisStorage('pool', connection_pool=manager.master_for('tasks').connection_pool)
    storage.note_error(b'entry')
    assert storage.errors() == [b'entry']
    storage.close()
