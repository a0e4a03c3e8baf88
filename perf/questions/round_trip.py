"""How long does it take from a call to its result, one call after the other?"""

from __future__ import annotations

import time
from collections.abc import Iterator

import speed_app
from figures import Figure, Target, percentile
from lab import Lab


def measure(lab: Lab) -> Iterator[Figure]:
    """``noop().get(blocking=True)``, the consumer idle."""
    seconds = []
    with lab.consumer(speed_app.huey) as consumer:
        consumer.ready()
        for _ in range(10):
            speed_app.noop().get(blocking=True, timeout=30)
        with lab.bar('calls there and back', lab.samples) as bar:
            for _ in range(lab.samples):
                begun = time.perf_counter()
                speed_app.noop().get(blocking=True, timeout=30)
                seconds.append(time.perf_counter() - begun)
                bar.update()
    yield Figure('call to result, consumer idle: p50', percentile(seconds, 50) * 1000, 'ms', Target('<=', 1.2))
    yield Figure('call to result, consumer idle: p99', percentile(seconds, 99) * 1000, 'ms', Target('<=', 4))
