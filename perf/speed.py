"""How fast is geventhuey on this machine? Asks a real consumer on a Redis of its own, and prints a table."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

import command
from lab import Lab
from questions import connections, drain, idle, latency, round_trip, schedule, sleepers, start

from geventhuey.testing.redis_server import RedisServer

QUESTIONS = {'drain': drain, 'latency': latency, 'round_trip': round_trip, 'idle': idle, 'connections': connections,
             'sleepers': sleepers, 'schedule': schedule, 'start': start}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; answers its exit code: 1 when a target is missed and ``--check`` is given."""
    args = list(sys.argv[1:] if argv is None else argv)
    flags = build_parser().parse_args(args)
    logging.basicConfig(level=logging.ERROR)        # that the server goes away in the end is no news
    head, figures = command.Head('speed.py', args), []
    with RedisServer() as server:
        lab = Lab(server, flags.tasks, flags.workers, sys.stderr.isatty())
        for name in flags.questions or QUESTIONS:
            figures += QUESTIONS[name].measure(lab)
            head.note(name)
        lines = head.lines(lab.redis)
    command.publish(lines, {'': figures}, flags.json)
    return command.status(figures, flags.check)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser('speed.py', description=__doc__)
    parser.add_argument('questions', nargs='*', metavar='QUESTION', type=command.one_of(QUESTIONS),
                        help=f'what to measure: {", ".join(QUESTIONS)} (default: everything)')
    parser.add_argument('--tasks', type=command.positive, default=100_000,
                        help='no-ops to drain (default: 100000); with fewer, everything else is smaller, too')
    parser.add_argument('--workers', type=command.positive, default=500, help='of the consumer (default: 500)')
    command.add_flags(parser)
    return parser


if __name__ == '__main__':
    sys.exit(main())
