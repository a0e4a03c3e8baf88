"""How many tasks that do nothing does one consumer process get through, and what does each cost?"""

from __future__ import annotations

import time
from collections.abc import Iterator

import speed_app
from figures import Figure, Target
from lab import Lab

#: Calls between two steps of the progress bar.
STEP = 1000


def measure(lab: Lab) -> Iterator[Figure]:
    """All are enqueued first; then the consumer is started. Its start-up does not count."""
    for what, huey, task, target in (
            ('with results', speed_app.huey, speed_app.noop, Target('>=', 10_000)),
            ('without results', speed_app.forgetful, speed_app.noop_without_result, None)):
        begun = time.monotonic()
        with lab.bar(f'{lab.tasks:,} tasks enqueued', lab.tasks) as bar:
            for done in range(1, lab.tasks + 1):
                task()
                if done % STEP == 0:
                    bar.update(STEP)
        seconds = time.monotonic() - begun
        if huey.pending_count() != lab.tasks:
            raise RuntimeError(f'{lab.tasks} calls have left {huey.pending_count()} tasks')
        yield Figure(f'enqueue by one plain producer, {what}', lab.tasks / seconds, 'calls/s')
        with lab.consumer(huey) as consumer:
            drained = lab.drain(huey, consumer, lab.tasks)
        yield Figure(f'drain of no-ops {what}', drained.rate, 'tasks/s', target)
        yield Figure("  the consumer's CPU", drained.consumer_cpu / lab.tasks * 1e6, 'us/task')
        yield Figure("  Redis's CPU", drained.redis_cpu / lab.tasks * 1e6, 'us/task')
