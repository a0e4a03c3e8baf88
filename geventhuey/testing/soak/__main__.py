"""A soak: many tasks, real consumers, and all that can go wrong; then every single task is accounted for.

::

    python -m geventhuey.testing.soak --help
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import redis

import geventhuey
from geventhuey.cli.arguments import number_between
from geventhuey.exceptions import ConfigurationError, QueueException
from geventhuey.storage.redis import RedisStorage
from geventhuey.testing.fault_proxy import FaultProxy
from geventhuey.testing.history import History
from geventhuey.testing.redis_server import RedisServer
from geventhuey.testing.soak import JOURNAL_VARIABLE, NAME_VARIABLE
from geventhuey.testing.soak.faults import Faults
from geventhuey.testing.soak.fleet import Fleet

EPILOG = """\
What is sent: tasks of 0 to 50 ms, some of 1 to 2 s, some that fail once or twice and are tried again, some that wait for a due time,
some with a priority; every fourth one's result is read and compared. What may go wrong is spread over the run:

  --kill        a consumer gets a SIGKILL, and another one is started
  --stop        a consumer gets a SIGSTOP for less or for longer than its lease, then a SIGCONT
  --client-kill the server closes a connection
  --cut         latency, a connection cut before or after the command was done, one that is half open, an answer that is cut short or
                garbage: all connections go through a proxy that does it
  --redis-kill  the server gets a SIGKILL and is started again with its append-only file

Each task is to run to its end once. It may run once more when its consumer was killed while it held it, or stood still for about as
long as its lease or longer. A fault of a connection is no excuse for a second run. "Recovery" is the time from the death of a consumer
to the next start of each task that it held; tasks under which two have died wait apart, and run few at a time.

examples:
  python -m geventhuey.testing.soak                                        a minute with a bit of everything
  python -m geventhuey.testing.soak --tasks 200000 --kill 20 --stop 20     processes die
  python -m geventhuey.testing.soak --tasks 200000 --client-kill 250 --cut 250
  python -m geventhuey.testing.soak --url redis://localhost:6379/0 --kill 10
  python -m geventhuey.testing.soak --seed 7 --json report.json            the same faults again, and the report for a program

