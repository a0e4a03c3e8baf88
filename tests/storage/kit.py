"""What the storage tests share: a storage with the levers that only a test may pull, messages, a consumer, bounded waits."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import redis

from geventhuey.clock import ManualClock
from geventhuey.message import SUSPECT, Message
from geventhuey.storage.base import BaseStorage, Delivery, Enqueue, Fetched, Reaped, Revocation, Schedule, Settlement, Suspects
from geventhuey.storage.memory import MemoryStorage
from geventhuey.storage.redis import RedisStorage

#: Seconds within which anything that is waited for has to happen, on a loaded machine.
BOUND = 20.0
#: Due times that no test reaches, and that every test has behind it; on both clocks.
FAR, PAST = 4_000_000_000.0, 1_000_000_000.0
FOR_EVER, ONCE = Revocation(None, False), Revocation(None, True)

_names = itertools.count(1)


class Kit:
    """A storage under test, and what is done to it behind its back."""

    kind: str
    storage: Any

    def another(self) -> BaseStorage:
        """The same storage as another process (or another thread's connection) sees it."""
        raise NotImplementedError

    def now(self) -> float:
        """The storage's clock."""
        raise NotImplementedError

    def later(self, seconds: float) -> None:
        """Everything that the storage does in time is so much nearer."""
        raise NotImplementedError

    def put_junk(self, queue: str, *junk: bytes) -> None:
        """Bytes at the tail of a queue, as if somebody had written them."""
        raise NotImplementedError

    def schedule_junk(self, junk: bytes) -> None:
        """Bytes in the schedule, long due."""
        raise NotImplementedError

    def lose_registry(self) -> None:
        """Nobody is registered; what is in flight is still there."""
        raise NotImplementedError

    def in_flight(self) -> dict[str, dict[int, bytes]]:
        """Everything that is in flight, by consumer and tag; consumers that hold nothing are not there."""
        raise NotImplementedError

    def waiting(self) -> int:
        """How many wait to be woken."""
        raise NotImplementedError

    def tokens(self) -> set[str]:
        """The queues whose wake token is there."""
        raise NotImplementedError

    def leftovers(self) -> set[str]:
        """What is kept, by the names of ``keys.py``, but for what expires by itself."""
        raise NotImplementedError

    def empty(self) -> None:
        """As new: nothing is kept, nobody is registered."""
        raise NotImplementedError

    def close(self) -> None:
        """Its connections are closed."""


class MemoryKit(Kit):
    kind = 'memory'

    def __init__(self, storage_class: type[MemoryStorage] = MemoryStorage) -> None:
        self._storage_class = storage_class
        self.empty()

    def empty(self) -> None:
        self.clock = ManualClock()
        self.storage = self._storage_class(f'app{next(_names)}', self.clock)

    def another(self) -> BaseStorage:
        return self.storage

    def now(self) -> float:
        return self.clock.now()

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def put_junk(self, queue: str, *junk: bytes) -> None:
        self.storage._queues[queue].plain.extend(junk)

    def schedule_junk(self, junk: bytes) -> None:
        self.storage._put_in_schedule(junk, PAST)

    def lose_registry(self) -> None:
        self.storage._consumers.clear()

    def in_flight(self) -> dict[str, dict[int, bytes]]:
        return {consumer: dict(held) for consumer, held in self.storage._inflight.items() if held}

    def waiting(self) -> int:
        return len(self.storage._sleepers)

    def tokens(self) -> set[str]:
        return set(self.storage._woken)

    def leftovers(self) -> set[str]:
        storage = self.storage
        storage.trim()
        named = {'consumers': storage._consumers, 'consumer_info': storage._info, 'schedule': storage._schedule,
                 'revoked': storage._revoked, 'errors': storage._errors, 'dead': storage._dead, 'malformed': storage._malformed,
                 'cron': storage._cron, 'watchers': storage._watchers, 'listeners': storage._listeners,
                 'sleepers': storage._sleepers, 'counters': storage._counters}
        left = {name for name, content in named.items() if len(content)}
        left |= {f'queue:{name}' for name, queue in storage._queues.items() if len(queue)}
        left |= {f'inflight:{consumer}' for consumer in storage._inflight}
        left |= {f'wake:{name}' for name in storage._woken}
        return left | {f'result:{key}' for key, (_, expiry) in storage._results.items() if expiry is None}


class RedisKit(Kit):
    kind = 'redis'

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = f'app{next(_names)}'
        self.storage = RedisStorage(self.name, url)
        self.raw = redis.Redis.from_url(url)
        self._others: list[RedisStorage] = []

    def empty(self) -> None:
        self.raw.flushdb()

    def another(self) -> BaseStorage:
        self._others.append(RedisStorage(self.name, self.url))
        return self._others[-1]

    def now(self) -> float:
        seconds, microseconds = self.raw.time()
        return float(seconds) + microseconds / 1_000_000

    def later(self, seconds: float) -> None:
        keys, ms = self.storage.keys, int(seconds * 1000)
        for zset in (keys.schedule, keys.revoked_expiry):
            for member in self.raw.zrange(zset, 0, -1):
                self.raw.zincrby(zset, -ms, member)
        for field, value in self.raw.hgetall(keys.revoked).items():
            until, rest = value.split(b':', 1)
            if until != b'0':
                self.raw.hset(keys.revoked, field, b'%d:%s' % (max(1, int(until) - ms), rest))
        for pattern in (keys.result('*'), keys.once('*')):
            for key in self.raw.scan_iter(pattern):
                left = self.raw.pttl(key)
                if left >= 0:
                    self.raw.pexpire(key, left - ms)

    def put_junk(self, queue: str, *junk: bytes) -> None:
        self.raw.rpush(self.storage.keys.queue(queue), *junk)

    def schedule_junk(self, junk: bytes) -> None:
        self.raw.zadd(self.storage.keys.schedule, {b'sequence' + junk: PAST * 1000})

    def lose_registry(self) -> None:
        self.raw.delete(self.storage.keys.consumers)

    def in_flight(self) -> dict[str, dict[int, bytes]]:
        call, prefix = self.storage._calls, len(self.storage.keys.inflight(''))
        [keys] = call([('KEYS', '*}:inflight:*')])
        found = dict(zip(keys, call([('HGETALL', key) for key in keys]), strict=True))
        return {key.decode()[prefix:]: {int(tag): raw for tag, raw in zip(flat[::2], flat[1::2], strict=True)}
                for key, flat in found.items()}

    def waiting(self) -> int:
        return int(self.raw.info('clients')['blocked_clients'])

    def tokens(self) -> set[str]:
        prefix = self.storage.keys.wake('')
        return {key.decode()[len(prefix):] for key in self.raw.keys(prefix.replace('{', '[{]') + '*')}

    def leftovers(self) -> set[str]:
        prefix = len(self.storage.keys.prefix)
        return {key.decode()[prefix:] for key in self.raw.keys('*') if self.raw.pttl(key) == -1}

    def connections(self, role: str) -> int:
        """How many connections of this application have this role."""
        name = f'geventhuey:{self.name}:{role}'
        return sum(client['name'] == name for client in self.raw.client_list())

    def close(self) -> None:
        for storage in (self.storage, *self._others):
            storage.close()
        self.raw.close()


# -- messages and a consumer ----------------------------------------------------------------------------------

def message(task_id: str, queue: str = 'default', priority: int = 0, flags: int = 0, name: str = 'app.task',
            payload: bytes = b'payload') -> Message:
    return Message(task_id, name, payload, queue, priority, flags, created=1_700_000_000.0)


def messages(text: str, queue: str = 'default') -> list[Message]:
    """One plain message for each word."""
    return [message(word, queue) for word in text.split()]


def ids(raws: Iterable[Any]) -> str:
    """The ids of messages (bytes, deliveries, or tuples that end with the bytes), in one text."""
    return ' '.join(Message.decode(_bytes_of(raw)).id for raw in raws)


def flags_of(deliveries: Iterable[Delivery]) -> list[int]:
    return [Message.decode(delivery.message).flags for delivery in deliveries]


def _bytes_of(item: Any) -> bytes:
    if isinstance(item, Delivery):
        return item.message
    return item[-1] if isinstance(item, tuple) else item


class Consumer:
    """A registration, and what a well-behaved owner of it remembers."""

    def __init__(self, storage: BaseStorage, name: str = 'consumer', request: int = 0) -> None:
        self.storage = storage
        self.name = name
        self.request = request + 1
        self.last = Fetched(None, [])       # type: ignore[arg-type]
        storage.register(name, request, b'info of ' + name.encode())

    def ask(self, at_most: int = 10, limits: dict[str, int] | None = None, request: int | None = None,
            suspects: Suspects = ((SUSPECT, 10),)) -> Fetched:
        """One fetch, by default under the number that comes next."""
        number = self.request if request is None else request
        self.last = self.storage.fetch(self.name, number, {'default': at_most} if limits is None else limits, at_most, suspects)
        if self.last.deliveries and number == self.request:
            self.request += 1
        return self.last

    def fetch(self, at_most: int = 10, limits: dict[str, int] | None = None) -> list[Delivery]:
        """The next messages."""
        return self.ask(at_most, limits).deliveries

    def settle(self, *deliveries: Delivery, effects: Sequence[Any] = ()) -> list[bool]:
        """Each of the deliveries has ended with these effects."""
        return self.storage.settle(self.name, [Settlement(delivery.tag, tuple(effects)) for delivery in deliveries])

    def settle_all(self) -> None:
        """Nothing is in flight any more."""
        self.storage.settle(self.name, [Settlement(tag) for tag in self.storage.held(self.name)])

    def beat_text(self) -> str:
        """What a reaper sees of it."""
        return self.storage.consumers()[self.name]

    def die(self, at_most: int = 100, max_deliveries: int = 5, result_ttl: float | None = 60.0) -> Reaped | None:
        """One step of a reap by somebody who has watched its beat stand still."""
        return self.storage.reap(self.name, self.beat_text(), max_deliveries, at_most, result_ttl)


def take_all(storage: BaseStorage, queue: str = 'default') -> str:
    """The ids of everything in a queue, in the order in which it runs; it has ended then."""
    consumer = Consumer(storage, 'taker')
    found = []
    while consumer.fetch(100, {queue: 100}):
        found.append(ids(consumer.last.deliveries))
        consumer.settle_all()
    storage.release('taker', 1)
    return ' '.join(found)


def retry(delivery: Delivery) -> Enqueue:
    """The delivery's message once more."""
    return Enqueue(delivery.message)


def retry_later(delivery: Delivery, delay: float) -> Schedule:
    return Schedule(delivery.message, delay)


def drain_tokens(kit: Kit) -> None:
    """No queue's wake token is there."""
    while tokens := kit.tokens():
        assert kit.storage.wait_wake(sorted(tokens), BOUND)


class Calls:
    """Counts how often it is called."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


# -- waiting --------------------------------------------------------------------------------------------------

def eventually(condition: Callable[[], Any], what: str = 'it') -> None:
    """Waits until the condition holds; fails when it does not within BOUND seconds."""
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, f'{what} did not happen within {BOUND:g} s'
        time.sleep(0.002)


def in_thread(call: Callable[..., Any], *args: Any) -> Future[Any]:
    """The call in a thread of its own; ``result(BOUND)`` waits for it."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call, *args)
    pool.shutdown(wait=False)
    return future
