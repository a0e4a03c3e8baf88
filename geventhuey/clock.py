"""Time: unix seconds inside, datetimes at the edge, and a clock that tests can turn."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable


class Clock:
    """The time of this machine."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()


class ManualClock(Clock):
    """A clock that stands still until it is told to go on: ``advance(seconds)``.

    Storages that use it are told of every step, so that whoever waits for a due time looks again.
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = float(now)
        self._listeners: list[Callable[[], None]] = []

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """The time is ``seconds`` later (or earlier, when negative)."""
        self._now += seconds
        for listener in list(self._listeners):
            listener()

    def on_change(self, listener: Callable[[], None]) -> None:
        """``listener()`` is called after every step."""
        self._listeners.append(listener)

    def forget(self, listener: Callable[[], None]) -> None:
        """``listener`` is not called any more."""
        if listener in self._listeners:
            self._listeners.remove(listener)


class SyncedClock(Clock):
    """The clock of somebody else (a server), as last heard, carried on by this machine's monotonic clock."""

    def __init__(self) -> None:
        self._offset: float | None = None

    def heard(self, now: float) -> None:
        """The other one's clock shows ``now``, unix seconds."""
        self._offset = now - time.monotonic()

    def now(self) -> float:
        return time.time() if self._offset is None else time.monotonic() + self._offset

    @property
    def is_set(self) -> bool:
        """True when it has been heard."""
        return self._offset is not None


def to_timestamp(moment: datetime.datetime, local: bool = True) -> float:
    """Unix seconds of a datetime, with its microseconds.

    An aware datetime says itself what it means.  A naive one is local time when ``local``, UTC otherwise.
    Raises TypeError for anything else than a datetime, ValueError for one at the edge of time.
    """
    if not isinstance(moment, datetime.datetime):
        raise TypeError(f'a datetime is needed, not {moment!r} ({type(moment).__name__})')
    if moment.tzinfo is None and not local:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    try:
        return moment.timestamp()
    except (OverflowError, OSError) as exc:
        raise ValueError(f'{moment!r} is too early or too late') from exc


def to_datetime(timestamp: float, utc: bool) -> datetime.datetime:
    """The naive datetime of an instant, as UTC or as local time."""
    zone = datetime.timezone.utc if utc else None
    return datetime.datetime.fromtimestamp(timestamp, zone).replace(tzinfo=None)
