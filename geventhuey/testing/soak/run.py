"""One run of the soak, from the first task to the last look at what is left."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import redis
from tqdm import tqdm

from geventhuey.exceptions import StorageUnavailable
from geventhuey.storage.redis import RedisStorage
from geventhuey.testing.fault_proxy import FaultProxy
from geventhuey.testing.history import ENDED, STARTED, History
from geventhuey.testing.redis_server import RedisServer
from geventhuey.testing.soak.app import huey, try_id
from geventhuey.testing.soak.faults import Faults, Injector
from geventhuey.testing.soak.fleet import Fleet, Usage
from geventhuey.testing.soak.load import AHEAD, Load
from geventhuey.testing.soak.report import Report

#: Seconds that consumers have to start, and without any progress after which what is missing is given up.
START, PATIENCE = 60.0, 60.0
#: Seconds for which nothing may be queued or in flight while tasks are missing: then they are lost.
IDLE = 3.0
#: Seconds between two looks at what goes on, and at what costs the server something.
LOOK, SELDOM = 0.02, 0.25
#: Seconds of its life after which a consumer has imported and opened what it needs.
GROWN_UP = 3.0
#: What an application keeps for good; and seconds that the tombstones of results live at most.
KEPT, TOMBSTONE = {'counters', 'cron', 'sequence', 'errors', 'wake'}, 60


class Tail:
    """How many tasks have ended, by the end of the journal."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b''
        self.started: set[int] = set()
        self.ended: set[int] = set()

    def look(self) -> int:
        """Reads what is new; answers how many tasks have ended at least once."""
        if self._path.exists():
            with self._path.open('rb') as file:
                file.seek(self._offset)
                new = file.read()
            self._offset += len(new)
            *lines, self._rest = (self._rest + new).split(b'\n')
            for line in lines:
                self._take(line)
        return len(self.ended)

    def _take(self, line: bytes) -> None:
        word, name, *_ = line.decode().split()
        number, _, left = name.partition('/')
        if word == STARTED:
            self.started.add(int(number))
        elif word == ENDED and left == '0':
            self.ended.add(int(number))


