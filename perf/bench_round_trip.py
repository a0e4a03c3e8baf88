"""How long does a call take, there and back, with a consumer in the same process and threads that run the tasks?"""

from __future__ import annotations


def bench_round_trip(benchmark, huey):
    @huey.task(name='add')
    def add(a, b):
        return a + b

    with huey.consumer(worker_type='thread', workers=2):
        assert benchmark(lambda: add(1, 2).get(blocking=True, timeout=10)) == 3
