"""Who is revoked: one task by its id, or all tasks of a name."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from geventhuey.clock import Clock, to_timestamp
from geventhuey.envelope import REVOCATION, Envelope
from geventhuey.exceptions import DataStoreGetException, DataStorePutException, QueueException, StorageError
from geventhuey.storage.base import BaseStorage, Revocation, name_field, task_field
from geventhuey.task import PeriodicQueueTask, QueueTask

logger = logging.getLogger('geventhuey')


class Revocations:
    """Revokes, restores and asks. ``ttl``: seconds after which a revocation is forgotten, None for never.

    Raises DataStorePutException when one cannot be written, DataStoreGetException when it cannot be read or taken back.
    """

    def __init__(self, storage: BaseStorage, envelope: Envelope, clock: Clock, ttl: float | None) -> None:
        self._storage = storage
        self._envelope = envelope
        self._clock = clock
        self._ttl = ttl

    def revoke(self, field: str, until: datetime.datetime | None, once: bool) -> None:
        """The task or name is revoked until a datetime (naive: local time), for its next run only, or altogether."""
        instant = None if until is None else to_timestamp(until)
        ttl = self._ttl
        if ttl is not None and instant is not None:     # not forgotten while it holds
            ttl = max(ttl, instant - self._clock.now() + ttl)
        revocation = Revocation(instant, once)
        seal = self._envelope.seal(REVOCATION, revocation.identity(field))
        with _named(DataStorePutException):
            self._storage.revoke(field, revocation._replace(signature=seal), ttl)

    def restore(self, field: str) -> bool:
        """The task or name is not revoked; True when it was."""
        with _named(DataStoreGetException):
            return self._storage.restore(field)

    def is_revoked(self, field: str, moment: datetime.datetime | None, peek: bool) -> bool:
        """True when a run at the moment (naive: local time; None: now) would be skipped; not ``peek``: that was this run."""
        with _named(DataStoreGetException):
            revocation = self._storage.revocation(field)
        if revocation is None:
            return False
        if not self._envelope.is_sealed(REVOCATION, revocation.identity(field), revocation.signature):
            logger.error('the revocation of %s is not signed by us: it counts for nothing', field)
            return False
        if revocation.once:
            return peek or self.restore(field)
        at = self._clock.now() if moment is None else to_timestamp(moment)
        return revocation.until is None or revocation.until > at


@contextmanager
def _named(error: type[QueueException]) -> Iterator[None]:
    """What goes wrong with the storage is raised as this error."""
    try:
        yield
    except StorageError as exc:
        raise error(f'{type(exc).__name__}: {exc}') from exc


def field_of(task: Any) -> str:
    """Where the revocation of a task (or of a task id) is kept; a periodic one is revoked as a whole."""
    if isinstance(task, PeriodicQueueTask):
        return name_field(task.task_name)
    if isinstance(task, QueueTask):
        return task_field(task.task_id)
    if isinstance(task, str):
        return task_field(task)
    raise TypeError(f'a task or a task id is needed, not {task!r}')


def fields_of(task: Any) -> tuple[str, ...]:
    """Where everything is kept that may revoke a task: what revokes it alone, and what revokes all of its name."""
    own = field_of(task)
    name = task.task_name if isinstance(task, QueueTask) else ''
    return (own, name_field(name)) if name and own != name_field(name) else (own,)
