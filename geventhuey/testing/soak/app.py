"""The soak's application, for the soak itself and for the consumer processes that it starts."""

from __future__ import annotations

import os
import random
import time
import zlib
from typing import Any, NamedTuple

from geventhuey import RedisHuey
from geventhuey.task import QueueTask
from geventhuey.testing.history import ENDED, STARTED, note
from geventhuey.testing.soak import JOURNAL_VARIABLE, NAME_VARIABLE

#: Shares of the tasks, in percent: long ones; and of the others those that fail first, wait for a due time, have a priority, or a result.
LONG, FAILING, DELAYED, URGENT, ASKED = 1, 5, 5, 10, 25
#: Seconds: what a short task and a long one take, what is waited before a retry and until a due time.
SHORT, LASTING, PAUSE, DELAY = (0.0, 0.05), (1.0, 2.0), (0.0, 0.3), (0.1, 2.0)
PRIORITIES = (1, 9)

huey = RedisHuey(os.environ.get(NAME_VARIABLE, 'geventhuey-soak'))
#: The same application for those who do not ask what a task returns.
silent = RedisHuey(huey.name, result_store=False)
journal = os.environ.get(JOURNAL_VARIABLE, os.devnull)


class OnPurpose(Exception):
    """Why a task that is to be tried again fails."""


@huey.task(include_task=True)
def work(number: int, seconds: float, task: Any = None) -> int:
    """Takes its time, and fails as long as it has retries left: it was given as many as it is to need."""
    note(journal, STARTED, try_id(task), task.deliveries)
    time.sleep(seconds)
    note(journal, ENDED, try_id(task), task.deliveries)
    if task.retries:
        raise OnPurpose(f'{task.retries} more')
    return answer(number)


silent.registry.register(work.task_class)


def try_id(task: QueueTask) -> str:
    """What one try of a task is called in the history: each of them is to end, and once."""
    return f'{task.task_id}/{task.retries}'


def answer(number: int) -> int:
    """What the task of this number has to return."""
    return zlib.crc32(b'%d' % number)


class Plan(NamedTuple):
    """One task, as it is to be sent. Everything follows from its number and the seed."""

    number: int
    seconds: float
    fails: int = 0
    pause: float = 0.0
    delay: float = 0.0
    priority: int = 0
    is_asked: bool = False

    @classmethod
    def of(cls, number: int, seed: int) -> Plan:
        """The task of this number."""
        dice = random.Random(seed << 32 | number)

        def chance(percent: int) -> bool:
            return dice.random() * 100 < percent
        if chance(LONG):
            return cls(number, dice.uniform(*LASTING))
        return cls(number, dice.uniform(*SHORT), dice.randint(1, 2) if chance(FAILING) else 0, dice.uniform(*PAUSE) if chance(50) else 0.0,
                   dice.uniform(*DELAY) if chance(DELAYED) else 0.0, dice.randint(*PRIORITIES) if chance(URGENT) else 0, chance(ASKED))

    def task(self) -> QueueTask:
        """It as a task, not sent yet."""
        task = work.task_class(((self.number, self.seconds), {}), str(self.number), None, self.fails, self.pause if self.fails else 0)
        task.priority = self.priority
        return task

    def tries(self) -> list[str]:
        """What its tries are called in the history."""
        return [f'{self.number}/{left}' for left in range(self.fails + 1)]
