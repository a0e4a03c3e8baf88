"""What does it cost to put messages into a queue, one at a time and many at once?"""

from __future__ import annotations

import pytest

from geventhuey.message import Message

#: Rounds of each; the queue grows by as many messages.
ROUNDS = {1: 5000, 500: 200}


@pytest.mark.parametrize('n', ROUNDS)
def bench_enqueue(benchmark, storage, n):
    messages = [Message(f'id-{i}', 'app.add', b'payload') for i in range(n)]
    benchmark.pedantic(storage.enqueue, (messages,), rounds=ROUNDS[n], warmup_rounds=20)
    assert storage.pending_count('default') >= n


def bench_call(benchmark, huey):
    """The whole way of a producer: ``noop()``."""
    @huey.task(name='noop')
    def noop():
        pass
    benchmark.pedantic(noop, rounds=ROUNDS[1], warmup_rounds=20)
