"""Results: the wrapper that a call returns, and how one waits for them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

from geventhuey.envelope import RESULT, Envelope
from geventhuey.exceptions import (
    ConfigurationError,
    DataStoreGetException,
    DataStoreTimeout,
    ResultConsumed,
    SerializationError,
    SignatureError,
    StorageError,
    StorageUnavailable,
    TaskCancelled,
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

    def reschedule(self, task: QueueTask, eta: datetime.datetime | None, delay: float | None, convert_utc: bool) -> Any: ...


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
        _check_timeout(timeout)
        if not self._is_known():
            for _ in _arrivals(self.huey, [self], blocking, timeout, revoke_on_timeout, preserve):
                pass
        return self._value(blocking)

    def _is_known(self) -> bool:
        """True when it has been read from the store, whatever it is."""
        return self._result is not _MISSING or self._record is not None

    def _value(self, blocking: bool) -> Any:
        """What ``get`` answers or raises, by what has been read so far."""
        if self._result is not _MISSING:
            return self._result
        return None if self._record is None else self._read(self._record, blocking)

    def _keep(self, record: bytes) -> None:
        """The record has been read; whatever it is, and can it be understood or not: it will not come again."""
        if record[:1] == base.CONSUMED and self._is_known():        # by another thread, which has read it for this very object
            return
        self._record = record

    def revoke(self) -> None:
        """The task will not be run, unless it is running or has run already."""
        self.huey.revoke(self.task)

    def restore(self) -> bool:
        """The task is not revoked any more; True when it was. It will run unless it has been skipped already."""
        return self.huey.restore(self.task)

    def is_ready(self) -> bool:
        """True when the task has ended, in whatever way; what it has left stays where it is, and is not waited for.

        Of a task that left no result that is known for a minute.  Raises DataStoreGetException when the storage cannot be read.
        """
        if self._is_known():
            return True
        try:
            return self.huey.storage.result(self.task_id, preserve=True) is not None
        except StorageError as exc:
            raise DataStoreGetException(f'{type(exc).__name__}: {exc}') from exc

    def reschedule(self, eta: datetime.datetime | None = None, delay: float | None = None, convert_utc: bool = True) -> Any:
        """The task is revoked, and a new one like it runs at ``eta``, after ``delay`` seconds, or at once. Returns the new one's wrapper.

        A task that runs already is not stopped by that. ``eta``, ``delay``, ``convert_utc`` and errors are those of ``schedule``.
        """
        return self.huey.reschedule(self.task, eta, delay, convert_utc)

    def reset(self) -> None:
        """Forgets what was read, so that the next ``get`` asks the store again."""
        self._result = _MISSING
        self._record = None

    def __repr__(self) -> str:
        return f'<{type(self).__name__} {self.task_id}>'

    def __reduce__(self) -> str:
        raise TypeError('a result cannot be an argument: pass what it holds, result.get(blocking=True), or its task_id')

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
        if kind == base.CANCELLED:
            raise TaskCancelled(f'{self.task_id} was cancelled: {rest.decode("utf-8", "replace")}', {'task_id': self.task_id})
        if blocking and kind == base.REVOKED:
            raise TaskRevoked(f'{self.task_id} was revoked before it started', {'task_id': self.task_id})
        if blocking and kind == base.CONSUMED:
            raise ResultConsumed(f'the result of {self.task_id} has been read already; read it with preserve=True to keep it')
        return None


class EagerTaskResult(TaskResultWrapper):
    """The result of a task that was run at the call (``always_eager``): the same methods, and the value is there."""

    def __init__(self, huey: Application, task: QueueTask, value: object) -> None:
        super().__init__(huey, task)
        self._result = value

    def revoke(self) -> None:
        """Nothing: it has run."""

    def restore(self) -> bool:
        """False: it was not revoked."""
        return False

    def reset(self) -> None:
        """The value stays."""


class ResultGroup:
    """The results of many tasks. Waiting for all of them takes one connection, and reads what has come in between all at once."""

    def __init__(self, huey: Application, results: Iterable[TaskResultWrapper]) -> None:
        self.huey = huey
        self._results = list(results)
        for result in self._results:
            if not isinstance(result, TaskResultWrapper):
                raise TypeError(f'a group is of results, not of {result!r}')
            if result.huey is not huey:
                raise ConfigurationError(f'{result!r} is of another application: one group for each')

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[TaskResultWrapper]:
        """The wrapper of each task, in the order of the calls; for their values there are ``get`` and ``as_completed``."""
        return iter(self._results)

    def __getitem__(self, index: int) -> Any:
        """What the task of this number returned, as soon as it has ended."""
        return self._results[index].get(blocking=True)

    def is_ready(self) -> bool:
        """True when all tasks have ended; what they have left stays where it is, and is not waited for."""
        missing = [result.task_id for result in self._results if not result._is_known()]
        try:
            return None not in self.huey.storage.results_of(missing, preserve=True)
        except StorageError as exc:
            raise DataStoreGetException(f'{type(exc).__name__}: {exc}') from exc

    def __call__(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Identical to :meth:`get`."""
        return self.get(*args, **kwargs)

    def get(self, blocking: bool = False, timeout: float | None = None, backoff: float = 1.15, max_delay: float = 1.0,
            revoke_on_timeout: bool = False, preserve: bool = False) -> list[Any]:
        """What the tasks returned, in the order of the calls; None for those that are not there yet.

        Parameters and errors are those of ``TaskResultWrapper.get``; ``timeout`` is for all together.  While blocking, the first failure
        that is known is raised; what the others have returned, and will return, can still be had.
        """
        _check_timeout(timeout)
        for result in _arrivals(self.huey, self._results, blocking, timeout, revoke_on_timeout, preserve):
            if blocking:
                result._value(blocking)
        return [result._value(blocking) for result in self._results]

    def as_completed(self, timeout: float | None = None, backoff: float = 1.15, max_delay: float = 1.0,
                     preserve: bool = False) -> Iterator[Any]:
        """What the tasks returned, in the order in which they end. Raises as ``get`` does, and can be begun anew after that.

        :param timeout: seconds for all together; None waits as long as it takes.
        """
        _check_timeout(timeout)
        ready = [result for result in self._results if result._is_known()]
        for result in chain(ready, _arrivals(self.huey, self._results, True, timeout, False, preserve)):
            yield result._value(True)

    def revoke(self) -> None:
        """None of the tasks will be run that has not been started."""
        for result in self._results:
            result.revoke()

    def reset(self) -> None:
        """Forgets what was read, so that the next ``get`` asks the store again."""
        for result in self._results:
            result.reset()

    def __repr__(self) -> str:
        return f'<{type(self).__name__} of {len(self)}>'


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float))):
        raise TypeError(f'timeout must be a number of seconds or None, not {timeout!r}')
    if timeout is not None and not timeout >= 0:
        raise ValueError(f'timeout={timeout}: seconds from 0 are needed; use None to wait without an end')


