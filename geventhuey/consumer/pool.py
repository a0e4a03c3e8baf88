"""Where tasks run: parked greenlets of the engine's hub, or native threads. Both know what runs right now."""

from __future__ import annotations

import _queue
import logging
import os
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent import getcurrent
from greenlet import GreenletExit, greenlet

from geventhuey import native
from geventhuey.consumer.component import close_hub
from geventhuey.exceptions import TaskInterrupted
from geventhuey.executor import Executor, Outcome
from geventhuey.storage.base import Delivery

logger = logging.getLogger('geventhuey.consumer')

Ended = Callable[[Outcome], None]
Announce = Callable[[bytes], None]

#: What wakes a parked greenlet that is to end.
_END: Any = object()


class GreenPool:
    """Up to ``size`` greenlets, made when they are needed and parked in between: waking one costs a tenth of making one.

    :param ended: takes the outcome of each delivery; called in the worker, it must not switch.
    :param announce: takes the event that a task begins.
    """

    def __init__(self, size: int, executor: Executor, ended: Ended, announce: Announce) -> None:
        self.size = size
        self._executor = executor
        self._ended = ended
        self._announce = announce
        self._parked: list[Any] = []
        self._running: dict[Any, Delivery] = {}
        self._hub = gevent.get_hub()
        self._closed = False
        self._references = _references_when_parked()

    def free(self) -> int:
        """How many deliveries it can take now."""
        return self.size - len(self._running)

    def running(self) -> list[Delivery]:
        """What runs right now."""
        return list(self._running.values())

    def put(self, delivery: Delivery) -> None:
        """The delivery runs as soon as the hub comes to it."""
        worker = self._unparked()
        if worker is None:
            worker = gevent.Greenlet(self._work, delivery)
            self._running[worker] = delivery
            worker.start()
        else:
            self._running[worker] = delivery
            self._hub.loop.run_callback(worker.switch, delivery)

    def _unparked(self) -> Any:
        """A parked greenlet that nobody else knows of, or None.

        A task may have left something behind that holds its greenlet, such as a timeout that was never cancelled and would strike
        the next task: those greenlets end.
        """
        while self._parked:
            worker = self._parked.pop()
            if worker.dead:
                continue
            if sys.getrefcount(worker) <= self._references:
                return worker
            self._hub.loop.run_callback(worker.switch, _END)
        return None

    def _work(self, delivery: Delivery | None) -> None:
        me = getcurrent()
        while delivery is not None:
            outcome = self._executor.execute(delivery, self._announce)
            # no switch from here until it is parked: nobody ever sees the delivery nowhere
            self._running.pop(me, None)
            was_killed = isinstance(outcome.error, GreenletExit)
            if not was_killed:
                self._parked.append(me)
            self._ended(outcome)
            del outcome
            delivery = None if was_killed else self._park()

    def _park(self) -> Delivery | None:
        """The next delivery, or None when this greenlet is to end: the pool is closed, or somebody has killed it and waits for that.

        All else that is thrown at a parked greenlet was meant for a task that is over.
        """
        while not self._closed:
            try:
                woken: Delivery | None = self._hub.switch()
                if woken is _END:
                    break
                if isinstance(woken, Delivery):     # and not what a task has left behind
                    return woken
            except GreenletExit:
                if getcurrent() in self._parked:
                    self._parked.remove(getcurrent())
                    break
            except BaseException:
                pass
        return None

    def interrupt(self, exc: TaskInterrupted) -> None:
        """The exception is raised in every task that runs."""
        for worker in list(self._running):
            self._hub.loop.run_callback(worker.throw, exc)

    def has_ended(self) -> bool:
        """True: it has no threads."""
        return True

    def close(self) -> None:
        """Parked greenlets end; those that still run do so when their task is over."""
        self._closed = True
        parked, self._parked = self._parked, []
        for worker in parked:
            self._hub.loop.run_callback(worker.switch, _END)

    def abandon(self) -> None:
        """In a forked child: of all that runs, only the greenlet that forked goes on."""
        self._closed = True
        self._executor.interrupting = over = TaskInterrupted('this task runs on in the parent of this process')
        for worker in [*self._running, *self._parked]:
            if worker is not getcurrent():
                worker.kill(over if worker.gr_frame is not None else GreenletExit, block=False)


class _Probe(greenlet):     # type: ignore[misc]
    """A greenlet that parks, in the shape of a worker."""

    def run(self) -> None:
        self.parent.switch()


def _references_when_parked() -> int:
    """What ``sys.getrefcount`` says of a parked greenlet that one local name and its own code refer to, and nobody else."""
    probe = _Probe()
    probe.switch()
    references = sys.getrefcount(probe)
    probe.switch()
    return references


class ThreadPool:
    """Up to ``size`` native threads, started when they are needed; outcomes come back to the engine's hub."""

    def __init__(self, size: int, executor: Executor, ended: Ended, announce: Announce) -> None:
        self.size = size
        self._executor = executor
        self._ended = ended
        self._announce = announce
        self._work_queue: _queue.SimpleQueue[Delivery | None] = _queue.SimpleQueue()
        self._threads = 0
        self._ended_threads: list[int] = []
        self._is_child = False
        self._running: dict[tuple[str, int], Delivery] = {}
        self._returned: deque[Outcome | bytes] = deque()
        self._news = gevent.get_hub().loop.async_()
        self._news.start(self._take_returned)

    def free(self) -> int:
        """How many deliveries it can take now."""
        return self.size - len(self._running)

    def running(self) -> list[Delivery]:
        """What runs right now."""
        return list(self._running.values())

    def put(self, delivery: Delivery) -> None:
        """The delivery runs in the next free thread."""
        self._running[delivery[:2]] = delivery
        self._work_queue.put(delivery)
        if self._threads < len(self._running):
            self._start_thread()

    def _start_thread(self) -> None:
        """One thread more; where the system gives none, those that there are have to do."""
        try:
            native.start_thread(self._work)
            self._threads += 1
        except RuntimeError as exc:
            if self._threads:
                self.size = self._threads
                logger.error('the system gives no more threads (%s): there are %d workers from now on', exc, self.size)
            else:
                logger.error('the system gives no thread (%s): trying again', exc)
                gevent.spawn_later(1.0, self._start_thread)

    def _work(self) -> None:
        while True:
            delivery = self._work_queue.get()
            if delivery is None:
                break
            outcome = self._executor.execute(delivery, self._return)
            if self._is_child:          # the task has forked, and this is not the process that it belongs to
                os._exit(1)
            self._return(outcome)
        close_hub()
        self._ended_threads.append(native.thread_id())

    def _return(self, news: Outcome | bytes) -> None:
        self._returned.append(news)
        try:
            self._news.send()
        except ValueError:      # the hub is gone: the engine has stopped without waiting for this thread
            pass

    def _take_returned(self) -> None:
        """In the hub: what the threads have handed in."""
        while self._returned:
            news = self._returned.popleft()
            if isinstance(news, bytes):
                self._announce(news)
            else:
                self._running.pop(news.delivery[:2], None)
                self._ended(news)

    def interrupt(self, exc: TaskInterrupted) -> None:
        """Nothing: a thread cannot be interrupted."""

    def abandon(self) -> None:
        """In a forked child: there is no other thread, and this one ends with its task."""
        self._is_child = True

    def has_ended(self) -> bool:
        """True when no threads are left but those that still run a task."""
        return self._threads - len(self._ended_threads) <= len(self._running)

    def close(self) -> None:
        """Threads end when their task is over."""
        for _ in range(self._threads):
            self._work_queue.put(None)
        self._news.close()
