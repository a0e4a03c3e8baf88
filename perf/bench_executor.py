"""What does it cost to run a delivery whose task does nothing, from bytes to Outcome?"""

from __future__ import annotations

import pytest

from geventhuey.executor import FINISHED
from geventhuey.message import WANTS_RESULT
from geventhuey.storage.base import Delivery


@pytest.mark.parametrize('flags', [WANTS_RESULT, 0], ids=['result', 'no-result'])
def bench_execute(benchmark, memory_huey, flags):
    @memory_huey.task(name='noop')
    def noop():
        return True

    message = memory_huey.registry.message(noop.task_class(((), {})), flags)
    outcome = benchmark(memory_huey.executor().execute, Delivery('bench', 1, message.encode()))
    assert outcome.status == FINISHED
