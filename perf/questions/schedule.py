"""How late are tasks that were to start at a certain time, and is none early?"""

from __future__ import annotations

import datetime
import random
import time
from collections.abc import Iterator

import speed_app
from figures import Figure, Target, percentile
from lab import Lab

#: Seconds from the first call to the first due time (the last call must be before it), and from there to the last due time.
AHEAD, SPREAD = 2.0, 5.0


def measure(lab: Lab) -> Iterator[Figure]:
    """Due times are spread evenly; the tasks say when they were started."""
    tasks = []
    with lab.consumer(speed_app.huey) as consumer:
        consumer.ready()
        speed_app.started().get(blocking=True, timeout=30)
        ahead = max(0.5, AHEAD * lab.share)
        first = time.time() + ahead
        with lab.bar('tasks are scheduled and run', lab.samples) as bar:
            for _ in range(lab.samples):
                due = first + random.uniform(0, SPREAD * lab.share)
                eta = datetime.datetime.fromtimestamp(due, datetime.timezone.utc)
                tasks.append((due, speed_app.started.schedule(eta=eta)))
            if time.time() > first:
                raise RuntimeError(f'{lab.samples} calls took longer than {ahead:g} s')
            late = []
            for due, result in sorted(tasks, key=lambda pair: pair[0]):
                late.append(result.get(blocking=True, timeout=30) - due)
                bar.update()
    yield Figure('lateness of an eta: p50', percentile(late, 50) * 1000, 'ms', Target('<=', 1.5))
    yield Figure('lateness of an eta: p99', percentile(late, 99) * 1000, 'ms', Target('<=', 4))
    # a float of unix seconds, a datetime in between: neither is exact to the microsecond
    yield Figure('  that were early', sum(lateness < -2e-6 for lateness in late), 'tasks', Target('<=', 0))