class Run:
    """What goes on at the same time: consumers, load, faults, and somebody who looks.

    :param storage: the application's, by a way without faults; ``admin`` is a client of the same server.
    """

    def __init__(self, flags: argparse.Namespace, seed: int, faults: Faults, storage: RedisStorage, admin: redis.Redis, fleet: Fleet,
                 history: History, proxy: FaultProxy | None, server: RedisServer | None) -> None:
        self._flags = flags
        self._storage = storage
        self._admin = admin
        self._fleet = fleet
        self._history = history
        self._tail = Tail(history.journal)
        self._load = Load(flags.tasks, seed, history, lambda: len(self._tail.ended), AHEAD * flags.consumers * flags.workers,
                          flags.url is None)
        self._injector = Injector(faults, seed, fleet, storage, admin, history, _name_of, flags.lease,
                                  lambda: len(self._tail.ended) / flags.tasks, proxy, server)
        self._usage: dict[int, Usage] = {}

    def stop(self) -> None:
        """Nothing of it goes on."""
        self._injector.stop()
        self._load.stop()

    def report(self) -> Report:
        """It has run, and here is what it has come to."""
        self._fleet.start()
        self._wait_for_consumers()
        begun = time.monotonic()
        self._load.start()
        self._injector.start()
        with tqdm(total=self._flags.tasks, unit=' tasks', smoothing=0.1) as bar:
            self._watch(bar)
        ended = time.monotonic()
        load = self._load
        self._wait_for_consumers()              # for those who were started last
        load.finish(self._tail.started.__contains__)
        self._injector.stop()
        grown = self._grown()
        self._fleet.stop()
        left = self._leftovers()
        # the answer to the second half of a read got lost with its connection: that leaves the result where it was, as is documented
        stayed = {f'result:{number}' for number in load.right} if self._injector.has_cut else set()
        return Report(
            tasks=self._flags.tasks, seconds=ended - begun, sent=len(load.sent), maybe=len(load.maybe), repeated=len(load.repeated),
            faults=self._injector.done, cuts=self._injector.cuts(), history=self._history.check(), results=len(load.right),
            wrong=[f'the result of {number} {what}' for number, what in sorted(load.wrong.items())],
            left=sorted(left - stayed), stayed=len(left & stayed), deserters=self._fleet.deserters, grown=grown)

    def _wait_for_consumers(self) -> None:
        """As many as there should be have registered. Raises RuntimeError when they do not, or one of the first ones has ended."""
        deadline = time.monotonic() + START
        while self._registered() < self._flags.consumers:
            self._fleet.look()
            if self._fleet.deserters and not self._tail.started:
                raise RuntimeError(self._fleet.deserters[0])
            if time.monotonic() > deadline:
                raise RuntimeError(f'the consumers did not start within {START:g} s\n{self._fleet.said()}')
            time.sleep(LOOK)

    def _registered(self) -> int:
        try:
            return len(self._storage.consumers())
        except StorageUnavailable:
            return 0

    def _watch(self, bar: Any) -> None:
        """Every task has ended, or will not."""
        moved = looked = time.monotonic()
        idle_since: float | None = None
        while not self._is_complete():
            before = len(self._tail.ended)
            now = time.monotonic()
            if self._tail.look() > before:
                moved = now
                bar.update(len(self._tail.ended) - before)
            elif now - moved > PATIENCE + 4 * self._flags.lease:
                break
            if now - looked > SELDOM:
                looked = now
                self._fleet.look()
                self._note_usage(now)
                bar.set_postfix_str(self._injector.summary(), refresh=False)
                if self._injector.error is not None:
                    raise RuntimeError(f'a fault could not be made: {self._injector.error!r}') from self._injector.error
                idle_since = (idle_since or now) if self._load.is_sent and self._injector.is_done and self._is_idle() else None
                if idle_since is not None and now - idle_since > IDLE:
                    break
            time.sleep(LOOK)

    def _is_complete(self) -> bool:
        """True when all that was sent has ended, and nothing waits or is in flight: also what may have been sent, and second runs."""
        return self._load.is_sent and self._injector.is_done and self._load.sent <= self._tail.ended and self._is_idle() and self._is_idle()

    def _is_idle(self) -> bool:
        """True when nothing waits, and nothing is in flight."""
        try:
            storage = self._storage
            return not (storage.pending_count('default') or storage.scheduled_count() or any(map(storage.held, storage.consumers())))
        except StorageUnavailable:              # the server is just being started again
            return False

    def _note_usage(self, now: float) -> None:
        """What each consumer uses when it has grown up."""
        for pid, born in self._fleet.births().items():
            if pid not in self._usage and now - born > GROWN_UP and (usage := Usage.of(pid)) is not None:
                self._usage[pid] = usage

    def _grown(self) -> list[tuple[Usage, Usage]]:
        """What those consumers used at first and use now that have lived for long enough."""
        now = {pid: Usage.of(pid) for pid in self._fleet.births()}
        return [(self._usage[pid], usage) for pid, usage in now.items() if usage is not None and pid in self._usage]

    def _leftovers(self) -> set[str]:
        """The keys that should not be there any more, without their prefix."""
        prefix = self._storage.keys.prefix
        found = set()
        for key in self._admin.scan_iter(f'{prefix}*', 1000):
            name = key.decode().removeprefix(prefix)
            if name.partition(':')[0] in KEPT:
                continue
            left = self._admin.ttl(key)             # -1: for good; -2: it has just expired
            if left == -1 or left > TOMBSTONE:
                found.add(name)
        return found


def _name_of(message: bytes) -> str:
    """What the history calls the try that a message is."""
    task = huey.registry.decode(message)
    return try_id(task) if task is not None else ''
