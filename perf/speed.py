"""How fast is geventhuey on this machine? Asks a real consumer on a Redis of its own, and prints a table."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import sys
from collections.abc import Sequence

import machine
from figures import Figure, table
from lab import Lab
from questions import connections, drain, idle, latency, round_trip, schedule, sleepers

from geventhuey.testing.redis_server import RedisServer

QUESTIONS = {'drain': drain, 'latency': latency, 'round_trip': round_trip, 'idle': idle, 'connections': connections,
             'sleepers': sleepers, 'schedule': schedule}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; answers its exit code: 1 when a target is missed and ``--check`` is given."""
    args = list(sys.argv[1:] if argv is None else argv)
    flags = build_parser().parse_args(args)
    logging.basicConfig(level=logging.ERROR)        # that the server goes away in the end is no news
    load = os.getloadavg()[0]
    figures: list[Figure] = []
    others: dict[str, float] = {}
    with RedisServer() as server:
        lab = Lab(server, flags.tasks, flags.workers, sys.stderr.isatty())
        for name in flags.questions or QUESTIONS:
            watched = machine.Others()
            figures += QUESTIONS[name].measure(lab)
            others[name] = watched.cores()
        head = {
            'machine': machine.describe(),
            'load': f'{load:.1f} when it began',
            'others': 'cores used by other programs: ' + ', '.join(f'{cores:.2f} ({name})' for name, cores in others.items()),
            'versions': f'{machine.versions()}, Redis {lab.redis.info("server")["redis_version"]}',
            'command': shlex.join(['python', 'perf/speed.py', *args]),
        }
    width = max(map(len, head))
    print('\n'.join(f'{name:<{width}}  {text}' for name, text in head.items()))
    print(f'\n{table(figures)}')
    if flags.json:
        with open(flags.json, 'w', encoding='utf-8') as file:
            json.dump({**head, 'figures': [figure.as_dict() for figure in figures]}, file, indent=2)
            file.write('\n')
    return int(flags.check and any(figure.is_missed for figure in figures))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser('speed.py', description=__doc__)
    parser.add_argument('questions', nargs='*', metavar='QUESTION', type=_question,
                        help=f'what to measure: {", ".join(QUESTIONS)} (default: everything)')
    parser.add_argument('--tasks', type=positive, default=100_000,
                        help='no-ops to drain (default: 100000); with fewer, everything else is smaller, too')
    parser.add_argument('--workers', type=positive, default=500, help='of the consumer (default: 500)')
    parser.add_argument('--json', metavar='FILE', help='write the figures there as well')
    parser.add_argument('--check', action='store_true', help='exit with 1 when a target is missed')
    return parser


def _question(text: str) -> str:
    if text not in QUESTIONS:
        raise argparse.ArgumentTypeError(f'{text!r} is none of {", ".join(QUESTIONS)}')
    return text


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is no whole number from 1')
    return int(text)


if __name__ == '__main__':
    sys.exit(main())
