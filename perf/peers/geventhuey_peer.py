"""geventhuey: as it comes. Commands and results are batched by themselves; there is nothing to tune."""

from __future__ import annotations

import datetime
import os
from typing import Any

import tally

from geventhuey import RedisHuey

RESULTS = os.environ['PEER_RESULTS'] == '1'
huey = RedisHuey('peers', result_store=RESULTS, url=os.environ['PEER_REDIS'])

noop = huey.task(name='noop')(tally.noop)
nap = huey.task(name='nap')(tally.nap)
started = huey.task(name='started')(tally.started)


def call(task: Any, *args: Any) -> Any:
    return task(*args)


def bulk(task: Any, calls: list[list[Any]]) -> None:
    huey.enqueue_many([task.s(*args) for args in calls])


def wait(handle: Any, timeout: float) -> Any:
    return handle.get(blocking=True, timeout=timeout)


def schedule(task: Any, eta: float, *args: Any) -> None:
    task.schedule(args=args, eta=datetime.datetime.fromtimestamp(eta, datetime.timezone.utc))
