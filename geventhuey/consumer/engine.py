"""Engine: the parts of a consumer in one gevent hub; which is started and stopped when. No other logic."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event

from geventhuey import native
from geventhuey.clock import ManualClock, SyncedClock
from geventhuey.consumer.audit import Audit
from geventhuey.consumer.component import Component, Outage
from geventhuey.consumer.fetcher import Fetcher
from geventhuey.consumer.heartbeat import Heartbeat, HubWatch, Reporter
from geventhuey.consumer.options import WORKER_THREAD, Options
from geventhuey.consumer.pool import GreenPool, ThreadPool
from geventhuey.consumer.reaper import Reaper
from geventhuey.consumer.scheduler import TICK, Scheduler
from geventhuey.consumer.settler import Settler
from geventhuey.consumer.suspects import Suspects
from geventhuey.exceptions import StorageError, TaskInterrupted
from geventhuey.executor import Outcome
from geventhuey.lease import Lease
from geventhuey.message import AT_MOST_ONCE, SUSPECT
from geventhuey.storage.base import Delivery

if TYPE_CHECKING:
    from geventhuey.api import Huey

logger = logging.getLogger('geventhuey.consumer')

#: Seconds that interrupted tasks have for their ``finally`` blocks, and that the last outcomes have to reach the storage.
CLEANUP, LAST_SETTLE = 1.0, 2.0
#: Seconds that the native threads have to end.
LAST_THREADS = 2.0
#: Outcomes that may be unsettled before no more is fetched, at least.
BACKLOG = 1000


class Engine:
    """Everything that runs an application's tasks, in the hub of the thread that makes it."""

    def __init__(self, huey: Huey, options: Options, tick: float = TICK) -> None:
        storage, self._options = huey.storage, options
        self._limit = max(options.workers, BACKLOG)
        self._result_ttl = huey.result_ttl
        self._interrupted = Event()
        self._sessions = [storage.session(role) for role in ('fetch', 'wait', 'settle')]
        fetching, waiting, self._settling = self._sessions
        outage, synced = Outage(), SyncedClock()
        listening = self._is_listened_to if huey.events else _nobody

        self.lease = Lease(options.name, options.workers, options.lease)
        self.executor = huey.executor(listening)
        self.settler = Settler(self._settling, self._settled, outage)
        pool = ThreadPool if options.worker_type == WORKER_THREAD else GreenPool
        self.pool = pool(options.workers, self.executor, self._ended, self.settler.announce)
        self.suspects = Suspects(options.workers, options.max_deliveries)
        self.fetcher = Fetcher(fetching, waiting, self.lease, self.pool, {'default': options.workers}, self._is_behind,
                               self.suspects.wanted, self._begin, outage)
        self._watch, self._reporter = HubWatch(), Reporter()
        self.heartbeat = Heartbeat(storage, self.lease, options.beat_interval, synced, self._watch, self._reporter, huey.result_ttl)
        self.scheduler = Scheduler(self._settling, huey.registry, huey.clock if storage.in_process else synced, options.utc, tick,
                                   listening, self.settler.announce, outage)
        self._looking: list[Component] = [
            Reaper(self._settling, self.lease, options.lease, options.beat_interval, options.max_deliveries, huey.result_ttl, outage),
            Audit(self._settling, self.lease, self._unpromised, self._found, self.known, lambda: self.heartbeat.held[0], outage)]
        if options.periodic:
            self._looking.append(self.scheduler)
        if options.check_worker_health:
            self._looking.append(Caretaker([self.settler, self.fetcher, *self._looking], options.health_check_interval))
        self._callbacks = huey.callbacks
        self._clock = huey.clock
        self._hub = gevent.get_hub()
        if isinstance(self._clock, ManualClock):
            self._clock.on_change(self._clock_was_turned)

    # -- what the parts ask of each other -------------------------------------------------------------------

    def _begin(self, delivery: Delivery) -> None:
        """A delivery is to run."""
        if delivery.message[1] >= SUSPECT:
            self.suspects.begun(delivery)
        self.pool.put(delivery)

    def _found(self, delivery: Delivery) -> None:
        """A delivery that is in flight under our name, and that we know nothing of."""
        if delivery.message[2] & AT_MOST_ONCE:      # it may have run
            self.settler.add(self.executor.cut_off(delivery))
        else:
            self._begin(delivery)

    def _ended(self, outcome: Outcome) -> None:
        """A worker has ended a delivery; called between two switches."""
        self.settler.add(outcome)
        self.fetcher.freed()
        if self.suspects.running and self.suspects.ended(outcome.delivery):
            self.fetcher.look()

    def _settled(self) -> None:
        self.fetcher.freed()

    def _is_behind(self) -> bool:
        return self.settler.backlog() >= self._limit

    def _unpromised(self) -> int:
        """How many workers are free and not for what the fetcher has asked for."""
        return self.pool.free() - self.fetcher.asked

    def _is_listened_to(self) -> bool:
        return self.fetcher.listeners > 0

    def _clock_was_turned(self) -> None:
        """From any thread: a tick may be due."""
        self._hub.loop.run_callback_threadsafe(self.scheduler.interrupt_rest)

    def known(self) -> list[Delivery]:
        """Every delivery that runs here or is not settled yet."""
        return self.pool.running() + self.settler.unsettled()

    def forked(self) -> None:
        """A task has forked, and this is the child: nothing of the engine goes on here, nor any task but the one that forked."""
        self.fetcher.abandon()
        for part in (self.settler, *self._looking):
            part.abandon()
        self.pool.abandon()

    # -- start and stop -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Tasks are fetched and run."""
        native.on_fork(self.forked)
        self._callbacks.on_startup.call_all()
        self._reporter.start()
        self.heartbeat.start()
        self.settler.start()
        self.fetcher.start()
        for part in self._looking:
            part.start()

    def interrupt(self) -> None:
        """A stop that is under way does not wait for tasks any longer."""
        self._interrupted.set()

    def stop(self, timeout: float) -> None:
        """Nothing runs any more and nothing is held. What had not ended within ``timeout`` seconds is back in its queue."""
        deadline = time.monotonic() + timeout
        if isinstance(self._clock, ManualClock):
            self._clock.forget(self._clock_was_turned)
        for part in self._looking:
            part.stop()
        self.fetcher.stop()
        running = len(self.pool.running())
        if running:
            logger.info('tasks that still run: %d', running)
        _wait(lambda: not self.pool.running() or self._interrupted.is_set(), deadline)
        if self.pool.running():
            self.executor.interrupting = TaskInterrupted('the consumer shuts down; the task will be run again')
            self.pool.interrupt(self.executor.interrupting)
            _wait(lambda: not self.pool.running(), time.monotonic() + CLEANUP)
        self._callbacks.on_shutdown.call_all()
        self.heartbeat.stop()
        # a beat that is under way may register once more: it must not do so after the release
        _wait(lambda: self.heartbeat.has_ended and not self.settler.backlog(), time.monotonic() + LAST_SETTLE)
        self.settler.stop()
        self._release()
        self.pool.close()
        self._watch.close()
        self._reporter.stop()
        for session in self._sessions:
            session.close()
        # a thread that has used greenlets and ends while the interpreter does can crash it
        _wait(lambda: self.heartbeat.has_ended and self._reporter.has_ended and self.pool.has_ended(), time.monotonic() + LAST_THREADS)

    def _release(self) -> None:
        """What is still held in the storage is back at the head of its queue; what may run only once has ended as lost."""
        released = 0
        try:
            while True:
                with gevent.Timeout(LAST_SETTLE):
                    step = self._settling.release(self.lease.consumer, 200, (), self._result_ttl)
                released += step.requeued
                if step.done:
                    break
        except (StorageError, gevent.Timeout) as exc:
            if self.known():
                logger.error('what had not ended could not be given back, another consumer will find it: %s', exc)
        if released:
            logger.info('tasks that had not ended and are back at the head of the queue: %d', released)

    def exit_at(self, seconds: float) -> None:
        """If the process still lives in so many seconds, because its hub is blocked, its tasks are given back and it ends."""
        def last_words() -> None:
            os.write(2, b'the hub did not get round to stopping: exiting without it\n')
        self.heartbeat.exit_at(time.monotonic() + seconds, last_words)


class Caretaker(Component):
    """Starts parts that have died again."""

    def __init__(self, parts: list[Component], interval: float) -> None:
        super().__init__()
        self._parts = parts
        self._interval = interval

    def rest(self) -> float:
        return self._interval

    def run_once(self) -> None:
        """Looks at every part."""
        for part in self._parts:
            if not part.is_alive():
                logger.warning('%s died, restarting.', part.name)
                part.start()


def _wait(condition: Callable[[], bool], deadline: float) -> None:
    """Waits until the condition holds or the time is over, looking fifty times a second."""
    pause = Event()
    while not condition() and time.monotonic() < deadline:
        pause.wait(0.02)


def _nobody() -> bool:
    return False
