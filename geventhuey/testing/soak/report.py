"""What a soak has come to."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from geventhuey.testing import history
from geventhuey.testing.history import percentile
from geventhuey.testing.soak.fleet import Usage

#: Ids or texts of one kind that are shown at most.
SHOWN = 10
#: Files that a consumer may have more open at the end than at first: a connection that it is just making anew.
FILES = 10


@dataclasses.dataclass
class Report:
    """Everything that is known in the end.

    :param sent: tasks that were certainly sent; ``maybe``, those of which nobody knows; ``repeated``, calls that sent nothing.
    :param faults: how many there were of each kind; ``cuts``, what the proxy has done, by kind.
    :param results: how many were read and are right; ``wrong``, what is wrong with the others.
    :param left: keys; but results that were read and stayed, because their connection broke, are counted in ``stayed``.
    :param deserters: consumers that nobody had killed and that ended all the same.
    :param grown: what consumers used at first and in the end.
    """

    tasks: int
    seconds: float
    sent: int
    maybe: int
    repeated: int
    faults: dict[str, int]
    cuts: dict[str, int]
    history: history.Report
    results: int
    wrong: list[str]
    left: list[str]
    stayed: int
    deserters: list[str]
    grown: Sequence[tuple[Usage, Usage]]

    @property
    def is_right(self) -> bool:
        """True when every task is accounted for, and nothing was left over."""
        return not any(self.problems().values())

    def problems(self) -> dict[str, list[str]]:
        """What is wrong, by kind."""
        found = self.history
        lost = sorted({int(name.partition('/')[0]) for name in found.lost})
        return {
            'LOST': [f'task {number}' for number in lost],
            'UNSENT': [f'{name} has run' for name in found.unsent],
            'UNEXPLAINED': [f'{name} was run {"; ".join(map(str, runs))}' for name, runs in found.unexplained.items()],
            'EARLY': [f'{name} started {seconds:.3f} s before it was due' for name, seconds in found.early.items()],
            'WRONG': self.wrong,
            'LEFT': self.left,
            'LEAK': [f'{first.files} files were open, now {last.files}' for first, last in self.grown if last.files > first.files + FILES],
            'DIED': self.deserters,
        }

    def lines(self) -> Iterator[str]:
        """It for people, line by line."""
        found, wrong = self.history, self.problems()
        excuses = ''.join(f', {count} by {kind}' for kind, count in found.explained.items())
        cuts = ', '.join(f'{count} {kind}' for kind, count in self.cuts.items() if count)
        rows = [
            ('tasks', f'{self.tasks} in {self.seconds:.1f} s, {self.tasks / self.seconds:.0f} tasks/s'),
            ('sent', f'{self.sent}, and {self.maybe} whose outcome is unknown; {self.repeated} calls failed and were repeated'),
            ('faults', ', '.join(f'{count} {kind}' for kind, count in self.faults.items() if count) or 'none'),
            ('  by the proxy', cuts or 'none'),
            ('lost', f'{len(wrong["LOST"])}'),
            ('second runs', f'{found.explained.total()} of {found.runs} runs{excuses}; {len(found.unexplained)} unexplained'),
            ('results', f'{self.results} read and right, {len(self.wrong)} wrong'),
            ('recovery after kills', self._recovery()),
            ('left over', f'{len(self.left)} keys; and {self.stayed} results that were read while their connection broke'),
            ('memory of consumers', self._growth('memory', 1e6, ' MB')),
            ('files of consumers', self._growth('files', 1, '')),
        ]
        for title, text in rows:
            yield f'  {title:24}{text}'
        for kind, texts in self.problems().items():
            for text in texts[:SHOWN]:
                yield f'{kind}: {text}'
            if len(texts) > SHOWN:
                yield f'{kind}: {len(texts) - SHOWN} more'

    def _recovery(self) -> str:
        took = self.history.recoveries
        if not took:
            return 'nothing was in flight'
        return f'p50 {percentile(took, 50):.2f} s, p99 {percentile(took, 99):.2f} s, max {max(took):.2f} s, of {len(took)} tasks'

    def _growth(self, what: str, unit: float, name: str) -> str:
        if not self.grown:
            return 'not known: none lived for long enough'
        first, last = (statistics.median(getattr(pair[place], what) for pair in self.grown) / unit for place in (0, 1))
        return f'{first:.0f}{name} when started, {last:.0f}{name} at the end (median of {len(self.grown)})'

    def figures(self) -> dict[str, Any]:
        """It for programs."""
        found, took = self.history, self.history.recoveries
        return {
            'right': self.is_right, 'tasks': self.tasks, 'seconds': self.seconds, 'throughput': self.tasks / self.seconds,
            'sent': self.sent, 'maybe_sent': self.maybe, 'repeated_calls': self.repeated,
            'faults': {kind: count for kind, count in self.faults.items() if count}, 'cuts': self.cuts,
            'runs': found.runs, 'second_runs': found.explained.total() + len(found.unexplained), 'explained': found.explained,
            'results': self.results, 'stayed': self.stayed,
            'recovery': {name: percentile(took, percent) for name, percent in (('p50', 50), ('p99', 99), ('max', 100)) if took},
            'usage': [[first._asdict(), last._asdict()] for first, last in self.grown],
            'problems': {kind.lower(): texts for kind, texts in self.problems().items() if texts},
        }
