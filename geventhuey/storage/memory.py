"""MemoryStorage: the contract in dicts and deques, one lock around each verb. Every step is that of the Redis scripts."""

from __future__ import annotations

import bisect
import itertools
import json
import weakref
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any, ClassVar

from geventhuey import native
from geventhuey.clock import Clock, ManualClock
from geventhuey.exceptions import MessageError, StorageError
from geventhuey.message import AT_MOST_ONCE, PROOF, REVOKED, REVOKED_FOR_GOOD, SUSPECT, WANTS_RESULT, Message, going_back, made_new, marked
from geventhuey.storage import base
from geventhuey.storage.base import (
    BaseStorage,
    Beat,
    Bury,
    Delivery,
    Effect,
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
    name_field,
    task_field,
)
from geventhuey.waiter import Waiter, waiter

EVICTED = 'x'


class _Ordered:
    """Messages by a number, equal ones in the order of their sequence: what a zset is in Redis."""

    def __init__(self) -> None:
        self._items: list[tuple[float, int, bytes]] = []

    def __len__(self) -> int:
        return len(self._items)

    def add(self, score: float, sequence: int, message: bytes) -> None:
        bisect.insort(self._items, (score, sequence, message))

    def first(self) -> float | None:
        return self._items[0][0] if self._items else None

    def take(self, upto: float, at_most: int) -> list[bytes]:
        """The first messages with a score of at most ``upto``, taken out."""
        if not self._items or self._items[0][0] > upto or at_most <= 0:
            return []
        n = min(at_most, bisect.bisect_right(self._items, (upto, _BEHIND, b'')))
        taken, self._items = self._items[:n], self._items[n:]
        return [message for _, _, message in taken]

    def take_between(self, above: float, upto: float, at_most: int) -> list[bytes]:
        """The first messages with a score of more than ``above`` and at most ``upto``, taken out."""
        start = bisect.bisect_right(self._items, (above, _BEHIND, b''))
        end = min(start + max(0, at_most), bisect.bisect_right(self._items, (upto, _BEHIND, b'')))
        taken = self._items[start:end]
        del self._items[start:max(start, end)]
        return [message for _, _, message in taken]

    def holds(self, above: float, upto: float) -> bool:
        """True when there is a message with a score of more than ``above`` and at most ``upto``."""
        return bisect.bisect_right(self._items, (above, _BEHIND, b'')) < bisect.bisect_right(self._items, (upto, _BEHIND, b''))

    def items(self) -> list[tuple[float, bytes]]:
        return [(score, message) for score, _, message in self._items]


_BEHIND = 2 ** 62


class _Queue:
    """One queue: plain messages, those with a priority by its negative, and suspects by the negative of their deliveries."""

    def __init__(self) -> None:
        self.plain: deque[bytes] = deque()
        self.priority = _Ordered()
        self.suspects = _Ordered()

    def __len__(self) -> int:
        return len(self.plain) + len(self.priority) + len(self.suspects)

    def pop(self, at_most: int) -> list[bytes]:
        """The next messages: urgent ones, plain ones, the others."""
        taken = self.priority.take(-0.5, at_most)
        while self.plain and len(taken) < at_most:
            taken.append(self.plain.popleft())
        return taken + self.priority.take(float('inf'), at_most - len(taken))

    def items(self) -> list[bytes]:
        ranked = self.priority.items()
        return ([raw for _, raw in self.suspects.items()] + [raw for score, raw in ranked if score < 0] + list(self.plain)
                + [raw for score, raw in ranked if score > 0])


class _Consumer:
    """One registration."""

    def __init__(self, beat: str, request: int) -> None:
        self.beat = beat
        self.request = request

    def __str__(self) -> str:
        return EVICTED if self.beat == EVICTED else f'{self.beat}:{self.request}'


