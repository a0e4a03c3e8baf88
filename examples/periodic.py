"""Tasks that run by the clock: once per tick, however many consumers there are.

Start one consumer, or several; the log says when each task is next, and the files' times show that it ran::

    geventhuey-consumer examples.periodic.huey

crontab means UTC; with ``-o`` it means local time.
"""

import os
import tempfile

from geventhuey import RedisHuey, crontab

huey = RedisHuey('periodic')


@huey.periodic_task(crontab(minute='*'))
def every_minute():
    """A sign of life that a monitor can look at."""
    with open(os.path.join(tempfile.gettempdir(), 'geventhuey-is-alive'), 'w'):
        pass


@huey.periodic_task(crontab(day_of_week='mon-fri', hour='8-18/2', minute='0'))
def in_office_hours():
    """A periodic task decides what there is to do, and ordinary tasks do it: they have retries and results."""
    for customer in ('ann', 'bob'):
        send_report(customer)


@huey.task(retries=3, retry_delay=60)
def send_report(customer):
    return f'sent to {customer}'
