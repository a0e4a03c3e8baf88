"""The application of the consumer tests in a process that kills itself at a certain point of the consumer's own work.

``POINT_KILL`` names the point, ``POINT_AFTER`` how often it passes before that; ``POINT_BOOT`` makes the process look like one of
another host; ``POINT_CLOCK`` names a file with the seconds by which its clock is wrong.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'consumer' / 'apps'))

from geventhuey import lease
from geventhuey.consumer import reaper
from geventhuey.consumer.fetcher import Fetcher
from geventhuey.consumer.settler import Settler
from geventhuey.storage.redis.storage import RedisStorage
from tests.consumer.apps.work import make_huey

left = int(os.environ.get('POINT_AFTER', '0'))


def die() -> None:
    """The process is killed, unless this point is to be passed some times more."""
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str) -> None:
    """The process dies before the method is called."""
    method: Callable[..., Any] = getattr(owner, name)

    def dying(self: Any, *args: Any, **kwargs: Any) -> Any:
        die()
        return method(self, *args, **kwargs)
    setattr(owner, name, dying)


def after(owner: Any, name: str) -> None:
    """The process dies when the method has returned."""
    method: Callable[..., Any] = getattr(owner, name)

    def dying(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = method(self, *args, **kwargs)
        if answer or name != 'fetch':
            die()
        return answer
    setattr(owner, name, dying)


def wrong_clock(path: str) -> None:
    """The process's wall clock is wrong by the seconds in the file, from the moment at which they are written there."""
    real = time.time

    def now() -> float:
        try:
            return real() + float(Path(path).read_text())
        except (OSError, ValueError):
            return real()
    time.time = now


POINTS: dict[str, Callable[[], None]] = {
    'before settle': lambda: before(Settler, '_settle'),
    'after settle': lambda: after(Settler, '_settle'),
    'before start': lambda: before(Fetcher, '_adapt'),      # fetched, and handed to workers that have not begun
    'in a reap': lambda: after(RedisStorage, 'reap'),
}
point = os.environ.get('POINT_KILL')
if point:
    POINTS[point]()
if 'POINT_CHUNK' in os.environ:
    reaper.CHUNK = int(os.environ['POINT_CHUNK'])
if 'POINT_BOOT' in os.environ:
    lease._boot_id = lambda: os.environ['POINT_BOOT']
if 'POINT_CLOCK' in os.environ:
    wrong_clock(os.environ['POINT_CLOCK'])

huey = make_huey()
