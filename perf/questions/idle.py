"""What does a consumer cost that has nothing to do?"""

from __future__ import annotations

import time
from collections.abc import Iterator

import redis
import speed_app
from figures import Figure, Target
from lab import Lab

#: Seconds that it is watched for.
SECONDS = 20.0
#: Seconds that it has to calm down.
CALM = 2.0


def measure(lab: Lab) -> Iterator[Figure]:
    """Redis shows every command with its origin, so that those within scripts can be told from a client's."""
    seconds = max(0.5, SECONDS * lab.share)
    with lab.consumer(speed_app.huey) as consumer:
        consumer.ready()
        speed_app.noop().get(blocking=True, timeout=30)
        time.sleep(CALM * lab.share)
        with lab.redis.monitor() as monitor:
            begun, used = time.monotonic(), consumer.cpu()
            with lab.bar('nothing is done', int(seconds)) as bar:
                while time.monotonic() - begun < seconds:
                    time.sleep(min(1.0, seconds))
                    bar.update()
            passed, used = time.monotonic() - begun, consumer.cpu() - used
            commands = _count(monitor, lab.redis)
    yield Figure('idle consumer: CPU', used / passed * 100, '% of a core', Target('<=', 0.1))
    yield Figure('idle consumer: commands to Redis', commands / passed, '/s', Target('<=', 1.5))


def _count(monitor: redis.client.Monitor, client: redis.Redis) -> int:
    """How many commands clients have sent since the monitor began."""
    client.echo('the end')
    count = 0
    while True:
        command = monitor.next_command()
        if command['command'] == 'ECHO the end':
            return count
        if command['client_type'] != 'lua':
            count += 1
