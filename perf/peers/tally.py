"""Tally: counts, in the memory of the worker process, what its tasks do; the same few lines for every contender.

What is measured is written to a file, so that no Redis command of ours is among those of the contender.  The environment says
which file, after how many tasks everything has been seen, and how many starts from the end the clock of the drain stops.
"""

from __future__ import annotations

import json
import os
import threading
import time

#: Seconds between two notes of how far the work has got, which serve when the rest of it takes too long.
NOTES = 0.5
#: What tasks return. Without results that is nothing: who is asked to throw something away may have to say so, for each task.
KEPT = True if os.environ['PEER_RESULTS'] == '1' else None


class Tally:
    """Starts, ends and samples of this process."""

    def __init__(self, path: str, total: int, tail: int) -> None:
        self._path = path
        self._total = total
        #: The start at which the drain is measured: as many complete rounds of fetch, run and acknowledge as there were before it.
        self._mark_at = max(2, total - tail + 1)
        self._lock = threading.Lock()
        self._noted = 0.0
        self.starts = self.ends = 0
        self.first = self.mark = self.last = 0.0
        self.first_cpu = self.mark_cpu = 0.0
        self.samples: list[float] = []

    def begin(self) -> None:
        """A task has started."""
        with self._lock:
            self.starts += 1
            if self.starts == 1:
                self.first, self.first_cpu = time.time(), time.process_time()
            if self.starts == self._mark_at:
                self.mark, self.mark_cpu = time.time(), time.process_time()

    def end(self) -> None:
        """A task has ended."""
        with self._lock:
            self.ends += 1
            self.last = time.time()
            if self.ends == self._total or self.last - self._noted > NOTES:
                self._write()

    def sample(self, seconds: float) -> None:
        """A latency."""
        with self._lock:
            self.samples.append(seconds)
            if len(self.samples) == self._total:
                self.last = time.time()
                self._write()

    def _write(self) -> None:
        """The file is replaced by a newer one as a whole."""
        self._noted = self.last
        found = {'starts': self.starts, 'ends': self.ends, 'first': self.first, 'last': self.last, 'mark': self.mark,
                 'marked': self._mark_at - 1, 'first_cpu': self.first_cpu, 'mark_cpu': self.mark_cpu, 'cpu': time.process_time(),
                 'samples': self.samples}
        with open(f'{self._path}.new', 'w') as file:
            json.dump(found, file)
        os.replace(f'{self._path}.new', self._path)


#: None in a producer, which imports the same module and runs no task.
_tally = Tally(os.environ['PEER_FILE'], int(os.environ['PEER_TOTAL']), int(os.environ['PEER_TAIL'])) if 'PEER_FILE' in os.environ else None


def get() -> Tally:
    """The tally of this process. Raises RuntimeError in a producer."""
    if _tally is None:
        raise RuntimeError('PEER_FILE is not set: this is no worker of the comparison')
    return _tally


def noop() -> bool | None:
    """Nothing, counted."""
    tally = get()
    tally.begin()
    tally.end()
    return KEPT


def started(sent: float) -> bool | None:
    """How long it took to get here."""
    get().sample(time.time() - sent)
    return KEPT


def nap(seconds: float) -> bool | None:
    """A request to somebody else's server, as far as the worker is concerned; for those on greenlets."""
    tally = get()
    tally.begin()
    time.sleep(seconds)
    tally.end()
    return KEPT


async def nap_async(seconds: float) -> bool | None:
    """The same on asyncio."""
    import asyncio
    tally = get()
    tally.begin()
    await asyncio.sleep(seconds)
    tally.end()
    return KEPT
