"""What does it cost to fetch messages, by how many come at once?"""

from __future__ import annotations

import itertools

import pytest

from geventhuey.message import Message
from geventhuey.storage.base import Settlement

ROUNDS = {1: 2000, 64: 500, 500: 200}


@pytest.mark.parametrize('n', ROUNDS)
def bench_fetch(benchmark, storage, n):
    messages = [Message(f'id-{i}', 'app.add', b'payload') for i in range(n)]
    storage.register('bench', 0)
    requests = itertools.count(1)

    def prepared():
        """The queue holds what is to be fetched, and nothing is in flight."""
        storage.settle('bench', [Settlement(tag) for tag in storage.held('bench')])
        storage.enqueue(messages)
        return ('bench', next(requests), {'default': n}, n), {}

    fetched = benchmark.pedantic(storage.fetch, setup=prepared, rounds=ROUNDS[n], warmup_rounds=5)
    assert len(fetched.deliveries) == n
