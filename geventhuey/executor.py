"""Executor: a delivery in, an Outcome out. It runs the user's code, never raises, and writes nothing."""

from __future__ import annotations

import contextvars
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from geventhuey import events
from geventhuey.clock import Clock, to_timestamp
from geventhuey.envelope import ERROR, RESULT, REVOCATION, Envelope
from geventhuey.exceptions import CancelExecution, MessageError, QueueException, RetryTask, SerializationError, TaskInterrupted
from geventhuey.message import AT_MOST_ONCE, MAX_MESSAGE, MAX_PROOF, PROOF, REVOKED, REVOKED_FOR_GOOD, WANTS_RESULT, Message
from geventhuey.signals import (
    SIGNAL_CANCELED,
    SIGNAL_COMPLETE,
    SIGNAL_ERROR,
    SIGNAL_EXECUTING,
    SIGNAL_EXPIRED,
    SIGNAL_INTERRUPTED,
    SIGNAL_RETRYING,
    SIGNAL_REVOKED,
    SIGNAL_SCHEDULED,
    Callbacks,
)
from geventhuey.storage import base
from geventhuey.storage.base import (
    Bury,
    Delivery,
    Effect,
    Enqueue,
    Keep,
    NoteError,
    Publish,
    Revocation,
    Schedule,
    name_field,
    task_field,
)
from geventhuey.task import MAX_DELAY, QueueTask, TaskRegistry, check_number
from geventhuey.texts import error_text, plain_text, reason_text, traceback_text

logger = logging.getLogger('geventhuey.executor')

#: Names of tasks that are not known here that are remembered at most, so that each is logged as an error once.
MAX_UNKNOWN = 1000
#: Why a task that may run only once is a dead letter when its consumer stops.
CUT_OFF = 'its consumer was stopped while it ran, and it may run only once'

FINISHED, FAILED, RETRYING, DEAD, RELEASED = 'finished', 'failed', 'retrying', 'dead', 'released'
REVOKED_OUTCOME, EXPIRED, CANCELLED = 'revoked', 'expired', 'cancelled'


class Outcome(NamedTuple):
    """How a delivery ended, and what is to follow from it. ``released``: it has not ended, and goes back to its queue."""

    delivery: Delivery
    status: str
    effects: tuple[Effect, ...] = ()
    error: BaseException | None = None
    value: object = None


