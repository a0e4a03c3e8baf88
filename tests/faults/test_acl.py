"""A Redis user that may do what README lists, and nothing else: everything works, and without any one of it something does not."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from docutils import nodes
from docutils.core import publish_doctree

from geventhuey.exceptions import StorageError, StorageRefused
from geventhuey.message import WANTS_RESULT
from geventhuey.storage.base import Bury, Enqueue, Keep, NoteError, Publish, Revocation, Schedule, task_field
from geventhuey.storage.redis import RedisStorage
from geventhuey.testing.redis_constellations import ClusterSet, SentinelSet
from geventhuey.testing.redis_server import RedisServer
from tests.consumer.kit import CHECKOUT, Work, wait_until
from tests.storage.kit import FOR_EVER, PAST, Consumer, ids, message, messages

USER, PASSWORD = 'tasks', 'sesame'
PRODUCER, CONSUMER, BY_HAND = 'producers', 'consumers, these as well', 'looking and by hand, these as well'


def permissions() -> dict[str, list[str]]:
    """What README says is needed for what."""
    document = publish_doctree((CHECKOUT / 'README.rst').read_text(encoding='utf-8'), settings_overrides={'report_level': 5})
    for table in document.findall(nodes.table):
        rows = [list(row.findall(nodes.entry)) for row in table.findall(nodes.row)]
        if rows[0][1].astext() == 'commands':
            return {name.astext(): commands.astext().split() for name, commands in rows[1:]}
    raise AssertionError('README has no table of commands')


def scope() -> list[str]:
    """The keys and channels that README gives the user."""
    text = (CHECKOUT / 'README.rst').read_text(encoding='utf-8')
    found = re.search(r'``(resetchannels ~gh:\S+ &gh:\S+)``', text)
    assert found, 'README does not say which keys and channels'
    return found[1].split()


NEEDED = permissions()


@pytest.fixture(scope='module')
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


class Limited:
    """A storage as a user with these commands has it, and what somebody who may do all needs to know."""

    def __init__(self, server: RedisServer, name: str, commands: list[str]) -> None:
        self.admin = redis.Redis(port=server.port, decode_responses=True)
        self.admin.flushall()
        self.admin.script_flush()
        self.admin.acl_log_reset()
        limits = [word.replace('app', name) for word in scope()]
        self.admin.execute_command('ACL', 'SETUSER', USER, 'reset', 'on', f'>{PASSWORD}', *limits, *commands)
        self.url = f'redis://{USER}:{PASSWORD}@127.0.0.1:{server.port}/0'
        self.storage = RedisStorage(name, self.url)
        self.said: list[str] = []

    def close(self) -> None:
        self.storage.close()
        self.admin.close()


def produce(limited: Limited) -> None:
    """Everything that a producer does."""
    storage = limited.storage
    for _ in range(2):
        limited.admin.script_flush()
        storage.enqueue(messages('a b'))
        storage.enqueue([message('c', priority=5), message('d', priority=-5)])
        storage.schedule(message('e'), delay=3600, event=b'{}')
        storage.schedule(message('f'), due=PAST)
    for field, revocation in ((task_field('a'), FOR_EVER), (task_field('b'), Revocation(time.time() + 60, True))):
        storage.revoke(field, revocation, 60 if revocation.once else None)
        assert storage.revocation(field) is not None
        assert storage.restore(field)
    assert storage.claim('key', 'me', 60) and storage.claim('key', 'me', 60)
    limited.admin.set(storage.keys.result('r'), b'Vvalue')
    woken = threading.Event()
    with storage.watching('r', woken.set):
        assert woken.wait(5)
        wait_until(lambda: limited.admin.pubsub_channels(), 5)
        assert storage.result('r', preserve=True) == b'Vvalue'
        woken.clear()
        assert storage.result('r', preserve=False) == b'Vvalue'
        assert woken.wait(1), 'it is not pushed'
    wait_until(lambda: not limited.admin.pubsub_channels(), 5)
    with storage.watching('s', woken.set):      # over the same connection, if it lives
        wait_until(lambda: limited.admin.pubsub_channels(), 5)
    clients = [client for client in limited.admin.client_list() if client['name'] == f'geventhuey:{storage.name}:results']
    assert len(clients) == 1


def consume(limited: Limited) -> None:
    """Everything that a consumer does."""
    storage = limited.storage
    version, warnings = storage.check()
    assert 'not permitted' not in version and not [warning for warning in warnings if 'pushed' in warning]
    storage.introduce(['task'], 1)
    assert storage.tick('task', 2, message('tick'))
    assert storage.wait_wake(['default'], 1.0)
    storage.wake(['default'])
    limited.admin.rpush(storage.keys.queue('default'), b'junk')
    storage.enqueue([message(word, flags=WANTS_RESULT) for word in 'abcdefgh'])
    storage.enqueue([message('late', priority=-5), message('urgent', priority=5)])
    storage.schedule(message('due'), due=PAST)
    storage.revoke(task_field('h'), Revocation(None, True), None)
    consumer = Consumer(storage)
    assert consumer.ask(1).deliveries
    found = consumer.fetch(20)
    assert len(found) == 11
    assert consumer.ask(request=consumer.request - 1).deliveries == found
    storage.beat('consumer')
    assert len(storage.held('consumer')) == 12 and storage.recall('consumer', [found[0].tag])
    effects = [Keep('a', b'Vvalue', 60), Enqueue(message('next').encode()), Schedule(message('again').encode(), 60),
               Bury(message('x').encode(), 'x', 'reason'), NoteError(b'entry'), Publish(b'{}'), Keep('b', b'Vvalue', None)]
    assert consumer.settle(found[0], effects=effects) == [True]
    storage.publish([b'{}'])
    storage.put_result('z', b'Vvalue', 60)
    for number in range(3):                 # too old, then alive again
        limited.admin.hset(storage.keys.consumers, 'consumer', f'{number}:100')
        assert storage.reap('consumer', f'{number}:100', number + 1, 2, 60)
    assert storage.consumers() and storage.consumer_info()
    limited.admin.hdel(storage.keys.consumers, 'consumer')
    assert storage.adopt('consumer')
    assert storage.reap('consumer', 'x', 2, 100, 60).done
    many = Consumer(storage, 'many')
    storage.enqueue([message(f'many-{n}') for n in range(2100)])
    while many.fetch(511):
        pass
    assert storage.release('many', 10).requeued == 10
    storage.trim()
    assert storage.claim('key', 'me', 60) and storage.unclaim('key', 'me')


def look(limited: Limited) -> None:
    """Everything that is done by hand."""
    storage = limited.storage
    storage.enqueue([message('a'), message('b', priority=5), message('c', priority=-5)])
    storage.schedule(message('d'), due=PAST)
    consumer = Consumer(storage)
    assert sorted(ids(storage.pending('default'))) == sorted('b a c') and storage.pending_count('default') == 3
    assert storage.scheduled_count() == len(storage.scheduled()) == 1
    assert consumer.settle(*consumer.fetch(1), effects=[Keep('a', b'Vvalue', None), NoteError(b'entry'),
                                                        Bury(message('x').encode(), 'x', 'reason')]) == [True]
    assert storage.results() == {'a': b'Vvalue'} and storage.result_count() == 1
    assert storage.errors() == [b'entry'] and len(storage.dead()) == 1 and storage.malformed() == []
    storage.schedule(message('e'), due=PAST)
    assert ids(storage.take_due(time.time(), 10))
    assert storage.retry_dead('x') == 1 and storage.purge_dead() == 0
    storage.note_error(b'entry')
    storage.counters()
    listening = storage.listener()
    storage.publish([b'{}'])
    listening.close()
    storage.flush()


SCENARIOS: dict[str, Callable[[Limited], None]] = {PRODUCER: produce, CONSUMER: consume, BY_HAND: look}


def up_to(kind: str) -> list[str]:
    """The commands of this row and of those above it."""
    rows = list(SCENARIOS)
    return [command for row in rows[:rows.index(kind) + 1] for command in NEEDED[row]]


def test_the_table_has_these_rows():
    assert list(NEEDED)[:3] == list(SCENARIOS)
    assert len(up_to(BY_HAND)) == len(set(up_to(BY_HAND)))


@pytest.mark.parametrize('kind', SCENARIOS)
def test_a_user_with_the_commands_of_the_list_does_everything(server, kind, caplog):
    limited = Limited(server, 'app', up_to(kind))
    try:
        with caplog.at_level(logging.WARNING, 'geventhuey'):
            SCENARIOS[kind](limited)
        assert caplog.records == []
    finally:
        limited.close()


@pytest.mark.parametrize(('kind', 'command'), [(kind, command) for kind in SCENARIOS for command in NEEDED[kind]])
def test_without_any_one_command_of_the_list_something_fails(server, kind, command, caplog):
    limited = Limited(server, 'app', [one for one in up_to(kind) if one != command])
    try:
        with pytest.raises((StorageError, AssertionError, redis.RedisError)), caplog.at_level(logging.WARNING, 'geventhuey'):
            SCENARIOS[kind](limited)
            assert caplog.records == []
        refused = {entry['object'].partition('|')[0] for entry in limited.admin.acl_log()}
        assert command[1:].partition('|')[0] in refused
    finally:
        limited.close()


def test_keys_and_channels_of_others_are_out_of_reach(server):
    limited = Limited(server, 'app', up_to(BY_HAND))
    other = RedisStorage('other', limited.url)
    for verb in (lambda: other.enqueue(messages('a')), lambda: other.publish([b'{}']), lambda: other.results() or other.errors()):
        with pytest.raises(StorageError, match='refuses'):
            verb()
    other.close()
    limited.close()


def test_a_script_that_may_not_do_what_it_does_is_refused(server):
    limited = Limited(server, 'app', [one for one in up_to(PRODUCER) if one != '+hincrby'])
    with pytest.raises(StorageRefused, match='refuses'):
        limited.storage.schedule(message('a'), delay=1)
    limited.close()


@pytest.mark.parametrize(('row', 'constellation'), [('all, behind Sentinel', SentinelSet), ('all, in a cluster', ClusterSet)])
def test_where_the_server_is_found_a_producer_needs_a_few_more(row, constellation):
    with constellation() as servers:
        members = servers.nodes if isinstance(servers, ClusterSet) else servers.servers
        url = servers.url.replace('//', f'//{USER}:{PASSWORD}@')

        def enqueue_as_user_with(*commands: str) -> None:
            for member in members:
                with redis.Redis(port=member.port) as admin:
                    admin.execute_command('ACL', 'SETUSER', USER, 'reset', 'on', f'>{PASSWORD}', *scope(), *commands)
            storage = RedisStorage('app', url)
            try:
                storage.enqueue(messages('a'))
                storage.schedule(message('b'), delay=60)
            finally:
                storage.close()

        enqueue_as_user_with(*NEEDED[PRODUCER], *NEEDED[row])
        for command in NEEDED[row]:
            with pytest.raises(StorageRefused, match='(?i)refuses|does not permit'):
                enqueue_as_user_with(*NEEDED[PRODUCER], *(other for other in NEEDED[row] if other != command))


@pytest.mark.parametrize('kind', ['greenlet', 'thread'])
def test_a_consumer_and_its_producer_run_under_this_user(server, tmp_path: Path, kind):
    work = Work(f'redis://127.0.0.1:{server.port}/0', tmp_path)
    limited = Limited(server, work.name, up_to(CONSUMER))
    limited.close()
    work.url = limited.url
    work.huey.use_url(limited.url)
    try:
        consumer = work.consume('-k', kind, '-w', '20')
        results = [work.send('rest', n, 0.05) for n in range(50)]
        assert [result.get(blocking=True, timeout=30) for result in results] == [n * 10 for n in range(50)]
        assert work.send('fail_once', 100).get(blocking=True, timeout=30) == 'second time'
        with pytest.raises(Exception, match='boom'):
            work.send('fail', 101, 'Boom').get(blocking=True, timeout=30)
        assert work.send('enqueue_more', 102, 5).get(blocking=True, timeout=60)
        revoked = work.task('rest', 103, 0)
        work.huey.revoke(revoked)
        work.huey.enqueue(revoked)
        wait_until(lambda: not work.in_flight() and not work.redis.llen(work.keys.queue('default')))
        assert not consumer.lines('NOPERM') + consumer.lines('refuses') + consumer.lines('pushed')
        assert consumer.stop() == 0
    finally:
        work.close()
