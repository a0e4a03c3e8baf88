"""Scheduler: crontab ticks -> queue, once per tick among all consumers. (What is due by its eta, fetch itself promotes.)"""

from __future__ import annotations

import logging
import random
import uuid
from collections.abc import Callable

from geventhuey import events
from geventhuey.clock import Clock, SyncedClock, to_datetime
from geventhuey.consumer.component import Component, Outage
from geventhuey.message import MAX_ID, PERIODIC
from geventhuey.storage.base import BaseStorage
from geventhuey.task import PeriodicQueueTask, TaskRegistry

logger = logging.getLogger('geventhuey.consumer')

#: Seconds of a tick. crontab knows nothing shorter than a minute.
TICK = 60.0
#: Seconds by which consumers come late at random, so that they do not all come at once; of a minute's tick.
JITTER = 0.1
#: Seconds between looks whether the storage's clock has been heard.
UNTIL_HEARD = 0.05


class Scheduler(Component):
    """Enqueues every periodic task once per tick, however many schedulers there are: the storage lets the first one do it.

    Ticks are counted by the storage's clock.  A tick that passed while nobody could serve it is made up for when it is the last
    one and its minute is not over; older ones are skipped.
    """

    def __init__(self, storage: BaseStorage, registry: TaskRegistry, clock: Clock, utc: bool, tick: float,
                 listening: Callable[[], bool], publish: Callable[[bytes], None], outage: Outage) -> None:
        super().__init__(outage)
        self._storage = storage
        self._registry = registry
        self._clock = clock
        self._utc = utc
        self._tick = tick
        self._listening = listening
        self._publish = publish
        self._introduced = False
        self._last: int | None = None

    def rest(self) -> float:
        if not self._knows_the_time():
            return UNTIL_HEARD
        late = random.uniform(0, JITTER) * min(1.0, self._tick / TICK)
        return self._tick - self._clock.now() % self._tick + late

    def run_once(self) -> None:
        """Enqueues what the present tick asks for, if it has not been looked at yet."""
        if not self._knows_the_time():
            return
        tick = int(self._clock.now() // self._tick)
        periodic = self._registry.periodic()
        if not self._introduced:
            self._storage.introduce([cls.task_name for cls in periodic], tick)
            self._introduced = True
        if tick == self._last:
            return
        moment = to_datetime(tick * self._tick, self._utc)
        if self._listening():
            self._publish(events.event(events.EVENT_CHECKING_PERIODIC))
        for cls in periodic:
            if self._is_due(cls, moment):
                self._enqueue(cls, tick)
        self._last = tick

    def _knows_the_time(self) -> bool:
        """False until the storage's clock has been heard: one tick by a clock that is ahead would use up those of all others."""
        return not isinstance(self._clock, SyncedClock) or self._clock.is_set

    def _is_due(self, cls: type[PeriodicQueueTask], moment: object) -> bool:
        try:
            return bool(cls().validate_datetime(moment))    # type: ignore[arg-type]
        except Exception:
            logger.exception('%s: its validate_datetime failed, it is not run this time', cls.task_name)
            return False

    def _enqueue(self, cls: type[PeriodicQueueTask], tick: int) -> None:
        task = cls.run(tick_id(cls.task_name, tick), self._clock.now())
        if not self._storage.tick(cls.task_name, tick, self._registry.message(task, PERIODIC)):
            return
        logger.info('%s is enqueued', cls.task_name)
        if self._listening():
            self._publish(events.event(events.EVENT_SCHEDULING_PERIODIC, task))


def tick_id(name: str, tick: int) -> str:
    """The id of a periodic task's run: the same whoever enqueues it, for a task that wants to know whether it ran before."""
    readable = f'cron:{name}:{tick}'
    return readable if len(readable.encode()) <= MAX_ID else str(uuid.uuid5(uuid.NAMESPACE_URL, readable))
