"""The book: what ought to be where after any sequence of verbs, in the plainest way to say it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection
from typing import Any, NamedTuple

from geventhuey.message import AT_MOST_ONCE, PROOF, REVOKED, REVOKED_FOR_GOOD, SUSPECT, WANTS_RESULT, Message
from geventhuey.storage import base
from geventhuey.storage.base import Reaped, Revocation, Standing, Suspects, name_field, task_field
from tests.storage.kit import message

QUEUES = ('default', 'other')
NAMES = ('app.one', 'app.two')
MAX_DELIVERIES = 4


class Registration:
    def __init__(self, last: int, evicted: bool = False) -> None:
        self.last = last
        self.evicted = evicted


class Place(NamedTuple):
    """Where a message may be in the schedule."""

    due: float
    number: int
    task_id: str


class Book:
    """What ought to be where. Places hold ids; ``messages`` has what the message of each id says by now."""

    def __init__(self) -> None:
        self.now = 2_000_000_000.0
        self.messages: dict[str, Message] = {}
        self.queues: dict[str, list[str]] = {queue: [] for queue in QUEUES}
        self.schedule: list[Place] = []
        self.flight: dict[str, dict[int, str]] = {}
        self.registered: dict[str, Registration] = {}
        self.described: set[str] = set()
        self.dead: list[str] = []
        self.ended: set[str] = set()
        self.results: dict[str, bytes] = {}
        self.revoked: dict[str, Revocation] = {}
        self.claims: dict[str, str] = {}
        self.ticks: dict[str, int] = {}
        self.errors = 0
        #: How often each message may be delivered.
        self.allowed: Counter[str] = Counter()
        self._numbers = 0

    def next(self, queue: str, priority: int = 0, flags: int = 0, name: str = NAMES[0]) -> Message:
        """The message that may be added next."""
        return message(f'm{len(self.messages)}', queue, priority, flags, name)

    def add(self, made: Message) -> Message:
        """The message exists; it is nowhere yet."""
        self.messages[made.id] = made
        self.allowed[made.id] = 1
        return made

    # -- places ---------------------------------------------------------------------------------------------

    def place(self, task_id: str, at_head: bool = False) -> None:
        """The message is in its queue: behind all others of its rank, or before them."""
        queue, mine = self.queues[self.messages[task_id].queue], self.rank(task_id)
        ahead = sum(self.rank(other) > mine if at_head else self.rank(other) >= mine for other in queue)
        queue.insert(ahead, task_id)

    def rank(self, task_id: str) -> tuple[int, int]:
        """What runs first is greater: suspects by their deliveries, the others by priority."""
        mine = self.messages[task_id]
        return (mine.deliveries, 0) if mine.deliveries >= SUSPECT else (0, mine.priority)

    def put_in_schedule(self, task_id: str, due: float) -> None:
        self._numbers += 1
        self.schedule.append(Place(due, self._numbers, task_id))
        self.schedule.sort()

    def waiting(self) -> list[str]:
        """Everything in the queues and in the schedule."""
        return [*itertools.chain(*self.queues.values()), *(place.task_id for place in self.schedule)]

    def edit(self, task_id: str, **changes: Any) -> None:
        self.messages[task_id] = self.messages[task_id]._replace(**changes)

    # -- verbs ----------------------------------------------------------------------------------------------

    def register(self, name: str, request: int) -> None:
        used = [tag // base.TAGS_PER_REQUEST for tag in self.flight.get(name, ())]
        self.registered.setdefault(name, Registration(max([request, *used])))
        self.described.add(name)

    def standing(self, name: str) -> Standing:
        if name not in self.registered:
            return Standing.UNKNOWN
        return Standing.EVICTED if self.registered[name].evicted else Standing.GOOD

    def fetch(self, name: str, request: int, limits: dict[str, int], at_most: int,
              suspects: Suspects) -> tuple[Standing, dict[int, str]]:
        standing = self.standing(name)
        if standing is not Standing.GOOD:
            return standing, {}
        registration = self.registered[name]
        if request < registration.last:
            return Standing.STALE, {}
        if request == registration.last:
            held = sorted(self.flight.get(name, {}).items())
            return standing, {tag: task_id for tag, task_id in held if tag // base.TAGS_PER_REQUEST == request}
        got = self._pop(limits, at_most, suspects)
        deliveries = dict(enumerate(got, request * base.TAGS_PER_REQUEST + 1))
        if got:
            registration.last = request
            self.flight.setdefault(name, {}).update(deliveries)
        return standing, deliveries

    def _pop(self, limits: dict[str, int], at_most: int, suspects: Suspects) -> list[str]:
        due = [place for place in self.schedule if place.due <= self.now]
        self.schedule = self.schedule[len(due):]
        for place in due:
            self.place(place.task_id)
        left = dict(limits)
        got = self._pop_suspects(left, at_most, suspects)
        for queue, limit in left.items():
            count = max(0, min(limit, at_most - len(got)))
            got += [task_id for task_id in self.queues[queue] if not self.is_suspect(task_id)][:count]
            self.queues[queue] = [task_id for task_id in self.queues[queue] if task_id not in got]
        for task_id in got:
            self._look_up(task_id)
        return got

    def is_suspect(self, task_id: str) -> bool:
        return self.messages[task_id].deliveries >= SUSPECT

    def _pop_suspects(self, left: dict[str, int], at_most: int, suspects: Suspects) -> list[str]:
        """The suspects that may come, by class and queue; the first class keeps all others away."""
        got: list[str] = []
        upto = 256
        for number, (deliveries, room) in enumerate(suspects):
            found_any = False
            for queue in left:
                found = [task_id for task_id in self.queues[queue] if deliveries <= self.messages[task_id].deliveries < upto]
                found_any |= bool(found)
                taken = found[:max(0, min(room, at_most - len(got), left[queue]))]
                self.queues[queue] = [task_id for task_id in self.queues[queue] if task_id not in taken]
                room, left[queue] = room - len(taken), left[queue] - len(taken)
                got += taken
            if found_any and number == 0:
                break
            upto = deliveries
        return got

    def _look_up(self, task_id: str) -> None:
        """The message bears the marks of its revocations, and the first that is signed as a proof."""
        for field in (task_field(task_id), name_field(self.messages[task_id].name)):
            flags, revocation = self.messages[task_id].flags, self.revoked.get(field)
            mark = REVOKED_FOR_GOOD if revocation and revocation.once else REVOKED
            if revocation is None or flags & (mark | PROOF):
                continue
            if revocation.once:
                del self.revoked[field]
            proof = revocation.encode() if revocation.signature else b''
            self.edit(task_id, flags=flags | mark | (PROOF if proof else 0), proof=proof)

    def going_back(self, task_id: str, deliveries: int, forget: int = REVOKED) -> None:
        """The message has so many deliveries and none of these marks any more; nor the proof of them."""
        flags = self.messages[task_id].flags & ~forget
        if not flags & REVOKED_FOR_GOOD:
            flags &= ~PROOF
        self.edit(task_id, deliveries=deliveries, flags=flags, proof=self.messages[task_id].proof if flags & PROOF else b'')

    def retry_dead(self, task_id: str) -> int:
        if task_id not in self.dead:
            return 0
        self.dead.remove(task_id)
        self.going_back(task_id, 0, REVOKED | REVOKED_FOR_GOOD)
        self.place(task_id)
        self.allowed[task_id] += 1
        if self.results.get(task_id, b'')[:1] == base.LOST:
            del self.results[task_id]
        return 1

    def purge_dead(self, task_id: str | None) -> int:
        gone = [found for found in self.dead if task_id in (None, found)]
        self.dead = [found for found in self.dead if found not in gone]
        self.ended.update(gone)
        return len(gone)

    def settle(self, name: str, tag: int) -> str | None:
        """The id of what has ended; None when the consumer does not hold it."""
        held = self.flight.get(name, {})
        task_id = held.pop(tag, None)
        if task_id is not None:
            self.ended.add(task_id)
        return task_id

    def take_back(self, name: str, at_most: int, reaped: bool, unbegun: Collection[int] = ()) -> Reaped:
        held = self.flight.get(name, {})
        requeued = dead = 0
        for tag in sorted(held, reverse=True)[:at_most]:
            task_id = held.pop(tag)
            mine = self.messages[task_id]
            self.going_back(task_id, mine.deliveries + reaped)
            once = mine.flags & AT_MOST_ONCE and tag not in unbegun
            if once or (reaped and mine.deliveries + 1 >= MAX_DELIVERIES):
                self.dead.append(task_id)
                dead += 1
                if mine.flags & WANTS_RESULT:
                    self.results[task_id] = base.LOST
            else:
                self.place(task_id, at_head=True)
                self.allowed[task_id] += 1
                requeued += 1
        if not held:
            self.registered.pop(name, None)
            self.described.discard(name)
        return Reaped(requeued, dead, not held)
