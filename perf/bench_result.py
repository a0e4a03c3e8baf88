"""What does it cost to get a result that is there?"""

from __future__ import annotations

import itertools

import pytest

from geventhuey.envelope import RESULT
from geventhuey.storage.base import VALUE

TTL = 3600.0


@pytest.fixture
def wrapper(huey):
    """The result of a task that has returned 1."""
    @huey.task(name='noop')
    def noop():
        return 1

    result = noop()
    put_result(huey, result.task_id)
    return result


def put_result(huey, task_id):
    huey.storage.put_result(task_id, VALUE + huey.envelope.dumps(RESULT, 1), TTL)


def bench_get_preserved(benchmark, wrapper):
    """A result that stays is read."""
    def get():
        wrapper.reset()
        return wrapper.get(preserve=True)
    assert benchmark(get) == 1


def bench_get(benchmark, huey):
    """A result is read and goes."""
    numbers = itertools.count()

    def prepared():
        task_id = f'id-{next(numbers)}'
        put_result(huey, task_id)
        return (task_id,), {}
    assert benchmark.pedantic(huey.result, setup=prepared, rounds=2000, warmup_rounds=5) == 1


def bench_get_blocking(benchmark, wrapper):
    """One who is ready to wait need not: subscribed, read, unsubscribed."""
    def get():
        wrapper.reset()
        return wrapper.get(blocking=True, timeout=10, preserve=True)
    assert benchmark(get) == 1
