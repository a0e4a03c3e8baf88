"""Questions: what every contender is asked, in the same way. Each yields figures by their keys, which ``report.py`` explains."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import redis
from figures import percentile
from monitor import count_commands

from peers.bench import Bench, Failed

NAP = 0.1
SLOTS = 500
NOT_OFFERED = 'not offered'
Figures = Iterator[tuple[str, float | str]]


class Part(NamedTuple):
    """What can fail on its own: the keys of its figures, and what measures them."""

    keys: tuple[str, ...]
    ask: Callable[..., Figures]


class Size(NamedTuple):
    """How much is measured."""

    #: No-ops, if they can be enqueued within ``fill`` seconds; they are watched for ``limit`` seconds at most.
    noops: int
    fill: float
    limit: float
    #: Slots, and naps for each of them.
    naps: tuple[tuple[int, int], ...]
    #: Seconds for each way to enqueue.
    enqueue: float
    samples: int
    #: Seconds over which the etas are spread, and seconds before the first.
    spread: float
    ahead: float
    idle: float
    starts: int


FULL = Size(50_000, 10, 60, ((500, 20), (2000, 10), (10_000, 6)), 5, 500, 5, 2, 10, 3)
QUICK = Size(10_000, 2, 4, ((500, 10), (2000, 5), (10_000, 3)), 0.7, 60, 2, 1.5, 2, 1)
#: For the tests.
TINY = Size(200, 2, 20, ((10, 2), (20, 2), (30, 2)), 0.1, 5, 0.3, 0.5, 0.5, 1)


def drain(bench: Bench, size: Size, results: bool) -> Figures:
    """Tasks that do nothing, from a full queue: what the library itself costs."""
    slots = min(SLOTS, size.noops // 4)
    suffix = 'results' if results else 'plain'
    count = bench.fill('noop', [], size.noops, size.fill, results)
    before = bench.reads()
    with bench.worker(slots, results, count, min(slots, count // 2)) as worker:
        whole = worker.wait_for(lambda found: found['ends'] >= count, size.limit)
        found = _reached(worker, slots, size)
        reads = bench.reads() - before - 1
    if whole:
        tasks, seconds, cpu = found['marked'], found['mark'] - found['first'], found['mark_cpu'] - found['first_cpu']
    else:                                   # it did not end: what it had done by its last note
        tasks, seconds, cpu = found['ends'] - 1, found['last'] - found['first'], found['cpu'] - found['first_cpu']
    yield f'drain_{suffix}', tasks / seconds
    yield f'cpu_{suffix}', cpu / tasks * 1e6
    yield f'reads_{suffix}', reads / found['ends']


def naps(bench: Bench, size: Size, index: int) -> Figures:
    """Tasks that wait: how much of its slots' time a worker makes use of."""
    slots, rounds = size.naps[index]
    count = bench.fill('nap', [NAP], slots * rounds, size.fill * 1.5)
    clients = 0

    def look() -> None:
        nonlocal clients
        clients = max(clients, bench.clients())

    with bench.worker(slots, total=count) as worker:
        whole = worker.wait_for(lambda found: found['ends'] >= count, size.limit, look)
        found = _reached(worker, slots, size)
    rounds_done = found['ends'] / slots
    # A last round with fewer tasks than slots takes as long as a full one.
    ideal = (math.ceil(rounds_done) if whole else rounds_done) * NAP
    yield f'naps_{index}', ideal / (found['last'] - found['first']) * 100
    yield f'naps_connections_{index}', clients


def enqueue(bench: Bench, size: Size, how: str) -> Figures:
    """Calls; there is no worker."""
    bench.flush()
    found = bench.driver('enqueue', patience=size.enqueue, task='noop', args=[], how=how, count=10_000_000, seconds=size.enqueue)
    yield f'enqueue_{how}', NOT_OFFERED if found is None else found['rate']


def latency(bench: Bench, size: Size) -> Figures:
    """An idle worker gets one task after the other."""
    bench.flush()
    _queue_one(bench)
    with bench.worker(SLOTS, total=size.samples) as worker:
        _wait_until_ready(bench, worker)
        bench.driver('start_latency', samples=size.samples)
        yield from _spread('latency', _samples(worker, size.samples, size.limit))


def round_trip(bench: Bench, size: Size) -> Figures:
    """A caller waits for the result."""
    bench.flush()
    _queue_one(bench, results=True)
    with bench.worker(SLOTS, results=True) as worker:
        _wait_until_ready(bench, worker)
        yield from _spread('round_trip', bench.driver('round_trip', results=True, samples=size.samples))


