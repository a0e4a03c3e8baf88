"""RedisStorage: the contract on Redis, one round trip for a verb."""

from __future__ import annotations

import copy
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import hiredis

from geventhuey.exceptions import StorageError, StorageOutcomeUnknown, StorageRefused, StorageUnavailable
from geventhuey.message import SUSPECT, Message
from geventhuey.storage import base
from geventhuey.storage.base import (
    BaseStorage,
    Beat,
    Bury,
    Delivery,
    Enqueue,
    Fetched,
    Keep,
    NoteError,
    Reaped,
    Revocation,
    Schedule,
    Settlement,
    Standing,
    Suspects,
)
from geventhuey.storage.redis.address import Address
from geventhuey.storage.redis.connection import ANSWER_TIMEOUT, Command, Moved, SharedLink, translated
from geventhuey.storage.redis.discovery import CLUSTER
from geventhuey.storage.redis.keys import Keys
from geventhuey.storage.redis.lines import FixedLine, Lines
from geventhuey.storage.redis.listener import EventListener, ResultListener
from geventhuey.storage.redis.scripts import NEVER, script

OLDEST_REDIS = (6, 2)
#: Seconds that a producer tries for when Redis cannot be reached, so that a web request fails fast; an engine's part has its own
#: way to wait and tries once.
PATIENCE = 1.0
#: Arguments of one settle at most, in settlements and bytes: a longer script would hold up everybody else.
MAX_SETTLEMENTS, MAX_SETTLE_BYTES = 512, 1024 * 1024
#: Messages of one push, and keys of one look, at most.
CHUNK = 500

_STANDINGS = {standing.value: standing for standing in Standing}


