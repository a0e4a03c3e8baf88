"""A consumer whose minutes are short: ``python ticking.py SECONDS [TASK...]`` runs periodic tasks of these names at every tick."""

import logging
import os
import sys
import time
from types import SimpleNamespace

from gevent import monkey

monkey.patch_all()

import geventhuey.clock  # noqa: E402
from geventhuey import PeriodicQueueTask  # noqa: E402
from geventhuey.consumer.consumer import Consumer  # noqa: E402

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from work import make_huey, note  # noqa: E402


def make_periodic(name: str) -> type[PeriodicQueueTask]:
    """A periodic task that writes down which tick it runs for."""
    class Periodic(PeriodicQueueTask):
        task_name = name

        def validate_datetime(self, moment: object) -> bool:
            return True

        def execute(self) -> None:
            note(name, self.task_id.rpartition(':')[2])

    return Periodic


def main() -> int:
    logging.basicConfig(level=logging.INFO, format='%(levelname)s %(message)s')
    seconds, *names = sys.argv[1:]
    huey = make_huey()
    for name in names:
        huey.registry.register(make_periodic(name))
    ahead = float(os.environ.get('WORK_CLOCK_AHEAD', '0'))
    if ahead:
        geventhuey.clock.time = SimpleNamespace(time=lambda: time.time() + ahead, monotonic=time.monotonic)
    return Consumer(huey, tick=float(seconds), workers=4, worker_type='greenlet', shutdown_timeout=5).run()


sys.exit(main())
