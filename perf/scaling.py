"""Does the cost of a task stay flat? More processes, a longer queue, larger arguments, more workers: what each task costs then."""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

import command
import speed_app
from figures import Figure, Target
from lab import LOOK, PATIENCE, ConsumerProcess, Lab

from geventhuey.message import Message
from geventhuey.testing.redis_server import RedisServer

PROCESSES = (1, 2)
BACKLOGS = (1000, 10_000, 100_000, 1_000_000, 5_000_000)
PAYLOADS = (100, 1000, 10_000, 100_000, 1_000_000)
SLOTS = (1, 10, 100, 500, 2000, 10_000, 20_000)
#: Workers of each process where it is not their number that is asked for.
WORKERS = 500
#: Bytes of all arguments that wait in Redis at one moment, at most; Redis and the consumer need several times that.
IN_REDIS = 200_000_000
#: Tasks for each worker up to which the few are spared: one worker runs a few thousand in a second.
FOR_EACH = 10_000
#: Tasks from which on 10 ms, the unit in which systems count CPU time, do not matter.
COUNTED = 100_000
#: What a task may cost, of what it costs in the row that the others are compared with.
FLAT = Target('<=', 1.1)


class Cost(NamedTuple):
    """What the tasks of one row took: microseconds of CPU for each, and tasks per second."""

    consumer: float
    redis: float
    rate: float


class Spent(NamedTuple):
    """What one part of a row's tasks took."""

    tasks: int
    seconds: float
    cpu: float
    redis_cpu: float


class Row(NamedTuple):
    """How one row is measured."""

    name: str
    message: Message
    workers: int
    processes: int
    #: Messages in the queue when it begins, tasks that are drained of them at a time, and in all.
    backlog: int
    drained: int
    tasks: int
    target: Target | None = None
    #: True for the one that the others are compared with.
    is_base: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """The command; answers its exit code: 1 when a target is missed and ``--check`` is given."""
    args = list(sys.argv[1:] if argv is None else argv)
    flags = build_parser().parse_args(args)
    logging.basicConfig(level=logging.ERROR)        # neither that the server goes away nor that messages are large is news
    head, tables = command.Head('scaling.py', args), {}
    with RedisServer() as server:
        lab = Lab(server, flags.tasks or (2000 if flags.quick else COUNTED), WORKERS, sys.stderr.isatty())
        for name in flags.themes or THEMES:
            rows = list(THEMES[name](lab, flags.quick))
            tables[f'{name}: {THEMES[name].__doc__}'] = list(_figures(lab, rows, flags.rounds or (1 if flags.quick else 3)))
            head.note(name)
        lines = head.lines(lab.redis)
    command.publish(lines, tables, flags.json)
    return command.status(itertools.chain(*tables.values()), flags.check)


# -- themes ---------------------------------------------------------------------------------------------------

def processes(lab: Lab, quick: bool) -> Iterator[Row]:
    """no-ops, with 500 workers in each process."""
    for count in PROCESSES:
        yield Row(f'{count} consumer process{"es" if count > 1 else ""}', _noop(), WORKERS, count, 2 * lab.tasks, lab.tasks, lab.tasks,
                  FLAT if count > 1 else None, count == 1)


def backlog(lab: Lab, quick: bool) -> Iterator[Row]:
    """no-ops that are taken from a queue of so many; one of 1,000 is filled up again each time that it is empty."""
    for size in BACKLOGS[:3] if quick else BACKLOGS:
        yield Row(f'{size:,} in the queue', _noop(), WORKERS, 1, size, min(size, lab.tasks), lab.tasks,
                  FLAT if size == BACKLOGS[-1] else None, size == BACKLOGS[0])


