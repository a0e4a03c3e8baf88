"""The demo's application, for the demo itself and for the consumer process that it starts when it is to use Redis."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
import urllib.request
from typing import TypedDict

from geventhuey import MemoryHuey

#: How the consumer process is told the name of the application, which is another one in each run.
NAME_VARIABLE = 'GEVENTHUEY_DEMO'
#: How often a fetch is tried again, and seconds in between.
RETRIES, RETRY_DELAY = 3, 0.1
#: Seconds without a byte after which a fetch fails.
TIMEOUT = 60

huey = MemoryHuey(os.environ.get(NAME_VARIABLE) or f'geventhuey-demo-{secrets.token_hex(4)}')

#: Asks the server on this machine, and no proxy.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Fetched(TypedDict):
    """What a fetch returns; ``started`` is by the machine's monotonic clock, ``retries`` are those that it had left."""

    size: int
    sha256: str
    started: float
    seconds: float
    retries: int


@huey.task(retries=RETRIES, retry_delay=RETRY_DELAY, retries_as_argument=True)
def fetch(url: str, retries: int = 0) -> Fetched:
    """Fetches a file. An answer other than 200 is an error, and so tried again."""
    started = time.monotonic()
    with opener.open(url, timeout=TIMEOUT) as answer:
        content = answer.read()
    return {'size': len(content), 'sha256': hashlib.sha256(content).hexdigest(), 'started': started,
            'seconds': time.monotonic() - started, 'retries': retries}


@huey.task()
def ready() -> bool:
    """True: there is a consumer, and it runs tasks."""
    return True
