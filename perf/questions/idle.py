"""What does a consumer cost that has nothing to do?"""

from __future__ import annotations

import time
from collections.abc import Iterator

import speed_app
from figures import Figure, Target
from lab import Lab
from monitor import count_commands

#: Seconds that it is watched for.
SECONDS = 40.0
#: Seconds that it has to calm down.
CALM = 2.0


def measure(lab: Lab) -> Iterator[Figure]:
    """Its CPU by the system's account, which counts in steps of 10 ms, and its commands by Redis's."""
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
            commands = count_commands(monitor, lab.redis)
    yield Figure('idle consumer: CPU', used / passed * 100, '% of a core', Target('<=', 0.1))
    yield Figure('idle consumer: commands to Redis', commands / passed, '/s', Target('<=', 1.5))
