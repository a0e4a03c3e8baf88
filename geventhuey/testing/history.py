"""History: what was sent, what ran, what went wrong meanwhile; and whether the one explains the other.

Tasks write down when they start and end (``note``), producers what they have sent, who injects faults what each of them hit::

    history = History(journal)
    history.sent(result.task_id)
    history.fault('kill', pid, began, in_flight=ids)
    report = history.check()
    print(report)
    report.raise_if_wrong()

Nothing is lost: what was certainly sent has ended at least once, and what was not sent has not run.  Every run beyond the first is
explained: the task asked for it itself (its run failed), or a fault had this very task in flight.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

#: Seconds by which the times of two processes of one machine may be mixed up, as each reads the clock before it writes.
SLACK = 0.05
#: Ids that a report shows at most of each kind.
SHOWN = 10

STARTED, ENDED, FAILED, INTERRUPTED = 'start', 'end', 'failed', 'interrupted'


def note(path: str | Path, word: str, task_id: str, deliveries: int = 0) -> None:
    """One whole line of the journal, or none: the system keeps lines of this length together."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, f'{word} {quote(task_id)} {deliveries} {os.getpid()} {time.time():.4f}\n'.encode())
    finally:
        os.close(file)


@dataclass(slots=True)
class Run:
    """One run of a task: which process, when (unix seconds), and how it ended; None while it has not."""

    pid: int
    deliveries: int
    started: float
    ended: float | None = None
    how: str | None = None

    def __str__(self) -> str:
        ended = f' at {self.ended:.3f}' if self.ended else ''
        return f'by {self.pid} at {self.started:.3f}, {self.how or "never ended"}{ended}'


@dataclass(slots=True)
class Fault:
    """Something that befell a process: ``in_flight`` are the ids that it held, None when nobody knows."""

    kind: str
    pid: int | None
    began: float
    ended: float
    in_flight: frozenset[str] | None

    def explains(self, task_id: str, run: Run, following: Run) -> bool:
        """True when the fault is a reason for the task to run once more after this run."""
        if self.in_flight is not None and task_id not in self.in_flight:
            return False
        if self.pid is not None and self.pid != run.pid:
            return False
        # who is known to have held the task may have begun it after he stood still; of others it is known only what they ran
        was_hit = self.pid is not None and self.in_flight is not None
        ran = run.started - SLACK <= self.ended and (self.in_flight is not None or run.ended is None or run.ended >= self.began - SLACK)
        return (was_hit or ran) and self.began <= following.started + SLACK


@dataclass
class Report:
    """What a history comes to."""

    tasks: int = 0
    runs: int = 0
    #: Certainly sent, and never ended.
    lost: list[str] = field(default_factory=list)
    #: Run, and never sent.
    unsent: list[str] = field(default_factory=list)
    #: Runs beyond the first that a fault explains, by the kind of the fault; and those that the tasks asked for.
    explained: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    #: Tasks with a run that nothing explains.
    unexplained: dict[str, list[Run]] = field(default_factory=dict)
    #: Tasks that started before they were due, by seconds.
    early: dict[str, float] = field(default_factory=dict)
    #: Seconds from the death of a process to the next start of each task that it held.
    recoveries: list[float] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        """True when nothing is lost, and everything explained."""
        return not (self.lost or self.unsent or self.unexplained or self.early)

    def raise_if_wrong(self) -> None:
        """Raises AssertionError, with the whole report, unless it is right."""
        if not self.is_right:
            raise AssertionError(f'the history is wrong:\n{self}')

    def __str__(self) -> str:
        twice = sum(self.explained.values())
        by_kind = ', '.join(f'{count} by {kind}' for kind, count in sorted(self.explained.items()))
        lines = [f'tasks          {self.tasks:,}, run {self.runs:,} times ({self.retried:,} retries that they asked for)',
                 f'lost           {len(self.lost):,}{_some(self.lost)}',
                 f'run twice      {twice:,}{f" ({by_kind})" if by_kind else ""}, each explained by a fault that had it in flight',
                 f'unexplained    {len(self.unexplained):,}{_some(list(self.unexplained))}']
        lines += [f'               {task_id}: {"; ".join(map(str, runs))}' for task_id, runs in list(self.unexplained.items())[:SHOWN]]
        if self.unsent:
            lines.append(f'never sent     {len(self.unsent):,}{_some(self.unsent)}')
        if self.early:
            lines.append(f'too early      {len(self.early):,}{_some(list(self.early))}')
        if self.recoveries:
            lines.append(f'recovery       p50 {percentile(self.recoveries, 50):.2f} s, p99 {percentile(self.recoveries, 99):.2f} s, '
                         f'longest {max(self.recoveries):.2f} s, from a death to the next start of what it hit')
        return '\n'.join(lines)


