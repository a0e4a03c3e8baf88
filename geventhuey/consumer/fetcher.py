"""Fetcher: fetches as many tasks as there are free workers, never more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gevent
from gevent.event import Event

from geventhuey.consumer.component import Component, Outage, Pool
from geventhuey.exceptions import StorageError
from geventhuey.lease import Lease
from geventhuey.storage.base import MAX_FETCH, BaseStorage, Delivery, Suspects, for_suspects

#: Seconds that it waits to be woken at most. Then it looks itself: so much a lost wake token can cost.
LONGEST_WAIT = 5.0
#: Seconds that the others' being woken may hold up a stop.
LAST_WAKE = 1.0
#: Bytes that one answer should not exceed by much.
MAX_ANSWER = 4 * 1024 * 1024
#: Messages that are asked for when nothing is known of their size; twice as many after each answer that was not large.
FIRST = 64


class Fetcher(Component):
    """Moves messages from the storage to the pool: at once when there are any, and woken when there are not.

    While it can take messages, a second greenlet waits for the wake token.  A token that comes when it cannot is given back, so
    that another consumer gets it.

    :param backlog: says whether so much is unsettled that no more should be fetched.
    :param suspects: says how many suspects may come.
    :param run: takes each delivery.
    """

    def __init__(self, storage: BaseStorage, waiting: BaseStorage, lease: Lease, pool: Pool, limits: Mapping[str, int],
                 backlog: Callable[[], bool], suspects: Callable[[], Suspects], run: Callable[[Delivery], None], outage: Outage) -> None:
        super().__init__(outage)
        self._storage = storage
        self._waiting = waiting
        self._lease = lease
        self._pool = pool
        self._limits = limits
        self._queues = list(limits)
        self._for_suspects = [for_suspects(queue) for queue in limits]
        self._backlog = backlog
        self._suspects = suspects
        self._run = run
        self._room = Event()            # a worker is free, or the backlog is gone
        self._news = Event()            # there may be something to fetch
        self._hungry = Event()          # it could take something
        # half of the workers: while these run, the other half's tasks are fetched and settled
        self._most = min(MAX_FETCH, max(FIRST, max(limits.values()) // 2))
        self._at_most = FIRST
        self._is_due_soon = False
        self._ear: Any = None
        #: How many listen to the events, as the last fetch said.
        self.listeners = 0
        #: How many messages have been asked for and may still come: workers that are promised to them.
        self.asked = 0

    def start(self) -> None:
        if not super().is_alive() or self._greenlet is None:    # two of them would fetch the same messages
            super().start()
        if self._ear is None or self._ear.dead:
            self._ear = gevent.spawn(self._listen)

    def stop(self, timeout: float | None = None) -> None:
        """It fetches no more; what is in the queue is for others, who are woken."""
        super().stop(timeout)
        if self._ear is not None:
            self._ear.kill()
            try:
                with gevent.Timeout(LAST_WAKE, False):
                    self._storage.wake(self._queues)
            except StorageError:        # whoever waits looks for himself, soon
                pass

    def abandon(self) -> None:
        super().abandon()
        if self._ear is not None:
            self._ear.kill(block=False)

    def is_alive(self) -> bool:
        return super().is_alive() and (self._ear is None or self._stopping or not self._ear.dead)

    def freed(self) -> None:
        """A worker is free, or something was settled."""
        if not self._room.is_set():
            self._room.set()

    def look(self) -> None:
        """There may be something to fetch: a suspect has ended, and made room for the next one."""
        self._news.set()

    def run_once(self) -> None:
        """Fetches once, and waits for a worker to be free or for something to fetch."""
        wanted = min(self._pool.free(), self._at_most)
        if wanted <= 0 or self._backlog():
            self._wait_for_room()
            return
        self._hungry.set()
        self.asked = wanted             # until there is an answer: a lost one may have brought them
        fetched = self._lease.fetch(self._storage, self._limits, wanted, self._suspects())
        self.asked = 0
        self.listeners = fetched.listeners
        self._is_due_soon = fetched.next_due is not None and fetched.next_due < LONGEST_WAIT
        size = 0
        for delivery in fetched.deliveries:
            size += len(delivery.message)
            self._run(delivery)
        self._adapt(size, len(fetched.deliveries), wanted)
        if len(fetched.deliveries) < wanted:
            self._outage.over(self)     # it may wait long from here on
            if self._news.wait(LONGEST_WAIT if fetched.next_due is None else min(LONGEST_WAIT, fetched.next_due)):
                self._news.clear()

    def _adapt(self, size: int, count: int, wanted: int) -> None:
        """The next answer will not be much larger than MAX_ANSWER."""
        if size > MAX_ANSWER:
            self._at_most = max(1, count // 2)
        elif count < wanted:                # what comes next may be of another kind
            self._at_most = min(self._at_most, FIRST)
        elif count == self._at_most:
            self._at_most = min(self._most, count * 2)

    def _wait_for_room(self) -> None:
        self._hungry.clear()
        if self._news.is_set() or self._is_due_soon:        # somebody else may have the time for it
            self._news.clear()
            self._is_due_soon = False
            self._storage.wake(self._queues)
        self._room.clear()
        if self._pool.free() <= 0 or self._backlog():
            self._room.wait(LONGEST_WAIT)

    def _has_room_for_suspects(self) -> bool:
        return any(room for _, room in self._suspects())

    def _listen(self) -> None:
        """Waits for the token whenever the fetcher could take something."""
        pause, longest = 0.05, LONGEST_WAIT
        while not self._stopping:
            self._hungry.wait()
            try:
                had_room = self._has_room_for_suspects()
                if self._waiting.wait_wake(self._queues + self._for_suspects * had_room, longest):
                    self._news.set()
                    if had_room and not self._has_room_for_suspects():      # somebody else may have it
                        self._storage.wake(self._for_suspects)
                    if not self._hungry.is_set():
                        self._news.clear()
                        self._storage.wake(self._queues)
                pause, longest = 0.05, LONGEST_WAIT
                self._outage.over('ear')
            except StorageError as exc:
                self._outage.begun('ear', exc)
                gevent.sleep(pause)
                pause, longest = min(2.0, pause * 2), 0.01      # when the storage is back, that is to be known soon
