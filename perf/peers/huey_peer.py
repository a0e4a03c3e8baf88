"""Huey: a blocking pop is its default on Redis; a result is announced by a push (``notify_result``) instead of being polled for.

With ``-w`` greenlets each holds a connection of its own, so the pool's limit (redis-py: 100) is lifted.  Due tasks are looked for once
a second, which is the shortest interval there is.
"""

from __future__ import annotations

import datetime
import os
from typing import Any

import tally
from huey import RedisHuey
from redis import ConnectionPool

RESULTS = os.environ['PEER_RESULTS'] == '1'
# notify_result costs a worker two more commands a task, but a caller who waits would poll without it: on for results, as documented.
pool = ConnectionPool.from_url(os.environ['PEER_REDIS'], max_connections=20_000)
huey = RedisHuey('peers', results=RESULTS, connection_pool=pool, notify_result=RESULTS)

noop = huey.task(name='noop')(tally.noop)
nap = huey.task(name='nap')(tally.nap)
started = huey.task(name='started')(tally.started)
#: There is none.
bulk = None


def call(task: Any, *args: Any) -> Any:
    return task(*args)


def wait(handle: Any, timeout: float) -> Any:
    return handle.get(blocking=True, timeout=timeout)


def schedule(task: Any, eta: float, *args: Any) -> None:
    task.schedule(args=args, eta=datetime.datetime.fromtimestamp(eta, datetime.timezone.utc))
