"""arq: on uvloop. Worker and callers poll; by default each half a second, here every 50 and 10 ms, for throughput and latency."""

from __future__ import annotations

import asyncio
import datetime
import os
from typing import Any

import tally
import uvloop
from arq import create_pool, func
from arq.connections import RedisSettings

RESULTS = os.environ['PEER_RESULTS'] == '1'
SETTINGS = RedisSettings.from_dsn(os.environ['PEER_REDIS'])
# arq's command has no option for it, and takes the loop of the policy.
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

noop, nap, started = 'noop', 'nap', 'started'
#: Not a line for each task.
LOGGING = {'version': 1, 'disable_existing_loggers': False, 'loggers': {'arq': {'level': 'ERROR'}}}
#: There is none.
bulk = None
_pool: Any = None


async def _noop(ctx: Any) -> bool | None:
    return tally.noop()


async def _nap(ctx: Any, seconds: float) -> bool | None:
    return await tally.nap_async(seconds)


async def _started(ctx: Any, sent: float) -> bool | None:
    return tally.started(sent)


class WorkerSettings:
    """For arq's command."""

    functions = [func(_noop, name='noop'), func(_nap, name='nap'), func(_started, name='started')]
    redis_settings = SETTINGS
    max_jobs = int(os.environ.get('PEER_SLOTS', '1'))
    keep_result = 3600 if RESULTS else 0
    poll_delay = 0.05
    log_results = False


async def open() -> None:
    global _pool
    _pool = await create_pool(SETTINGS)


async def close() -> None:
    await _pool.aclose()


async def call(task: str, *args: Any) -> Any:
    return await _pool.enqueue_job(task, *args)


async def wait(handle: Any, timeout: float) -> Any:
    return await handle.result(timeout=timeout, poll_delay=0.01)


async def schedule(task: str, eta: float, *args: Any) -> None:
    await _pool.enqueue_job(task, *args, _defer_until=datetime.datetime.fromtimestamp(eta, datetime.timezone.utc))
