"""Deterministic exploration of the consumer: real engines in one virtual hub, and a seed that decides everything that may happen.

``python -m tests.faults.exploration 123`` tells what happens with a seed; the same seed is the same story every time, to the letter.

Two or three consumers work on one storage.  Of every request it is decided when it arrives, when its answer does, and its fate: it
is lost before it arrives or its answer is lost, it arrives late, when nobody waits for it, or an effect is refused.  Consumers are
killed, evicted though they live, told to stop; the storage goes away for a while, loses its registry, or goes back in time.  Time
passes when nothing else can happen, or (in some worlds) while somebody waits for an answer.

In a third of the worlds nothing is disturbed but the order of things: there every message has to be run at once.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import gevent

from geventhuey.api import MemoryHuey
from geventhuey.clock import Clock
from geventhuey.consumer.options import Options
from geventhuey.exceptions import StorageError, StorageOutcomeUnknown, StorageUnavailable
from geventhuey.storage.memory import MemoryStorage
from tests.faults.consumer_copy import Bug, copies
from tests.faults.exploration_checks import Checks
from tests.faults.exploration_events import Events
from tests.faults.exploration_line import Line, Member, Request
from tests.faults.virtual_hub import VirtualHub, VirtualLoop

#: Decisions after which a world that does not come to rest is given up, and its (virtual) seconds after the last disturbance.
MANY, LONG = 30_000, 240.0
#: Seconds that a request may be on its way in a slow world.
SLOW = 2.0
#: Seconds for which requests are disturbed after the last event.
STORM = 20.0
#: Seconds that a late request is late at most.
LATE = 20.0
WORKERS = 3
#: What a request meets, and how often compared with the others.
FATES = {'lost before': 3, 'not sent': 2, 'lost after': 4, 'late': 2, 'refused': 1}


class Profile(NamedTuple):
    """What sort of world it is."""

    name: str
    #: The chance that a request is disturbed.
    rate: float
    #: Whether time passes while requests are on their way.
    is_slow: bool
    #: How many disturbances there are at most, beside those of requests.
    events: int


PROFILES = [Profile('calm', 0.0, False, 0), Profile('rough', 0.06, False, 5), Profile('slow', 0.03, True, 5),
            Profile('calm', 0.0, False, 5), Profile('events', 0.0, False, 6), Profile('stormy', 0.25, True, 3)]


class Violation(AssertionError):
    """Something that must never be was seen."""


class _WorldClock(Clock):
    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> float:
        return self._loop.time


class World:
    """Everything that there is with one seed."""

    def __init__(self, seed: int, bug: Bug | None = None, tell: Callable[[str], None] | None = None) -> None:
        self.profile = PROFILES[seed % len(PROFILES)]
        self.loop = VirtualLoop(seed, self._decide)
        self.random = self.loop.random
        self.counts: Counter[str] = Counter()
        self.violation: BaseException | None = None
        self.members: list[Member] = []
        self.asked: list[Request] = []
        self.answered: list[Request] = []
        self.late: list[tuple[float, Request]] = []
        self.away_until = -1.0
        self.disturbed = -1e9
        self._code = copies(bug)
        self._tell = tell
        self._steps = 0
        self._is_ending = False

    def run(self) -> World:
        """The world has come to its end, and was as it must be."""
        with VirtualHub(self.loop) as hub:
            self.huey = MemoryHuey('world', clock=_WorldClock(self.loop))
            assert isinstance(self.huey.storage, MemoryStorage)
            self.storage = self.huey.storage
            self.checks = Checks(self)
            self.events = Events(self)
            for _ in range(self.random.randint(2, 3)):
                self.join()
            hub.run()
            if self.violation is None and hub.errors:
                self.violation = hub.errors[0]
        if self.violation is not None:
            raise self.violation
        return self

    def tell(self, text: str) -> None:
        """It is in the story."""
        if self._tell is not None:
            self._tell(f'{self.loop.time - 1000:8.3f}  {text}')

    # -- consumers ------------------------------------------------------------------------------------------

    def join(self) -> None:
        """There is one consumer more."""
        member = Member(self, len(self.members), self.random.randint(1, WORKERS))
        huey = copy.copy(self.huey)
        huey.storage = Line(self, member)       # type: ignore[assignment]
        options = Options(workers=member.workers, worker_type='greenlet', periodic=False, max_deliveries=255, name=str(member))
        member.engine = self._code['consumer.engine'].Engine(huey, options)
        member.engine.lease.info = member.info
        self.members.append(member)
        self.counts['consumers'] += 1
        self.tell(f'{member} starts with {member.workers} workers')
        gevent.spawn(member.engine.start)

    def serving(self) -> list[Member]:
        """The consumers that live and were not told to stop."""
        return [member for member in self.members if member.is_serving()]

    def stop(self, member: Member, timeout: float) -> None:
        """The consumer is told to stop."""
        member.stop_begun, member.stop_timeout = self.loop.time, timeout
        self.counts['stops'] += 1
        self.tell(f'{member} is told to stop within {timeout:g} s')
        gevent.spawn(self._stop, member, timeout)

    def _stop(self, member: Member, timeout: float) -> None:
        member.engine.stop(timeout)
        member.go_on()
        member.has_stopped = True
        self.loop.processes.pop(member.pid, None)
        self.tell(f'{member} has stopped')
        self.check(self.checks.check_stopped, member)

    def kill(self, member: Member) -> None:
        """As by kill -9; what it has sent may still arrive."""
        member.die()
        for request in [request for request in self.asked if request.member is member]:
            self.asked.remove(request)
            request.given_up = True
            if self.random.random() < 0.5:
                self.late.append((self.loop.time, request))
        self.disturb()

    # -- requests -------------------------------------------------------------------------------------------

    def ask(self, request: Request) -> None:
        """The request is on its way."""
        self.asked.append(request)

    def left(self, request: Request) -> None:
        """Who waited to be woken does so no more: the storage sees that at once, or only when the time is over."""
        if not self.profile.rate or self.random.random() < 0.5:
            request.inside.kill(block=False)

    def _arrive(self, request: Request) -> None:
        """The request meets its fate."""
        if self.loop.time < self.away_until:
            self._fail(request, StorageUnavailable('away'), 'away')
            return
        fate = 'ok'
        if self.loop.time < self.events.last + STORM and self.random.random() < self.profile.rate:
            fate = self.random.choices(list(FATES), list(FATES.values()))[0]
        if fate == 'refused' and (request.verb != 'settle' or not request.args[1]):
            fate = 'lost after'
        self.counts[fate] += 1
        if fate != 'ok':
            self.disturb(request.member)
        if fate == 'ok' and request.verb == 'wait_wake':
            self.tell(str(request))
            request.inside = gevent.spawn(self._wait, request)
        elif fate in ('ok', 'refused'):
            self.tell(f'{request}{"" if fate == "ok" else " " + fate}')
            request.answer = self._done(request, fate == 'refused')
            self.answered.append(request)
        elif fate == 'not sent':
            self._fail(request, StorageUnavailable(fate), fate)
        else:
            self._fail(request, StorageOutcomeUnknown(fate), fate)
            if fate == 'lost after':
                self._done(request)
            elif fate == 'late':
                self.late.append((self.loop.time + self.random.choice([0.0, 0.5, 3.0, LATE]), request))

    def _fail(self, request: Request, error: StorageError, fate: str) -> None:
        self.tell(f'{request} {fate}')
        self.checks.sent(request)
        request.answer, request.has_failed = error, True
        self.answered.append(request)

    def _done(self, request: Request, refused: bool = False) -> Any:
        """The storage has done what it was asked for."""
        if request.verb == 'wait_wake':
            gevent.spawn(self.storage.wait_wake, request.args[0], 0.01)
            return None
        with self.checks.watching(request):
            if refused:
                return self._refuse(request)
            answer = getattr(self.storage, request.verb)(*request.args, **request.kwargs)
        if self._tell is not None and answer is not None and request.verb not in ('consumers', 'consumer_info'):
            self.tell(f'    {answer!r}'[:230])
        return answer

    def _refuse(self, request: Request) -> list[bool | StorageError]:
        """A settle of which one effect is refused."""
        consumer, settlements, *more = request.args
        refused = self.random.randrange(len(settlements))
        self.checks.refused(consumer, settlements[refused].tag)
        others = [each for n, each in enumerate(settlements) if n != refused]
        done: list[bool | StorageError] = self.storage.settle(consumer, others, *more)
        done.insert(refused, StorageError('refused'))
        return done

    def _wait(self, request: Request) -> None:
        request.answer = self.storage.wait_wake(*request.args)
        request.inside = None
        self.answered.append(request)

    def _answer(self, request: Request) -> None:
        """The answer arrives, if somebody waits for it."""
        if request.given_up or request.member.is_dead:
            return
        if request.has_failed:
            self.loop.run_callback(request.waiter.throw, request.answer)
        else:
            self.checks.answered(request)
            self.loop.run_callback(request.waiter.switch, request.answer)

    def disturb(self, member: Member | None = None) -> None:
        """Something has happened to this consumer or to all: it may take them a while to get over it."""
        self.disturbed = self.loop.time
        for each in [member] if member is not None else self.members:
            each.troubled = self.loop.time

    # -- what happens next ----------------------------------------------------------------------------------

    def check(self, rule: Callable[..., None], *args: Any) -> None:
        """The rule holds, or the world ends with that."""
        try:
            rule(*args)
        except AssertionError as exc:
            self.violation = self.violation or exc

    def _decide(self) -> bool:
        """Something happens; False when the world has come to its end."""
        if self.violation is not None or (self._is_ending and all(each.has_stopped or each.is_dead for each in self.members)):
            return False
        self._steps += 1
        try:
            if self._steps > MANY:
                raise Violation(f'no end of it: {self.checks.unrest()}')
            self._happen()
        except Exception as exc:
            self.violation = exc
        return True

    def _happen(self) -> None:
        late = [entry for entry in self.late if entry[0] <= self.loop.time]
        possible: list[tuple[Callable[[], None], int]] = []
        if self.asked:
            possible.append((lambda: self._arrive(_taken(self.random, self.asked)), 8 * len(self.asked)))
        if self.answered:
            possible.append((lambda: self._answer(_taken(self.random, self.answered)), 8 * len(self.answered)))
        if late:
            possible.append((lambda: self._come_late(late), 4 * len(late)))
        if self.events.is_due():
            possible.append((self.events.happen, 4))
        if possible and self.profile.is_slow and not self._is_ending and self._may_wait():
            possible.append((self._pass_time, 2))
        if possible:
            self.random.choices([what for what, _ in possible], [weight for _, weight in possible])[0]()
        elif self._is_ending or not self._has_ended():
            self._pass_time()
        else:
            self._end()

    def _may_wait(self) -> bool:
        """True when time may pass while requests are on their way."""
        timer = self.loop.next_timer()
        oldest = min((request.time for request in (*self.asked, *self.answered) if not request.member.is_dead), default=self.loop.time)
        return timer is not None and timer - oldest < SLOW

    def _pass_time(self) -> None:
        """The next timer goes off."""
        if any(not request.given_up for request in (*self.asked, *self.answered)):
            for request in (*self.asked, *self.answered):
                request.member.troubled = self.disturbed = self.loop.time
        moments = [self.loop.next_timer(), self.events.next(), *(moment for moment, _ in self.late)]
        moment = min(moment for moment in moments if moment is not None)
        self.checks.check_time(moment)
        self.loop.pass_time(moment)
        if self.loop.time > self.events.last + LONG:
            raise Violation(f'no rest: {self.checks.unrest()}')

    def _come_late(self, late: list[tuple[float, Request]]) -> None:
        entry = self.random.choice(late)
        self.late.remove(entry)
        self.tell(f'late: {entry[1]}')
        self._done(entry[1])
        self.disturbed = self.loop.time

    # -- the end --------------------------------------------------------------------------------------------

    def _has_ended(self) -> bool:
        """True when nothing is left to be done."""
        return self.events.are_over() and not self.late and self.loop.time >= self.away_until and not self.checks.unrest()

    def _end(self) -> None:
        self.checks.check_rest()
        self._is_ending, self.events.last = True, self.loop.time - STORM
        self.tell('all is done')
        for member in self.serving():
            self.stop(member, 5.0)

    def check_end(self) -> None:
        """Nothing is left."""
        self.checks.check_end()


def _taken(random: Any, requests: list[Request]) -> Request:
    return requests.pop(random.randrange(len(requests)))


@contextmanager
def _quiet(silent: bool) -> Iterator[None]:
    """What the consumers log is not shown."""
    loggers = [logging.getLogger(f'geventhuey.{name}') for name in ('consumer', 'lease', 'executor')]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1 if silent else logging.DEBUG)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def explore(seed: int, bug: Bug | None = None, tell: Callable[[str], None] | None = None) -> Counter[str]:
    """What happened, counted. Raises what was wrong."""
    with _quiet(tell is None):
        world = World(seed, bug, tell).run()
        world.check_end()
    world.counts['seeds'] += 1
    world.counts['seconds'] += round(world.loop.time - 1000)
    return world.counts


if __name__ == '__main__':
    logging.basicConfig(format='              log: %(message)s', stream=sys.stdout)
    for number in map(int, sys.argv[1:]):
        print(f'seed {number}: {PROFILES[number % len(PROFILES)].name}')
        print(dict(explore(number, tell=print)))
