"""What a decorated function is: calling it enqueues a task (or, when it is periodic, simply calls it)."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

from geventhuey.clock import Clock
from geventhuey.revocation import Revocations
from geventhuey.storage.base import name_field
from geventhuey.task import Expires, QueueTask, check_priority, check_task_id, expiry


class Application(Protocol):
    """What a decorated function needs of its Huey."""

    clock: Clock
    utc: bool
    revocations: Revocations

    def enqueue(self, task: QueueTask) -> Any: ...

    def enqueue_many(self, tasks: Iterable[QueueTask]) -> Any: ...

    def send(self, task: QueueTask, eta: datetime.datetime | None, delay: float | None, convert_utc: bool) -> Any: ...


class _Decorated:
    """A function and its task class."""

    def __init__(self, huey: Application, func: Callable[..., Any], task_class: type[QueueTask]) -> None:
        functools.update_wrapper(cast('Callable[..., Any]', self), func)
        self._huey = huey
        self._func = func
        #: The class of this function's tasks.
        self.task_class = task_class

    def call_local(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function here and now, without a queue."""
        return self._func(*args, **kwargs)

    def revoke(self, revoke_until: datetime.datetime | None = None, revoke_once: bool = False) -> None:
        """All tasks of this function are skipped until a datetime (naive: local time), the next one only, or until restored."""
        self._huey.revocations.revoke(name_field(self.task_class.task_name), revoke_until, revoke_once)

    def is_revoked(self, dt: datetime.datetime | None = None, peek: bool = True) -> bool:
        """True when a run at ``dt`` (naive: local time; now by default) would be skipped. Not ``peek``: this was that run."""
        return self._huey.revocations.is_revoked(name_field(self.task_class.task_name), dt, peek)

    def restore(self) -> bool:
        """The function is not revoked any more; True when it was."""
        return self._huey.revocations.restore(name_field(self.task_class.task_name))

    def __repr__(self) -> str:
        return f'<{type(self).__name__} {self.task_class.task_name}>'


class TaskFunction(_Decorated):
    """A function whose calls are tasks."""

    def __init__(self, huey: Application, func: Callable[..., Any], task_class: type[QueueTask],
                 retries: int, retry_delay: float, priority: int = 0, expires: Expires | None = None) -> None:
        super().__init__(huey, func, task_class)
        self._retries = retries
        self._retry_delay = retry_delay
        self._priority = priority
        self._expires = expires

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The call is enqueued. Returns a TaskResultWrapper, or None without a result store."""
        return self._huey.enqueue(self.s(*args, **kwargs))

    def s(self, *args: Any, **kwargs: Any) -> QueueTask:
        """The call as a task that is not enqueued yet, for ``huey.enqueue`` or ``huey.enqueue_many``."""
        task = self.task_class((args, kwargs), None, None, self._retries, self._retry_delay)
        if self._priority:
            task.priority = self._priority
        if self._expires is not None:
            task.expires = expiry(self._expires, self._huey.clock.now())
        return task

    def map(self, iterable: Iterable[Any]) -> Any:
        """One call for each item is enqueued, hundreds of them by each round trip; an item that is a tuple is several arguments.

        Returns a ResultGroup, or None without a result store; raises what ``huey.enqueue_many`` raises.
        """
        calls = (self.s(*item) if isinstance(item, tuple) else self.s(item) for item in iterable)
        return self._huey.enqueue_many(list(calls) if isinstance(iterable, Sequence) else calls)

    def schedule(self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None,
                 eta: datetime.datetime | None = None, delay: float | None = None, convert_utc: bool = True,
                 task_id: str | None = None, *, priority: int | None = None, expires: Expires | None = None) -> Any:
        """The call will be run at the time ``eta``, or ``delay`` seconds from now; at once with neither.

        :param args: positional arguments, as a sequence.
        :param kwargs: keyword arguments, as a mapping.
        :param eta: a datetime. An aware one says itself what it means; a naive one is local time when ``convert_utc``, and
            otherwise in the application's own time: UTC, or local with ``Huey(utc=False)``.
        :param delay: seconds, by the storage's clock.
        :param task_id: the task's identity; a new one by default.
        :param priority: instead of the function's: higher ones run first, 0 is ordinary.
        :param expires: instead of the function's: not to be started any more so many seconds (or a timedelta) from now, or from a
            datetime on.
        :raises ValueError: both eta and delay were given, or one is out of bounds.
        :raises TypeError: eta is no datetime, delay no number, args no sequence or kwargs no mapping.
        """
        given, named = _call_data(args, kwargs)
        task = self.s(*given, **named)
        if task_id is not None:
            task.task_id = check_task_id(task_id)
        if priority is not None:
            task.priority = check_priority(priority)
        if expires is not None:
            task.expires = expiry(expires, self._huey.clock.now())
        return self._huey.send(task, eta, delay, convert_utc)


class PeriodicFunction(_Decorated):
    """A function that consumers run by the clock; a call of it is an ordinary call."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._func(*args, **kwargs)


def _call_data(args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments as a call has them. Raises TypeError for what can be none, such as a text instead of a sequence."""
    if isinstance(args, (str, bytes)) or (args is not None and not isinstance(args, Sequence)):
        raise TypeError(f'args must be a sequence such as a tuple, not {type(args).__name__}: for one argument write args=(x,)')
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f'kwargs must be a mapping such as a dict, not {type(kwargs).__name__}')
    return tuple(args or ()), dict(kwargs or {})