def schedule(bench: Bench, size: Size) -> Figures:
    """Tasks that are due at a time."""
    bench.flush()
    _queue_one(bench)
    with bench.worker(SLOTS, total=size.samples) as worker:
        _wait_until_ready(bench, worker)
        if not bench.driver('schedule', samples=size.samples, ahead=size.ahead, spread=size.spread):
            yield from ((key, NOT_OFFERED) for key in ('eta_p50', 'eta_p99', 'eta_early'))
            return
        samples = _samples(worker, size.samples, size.limit + size.ahead + size.spread)
    yield from _spread('eta', samples)
    yield 'eta_early', sum(sample < 0 for sample in samples)


def idle(bench: Bench, size: Size) -> Figures:
    """A worker without anything to do. Redis shows every command with its origin: those within scripts are not a client's."""
    bench.flush()
    _queue_one(bench)
    with bench.worker(SLOTS, total=1) as worker:
        _wait_until_ready(bench, worker)
        time.sleep(min(1.5, size.idle))
        # The connection is closed afterwards, and does not count among the worker's.
        with redis.Redis.from_url(bench.server.url) as client, client.monitor() as monitor:
            begun, used = time.monotonic(), worker.cpu()
            time.sleep(size.idle)
            worker.check()
            passed, used = time.monotonic() - begun, worker.cpu() - used
            commands = count_commands(monitor, bench.redis)
        yield 'idle_cpu', used / passed * 100
        yield 'idle_commands', commands / passed
        yield 'idle_memory', worker.memory() / 1e6
        yield 'idle_connections', bench.clients()


def start(bench: Bench, size: Size) -> Figures:
    """From the start of the program to the start of a task that is there already."""
    for _ in range(size.starts):
        bench.flush()
        _queue_one(bench)
        with bench.worker(SLOTS, total=1) as worker:
            _wait_until_ready(bench, worker)
            yield 'start', _tally(worker)['first'] - worker.begun


QUESTIONS: dict[str, tuple[Part, ...]] = {
    'drain': (Part(('drain_plain', 'cpu_plain', 'reads_plain'), partial(drain, results=False)),
              Part(('drain_results', 'cpu_results', 'reads_results'), partial(drain, results=True))),
    'naps': tuple(Part((f'naps_{index}', f'naps_connections_{index}'), partial(naps, index=index)) for index in range(3)),
    'enqueue': tuple(Part((f'enqueue_{how}',), partial(enqueue, how=how)) for how in ('one', 'bulk', 'many')),
    'latency': (Part(('latency_p50', 'latency_p99'), latency),),
    'round_trip': (Part(('round_trip_p50', 'round_trip_p99'), round_trip),),
    'schedule': (Part(('eta_p50', 'eta_p99', 'eta_early'), schedule),),
    'idle': (Part(('idle_cpu', 'idle_commands', 'idle_memory', 'idle_connections'), idle),),
    'start': (Part(('start',), start),),
}


def _queue_one(bench: Bench, results: bool = False) -> None:
    bench.driver('enqueue', results, task='noop', args=[], how='one', count=1, seconds=1)


def _wait_until_ready(bench: Bench, worker: Any) -> None:
    """It has run the task that waited for it."""
    worker.wait_for(lambda found: found['ends'] >= 1, 1)


def _tally(worker: Any) -> dict[str, Any]:
    found: dict[str, Any] | None = worker.tally()
    if found is None:
        raise Failed(f'no task has ended: {worker.log()}')
    return found


def _reached(worker: Any, slots: int, size: Size) -> dict[str, Any]:
    """How far the work has got. Raises Failed when not even every slot has run a task: no rate follows from that."""
    found = _tally(worker)
    if found['ends'] < slots:
        raise Failed(f'only {found["ends"]} tasks had ended {size.limit:g} s after the first of them: {worker.log()}')
    return found


def _samples(worker: Any, count: int, seconds: float) -> list[float]:
    """What the tasks have taken down, all of it. Raises Failed when some are missing."""
    if not worker.wait_for(lambda found: len(found['samples']) >= count, seconds):
        raise Failed(f'not all of {count} tasks ran within {seconds:g} s: {worker.log()}')
    samples: list[float] = _tally(worker)['samples']
    return samples


def _spread(key: str, seconds: list[float]) -> Figures:
    yield f'{key}_p50', percentile(seconds, 50) * 1000
    yield f'{key}_p99', percentile(seconds, 99) * 1000
