"""How long after a call does its task start, when the consumer has nothing else to do?"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import speed_app
from figures import Figure, Target, percentile
from lab import Lab

#: Seconds between two calls: from, to.
PAUSE = 0.002, 0.006


def measure(lab: Lab) -> Iterator[Figure]:
    """The tasks say when they were started; both clocks are this machine's."""
    calls = []
    with lab.consumer(speed_app.huey) as consumer:
        consumer.ready()
        for _ in range(10):
            speed_app.started().get(blocking=True, timeout=30)
        with lab.bar('calls to an idle consumer', lab.samples) as bar:
            for _ in range(lab.samples):
                time.sleep(random.uniform(*PAUSE))
                now = time.time()
                calls.append((now, speed_app.started()))
                bar.update()
        late = [result.get(blocking=True, timeout=30) - now for now, result in calls]
    yield Figure('enqueue to start, consumer idle: p50', percentile(late, 50) * 1000, 'ms', Target('<=', 0.8))
    yield Figure('enqueue to start, consumer idle: p99', percentile(late, 99) * 1000, 'ms', Target('<=', 2))
