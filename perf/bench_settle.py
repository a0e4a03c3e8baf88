"""What does it cost to settle deliveries, with and without results, by how many end at once?"""

from __future__ import annotations

import itertools

import pytest

from geventhuey.message import Message
from geventhuey.storage.base import VALUE, Keep, Settlement

ROUNDS = {1: 2000, 64: 500, 500: 200}
TTL = 3600.0


@pytest.mark.parametrize('kept', [True, False], ids=['results', 'no-results'])
@pytest.mark.parametrize('n', ROUNDS)
def bench_settle(benchmark, storage, n, kept):
    messages = [Message(f'id-{i}', 'app.add', b'payload') for i in range(n)]
    storage.register('bench', 0)
    requests = itertools.count(1)

    def prepared():
        """So many are in flight."""
        storage.enqueue(messages)
        deliveries = storage.fetch('bench', next(requests), {'default': n}, n).deliveries
        effects = [(Keep(message.id, VALUE + b'\x80\x05K\x01.', TTL),) if kept else () for message in messages]
        return ('bench', [Settlement(delivery.tag, effect) for delivery, effect in zip(deliveries, effects)]), {}

    assert all(benchmark.pedantic(storage.settle, setup=prepared, rounds=ROUNDS[n], warmup_rounds=5))
