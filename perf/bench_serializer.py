"""What does it cost to turn a call into a message, and a message into a task, with each serializer?"""

from __future__ import annotations

import datetime

import pytest

from geventhuey import MemoryHuey

ARGUMENTS = {
    'plain': ((1, 'two', [3.0, None]), {'four': b'4'}),
    'dated': ((datetime.datetime(2024, 5, 6, 7, 8, 9),), {}),       # names a class, so that what is written is read once more
}


@pytest.fixture(params=['pickle', 'pickle-any', 'json', 'msgpack', 'signed'])
def add(request):
    """A task of an application with each serializer in turn."""
    @MemoryHuey('bench', serializer=request.param).task(name='add')
    def add(*args, **kwargs):
        return args, kwargs
    return add


@pytest.fixture
def registry(add):
    return add._huey.registry


@pytest.mark.parametrize('kind', ARGUMENTS)
def bench_call_to_message(benchmark, add, registry, kind):
    benchmark(lambda: registry.message(add.task_class(ARGUMENTS[kind])))


@pytest.mark.parametrize('kind', ARGUMENTS)
def bench_message_to_task(benchmark, add, registry, kind):
    message = registry.message(add.task_class(ARGUMENTS[kind]))
    task = benchmark(registry.task, message)
    assert task.data == ARGUMENTS[kind]