class RedisStorage(BaseStorage):
    """Tasks in Redis 6.2 or later, or Valkey.

    ``url`` (``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://``, ``redis+cluster://``), ``connection_pool`` (a
    ``redis.ConnectionPool``, for its address only: the connections are our own) or the address keywords of ``redis.Redis`` say
    where; more than one of the three is an error.  ``read_timeout`` is how long ``dequeue`` waits in seconds when the application
    is ``blocking``.
    """

    def __init__(self, name: str, url: str | None = None, connection_pool: Any = None, read_timeout: float = 1.0,
                 max_errors: int = 1000, **connection_params: Any) -> None:
        super().__init__(name, max_errors)
        self.read_timeout = read_timeout
        self.keys = Keys(name)
        self.address = Address.of(url, connection_pool, connection_params, self.keys.prefix)
        self.is_local = self.address.is_local
        self._patience = PATIENCE
        self._lines: Lines | FixedLine = Lines(self._connect)
        self._results = ResultListener(functools.partial(self._connect, 'results'))

    # -- connections ----------------------------------------------------------------------------------------

    def session(self, role: str) -> RedisStorage:
        from gevent.lock import Semaphore
        session = copy.copy(self)
        session._patience = 0.0
        session._lines = FixedLine(SharedLink(functools.partial(self._connect, role, True), Semaphore))
        return session

    def _connect(self, role: str, engine: bool = False) -> Any:
        return self.address.connect(f'geventhuey:{self.name}:{role}', engine)

    def close(self) -> None:
        self._lines.close()
        if self._patience:                  # a session shares the listener of the storage it belongs to
            self._results.close()

    def describe(self) -> str:
        return str(self.address)

    def check(self) -> tuple[str, list[str]]:
        try:
            info = _info(self._call(('INFO',)))
        except StorageRefused as exc:
            if 'NOPERM' not in str(exc):
                raise
            return 'Redis (INFO not permitted)', []
        product = 'Valkey' if 'valkey_version' in info else 'Redis'
        version = info.get('valkey_version') or info.get('redis_version', '0')
        compatible = info.get('redis_version', '0')
        if tuple(int(part) for part in compatible.split('.')[:2] if part.isdigit()) < OLDEST_REDIS:
            raise StorageRefused(f'{product} {version} at {self.describe()} is too old: 6.2 or later is needed')
        return f'{product} {version}', [*_warnings(info, self.address.is_cluster), *self._publishing_warnings()]

    def _publishing_warnings(self) -> list[str]:
        """What it means when this user may not publish."""
        try:
            self._call(('PUBLISH', self.keys.result(''), b''))
            return []
        except StorageRefused as exc:
            return [f'results and events are not pushed, who waits looks every few seconds: give the user the channels '
                    f'&{self.keys.prefix}* ({exc})']

    # -- producers ------------------------------------------------------------------------------------------

    def enqueue(self, messages: Sequence[Message]) -> None:
        plain: dict[str, list[bytes]] = {}
        placed: list[bytes] = []
        for message in messages:
            if message.priority or message.deliveries >= SUSPECT:
                placed.append(message.encode())
            else:
                plain.setdefault(message.queue, []).append(message.encode())
        pushes = [functools.partial(self._push, queue, chunk) for queue, raws in plain.items() for chunk in _chunks(raws)]
        pushes += [functools.partial(self._place, chunk) for chunk in _chunks(placed)]
        for n, push in enumerate(pushes):
            try:
                push()
            except StorageError as exc:
                if n == 0:
                    raise
                raise StorageOutcomeUnknown(f'a part of the messages is in the queue, for the rest: {exc}') from exc

    def _push(self, queue: str, raws: Sequence[bytes]) -> None:
        self._call(('RPUSH', self.keys.queue(queue), *raws), ('ZADD', self.keys.wake(queue), 0, b'0'), once=True)

    def _place(self, raws: Sequence[bytes]) -> None:
        self._script('enqueue', (self.keys.queue('default'),), self.keys.prefix, *raws, once=True)

    def schedule(self, message: Message, due: float | None = None, delay: float = 0.0, event: bytes = b'') -> None:
        self._script('schedule', (self.keys.schedule,), self.keys.prefix, message.encode(),
                     '' if due is None else _us(due) / 1000, _ms(delay), event, once=True)

    def tick(self, name: str, tick: int, message: Message) -> bool:
        return bool(self._script('tick', (self.keys.cron,), self.keys.prefix, name, tick, message.encode()))

    def introduce(self, names: Sequence[str], tick: int) -> None:
        self._calls([('HSETNX', self.keys.cron, name, tick) for name in names])

    # -- registration ---------------------------------------------------------------------------------------

    def register(self, consumer: str, request: int, info: bytes = b'') -> None:
        keys = (self.keys.consumers, self.keys.consumer_info, self.keys.inflight(consumer))
        self._script('register', keys, consumer, request, info)

    def beat(self, consumer: str) -> Beat:
        standing, now, held = self._script('beat', (self.keys.consumers, self.keys.inflight(consumer)), consumer)
        return Beat(_STANDINGS[standing], now / 1000, held)

    def consumers(self) -> dict[str, str]:
        return {key.decode(): beat.decode() for key, beat in _pairs(self._call(('HGETALL', self.keys.consumers)))}

    def consumer_info(self) -> dict[str, bytes]:
        return {key.decode(): info for key, info in _pairs(self._call(('HGETALL', self.keys.consumer_info)))}

    # -- queue -> in flight -> end --------------------------------------------------------------------------

    def fetch(self, consumer: str, request: int, limits: Mapping[str, int], at_most: int,
              suspects: Suspects = base.ONE_SUSPECT) -> Fetched:
        keys = self.keys
        names = [keys.consumers, keys.inflight(consumer), keys.schedule, keys.revoked]
        args: list[Any] = [keys.prefix, consumer, request, at_most]
        for queue, limit in limits.items():
            names += keys.queue(queue), keys.priority(queue), keys.suspects(queue)
            args += queue, limit
        for allowed in suspects:
            args += allowed
        answer = self._script('fetch', names, *args)
        standing, due, listeners = answer[:3]
        return Fetched(_STANDINGS[standing], list(map(Delivery, itertools.repeat(consumer), answer[3::2], answer[4::2])),
                       None if due < 0 else due / 1e6, listeners)

    def settle(self, consumer: str, settlements: Sequence[Settlement], events: Sequence[bytes] = ()) -> list[bool | StorageError]:
        if events:
            self.publish(events)
        inflight = self.keys.inflight(consumer)
        done: list[bool | StorageError] = []
        args: list[Any] = [self.keys.prefix]
        count = size = 0
        for settlement in settlements:
            size += self._add_settlement(args, settlement)
            count += 1
            if count >= MAX_SETTLEMENTS or size >= MAX_SETTLE_BYTES:
                done += map(_ended, self._script('settle', (inflight,), *args))
                args, count, size = [self.keys.prefix], 0, 0
        if count:
            done += map(_ended, self._script('settle', (inflight,), *args))
        return done

    def _add_settlement(self, args: list[Any], settlement: Settlement) -> int:
        """Appends the settlement as the script reads it; answers about how many bytes that were."""
        args += settlement.tag, len(settlement.effects)
        size = 16
        for effect in settlement.effects:
            if isinstance(effect, Keep):
                args += b'R', effect.task_id, effect.record, _ttl_ms(effect.ttl)
                size += len(effect.record) + 48
            elif isinstance(effect, Enqueue):
                args += b'Q', effect.message
                size += len(effect.message)
            elif isinstance(effect, Schedule):
                args += b'S', effect.message, _ms(effect.delay)
                size += len(effect.message)
            elif isinstance(effect, Bury):
                args += b'D', effect.message, effect.task_id, effect.reason
                size += len(effect.message)
            elif isinstance(effect, NoteError):
                args += b'E', effect.entry, self._last_error()
                size += len(effect.entry)
            else:
                args += b'P', effect.event
                size += len(effect.event)
        return size

    def held(self, consumer: str) -> list[int]:
        return [int(tag) for tag in self._call(('HKEYS', self.keys.inflight(consumer)))]

    def recall(self, consumer: str, tags: Sequence[int]) -> list[Delivery]:
        if not tags:
            return []
        messages = self._call(('HMGET', self.keys.inflight(consumer), *tags))
        return [Delivery(consumer, tag, message) for tag, message in zip(tags, messages, strict=True) if message is not None]

    # -- in flight -> queue ---------------------------------------------------------------------------------

    def reap(self, consumer: str, beat: str, max_deliveries: int, at_most: int, result_ttl: float | None) -> Reaped | None:
        return self._take_back(consumer, beat or 'none', max_deliveries, at_most, result_ttl)

    def release(self, consumer: str, at_most: int, unbegun: Sequence[int] = (), result_ttl: float | None = None) -> Reaped:
        released = self._take_back(consumer, '', 255, at_most, result_ttl, unbegun)
        assert released is not None
        return released

    def _take_back(self, consumer: str, beat: str, max_deliveries: int, at_most: int, ttl: float | None,
                   unbegun: Sequence[int] = ()) -> Reaped | None:
        keys = (self.keys.consumers, self.keys.inflight(consumer), self.keys.consumer_info)
        answer = self._script('reap', keys, self.keys.prefix, consumer, beat, max_deliveries, at_most, _ttl_ms(ttl), *unbegun)
        return Reaped(answer[0], answer[1], bool(answer[2])) if answer[0] >= 0 else None

    def adopt(self, consumer: str) -> bool:
        return bool(self._script('adopt', (self.keys.consumers, self.keys.consumer_info), consumer))

    # -- being woken ----------------------------------------------------------------------------------------

    def wake(self, queues: Sequence[str]) -> None:
        # a hint: whether it was refused (memory is full) decides nothing
        self._calls([('ZADD', self.keys.wake(queue), 0, b'0') for queue in queues], decisive=0)

    def wait_wake(self, queues: Sequence[str], timeout: float) -> bool:
        # Redis rounds 0 up to "for ever", and may be 100 ms late
        command = ('BZPOPMIN', *map(self.keys.wake, queues), f'{max(0.01, timeout):.3f}')
        with self._lines.waiting() as line:
            try:
                return _checked(line.call((command,), timeout + ANSWER_TIMEOUT)[0]) is not None
            except Moved:               # while we waited; who looks now, finds where it is
                return False

    # -- results --------------------------------------------------------------------------------------------

    def put_result(self, task_id: str, record: bytes, ttl: float | None) -> None:
        self._script('put_result', (self.keys.result(task_id),), self.keys.prefix, task_id, record, _ttl_ms(ttl))

    def results_of(self, task_ids: Sequence[str], preserve: bool) -> list[bytes | None]:
        found: list[bytes | None] = []
        for start in range(0, len(task_ids), CHUNK):
            keys = [self.keys.result(task_id) for task_id in task_ids[start:start + CHUNK]]
            records: list[bytes | None] = self._call(('MGET', *keys))
            if not preserve:
                self._consume(keys, records)
            found += records
        return found

    def _consume(self, keys: Sequence[str], records: list[bytes | None]) -> None:
        """What is kept has been read: ``records`` are what was there, now that nobody else can read it any more."""
        kept = [n for n, record in enumerate(records) if record is not None and record[:1] in base.KEPT]
        if not kept:
            return
        try:
            read = self._script('result', [keys[n] for n in kept], _ms(base.TOMBSTONE_TTL), once=True)
        except StorageUnavailable:      # whether or not they are still there: here they are
            return
        for n, record in zip(kept, read, strict=True):
            records[n] = record

    def results(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        prefix = len(self.keys.result(''))
        for keys in self._scan(self.keys.result('*')):
            for key, record in zip(keys, self._call(('MGET', *keys)), strict=True):
                if record is not None and record[:1] in base.KEPT:
                    found[key[prefix:].decode()] = record
        return found

    def result_count(self) -> int:
        found: set[bytes] = set()
        for keys in self._scan(self.keys.result('*')):
            kinds = self._calls([('GETRANGE', key, 0, 0) for key in keys])
            found.update(key for key, kind in zip(keys, kinds, strict=True) if kind in base.KEPT)
        return len(found)

    def watching_all(self, wakes: Mapping[str, Callable[[], None]]) -> AbstractContextManager[None]:
        return self._results.watching({self.keys.result(task_id): wake for task_id, wake in wakes.items()})

    # -- once -----------------------------------------------------------------------------------------------

    def claim(self, key: str, owner: str, ttl: float) -> bool:
        return bool(self._script('claim', (self.keys.once(key),), owner, _ttl_ms(ttl)))

    def unclaim(self, key: str, owner: str) -> bool:
        return bool(self._script('unclaim', (self.keys.once(key),), owner))

    # -- revocations ----------------------------------------------------------------------------------------

    def revoke(self, field: str, revocation: Revocation, ttl: float | None) -> None:
        self._script('revoke', (self.keys.revoked, self.keys.revoked_expiry), field, revocation.encode(), _ttl_ms(ttl))

    def restore(self, field: str) -> bool:
        return bool(self._script('restore', (self.keys.revoked, self.keys.revoked_expiry), field, once=True))

    def revocation(self, field: str) -> Revocation | None:
        value = self._call(('HGET', self.keys.revoked, field))
        return None if value is None else Revocation.decode(value)

    def trim(self) -> int:
        return int(self._script('trim', (self.keys.revoked, self.keys.revoked_expiry)))

    # -- looking, and by hand -------------------------------------------------------------------------------

    def pending(self, queue: str, limit: int | None = None) -> list[bytes]:
        zset = self.keys.priority(queue)
        low, plain, urgent, suspects = self._calls([
            ('ZREVRANGEBYSCORE', zset, '+inf', '(0', *(('LIMIT', 0, limit) if limit else ())),
            ('LRANGE', self.keys.queue(queue), -limit if limit else 0, -1),
            ('ZREVRANGEBYSCORE', zset, '(0', '-inf', *(('LIMIT', 0, limit) if limit else ())),
            ('ZREVRANGE', self.keys.suspects(queue), 0, limit - 1 if limit else -1)])
        found: list[bytes] = [raw[8:] for raw in low] + plain[::-1] + [raw[8:] for raw in (*urgent, *suspects)]
        return found[:limit] if limit else found

    def pending_count(self, queue: str) -> int:
        return sum(self._calls([('LLEN', self.keys.queue(queue)), ('ZCARD', self.keys.priority(queue)),
                                ('ZCARD', self.keys.suspects(queue))]))

    def scheduled(self, limit: int | None = None) -> list[tuple[float, bytes]]:
        last = limit - 1 if limit else -1
        pairs = _pairs(self._call(('ZRANGE', self.keys.schedule, 0, last, 'WITHSCORES')))
        return [(float(score) / 1000, member[8:]) for member, score in pairs]

    def scheduled_count(self) -> int:
        return int(self._call(('ZCARD', self.keys.schedule)))

    def take_due(self, now: float, limit: int) -> list[bytes]:
        taken: list[bytes] = self._script('take_due', (self.keys.schedule,), _ms(now), limit, once=True)
        return taken

    def note_error(self, entry: bytes) -> None:
        self._calls([('LPUSH', self.keys.errors, entry), ('LTRIM', self.keys.errors, 0, self._last_error())])

    def _last_error(self) -> int:
        """The last index that the error list may have; before the first one (in Redis's way of counting) when it keeps none."""
        return self.max_errors - 1 if self.max_errors else -2 ** 31

    def errors(self, limit: int | None = None, offset: int = 0) -> list[bytes]:
        found: list[bytes] = self._call(('LRANGE', self.keys.errors, offset, offset + limit - 1 if limit else -1))
        return found

    def dead(self, limit: int | None = None) -> list[tuple[float, str, bytes]]:
        numbers = self._call(('ZREVRANGE', self.keys.dead_order, 0, limit - 1 if limit else -1))
        found = []
        for start in range(0, len(numbers), CHUNK):
            for record in self._call(('HMGET', self.keys.dead, *numbers[start:start + CHUNK])):
                if record is not None:
                    head, _, message = record.partition(b'\0')
                    moment, _, reason = head.partition(b' ')
                    found.append((int(moment) / 1000, reason.decode(), message))
        return found

    def retry_dead(self, task_id: str) -> int:
        keys = (self.keys.dead, self.keys.dead_order, self.keys.result(task_id))
        return int(self._script('retry_dead', keys, self.keys.prefix, task_id))

    def purge_dead(self, task_id: str | None = None) -> int:
        return int(self._script('purge_dead', (self.keys.dead, self.keys.dead_order), task_id or ''))

    def malformed(self, limit: int | None = None) -> list[bytes]:
        found: list[bytes] = self._call(('LRANGE', self.keys.malformed, 0, limit - 1 if limit else -1))
        return found

    def counters(self) -> dict[str, int]:
        return {key.decode(): int(count) for key, count in _pairs(self._call(('HGETALL', self.keys.counters)))}

    def flush(self) -> None:
        keys = self.keys
        waited_for = self._call(('PUBSUB', 'CHANNELS', keys.result('*')))
        for pattern in (keys.queue('*'), keys.priority('*'), keys.suspects('*'), keys.result('*')):
            for found in self._scan(pattern):
                self._call(('UNLINK', *found))
        self._call(('UNLINK', keys.schedule, keys.revoked, keys.revoked_expiry, keys.errors, keys.dead, keys.dead_order,
                    keys.malformed))
        prefix = len(keys.result(''))
        for channel in waited_for:
            self.put_result(channel[prefix:].decode(), base.LOST + b'it was flushed away', base.TOMBSTONE_TTL)

    # -- events ---------------------------------------------------------------------------------------------

    def publish(self, events: Sequence[bytes]) -> None:
        self._calls([('PUBLISH', self.keys.events, event) for event in events])

    def listener(self) -> Any:
        """A ``redis.client.PubSub`` that is subscribed to the events.

        On a cluster it is connected to the node that serves the application.  Consumers announce to those who listen there: when
        the slot has moved to another node, listeners hear nothing until they connect anew.
        """
        import redis
        pool = self.address.pool(f'geventhuey:{self.name}:events')
        pubsub = redis.Redis(connection_pool=pool).pubsub()
        pubsub.subscribe(self.keys.events)
        return pubsub

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return EventListener(self.listener())

    # -- one round trip -------------------------------------------------------------------------------------

    def _script(self, name: str, keys: Sequence[str], *args: Any, once: bool = False) -> Any:
        """The script's answer. ``once``: it must not be repeated when its outcome is unknown."""
        source = script(name, self.address.is_cluster)
        try:
            return self._call(('EVALSHA', source.sha, len(keys), *keys, *args), once=once)
        except StorageError as exc:
            if 'NOSCRIPT' not in str(exc):
                raise
        return self._call(('EVAL', source.text, len(keys), *keys, *args), once=once)      # which Redis keeps, too

    def _call(self, *commands: Command, once: bool = False) -> Any:
        """The first command's answer, which alone decides: the others are hints, that may be refused when memory is full."""
        return self._calls(commands, once, decisive=1)[0]

    def _calls(self, commands: Sequence[Command], once: bool = False, decisive: int | None = None) -> list[Any]:
        """The answers, or the first ``decisive`` ones.

        What certainly was not done (and, unless ``once``, what may have been) is tried again while patience lasts; what is
        elsewhere now, at once.
        """
        if not commands:
            return []
        give_up = time.monotonic() + self._patience
        pause = 0.05
        was_moved = not self.address.is_cluster
        while True:
            try:
                return [_checked(answer) for answer in self._lines.line().call(commands)[:decisive]]
            except StorageUnavailable as exc:
                if isinstance(exc, Moved) and not was_moved:
                    was_moved = True
                    continue
                if (once and isinstance(exc, StorageOutcomeUnknown)) or time.monotonic() + pause > give_up:
                    raise
            time.sleep(pause)
            pause *= 2

    def _scan(self, pattern: str) -> Iterator[list[bytes]]:
        """Keys that match, in portions; a key may come twice. Raises StorageUnavailable while a slot moves: some are elsewhere."""
        if self.address.is_cluster:
            self._call(('EXISTS', self.keys.prefix + NEVER))
        cursor = b'0'
        escaped = pattern.replace('[', r'\[').replace('?', r'\?')
        while True:
            cursor, keys = self._call(('SCAN', cursor, 'MATCH', escaped, 'COUNT', CHUNK))
            if keys:
                yield keys
            if cursor == b'0':
                return


def _chunks(raws: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """The same in portions that travel together."""
    return (raws[start:start + CHUNK] for start in range(0, len(raws), CHUNK))


def _checked(answer: Any) -> Any:
    """The answer; raises the error that it is."""
    if isinstance(answer, hiredis.ReplyError):
        raise translated(str(answer))
    return answer


def _ended(answer: int | bytes) -> bool | StorageError:
    """How the end of one delivery went: an effect may have been refused."""
    return bool(answer) if isinstance(answer, int) else translated(answer.decode('utf-8', 'replace'))


def _ms(seconds: float | None) -> int:
    """Whole milliseconds, rounded up, so that nothing is due or gone early; None is 0."""
    return 0 if seconds is None else -int(-seconds * 1000 // 1)


def _us(seconds: float) -> int:
    """Whole microseconds, rounded up."""
    return -int(-seconds * 1_000_000 // 1)


def _ttl_ms(ttl: float | None) -> int:
    """Whole milliseconds to live, at least one; None, for ever, is 0."""
    return 0 if ttl is None else max(1, _ms(ttl))


def _pairs(flat: Sequence[Any]) -> list[tuple[Any, Any]]:
    """[a, b, c, d] as [(a, b), (c, d)]."""
    return list(zip(flat[::2], flat[1::2], strict=True))


def _info(text: bytes) -> dict[str, str]:
    """The answer to INFO, by name."""
    lines = (line.partition(':') for line in text.decode('utf-8', 'replace').splitlines() if ':' in line)
    return {name: value for name, _, value in lines}


def _warnings(info: Mapping[str, str], is_cluster: bool) -> Iterator[str]:
    """What may lose tasks, by the way this server is set up."""
    if info.get('maxmemory', '0') != '0' and info.get('maxmemory_policy', 'noeviction') != 'noeviction':
        yield (f'maxmemory-policy is {info["maxmemory_policy"]}: when memory is full, Redis will throw tasks away; '
               f'set maxmemory-policy noeviction')
    if info.get('role', 'master') != 'master':
        yield 'this Redis is a replica: it cannot be written to'
    if info.get('redis_mode') == 'cluster' and not is_cluster:
        yield (f'this is a node of a Redis Cluster: use {CLUSTER}://, which finds the node that serves the application, and loses '
               f'nothing when its slot moves to another one')
    if info.get('aof_enabled', '0') == '0':
        yield 'appendonly is off: if Redis itself dies, what came after its last snapshot is lost'
