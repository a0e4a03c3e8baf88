"""What can this machine do at most, and how much of that is geventhuey? Bare loops (bare.py) and it, in turns, on a Redis of its own."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

import bare
import command
import producer
import speed_app
from figures import Figure, Target
from lab import Lab
from questions import sleepers

from geventhuey import RedisHuey
from geventhuey.envelope import RESULT
from geventhuey.function import TaskFunction
from geventhuey.testing.redis_server import RedisServer

#: Of the consumer: as many as a batch of the bare loop has messages.
WORKERS = bare.BATCH
#: Seconds of a nap, and naps for each slot.
NAP, NAPS = 0.1, 20
SLOTS = (500, 2000, 10_000)
#: Of a bare loop's rate, in percent; and of ``lpush``'s.
DRAIN, UNPATCHED, PATCHED = Target('>=', 40), Target('>=', 1.0), Target('>=', 2.0)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; answers its exit code: 1 when a target is missed and ``--check`` is given."""
    args = list(sys.argv[1:] if argv is None else argv)
    flags = build_parser().parse_args(args)
    logging.basicConfig(level=logging.ERROR)        # that the server goes away in the end is no news
    head, figures = command.Head('limit.py', args), []
    with RedisServer() as server:
        lab = Lab(server, flags.tasks, WORKERS, sys.stderr.isatty())
        for theme in (drains, naps, enqueues, steps):
            figures += theme(lab, flags.rounds)
            head.note(theme.__name__)
        lines = head.lines(lab.redis)
    command.publish(lines, {'': figures}, flags.json)
    return command.status(figures, flags.check)


# -- themes ---------------------------------------------------------------------------------------------------

def drains(lab: Lab, rounds: int) -> Iterator[Figure]:
    """A consumer against the bare batch loop, without its results and with them."""
    for what, app, task in (('results off', speed_app.forgetful, speed_app.noop_without_result),
                            ('results on', speed_app.huey, speed_app.noop)):
        def loop(pickled: bool, app: RedisHuey = app, task: TaskFunction = task) -> bare.Run:
            return _bare_drain(lab, app, task, pickled)

        def own(app: RedisHuey = app, task: TaskFunction = task) -> bare.Run:
            return _own_drain(lab, app, task)

        plain, pickled, ours = _in_turns(rounds, lambda: loop(False), lambda: loop(True), own)
        yield from _costs(f'bare batch loop, {what}', plain)
        yield from _costs(f'bare batch loop with pickle, {what}', pickled)
        yield from _costs(f"geventhuey's consumer, {what}", ours)
        rates = [median(run.rate for run in runs) for runs in (plain, pickled, ours)]
        yield Figure('  of the bare batch loop', rates[2] / rates[0] * 100, '%', DRAIN)
        yield Figure('  of the one with pickle', rates[2] / rates[1] * 100, '%')


def naps(lab: Lab, rounds: int) -> Iterator[Figure]:
    """How much of the time that naps take do greenlets sleep, bare ones and a consumer's? One round: it is long enough."""
    for slots in SLOTS:
        slots, each = max(1, int(slots * lab.share)), max(2, int(NAPS * lab.share))
        run = bare.parked(slots, each, NAP)
        yield Figure(f'bare parked greenlets, naps of {NAP:g} s, {slots:,} slots', run.rate, 'tasks/s')
        yield Figure('  of what is possible', each * NAP / run.seconds * 100, '%')
        yield Figure('  CPU', run.cpu / run.tasks * 1e6, 'us/task')
        yield from sleepers.nap(lab, slots, slots * each, "geventhuey's consumer, ")


