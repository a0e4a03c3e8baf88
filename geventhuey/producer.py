"""Producer: tasks on their way into the queue or the schedule, one at a time or many at once."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from geventhuey import events
from geventhuey.clock import Clock, to_timestamp
from geventhuey.exceptions import (
    ConfigurationError,
    EnqueueOutcomeUnknown,
    QueueException,
    QueueWriteException,
    ScheduleAddException,
    StorageError,
    StorageOutcomeUnknown,
)
from geventhuey.message import PERIODIC, WANTS_RESULT, Message
from geventhuey.signals import SIGNAL_ENQUEUED, SIGNAL_SCHEDULED, Callbacks
from geventhuey.storage.base import BaseStorage
from geventhuey.task import MAX_DELAY, PeriodicQueueTask, QueueTask, TaskRegistry, check_number, check_task_id

#: Tasks that travel in one round trip at most, and bytes of arguments from which on there are fewer.
CHUNK, CHUNK_BYTES = 500, 1024 * 1024


class Producer:
    """The part of an application that sends tasks."""

    storage: BaseStorage
    registry: TaskRegistry
    clock: Clock
    utc: bool
    events: bool
    result_store: bool
    always_eager: bool
    callbacks: Callbacks

    def enqueue(self, task: QueueTask) -> Any:
        """The task is in its queue, or in the schedule until its ``execute_time``.

        Returns a TaskResultWrapper, or None without a result store.

        :raises SerializationError: an argument cannot travel; the text names it.
        :raises EnqueueOutcomeUnknown: the connection broke on the way; it may have been enqueued.
        :raises QueueWriteException: the storage cannot be reached, or refused; it has not been enqueued.
        """
        _check_task(task)
        if self.always_eager:
            return self._run_eagerly(task)
        if task.eta is not None and task.eta > self.clock.now():
            return self.add_schedule(task)
        message = self._message(task)
        try:
            self.storage.enqueue((message,))
        except StorageOutcomeUnknown as exc:
            raise EnqueueOutcomeUnknown(f'{task!r} may have been enqueued, or not: {exc}', task.task_id) from exc
        except StorageError as exc:
            raise QueueWriteException(f'{type(exc).__name__}: {exc}') from exc
        if self.callbacks.signals.are_heard:
            self.callbacks.signals.send(SIGNAL_ENQUEUED, task)
        return self._wrapper(task)

    def enqueue_many(self, tasks: Iterable[QueueTask]) -> Any:
        """All the tasks are in the queue (or in the schedule until their ``execute_time``), in their order, up to 500 by each round trip.

        Tasks are made by ``add.s(1, 2)``; ``add.map(...)`` does both.  A list is looked through before the first of its tasks is sent.
        What an iterator gives is sent as it comes, so that there may be more than fit into memory; with results on, one wrapper for
        each stays.  Of a chunk of 500 without ``execute_time`` either all tasks are in the queue or none is.

        Returns a ResultGroup, or None without a result store.  Errors have ``enqueued``: how many tasks, from the first one on, are in
        the queue for certain (their results can then be had by their ids), and its text begins with the number of the item that is wrong.

        :raises SerializationError: an argument cannot travel; the text names it.
        :raises EnqueueOutcomeUnknown: the connection broke on the way; the next 500 may have been enqueued.
        :raises QueueWriteException: the storage cannot be reached, or refused; the others have not been enqueued.
        """
        if self.always_eager:
            return self._group([self._run_eagerly(_check_task(task)) for task in tasks])
        results: list[Any] = []
        enqueued = 0
        try:
            for chunk in _chunks(self._messages(tasks)):
                self._enqueue_chunk(chunk, enqueued)
                enqueued += len(chunk)
                if self.result_store:
                    results += [self._wrapper(task) for task, _ in chunk]
        except Exception as exc:            # the iterator's own ones among them
            exc.enqueued = enqueued         # type: ignore[attr-defined]
            raise
        return self._group(results)

    def send(self, task: QueueTask, eta: datetime.datetime | None = None, delay: float | None = None, convert_utc: bool = True) -> Any:
        """The task will be run at the time ``eta``, or ``delay`` seconds from now; at once with neither. As ``schedule`` has it."""
        if eta is not None and delay is not None:
            raise ConfigurationError('Both a delay and an eta cannot be specified at the same time: give one of them')
        if delay is not None:
            check_number('delay', delay, MAX_DELAY)
            if delay:
                _check_expiry(task, self.clock.now() + delay)
                return self.add_schedule(task, delay)
        if eta is not None:
            task.eta = to_timestamp(eta, local=convert_utc or not self.utc)
            if task.eta - self.clock.now() > MAX_DELAY:
                raise ConfigurationError(f'eta={eta} is more than ten years from now')
            _check_expiry(task, task.eta)
        return self.enqueue(task)

    def reschedule(self, task: QueueTask, eta: datetime.datetime | None = None, delay: float | None = None,
                   convert_utc: bool = True) -> Any:
        """A new task like this one is on its way, and then this one is revoked. Returns the new one's TaskResultWrapper, as ``enqueue``.

        When something goes wrong in between there are both: better than none.
        """
        _check_task(task)
        new = type(task)(task.get_data(), None, None, task.retries, task.retry_delay)
        new.priority, new.expires = task.priority, task.expires
        result = self.send(new, eta, delay, convert_utc)
        self.revoke(QueueTask(task_id=task.task_id))     # it alone, also when it is a run of a periodic task
        return result

    def add_schedule(self, task: QueueTask, delay: float | None = None) -> Any:
        """The task is in the schedule, due at its ``execute_time``, or ``delay`` seconds from now; at once with neither."""
        _check_task(task)
        if self.always_eager:
            return self._run_eagerly(task)
        if delay is not None:
            task.eta = self.clock.now() + delay
        message = self._message(task)
        try:
            self._schedule(task, message, delay)
        except StorageOutcomeUnknown as exc:
            raise EnqueueOutcomeUnknown(f'{task!r} may have been scheduled, or not: {exc}', task.task_id) from exc
        except StorageError as exc:
            raise ScheduleAddException(f'{type(exc).__name__}: {exc}') from exc
        self.callbacks.signals.send(SIGNAL_SCHEDULED, task)
        return self._wrapper(task)

    def _schedule(self, task: QueueTask, message: Message, delay: float | None = None) -> None:
        event = events.event(events.EVENT_SCHEDULED, task) if self.events else b''
        if delay is not None:
            self.storage.schedule(message, delay=delay, event=event)
        else:
            self.storage.schedule(message, due=task.eta or 0.0, event=event)

    def _enqueue_chunk(self, chunk: Sequence[tuple[QueueTask, Message]], before: int) -> None:
        """The tasks are on their way, ``before`` others have been enqueued by the same call."""
        now = self.clock.now()
        later = [(task, message) for task, message in chunk if task.eta is not None and task.eta > now]
        soon = [message for task, message in chunk if task.eta is None or task.eta <= now]
        has_begun = False
        try:
            if soon:
                self.storage.enqueue(soon)
                has_begun = True
            for task, message in later:
                self._schedule(task, message)
                has_begun = True
        except StorageError as exc:
            if has_begun or isinstance(exc, StorageOutcomeUnknown):
                raise EnqueueOutcomeUnknown(f'{before} tasks have been enqueued, the next {len(chunk)} may have been, or not: {exc}',
                                            chunk[0][0].task_id) from exc
            raise QueueWriteException(f'{before} tasks have been enqueued, and no others: {type(exc).__name__}: {exc}') from exc
        for task, _ in chunk if self.callbacks.signals.are_heard else ():
            self.callbacks.signals.send(SIGNAL_SCHEDULED if task.eta is not None and task.eta > now else SIGNAL_ENQUEUED, task)

    def _messages(self, tasks: Iterable[QueueTask]) -> Iterable[tuple[QueueTask, Message]]:
        """Each task and its message: of a sequence all at once, so that what is wrong with one is said before any is sent."""
        if isinstance(tasks, QueueTask):
            raise TypeError('several tasks are needed, such as a list of them; for one there is huey.enqueue(task)')
        pairs = (self._pair(number, task) for number, task in enumerate(tasks))
        return list(pairs) if isinstance(tasks, Sequence) else pairs

    def _pair(self, number: int, task: QueueTask) -> tuple[QueueTask, Message]:
        """The task and its message; what is wrong with it is said with its number."""
        try:
            return task, self._message(_check_task(task))
        except (QueueException, TypeError) as exc:
            raise type(exc)(f'item {number}: {exc}') from exc

    def _message(self, task: QueueTask) -> Message:
        if not task.importable and not self.storage.in_process:
            raise ConfigurationError(f'{task.task_name} is defined where no consumer can import it: put it into a module, '
                                     f'or give it a name that both sides use: @huey.task(name="...")')
        if task.task_name not in self.registry:
            raise ConfigurationError(f'{task!r} is not registered: use huey.registry.register({type(task).__name__})')
        if isinstance(task, PeriodicQueueTask):
            return self.registry.message(task, PERIODIC)
        return self.registry.message(task, WANTS_RESULT if self.result_store else 0)

    def revoke(self, task: QueueTask, revoke_until: datetime.datetime | None = None, revoke_once: bool = False) -> None:
        """The task is not started."""
        raise NotImplementedError

    def _wrapper(self, task: QueueTask) -> Any:
        """What a call returns."""
        raise NotImplementedError

    def _group(self, results: list[Any]) -> Any:
        """What many calls return."""
        raise NotImplementedError

    def _run_eagerly(self, task: QueueTask) -> Any:
        """What a call returns whose task has been run at once."""
        raise NotImplementedError


def _check_task(task: QueueTask) -> QueueTask:
    """The task, when it is one. Raises TypeError or ConfigurationError otherwise."""
    if not isinstance(task, QueueTask):
        hint = ''
        if hasattr(task, 'task_id'):
            hint = ': that call has been enqueued already; add.s(1, 2) makes a task that has not'
        elif callable(task):
            hint = ': add.s(1, 2) makes one of a function'
        raise TypeError(f'a task is needed, not {task!r}{hint}')
    check_task_id(task.task_id)
    return task


def _check_expiry(task: QueueTask, due: float) -> None:
    """Raises ConfigurationError for a task that will have expired by the time at which it is due."""
    if task.expires is not None and task.expires <= due:
        raise ConfigurationError(f'{task.task_name}: it would expire {due - task.expires:.3f} s before it is due, and never run: '
                                 f'give it another time, or a later expires=')


def _chunks(pairs: Iterable[tuple[QueueTask, Message]]) -> Iterator[list[tuple[QueueTask, Message]]]:
    """The same in portions that can travel together."""
    chunk: list[tuple[QueueTask, Message]] = []
    size = 0
    for pair in pairs:
        chunk.append(pair)
        size += len(pair[1].payload)
        if len(chunk) == CHUNK or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
