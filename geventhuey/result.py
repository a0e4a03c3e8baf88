"""Results: the wrapper that a call returns, and how one waits for them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from geventhuey.envelope import RESULT, Envelope
from geventhuey.exceptions import (
    DataStoreGetException,
    DataStoreTimeout,
    ResultConsumed,
    SerializationError,
    SignatureError,
    StorageError,
    StorageUnavailable,
    TaskException,
    TaskLost,
    TaskRevoked,
)
from geventhuey.storage import base
from geventhuey.storage.base import BaseStorage
from geventhuey.task import QueueTask
from geventhuey.waiter import waiter

if TYPE_CHECKING:
    import datetime

#: Seconds after which one who waits looks again by himself: so much a lost push can cost.
LOOK_AGAIN = 5.0

_MISSING: Any = object()


class Application(Protocol):
    """What a result needs of its Huey."""

    storage: BaseStorage
    envelope: Envelope

    def revoke(self, task: QueueTask, revoke_until: datetime.datetime | None = None, revoke_once: bool = False) -> None: ...

    def restore(self, task: QueueTask) -> bool: ...


class TaskResultWrapper:
    """The result of one task, which may still be to come."""

    def __init__(self, huey: Application, task: QueueTask) -> None:
        self.huey = huey
        self.task = task
        self._result = _MISSING
        self._record: bytes | None = None       # of a task that has ended, but not with a value

    @property
    def task_id(self) -> str:
        """The identity of the task."""
        return self.task.task_id

    id = task_id

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Identical to :meth:`get`."""
        return self.get(*args, **kwargs)

    def get(self, blocking: bool = False, timeout: float | None = None, backoff: float = 1.15, max_delay: float = 1.0,
            revoke_on_timeout: bool = False, preserve: bool = False) -> Any:
        """The task's return value; None when it is not there yet, or when the task returned None.

        :param blocking: wait for the task's end. What a task returned is delivered at once: nothing polls.
        :param timeout: seconds to wait at most; None waits as long as it takes.
        :param backoff: accepted for Huey's sake; without effect, as nothing polls.
        :param max_delay: likewise.
        :param revoke_on_timeout: when the time is over, revoke the task, so that it does not start any more.
        :param preserve: leave the result in the store for others to read.
        :raises TaskException: the task failed (TaskLost: it will not run; TaskRevoked: it was revoked).
        :raises DataStoreTimeout: the time is over.
        :raises ResultConsumed: somebody else has read the result (only while blocking).
        :raises DataStoreGetException: the storage could not be read.
        """
        if self._result is not _MISSING:
            return self._result
        if timeout is not None and not timeout >= 0:
            raise ValueError(f'timeout={timeout}: seconds from 0 are needed; use None to wait without an end')
        if self._record is not None:
            return self._read(self._record, blocking)
        try:
            record = self._wait(timeout, preserve) if blocking else self.huey.storage.result(self.task_id, preserve)
        except DataStoreTimeout:
            if revoke_on_timeout:
                self.revoke()
            raise
        except StorageError as exc:
            raise DataStoreGetException(f'{type(exc).__name__}: {exc}') from exc
        if record is None:
            return None
        self._record = record                   # whatever it is, and can it be read or not: it will not come again
        return self._read(record, blocking)

    def revoke(self) -> None:
        """The task will not be run, unless it is running or has run already."""
        self.huey.revoke(self.task)

    def restore(self) -> bool:
        """The task is not revoked any more; True when it was. It will run unless it has been skipped already."""
        return self.huey.restore(self.task)

    def reset(self) -> None:
        """Forgets what was read, so that the next ``get`` asks the store again."""
        self._result = _MISSING
        self._record = None

    def __repr__(self) -> str:
        return f'<{type(self).__name__} {self.task_id}>'

    def __reduce__(self) -> str:
        raise TypeError('a result cannot be an argument: pass what it holds, result.get(blocking=True), or its task_id')

    def _wait(self, timeout: float | None, preserve: bool) -> bytes:
        """The record, as soon as it is there."""
        storage = self.huey.storage
        deadline = None if timeout is None else time.monotonic() + timeout
        me = waiter()
        was_there = False
        with storage.watching(self.task_id, me.wake):
            while True:
                left = None if deadline is None else deadline - time.monotonic()
                me.wait(LOOK_AGAIN if left is None else max(0.0, min(LOOK_AGAIN, left)))
                try:
                    record = storage.result(self.task_id, preserve)
                    was_there = True
                except StorageUnavailable:
                    if not was_there:               # never reached: say so at once; an outage in between is waited out
                        raise
                    record = None
                if record is not None:
                    return record
                if left is not None and left <= 0:
                    raise DataStoreTimeout(f'no result of {self.task_id} within {timeout:g} s{self._why()}')

    def _why(self) -> str:
        """A reason that is easily overlooked, when there is one."""
        try:
            return '' if self.huey.storage.consumers() else f': no consumer of {self.huey.storage.name!r} is running'
        except StorageError:
            return ''

    def _read(self, record: bytes, blocking: bool) -> Any:
        kind, rest = record[:1], record[1:]
        envelope, whose = self.huey.envelope, kind + self.task_id.encode()
        try:
            if kind == base.VALUE:
                self._result = envelope.loads(RESULT, rest, whose)
                self._record = None
                return self._result
            if kind == base.ERROR:
                metadata = {'task_id': self.task_id, **dict(envelope.loads(RESULT, rest, whose))}
                raise TaskException(str(metadata.get('error')), metadata)
            if kind == base.NOTHING and not envelope.is_sealed(RESULT, whose, rest.decode('ascii')):
                raise SignatureError('that it was None is not signed by us')
        except (SerializationError, TypeError, ValueError) as exc:
            raise DataStoreGetException(f'the result of {self.task_id} cannot be read: {exc}') from exc
        if kind == base.LOST:
            raise TaskLost(f'{self.task_id}: {rest.decode("utf-8", "replace")}', {'task_id': self.task_id})
        if blocking and kind == base.REVOKED:
            raise TaskRevoked(f'{self.task_id} was revoked before it started', {'task_id': self.task_id})
        if blocking and kind == base.CONSUMED:
            raise ResultConsumed(f'the result of {self.task_id} has been read already; read it with preserve=True to keep it')
        return None


class EagerTaskResult(TaskResultWrapper):
    """The result of a task that was run at the call (``always_eager``): the same methods, and the value is there."""

    def __init__(self, huey: Application, task: QueueTask, value: object) -> None:
        super().__init__(huey, task)
        self._value = self._result = value

    def revoke(self) -> None:
        """Nothing: it has run."""

    def restore(self) -> bool:
        """False: it was not revoked."""
        return False

    def reset(self) -> None:
        """The value stays."""