class History:
    """Collects what happened, and judges it.

    :param journal: where the tasks write with ``note``.
    """

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self._sent: dict[str, bool] = {}
        self._due: dict[str, float] = {}
        self._tries: dict[str, int] = {}
        self.faults: list[Fault] = []

    def sent(self, task_id: str, certain: bool = True, due: float | None = None, tries: int | None = None) -> None:
        """The task has been enqueued, or may have been; not to start before ``due`` (unix seconds).

        ``tries``: how often it is run until it ends, when it fails each time; without it, any failure is taken for its end, and is a
        reason for another run.
        """
        self._sent[task_id] = certain
        if tries is not None:
            self._tries[task_id] = tries
        if due is not None:
            self._due[task_id] = due

    def fault(self, kind: str, pid: int | None, began: float, ended: float | None = None,
              in_flight: Collection[str] | None = None) -> None:
        """Something befell a process (None: all), and hit what it had in flight (None: whatever that was)."""
        self.faults.append(Fault(kind, pid, began, began if ended is None else ended, None if in_flight is None else frozenset(in_flight)))

    def runs(self) -> dict[str, list[Run]]:
        """Every run in the journal, by task, in the order of their starts."""
        runs: dict[str, list[Run]] = defaultdict(list)
        for word, task_id, deliveries, pid, moment in self._lines():
            if word == STARTED:
                runs[task_id].append(Run(pid, deliveries, moment))
                continue
            for run in reversed(runs[task_id]):
                if run.pid == pid and run.how is None:
                    run.ended, run.how = moment, word
                    break
        return runs

    def _lines(self) -> Iterator[tuple[str, str, int, int, float]]:
        if not self.journal.exists():
            return
        with open(self.journal, encoding='utf-8') as lines:
            for line in lines:
                if line.endswith('\n'):     # the last one may be on its way
                    word, task_id, deliveries, pid, moment = line.split()
                    yield word, unquote(task_id), int(deliveries), int(pid), float(moment)

    def ended_count(self) -> int:
        """How many of the tasks that were certainly sent have ended."""
        ended = {line[1] for line in self._lines() if line[0] in (ENDED, FAILED)}
        return sum(certain and task_id in ended for task_id, certain in self._sent.items())

    def check(self) -> Report:
        """What all of it comes to."""
        report = Report(tasks=len(self._sent))
        runs = self.runs()
        hits = self._hits()
        for task_id, certain in self._sent.items():
            mine = runs.get(task_id, [])
            failed = sum(run.how == FAILED for run in mine)
            if certain and failed < self._tries.get(task_id, 1) and not any(run.how == ENDED for run in mine):
                report.lost.append(task_id)
        for task_id, mine in runs.items():
            report.runs += len(mine)
            mine.sort(key=lambda run: run.started)
            if task_id not in self._sent:
                report.unsent.append(task_id)
            if mine and task_id in self._due and mine[0].started < self._due[task_id] - 0.001:
                report.early[task_id] = self._due[task_id] - mine[0].started
            if len(mine) > 1:
                if all(run.how != FAILED for run in mine):      # with a retry they are counted anew
                    # what a process has fetched before it stands still it begins when it goes on: perhaps after those that came later
                    mine.sort(key=lambda run: (run.deliveries, run.started))
                self._explain(task_id, mine, hits.get(task_id, []) + hits.get('', []), self._tries.get(task_id, len(mine)), report)
        for fault in self.faults:
            if fault.kind == 'kill':
                report.recoveries += self._recoveries(fault, runs)
        return report

    def _hits(self) -> dict[str, list[Fault]]:
        """The faults that hit each task; under '' those of which nobody knows whom they hit."""
        hits: dict[str, list[Fault]] = defaultdict(list)
        for fault in self.faults:
            for task_id in fault.in_flight if fault.in_flight is not None else ('',):
                hits[task_id].append(fault)
        return hits

    @staticmethod
    def _explain(task_id: str, runs: list[Run], faults: list[Fault], tries: int, report: Report) -> None:
        """Each run but the first needs a reason of its own."""
        left, failures = list(faults), 0
        for run, following in itertools.pairwise(runs):
            reason = next((fault for fault in left if fault.explains(task_id, run, following)), None)
            if run.how == FAILED and failures < tries - 1:
                failures += 1
                report.retried += 1
            elif reason is not None:
                left.remove(reason)
                report.explained[reason.kind] += 1
            else:
                report.unexplained[task_id] = runs

    @staticmethod
    def _recoveries(fault: Fault, runs: dict[str, list[Run]]) -> Iterator[float]:
        """How long it took until each task that the death has hit was started again."""
        for task_id in fault.in_flight or ():
            again = [run.started for run in runs.get(task_id, ()) if run.started > fault.began and run.pid != fault.pid]
            if again:
                yield min(again) - fault.began


def _some(ids: list[str]) -> str:
    return f': {", ".join(ids[:SHOWN])}{", ..." if len(ids) > SHOWN else ""}' if ids else ''


def percentile(values: list[float], percent: float) -> float:
    """The value that about so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
