"""Signals and hooks: functions of the application's that are called around its tasks, in the process where it happens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from geventhuey.exceptions import CancelExecution, ConfigurationError, TaskInterrupted
from geventhuey.task import QueueTask

logger = logging.getLogger('geventhuey')

SIGNAL_CANCELED = 'canceled'
SIGNAL_COMPLETE = 'complete'
SIGNAL_ENQUEUED = 'enqueued'
SIGNAL_ERROR = 'error'
SIGNAL_EXECUTING = 'executing'
SIGNAL_EXPIRED = 'expired'
SIGNAL_INTERRUPTED = 'interrupted'
SIGNAL_RETRYING = 'retrying'
SIGNAL_REVOKED = 'revoked'
SIGNAL_SCHEDULED = 'scheduled'

SIGNALS = frozenset({
    SIGNAL_CANCELED, SIGNAL_COMPLETE, SIGNAL_ENQUEUED, SIGNAL_ERROR, SIGNAL_EXECUTING, SIGNAL_EXPIRED, SIGNAL_INTERRUPTED,
    SIGNAL_RETRYING, SIGNAL_REVOKED, SIGNAL_SCHEDULED})

Handler = TypeVar('Handler', bound=Callable[..., Any])


class Signals:
    """Which functions are called at which signal."""

    def __init__(self) -> None:
        self._handlers: dict[str, list[Callable[..., Any]]] = {}
        #: Whether there is any handler at all: while there is none, signals cost nothing.
        self.are_heard = False

    def __contains__(self, signal: str) -> bool:
        return bool(self._handlers.get(signal))

    def connect(self, handler: Callable[..., Any], *signals: str) -> None:
        """The function is called at these signals, or at all when none is named."""
        for signal in signals or SIGNALS:
            handlers = self._handlers.setdefault(signal, [])
            if handler not in handlers:
                handlers.append(handler)
                self.are_heard = True

    def disconnect(self, handler: Callable[..., Any], *signals: str) -> None:
        """The function is not called at these signals any more, or at none when none is named."""
        for signal in signals or SIGNALS:
            if handler in self._handlers.get(signal, ()):
                self._handlers[signal].remove(handler)
        self.are_heard = any(self._handlers.values())

    def send(self, signal: str, task: QueueTask, *more: Any, logged: type[BaseException] = Exception) -> None:
        """The signal's functions have been called, in the order in which they were connected; what one raises is logged.

        ``logged``: a worker logs whatever it is; in a program that sends tasks a timeout or a Ctrl+C strikes as well, which is its own.
        """
        for handler in tuple(self._handlers.get(signal, ())):
            try:
                handler(signal, task, *more)
            except TaskInterrupted:
                raise
            except logged:
                logger.exception('the handler %s of the signal %r failed for %r', _name(handler), signal, task)


class Hooks:
    """Functions by name: at one moment, in the order in which they were registered."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._functions: dict[str, Callable[..., Any]] = {}

    def __bool__(self) -> bool:
        return bool(self._functions)

    def __iter__(self) -> Any:
        return iter(list(self._functions.items()))

    def register(self, name: str | None, function: Callable[..., Any]) -> None:
        """The function is one of them; another one that was given the same name is replaced.

        A name that nobody gave replaces no other function: many modules have a ``setup``. Raises TypeError for what cannot be called.
        """
        if not callable(function):
            raise TypeError(f'{self.kind} takes a function, not {function!r}: write @huey.{self.kind}() with its parentheses')
        if not name:
            name, number = _name(function), 1
            while self._functions.get(name, function) != function:
                number += 1
                name = f'{_name(function)} ({number})'
        self._functions[name] = function

    def unregister(self, name_or_function: Any) -> bool:
        """The function is none of them any more; True when it was."""
        names = [name for name, function in self._functions.items() if name_or_function in (name, function)]
        for name in names:
            del self._functions[name]
        return bool(names)

    def call_all(self, *args: Any, logged: type[BaseException] = BaseException) -> None:
        """All have been called; what one raises is logged."""
        for name, function in self:
            try:
                function(*args)
            except TaskInterrupted:
                raise
            except logged:
                logger.exception('%s %r failed', self.kind, name)


