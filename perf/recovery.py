"""How soon do the tasks of a dead consumer run again? Kills real consumers, and prints a table."""

from __future__ import annotations

import argparse
import logging
import os
import random
import shlex
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import machine
import recovery_app
from figures import Figure, Target, percentile, table
from lab import PATIENCE
from tqdm import tqdm

from geventhuey.testing.redis_server import RedisServer

#: Seconds: by default, a dead process of the same host is to be noticed within the first, a silent one elsewhere within the second.
SAME_HOST, SILENT = 6.0, 18.0
#: Tasks that a victim runs when it dies, and victims that are there at the same time.
TASKS, VICTIMS = 20, 10
#: Seconds within which the victims of one round die, at random: beats and looks fall where they may.
WITHIN = 3.0
#: What a suspect takes, in seconds, and how many there are.
NAP, SUSPECTS = 0.1, 500


def main(argv: Sequence[str] | None = None) -> int:
    """The command; answers its exit code: 1 when a target is missed and ``--check`` is given."""
    args = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser('recovery.py', description=__doc__)
    parser.add_argument('--kills', type=int, default=20, help='consumers that are killed, and that are stopped (default: 20 of each)')
    parser.add_argument('--suspects', type=int, default=SUSPECTS, help='tasks under which two consumers die (default: 500)')
    parser.add_argument('--lease', type=float, default=15.0, help='of the consumers, in seconds (default: 15, as theirs is)')
    parser.add_argument('--check', action='store_true', help='exit with 1 when a target is missed')
    flags = parser.parse_args(args)
    logging.basicConfig(level=logging.ERROR)
    with RedisServer() as server, tempfile.TemporaryDirectory() as folder:
        bench = Bench(server, Path(folder), flags.lease)
        share = flags.lease / 15.0
        figures = [*bench.recovery('killed on the same host', signal.SIGKILL, flags.kills, SAME_HOST * share),
                   *bench.recovery('silent', signal.SIGSTOP, flags.kills, SILENT * share),
                   *bench.suspects(flags.suspects)]
    print(f'machine   {machine.describe()}\nversions  {machine.versions()}')
    print(f"command   {shlex.join(['python', 'perf/recovery.py', *args])}\n")
    print(table(figures))
    return int(flags.check and any(figure.is_missed for figure in figures))


class Bench:
    """A Redis, consumers that die, and the journal of their tasks."""

    def __init__(self, server: RedisServer, folder: Path, lease: float) -> None:
        self._server = server
        self._journal = folder / 'journal'
        self._lease = lease
        recovery_app.huey.use_url(server.url)

    def recovery(self, how: str, number: int, deaths: int, bound: float) -> Iterator[Figure]:
        """From the death of a consumer to the second start of each of its tasks, by a consumer that was there all the time."""
        took: list[float] = []
        with tqdm(total=deaths, desc=how, unit=' deaths', leave=False, disable=not sys.stderr.isatty()) as bar:
            for victims in [VICTIMS] * (deaths // VICTIMS) + [deaths % VICTIMS] * bool(deaths % VICTIMS):
                took += self._round(number, victims)
                bar.update(victims)
        for percent in (50, 99):
            yield Figure(f'{how}, to the second start: p{percent}', percentile(took, percent), 's',
                         Target('<=', bound) if percent == 99 else None, f'{len(took)} tasks, {deaths} deaths' if percent == 99 else '')

    def _round(self, number: int, victims: int) -> list[float]:
        self._clear()
        with ExitStack() as stack:
            programs = {}
            for _ in range(victims):
                program = self._consumer(stack, TASKS)
                programs[program.pid] = program
            for n in range(TASKS * victims):
                recovery_app.hold(str(self._journal), n, PATIENCE)
            self._wait(lambda: len(self._starts()) == TASKS * victims)
            self._consumer(stack, TASKS * victims)
            first = {n: starts[0] for n, starts in self._starts().items()}
            died = {}
            begun = time.time()
            for pid, moment in sorted(((pid, random.uniform(0, WITHIN)) for pid in programs), key=lambda pair: pair[1]):
                time.sleep(max(0.0, begun + moment - time.time()))
                os.kill(pid, number)
                died[pid] = time.time()
                if number == signal.SIGKILL:
                    programs[pid].wait()
            self._wait(lambda: all(len(starts) == 2 for starts in self._starts().values()))
            return [starts[1][1] - died[first[n][0]] for n, starts in self._starts().items()]

    def suspects(self, count: int) -> Iterator[Figure]:
        """All of a consumer's tasks run beside each other when it dies, twice; then they are to be run apart from each other."""
        self._clear()
        with ExitStack() as stack:
            for n in range(count):
                recovery_app.hold(str(self._journal), n, NAP, 2)
            for death in (1, 2):
                victim = self._consumer(stack, count)
                self._wait(lambda death=death: sum(map(len, self._starts().values())) == death * count)  # type: ignore[misc]
                victim.kill()
                victim.wait()
            begun = time.time()
            self._consumer(stack, count)
            self._wait(lambda: len(self._lines('end')) == count)
            third = [starts[2][1] for starts in self._starts().values()]
            ended = max(moment for _, _, moment in self._lines('end'))
        yield Figure(f'{count} suspects of {NAP:g} s, -w {count}: from the first start to the last end', ended - min(third), 's',
                     note=f'{count / (ended - min(third)):,.0f} tasks/s; side by side they would take {NAP:g} s')
        yield Figure('  from the second death', ended - begun, 's', note='with the start of the consumer that takes over')

    # -- means ----------------------------------------------------------------------------------------------

    def _consumer(self, stack: ExitStack, workers: int) -> recovery_app.Consumer:
        known = set(recovery_app.huey.storage.consumers())
        program = recovery_app.start(self._server.url, workers, self._lease, self._journal.with_name('log'))
        stack.callback(recovery_app.end, program)
        self._wait(lambda: bool(set(recovery_app.huey.storage.consumers()) - known))
        return program

    def _clear(self) -> None:
        self._server.flush()
        self._journal.write_text('')

    def _lines(self, word: str) -> list[tuple[int, int, float]]:
        """Number of the task, process and time of each line of this kind."""
        lines = [line.split() for line in self._journal.read_text().splitlines()]
        return [(int(n), int(pid), float(moment)) for found, n, pid, moment in lines if found == word]

    def _starts(self) -> dict[int, list[tuple[int, float]]]:
        """Process and time of each start, by task."""
        starts: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for n, pid, moment in self._lines('start'):
            starts[n].append((pid, moment))
        return starts

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f'it did not come true within {PATIENCE:g} s\n{self._journal.with_name("log").read_text()[-3000:]}')
            time.sleep(0.05)


if __name__ == '__main__':
    sys.exit(main())