def _arrivals(huey: Application, results: Sequence[TaskResultWrapper], blocking: bool, timeout: float | None, revoke_on_timeout: bool,
              preserve: bool) -> Iterator[TaskResultWrapper]:
    """Those whose records are not known yet, as they are read: all, unless it is not ``blocking``. Raises as ``get`` does."""
    missing: dict[str, list[TaskResultWrapper]] = {}
    for result in results:
        if not result._is_known():
            missing.setdefault(result.task_id, []).append(result)
    if not missing:
        return
    try:
        for records in _waited_for(huey.storage, list(missing), timeout, preserve) if blocking else \
                [_read(huey.storage, list(missing), preserve)]:
            arrived = [(result, record) for task_id, record in records for result in missing.pop(task_id)]
            for result, record in arrived:      # all of them first: whoever is told of one may not come back for the others
                result._keep(record)
            for result, _ in arrived:
                yield result
    except DataStoreTimeout:
        if revoke_on_timeout:
            for of_one_task in missing.values():
                of_one_task[0].revoke()
        raise
    except StorageError as exc:
        raise DataStoreGetException(f'{type(exc).__name__}: {exc}') from exc


def _read(storage: BaseStorage, task_ids: Sequence[str], preserve: bool) -> list[tuple[str, bytes]]:
    """The tasks that have a record, and what it is."""
    found = zip(task_ids, storage.results_of(task_ids, preserve), strict=True) if task_ids else ()
    return [(task_id, record) for task_id, record in found if record is not None]


def _waited_for(storage: BaseStorage, task_ids: Sequence[str], timeout: float | None,
                preserve: bool) -> Iterator[list[tuple[str, bytes]]]:
    """The tasks' records, as soon as they are there. Raises DataStoreTimeout, or StorageUnavailable when they cannot even be asked for."""
    deadline = None if timeout is None else time.monotonic() + timeout
    missing, woken, me, was_there = dict.fromkeys(task_ids), deque[str](), waiter(), False
    all_at = time.monotonic() + LOOK_AGAIN

    def wake(task_id: str) -> None:
        woken.append(task_id)
        me.wake()

    with storage.watching_all({task_id: partial(wake, task_id) for task_id in task_ids}):
        while missing:
            next_look = all_at if deadline is None else min(all_at, deadline)
            me.wait(max(0.0, next_look - time.monotonic()))
            is_late = deadline is not None and time.monotonic() >= deadline
            if is_late or time.monotonic() >= all_at:       # a push may have been lost
                look, all_at = list(missing), time.monotonic() + LOOK_AGAIN
                woken.clear()
            else:
                look = [task_id for task_id in _taken(woken) if task_id in missing]
            try:
                records = _read(storage, look, preserve)
                was_there = True
            except StorageUnavailable:                      # an outage in between is waited out
                if not was_there:                           # never reached: say so at once
                    raise
                records = []
            for task_id, _ in records:
                del missing[task_id]
            yield records
            if is_late and missing:
                what = next(iter(missing)) if len(task_ids) == 1 else f'{len(missing)} of {len(task_ids)} tasks'
                raise DataStoreTimeout(f'no result of {what} within {timeout:g} s{_why(storage)}')


def _taken(woken: deque[str]) -> dict[str, None]:
    """Everybody who was woken, each once, in order."""
    return dict.fromkeys(woken.popleft() for _ in range(len(woken)))


def _why(storage: BaseStorage) -> str:
    """A reason that is easily overlooked, when there is one."""
    try:
        return '' if storage.consumers() else f': no consumer of {storage.name!r} is running'
    except StorageError:
        return ''
