"""The book: what ought to be where after any sequence of verbs, in the plainest way to say it."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any, NamedTuple

from geventhuey.message import AT_MOST_ONCE, REVOKED, REVOKED_FOR_GOOD, WANTS_RESULT, Message
from geventhuey.storage import base
from geventhuey.storage.base import Reaped, Standing, name_field, task_field
from tests.storage.kit import message

QUEUES = ('default', 'other')
NAMES = ('app.one', 'app.two')
MAX_DELIVERIES = 2


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
        self.revoked: dict[str, bool] = {}
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
        """The message is in its queue: behind all others of its priority, or before them."""
        mine = self.messages[task_id]
        queue = self.queues[mine.queue]
        ahead = sum(self.messages[other].priority > mine.priority - (not at_head) for other in queue)
        queue.insert(ahead, task_id)

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

    def fetch(self, name: str, request: int, limits: dict[str, int], at_most: int) -> tuple[Standing, dict[int, str]]:
        standing = self.standing(name)
        if standing is not Standing.GOOD:
            return standing, {}
        registration = self.registered[name]
        if request < registration.last:
            return Standing.STALE, {}
        if request == registration.last:
            held = sorted(self.flight.get(name, {}).items())
            return standing, {tag: task_id for tag, task_id in held if tag // base.TAGS_PER_REQUEST == request}
        got = self._pop(limits, at_most)
        deliveries = dict(enumerate(got, request * base.TAGS_PER_REQUEST + 1))
        if got:
            registration.last = request
            self.flight.setdefault(name, {}).update(deliveries)
        return standing, deliveries

    def _pop(self, limits: dict[str, int], at_most: int) -> list[str]:
        due = [place for place in self.schedule if place.due <= self.now]
        self.schedule = self.schedule[len(due):]
        for place in due:
            self.place(place.task_id)
        got: list[str] = []
        for queue, limit in limits.items():
            count = max(0, min(limit, at_most - len(got)))
            got += self.queues[queue][:count]
            del self.queues[queue][:count]
        for task_id in got:
            self._look_up(task_id)
        return got

    def _look_up(self, task_id: str) -> None:
        """The message bears the marks of its revocations."""
        flags = self.messages[task_id].flags
        for field in (task_field(task_id), name_field(self.messages[task_id].name)):
            if self.revoked.get(field) is False:
                flags |= REVOKED
            elif self.revoked.get(field) is True and not flags & REVOKED_FOR_GOOD:
                flags |= REVOKED_FOR_GOOD
                del self.revoked[field]
        self.edit(task_id, flags=flags)

    def settle(self, name: str, tag: int) -> str | None:
        """The id of what has ended; None when the consumer does not hold it."""
        held = self.flight.get(name, {})
        task_id = held.pop(tag, None)
        if task_id is not None:
            self.ended.add(task_id)
        return task_id

    def take_back(self, name: str, at_most: int, reaped: bool) -> Reaped:
        held = self.flight.get(name, {})
        requeued = dead = 0
        for tag in sorted(held, reverse=True)[:at_most]:
            task_id = held.pop(tag)
            mine = self.messages[task_id]
            self.edit(task_id, deliveries=mine.deliveries + reaped, flags=mine.flags & ~REVOKED)
            if reaped and (mine.flags & AT_MOST_ONCE or mine.deliveries + 1 >= MAX_DELIVERIES):
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
