"""The applications that speed.py measures; a real consumer imports them by this module's name."""

from __future__ import annotations

import time

from geventhuey import RedisHuey

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
