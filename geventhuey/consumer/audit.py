"""Audit: compares what the storage believes we hold with what we know we hold."""

from __future__ import annotations

import logging
from collections.abc import Callable

from geventhuey.consumer.component import Component, Outage
from geventhuey.lease import Lease
from geventhuey.storage.base import TAGS_PER_REQUEST, BaseStorage, Delivery

logger = logging.getLogger('geventhuey.consumer')

#: Seconds between two looks.
INTERVAL = 15.0


class Audit(Component):
    """A message that is in flight under our name and that we know nothing of (Redis went back in time, say) is run.

    Known is what runs and what is not settled; it is looked at before and after the storage is asked, so that no quiet moment is
    needed.  A tag of a request that has not been answered yet is none of its business.

    :param free: how many workers have nothing to do and nothing to wait for.
    :param run: takes what is found.
    :param known: the deliveries that run or are not settled.
    :param held: how many messages the storage counted at the last beat.
    """

    def __init__(self, storage: BaseStorage, lease: Lease, free: Callable[[], int], run: Callable[[Delivery], None],
                 known: Callable[[], list[Delivery]], held: Callable[[], int], outage: Outage) -> None:
        super().__init__(outage)
        self._storage = storage
        self._lease = lease
        self._free = free
        self._run = run
        self._known = known
        self._held = held
        self._suspected: set[int] = set()

    def rest(self) -> float:
        return INTERVAL

    def run_once(self) -> None:
        """Looks when the counts differ; what was unknown at two looks is run, as far as workers are free."""
        before = self._tags()
        if self._held() <= len(before) and not self._suspected:
            return
        consumer, answered = self._lease.consumer, self._lease.request
        held = self._storage.held(consumer)
        known = before | self._tags()
        unknown = {tag for tag in held if tag not in known and tag // TAGS_PER_REQUEST < answered}
        leaked = sorted(unknown & self._suspected)[:max(0, self._free())]
        self._suspected = unknown.difference(leaked)
        for delivery in self._storage.recall(consumer, leaked):
            if delivery.tag not in self._tags() and self._free() > 0:
                logger.warning('a task that is in flight under our name was unknown here: it is run (%s, tag %d)', consumer, delivery.tag)
                self._run(delivery)

    def _tags(self) -> set[int]:
        return {delivery.tag for delivery in self._known() if delivery.consumer == self._lease.consumer}
