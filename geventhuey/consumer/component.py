"""The life of a part of the consumer: a greenlet that takes one step after another, whatever happens. Written once."""

from __future__ import annotations

import logging
import random
import time
from typing import Any, Protocol

import gevent
from gevent._hub_local import get_hub_if_exists
from gevent.event import Event

from geventhuey.exceptions import StorageError, StorageRefused
from geventhuey.storage.base import Delivery

logger = logging.getLogger('geventhuey.consumer')

#: Seconds between two attempts while the storage is away: from the first to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0


def close_hub() -> None:
    """What gevent keeps for the native thread that ends with this call is given back; nobody else does that."""
    hub = get_hub_if_exists()
    if hub is not None:
        hub.destroy(destroy_loop=True)


class Outage:
    """Whether the storage is away, said once by all parts together: when the first one misses it and when the last one has it back."""

    def __init__(self) -> None:
        self._since = 0.0
        self._missing: set[object] = set()
        self._refused = False

    def begun(self, part: object, error: StorageError) -> None:
        """The storage does not answer this part."""
        if not self._missing:
            self._since = time.monotonic()
            logger.error('the storage is away, trying again until it is back: %s', error)
        elif isinstance(error, StorageRefused) and not self._refused:
            logger.error('the storage will not have us back: %s', error)
        self._missing.add(part)
        self._refused |= isinstance(error, StorageRefused)

    def over(self, part: object) -> None:
        """The storage answers this part."""
        if part in self._missing:
            self._missing.remove(part)
            if not self._missing:
                logger.info('the storage is back, after %.1f s', time.monotonic() - self._since)
                self._refused = False


class Pool(Protocol):
    """Where tasks run."""

    def free(self) -> int:
        """How many deliveries it can take now."""

    def put(self, delivery: Delivery) -> None:
        """The delivery runs."""


class Component:
    """A part: ``run_once`` is one step, ``rest`` the seconds until the next. Errors end a step, never the part."""

    def __init__(self, outage: Outage | None = None) -> None:
        self._outage = outage or Outage()
        self._stopping = False
        self._rested = Event()
        self._greenlet: Any = None
        self._pause = FIRST_PAUSE

    @property
    def name(self) -> str:
        """What it is called in the log."""
        return type(self).__name__

    def run_once(self) -> None:
        """One step."""
        raise NotImplementedError

    def rest(self) -> float:
        """Seconds until the next step."""
        return 0.0

    def start(self) -> None:
        """It lives in a greenlet of this hub."""
        self._greenlet = gevent.spawn(self._live)

    def is_alive(self) -> bool:
        """False when it was started and has died."""
        return self._greenlet is None or self._stopping or not self._greenlet.dead

    def interrupt_rest(self) -> None:
        """The next step is due now."""
        self._rested.set()

    def stop(self, timeout: float | None = None) -> None:
        """It takes no more steps; the one that is under way is cut after ``timeout`` seconds (None: at once)."""
        self._stopping = True
        self._rested.set()
        if self._greenlet is not None:
            if timeout:
                self._greenlet.join(timeout)
            self._greenlet.kill()

    def abandon(self) -> None:
        """In a forked child: it takes no further step, not even the one that is under way."""
        self._stopping = True
        if self._greenlet is not None:
            self._greenlet.kill(block=False)

    def _live(self) -> None:
        while not self._stopping:
            try:
                self.run_once()
                self._outage.over(self)
                self._pause = FIRST_PAUSE
                pause = self.rest()
            except StorageError as exc:
                pause = self._failed(exc)
            except Exception:
                logger.exception('%s: an error of its own, it goes on', self.name)
                pause = LONGEST_PAUSE / 2
            if pause > 0 and not self._stopping:
                self._rested.wait(pause)
            self._rested.clear()

    def _failed(self, error: StorageError) -> float:
        """The storage did not answer; answers how long to wait, with full jitter, so that consumers do not come all at once."""
        self._outage.begun(self, error)
        pause, self._pause = self._pause, min(LONGEST_PAUSE, self._pause * 2)
        return pause * random.uniform(0.5, 1.0)
