"""RedisStorage alone: a server that goes away, answers that are lost, addresses and passwords."""

from __future__ import annotations

import re
import threading
import time

import pytest
import redis
from redis.sentinel import Sentinel

from geventhuey.exceptions import (
    ConfigurationError,
    StorageError,
    StorageOutcomeUnknown,
    StorageRefused,
    StorageUnavailable,
)
from geventhuey.message import Message
from geventhuey.storage import base
from geventhuey.storage.base import Keep, NoteError, Publish, Revocation, Schedule, Settlement, task_field
from geventhuey.storage.redis import RedisStorage
from geventhuey.storage.redis.connection import IDLE, Moved, translated
from geventhuey.storage.redis.discovery import SCHEMES
from geventhuey.testing.redis_server import RedisServer
from tests.storage.kit import (
    BOUND,
    FOR_EVER,
    PAST,
    Calls,
    Consumer,
    eventually,
    ids,
    in_thread,
    message,
    messages,
)

# -- a server that is away --------------------------------------------------------------------------------------

def wait_idle(storage):
    """The next call looks at the connection before it uses it."""
    eventually(lambda: time.monotonic() - storage._lines.line()._used > IDLE)


def test_to_enqueue_fails_soon_while_redis_is_away(own_kit, server):
    own_kit.storage.enqueue(messages('a'))
    wait_idle(own_kit.storage)
    server.kill()
    began = time.monotonic()
    with pytest.raises(StorageUnavailable) as caught:
        own_kit.storage.enqueue(messages('b'))
    assert 0.3 < time.monotonic() - began < 2.5
    assert not isinstance(caught.value, StorageOutcomeUnknown)
    assert isinstance(caught.value.__cause__, redis.exceptions.ConnectionError)


def test_a_part_of_an_engine_is_told_at_once_that_redis_is_away(own_kit, server):
    session = own_kit.storage.session('settle')
    server.kill()
    began = time.monotonic()
    with pytest.raises(StorageUnavailable):
        session.settle('consumer', [Settlement(1)])
    assert time.monotonic() - began < 0.3


def test_who_is_patient_sees_redis_return(own_kit, server):
    own_kit.storage.enqueue(messages('a'))
    own_kit.storage._patience = BOUND
    wait_idle(own_kit.storage)
    server.kill()
    enqueued = in_thread(own_kit.storage.enqueue, messages('b'))
    server.start()
    enqueued.result(BOUND)
    assert ids(own_kit.storage.pending('default')) == 'b'


@pytest.mark.parametrize('session', [False, True])
def test_a_restart_is_noticed_before_anything_is_written(own_kit, server, session):
    storage = own_kit.storage.session('beat') if session else own_kit.storage
    storage.enqueue(messages('a'))
    server.restart()
    wait_idle(storage)
    storage.enqueue(messages('b'))
    assert ids(storage.pending('default')) == 'b'
    storage.close()


def test_waiters_for_results_outlive_a_restart(own_kit, server):
    woken = Calls()
    with own_kit.storage.watching('a', woken):
        eventually(lambda: woken.count)
        before = woken.count
        server.restart()
        eventually(lambda: woken.count > before)        # subscribed again, and so told to look
        before = woken.count
        own_kit.another().put_result('a', b'Vvalue', None)
        eventually(lambda: woken.count > before)


def test_waiters_for_results_outlive_their_connection(redis_kit):
    woken = Calls()
    with redis_kit.storage.watching('a', woken):
        eventually(lambda: woken.count)
        for _ in range(3):
            before = woken.count
            redis_kit.raw.client_kill_filter(_type='pubsub')
            eventually(lambda before=before: woken.count > before)


# -- answers that are lost --------------------------------------------------------------------------------------

