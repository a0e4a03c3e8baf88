"""Report: what was measured, as tables in reStructuredText and as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from figures import number
from tabulate import tabulate

from peers.contenders import CONTENDERS
from peers.questions import Size

#: Who is compared with the best of the others.
OURS = 'geventhuey'
#: What was measured for a contender: a number of each round, or a text that says why there is none.
Cells = Mapping[tuple[str, str], Sequence[float | str]]


class Row(NamedTuple):
    """One line of a table."""

    key: str
    label: str
    #: Whether more is better; None where nothing is compared.
    more: bool | None = None


def themes(size: Size) -> dict[str, list[Row]]:
    """The tables, with their lines."""
    naps = [Row(f'naps_{index}', f'{slots:,} slots: % of ideal', True) for index, (slots, _) in enumerate(size.naps)]
    open_connections = [Row(f'naps_connections_{index}', f'{slots:,} slots busy: connections')
                        for index, (slots, _) in enumerate(size.naps)]
    return {
        'Tasks that do nothing': [
            Row('drain_plain', 'without results: tasks/s', True), Row('drain_results', 'with results: tasks/s', True),
            Row('cpu_plain', 'without results: worker CPU, us/task', False), Row('cpu_results', 'with results: worker CPU, us/task', False),
            Row('reads_plain', 'without results: Redis round trips/task'), Row('reads_results', 'with results: Redis round trips/task')],
        'Tasks that wait for 0.1 s': naps,
        'Enqueueing': [Row('enqueue_one', 'one caller: calls/s', True), Row('enqueue_many', '500 callers at once: calls/s', True),
                       Row('enqueue_bulk', 'in bulk: tasks/s', True)],
        'Latency': [
            Row('latency_p50', 'call to start, p50: ms', False), Row('latency_p99', 'call to start, p99: ms'),
            Row('round_trip_p50', 'call to result, p50: ms', False), Row('round_trip_p99', 'call to result, p99: ms'),
            Row('eta_p50', 'lateness of an eta, p50: ms', False), Row('eta_p99', 'lateness of an eta, p99: ms'),
            Row('eta_early', 'tasks that were early')],
        'What it takes': [
            Row('idle_cpu', 'idle, 500 slots: CPU, % of a core'), Row('idle_commands', 'idle, 500 slots: Redis commands/s'),
            Row('idle_memory', 'idle, 500 slots: memory, MB'), Row('idle_connections', 'idle, 500 slots: connections'), *open_connections,
            Row('start', 'start of the worker to its first task: s', False)],
    }


def medians(cells: Cells) -> dict[tuple[str, str], float | str]:
    """The middle one of the rounds; the first reason where a round has failed, or 'not offered'."""
    found: dict[tuple[str, str], float | str] = {}
    for place, values in cells.items():
        words = [value for value in values if isinstance(value, str)]
        found[place] = words[0] if words else statistics.median(value for value in values if not isinstance(value, str))
    return found


def document(head: Mapping[str, str], found: Mapping[tuple[str, str], float | str], names: Sequence[str], size: Size, picture: str) -> str:
    """The whole text."""
    lines = ['Side by side', '============', '', '.. Written by perf/compare.py; do not edit.', '']
    lines += [f':{name}: {text}' for name, text in head.items()]
    lines += ['', f'.. image:: {picture}', '   :alt: bars for the main rates and CPU times, on logarithmic scales', '']
    reasons: list[str] = []
    for theme, rows in themes(size).items():
        rows = [row for row in rows if any((row.key, name) in found for name in names)]
        if rows:
            lines += [theme, '-' * len(theme), '', _table(rows, found, names, reasons), '']
    lines += [f'| ({place}) {reason}' for place, reason in enumerate(map(_plain, reasons), 1)]
    lines += ['', 'Modes', '-----', '']
    modes = [(CONTENDERS[name].title, CONTENDERS[name].mode, ', '.join(CONTENDERS[name].requirements)) for name in names]
    lines.append(tabulate(modes, ['', 'mode', 'versions'], 'rst'))
    return '\n'.join(lines).rstrip() + '\n'


def _table(rows: Iterable[Row], found: Mapping[tuple[str, str], float | str], names: Sequence[str], reasons: list[str]) -> str:
    lines = []
    for row in rows:
        lines.append([row.label, *(_cell(found.get((row.key, name)), CONTENDERS[name].title, reasons) for name in names)])
        compared = against_best(row, found, names)
        if compared is not None:
            lines.append(['  ours against the best peer', *(f'{compared} x' if name == OURS else '' for name in names)])
    return tabulate(lines, ['', *(CONTENDERS[name].title for name in names)], 'rst', disable_numparse=True,
                    colalign=['left', *('right' for _ in names)])


def against_best(row: Row, found: Mapping[tuple[str, str], float | str], names: Sequence[str]) -> str | None:
    """How many times better we are than the best of the others; below 1 when it is better. None where that says nothing."""
    ours = found.get((row.key, OURS))
    others = [value for name in names if name != OURS and isinstance(value := found.get((row.key, name)), (int, float))]
    if row.more is None or not isinstance(ours, (int, float)) or not others:
        return None
    best = max(others) if row.more else min(others)
    above, below = (ours, best) if row.more else (best, ours)
    return f'{above / below:.2f}' if below > 0 else None


def _cell(value: float | str | None, title: str, reasons: list[str]) -> str:
    """A number, or a word, with a note below the tables that says more."""
    if isinstance(value, (int, float)):
        return number(value)
    if value is None:
        return '-'
    kind, _, reason = value.partition(': ')
    if not reason:
        return kind
    note = f'{title}: {reason}'
    if note not in reasons:                 # the same reason for many cells is said once
        reasons.append(note)
    return f'{kind} ({reasons.index(note) + 1})'


def _plain(text: str) -> str:
    """The same, so that no character in it is markup."""
    return ''.join(f'\\{character}' if character in '\\`*_|<>' else character for character in text)


#: What is drawn.
DRAWN = (('drain_results', 'no-ops with results\ntasks/s'), ('drain_plain', 'no-ops without results\ntasks/s'),
         ('enqueue_one', 'one caller\ncalls/s'), ('enqueue_many', '500 callers\ncalls/s'),
         ('cpu_results', 'worker CPU with results\nus/task (less is better)'))


def draw(found: Mapping[tuple[str, str], float | str], names: Sequence[str], file: Path) -> None:
    """The picture is there: a panel of bars for each of the main figures."""
    import matplotlib
    matplotlib.use('svg')
    from matplotlib import pyplot, ticker

    drawn = [(key, label) for key, label in DRAWN if any((key, name) in found for name in names)] or list(DRAWN[:1])
    figure, panels = pyplot.subplots(1, len(drawn), figsize=(2.5 * len(drawn), 0.8 + 0.3 * len(names)), sharey=True, squeeze=False)
    for panel, (key, label) in zip(panels[0], drawn):
        values = [found.get((key, name)) for name in names]
        lengths = [value if isinstance(value, (int, float)) and value > 0 else float('nan') for value in values]
        bars = panel.barh([CONTENDERS[name].title for name in names], lengths,
                          color=['tab:green' if name == OURS else 'tab:gray' for name in names])
        panel.bar_label(bars, ['' if length != length else number(round(length)) for length in lengths], padding=2, fontsize=7)
        panel.set_title(label, fontsize=8)
        panel.tick_params(labelsize=7)
        panel.spines[['top', 'right']].set_visible(False)
        known = [length for length in lengths if length == length]
        if known:
            panel.set_xscale('log')
            panel.set_xlim(min(known) / 3, max(known) * 6)
            panel.xaxis.set_minor_formatter(ticker.NullFormatter())
            panel.set_xlabel('logarithmic', fontsize=7)
    panels[0][0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(file, metadata={'Date': None})
    pyplot.close(figure)
