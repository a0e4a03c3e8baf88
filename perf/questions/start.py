"""How long does a consumer take to start, and how much memory does it use when it has nothing to do?"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

import psutil
import speed_app
from figures import Figure, Target
from lab import Lab

STARTS = 5
#: Workers of the two consumers of which the latter shows what each further one takes.
WORKERS = 500, 10_000
#: Seconds after its first task for which a consumer is left alone.
CALM = 0.5
#: What every consumer of this kind has to import.
BARE = 'import gevent.monkey; gevent.monkey.patch_all(); import redis, time; print(flush=True); time.sleep(60)'


def measure(lab: Lab) -> Iterator[Figure]:
    """A task is there already, and says when it was started."""
    seconds, memory = [], []
    for workers in WORKERS:
        for _ in range(STARTS):
            result = speed_app.started()
            begun = time.time()
            with lab.consumer(speed_app.huey, workers) as consumer:
                seconds.append(result.get(blocking=True, timeout=30) - begun)
                time.sleep(CALM)
                memory.append(psutil.Process(consumer.pid).memory_info().rss)
    small, large = median(memory[:STARTS]), median(memory[STARTS:])
    yield Figure('start-up, to the start of a task', median(seconds), 's', Target('<=', 0.35))
    yield Figure(f'memory (RSS), idle, -w {WORKERS[0]}', small / 2 ** 20, 'MiB')
    yield Figure('  beyond that of importing gevent and redis', (small - bare()) / 2 ** 20, 'MiB', Target('<=', 10))
    yield Figure('  of each further worker', (large - small) / (WORKERS[1] - WORKERS[0]) / 1024, 'KiB', Target('<=', 8))


def bare() -> int:
    """Bytes that a process takes that has only imported what a consumer must."""
    process = subprocess.Popen([sys.executable, '-c', BARE], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        return int(psutil.Process(process.pid).memory_info().rss)
    finally:
        process.kill()
        process.communicate()
