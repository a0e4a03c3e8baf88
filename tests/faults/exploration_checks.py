"""What must be true of a world at every moment, when it is at rest, and when it is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import gevent
from gevent import getcurrent

from geventhuey.storage import base
from geventhuey.storage.base import Delivery, Enqueue, Schedule, Standing
from tests.faults.exploration_line import Member, Request

if TYPE_CHECKING:
    from tests.faults.exploration import World

#: Seconds in which a message is run where somebody is free: in a calm world, and after a disturbance.
PROMPT, PATIENCE = 0.2, 9.0
#: Seconds beyond its timeout that a stop may take: undisturbed, and with a storage that does not answer.
STOP, TROUBLED_STOP = 1.5, 14.0
#: A lease, and how long a trouble may be behind what happens now.
LEASE, TROUBLE = 15.0, 6.0

#: One run of a task that was asked for: its id and the retries it has left.
Run = tuple[str, int]
Tag = tuple[str, int]


class Failed(Exception):
    """What tasks fail with."""


class Checks:
    """Knows what was asked for, what was seen, and what explains the difference."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._storage = world.storage
        #: What every task is to end with.
        self._tasks: dict[str, bytes] = {}
        self._asked_for: Counter[Run] = Counter()
        self._explained: Counter[Run] = Counter()
        self._starts: Counter[Run] = Counter()
        #: Deliveries whose task has ended, whose end was told to the storage and answered, was sent, may have to be found again.
        self._ended: set[Tag] = set()
        self.settled: dict[Tag, None] = {}
        self._sent: set[Tag] = set()
        self._leaked: set[Tag] = set()
        self._messages: dict[Tag, bytes] = {}
        self._heard: dict[str, float] = {}
        self._stalled: float | None = None

        @world.huey.task(context=True, name='work')     # type: ignore[untyped-decorator]
        def work(seconds: float, fails: int, is_stubborn: bool, task: Any = None) -> str:
            return self._run(seconds, fails, is_stubborn, task)
        self._work = work.task_class

    # -- tasks ----------------------------------------------------------------------------------------------

    def enqueue(self, seconds: float, fails: int, retries: int, retry_delay: float, delay: float, is_stubborn: bool) -> None:
        """There is one task more."""
        name = f't{len(self._tasks)}'
        data = ((seconds, retries - fails, is_stubborn), {})
        task = self._work(data, name, None, retries, retry_delay)
        self._tasks[name] = base.VALUE if fails <= retries else base.ERROR
        self._asked_for[name, retries] += 1
        self._world.tell(f'{name} is enqueued, {seconds:g} s, {retries} retries, {fails} fail' + (f', due in {delay:g} s' if delay else ''))
        if delay:
            self._world.huey.add_schedule(task, delay)
        else:
            self._world.huey.enqueue(task)

    def _run(self, seconds: float, enough: int, is_stubborn: bool, task: Any) -> str:
        """The body of every task."""
        member, delivery = self._here()
        member.go_on()
        run = task.task_id, task.retries
        self._starts[run] += 1
        self._world.counts['runs'] += 1
        self._world.tell(f'{member} runs {run} ({delivery.consumer}, {delivery.tag})')
        self._world.check(self._check_start, run, member)
        try:
            if seconds:
                gevent.sleep(seconds)
        except BaseException:
            member.go_on()
            if not is_stubborn:
                self._world.tell(f'{member} interrupts {run}')
                raise
            gevent.sleep(3.0)
        member.go_on()
        self._ended.add((delivery.consumer, delivery.tag))
        self._world.tell(f'{member} has run {run}')
        if task.retries > enough:
            raise Failed(str(run))
        return f'{run}'

    def _here(self) -> tuple[Member, Delivery]:
        for member in self._world.members:
            delivery = member.engine.pool._running.get(getcurrent())
            if delivery is not None:
                return member, delivery
        raise AssertionError('a task runs in no pool')

    def _check_start(self, run: Run, member: Member) -> None:
        running = len(member.engine.pool.running())
        assert running <= member.workers, f'{member} runs {running} tasks with {member.workers} workers'
        asked, explained = self._asked_for[run], self._explained[run]
        assert self._starts[run] <= asked + explained, \
            f'{run} runs {self._starts[run]} times: asked for {asked}, {explained} faults had it in flight'

    def _run_of(self, message: bytes) -> Run:
        task = self._world.huey.registry.decode(message)
        return task.task_id, task.retries

    # -- requests -------------------------------------------------------------------------------------------

    @contextmanager
    def watching(self, request: Request) -> Iterator[None]:
        """While the storage does what was asked for, it is seen what it does."""
        verb, args = request.verb, request.args
        if verb in ('reap', 'release'):
            with self.watching_reap(args[0], verb, request.member):
                yield
        elif verb == 'settle':
            held = dict(self._storage._inflight.get(args[0], {}))
            self._sent.update((args[0], each.tag) for each in args[1] if request.given_up)
            yield
            still = self._storage._inflight.get(args[0], {})
            for tag, effects in args[1]:
                if tag in held and tag not in still:
                    self._leaked.discard((args[0], tag))
                    for effect in effects:
                        if isinstance(effect, (Enqueue, Schedule)):
                            self._asked_for[self._run_of(effect.message)] += 1
        else:
            assert verb != 'register' or request.given_up or args[0] not in request.member.lost, f'{args[0]} was evicted, and is used again'
            if verb == 'recall' and not request.given_up:
                for tag in args[1]:
                    assert (args[0], tag) in self._leaked, f'{args[0]} held {tag} in the storage and did not know it'
            yield
            if verb == 'fetch':
                self._fetched(request)
            elif verb in ('beat', 'register'):
                self._heard[args[0]] = self._world.loop.time

    def _fetched(self, request: Request) -> None:
        consumer, at_most, pool = request.args[0], request.args[3], request.member.engine.pool
        if not request.given_up and not request.member.is_dead:
            assert at_most <= pool.free(), f'{request.member} fetches {at_most} with {pool.free()} free workers'
        for tag, message in self._storage._inflight.get(consumer, {}).items():
            if (consumer, tag) not in self._messages:
                self._messages[consumer, tag] = message
                self._heard[consumer] = self._world.loop.time

    @contextmanager
    def watching_reap(self, consumer: str, verb: str, by: Member | None = None) -> Iterator[None]:
        """What is taken back explains a run more; it must have been right to take it."""
        before = dict(self._storage._inflight.get(consumer, {}))
        was_there = self._storage._consumers.get(consumer)
        beat = was_there and str(was_there)
        yield
        after = self._storage._inflight.get(consumer, {})
        for tag, message in before.items():
            if tag not in after:
                self._explained[self._run_of(message)] += 1
                self._leaked.discard((consumer, tag))
                if verb == 'release':
                    self._check_release(consumer, tag, by)
        if verb == 'reap' and beat is not None:
            now = self._storage._consumers.get(consumer)
            if now is None or str(now) != beat:
                self._check_eviction(consumer)

    def _owner(self, consumer: str) -> Member:
        return next(member for member in self._world.members if consumer in member.engine.lease.names)

    def evicted(self) -> set[str]:
        """The names that were evicted by an accident."""
        return set[str]().union(*[member.evicted for member in self._world.members])

    def _check_eviction(self, consumer: str) -> None:
        owner = self._owner(consumer)
        silent = self._world.loop.time - max(self._heard.get(consumer, 0.0), self._world.away_until)
        assert owner.is_dead or owner.has_stopped or consumer in owner.evicted or silent >= LEASE - 0.01, \
            f'{consumer} is evicted: it lives, and was heard {silent:.1f} s ago'

    def _check_release(self, consumer: str, tag: int, by: Member | None) -> None:
        owner = self._owner(consumer)
        assert owner.stop_begun is not None and owner is by, f'{consumer} is released by {by}'
        ended = (consumer, tag) in self._ended
        assert not ended or self._is_troubled(owner), f'{owner} gives {tag} back: it has ended, and nothing kept the storage from knowing'

    def _is_troubled(self, member: Member) -> bool:
        return member.stop_begun is None or max(member.troubled, self._world.away_until) > member.stop_begun - TROUBLE

    def sent(self, request: Request) -> None:
        """An end may have reached the storage, or not."""
        if request.verb == 'settle':
            self._sent.update((request.args[0], each.tag) for each in request.args[1])

    def refused(self, consumer: str, tag: int) -> None:
        """The storage will not have the end of this delivery: it is in flight, and will be found and run again."""
        if tag in self._storage._inflight.get(consumer, ()):
            self._explain_again(consumer, tag)

    def is_back(self, consumer: str, tag: int) -> None:
        """What was settled is in flight again."""
        self._storage._inflight[consumer][tag] = self._messages[consumer, tag]
        self._explain_again(consumer, tag)

    def _explain_again(self, consumer: str, tag: int) -> None:
        self._explained[self._run_of(self._messages[consumer, tag])] += 1
        self._leaked.add((consumer, tag))
        self._ended.discard((consumer, tag))
        self._sent.discard((consumer, tag))
        self.settled.pop((consumer, tag), None)

    def answered(self, request: Request) -> None:
        """The consumer hears what the storage has done."""
        if request.verb == 'fetch' and request.answer.standing is Standing.EVICTED:
            request.member.lost.add(request.args[0])
        if request.verb != 'settle':
            return
        consumer, settlements = request.args[:2]
        for settlement, done in zip(settlements, request.answer, strict=True):
            tag = consumer, settlement.tag
            assert tag not in self.settled, f'{request.member} settles {tag} once more, after it was told that it is settled'
            if isinstance(done, bool):
                self.settled[tag] = None
                request.member.fenced += not done and tag not in self._sent

    # -- rules ----------------------------------------------------------------------------------------------

    def check_time(self, until: float) -> None:
        """Until then nothing can happen: nobody must be waiting for it."""
        world, now = self._world, self._world.loop.time
        for member in world.members:
            if member.stop_begun is not None and not member.has_stopped and not member.is_dead:
                bound = TROUBLED_STOP if self._is_troubled(member) else STOP
                assert until <= member.stop_begun + member.stop_timeout + bound, f'{member} does not come to its stop'
        if now < world.away_until or not self._could_run():
            self._stalled = None
            return
        if self._stalled is None:
            self._stalled = now
        is_calm = world.profile.name == 'calm'
        since = self._stalled if is_calm else max(self._stalled, world.disturbed, world.away_until)
        assert now - since <= (PROMPT if is_calm else PATIENCE), \
            f'messages wait for {now - since:.3f} s, and somebody is free: {self.unrest()}'

    def _could_run(self) -> bool:
        """True when something could be run and somebody could run it."""
        due = self._storage._schedule.first()
        waits = len(self._storage._queues['default']) > 0 or (due is not None and due < self._world.loop.time - 1e-6)
        return waits and any(member.engine.pool.free() > 0 for member in self._world.serving())

    def check_stopped(self, member: Member) -> None:
        """A consumer that has stopped, and that nothing kept from stopping well, has left nothing behind."""
        if self._is_troubled(member):
            return
        engine, storage = member.engine, self._storage
        consumer = engine.lease.consumer
        assert consumer in member.evicted or (consumer not in storage._inflight and consumer not in storage._consumers), \
            f'{member} has stopped, and {consumer} is still known'
        assert not engine.settler.backlog(), f'{member} has stopped and kept an end for itself'

    def unrest(self) -> list[str]:
        """What is still under way."""
        world, storage = self._world, self._storage
        found = [f'{len(storage._queues["default"])} in the queue'] * bool(len(storage._queues['default']))
        found += [f'{len(storage._schedule)} scheduled'] * bool(len(storage._schedule))
        found += [f'{name} holds {sorted(held)}' for name, held in storage._inflight.items() if held]
        names = {member.engine.lease.consumer for member in world.serving()}
        found += [f'{name} is known' for name in {**storage._consumers, **storage._info} if name not in names]
        for member in world.members:
            if not member.is_dead and not member.has_stopped:
                if member.stop_begun is not None:
                    found.append(f'{member} stops')
                elif member.engine.known():
                    found.append(f'{member} has {member.engine.known()}')
        found += [str(request) for request in (*world.asked, *world.answered) if request.verb != 'wait_wake' and not request.member.is_dead]
        return found

    def check_rest(self) -> None:
        """Nothing is under way: everything that was asked for has ended, once or with an explanation."""
        for name, expected in self._tasks.items():
            record, _ = self._storage._results.get(name, (b'', None))
            assert record, f'{name} is lost'
            assert record[:1] == expected, f'{name} has ended with {record[:80]!r} instead of {expected!r}'
        for member in self._world.serving():
            pool, settler = member.engine.pool, member.engine.settler
            assert pool.free() == pool.size == member.workers, f'{member} has lost a worker: {pool.free()} of {pool.size} are free'
            assert not settler.backlog(), f'{member} has kept an end for itself'
            assert settler.fenced == member.fenced, f'{member} counts {settler.fenced} ends of others, there were {member.fenced}'

    def check_end(self) -> None:
        """Everybody has stopped: the storage is empty but for results."""
        storage = self._storage
        left = [storage._inflight, storage._consumers, storage._info, storage._queues['default'], storage._schedule, storage._sleepers]
        assert not any(map(len, left)), f'left in the storage: {left}'
