"""Reaper: brings back the tasks of consumers that fell silent."""

from __future__ import annotations

import json
import logging
import os
import random
import time
from typing import Any, NamedTuple

from geventhuey import lease as leases
from geventhuey.consumer.component import Component, Outage
from geventhuey.exceptions import StorageError
from geventhuey.lease import Lease
from geventhuey.storage.base import BaseStorage

logger = logging.getLogger('geventhuey.consumer')

#: Messages that one step takes back at most.
CHUNK = 200
#: Seconds between two trims of old revocations.
TRIM_INTERVAL = 60.0
#: So many a trim takes at most; then there may be more.
TRIMMED_AT_ONCE = 1000
EVICTED = 'x'


class _Seen(NamedTuple):
    """A beat, and since when (by our own clock) it has stood still."""

    beat: str
    since: float


class Reaper(Component):
    """Compares beats with those it saw before: one that has stood still for the lease, by our own clock, is a dead consumer's.

    Whatever breaks the view (an error, a restart of the storage) starts all windows anew.  A process of this very host that does
    not exist any more need not be waited for.
    """

    def __init__(self, storage: BaseStorage, own: Lease, lease: float, interval: float, max_deliveries: int,
                 result_ttl: float | None, outage: Outage) -> None:
        super().__init__(outage)
        self._storage = storage
        self._own = own
        self._lease = lease
        self._interval = interval
        self._max_deliveries = max_deliveries
        self._result_ttl = result_ttl
        self._seen: dict[str, _Seen] = {}
        self._orphans: dict[str, float] = {}
        self._trimmed = time.monotonic()

    def rest(self) -> float:
        """Until the next beats, at random so that not all look at once; or until one of the others has been silent for long enough."""
        now = time.monotonic()
        silent = [since + self._lease - now for name, (_, since) in self._seen.items() if name != self._own.consumer]
        return max(self._interval / 10, min([self._interval * random.uniform(0.9, 1.1), *silent]))

    def run_once(self) -> None:
        """Looks at every consumer once, and takes back what the dead ones held."""
        try:
            consumers = self._storage.consumers()
            info = self._storage.consumer_info()
            self._adopt_orphans(consumers, info)
            self._look(consumers, info)
            if time.monotonic() - self._trimmed > TRIM_INTERVAL:
                while self._storage.trim() >= TRIMMED_AT_ONCE:
                    pass
                self._trimmed = time.monotonic()
        except StorageError:
            self._seen.clear()
            self._orphans.clear()
            raise

    def _look(self, consumers: dict[str, str], info: dict[str, bytes]) -> None:
        now = time.monotonic()
        seen = self._seen
        self._seen = {name: seen[name] if name in seen and seen[name].beat == beat else _Seen(beat, now)
                      for name, beat in consumers.items()}
        for name, (beat, since) in list(self._seen.items()):
            if name == self._own.consumer:
                continue
            if beat == EVICTED or now - since >= self._lease or _has_ended(info.get(name)):
                self._reap(name, beat)

    def _reap(self, name: str, beat: str) -> None:
        """Takes back all that the consumer held."""
        requeued = dead = 0
        while True:
            reaped = self._storage.reap(name, beat, self._max_deliveries, CHUNK, self._result_ttl)
            if reaped is None:          # it lives, or another reaper was first
                break
            requeued += reaped.requeued
            dead += reaped.dead
            if reaped.done:
                break
            beat = EVICTED
        if requeued or dead:
            logger.warning('consumer %s is dead: %d of its tasks are back in the queue, %d went to the dead letters', name, requeued, dead)

    def _adopt_orphans(self, consumers: dict[str, str], info: dict[str, bytes]) -> None:
        """A consumer that is described but not registered has lost its registration; for the lease, or for good if it has ended."""
        now = time.monotonic()
        missing = set(info) - set(consumers) - set(self._own.names)
        self._orphans = {name: self._orphans.get(name, now) for name in missing}
        for name, since in self._orphans.items():
            if now - since >= self._lease or _has_ended(info[name]):
                self._storage.adopt(name)


def _has_ended(info: bytes | None) -> bool:
    """True when the consumer was a process of this host and boot, and is none any more."""
    try:
        said: dict[str, Any] = json.loads(info or b'{}')
        boot, pid, started = said.get('boot'), said.get('pid'), said.get('started')
    except (ValueError, AttributeError):
        return False
    if not boot or not started or boot != leases.same_boot():
        return False
    found = leases.process_started(int(pid or 0))
    return found != started if found else not _exists(int(pid or 0))


def _exists(pid: int) -> bool:
    """True for a process of this host, also for one that the system does not let us see."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
