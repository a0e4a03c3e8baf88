"""streaQ: on uvloop; it prefetches as many tasks as it has slots, as by default, and results are announced by a push.

Its line of log for each task is switched off, as everywhere here."""

from __future__ import annotations

import datetime
import os
from typing import Any

import tally
from streaq import Worker

RESULTS = os.environ['PEER_RESULTS'] == '1'
#: Seconds that a result is kept.
TTL = 600 if RESULTS else 0
worker = Worker(os.environ['PEER_REDIS'], concurrency=int(os.environ.get('PEER_SLOTS', '16')), anyio_kwargs={'use_uvloop': True})


@worker.task(name='noop', ttl=TTL, silent=True)
async def noop() -> bool | None:
    return tally.noop()


@worker.task(name='nap', ttl=TTL, silent=True)
async def nap(seconds: float) -> bool | None:
    return await tally.nap_async(seconds)


@worker.task(name='started', ttl=TTL, silent=True)
async def started(sent: float) -> bool | None:
    return tally.started(sent)


async def open() -> None:
    await worker.__aenter__()


async def close() -> None:
    await worker.__aexit__(None, None, None)


async def call(task: Any, *args: Any) -> Any:
    return await task.enqueue(*args)


async def bulk(task: Any, calls: list[list[Any]]) -> None:
    await worker.enqueue_many([task.enqueue(*args) for args in calls])


async def wait(handle: Any, timeout: float) -> Any:
    return (await handle.result(timeout=int(timeout))).result


async def schedule(task: Any, eta: float, *args: Any) -> None:
    await task.enqueue(*args).start(schedule=datetime.datetime.fromtimestamp(eta, datetime.timezone.utc))