@pytest.mark.parametrize(('call', 'done'), [
    pytest.param(lambda storage: storage.enqueue(messages('a')), 'a', id='enqueue'),
    pytest.param(lambda storage: storage.enqueue([message('a', priority=1)]), 'a', id='enqueue-priority'),
    pytest.param(lambda storage: storage.schedule(message('a'), due=PAST), 'a', id='schedule'),
    pytest.param(lambda storage: storage.take_due(PAST, 1), '', id='take_due'),
    pytest.param(lambda storage: storage.restore(task_field('r')), '', id='restore'),
])
def test_what_must_not_happen_twice_is_unknown_when_its_answer_is_lost(redis_kit, proxy, call, done):
    storage = RedisStorage(redis_kit.name, proxy.url)
    call(storage)                           # connected, and the scripts are there
    redis_kit.empty()
    redis_kit.storage.revoke(task_field('r'), FOR_EVER, None)
    proxy.next('cut_after')
    with pytest.raises(StorageOutcomeUnknown):
        call(storage)
    assert proxy.statistics['cut_after'] == 1
    assert ids(Consumer(redis_kit.storage).fetch()) == done
    storage.close()


@pytest.mark.parametrize('spare', [0, 1])
def test_a_result_is_read_at_least_once(redis_kit, proxy, spare):
    storage = RedisStorage(redis_kit.name, proxy.url)
    for count in (1, 2):                    # the first time, connection and script are new
        redis_kit.storage.put_result('r', b'Vvalue', None)
        assert storage.result('r', preserve=False) == b'Vvalue'
        redis_kit.storage.put_result('r', b'Vvalue', None)
        proxy.next('cut_after', spare=spare)
        assert storage.result('r', preserve=False) == b'Vvalue'
        assert proxy.statistics['cut_after'] == count
    assert storage.result('r', preserve=False) == base.CONSUMED
    storage.close()


def test_what_may_happen_twice_is_repeated_when_its_answer_is_lost(redis_kit, proxy):
    storage = RedisStorage(redis_kit.name, proxy.url)
    consumer = Consumer(storage)
    steps = (lambda: storage.enqueue(messages('a b')), consumer.fetch, lambda: storage.beat('consumer'),
             lambda: storage.register('consumer', 0), lambda: storage.held('consumer'), lambda: storage.wake(['default']),
             lambda: storage.put_result('a', b'Vvalue', None), consumer.settle_all, lambda: storage.release('consumer', 1))
    for step in steps:
        step()
    consumer = Consumer(storage)
    storage.enqueue(messages('c d'))
    for count, step in enumerate(steps[1:], 1):
        proxy.next('cut_after')
        step()
        assert proxy.statistics['cut_after'] == count
    assert storage.pending('default') == [] and storage.counters() == {}
    assert storage.consumers() == {}
    storage.close()


def test_a_fetch_whose_answer_is_lost_is_answered_again(redis_kit, proxy):
    session = RedisStorage(redis_kit.name, proxy.url).session('fetch')
    consumer = Consumer(session)
    consumer.fetch()
    redis_kit.storage.enqueue(messages('a b'))
    proxy.next('cut_after')
    with pytest.raises(StorageOutcomeUnknown):
        consumer.fetch(1)
    assert ids(consumer.fetch(1)) == 'a'
    assert ids(consumer.fetch(1)) == 'b'
    session.close()


def test_an_answer_that_is_no_answer_breaks_the_connection(redis_kit, proxy):
    storage = RedisStorage(redis_kit.name, proxy.url)
    storage.enqueue(messages('a'))
    proxy.edit = lambda data: b'?' + data
    with pytest.raises(StorageOutcomeUnknown, match='not the Redis protocol'):
        storage.enqueue(messages('b'))
    proxy.edit = bytes
    storage.enqueue(messages('c'))
    assert ids(storage.pending('default')) == 'c b a'
    storage.close()


def test_a_delay_is_never_shorter_not_even_by_a_part_of_a_millisecond(redis_kit):
    storage, before = redis_kit.storage, {}
    consumer = Consumer(storage)
    storage.enqueue([message(f'again{n}') for n in range(20)])
    held = consumer.fetch(20)

    def now():
        seconds, us = redis_kit.raw.time()
        return seconds * 1_000_000 + us

    for n, delivery in enumerate(held):
        before[f'new{n}'] = now()
        storage.schedule(message(f'new{n}'), delay=60)
        before[f'again{n}'] = now()
        consumer.settle(delivery, effects=(Schedule(message(f'again{n}').encode(), 60),))
    due = {Message.decode(member[8:]).id: score for member, score in redis_kit.raw.zrange(storage.keys.schedule, 0, -1, withscores=True)}
    assert due.keys() == before.keys()
    assert min(due[task_id] * 1000 - before[task_id] for task_id in due) >= 60_000_000


