"""Figures: what was measured, beside what it ought to be."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

RELATIONS = {'>=': operator.ge, '<=': operator.le, '<': operator.lt}


class Target(NamedTuple):
    """What a figure ought to be."""

    relation: str
    bound: float

    def is_met(self, value: float) -> bool:
        return bool(RELATIONS[self.relation](value, self.bound))


class Figure(NamedTuple):
    """One line of the table."""

    name: str
    value: float
    unit: str
    target: Target | None = None
    note: str = ''

    @property
    def is_missed(self) -> bool:
        return self.target is not None and not self.target.is_met(self.value)

    def as_dict(self) -> dict[str, Any]:
        """For a file: the target in words, and whether it is met (None without one)."""
        return {'name': self.name, 'value': self.value, 'unit': self.unit,
                'target': f'{self.target.relation} {self.target.bound:g}' if self.target else None,
                'met': not self.is_missed if self.target else None, 'note': self.note}


def table(figures: Iterable[Figure]) -> str:
    """The figures as text."""
    rows = [('figure', 'measured', '', 'target')]
    for figure in figures:
        target = figure.target
        said = f'{target.relation} {number(target.bound)}: {"MISSED" if figure.is_missed else "met"}' if target else ''
        rows.append((figure.name, number(figure.value), figure.unit, '; '.join(filter(None, [said, figure.note]))))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return '\n'.join(f'{name:<{widths[0]}}  {value:>{widths[1]}} {unit:<{widths[2]}}  {target}'.rstrip()
                     for name, value, unit, target in rows)


def number(value: float) -> str:
    """Whole ones as they are, others with three digits that count, or all of them before the point."""
    if float(value).is_integer() or abs(value) >= 100:
        return f'{value:,.0f}'
    return f'{value:.2f}' if abs(value) < 10 else f'{value:.1f}'


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent of the others do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
