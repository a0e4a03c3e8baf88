"""One who waits for one thing: a thread or a greenlet, woken from any thread."""

from __future__ import annotations

import sys
from typing import Any, Protocol

from geventhuey import native


class Waiter(Protocol):
    """Waits once or more often; ``wake`` may come first, from anywhere, and any number of times."""

    def wait(self, timeout: float | None) -> bool:
        """True when woken, False when ``timeout`` (seconds; None waits for ever) was over first."""

    def wake(self) -> None:
        """Whoever waits goes on; never blocks."""


class ThreadWaiter:
    """Blocks the native thread."""

    def __init__(self) -> None:
        self._lock = native.lock()
        self._lock.acquire()

    def wait(self, timeout: float | None) -> bool:
        return bool(self._lock.acquire(True, -1 if timeout is None else max(0.0, timeout)))

    def wake(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:        # woken already, and not yet waited
            pass


class GreenletWaiter:
    """Blocks the greenlet only; the other greenlets of its hub go on."""

    def __init__(self) -> None:
        from gevent import get_hub
        from gevent.event import Event
        self._hub = get_hub()
        self._thread = native.thread_id()
        self._event = Event()

    def wait(self, timeout: float | None) -> bool:
        # never without a timer: a hub that has none takes a wake from another thread for one that cannot come
        while not self._event.wait(60.0 if timeout is None else timeout):
            if timeout is not None:
                return False
        self._event.clear()
        return True

    def wake(self) -> None:
        if native.thread_id() == self._thread:
            self._event.set()
        else:
            loop: Any = self._hub.loop
            if loop is not None:
                try:
                    loop.run_callback_threadsafe(self._event.set)
                except ValueError:  # the hub's thread has ended, and nobody waits any more
                    pass


def waiter() -> Waiter:
    """The right kind of waiter for whoever calls: a greenlet where there is a hub (or ought to be one), else a thread."""
    if native.is_patched() or _in_hub():
        return GreenletWaiter()
    return ThreadWaiter()


def _in_hub() -> bool:
    """True when the calling thread runs a gevent hub."""
    if 'gevent' not in sys.modules:
        return False
    from gevent._hub_local import get_hub_if_exists
    return get_hub_if_exists() is not None
