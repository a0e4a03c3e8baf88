"""What is planned to happen in a world: tasks are enqueued, and consumers and the storage meet with accidents."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from geventhuey.storage.memory import EVICTED

if TYPE_CHECKING:
    from tests.faults.exploration import World

#: Seconds in which everything is planned to happen.
SPAN = 20.0
#: Accidents, and how often one is planned compared with the others. In a calm world consumers come and go, and nothing else.
ACCIDENTS = {'kill': 4, 'evict': 4, 'lose_registry': 2, 'stop': 3, 'outage': 2, 'go_back': 3, 'join': 2}
CALM = {'stop': 2, 'join': 1}


class Events:
    """A plan, made at the beginning of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = random = world.random
        self._start = world.loop.time
        #: When the last event was, or will be.
        self.last = self._start
        kinds = CALM if world.profile.name == 'calm' else ACCIDENTS
        names = random.choices(list(kinds), list(kinds.values()), k=random.randint(0, world.profile.events))
        moments = sorted(random.choice([0.0, 1.0, random.uniform(0, SPAN)]) for _ in range(random.randint(3, 12)))
        plan = [(self._start + moment, 'enqueue') for moment in moments]
        plan += [(self._start + random.uniform(0, SPAN), name) for name in names]
        self._plan = sorted(plan)

    def next(self) -> float | None:
        """When the next event may happen."""
        return self._plan[0][0] if self._plan else None

    def is_due(self) -> bool:
        """True when one may happen now."""
        return bool(self._plan) and self._plan[0][0] <= self._world.loop.time

    def are_over(self) -> bool:
        """True when nothing more is planned, and somebody is there to do what is left to do."""
        if not self._plan and not self._world.serving():
            self._plan.append((self._world.loop.time, 'join'))
        return not self._plan

    def happen(self) -> None:
        """The next event happens, where it can."""
        _, name = self._plan.pop(0)
        self.last = self._world.loop.time
        what: Callable[[], Any] = getattr(self, f'_{name}')
        if what() is not False and name != 'enqueue':
            self._world.counts[name] += 1

    def _enqueue(self) -> None:
        random = self._random
        fails = random.choice([0, 0, 0, 1, 2])
        self._world.checks.enqueue(
            seconds=random.choice([0.0, 0.0, 0.01, 0.5, 3.0, 8.0]), fails=fails, retries=random.choice([fails, fails, 2, 0]),
            retry_delay=random.choice([0.0, 0.0, 1.0]), delay=random.choice([0.0, 0.0, 0.0, 2.0, 7.0]),
            is_stubborn=random.random() < 0.05)

    def _join(self) -> None:
        self._world.join()

    def _stop(self) -> bool:
        member = self._one()
        if member is None:
            return False
        self._world.stop(member, self._random.choice([0.0, 0.0, 1.0, 10.0]))
        return True

    def _one(self) -> Any:
        """A consumer to which something may happen; in a calm world one is left in peace."""
        serving = self._world.serving()[self._world.profile.name == 'calm':]
        return self._random.choice(serving) if serving else None

    def _kill(self) -> bool:
        alive = [member for member in self._world.members if not member.is_dead and not member.has_stopped]
        if not alive:
            return False
        member = self._random.choice(alive)
        self._world.tell(f'{member} is killed')
        self._world.kill(member)
        return True

    def _evict(self) -> bool:
        """Somebody takes a living consumer for dead, and takes back the first of its messages."""
        world = self._world
        found = [(member, name) for member in world.members for name, beat in world.storage.consumers().items()
                 if name == member.engine.lease.consumer and beat != EVICTED]
        if not found:
            return False
        member, name = self._random.choice(found)
        world.tell(f'{member} is evicted, wrongly')
        member.evicted.add(name)
        world.disturb()
        with world.checks.watching_reap(name, 'reap'):
            world.storage.reap(name, world.storage.consumers()[name], 255, self._random.randint(1, 3), None)
        return True

    def _lose_registry(self) -> None:
        self._world.tell('the registry is lost')
        self._world.storage._consumers.clear()
        self._world.disturb()

    def _outage(self) -> None:
        seconds = self._random.choice([0.5, 4.0, 25.0])
        self._world.tell(f'the storage is away for {seconds:g} s')
        self._world.away_until = self._world.loop.time + seconds
        self.last = self._world.away_until
        self._world.disturb()

    def _go_back(self) -> bool:
        """A message whose end the storage had, and had told, is in flight again."""
        world = self._world
        found = [(consumer, tag) for consumer, tag in world.checks.settled
                 if any(consumer == member.engine.lease.consumer for member in world.serving())
                 and consumer not in world.checks.evicted() and tag not in world.storage._inflight.get(consumer, ())]
        if not found:
            return False
        consumer, tag = self._random.choice(found)
        world.tell(f'the storage goes back to when {consumer} held {tag}')
        world.checks.is_back(consumer, tag)
        return True
