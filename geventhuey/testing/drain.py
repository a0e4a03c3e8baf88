"""drain: the tasks in the queue, run here and now by the real engine's steps."""

from __future__ import annotations

from geventhuey.api import Huey
from geventhuey.executor import FAILED, FINISHED, RETRYING
from geventhuey.inspection import DEFAULT_QUEUE
from geventhuey.lease import Lease
from geventhuey.message import Message
from geventhuey.storage.base import Delivery, Settlement
from geventhuey.task import QueueTask


def drain(huey: Huey, limit: int | None = None) -> list[QueueTask]:
    """Everything in the queue has run, and everything that came into it or fell due meanwhile; answers what ran, in that order.

    Results, errors and retries are recorded as a consumer does it; what a task raises does not come out of here.  What is not
    due yet stays in the schedule: with a ``ManualClock``, turn it and drain again.

    :param limit: runs at most; None for as many as it takes.
    """
    lease = Lease()
    lease.register(huey.storage)
    ran: list[QueueTask] = []
    try:
        while limit is None or len(ran) < limit:
            fetched = lease.fetch(huey.storage, {DEFAULT_QUEUE: 1}, 1)
            if not fetched.deliveries:
                break
            ran += _run(huey, fetched.deliveries[0], huey.events and fetched.listeners > 0)
    finally:
        while not huey.storage.release(lease.consumer, 1).done:
            pass
    return ran


def _run(huey: Huey, delivery: Delivery, listening: bool) -> list[QueueTask]:
    """The delivery has ended; answers its task, unless it was not to be run."""
    outcome = huey.executor(lambda: listening).execute(delivery, lambda event: huey.storage.publish([event]))
    huey.storage.settle(delivery.consumer, [Settlement(delivery.tag, outcome.effects)])
    if outcome.status not in (FINISHED, FAILED, RETRYING):
        return []
    return [huey.registry.task(Message.decode(delivery.message))]
