"""A producer of its own: geventhuey's call and redis-py's in turns, in a process that gevent has patched, or in one that it has not.

``python perf/producer.py URL CALLS ROUNDS [--patched]`` prints JSON: seconds, and seconds of CPU, of each round.
"""

import sys

if '--patched' in sys.argv:     # before anything else is imported
    from gevent import monkey
    monkey.patch_all()

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import redis
import speed_app

HERE = Path(__file__).resolve().parent
TIMEOUT = 600.0


def measure(url: str, calls: int, rounds: int, patched: bool) -> dict[str, list[list[float]]]:
    """Seconds, and seconds of CPU, of so many calls, one pair for each round: of ``lpush`` and of ``call``."""
    command = [sys.executable, str(HERE / 'producer.py'), url, str(calls), str(rounds), *(['--patched'] if patched else [])]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=TIMEOUT, cwd=HERE)
    found: dict[str, list[list[float]]] = json.loads(answer.stdout)
    return found


def main(args: Sequence[str]) -> None:
    """The answer is on standard output."""
    url, calls, rounds = args[0], int(args[1]), int(args[2])
    client = redis.Redis.from_url(url)
    speed_app.huey.use_url(url)
    message = speed_app.message(speed_app.huey, speed_app.noop).encode()
    found: dict[str, list[tuple[float, float]]] = {'lpush': [], 'call': []}
    for turn in range(rounds):
        # Who is first in one round is second in the next: the second one finds warmer caches.
        for what in ('lpush', 'call')[::1 if turn % 2 == 0 else -1]:
            begun, used = time.perf_counter(), time.process_time()
            if what == 'lpush':
                for _ in range(calls):
                    client.lpush('bare:queue', message)
            else:
                for _ in range(calls):
                    speed_app.noop()
            found[what].append((time.perf_counter() - begun, time.process_time() - used))
    print(json.dumps(found))


if __name__ == '__main__':
    main(sys.argv[1:])
