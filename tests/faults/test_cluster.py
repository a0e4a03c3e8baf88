"""A real Redis Cluster: an application lives in one slot, and the slot may move to another node while everything runs."""

from __future__ import annotations

import importlib.resources
import threading
import time

import pytest
import redis

from geventhuey import Huey
from geventhuey.exceptions import StorageUnavailable
from geventhuey.storage import redis as redis_storage
from geventhuey.storage.redis import RedisStorage
from geventhuey.storage.redis.scripts import GUARD, script
from geventhuey.testing.redis_constellations import ClusterSet
from tests.faults.reach import FoundWork, Producer, check_said
from tests.storage.kit import Consumer, ids, messages

KINDS = pytest.mark.parametrize('options', [('-w', '60'), ('-k', 'thread', '-w', '60')], ids=['greenlet', 'thread'])


@pytest.fixture(scope='module')
def servers():
    with ClusterSet() as servers:
        yield servers


@pytest.fixture
def work(servers, tmp_path):
    work = FoundWork(servers.url, tmp_path)
    yield work
    work.close()


def others(servers, slot):
    """The nodes that do not serve the slot."""
    owner = servers.owner(slot)
    return [node for node in servers.nodes if node is not owner]


def test_all_keys_of_an_application_are_in_one_slot_and_any_node_leads_there(servers):
    for name in ('a', 'b', 'c', 'd', 'e:f', 'g.h'):
        for node in servers.nodes:
            huey = Huey.from_url(f'redis+cluster://127.0.0.1:{node.port}', name)
            assert huey.storage.address.found_by.slot == servers.slot_of(huey.storage.keys.queue('q')) == servers.slot_of(name)
            huey.storage.note_error(b'entry')
            assert len(huey.storage.errors()) == servers.nodes.index(node) + 1
            huey.close()


@pytest.mark.slow
@KINDS
def test_a_slot_that_moves_back_and_forth_under_load_costs_nothing(servers, work, options):
    consumers = [work.consume(*options) for _ in range(2)]
    slot = servers.slot_of(work.keys.prefix)
    producer, over = Producer(work), threading.Event()
    thread = threading.Thread(target=producer.send_while, args=(lambda: not over.is_set(), 0.2, 0.005))
    thread.start()
    moved = []
    try:
        for _ in range(2):
            for node in others(servers, slot):
                work.journal.wait_for('end', work.journal.count('end') + 60)
                moved.append(servers.migrate(slot, to=node))
            work.journal.wait_for('end', work.journal.count('end') + 60)
            moved.append(servers.migrate(slot, to=others(servers, slot)[0], at_once=1, pause=0.02))
    finally:
        over.set()
        thread.join()
    print(f'{producer.count} tasks, {moved} keys moved: {producer.refused} times refused, {len(producer.unknown)} unknown')
    assert all(moved)
    producer.check_exactly_once()
    for consumer in consumers:
        check_said(consumer, at_most=len(moved))
        assert not consumer.lines('is dead') + consumer.lines('runs twice') + consumer.lines('not ours any more')
        assert consumer.stop() == 0
    assert work.leftovers() == set()


@pytest.mark.slow
def test_a_slot_that_moves_slowly_holds_everything_up_and_loses_nothing(servers, work):
    consumer = work.consume('-w', '20', '--lease', '3')
    slot = servers.slot_of(work.keys.prefix)
    producer = Producer(work)
    for _ in range(60):
        producer.send(0.1)
    work.journal.wait_for('start', 30)
    with servers.migrating(slot, to=others(servers, slot)[0]) as step:
        consumer.wait_for('the storage is away.*(on its way to another node|ASK|TRYAGAIN)')
        deadline = time.monotonic() + 5         # longer than the lease
        while time.monotonic() < deadline:
            step(1)
            time.sleep(0.05)
    for _ in range(20):
        producer.send(0.01)
    producer.check_exactly_once()
    check_said(consumer)
    assert not consumer.lines('is dead') + consumer.lines('runs twice')
    assert consumer.stop() == 0


def test_a_script_in_a_slot_that_moves_fails_before_it_writes(servers):
    storage = RedisStorage('halfway', servers.url)
    consumer = Consumer(storage)
    storage.enqueue(messages('a b'))
    storage.schedule(messages('due')[0], due=1.0)
    slot = servers.slot_of(storage.keys.prefix)
    with redis.Redis(port=servers.owner(slot).port) as client:
        with servers.migrating(slot, to=others(servers, slot)[0]):
            before = {key: client.dump(key) for key in client.keys('gh:{halfway}:*')}
            with pytest.raises(StorageUnavailable, match='on its way to another node'):      # the only key that it names is there
                storage.take_due(time.time(), 10)
            for verb in (consumer.fetch, lambda: storage.beat('consumer'), lambda: storage.schedule(messages('c')[0], delay=60),
                         lambda: storage.release('consumer', 10), lambda: storage.note_error(b'entry'),
                         lambda: storage.held('consumer'), lambda: storage.adopt('nobody'), storage.results, storage.flush):
                with pytest.raises(StorageUnavailable, match='on its way to another node|ASK|TRYAGAIN'):
                    verb()
            assert {key: client.dump(key) for key in client.keys('gh:{halfway}:*')} == before
    assert ids(consumer.fetch()) == 'a b due'
    storage.close()


