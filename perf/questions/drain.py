"""How many tasks that do nothing does one consumer process get through, and what does each cost?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NoReturn

import speed_app
from figures import Figure, Target
from lab import Lab
from tqdm import tqdm

from geventhuey import Huey
from geventhuey.function import TaskFunction

#: Of the tasks, those that are called one after the other; the others are enqueued by ``map``.
SINGLE = 0.1


def measure(lab: Lab) -> Iterator[Figure]:
    """All are enqueued first; then the consumer is started. Its start-up does not count."""
    for what, huey, task, rate, cpu in (
            ('with results', speed_app.huey, speed_app.noop, Target('>=', 25_000), Target('<=', 38)),
            ('without results', speed_app.forgetful, speed_app.noop_without_result, Target('>=', 30_000), Target('<=', 30))):
        yield from enqueue(lab, huey, task, what)
        with lab.consumer(huey) as consumer:
            drained = lab.drain(huey, consumer, lab.tasks)
        yield Figure(f'drain of no-ops {what}', drained.rate, 'tasks/s', rate)
        yield Figure("  the consumer's CPU", drained.consumer_cpu / lab.tasks * 1e6, 'us/task', cpu)
        yield Figure("  Redis's CPU", drained.redis_cpu / lab.tasks * 1e6, 'us/task')


def enqueue(lab: Lab, huey: Huey, task: TaskFunction, what: str) -> Iterator[Figure]:
    """The queue is full."""
    single = int(lab.tasks * SINGLE)
    begun = time.monotonic()
    for _ in range(single):
        task()
    called = time.monotonic()
    with lab.bar('tasks enqueued', lab.tasks - single) as bar:
        task.map(_counted(lab.tasks - single, bar))
    ended = time.monotonic()
    if huey.pending_count() != lab.tasks:
        raise RuntimeError(f'{lab.tasks} calls have left {huey.pending_count()} tasks')
    yield Figure(f'enqueue by one plain producer, {what}', single / (called - begun), 'calls/s')
    yield Figure('  by map()', (lab.tasks - single) / (ended - called), 'tasks/s', Target('>=', 60_000))


def _counted(count: int, bar: tqdm[NoReturn]) -> Iterator[tuple[()]]:
    """So many times no argument."""
    for _ in range(count):
        yield ()
        bar.update()