def test_scripts_that_the_server_has_forgotten_are_sent_again(redis_kit):
    stopped = threading.Event()

    def forget():
        with redis.Redis.from_url(redis_kit.url) as raw:
            while not stopped.is_set():
                raw.script_flush()

    forgetting = in_thread(forget)
    try:
        storage = redis_kit.storage
        storage.enqueue([message(f'{n}', priority=1) for n in range(100)])
        consumer = Consumer(storage)
        for _ in range(100):
            assert consumer.settle(*consumer.fetch(1)) == [True]
    finally:
        stopped.set()
    forgetting.result(BOUND)


def test_an_effect_that_is_refused_leaves_its_delivery_in_flight(redis_kit):
    storage = redis_kit.storage
    storage.enqueue(messages('a b'))
    consumer = Consumer(storage)
    a, b = consumer.fetch()
    redis_kit.raw.set(storage.keys.errors, 'no list')
    refused, ended = storage.settle('consumer', [Settlement(a.tag, (NoteError(b'entry'),)), Settlement(b.tag)])
    assert isinstance(refused, StorageError) and ended is True
    assert storage.held('consumer') == [a.tag]
    redis_kit.raw.delete(storage.keys.errors)
    assert consumer.settle(a, effects=[NoteError(b'entry')]) == [True]
    assert storage.errors() == [b'entry']


# -- a server that is the wrong one ------------------------------------------------------------------------------

@pytest.fixture
def demoted(server):
    """The server is a replica, of a master that is not there."""
    server.command('REPLICAOF', '127.0.0.1', '1')
    yield server
    server.command('REPLICAOF', 'NO', 'ONE')


def client_of(kit):
    """The number of the connection that the storage's callers share."""
    found = [client['id'] for client in kit.raw.client_list() if client['name'] == f'geventhuey:{kit.name}:producer']
    return int(found[0]) if found else None


@pytest.mark.parametrize('write', [
    lambda storage: storage.enqueue(messages('a')), lambda storage: storage.schedule(message('a'), delay=1), lambda storage: storage.trim(),
], ids=['command', 'script', 'script that may be repeated'])
def test_a_server_that_is_a_replica_now_is_left_and_nothing_was_done(server, own_kit, write):
    storage = own_kit.storage
    storage.revoke(task_field('a'), Revocation(PAST, False), 0.001)
    storage._patience = 0.0
    before = client_of(own_kit)
    server.command('REPLICAOF', '127.0.0.1', '1')
    try:
        with pytest.raises(StorageUnavailable, match='READONLY') as caught:
            write(storage)
        assert not isinstance(caught.value, StorageOutcomeUnknown)
        eventually(lambda: client_of(own_kit) is None)
        storage.errors()
        assert client_of(own_kit) > before
    finally:
        server.command('REPLICAOF', 'NO', 'ONE')
    assert storage.pending_count('default') == storage.scheduled_count() == 0
    write(storage)


def test_who_shares_the_connection_with_somebody_who_is_told_to_go_elsewhere_has_its_answers(own_kit, demoted):
    storage = own_kit.storage
    storage._patience = 0.0
    wrong = []

    def run(number):
        for _ in range(100):
            try:
                if number % 2:
                    storage.enqueue(messages('a'))
                    wrong.append('it was enqueued')
                else:
                    storage.errors()
            except StorageUnavailable as exc:
                if 'READONLY' not in str(exc) or not number % 2:
                    wrong.append(exc)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- addresses and passwords ------------------------------------------------------------------------------------

@pytest.mark.parametrize('given', [
    {'url': 'redis://localhost', 'connection_pool': redis.ConnectionPool()},
    {'url': 'redis://localhost', 'host': 'localhost'},
    {'connection_pool': redis.ConnectionPool(), 'db': 1},
])
def test_an_address_that_is_given_twice_is_refused(given):
    with pytest.raises(ConfigurationError, match='over-determined'):
        RedisStorage('app', **given)


