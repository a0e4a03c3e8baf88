"""geventhuey: the command for everything but running a consumer. Importing it does nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import geventhuey
from geventhuey.cli import patching
from geventhuey.cli.arguments import number_between

#: Exit code for bad usage, as argparse has it.
EX_USAGE = 2
EPILOG = """\
examples:
  geventhuey demo                                   500 tasks at once in this process, no server needed
  geventhuey demo --url redis://localhost:6379      the same through Redis, with a consumer in another process
  geventhuey demo --help                            what else it can be told

To run an application's tasks, write app.py:

  from geventhuey import RedisHuey
  huey = RedisHuey('app')

  @huey.task()
  def add(a, b):
      return a + b

and start a consumer in one terminal, and call the task in another one:

  geventhuey-consumer app.huey
  python -c "from app import add; print(add(1, 2).get(blocking=True, timeout=10))"
"""
DEMO = """\
Fetches thousands of files over real sockets, each in a task of its own, and checks every result against the file. A server, in a
process of its own, serves the Python files of the standard library and takes its time over each answer; some requests fail on
purpose, and are retried. Needs no Redis: the queue is in memory, unless --url says where it is.
"""
DEMO_EPILOG = """\
examples:
  geventhuey demo
  geventhuey demo --tasks 20000 --workers 2000 --latency 0.5
  geventhuey demo --url redis://localhost:6379/0

Ends with code 0 when all is right, 1 when a result is wrong or missing, 2 when it was called in a wrong way.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; answers its exit code."""
    parser = build_parser()
    flags = parser.parse_args(argv)
    if flags.run is None:
        parser.print_help(sys.stderr)
        return EX_USAGE
    code: int = flags.run(flags)
    return code


def demo(flags: argparse.Namespace) -> int:
    """Runs the demo, in a process that gevent has patched before anything else is imported."""
    patching.patch()
    from geventhuey.cli.demo import Demo
    return Demo(flags.tasks, flags.workers, flags.latency, flags.url, flags.folder).run()


def build_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands."""
    parser = argparse.ArgumentParser('geventhuey', description="A gevent task queue with Huey's API.", epilog=EPILOG,
                                     formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument('--version', action='version', version=f'geventhuey {geventhuey.__version__}')
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title='commands', metavar='COMMAND')
    sub = commands.add_parser('demo', help='see it work: hundreds of tasks at once, every result checked', description=DEMO,
                              epilog=DEMO_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    sub.set_defaults(run=demo)
    sub.add_argument('--tasks', type=number_between(int, 1, 1_000_000), default=5000, metavar='N', help='files to fetch (default: 5000)')
    sub.add_argument('--workers', type=number_between(int, 1, 10_000), default=500, metavar='N', help='greenlets that fetch (default: 500)')
    sub.add_argument('--latency', type=number_between(float, 0, 10), default=0.1, metavar='SECONDS',
                     help='what the server takes over each answer (default: 0.1)')
    sub.add_argument('--url', metavar='URL', help='use Redis: redis://host:port/db, rediss://..., unix://path, '
                     'redis+sentinel://host:port,host:port/service or redis+cluster://host:port,host:port')
    sub.add_argument('--folder', type=_folder, metavar='DIR', help='fetch the Python files of this folder instead')
    return parser


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f'{text!r} is no folder')
    return Path(text)


if __name__ == '__main__':
    sys.exit(main())