class MemoryStorage(BaseStorage):
    """Tasks in the memory of this process, for threads and greenlets alike. They are gone when the process ends."""

    in_process: ClassVar[bool] = True
    is_local = True

    def __init__(self, name: str, clock: Clock | None = None, read_timeout: float = 1.0, max_errors: int = 1000) -> None:
        super().__init__(name, max_errors)
        self.read_timeout = read_timeout
        self.clock = clock or Clock()
        self._lock = native.lock()          # no switch while it is held: greenlets of one thread never meet at it
        self._tail, self._head = itertools.count(1), itertools.count(-1, -1)
        self._beats = itertools.count(1)
        self._consumers: dict[str, _Consumer] = {}
        self._info: dict[str, bytes] = {}
        self._inflight: defaultdict[str, dict[int, bytes]] = defaultdict(dict)
        self._cron: dict[str, int] = {}
        self._counters: Counter[str] = Counter()
        self._claims: dict[str, tuple[str, float]] = {}
        self._woken: set[str] = set()
        self._sleepers: deque[tuple[frozenset[str], Waiter]] = deque()
        self._watchers: dict[str, list[Callable[[], None]]] = {}
        self._listeners: weakref.WeakSet[EventQueue] = weakref.WeakSet()
        self._empty()
        if isinstance(self.clock, ManualClock):
            self.clock.on_change(self._look_again)

    def _empty(self) -> None:
        """What ``flush`` empties."""
        self._queues: defaultdict[str, _Queue] = defaultdict(_Queue)
        self._schedule = _Ordered()
        self._results: dict[str, tuple[bytes, float | None]] = {}
        self._revoked: dict[str, tuple[Revocation, float | None]] = {}
        self._errors: deque[bytes] = deque(maxlen=self.max_errors)
        self._dead: deque[tuple[float, str, bytes]] = deque(maxlen=base.MAX_DEAD)
        self._malformed: deque[bytes] = deque(maxlen=base.MAX_MALFORMED)

    def describe(self) -> str:
        return f'memory://{self.name}'

    def check(self) -> tuple[str, list[str]]:
        return 'memory of this process', []

    # -- producers ------------------------------------------------------------------------------------------

    def enqueue(self, messages: Sequence[Message]) -> None:
        raws = [message.encode() for message in messages]
        with self._lock:
            woken = self._wake({self._place(raw) for raw in raws})
        _wake_all(woken)

    def schedule(self, message: Message, due: float | None = None, delay: float = 0.0, event: bytes = b'') -> None:
        raw = message.encode()
        with self._lock:
            due = self._now() + delay if due is None else due
            self._put_in_schedule(raw, due)
            if event:
                self._publish(event)
            woken = self._wake({message.queue} if due - self._now() < base.SOON else set())
        _wake_all(woken)

    def tick(self, name: str, tick: int, message: Message) -> bool:
        raw = message.encode()
        with self._lock:
            if self._cron.get(name, tick - 1) >= tick:
                return False
            self._cron[name] = tick
            woken = self._wake({self._place(raw)})
        _wake_all(woken)
        return True

    def introduce(self, names: Sequence[str], tick: int) -> None:
        with self._lock:
            for name in names:
                self._cron.setdefault(name, tick)

    # -- registration ---------------------------------------------------------------------------------------

    def register(self, consumer: str, request: int, info: bytes = b'') -> None:
        with self._lock:
            used = [tag // base.TAGS_PER_REQUEST for tag in self._inflight.get(consumer, ())]
            self._consumers.setdefault(consumer, _Consumer(self._beat(), max([request, *used])))
            self._info[consumer] = info

    def beat(self, consumer: str) -> Beat:
        with self._lock:
            standing = self._standing(consumer)
            if standing is Standing.GOOD:
                self._consumers[consumer].beat = self._beat()
            return Beat(standing, self._now(), len(self._inflight.get(consumer, ())))

    def consumers(self) -> dict[str, str]:
        with self._lock:
            return {name: str(consumer) for name, consumer in self._consumers.items()}

    def consumer_info(self) -> dict[str, bytes]:
        with self._lock:
            return dict(self._info)

    def _standing(self, consumer: str) -> Standing:
        found = self._consumers.get(consumer)
        if found is None:
            return Standing.UNKNOWN
        return Standing.EVICTED if found.beat == EVICTED else Standing.GOOD

    def _beat(self) -> str:
        """A text that no beat has had before."""
        return str(next(self._beats))

    # -- queue -> in flight -> end --------------------------------------------------------------------------

    def fetch(self, consumer: str, request: int, limits: Mapping[str, int], at_most: int,
              suspects: Suspects = base.ONE_SUSPECT) -> Fetched:
        with self._lock:
            fetched, woken = self._fetch(consumer, request, limits, at_most, suspects)
        _wake_all(woken)
        return fetched

    def _fetch(self, consumer: str, request: int, limits: Mapping[str, int], at_most: int,
               suspects: Suspects) -> tuple[Fetched, list[Waiter]]:
        standing = self._standing(consumer)
        if standing is not Standing.GOOD:
            return Fetched(standing, []), []
        registration = self._consumers[consumer]
        if request < registration.request:
            return Fetched(Standing.STALE, []), []
        held = self._inflight.get(consumer, {})
        if request == registration.request:
            again = [Delivery(consumer, tag, held[tag]) for tag in sorted(held) if tag // base.TAGS_PER_REQUEST == request]
            return Fetched(standing, again, self._next_due(), len(self._listeners)), []

        at_most = min(at_most, base.MAX_FETCH)
        woken: set[str] = set()
        for raw in self._schedule.take(self._now(), base.MAX_PROMOTE):
            if self._is_message(raw):
                woken.add(self._place(raw))
        next_due = self._next_due()
        left = dict(limits)
        got = self._take_suspects(suspects, left, at_most, woken)
        popped = sum(limits.values()) - sum(left.values())
        got = [raw for raw in got if self._is_message(raw)]
        for name, limit in left.items():
            want = min(at_most - popped, limit)
            raws = self._queues[name].pop(max(0, want))
            popped += len(raws)
            got += [raw for raw in raws if self._is_message(raw)]
            if len(raws) >= want and (self._queues[name].plain or self._queues[name].priority):
                woken.add(name)
        first_tag = request * base.TAGS_PER_REQUEST + 1
        deliveries = [Delivery(consumer, tag, self._marked(raw)) for tag, raw in enumerate(got, first_tag)]
        if deliveries:
            self._inflight[consumer].update([(tag, raw) for _, tag, raw in deliveries])
            registration.beat, registration.request = self._beat(), request
        return Fetched(standing, deliveries, next_due, len(self._listeners)), self._wake(woken)

    def _take_suspects(self, suspects: Suspects, left: dict[str, int], at_most: int, woken: set[str]) -> list[bytes]:
        """The suspects that may come; the limits ``left`` are so much less. A queue of which some stay behind is to be woken."""
        got: list[bytes] = []
        above = first = -float('inf')
        for deliveries, room in suspects:
            waiting = [name for name in left if self._queues[name].suspects.holds(above, -deliveries)]
            for name in waiting:
                raws = self._queues[name].suspects.take_between(above, -deliveries, min(room, at_most - len(got), left[name]))
                room, left[name] = room - len(raws), left[name] - len(raws)
                got += raws
                if raws and self._queues[name].suspects:
                    woken.add(base.for_suspects(name))
            if waiting and above == first:
                break
            above = -deliveries
        return got

    def _marked(self, raw: bytes) -> bytes:
        """The message with a flag when it is revoked."""
        if not self._revoked:
            return raw
        message = Message.decode(raw)
        for field in (task_field(message.id), name_field(message.name)):
            if field not in self._revoked or raw[2] & PROOF:
                continue
            revocation, _ = self._revoked[field]
            proof = revocation.encode() if revocation.signature else b''
            if revocation.once:
                if not raw[2] & REVOKED_FOR_GOOD:
                    del self._revoked[field]
                    raw = marked(raw, REVOKED_FOR_GOOD, proof)
            elif (revocation.until is None or revocation.until > self._now()) and not raw[2] & REVOKED:
                raw = marked(raw, REVOKED, proof)
        return raw

    def settle(self, consumer: str, settlements: Sequence[Settlement], events: Sequence[bytes] = ()) -> list[bool | StorageError]:
        self.publish(events)
        with self._lock:
            held = self._inflight.get(consumer, {})
            queues: set[str] = set()
            told: list[Callable[[], None]] = []
            done: list[bool | StorageError] = []
            for tag, effects in settlements:
                was_held = held.pop(tag, None) is not None
                if was_held:
                    for effect in effects:
                        self._bring_about(effect, queues, told)
                done.append(was_held)
            self._forget_empty(consumer)
            woken = self._wake(queues)
        _wake_all(woken)
        for tell in told:
            tell()
        return done

    def _bring_about(self, effect: Effect, queues: set[str], told: list[Callable[[], None]]) -> None:
        if isinstance(effect, Keep):
            told += self._keep(effect.task_id, effect.record, effect.ttl)
        elif isinstance(effect, Enqueue):
            queues.add(self._place(effect.message))
        elif isinstance(effect, Schedule):
            self._put_in_schedule(effect.message, self._now() + effect.delay)
            queues.add(Message.decode(effect.message).queue)
        elif isinstance(effect, Bury):
            self._bury(effect.message, effect.reason)
        elif isinstance(effect, NoteError):
            self._errors.appendleft(effect.entry)
        else:
            self._publish(effect.event)

    def held(self, consumer: str) -> list[int]:
        with self._lock:
            return list(self._inflight.get(consumer, ()))

    def recall(self, consumer: str, tags: Sequence[int]) -> list[Delivery]:
        with self._lock:
            held = self._inflight.get(consumer, {})
            return [Delivery(consumer, tag, held[tag]) for tag in tags if tag in held]

    def _forget_empty(self, consumer: str) -> None:
        if not self._inflight.get(consumer, True):
            del self._inflight[consumer]

    # -- in flight -> queue ---------------------------------------------------------------------------------

    def reap(self, consumer: str, beat: str, max_deliveries: int, at_most: int, result_ttl: float | None) -> Reaped | None:
        with self._lock:
            found = self._consumers.get(consumer)
            if found is None or (found.beat != EVICTED and str(found) != beat):
                return None
            found.beat = EVICTED
            reaped, woken, told = self._take_back(consumer, at_most, max_deliveries, result_ttl)
        _wake_all(woken)
        for tell in told:
            tell()
        return reaped

    def release(self, consumer: str, at_most: int, unbegun: Sequence[int] = (), result_ttl: float | None = None) -> Reaped:
        with self._lock:
            reaped, woken, told = self._take_back(consumer, at_most, None, result_ttl, frozenset(unbegun))
        _wake_all(woken)
        for tell in told:
            tell()
        return reaped

    def _take_back(self, consumer: str, at_most: int, max_deliveries: int | None, result_ttl: float | None,
                   unbegun: Set[int] = frozenset()) -> tuple[Reaped, list[Waiter], list[Callable[[], None]]]:
        """The newest messages first, each put in front of the others. ``max_deliveries`` None: a release."""
        held = self._inflight.get(consumer, {})
        requeued = dead = 0
        queues: set[str] = set()
        told: list[Callable[[], None]] = []
        for tag in sorted(held, reverse=True)[:at_most]:
            message = Message.decode(raw := held.pop(tag))
            deliveries = min(255, message.deliveries + (max_deliveries is not None))
            raw = going_back(raw, deliveries)
            at_most_once = bool(message.flags & AT_MOST_ONCE) and tag not in unbegun
            if at_most_once or (max_deliveries is not None and deliveries >= max_deliveries):
                reason = f'its consumer died while it ran, {deliveries} times'
                if at_most_once:
                    how = 'was stopped' if max_deliveries is None else 'died'
                    reason = f'its consumer {how} while it ran, and it may run only once'
                self._bury(raw, reason)
                if message.flags & WANTS_RESULT:
                    told += self._keep(message.id, base.LOST + reason.encode(), result_ttl)
                dead += 1
            else:
                queues.add(self._place(raw, at_head=True))
                requeued += 1
        if requeued:
            self._counters['released' if max_deliveries is None else 'reaped'] += requeued
        done = not held
        if done:
            self._inflight.pop(consumer, None)
            self._consumers.pop(consumer, None)
            self._info.pop(consumer, None)
        return Reaped(requeued, dead, done), self._wake(queues), told

    def adopt(self, consumer: str) -> bool:
        with self._lock:
            if consumer not in self._info or consumer in self._consumers:
                return False
            self._consumers[consumer] = _Consumer(EVICTED, 0)
            return True

    # -- being woken ----------------------------------------------------------------------------------------

    def wake(self, queues: Sequence[str]) -> None:
        with self._lock:
            woken = self._wake(set(queues))
        _wake_all(woken)

    def wait_wake(self, queues: Sequence[str], timeout: float) -> bool:
        wanted = frozenset(queues)
        with self._lock:
            if ready := self._woken & wanted:
                self._woken.discard(min(ready))
                return True
            sleeper = (wanted, waiter())
            self._sleepers.append(sleeper)
        try:
            if sleeper[1].wait(timeout):
                return True
        finally:
            with self._lock:
                waiting = sleeper in self._sleepers
                if waiting:
                    self._sleepers.remove(sleeper)
        return not waiting                      # woken in the very moment in which it gave up

    def _wake(self, queues: set[str]) -> list[Waiter]:
        """The token of each queue is there, or goes to the first who waits for it; those are to be woken without the lock."""
        woken = []
        for name in sorted(queues):
            for sleeper in self._sleepers:
                if name in sleeper[0]:
                    self._sleepers.remove(sleeper)
                    woken.append(sleeper[1])
                    break
            else:
                self._woken.add(name)
        return woken

    def _look_again(self) -> None:
        """The clock was turned: something may be due, for those who wait and for who is about to."""
        with self._lock:
            due = [raw for score, raw in self._schedule.items() if score <= self._now()]
            self._woken.update(Message.decode(raw).queue for raw in due if _is_whole(raw))
            woken = [sleeper[1] for sleeper in self._sleepers]
            self._sleepers.clear()
        _wake_all(woken)

    # -- results --------------------------------------------------------------------------------------------

    def put_result(self, task_id: str, record: bytes, ttl: float | None) -> None:
        with self._lock:
            told = self._keep(task_id, record, ttl)
        for tell in told:
            tell()

    def results_of(self, task_ids: Sequence[str], preserve: bool) -> list[bytes | None]:
        told: list[Callable[[], None]] = []
        records = []
        with self._lock:
            for task_id in task_ids:
                record = self._record(task_id)
                records.append(record)
                if record is not None and not preserve and record[:1] in base.KEPT:
                    told += self._keep(task_id, base.CONSUMED, base.TOMBSTONE_TTL)
        for tell in told:
            tell()
        return records

    def results(self) -> dict[str, bytes]:
        with self._lock:
            records = {task_id: self._record(task_id) for task_id in list(self._results)}
        return {task_id: record for task_id, record in records.items() if record is not None and record[:1] in base.KEPT}

    def result_count(self) -> int:
        return len(self.results())

    @contextmanager
    def watching_all(self, wakes: Mapping[str, Callable[[], None]]) -> Iterator[None]:
        with self._lock:
            for task_id, wake in wakes.items():
                self._watchers.setdefault(task_id, []).append(wake)
        for wake in wakes.values():
            wake()
        try:
            yield
        finally:
            with self._lock:
                for task_id, wake in wakes.items():
                    watchers = self._watchers[task_id]
                    watchers.remove(wake)
                    if not watchers:
                        del self._watchers[task_id]

    def _record(self, task_id: str) -> bytes | None:
        record, expiry = self._results.get(task_id, (None, None))
        if expiry is not None and expiry <= self._now():
            del self._results[task_id]
            return None
        return record

    def _keep(self, task_id: str, record: bytes, ttl: float | None) -> list[Callable[[], None]]:
        """The record is kept; answers whom to tell, without the lock."""
        self._results[task_id] = record, None if ttl is None else self._now() + ttl
        return list(self._watchers.get(task_id, ()))

    # -- once -----------------------------------------------------------------------------------------------

    def claim(self, key: str, owner: str, ttl: float) -> bool:
        with self._lock:
            holder, expiry = self._claims.get(key, ('', 0.0))
            if expiry > self._now():
                return holder == owner
            self._claims[key] = owner, self._now() + ttl
            return True

    def unclaim(self, key: str, owner: str) -> bool:
        with self._lock:
            holder, expiry = self._claims.get(key, ('', 0.0))
            if holder != owner or expiry <= self._now():
                return False
            del self._claims[key]
            return True

    # -- revocations ----------------------------------------------------------------------------------------

    def revoke(self, field: str, revocation: Revocation, ttl: float | None) -> None:
        with self._lock:
            self._revoked[field] = revocation, None if ttl is None else self._now() + ttl

    def restore(self, field: str) -> bool:
        with self._lock:
            return self._revoked.pop(field, None) is not None

    def revocation(self, field: str) -> Revocation | None:
        with self._lock:
            return self._revoked.get(field, (None, None))[0]

    def trim(self) -> int:
        with self._lock:
            now = self._now()
            old = [field for field, (_, expiry) in self._revoked.items() if expiry is not None and expiry <= now]
            for field in old:
                del self._revoked[field]
            for task_id in list(self._results):
                self._record(task_id)
            self._claims = {key: claim for key, claim in self._claims.items() if claim[1] > now}
            return len(old)

    # -- looking, and by hand -------------------------------------------------------------------------------

    def pending(self, queue: str, limit: int | None = None) -> list[bytes]:
        with self._lock:
            return self._queues[queue].items()[::-1][:limit or None]

    def pending_count(self, queue: str) -> int:
        with self._lock:
            return len(self._queues[queue])

    def scheduled(self, limit: int | None = None) -> list[tuple[float, bytes]]:
        with self._lock:
            return self._schedule.items()[:limit or None]

    def scheduled_count(self) -> int:
        with self._lock:
            return len(self._schedule)

    def take_due(self, now: float, limit: int) -> list[bytes]:
        with self._lock:
            return self._schedule.take(now, limit)

    def note_error(self, entry: bytes) -> None:
        with self._lock:
            self._errors.appendleft(entry)

    def errors(self, limit: int | None = None, offset: int = 0) -> list[bytes]:
        with self._lock:
            return list(self._errors)[offset:offset + limit if limit else None]

    def dead(self, limit: int | None = None) -> list[tuple[float, str, bytes]]:
        with self._lock:
            return list(self._dead)[::-1][:limit or None]

    def retry_dead(self, task_id: str) -> int:
        with self._lock:
            found = self._take_dead(task_id)
            woken = self._wake({self._place(made_new(raw)) for _, _, raw in found})
            if found and (self._record(task_id) or b'')[:1] == base.LOST:
                del self._results[task_id]
        _wake_all(woken)
        return len(found)

    def purge_dead(self, task_id: str | None = None) -> int:
        with self._lock:
            return len(self._take_dead(task_id))

    def _take_dead(self, task_id: str | None) -> list[tuple[float, str, bytes]]:
        """The dead letters of this task, or all, taken out; the oldest first."""
        found = [letter for letter in self._dead if task_id is None or (_is_whole(letter[2]) and Message.decode(letter[2]).id == task_id)]
        for letter in found:
            self._dead.remove(letter)
        return found

    def malformed(self, limit: int | None = None) -> list[bytes]:
        with self._lock:
            return list(self._malformed)[::-1][:limit or None]

    def counters(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counters)

    def flush(self) -> None:
        with self._lock:
            waited_for = list(self._watchers)
            self._empty()
            told = [tell for task_id in waited_for
                    for tell in self._keep(task_id, base.LOST + b'it was flushed away', base.TOMBSTONE_TTL)]
        for tell in told:
            tell()

    # -- events ---------------------------------------------------------------------------------------------

    def publish(self, events: Sequence[bytes]) -> None:
        with self._lock:
            for event in events:
                self._publish(event)

    def _publish(self, event: bytes) -> None:
        for listener in self._listeners:
            listener.put(event)

    def listener(self) -> EventQueue:
        """A queue that gets every event from now on, until it is closed."""
        listener = EventQueue(self._stop_listening)
        with self._lock:
            self._listeners.add(listener)
        return listener

    def _stop_listening(self, listener: EventQueue) -> None:
        with self._lock:
            self._listeners.discard(listener)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.listener()

    # -- what the scripts share -----------------------------------------------------------------------------

    def _now(self) -> float:
        return self.clock.now()

    def _next_due(self) -> float | None:
        first = self._schedule.first()
        return None if first is None else max(0.0, first - self._now())

    def _is_message(self, raw: bytes) -> bool:
        """True for a message; anything else is set aside and counted."""
        if _is_whole(raw):
            return True
        self._malformed.append(raw)
        self._counters['malformed'] += 1
        return False

    def _place(self, raw: bytes, at_head: bool = False) -> str:
        """A message -> its queue: behind all others of its priority, or before them. Answers who is to be woken."""
        message = Message.decode(raw)
        queue = self._queues[message.queue]
        if message.deliveries >= SUSPECT or message.priority:
            ranked, rank = ((queue.suspects, message.deliveries) if message.deliveries >= SUSPECT
                            else (queue.priority, message.priority))
            ranked.add(-rank, next(self._head if at_head else self._tail), raw)
            if ranked is queue.suspects:
                return base.for_suspects(message.queue)
        elif at_head:
            queue.plain.appendleft(raw)
        else:
            queue.plain.append(raw)
        return message.queue

    def _put_in_schedule(self, raw: bytes, due: float) -> None:
        self._schedule.add(due, next(self._tail), raw)

    def _bury(self, raw: bytes, reason: str) -> None:
        self._dead.append((self._now(), reason, raw))
        self._counters['dead'] += 1


class EventQueue(Iterator[dict[str, Any]]):
    """The events since it was made, for one thread or greenlet that takes them, until it is closed or nobody has it any more."""

    def __init__(self, stop: Callable[[EventQueue], None]) -> None:
        self._stop = stop
        self._events: deque[bytes] = deque()
        self._waiter: Waiter | None = None

    def put(self, event: bytes) -> None:
        self._events.append(event)
        if self._waiter is not None:
            self._waiter.wake()

    def get(self, timeout: float | None = None) -> dict[str, Any] | None:
        """The next event, or None when ``timeout`` (seconds) is over first."""
        if self._waiter is None:
            self._waiter = waiter()
        while not self._events:
            # never without a timer: a hub that has none takes an event from another thread for one that cannot come
            if not self._waiter.wait(60.0 if timeout is None else timeout) and timeout is not None:
                return None
        event: dict[str, Any] = json.loads(self._events.popleft())
        return event

    def __next__(self) -> dict[str, Any]:
        event = self.get()
        assert event is not None
        return event

    def close(self) -> None:
        """Gets no more events."""
        self._stop(self)


def _is_whole(raw: bytes) -> bool:
    """True for the bytes of a message."""
    try:
        Message.decode(raw)
        return True
    except MessageError:
        return False


def _wake_all(sleepers: Sequence[Waiter]) -> None:
    for sleeper in sleepers:
        sleeper.wake()