@pytest.mark.parametrize('given', [
    {'hots': 'localhost'}, {'max_connections': 5}, {'connection_pool': 'redis://localhost'}, {'url': 'localhost:6379'},
    {'url': 'redis://localhost:port'}, {'url': 'http://localhost'}, {'url': ''.join(['redis', '//'])},
])
def test_an_address_that_is_not_understood_is_refused(given):
    with pytest.raises(ConfigurationError):
        RedisStorage('app', **given)


@pytest.mark.parametrize(('given', 'where'), [
    ({}, 'redis://localhost:6379/0'),
    ({'url': 'redis://example.org/3'}, 'redis://example.org:6379/3'),
    ({'url': 'rediss://user:sesame@example.org:7000'}, 'rediss://user:***@example.org:7000/0'),
    ({'url': 'redis://:sesame@example.org'}, 'redis://:***@example.org:6379/0'),
    ({'url': 'unix://:sesame@/run/redis.sock?db=2'}, 'unix://:***@/run/redis.sock?db=2'),
    ({'unix_socket_path': '/run/redis.sock'}, 'unix:///run/redis.sock?db=0'),
    ({'host': 'example.org', 'port': 7000, 'db': 1, 'password': 'sesame'}, 'redis://:***@example.org:7000/1'),
    ({'host': 'example.org', 'ssl': True, 'ssl_cert_reqs': 'none'}, 'rediss://example.org:6379/0'),
    ({'connection_pool': redis.ConnectionPool.from_url('redis://u:sesame@example.org/4')}, 'redis://u:***@example.org:6379/4'),
    ({'url': 'redis+sentinel://example.org/tasks'}, 'redis+sentinel://example.org:26379/tasks/0'),
    ({'url': 'redis+sentinel://u:sesame@a,b:7000,[::1]:7001/tasks/3?sentinel_username=s&sentinel_password=sesame'},
     'redis+sentinel://u:***@a:26379,b:7000,[::1]:7001/tasks/3'),
    ({'url': 'rediss+sentinel://:ses%2Fame@a:7000/tasks?ssl_cert_reqs=none'}, 'rediss+sentinel://:***@a:7000/tasks/0'),
    ({'url': 'redis+cluster://a'}, 'redis+cluster://a:6379'),
    ({'url': 'rediss+cluster://u:sesame@a:7000,b:7001/0'}, 'rediss+cluster://u:***@a:7000,b:7001'),
    ({'connection_pool': Sentinel([('a', 7000), ('b', 7001)], sentinel_kwargs={'password': 'sesame'},
                                  password='sesame').master_for('tasks').connection_pool}, 'redis+sentinel://:***@a:7000,b:7001/tasks/0'),
])
def test_an_address_is_told_without_its_password(given, where):
    storage = RedisStorage('app', **given)
    assert storage.describe() == where
    assert 'sesame' not in repr(storage) + str(storage) + repr(storage.address) + str(storage.address)


@pytest.mark.parametrize('url', [
    'http://user:sesame@localhost', 'redis://user:sesame@localhost:port', 'redis://:ses/ame@localhost',
    'redis://:sesame@localhost?socket_timeout=sesame', 'redis://localhost?password=sesame&socket_timeout=soon',
    'redis://:a//sesame@localhost:port', 'user:sesame@localhost', 'redis://:sesame', 'redis://user:sesame',
    'redis+magic://:sesame@a',
])
def test_a_url_that_is_refused_is_not_told(url):
    with pytest.raises(ConfigurationError, match='no Redis URL') as caught:
        RedisStorage('app', url)
    assert 'ses' not in str(caught.value) and 'ame' not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(('url', 'reason'), [
    ('redis+sentinel://:sesame@a', 'service'),
    ('redis+sentinel://:sesame@a/', 'service'),
    ('redis+sentinel://:sesame@a/tasks/0/1', 'service'),
    ('redis+sentinel://:sesame@a/tasks/one', 'no number'),
    ('redis+sentinel://:sesame@a:7000,/tasks', 'host is missing'),
    ('redis+sentinel://:sesame@/tasks', 'host is missing'),
    ('redis+sentinel://:sesame@a:port/tasks', 'has to be'),
    ('redis+sentinel://:ses/ame@a/tasks', 'has to be'),
    ('redis+sentinel://:sesame@[::1/tasks', 'has to be'),
    ('redis+cluster://:sesame@a/1', 'no databases'),
    ('redis+cluster://:sesame@a?db=1', 'no databases'),
    ('redis+cluster://:sesame@a?sentinel_password=sesame', 'no sentinels'),
    ('redis+cluster://:sesame@', 'host is missing'),
    ('redis+cluster://a:70000', 'has to be'),
])
def test_a_url_of_several_servers_that_is_wrong_says_how_it_has_to_be(url, reason):
    with pytest.raises(ConfigurationError, match=reason) as caught:
        RedisStorage('app', url)
    assert url.partition('//')[0] + '//[[user]:password@]host' in str(caught.value)
    assert 'ses' not in str(caught.value).replace('databases', '') and 'ame' not in str(caught.value).replace('name', '')
    assert caught.value.__suppress_context__


