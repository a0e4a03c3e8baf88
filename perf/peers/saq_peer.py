"""SAQ: on uvloop. Every slot waits for tasks on a connection of its own, and results are announced by a push.

``max_concurrent_ops`` (15) and redis-py's pool (100) would hold 500 slots back: both are lifted.  Due tasks are looked for once a second,
as by default.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import redis.asyncio
import tally
import uvloop
from saq.queue.redis import RedisQueue

RESULTS = os.environ['PEER_RESULTS'] == '1'
SLOTS = int(os.environ.get('PEER_SLOTS', '500'))
#: Seconds that a result is kept; -1 keeps nothing of a job that is done.
TTL = 600 if RESULTS else -1
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

queue = RedisQueue(redis.asyncio.Redis.from_url(os.environ['PEER_REDIS'], max_connections=20_000), max_concurrent_ops=20_000)
noop, nap, started = 'noop', 'nap', 'started'
#: ``batch`` and ``map`` enqueue one job after the other.
bulk = None


async def _noop(ctx: Any) -> bool | None:
    return tally.noop()


async def _nap(ctx: Any, seconds: float) -> bool | None:
    return await tally.nap_async(seconds)


async def _started(ctx: Any, sent: float) -> bool | None:
    return tally.started(sent)


settings = {'queue': queue, 'functions': [('noop', _noop), ('nap', _nap), ('started', _started)], 'concurrency': SLOTS}
#: The names of a task's parameters: SAQ takes no others.
PARAMETERS = {'noop': (), 'nap': ('seconds',), 'started': ('sent',)}


async def open() -> None:
    await queue.connect()


async def close() -> None:
    await queue.disconnect()


async def call(task: str, *args: Any) -> Any:
    return await queue.enqueue(task, ttl=TTL, **dict(zip(PARAMETERS[task], args)))


async def wait(handle: Any, timeout: float) -> Any:
    await handle.refresh(until_complete=timeout)
    return handle.result


async def schedule(task: str, eta: float, *args: Any) -> None:
    await queue.enqueue(task, ttl=TTL, scheduled=eta, **dict(zip(PARAMETERS[task], args)))
