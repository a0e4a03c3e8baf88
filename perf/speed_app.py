"""The applications that speed.py, limit.py and scaling.py measure; a real consumer imports them by this module's name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from geventhuey import RedisHuey
from geventhuey.function import TaskFunction
from geventhuey.message import WANTS_RESULT, Message

huey = RedisHuey('speed')
#: The same without results.
forgetful = RedisHuey('forgetful', result_store=False)


@huey.task()
def noop() -> bool:
    """Nothing; its result is one byte or so."""
    return True


@forgetful.task()
def noop_without_result() -> bool:
    """The same."""
    return True


@huey.task()
def started() -> float:
    """When it was started, unix seconds."""
    return time.time()


@huey.task()
def doze(seconds: float) -> float:
    """When it was started; it sleeps meanwhile."""
    begun = time.time()
    time.sleep(seconds)
    return begun


@huey.task()
def gather(until: float, waits: bool) -> tuple[float, float]:
    """When it was started and when it ended.

    It sleeps until an instant that it shares with others, enqueues a task then, and waits for its result if it is told to.
    """
    begun = time.time()
    time.sleep(max(0.0, until - begun))
    ended = time.time()
    result = noop()
    if waits:
        result.get(blocking=True, preserve=True)
    return begun, ended


@huey.task()
def swallow(data: bytes) -> bool:
    """Nothing; what it is given has travelled."""
    return True


def message(app: RedisHuey, task: TaskFunction, *args: Any) -> Message:
    """What a call of the application's task would enqueue."""
    return app.registry.message(task.task_class((args, {})), WANTS_RESULT if app.results else 0)


def fill(app: RedisHuey, like: Message, count: int, first: int = 0) -> None:
    """So many messages more are in the queue; their ids, as long as ordinary ones, are numbers from ``first`` on.

    Enqueued many at a time: it is not the producer that is measured.
    """
    for chunk in _chunks(first, first + count, max(1, min(500, 10_000_000 // (len(like.payload) + 100)))):
        app.storage.enqueue([like._replace(id=f'{number:036d}') for number in chunk])


def _chunks(first: int, last: int, size: int) -> Iterator[range]:
    for start in range(first, last, size):
        yield range(start, min(last, start + size))
