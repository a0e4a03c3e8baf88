"""What the soak sends, and what comes back: producers and readers in native threads."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from geventhuey.exceptions import (
    DataStoreGetException,
    DataStoreTimeout,
    EnqueueOutcomeUnknown,
    QueueException,
    QueueWriteException,
    ScheduleAddException,
)
from geventhuey.result import TaskResultWrapper
from geventhuey.testing.history import History
from geventhuey.testing.soak.app import Plan, answer, huey, silent

#: Threads that send tasks, and that wait for results, each for one after another.
PRODUCERS, READERS = 4, 32
#: Tasks that have been sent and not ended at most, for each worker: enough to keep all busy, and the queue short.
AHEAD = 4
#: Seconds until a call that failed is repeated, and until a reader looks whether it is to end.
AGAIN, LOOK = 0.05, 1.0
#: Seconds that are lost where times are rounded to milliseconds.
ROUNDED = 0.002


class Asked(NamedTuple):
    """A task whose result is to be read."""

    number: int
    result: TaskResultWrapper


class Load:
    """All tasks of a run: sent as fast as they are run, and their results read and compared.

    :param ended: answers how many tasks have ended so far.
    :param ahead: how many may be on their way.
    :param knows_time: the server's clock is this machine's.
    """

    def __init__(self, tasks: int, seed: int, history: History, ended: Callable[[], int], ahead: int, knows_time: bool) -> None:
        self._tasks = tasks
        self._seed = seed
        self._history = history
        self._ended = ended
        self._ahead = ahead
        self._knows_time = knows_time
        self._numbers = itertools.count()
        self._asked: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._is_over = threading.Event()
        self._producers = [threading.Thread(target=self._produce, daemon=True) for _ in range(PRODUCERS)]
        self._readers = [threading.Thread(target=self._read, daemon=True) for _ in range(READERS)]
        #: Numbers of the tasks that were certainly sent, and that may have been.
        self.sent: set[int] = set()
        self.maybe: set[int] = set()
        #: For each call that said that nothing was sent, and was repeated.
        self.repeated: list[int] = []
        #: Results that were read and right; what is wrong with others, by number.
        self.right: set[int] = set()
        self.wrong: dict[int, str] = {}

    def start(self) -> None:
        """Tasks are sent and results are read."""
        for thread in (*self._producers, *self._readers):
            thread.start()

    @property
    def is_sent(self) -> bool:
        """True when every task has been sent."""
        return not any(thread.is_alive() for thread in self._producers)

    def finish(self, started: Callable[[int], bool]) -> None:
        """Every result that is there has been read. ``started`` says of a task that may have been sent whether it was."""
        self._is_over.set()
        for number in sorted(filter(started, self.maybe)):
            plan = Plan.of(number, self._seed)
            self._note(plan, True, None)
            if plan.is_asked:
                self._asked.put(Asked(number, TaskResultWrapper(huey, plan.task())))
        for _ in self._readers:
            self._asked.put(None)
        for thread in self._readers:
            thread.join()

    def stop(self) -> None:
        """Nothing is sent or read any more."""
        self._stopped.set()
        self._is_over.set()
        for _ in self._readers:
            self._asked.put(None)
        for thread in (*self._producers, *self._readers):
            if thread.is_alive():
                thread.join()

    # -- sending --------------------------------------------------------------------------------------------

    def _produce(self) -> None:
        while not self._stopped.is_set():
            number = next(self._numbers)
            if number >= self._tasks:
                break
            while number - self._ended() >= self._ahead and not self._stopped.is_set():
                time.sleep(0.002)
            self._send(Plan.of(number, self._seed))

    def _send(self, plan: Plan) -> None:
        """The task has been sent, or may have been: that is written down."""
        task, app = plan.task(), huey if plan.is_asked else silent
        while not self._stopped.is_set():
            due = time.time() + plan.delay - ROUNDED if plan.delay and self._knows_time else None
            try:
                result = app.add_schedule(task, plan.delay) if plan.delay else app.enqueue(task)
            except EnqueueOutcomeUnknown:
                self.maybe.add(plan.number)
                self._note(plan, False, due)
                return
            except (QueueWriteException, ScheduleAddException):     # not sent, for certain
                self.repeated.append(plan.number)
                time.sleep(AGAIN)
                continue
            self.sent.add(plan.number)
            self._note(plan, True, due)
            if plan.is_asked:
                self._asked.put(Asked(plan.number, result))
            return

    def _note(self, plan: Plan, certain: bool, due: float | None) -> None:
        for name in plan.tries():
            self._history.sent(name, certain, due)

    # -- reading --------------------------------------------------------------------------------------------

    def _read(self) -> None:
        while (asked := self._asked.get()) is not None and not self._stopped.is_set():
            wrong = self._what_is_wrong(*asked)
            if wrong:
                self.wrong[asked.number] = wrong
            else:
                self.right.add(asked.number)

    def _what_is_wrong(self, number: int, result: TaskResultWrapper) -> str:
        """What is wrong with the result of this task, when it is there; empty when nothing is."""
        while True:
            was_over = self._is_over.is_set()
            try:
                value = result.get() if was_over else result.get(blocking=True, timeout=LOOK)
            except DataStoreTimeout:
                continue
            except DataStoreGetException:
                if was_over and self._stopped.is_set():
                    return 'was not read'
                time.sleep(AGAIN)
                continue
            except QueueException as exc:
                return f'{type(exc).__name__}: {exc}'
            if value is None and was_over:
                return 'has no result'
            return '' if value == answer(number) else f'is {value!r} instead of {answer(number)}'
