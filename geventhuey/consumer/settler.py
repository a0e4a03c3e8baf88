"""Settler: outcomes to the storage in group commits; keeps them while the storage is away."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import groupby

from gevent.event import Event

from geventhuey.consumer.component import Component, Outage
from geventhuey.exceptions import StorageError, StorageUnavailable
from geventhuey.executor import RELEASED, Outcome
from geventhuey.storage.base import BaseStorage, Delivery, Settlement

logger = logging.getLogger('geventhuey.consumer')


class Settler(Component):
    """Sends the first outcome at once; those that come meanwhile ride on the next trip. No timer.

    :param settled: called after each trip.
    """

    def __init__(self, storage: BaseStorage, settled: Callable[[], None], outage: Outage) -> None:
        super().__init__(outage)
        self._storage = storage
        self._settled = settled
        self._outcomes: list[Outcome] = []
        self._events: list[bytes] = []
        self._sending: list[Outcome] = []
        self._sent_before = False       # whether what is being sent may have arrived already
        self._news = Event()
        #: How many deliveries turned out to be somebody else's when they ended: the lease was lost, and they run twice.
        self.fenced = 0
        #: How many outcomes of each status have been settled.
        self.counts: dict[str, int] = {}

    def add(self, outcome: Outcome) -> None:
        """The outcome will be settled, unless it says that it has not ended."""
        if outcome.status != RELEASED:
            self._outcomes.append(outcome)
            if not self._news.is_set():
                self._news.set()

    def announce(self, event: bytes) -> None:
        """The event will be published, before the outcomes that are added later."""
        self._events.append(event)
        if not self._news.is_set():
            self._news.set()

    def backlog(self) -> int:
        """How many outcomes are not settled yet."""
        return len(self._outcomes) + len(self._sending)

    def unsettled(self) -> list[Delivery]:
        """The deliveries that have ended and are not settled yet."""
        return [outcome.delivery for outcome in (*self._sending, *self._outcomes)]

    def run_once(self) -> None:
        """Sends everything there is, as soon as there is something."""
        if not self._sending:
            self._news.wait()
            self._news.clear()
            self._sending, self._outcomes = self._outcomes, []
            self._sent_before = False
        events, self._events = self._events, []
        for consumer, group in groupby(self._sending, lambda outcome: outcome.delivery.consumer):
            outcomes = list(group)
            self._settle(consumer, outcomes, events)
            events = []
        if events:
            self._storage.publish(events)
        self._sending = []
        self._settled()

    def _settle(self, consumer: str, outcomes: list[Outcome], events: list[bytes]) -> None:
        settlements = [Settlement(outcome.delivery.tag, outcome.effects) for outcome in outcomes]
        try:
            done = self._storage.settle(consumer, settlements, events)
        except StorageUnavailable:
            self._sent_before = True
            raise
        for outcome, ended in zip(outcomes, done, strict=True):
            if isinstance(ended, StorageError):     # the audit will find it in flight, and it is run again
                logger.error('the end of a task could not be stored, it will be run again (%s, tag %d): %s',
                             consumer, outcome.delivery.tag, ended)
                continue
            self.counts[outcome.status] = self.counts.get(outcome.status, 0) + 1
            if not ended and not self._sent_before:
                self.fenced += 1
                logger.warning('a task that ended here was not ours any more (its lease was lost, or Redis has forgotten it): '
                               'it may run twice; %s, tag %d',
                               consumer, outcome.delivery.tag)
