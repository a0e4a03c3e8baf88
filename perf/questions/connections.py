"""How many connections to Redis does a consumer open, when thousands of tasks run at once and all enqueue others at once?"""

from __future__ import annotations

import time
from collections.abc import Iterator

import speed_app
from figures import Figure, Target
from lab import PATIENCE, Lab

WORKERS = 10_000
#: Tasks per second that any consumer starts: until all run, nobody wakes.
SLOWEST = 2000
#: One in so many waits for the result of the task that it has enqueued.
WAITING = 10
#: Seconds between two counts.
LOOK = 0.05


def measure(lab: Lab) -> Iterator[Figure]:
    """As many tasks as there are workers sleep until the same instant; the connections are counted all the while."""
    workers = max(1, int(WORKERS * lab.share))
    most: list[str] = []
    with lab.consumer(speed_app.huey, workers) as consumer:
        consumer.ready()
        until = time.time() + 0.5 + 2 * workers / SLOWEST
        for number in range(workers):
            speed_app.gather(until, number % WAITING == 0)
        with lab.bar('tasks sleep and enqueue others', 2 * workers) as bar:
            while True:
                consumer.check()
                open_now = consumer.connections()
                most = max(open_now, most, key=len)         # the latest of equals: by then each has said its name
                results = int(lab.redis.dbsize())       # and a handful of other keys
                bar.update(min(results, 2 * workers) - bar.n)
                if results >= 2 * workers and speed_app.huey.result_count() == 2 * workers:
                    break
                if time.time() > until + PATIENCE:
                    raise RuntimeError(f'{2 * workers} tasks have left {speed_app.huey.result_count()} results\n{consumer.log()}')
                time.sleep(LOOK)
        spans = [speed_app.huey.serializer.loads(result) for result in speed_app.huey.all_results().values()]
    yield Figure(f'connections to Redis, -w {workers:,}', len(most), '', Target('<=', 7), ', '.join(most))
    yield Figure('  tasks that ran at once', _overlap([span for span in spans if isinstance(span, tuple)]), '')


def _overlap(spans: list[tuple[float, float]]) -> int:
    """How many of the spans hold the same instant, at most."""
    steps = sorted([(begun, 1) for begun, _ in spans] + [(ended, -1) for _, ended in spans])
    most = now = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most