def payload(lab: Lab, quick: bool) -> Iterator[Row]:
    """tasks with one argument of so many bytes, 500 workers; 16 MB are the most that a message may have."""
    for size in PAYLOADS:
        tasks = max(10, min(lab.tasks, (IN_REDIS // 10 if quick else IN_REDIS) // size))
        message = speed_app.message(speed_app.huey, speed_app.swallow, b'x' * size)
        yield Row(f'{size:,} bytes', message, WORKERS, 1, tasks, tasks, min(lab.tasks, tasks * (1 if quick else 5)),
                  is_base=size == PAYLOADS[0])


def slots(lab: Lab, quick: bool) -> Iterator[Row]:
    """no-ops, with so many workers in one process."""
    for count in SLOTS[:5] if quick else SLOTS:
        tasks = min(lab.tasks, count * FOR_EACH)
        yield Row(f'{count:,} workers', _noop(), count, 1, 2 * tasks, tasks, tasks, is_base=count == WORKERS)


THEMES = {'processes': processes, 'backlog': backlog, 'payload': payload, 'slots': slots}


# -- how ------------------------------------------------------------------------------------------------------

def _figures(lab: Lab, rows: list[Row], rounds: int) -> Iterator[Figure]:
    """Rows take turns, so that what else the machine does hits all; of each, medians."""
    found: list[list[Cost]] = [[] for _ in rows]
    with lab.bar('rows', rounds * len(rows)) as bar:
        for _ in range(rounds):
            for row, costs in zip(rows, found, strict=True):
                costs.append(measure(lab, row))
                bar.update()
    medians = [Cost(*map(median, zip(*costs))) for costs in found]
    base, base_cost = next((row, cost) for row, cost in zip(rows, medians, strict=True) if row.is_base)
    for row, cost in zip(rows, medians, strict=True):
        yield Figure(f"{row.name}: the consumer's CPU", cost.consumer, 'us/task')
        yield Figure("  Redis's CPU", cost.redis, 'us/task')
        yield Figure('  rate', cost.rate, 'tasks/s')
        if row is not base:
            yield Figure(f'  the consumer, against {base.name}', _ratio(cost.consumer, base_cost.consumer), 'x', row.target)
            yield Figure('  Redis', _ratio(cost.redis, base_cost.redis), 'x')


def _ratio(cost: float, base: float) -> float:
    """Between two costs; 1 when the base is too small to have been counted."""
    return cost / base if base else 1.0


def measure(lab: Lab, row: Row) -> Cost:
    """What the row's tasks have cost.

    The consumer begins with a full queue, and is stopped (``SIGSTOP``) whenever that is filled up again, so that nothing is spent on
    filling it. What is spent in between counts, but for the first time: until then a consumer learns how large messages are.
    """
    app, spent, filled, is_warm = speed_app.huey, [], row.backlog, False
    speed_app.fill(app, row.message, row.backlog)
    with lab.consumer(app, row.workers, row.processes) as consumer:
        consumer.ready()
        while sum(part.tasks for part in spent) < row.tasks:
            consumer.suspend()
            missing = row.backlog - lab.left(app, consumer)[0]
            speed_app.fill(app, row.message, missing, filled)
            filled += missing
            part = _drain(lab, consumer, row)
            if is_warm:
                spent.append(part)
            is_warm = True
    tasks, seconds, cpu, redis_cpu = map(sum, zip(*spent))
    return Cost(cpu / tasks * 1e6, redis_cpu / tasks * 1e6, tasks / seconds)


def _drain(lab: Lab, consumer: ConsumerProcess, row: Row) -> Spent:
    """The consumer has gone on until so many tasks were settled, and stands still again."""
    deadline = time.monotonic() + PATIENCE
    begun, cpu, redis_cpu = time.perf_counter(), consumer.cpu(), _redis_cpu(lab)
    consumer.resume()
    while (ended := row.backlog - lab.left(speed_app.huey, consumer)[0]) < row.drained:
        consumer.check()
        if time.monotonic() > deadline:
            raise RuntimeError(f'{row.name}: {ended} of {row.drained} tasks ran within {PATIENCE:g} s\n{consumer.log()}')
        time.sleep(min(LOOK, row.drained / 1e6))
    seconds = time.perf_counter() - begun
    consumer.suspend()
    # what was settled between the last look and this moment has been paid for as well
    ended = row.backlog - lab.left(speed_app.huey, consumer)[0]
    return Spent(ended, seconds, consumer.cpu() - cpu, _redis_cpu(lab) - redis_cpu)


def _redis_cpu(lab: Lab) -> float:
    """Seconds of CPU that Redis has used, by its own account, which is exact."""
    cpu = lab.redis.info('cpu')
    return float(cpu['used_cpu_user'] + cpu['used_cpu_sys'])


def _noop() -> Message:
    return speed_app.message(speed_app.huey, speed_app.noop)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser('scaling.py', description=__doc__)
    parser.add_argument('themes', nargs='*', metavar='THEME', type=command.one_of(THEMES),
                        help=f'{", ".join(THEMES)} (default: everything)')
    parser.add_argument('--quick', action='store_true', help='everything is small: to see that it works')
    parser.add_argument('--tasks', type=command.positive, help=f'of each row that are measured (default: {COUNTED}, quick: 2000)')
    parser.add_argument('--rounds', type=command.positive, help='of each row, of which the median counts (default: 3, quick: 1)')
    command.add_flags(parser)
    return parser


if __name__ == '__main__':
    sys.exit(main())
