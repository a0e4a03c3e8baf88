"""Dead letters: tasks that nobody will run unless somebody says so."""

from __future__ import annotations

import datetime
from typing import NamedTuple

from geventhuey.exceptions import MessageError
from geventhuey.message import Message


class DeadLetter(NamedTuple):
    """A task that was given up, and why. ``huey.retry_dead(letter.id)`` has it run again."""

    #: The task's id.
    id: str
    #: The task's name.
    name: str
    #: The queue that it was in.
    queue: str
    #: Why it was given up.
    reason: str
    #: When it was given up (aware, UTC), and when it was sent.
    died: datetime.datetime
    created: datetime.datetime
    #: How many consumers have died while they ran it.
    deliveries: int
    #: The message as it was; it may hold arguments.
    message: bytes

    def __repr__(self) -> str:
        return f'<DeadLetter {self.name} {self.id}, {self.died:%Y-%m-%d %H:%M:%S} UTC: {self.reason}>'

    @classmethod
    def of(cls, died: float, reason: str, raw: bytes) -> DeadLetter:
        """The dead letter that a storage tells of."""
        try:
            message = Message.decode(raw)
        except MessageError:
            message = Message('', '', b'', '')
        return cls(message.id, message.name, message.queue, reason, _moment(died), _moment(message.created), message.deliveries, raw)


def _moment(timestamp: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(timestamp, datetime.timezone.utc)
