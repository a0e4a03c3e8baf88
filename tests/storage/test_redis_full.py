"""RedisStorage alone: memory that is full. Consumers go on, producers are refused."""

from __future__ import annotations

import pytest

from geventhuey.exceptions import (
    StorageUnavailable,
)
from geventhuey.message import AT_MOST_ONCE, WANTS_RESULT
from geventhuey.storage import base
from geventhuey.storage.base import Bury, Enqueue, Keep, NoteError, Publish, Reaped, Schedule, Standing, task_field
from geventhuey.storage.redis import RedisStorage
from tests.storage.kit import (
    BOUND,
    FOR_EVER,
    ONCE,
    PAST,
    Consumer,
    ids,
    message,
    messages,
)

# -- memory that is full ----------------------------------------------------------------------------------------

@pytest.fixture
def full(own_kit, server):
    """Fills the server's memory; with False it has room again."""
    def fill(is_full=True):
        assert server.command('CONFIG', 'SET', 'maxmemory', '1' if is_full else '0') == b'OK'
    yield fill
    fill(False)


@pytest.mark.parametrize('call', [
    pytest.param(lambda storage: storage.enqueue(messages('a')), id='enqueue'),
    pytest.param(lambda storage: storage.enqueue([message('a', priority=1)]), id='enqueue-priority'),
    pytest.param(lambda storage: storage.schedule(message('a'), due=PAST), id='schedule'),
    pytest.param(lambda storage: storage.tick('name', 1, message('a')), id='tick'),
    pytest.param(lambda storage: storage.revoke(task_field('a'), FOR_EVER, None), id='revoke'),
])
def test_producers_are_refused_when_memory_is_full(own_kit, full, call):
    own_kit.storage._patience = 0.0
    full()
    with pytest.raises(StorageUnavailable, match='out of memory'):
        call(own_kit.storage)
    full(False)
    assert own_kit.storage.pending('default') == own_kit.storage.scheduled() == []
    call(own_kit.storage)


def test_consumers_work_when_memory_is_full(own_kit, full):
    storage = own_kit.storage
    storage.enqueue([*messages('a b c'), message('urgent', priority=1), message('low', priority=-1), *messages('o p', 'other')])
    storage.schedule(message('due'), due=PAST)
    storage.revoke(task_field('a'), ONCE, 60.0)
    own_kit.put_junk('default', b'junk')
    full()
    own_kit.raw.script_flush()
    consumer = Consumer(storage)
    assert storage.wait_wake(['default'], BOUND)
    for _ in range(2):                                      # it can take nothing, and says so to the others
        assert consumer.fetch(5, {'other': 0}) == []
    assert own_kit.tokens() == {'other', 'default'}         # 'default': of what was due
    urgent, a, *others = consumer.fetch(9, {'default': 9, 'other': 1})
    assert ids([urgent, a, *others]) == 'urgent a b c due low o'
    assert storage.counters() == {'malformed': 1}
    assert storage.beat('consumer')[::2] == (Standing.GOOD, 7)
    raw = message('next').encode()
    effects = [Keep('urgent', b'Vvalue', 60.0), Enqueue(raw), Schedule(raw, 60.0), Bury(raw, 'next', ''), NoteError(b'entry'),
               Publish(b'{}')]
    assert consumer.settle(urgent, effects=effects) == [True]
    assert consumer.settle(a) == [True]
    assert storage.release('consumer', 100) == Reaped(5, 0, True)
    assert (storage.counters(), ids(storage.pending('other'))) == ({'malformed': 1, 'dead': 1, 'released': 5}, 'p o')


def test_silent_consumers_are_reaped_when_memory_is_full(own_kit, full):
    storage = own_kit.storage
    storage.enqueue([message('a'), message('once', flags=AT_MOST_ONCE | WANTS_RESULT), message('low', priority=-1),
                     message('old')._replace(deliveries=4)])
    full()
    consumer = Consumer(storage)
    consumer.fetch()
    assert [consumer.die(at_most=2), consumer.die(at_most=9)] == [Reaped(1, 1, False), Reaped(1, 1, True)]
    assert ids(storage.pending('default')) == 'low a'
    assert storage.result('once', preserve=True)[:1] == base.LOST


def test_orphans_are_adopted_when_memory_is_full(own_kit, full):
    own_kit.storage.enqueue(messages('a'))
    consumer = Consumer(own_kit.storage)
    consumer.fetch()
    own_kit.lose_registry()
    full()
    assert own_kit.storage.adopt('consumer') is True
    assert consumer.die() == Reaped(1, 0, True)


def test_a_result_is_read_and_stays_when_memory_is_full(own_kit, full):
    own_kit.storage._patience = 0.0
    own_kit.storage.put_result('r', b'Vvalue', None)
    full()
    assert own_kit.storage.result('r', preserve=False) == own_kit.storage.result('r', preserve=False) == b'Vvalue'
    full(False)
    assert own_kit.storage.result('r', preserve=False) == b'Vvalue'
    assert own_kit.storage.result('r', preserve=False) == base.CONSUMED


def test_an_enqueue_is_decided_by_the_push_alone(redis_kit, proxy):
    storage = RedisStorage(redis_kit.name, proxy.url)
    assert storage.pending('default') == []
    full = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
    proxy.edit = lambda data: data.replace(b':1\r\n:1\r\n', b':1\r\n' + full)
    storage.enqueue(messages('a'))          # the push went in, and the token behind it did not
    proxy.edit = lambda data: data.replace(b':2\r\n', full)
    storage._patience = 0.0
    with pytest.raises(StorageUnavailable):
        storage.enqueue(messages('b'))
    storage.close()