def enqueues(lab: Lab, rounds: int) -> Iterator[Figure]:
    """A plain call of a task against ``lpush``, in a process as it is and in one that gevent has patched."""
    calls, raw = max(50, lab.tasks // 10), speed_app.message(speed_app.huey, speed_app.noop).encode()
    bulk = median(bare.pushed_in_bulk(lab.server.url, 'bare:queue', raw, lab.tasks) for _ in range(rounds))
    yield Figure('RPUSH in pipelines of 500', bulk, 'messages/s')
    lab.server.flush()
    ping = median(bare.pinged(lab.server.port, calls) for _ in range(rounds))
    yield Figure('PING on a bare socket', ping, 'us')
    for what, patched, target in (('unpatched', False, UNPATCHED), ('patched', True, PATCHED)):
        found = producer.measure(lab.server.url, calls, rounds, patched)
        lab.server.flush()
        lpush, call = ([median(seconds) / calls * 1e6 for seconds in zip(*found[which])] for which in ('lpush', 'call'))
        for name, (took, used) in ((f'lpush of redis-py, {what}', lpush), (f"geventhuey's noop(), {what}", call)):
            yield Figure(name, 1e6 / took, 'calls/s')
            yield Figure('  CPU', used, 'us/call')
        yield Figure('  of lpush', lpush[0] / call[0], 'x', target)


def steps(lab: Lab, rounds: int) -> Iterator[Figure]:
    """What a task's single steps cost when they are bare."""
    times, data = max(100, lab.tasks), _pickle_of(speed_app.message(speed_app.huey, speed_app.noop).payload)
    for what, step in (("pickle: a message's arguments, there and back", lambda: bare.repickled(data, times)),
                       ('greenlet: made, entered and left', lambda: bare.switched(times)),
                       ('greenlet: entered and left', lambda: bare.switched_back(times))):
        yield Figure(what, median(step() for _ in range(rounds)), 'us')


# -- how ------------------------------------------------------------------------------------------------------

def _in_turns(rounds: int, *measured: Callable[[], Any]) -> list[list[Any]]:
    """What each has measured in each round: one after the other, so that what else the machine does hits all."""
    found: list[list[Any]] = [[] for _ in measured]
    for _ in range(rounds):
        for runs, measure in zip(found, measured, strict=True):
            runs.append(measure())
    return found


def _costs(what: str, runs: Sequence[bare.Run]) -> Iterator[Figure]:
    yield Figure(what, median(run.rate for run in runs), 'tasks/s')
    yield Figure('  CPU', median(run.cpu / run.tasks for run in runs) * 1e6, 'us/task')
    yield Figure("  Redis's CPU", median(run.redis_cpu / run.tasks for run in runs) * 1e6, 'us/task')


def _bare_drain(lab: Lab, app: RedisHuey, task: TaskFunction, pickled: bool) -> bare.Run:
    """The bare loop takes geventhuey's own messages out of geventhuey's own queue; a result has the bytes of geventhuey's."""
    message, storage = speed_app.message(app, task), app.storage
    speed_app.fill(app, message, lab.tasks)
    offset = len(message.encode()) - len(_pickle_of(message.payload))
    record = b'V' + app.envelope.dumps(RESULT, True) if app.results else None
    run = bare.drain(lab.server, storage.keys.queue('default'), record, bare.Pickled(offset) if pickled else None)
    results, inflight = lab.redis.dbsize(), lab.redis.hlen(bare.INFLIGHT)
    lab.server.flush()
    if run.tasks != lab.tasks or inflight or (app.results and results < lab.tasks):
        raise RuntimeError(f'of {lab.tasks} messages {run.tasks} were taken, {inflight} are in flight; {results} keys are left')
    return run


def _own_drain(lab: Lab, app: RedisHuey, task: TaskFunction) -> bare.Run:
    speed_app.fill(app, speed_app.message(app, task), lab.tasks)
    with lab.consumer(app) as consumer:
        drained = lab.drain(app, consumer, lab.tasks)
    return bare.Run(drained.tasks, drained.seconds, drained.consumer_cpu, drained.redis_cpu)


def _pickle_of(payload: bytes) -> bytes:
    """The payload without the envelope's one byte."""
    return payload[1:]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser('limit.py', description=__doc__)
    parser.add_argument('--tasks', type=command.positive, default=100_000,
                        help='of each drain (default: 100000); all else follows from that')
    parser.add_argument('--rounds', type=command.positive, default=5, help='of each measurement, of which the median counts (default: 5)')
    command.add_flags(parser)
    return parser


if __name__ == '__main__':
    sys.exit(main())
