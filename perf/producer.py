"""A producer of its own: geventhuey's call and redis-py's in turns, in a process that gevent has patched, or in one that it has not.

``python perf/producer.py URL CALLS ROUNDS [--patched]`` prints JSON: calls per second of each round.
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


def measure(url: str, calls: int, rounds: int, patched: bool) -> dict[str, list[float]]:
    """Calls per second, one for each round: of ``lpush`` and of ``call``."""
    command = [sys.executable, str(HERE / 'producer.py'), url, str(calls), str(rounds), *(['--patched'] if patched else [])]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=TIMEOUT, cwd=HERE)
    found: dict[str, list[float]] = json.loads(answer.stdout)
    return found


def main(args: Sequence[str]) -> None:
    """The rates are on standard output."""
    import bare
    url, calls, rounds = args[0], int(args[1]), int(args[2])
    client = redis.Redis.from_url(url)
    speed_app.huey.use_url(url)
    message = speed_app.message(speed_app.huey, speed_app.noop).encode()
    rates: dict[str, list[float]] = {'lpush': [], 'call': []}
    for _ in range(rounds):
        rates['lpush'].append(bare.pushed(client, 'bare:queue', message, calls))
        begun = time.perf_counter()
        for _ in range(calls):
            speed_app.noop()
        rates['call'].append(calls / (time.perf_counter() - begun))
    print(json.dumps(rates))


if __name__ == '__main__':
    main(sys.argv[1:])
