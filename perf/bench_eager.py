"""What does a call cost that is run at once (``always_eager``)?"""

from __future__ import annotations


def bench_eager_call(benchmark, memory_huey):
    @memory_huey.task(name='add')
    def add(a, b):
        return a + b

    memory_huey.always_eager = True
    assert benchmark(lambda: add(1, 2).get()) == 3
