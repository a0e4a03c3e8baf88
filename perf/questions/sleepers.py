"""How much of its workers' time does a consumer make use of, when every task waits for a tenth of a second?"""

from __future__ import annotations

from collections.abc import Iterator

import speed_app
from figures import Figure, Target
from lab import Lab

#: Workers, tasks for each of them, and the share of what is possible that they ought to reach.
WORKERS = ((500, 40, 95), (2000, 20, 90), (10_000, 10, 30))
#: Seconds that a task sleeps.
NAP = 0.1


def measure(lab: Lab) -> Iterator[Figure]:
    """The ideal is that every worker sleeps all the time, from the start of the first task until the last one is settled."""
    for workers, rounds, percent in WORKERS:
        workers = max(1, int(workers * lab.share))
        yield from nap(lab, workers, workers * max(2, int(rounds * lab.share)), target=Target('>=', percent))


def nap(lab: Lab, workers: int, tasks: int, whose: str = '', target: Target | None = None) -> Iterator[Figure]:
    """So many workers have slept so many naps."""
    speed_app.doze.map([NAP] * tasks)
    with lab.consumer(speed_app.huey, workers) as consumer:
        drained = lab.drain(speed_app.huey, consumer, tasks)
        first = min(speed_app.huey.serializer.loads(result) for result in speed_app.huey.all_results().values())
    seconds = drained.ended - first
    ideal = tasks / workers * NAP
    yield Figure(f'{whose}tasks of {NAP:g} s, -w {workers}', tasks / seconds, 'tasks/s')
    yield Figure('  of what is possible', ideal / seconds * 100, '%', target)
    yield Figure("  the consumer's CPU", drained.consumer_cpu / tasks * 1e6, 'us/task')