def test_a_pool_of_replicas_is_refused():
    pool = Sentinel([('a', 7000)]).slave_for('tasks').connection_pool
    with pytest.raises(ConfigurationError, match='needs? the master'):
        RedisStorage('app', connection_pool=pool)


def test_all_schemes_that_the_storage_knows_are_known_to_the_application():
    from geventhuey.api import REDIS_SCHEMES
    assert set(REDIS_SCHEMES) == {scheme + '://' for scheme in ('redis', 'rediss', 'unix', *SCHEMES)}


@pytest.fixture(scope='module')
def locked_server():
    with RedisServer(unix_socket=True, extra=['--requirepass', 'sesame']) as server:
        yield server


def everything_said(error):
    """The texts of an error and of all that led to it."""
    said = ''
    while error is not None:
        said += str(error) + repr(error)
        error = error.__cause__ or error.__context__
    return said


@pytest.mark.parametrize('password', ['open-sesame', ''])
def test_a_wrong_password_is_refused_and_not_told(locked_server, password):
    storage = RedisStorage('app', host='127.0.0.1', port=locked_server.port, password=password or None)
    for call in (storage.check, lambda: storage.enqueue(messages('a')), lambda: storage.session('beat').beat('a')):
        with pytest.raises(StorageRefused) as caught:
            call()
        assert 'sesame' not in everything_said(caught.value)


def test_the_right_password_is_not_told_when_the_server_goes(locked_server):
    for url in (f'redis://:sesame@127.0.0.1:{locked_server.port}', f'unix://:sesame@{locked_server.unix_socket_path}'):
        storage = RedisStorage('app', url)
        session = storage.session('beat')
        assert storage.pending_count('default') == session.pending_count('default') == 0
        session.close()
        storage.close()
        storage._patience = 0.0
        locked_server.kill()
        for each in (storage, session):
            with pytest.raises(StorageUnavailable) as caught:
                each.enqueue(messages('a'))
            assert 'sesame' not in everything_said(caught.value)
        locked_server.start()


# -- which server, and how it is set up -------------------------------------------------------------------------

def test_a_server_that_is_too_old_is_refused(redis_kit, proxy):
    storage = RedisStorage(redis_kit.name, proxy.url)
    assert storage.check()[0].split()[0] in ('Redis', 'Valkey')
    proxy.edit = lambda data: re.sub(rb'redis_version:\d', b'redis_version:5', data)
    with pytest.raises(StorageRefused, match='too old'):
        storage.check()
    storage.close()


def test_a_server_that_may_lose_tasks_is_warned_of(own_kit, server):
    assert own_kit.storage.check()[1] == ['appendonly is off: if Redis itself dies, what came after its last snapshot is lost']
    server.command('CONFIG', 'SET', 'maxmemory', '1gb')
    server.command('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru')
    try:
        assert 'maxmemory-policy is allkeys-lru' in own_kit.storage.check()[1][0]
    finally:
        server.command('CONFIG', 'SET', 'maxmemory-policy', 'noeviction')


def test_a_server_that_will_not_say_what_it_is_may_be_used(own_kit, server):
    server.command('ACL', 'SETUSER', 'quiet', 'on', '>word', '~*', '&*', '+@all', '-info')
    storage = RedisStorage(own_kit.name, own_kit.url.replace('//', '//quiet:word@'))
    assert storage.check() == ('Redis (INFO not permitted)', [])
    storage.close()