def test_without_its_first_line_a_script_in_a_slot_that_moves_loses_what_it_has_popped(servers):
    """Why the line is there: Redis looks at the named keys before, and at the others in the middle."""
    storage = RedisStorage('half', servers.url)
    consumer = Consumer(storage)
    storage.enqueue(messages('a'))
    keys, slot = storage.keys, servers.slot_of(storage.keys.prefix)
    lines = [f"redis.call('LPOP', '{keys.queue('default')}')", f"redis.call('HSET', '{keys.inflight('consumer')}', 1, 'a')"]
    with redis.Redis(port=servers.owner(slot).port) as client:
        with servers.migrating(slot, to=others(servers, slot)[0]):
            with pytest.raises(redis.ResponseError, match='non local key'):
                client.eval(GUARD + '\n'.join(lines), 1, keys.consumers)
            assert client.llen(keys.queue('default')) == 1
            with pytest.raises(redis.ResponseError, match='non local key'):
                client.eval('\n'.join(lines), 1, keys.consumers)
            assert not client.keys(keys.queue('default').replace('{', r'\{'))
    assert ids(consumer.fetch()) == ''
    storage.close()


def test_every_script_names_a_key_of_the_application_first():
    names = [file.name.removesuffix('.lua') for file in (importlib.resources.files(redis_storage) / 'lua').iterdir()]
    for name in set(names) - {'place'}:
        assert script(name, for_cluster=True).text == GUARD + script(name).text
        assert script(name, for_cluster=True).sha != script(name).sha


def test_a_slot_that_has_moved_is_found_at_once(servers):
    storage = RedisStorage('leaving', servers.url)
    storage._patience = 0.0                     # as a part of a consumer, which tries again by itself
    storage.note_error(b'one')
    slot = servers.slot_of(storage.keys.prefix)
    for _ in range(6):
        servers.migrate(slot, to=others(servers, slot)[0])
        assert storage.errors() == [b'one']
    storage.close()


def test_results_are_pushed_from_wherever_the_slot_is(servers, work):
    consumer = work.consume()
    result = work.send('rest', 1, 1.5)
    work.journal.wait_for('start')
    slot = servers.slot_of(work.keys.prefix)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(result.get(blocking=True, timeout=30)))
    thread.start()
    servers.migrate(slot, to=others(servers, slot)[0])
    thread.join()
    assert answers == [10]
    assert consumer.stop() == 0


def test_a_listener_hears_the_events_of_the_node_that_serves_the_application(servers, work):
    consumer = work.consume()
    slot = servers.slot_of(work.keys.prefix)
    for _ in range(2):
        listening = iter(work.huey.storage)
        assert work.send('add', 1, 2).get(blocking=True, timeout=30) == 3
        assert next(event for event in listening if event['status'] != 'checking-periodic')['status'] == 'started'
        listening._pubsub.close()
        servers.migrate(slot, to=others(servers, slot)[0])
    assert consumer.stop() == 0


def test_a_plain_address_of_a_node_is_warned_of(servers):
    storages = [RedisStorage('plain', f'redis://127.0.0.1:{node.port}') for node in servers.nodes]
    for storage in storages:
        try:
            version, warnings = storage.check()
        except StorageUnavailable as exc:
            assert 'redis+cluster:// finds' in str(exc)
        else:
            assert [warning for warning in warnings if 'redis+cluster://' in warning], version
        storage.close()


@pytest.mark.slow
def test_a_node_that_is_killed_is_replaced_by_its_replica_and_what_was_replicated_runs(tmp_path):
    with ClusterSet(with_replicas=True, node_timeout_ms=2000) as servers:
        work = FoundWork(servers.url, tmp_path)
        try:
            consumer = work.consume('-w', '60')
            owner = servers.owner(servers.slot_of(work.keys.prefix))
            producer = Producer(work)
            for n in range(100):
                producer.send(0.5 + n % 10 * 0.2)
            work.journal.wait_for('start', 60)
            with redis.Redis(port=owner.port) as client:
                client.set(work.keys.prefix + 'replicated', '')
                assert client.wait(1, 20000) == 1
                client.delete(work.keys.prefix + 'replicated')
            owner.kill()
            consumer.wait_for('the storage is away')
            for _ in range(20):
                producer.send(0.1)
            producer.check_results()
            work.wait_idle()
            check_said(consumer)
            assert servers.owner(servers.slot_of(work.keys.prefix)) in servers.replicas
            assert consumer.stop() == 0
        finally:
            work.close()
