"""What does it cost to turn a call into a message, and a message into a task, with each serializer, and signed?"""

from __future__ import annotations

import datetime

import pytest

from geventhuey import MemoryHuey

PLAIN = (1, 'two', [3.0, None]), {'four': '4'}
#: Names a class, so that what is written is read once more.
DATED = (datetime.datetime(2024, 5, 6, 7, 8, 9),), {}
#: More than is worth compressing.
LONG = ('a word and another one ' * 200,), {}
SECRET = 'a secret of the benchmarks'

CASES = {
    'pickle': ({}, PLAIN), 'pickle, dated': ({}, DATED), 'pickle-any': ({'serializer': 'pickle-any'}, PLAIN),
    'json': ({'serializer': 'json'}, PLAIN), 'msgpack': ({'serializer': 'msgpack'}, PLAIN), 'signed': ({'secret': SECRET}, PLAIN),
    'long': ({}, LONG), 'long, compressed': ({'compression': True}, LONG),
}


@pytest.fixture(params=CASES)
def case(request):
    """The registry of an application, and a call of its task."""
    settings, arguments = CASES[request.param]
    huey = MemoryHuey('bench', **settings)
    add = huey.task(name='add')(lambda *args, **kwargs: None)
    return huey.registry, add.task_class(arguments)


def bench_call_to_message(benchmark, case):
    registry, task = case
    benchmark(registry.message, task)


def bench_message_to_task(benchmark, case):
    registry, task = case
    found = benchmark(registry.task, registry.message(task))
    assert [list(found.data[0]), found.data[1]] == [list(task.data[0]), task.data[1]]