def test_who_may_not_publish_is_warned_and_served(own_kit, server):
    server.command('ACL', 'SETUSER', 'mute', 'on', '>word', '~*', 'resetchannels', '+@all')
    storage = RedisStorage(own_kit.name, own_kit.url.replace('//', '//mute:word@'))
    assert 'results and events are not pushed' in storage.check()[1][-1]
    storage.enqueue(messages('a'))
    consumer = Consumer(storage)
    assert consumer.settle(*consumer.fetch(), effects=[Keep('a', b'Vvalue', None), Publish(b'{}')]) == [True]
    assert storage.result('a', preserve=False) == b'Vvalue'
    storage.close()


@pytest.mark.parametrize(('said', 'error'), [
    ("OOM command not allowed when used memory > 'maxmemory'.", StorageUnavailable),
    ("ERR Error running script (call to f_0a): @user_script:1: @user_script: 1: -OOM command not allowed when used memory > "
     "'maxmemory'.", StorageUnavailable),
    ("ERR Error running script (call to f_0a): @user_script:1: @user_script: 1: -READONLY You can't write against a read only "
     "replica.", StorageUnavailable),
    ('ERR Error running script (call to f_0a): @user_script:1: attempt to index a nil value', StorageError),
    ('LOADING Redis is loading the dataset in memory', StorageUnavailable),
    ('BUSY Redis is busy running a script.', StorageUnavailable),
    ('MISCONF Redis is configured to save RDB snapshots, but ...', StorageUnavailable),
    ('ERR max number of clients reached', StorageUnavailable),
    ('NOPERM this user has no permissions', StorageRefused),
    ('NOAUTH Authentication required.', StorageRefused),
    ('MOVED 3999 127.0.0.1:6381', Moved),
    ('ASK 3999 127.0.0.1:6381', StorageUnavailable),
    ('TRYAGAIN Multiple keys request during rehashing of slot', StorageUnavailable),
    ('CLUSTERDOWN Hash slot not served', StorageUnavailable),
    ('UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)', StorageUnavailable),
    ("ERR READONLY You can't write against a read only replica.", StorageUnavailable),
    ('ERR Error running script (call to f_0a): @user_script:1: @user_script: 1: Lua script attempted to access a non local key in a '
     'cluster node', StorageUnavailable),
    ('ERR Script attempted to access a non local key in a cluster node script: 0a, on @user_script:1.', StorageUnavailable),
    ('WRONGTYPE Operation against a key holding the wrong kind of value', StorageError),
])
def test_what_the_server_says_is_translated(said, error):
    assert type(translated(said)) is error


# -- keys that somebody has spoiled -------------------------------------------------------------------------------

@pytest.mark.parametrize('spoil', [
    lambda raw, keys: raw.hset(keys.revoked, 'i:a', '0:0:' + 'a' * 300),
    lambda raw, keys: raw.hset(keys.revoked, 'i:a', '9' * 300 + ':0:aa'),
    lambda raw, keys: raw.hset(keys.revoked, 'i:a', b'\xff junk'), lambda raw, keys: raw.set(keys.revoked, 'of another kind'),
    lambda raw, keys: raw.set(keys.malformed, 'of another kind'), lambda raw, keys: raw.set(keys.wake('default'), 'of another kind'),
    lambda raw, keys: raw.set(keys.counters, 'of another kind')], ids=['long', 'far', 'junk', *['of another kind'] * 4])
def test_a_key_that_is_spoiled_costs_no_message(redis_kit, spoil):
    """Whatever a fetch stumbles over: what it has taken from the queue is in flight, and comes with the next answer."""
    storage = redis_kit.storage
    storage.enqueue(messages('a b c'))
    redis_kit.put_junk('default', b'no message')
    spoil(redis_kit.raw, storage.keys)
    consumer = Consumer(storage)
    found = []
    for _ in range(3):
        try:
            found = consumer.ask(2).deliveries or found
            break
        except StorageError:
            pass
    assert ids(found) == 'a b'
    assert ids(consumer.fetch(5)) == 'c'