It starts a Redis of its own, unless --url says where yours is: there it uses keys of its own application name, which it removes.
Ends with code 0 when all is right; 1 when a task was lost, ran again without an excuse, or came to a wrong result, or when anything
was left over; 2 when it was called in a wrong way.
"""
#: A bit of everything, when no fault is asked for.
DEFAULT_FAULTS = Faults(kill=5, stop=4, client_kill=20, cut=20, redis_kill=1)
REDIS_PORT = 6379
EX_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """The command; answers its exit code."""
    parser = build_parser()
    flags = parser.parse_args(argv)
    counts = (flags.kill, flags.stop, flags.client_kill, flags.cut, flags.redis_kill)
    if any(count is not None for count in counts):
        faults = Faults(*(count or 0 for count in counts))
    else:
        faults = DEFAULT_FAULTS if flags.url is None else DEFAULT_FAULTS._replace(redis_kill=0)
        if flags.url is not None and urlsplit(flags.url).scheme != 'redis':
            faults = faults._replace(cut=0)
    if flags.url is not None and faults.redis_kill:
        parser.error('--redis-kill: only a server of its own is killed, not the one at --url')
    if faults.cut and flags.url is not None and urlsplit(flags.url).scheme != 'redis':
        parser.error('--cut: the proxy understands redis:// only')
    logging.getLogger('geventhuey').setLevel(logging.ERROR)
    try:
        with _signals_as_interrupts():
            return Soak(flags, faults).run()
    except ConfigurationError as exc:
        print(f'soak: {exc}', file=sys.stderr)
        return EX_USAGE
    except (QueueException, RuntimeError, redis.RedisError) as exc:
        print(f'soak: {exc}', file=sys.stderr)
        return 1
    except KeyboardInterrupt as exc:
        print('soak: interrupted', file=sys.stderr)
        return 128 + (exc.args[0] if exc.args else signal.SIGINT)


def build_parser() -> argparse.ArgumentParser:
    """The parser."""
    parser = argparse.ArgumentParser('python -m geventhuey.testing.soak', description=str(__doc__).partition('\n')[0], epilog=EPILOG,
                                     formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    load = parser.add_argument_group('load')
    load.add_argument('--tasks', type=number_between(int, 1, 10_000_000), default=50_000, metavar='N', help='tasks (default: 50000)')
    load.add_argument('--consumers', type=number_between(int, 1, 100), default=4, metavar='N', help='consumer processes (default: 4)')
    load.add_argument('--workers', type=number_between(int, 1, 10_000), default=250, metavar='N', help='greenlets in each (default: 250)')
    load.add_argument('--lease', type=number_between(float, 0.5, 60), default=2.0, metavar='SECONDS',
                      help='without a sign of life after which a consumer is given up (default: 2)')
    faults = parser.add_argument_group('faults', 'with none of these: ' + ', '.join(
        f'--{kind.replace("_", "-")} {count}' for kind, count in DEFAULT_FAULTS._asdict().items()))
    for kind, what in (('kill', 'consumers get a SIGKILL'), ('stop', 'consumers stand still for a while'),
                       ('client-kill', 'connections are closed by the server'), ('cut', 'connections fail in other ways'),
                       ('redis-kill', 'the server gets a SIGKILL')):
        faults.add_argument(f'--{kind}', type=number_between(int, 0, 1_000_000), metavar='N', help=f'so often {what}')
    faults.add_argument('--seed', type=number_between(int, 0, 2 ** 31),
                      metavar='N', help='of all that is random (default: another one each time)')
    other = parser.add_argument_group('where, and the report')
    other.add_argument('--url', metavar='URL', help='your Redis, instead of one of its own: redis://..., rediss://... or unix://...')
    other.add_argument('--json', type=_file, metavar='FILE', help='write the report there as JSON, too')
    other.add_argument('--keep', type=_new_folder, metavar='DIR', help='leave there what was written down of each run and each fault')
    return parser


class Soak:
    """One run."""

    def __init__(self, flags: argparse.Namespace, faults: Faults) -> None:
        self._flags = flags
        self._faults = faults
        self._seed: int = secrets.randbelow(2 ** 31) if flags.seed is None else flags.seed
        self._name = f'soak-{secrets.token_hex(6)}'

    def run(self) -> int:
        """The soak has run, and nothing of it is left; answers the exit code."""
        flags = self._flags
        with ExitStack() as stack:
            folder = flags.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='geventhuey-soak-')))
            folder.mkdir(parents=True, exist_ok=True)
            server = None
            if flags.url is None:
                server = stack.enter_context(RedisServer(appendonly=True))
            url: str = flags.url or server.url      # type: ignore[union-attr]
            # by a way without faults
            self._storage = RedisStorage(self._name, url=url)
            stack.callback(self._storage.close)
            product, _ = self._storage.check()
            self._admin = stack.enter_context(redis.Redis.from_url(url))
            stack.callback(self._forget)
            proxy, way = None, url
            if self._faults.cut:
                at = urlsplit(url)
                proxy = stack.enter_context(FaultProxy(at.port or REDIS_PORT, at.hostname or 'localhost'))
                user, found, _ = at.netloc.rpartition('@')
                way = at._replace(netloc=f'{user}{found}127.0.0.1:{proxy.port}').geturl()
            os.environ.update({NAME_VARIABLE: self._name, JOURNAL_VARIABLE: str(folder / 'journal')})
            # now that the environment says which application it is
            from geventhuey.testing.soak import app
            from geventhuey.testing.soak.run import Run
            for huey in (app.huey, app.silent):
                huey.use_url(way)
                stack.callback(huey.close)
            print(f'geventhuey {geventhuey.__version__}, {product} at {self._storage.describe()}: {flags.tasks} tasks, {flags.consumers} '
                  f'consumers with {flags.workers} greenlets, a lease of {flags.lease:g} s; --seed {self._seed}', flush=True)
            fleet = Fleet(way, folder / 'log', flags.consumers, ('-w', str(flags.workers), '--lease', str(flags.lease)))
            stack.callback(fleet.stop)
            history = History(folder / 'journal')
            run = Run(flags, self._seed, self._faults, self._storage, self._admin, fleet, history, proxy, server)
            stack.callback(run.stop)
            report = run.report()
            with (folder / 'faults').open('w') as file:
                for fault in history.faults:
                    print(json.dumps({**dataclasses.asdict(fault), 'in_flight': sorted(fault.in_flight or ())}), file=file)
        for line in report.lines():
            print(line)
        if flags.json is not None:
            flags.json.write_text(json.dumps({**report.figures(), 'seed': self._seed, 'command': sys.argv[1:]}, indent=2) + '\n')
        return 0 if report.is_right else 1

    def _forget(self) -> None:
        """No key of the application is left in Redis."""
        try:
            for key in self._admin.scan_iter(f'gh:{{{self._name}}}:*', 1000):
                self._admin.unlink(key)
        except redis.RedisError as exc:
            print(f'soak: keys of gh:{{{self._name}}}: are left in Redis: {exc}', file=sys.stderr)


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt; a second one ends the process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def received(number: int, frame: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt(number)
    for number in before:
        signal.signal(number, received)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _file(text: str) -> Path:
    """The path of a file that can be written."""
    try:
        with open(text, 'a'):
            pass
    except OSError as exc:
        raise argparse.ArgumentTypeError(f'{text!r} cannot be written: {exc.strerror}') from None
    return Path(text)


def _new_folder(text: str) -> Path:
    """The path of a folder that is not there yet, or empty."""
    path = Path(text)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise argparse.ArgumentTypeError(f'{text!r}: a new or an empty folder is needed')
    return path


if __name__ == '__main__':
    sys.exit(main())
