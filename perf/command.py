"""What the commands here have in common: flags, the head above the figures, the file, the exit code."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import machine
import redis
from figures import Figure, table


def add_flags(parser: argparse.ArgumentParser) -> None:
    """It takes --json and --check."""
    parser.add_argument('--json', metavar='FILE', help='write the figures there as well')
    parser.add_argument('--check', action='store_true', help='exit with 1 when a target is missed')


def positive(text: str) -> int:
    """The whole number from 1; argparse says what is wrong with any other."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is no whole number from 1')
    return int(text)


def one_of(names: Collection[str]) -> Callable[[str], str]:
    """What takes one of the names, for argparse."""
    def check(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f'{text!r} is none of {", ".join(names)}')
        return text
    return check


class Head:
    """Where, when and how something is measured, from now on. ``name`` is the command's."""

    def __init__(self, name: str, args: Sequence[str]) -> None:
        self._command = shlex.join(['python', f'perf/{name}', *args])
        self._load = os.getloadavg()[0]
        self._others: dict[str, float] = {}
        self._watched = machine.Others()

    def note(self, part: str) -> None:
        """This part has been measured; the next one begins."""
        self._others[part] = self._watched.cores()
        self._watched = machine.Others()

    def lines(self, client: redis.Redis) -> dict[str, str]:
        """For print and file."""
        return {
            'machine': machine.describe(),
            'load': f'{self._load:.1f} when it began',
            'others': 'cores used by other programs: ' + ', '.join(f'{cores:.2f} ({part})' for part, cores in self._others.items()),
            'versions': f'{machine.versions()}, Redis {client.info("server")["redis_version"]}',
            'command': self._command,
        }


def publish(head: Mapping[str, str], tables: Mapping[str, Iterable[Figure]], file: str | None) -> None:
    """The tables are printed, each below its title (if it has one), and written to the file, if there is one."""
    width = max(map(len, head))
    print('\n'.join(f'{name:<{width}}  {text}' for name, text in head.items()))
    for title, figures in tables.items():
        print(f'\n{title}\n\n{table(figures)}' if title else f'\n{table(figures)}')
    if file:
        written: list[dict[str, Any]] = [{**({'theme': title.partition(':')[0]} if title else {}), **figure.as_dict()}
                                         for title, figures in tables.items() for figure in figures]
        with open(file, 'w', encoding='utf-8') as opened:
            json.dump({**head, 'figures': written}, opened, indent=2)
            opened.write('\n')


def status(figures: Iterable[Figure], check: bool) -> int:
    """The exit code: 1 when a target is missed, and that is to be checked."""
    return int(check and any(figure.is_missed for figure in figures))
