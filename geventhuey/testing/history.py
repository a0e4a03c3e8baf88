"""provisional"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple


class Journal:
    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = -1

    def note(self, word: str, *more: object) -> None:
        if self._file < 0:
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(self._file, ' '.join(map(str, (word, *more, os.getpid(), f'{time.time():.4f}\n'))).encode())

    @contextmanager
    def run(self, task: Any) -> Iterator[None]:
        self.note('start', task.task_id, task.retries, task.deliveries)
        try:
            yield
        except BaseException:
            self.note('fail', task.task_id, task.retries)
            raise
        self.note('end', task.task_id, task.retries)


class Fault(NamedTuple):
    kind: str
    pid: int
    begun: float
    ended: float
    held: frozenset[str]


class Record:
    def __init__(self, path: Path) -> None:
        self.sent: set[str] = set()
        self.maybe: set[str] = set()
        self.faults: list[Fault] = []
        self.path = path

    def enqueued(self, task_id: str) -> None:
        self.sent.add(task_id)

    def unknown(self, task_id: str) -> None:
        self.maybe.add(task_id)

    def fault(self, kind: str, pid: int, begun: float, ended: float, held: Iterable[str]) -> None:
        self.faults.append(Fault(kind, pid, begun, ended, frozenset(held)))
        with self.path.open('a') as f:
            print(kind, pid, begun, ended, *held, file=f)


class Verdict(NamedTuple):
    runs: int
    lost: list[str]
    duplicates: int
    excuses: dict[str, int]
    unexplained: list[str]
    recovery: list[float]


def check(record: Record, journal: Path) -> Verdict:
    starts: dict[tuple[str, str], list[float]] = defaultdict(list)
    ended: set[str] = set()
    runs = 0
    with journal.open() as file:
        for line in file:
            word, task_id, retries, *_, at = line.split()
            if word == 'start':
                runs += 1
                starts[task_id, retries].append(float(at))
            elif word == 'end':
                ended.add(task_id)
    unexplained: list[str] = []
    excuses: Counter[str] = Counter()
    duplicates = 0
    recovery: list[float] = []
    faults: dict[str, list[Fault]] = defaultdict(list)
    for fault in record.faults:
        for task_id in fault.held:
            faults[task_id].append(fault)
    for (task_id, retries), times in starts.items():
        left = list(faults[task_id])
        for moment in sorted(times)[1:]:
            duplicates += 1
            fits = [fault for fault in left if fault.begun <= moment]
            if fits:
                left.remove(fits[-1])
                excuses[fits[-1].kind] += 1
                if fits[-1].kind == 'kill':
                    recovery.append(moment - fits[-1].begun)
            else:
                unexplained.append(f'{task_id} (attempt with {retries} retries left) started at {", ".join(map(str, sorted(times)))}')
    lost = sorted(record.sent - ended, key=int)
    stray = {task_id for task_id, _ in starts} - record.sent - record.maybe
    unexplained += [f'{task_id} was never sent' for task_id in stray]
    return Verdict(runs, lost, duplicates, dict(excuses), unexplained, recovery)