class Callbacks:
    """All functions of an application that are called around its tasks, and around its consumers."""

    def __init__(self) -> None:
        self.signals = Signals()
        self.pre_execute, self.post_execute = Hooks('pre_execute'), Hooks('post_execute')
        self.on_startup, self.on_shutdown = Hooks('on_startup'), Hooks('on_shutdown')

    def before(self, task: QueueTask, logged: type[BaseException] = BaseException) -> None:
        """The hooks before the task have been called; they may raise CancelExecution."""
        for name, hook in self.pre_execute:
            try:
                hook(task)
            except (CancelExecution, TaskInterrupted):
                raise
            except logged:
                logger.exception('pre_execute %r failed for %r', name, task)


class HasCallbacks:
    """The part of an application by which functions become its callbacks."""

    callbacks: Callbacks

    def signal(self, *signals: str) -> Callable[[Handler], Handler]:
        """The decorated ``handler(signal, task, exc=None)`` is called at these signals, or at all when none is named.

        It is called where it happens: ``enqueued`` and ``scheduled`` in the program that sends the task (``scheduled`` also in the worker,
        for a retry that waits), the others in the consumer's worker, before the task's end has reached the storage. It must not take
        long; what it raises is logged. ``error`` alone comes with the exception.

        :raises ConfigurationError: there is no such signal.
        """
        if signals and callable(signals[0]):
            raise TypeError('write @huey.signal() with its parentheses')
        for signal in signals:
            if signal not in SIGNALS:
                raise ConfigurationError(f'there is no signal {signal!r}; there are {", ".join(sorted(SIGNALS))}')

        def decorate(handler: Handler) -> Handler:
            if not callable(handler):
                raise TypeError(f'a signal calls a function, not {handler!r}')
            self.callbacks.signals.connect(handler, *signals)
            return handler
        return decorate

    def disconnect_signal(self, handler: Callable[..., Any], *signals: str) -> None:
        """The handler is not called at these signals any more, or at none when none is named."""
        self.callbacks.signals.disconnect(handler, *signals)

    def pre_execute(self, name: str | None = None) -> Callable[[Handler], Handler]:
        """The decorated ``hook(task)`` is called before each task, in its worker and its context.

        It may raise CancelExecution, and the task is not run; what else it raises is logged. ``name``: of the hook, for
        ``unregister_pre_execute``; its own by default.
        """
        return _decorator(self.callbacks.pre_execute, name)

    def post_execute(self, name: str | None = None) -> Callable[[Handler], Handler]:
        """The decorated ``hook(task, value, error)`` is called after each task, in its context: with what it returned, or what it raised.
        """
        return _decorator(self.callbacks.post_execute, name)

    def on_startup(self, name: str | None = None) -> Callable[[Handler], Handler]:
        """The decorated function is called once in each process of a consumer, before it takes its first task."""
        return _decorator(self.callbacks.on_startup, name)

    def on_shutdown(self, name: str | None = None) -> Callable[[Handler], Handler]:
        """The decorated function is called once in each process of a consumer that stops, when no task runs any more."""
        return _decorator(self.callbacks.on_shutdown, name)

    def unregister_pre_execute(self, name_or_function: Any) -> bool:
        """The hook is not called any more; True when it was."""
        return self.callbacks.pre_execute.unregister(name_or_function)

    def unregister_post_execute(self, name_or_function: Any) -> bool:
        """The hook is not called any more; True when it was."""
        return self.callbacks.post_execute.unregister(name_or_function)

    def unregister_on_startup(self, name_or_function: Any) -> bool:
        """The function is not called any more; True when it was."""
        return self.callbacks.on_startup.unregister(name_or_function)

    def unregister_on_shutdown(self, name_or_function: Any) -> bool:
        """The function is not called any more; True when it was."""
        return self.callbacks.on_shutdown.unregister(name_or_function)


def _decorator(hooks: Hooks, name: str | None) -> Callable[[Handler], Handler]:
    if name is not None and not isinstance(name, str):
        raise TypeError(f'write @huey.{hooks.kind}() with its parentheses')

    def decorate(function: Handler) -> Handler:
        hooks.register(name, function)
        return function
    return decorate


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, '__qualname__', None) or repr(function)