class Executor:
    """Runs deliveries. One object serves any number of workers at once.

    :param listening: says whether anybody listens to the events; while nobody does, none are made.
    :param callbacks: the application's functions that are called around its tasks.
    """

    def __init__(self, registry: TaskRegistry, envelope: Envelope, clock: Clock, *, store_none: bool, store_errors: bool,
                 result_ttl: float | None, listening: Callable[[], bool] = lambda: False, callbacks: Callbacks | None = None) -> None:
        self._registry = registry
        self._envelope = envelope
        self._clock = clock
        self._store_none = store_none
        self._store_errors = store_errors
        self._result_ttl = result_ttl
        self._listening = listening
        self._callbacks = callbacks or Callbacks()
        self._signals = self._callbacks.signals
        #: Set when the consumer interrupts what still runs: what ends by that goes back to its queue.
        self.interrupting: TaskInterrupted | None = None
        self._unknown: set[str] = set()

    def execute(self, delivery: Delivery, started: Callable[[bytes], None] | None = None) -> Outcome:
        """The delivery's task has run, or the outcome says why not. ``started`` takes the event that it begins."""
        try:
            message = Message.decode(delivery.message)
        except MessageError as exc:
            return self._dead(delivery, None, str(exc))
        if len(delivery.message) > MAX_MESSAGE + MAX_PROOF:     # no producer of ours sends that
            return self._dead(delivery, message, f'its message of {len(delivery.message)} bytes is larger than {MAX_MESSAGE}')
        try:
            return self._execute(delivery, message, started)
        except BaseException as exc:        # beside the task itself: an argument that raises as it is read, an interrupt of the log
            if self._is_interrupt(exc):
                return self._interrupted(delivery, message, exc)
            return self._dead(delivery, message, f'its message or its end cannot be dealt with: {error_text(exc)}')

    def _execute(self, delivery: Delivery, message: Message, started: Callable[[bytes], None] | None) -> Outcome:
        if message.flags & (REVOKED | REVOKED_FOR_GOOD) and self._is_genuine(message):
            return self._revoked(delivery, message)
        if message.expires is not None and message.expires <= self._clock.now():
            return self._expired(delivery, message)
        try:
            task = self._registry.task(message)
        except QueueException as exc:
            return self._dead(delivery, message, str(exc), self._level(message.name))
        if started is not None and self._listening():
            started(events.event(events.EVENT_STARTED, task))
        return self.run(delivery, message, task)

    def run(self, delivery: Delivery, message: Message, task: QueueTask) -> Outcome:
        """The task has run."""
        begun = time.perf_counter()
        value, error, trace, data = None, None, '', task.get_data()
        context = contextvars.Context()
        try:
            if SIGNAL_EXECUTING in self._signals:
                self._signals.send(SIGNAL_EXECUTING, task, logged=BaseException)
            if self._callbacks.pre_execute:
                try:
                    context.run(self._callbacks.before, task)
                finally:
                    data = task.get_data()      # what a hook sets is for this run: before the next one it is called again
            value = context.run(task.execute)
            effects = self._result(message, value)
        except BaseException as exc:        # SystemExit, GreenletExit, a Timeout of the user's: all are this task's own affair
            if self._is_interrupt(exc):
                return self._interrupted(delivery, message, exc, task)
            # An exception's traceback holds the frames and all that they hold: keep the text, let the rest go.
            error, trace = exc, traceback_text(exc)
            effects = ()
            if (task.retries != 0 or isinstance(exc, (RetryTask, CancelExecution))) and task.get_data() is data:
                # a retry starts with what the caller gave, not with what the failed run has made of it
                task.set_data(self._registry.task(message).get_data())
        duration = time.perf_counter() - begun
        if self._callbacks.post_execute:
            self._afterwards(context.run, self._callbacks.post_execute.call_all, task, value, error)
        if error is not None:
            try:
                return self._ended_by(error, delivery, message, task, trace, duration)
            finally:
                del error                   # its traceback holds this frame: together they would be garbage for the collector
        if logger.isEnabledFor(logging.DEBUG):
            _say(logging.DEBUG, '%r finished in %.3f s', task, duration)
        if self._signals.are_heard:
            self._tell(SIGNAL_COMPLETE, task)
        if self._listening():
            effects += (Publish(events.event(events.EVENT_FINISHED, task, duration=duration)),)
        return Outcome(delivery, FINISHED, effects, value=value)

    def _ended_by(self, error: BaseException, delivery: Delivery, message: Message, task: QueueTask, trace: str,
                  duration: float) -> Outcome:
        """The outcome of a task that has raised: a failure, unless it says something else by that."""
        try:
            if isinstance(error, RetryTask):
                return Outcome(delivery, RETRYING, tuple(self._retry(message, task, reason_text(error), self._pause(error))), error)
            if isinstance(error, CancelExecution):
                return self._cancelled(error, delivery, message, task)
        except Exception as exc:            # by what the task has made of its own settings, or what it has said of the time
            error = exc
            trace = traceback_text(exc)
        return self._failed(delivery, message, task, error, trace, duration)

    def _pause(self, error: RetryTask) -> float:
        """Seconds until a task is run again that has asked for it. Raises TypeError or ConfigurationError for what is no time."""
        if error.delay is not None:
            return float(check_number('delay', error.delay, MAX_DELAY))
        if error.eta is None:
            return 0.0
        return float(check_number('eta, in seconds from now,', max(0.0, to_timestamp(error.eta) - self._clock.now()), MAX_DELAY))

    def _cancelled(self, error: CancelExecution, delivery: Delivery, message: Message, task: QueueTask) -> Outcome:
        """The task has been given up, or is run again if it says so."""
        text = reason_text(error)
        self._tell(SIGNAL_CANCELED, task)
        if error.retry or (error.retry is None and task.retries > 0):
            task.retries = max(0, task.retries - 1)
            return Outcome(delivery, RETRYING, tuple(self._retry(message, task, text, task.retry_delay)), error)
        _say(logging.INFO, '%r was cancelled: %s', task, text)
        effects: tuple[Effect, ...] = ()
        if message.flags & WANTS_RESULT:
            effects = (Keep(message.id, base.CANCELLED + text.encode(), base.TOMBSTONE_TTL),)
        return Outcome(delivery, CANCELLED, effects, error)

    def _tell(self, signal: str, task: QueueTask | None, *more: Any) -> None:
        if signal in self._signals and task is not None:
            self._afterwards(self._signals.send, signal, task, *more, logged=BaseException)

    @staticmethod
    def _afterwards(call: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Called for a task that has ended. A consumer that stops cuts that off, and the end is what it was."""
        try:
            call(*args, **kwargs)
        except TaskInterrupted:
            _say(logging.WARNING, 'what is called after a task took too long: the consumer shuts down')

    def cut_off(self, delivery: Delivery) -> Outcome:
        """The end of a task that may have run, and may run only once."""
        return self._dead(delivery, Message.decode(delivery.message), CUT_OFF)

    def _interrupted(self, delivery: Delivery, message: Message, error: BaseException, task: QueueTask | None = None) -> Outcome:
        """The consumer has interrupted the task: it is for another one, unless it may run only once."""
        self._tell(SIGNAL_INTERRUPTED, task)
        if message.flags & AT_MOST_ONCE:
            return self._dead(delivery, message, CUT_OFF)
        return Outcome(delivery, RELEASED, error=error)

    def _is_interrupt(self, exc: BaseException) -> bool:
        """True when the consumer's interrupt ended the task, also by way of an error that it caused while it passed through."""
        ours = self.interrupting
        links, seen = [exc], 0
        while ours is not None and links and seen < 100:
            current = links.pop()
            if current is ours:
                return True
            links += [link for link in (current.__cause__, current.__context__) if link is not None]
            seen += 1
        return False

    def _result(self, message: Message, value: object) -> tuple[Effect, ...]:
        """What is to be kept of the value. Raises SerializationError when it cannot travel."""
        if not message.flags & WANTS_RESULT:
            return ()
        if value is None and not self._store_none:
            seal = self._envelope.seal(RESULT, base.NOTHING + message.id.encode())
            return (Keep(message.id, base.NOTHING + seal.encode(), base.TOMBSTONE_TTL),)
        try:
            whose = base.VALUE + message.id.encode() if self._envelope.signs else b''
            record = base.VALUE + self._envelope.dumps(RESULT, value, whose)
        except SerializationError as exc:
            raise SerializationError(f'the result (of type {type(value).__name__}) cannot travel: {exc}') from exc
        if len(record) > MAX_MESSAGE:
            raise SerializationError(f'the result of {len(record)} bytes is larger than {MAX_MESSAGE}: '
                                     f'put the data elsewhere and return its address')
        return (Keep(message.id, record, self._result_ttl),)

    def _failed(self, delivery: Delivery, message: Message, task: QueueTask, error: BaseException, trace: str,
                duration: float) -> Outcome:
        text = error_text(error)
        self._tell(SIGNAL_ERROR, task, error)
        noted: list[Effect] = []
        if self._store_errors:
            noted.append(NoteError(self._envelope.dumps(
                ERROR, {'id': task.task_id, 'task': task.name, 'name': task.task_name, 'retries': task.retries,
                 'retry_delay': task.retry_delay, 'execute_time': task.eta, 'error': text, 'traceback': trace})))
        if self._listening():
            noted.append(Publish(events.event(events.EVENT_ERROR_TASK, task, error=True, duration=duration, traceback=trace)))
        try:
            if task.retries > 0:
                task.retries -= 1
                return Outcome(delivery, RETRYING, (*noted, *self._retry(message, task, text, task.retry_delay)), error)
        except Exception as exc:            # by what the task has made of its own settings
            text = f'{text}, and cannot be tried again: {error_text(exc)}'
        _say(logging.ERROR, '%r failed: %s\n%s', task, text, trace)
        if message.flags & WANTS_RESULT:
            noted.append(self._error_record(message, task, text, trace))
        return Outcome(delivery, FAILED, tuple(noted), error)

    def _error_record(self, message: Message, task: QueueTask, text: str, trace: str) -> Keep:
        """What ``get`` will raise."""
        if not self._store_errors:
            return Keep(message.id, base.LOST + b'it failed; store_errors is off, so that no more is known', base.TOMBSTONE_TTL)
        what = {'error': text, 'traceback': trace, 'retries': task.retries}
        record = self._envelope.dumps(RESULT, what, base.ERROR + message.id.encode())
        return Keep(message.id, base.ERROR + record, self._result_ttl)

    def _retry(self, message: Message, task: QueueTask, text: str, pause: float) -> list[Effect]:
        """The task once more: at once, or in so many seconds."""
        task.eta = self._clock.now() + pause if pause else None
        task.flags = flags = message.flags & ~(REVOKED | REVOKED_FOR_GOOD | PROOF)
        raw = self._registry.message(task, flags, message.created).encode()
        _say(logging.WARNING, '%s %s ended early (%s); it is tried again %s, retries left: %d', message.name, message.id, text,
             f'in {pause:g} s' if pause else 'at once', task.retries)
        self._tell(SIGNAL_RETRYING, task)
        effects: list[Effect] = [Schedule(raw, pause) if pause else Enqueue(raw)]
        if self._listening():
            effects.append(Publish(events.event(events.EVENT_RETRYING, task)))
        if pause:
            self._tell(SIGNAL_SCHEDULED, task)
            if self._listening():
                effects.append(Publish(events.event(events.EVENT_SCHEDULED, task)))
        return effects

    def _is_genuine(self, message: Message) -> bool:
        """True when the message is revoked by somebody who may: with a secret, the signed revocation has come along."""
        if not self._envelope.signs:
            return True
        try:
            proof = Revocation.decode(message.proof)
        except ValueError:
            proof = Revocation(None, False)
        if any(self._envelope.is_sealed(REVOCATION, proof.identity(field), proof.signature)
               for field in (task_field(message.id), name_field(message.name))):
            return True
        _say(logging.ERROR, '%s: %s is marked as revoked, but not by a revocation with a signature of ours: it is run', message.name,
             message.id)
        return False

    def _revoked(self, delivery: Delivery, message: Message) -> Outcome:
        effects: list[Effect] = []
        if message.flags & WANTS_RESULT:
            effects.append(Keep(message.id, base.REVOKED, base.TOMBSTONE_TTL))
        if self._listening() or SIGNAL_REVOKED in self._signals:
            task = self._registry.decode(delivery.message)
            self._tell(SIGNAL_REVOKED, task)
            if self._listening():
                effects.append(Publish(events.event(events.EVENT_REVOKED, task)))
        _say(logging.DEBUG, '%s: %s was revoked and is not run', message.name, message.id)
        return Outcome(delivery, REVOKED_OUTCOME, tuple(effects))

    def _expired(self, delivery: Delivery, message: Message) -> Outcome:
        effects: list[Effect] = []
        if message.flags & WANTS_RESULT:
            effects.append(Keep(message.id, base.LOST + b'it expired before it was started', base.TOMBSTONE_TTL))
        if SIGNAL_EXPIRED in self._signals:
            self._tell(SIGNAL_EXPIRED, self._registry.decode(delivery.message))
        _say(logging.INFO, '%s: %s expired before it was started and is not run', message.name, message.id)
        return Outcome(delivery, EXPIRED, tuple(effects))

    def _level(self, name: str) -> int:
        """How loudly it is said that a task cannot be run: a name that is not known will come more often, and is an error once."""
        if name in self._registry:
            return logging.ERROR
        if name in self._unknown or len(self._unknown) >= MAX_UNKNOWN:
            return logging.DEBUG
        self._unknown.add(name)
        return logging.ERROR

    def _dead(self, delivery: Delivery, message: Message | None, reason: str, level: int = logging.ERROR) -> Outcome:
        """The delivery cannot be run, by nobody: it goes to the dead letters."""
        reason = plain_text(reason)         # it may quote the message
        name, task_id = (message.name, message.id) if message else ('a message', '')
        effects: list[Effect] = [Bury(delivery.message, task_id, reason)]
        if message is not None and message.flags & WANTS_RESULT:
            effects.append(Keep(message.id, base.LOST + reason.encode(), self._result_ttl))
        if self._listening():
            effects.append(Publish(events.event(events.EVENT_ERROR_DEQUEUEING, error=True, id=task_id, traceback=reason)))
        _say(level, '%s (id %s) goes to the dead letters: %s', name, task_id, reason)
        return Outcome(delivery, DEAD, tuple(effects))


def _say(level: int, text: str, *args: object) -> None:
    """Logs, and lets nothing that is thrown meanwhile (a handler's lock may switch to other greenlets) change how the delivery ended."""
    try:
        logger.log(level, text, *args)
    except BaseException:
        pass
