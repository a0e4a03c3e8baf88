"""taskiq: on uvloop, with the stream broker of taskiq-redis: the only one of its brokers that acknowledges, so that a task is not lost with
its worker, and that fetches many at once.  Callers poll for results; by default every 200 ms, here every 10.

An eta takes a second program, ``taskiq scheduler``, which this comparison of single workers does not start.
"""

from __future__ import annotations

import os
from typing import Any

import tally
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

RESULTS = os.environ['PEER_RESULTS'] == '1'
URL = os.environ['PEER_REDIS']
# consumer_id '0': what was enqueued before the worker came is run, too.
broker = RedisStreamBroker(URL, consumer_id='0', max_connection_pool_size=600)
if RESULTS:
    broker = broker.with_result_backend(RedisAsyncResultBackend(URL, result_ex_time=3600, max_connection_pool_size=600))
#: There is none.
bulk = None
schedule = None


@broker.task(task_name='noop')
async def noop() -> bool | None:
    return tally.noop()


@broker.task(task_name='nap')
async def nap(seconds: float) -> bool | None:
    return await tally.nap_async(seconds)


@broker.task(task_name='started')
async def started(sent: float) -> bool | None:
    return tally.started(sent)


async def open() -> None:
    await broker.startup()


async def close() -> None:
    await broker.shutdown()


async def call(task: Any, *args: Any) -> Any:
    return await task.kiq(*args)


async def wait(handle: Any, timeout: float) -> Any:
    return (await handle.wait_result(check_interval=0.01, timeout=timeout)).return_value
