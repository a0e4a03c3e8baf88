"""What does it cost to enqueue many calls at once, and to read many results that are there?"""

from __future__ import annotations

from geventhuey.envelope import RESULT
from geventhuey.storage.base import VALUE

TASKS = 5000


def bench_map(benchmark, huey):
    noop = huey.task(name='noop')(lambda n: None)
    benchmark.pedantic(noop.map, (range(TASKS),), rounds=20, warmup_rounds=2)
    assert huey.pending_count() >= TASKS


def bench_group_get(benchmark, huey):
    """Subscribed, read, unsubscribed."""
    noop = huey.task(name='noop')(lambda n: None)
    results = noop.map(range(TASKS))
    record = VALUE + huey.envelope.dumps(RESULT, 1)
    for result in results:
        huey.storage.put_result(result.task_id, record, 3600.0)

    def get():
        results.reset()
        return results.get(blocking=True, timeout=60, preserve=True)
    assert benchmark.pedantic(get, rounds=10, warmup_rounds=1) == [1] * TASKS
