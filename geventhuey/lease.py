"""Lease: one registration with the storage, under which messages are fetched and held.

A consumer's name is never used again: not after a crash, nor after an eviction.  The number of a request is used again until an
answer has brought messages, so that a lost or late answer neither loses a message nor brings one twice.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from geventhuey import native
from geventhuey.exceptions import StorageError
from geventhuey.storage.base import (
    ONE_SUSPECT,
    BaseStorage,
    Delivery,
    Fetched,
    Settlement,
    Standing,
    Suspects,
    for_suspects,
)
from geventhuey.waiter import ThreadWaiter

logger = logging.getLogger('geventhuey.lease')

#: Seconds between two beats. A consumer is given up when its beat has stood still for LEASE seconds.
BEAT_INTERVAL = 3.0
LEASE = 15.0
#: Seconds for which it is kept that a task was lost that was taken by hand, begun, and may run only once.
LOST_TTL = 7 * 86400.0


class Lease:
    """A name under which this process holds messages."""

    def __init__(self, label: str = '', slots: int = 0, lease: float = LEASE) -> None:
        self._label = label
        self._slots = slots
        self._in_time = lease / 2
        self.request = 1
        self.consumer = self._new_name()
        #: The names that this process has had, the present one included: what they hold may still run here.
        self.names = [self.consumer]

    def _new_name(self) -> str:
        host = self._label or socket.gethostname()
        return f'{host}:{os.getpid()}:{secrets.token_hex(4)}'

    def register(self, storage: BaseStorage) -> None:
        """The storage knows this name."""
        storage.register(self.consumer, self.request - 1, json.dumps(self.info()).encode())

    def info(self) -> dict[str, object]:
        """What others may know of this process: where it is, so that one on the same host can see that it died."""
        return {'host': socket.gethostname(), 'pid': os.getpid(), 'slots': self._slots, 'boot': _boot_id(), 'started': _started()}

    def renew(self, storage: BaseStorage) -> None:
        """This process has a new name: the old one was evicted."""
        self.consumer = self._new_name()
        self.names.append(self.consumer)
        self.request = 1
        self.register(storage)

    def fetch(self, storage: BaseStorage, limits: Mapping[str, int], at_most: int, suspects: Suspects = ONE_SUSPECT) -> Fetched:
        """Messages for this process. A lost registration is made good first. Raises what the storage raises; then call it again.

        An answer that has taken long is asked for once more: the process may have stood still with it at hand, been given up, and
        what it brought be running elsewhere.
        """
        has_asked = False
        while True:
            begun = time.monotonic()
            fetched = storage.fetch(self.consumer, self.request, limits, at_most, suspects)
            if fetched.standing is Standing.GOOD:
                if fetched.deliveries and not has_asked and time.monotonic() - begun > self._in_time:
                    has_asked = True
                    continue
                if fetched.deliveries:
                    self.request += 1
                return fetched
            if fetched.standing is Standing.UNKNOWN:
                self.register(storage)
            else:
                logger.warning('%s: this consumer was taken for dead; what it ran may run twice. It goes on under a new name.',
                               self.consumer)
                self.renew(storage)


class HandLease:
    """Messages that a program takes by hand (``dequeue``), held by a beat of its own until they are settled or released."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lease: Lease | None = None
        self._stopped: ThreadWaiter | None = None
        self._locks: dict[str, Any] = {}
        self._unbegun: set[int] = set()

    def take(self, queues: Mapping[str, int], timeout: float) -> Delivery | None:
        """The next message, or None when none has come within ``timeout`` seconds. Any number of threads or greenlets may ask."""
        fetched = self._fetch(queues)
        if not fetched.deliveries and timeout > 0:
            due = timeout if fetched.next_due is None else min(timeout, fetched.next_due)
            self._storage.wait_wake([*queues, *map(for_suspects, queues)], due)
            fetched = self._fetch(queues)
        if not fetched.deliveries:
            return None
        self._unbegun.add(fetched.deliveries[0].tag)
        return fetched.deliveries[0]

    def begin(self, delivery: Delivery) -> None:
        """The delivery is about to be run."""
        self._unbegun.discard(delivery.tag)

    def _fetch(self, queues: Mapping[str, int]) -> Fetched:
        """A fetch by one at a time: two with the same number would bring the same message."""
        if self._pid != os.getpid():
            self._reset()
        with self._locks.setdefault('fetch', threading.Lock()):     # made now: gevent may have patched it since
            return self._registered().fetch(self._storage, queues, 1)

    def settle(self, delivery: Delivery, settlement: Settlement) -> bool:
        """The delivery has ended; False when it was not held any more."""
        ended = self._storage.settle(delivery.consumer, [settlement])[0]
        if isinstance(ended, StorageError):
            raise ended
        return ended

    def _registered(self) -> Lease:
        if self._lease is None:
            lease = Lease()
            lease.register(self._storage)
            self._stopped = ThreadWaiter()
            native.start_thread(beater(self._storage, lease, self._stopped))
            atexit.register(self.close)
            self._lease = lease
        return self._lease

    def close(self) -> None:
        """What is still held is back at the head of its queue."""
        lease, self._lease = self._lease, None
        if lease is not None and self._stopped is not None and self._pid == os.getpid():
            atexit.unregister(self.close)
            self._stopped.wake()
            try:
                while not self._storage.release(lease.consumer, 200, list(self._unbegun), LOST_TTL).done:
                    pass
            except StorageError as exc:
                logger.error('what was taken by hand could not be given back, a consumer will find it: %s', exc)


def beater(storage: BaseStorage, lease: Lease, stopped: ThreadWaiter) -> Callable[[], None]:
    """What a native thread runs to keep the lease alive, until it is stopped."""
    def run() -> None:
        beating = storage.session('beat')
        while not stopped.wait(BEAT_INTERVAL):
            try:
                beating.beat(lease.consumer)
            except StorageError:            # the next one may go through; who fetches will hear of it
                pass
        beating.close()
    return run


def _boot_id() -> str:
    """Which start of which (virtual) machine and of which process-number space this is; empty when the system does not say."""
    try:
        with open('/proc/sys/kernel/random/boot_id') as file:
            return file.read().strip() + ':' + os.readlink('/proc/self/ns/pid')
    except OSError:
        return ''


def _started() -> str:
    return process_started(os.getpid())


def process_started(pid: int) -> str:
    """When a process of this host was started, in clock ticks since the boot; empty when there is no such process."""
    try:
        with open(f'/proc/{pid}/stat', 'rb') as file:
            return file.read().rpartition(b')')[2].split()[19].decode()
    except (OSError, IndexError):
        return ''


def same_boot() -> str:
    """What the info of a process must say to be one that this process could see."""
    return _boot_id()
