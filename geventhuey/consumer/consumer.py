"""Consumer: an engine in this process, in the hub of the caller or in a native thread with a hub of its own."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import signal
import time
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event

from geventhuey import native
from geventhuey.consumer.component import close_hub
from geventhuey.consumer.engine import CLEANUP, LAST_SETTLE, Engine
from geventhuey.consumer.options import WORKER_GREENLET, WORKER_PROCESS, Options
from geventhuey.consumer.scheduler import TICK
from geventhuey.exceptions import ConfigurationError, StorageError, StorageUnavailable
from geventhuey.waiter import ThreadWaiter, Waiter, waiter

if TYPE_CHECKING:
    from geventhuey.api import Huey

logger = logging.getLogger('geventhuey.consumer')


class Consumer:
    """Runs an application's tasks in this process: ``start`` and ``stop``, or a ``with`` block.

    Where gevent has patched the process the engine is greenlets of the caller's hub; elsewhere it has a native thread, and so
    the caller's thread may block as it likes.

    :param huey: the application.
    :param options: the fields of ``Options``: workers, worker_type, periodic, shutdown_timeout, ...
    :raises ConfigurationError: an option makes no sense.
    """

    def __init__(self, huey: Huey, tick: float = TICK, **options: Any) -> None:
        try:
            self.options = Options(**options)
        except TypeError as exc:
            raise ConfigurationError(f'a consumer has no such option: {exc}') from None
        if self.options.worker_type == WORKER_PROCESS or self.options.processes > 1:
            raise ConfigurationError('several processes are started by the command: geventhuey-consumer -k process, or -p N')
        if huey.always_eager:
            logger.warning('always_eager is on: tasks run where they are called, and a consumer has nothing to do')
        self.huey = huey
        self._tick = tick
        self._engine: Engine | None = None
        self._host: _Host | None = None
        self._signals = 0

    def start(self) -> Consumer:
        """Tasks are fetched and run.

        :raises ConfigurationError: ``always_eager`` is on, or it runs already.
        :raises StorageRefused: the storage does not let us in, or is too old. (One that is away is waited for.)
        """
        if self.huey.always_eager:
            raise ConfigurationError('always_eager (immediate) is on: switch it off before a consumer is started')
        if self._host is not None:
            raise ConfigurationError('this consumer has been started already; make another one')
        patched = native.is_patched()
        if self.options.worker_type == WORKER_GREENLET and not patched:
            warnings.warn('greenlet workers in a process that gevent has not patched: tasks that wait block each other; call '
                          'gevent.monkey.patch_all() first of all, or use worker_type="thread"', RuntimeWarning, stacklevel=2)
        try:
            self.huey.storage.check()
        except StorageUnavailable:
            pass            # it is waited for, and the parts say so
        host = _InHub() if patched else _InThread()
        self._engine = host.start(lambda: Engine(self.huey, self.options, self._tick))
        self._host = host
        atexit.register(self.stop, 0.0)     # native threads that outlive the interpreter crash it
        return self

    def stop(self, timeout: float | None = None) -> None:
        """It has stopped; nothing when it does not run.

        Tasks that run have ``timeout`` seconds (``shutdown_timeout`` by default) to end; then they are interrupted and go back to
        the head of their queue.
        """
        host = self._host
        if host is not None:
            host.stop(self.options.shutdown_timeout if timeout is None else timeout)
            if self._host is host:
                self._host = None
                atexit.unregister(self.stop)

    def interrupt(self) -> None:
        """A ``stop`` that is under way does not wait for running tasks any longer."""
        if self._host is not None:
            self._host.call(self._running().interrupt)

    def __enter__(self) -> Consumer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def statistics(self) -> dict[str, int]:
        """A picture for debugging: what runs, what waits to be settled, and how many tasks have ended in which way."""
        engine = self._running()
        return {'running': len(engine.pool.running()), 'unsettled': engine.settler.backlog(), 'fenced': engine.settler.fenced,
                **engine.settler.counts}

    def _running(self) -> Engine:
        if self._engine is None:
            raise ConfigurationError('this consumer has not been started')
        return self._engine

    # -- as a program ---------------------------------------------------------------------------------------

    def run(self) -> int:
        """Runs until SIGTERM or SIGINT comes, and stops then; answers the exit code.

        A second signal interrupts what still runs, a third one ends the process at once.
        """
        stop = waiter()

        def received(number: int, frame: object) -> None:
            self._signals += 1
            if self._signals > 2:
                os._exit(1)
            self._exit_in_time()
            if self._signals == 2:
                self.interrupt()
            stop.wake()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, received)
        if native.is_patched():
            # what a greenlet that a task left behind raises is not for us, not even SystemExit
            gevent.get_hub().SYSTEM_ERROR = ()
        try:
            self.start()
        except (ConfigurationError, StorageError):
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            if self._signals:       # told to stop meanwhile
                return 0
            raise
        self._exit_in_time()
        logger.info('waiting for tasks')
        stop.wait(None)
        logger.info('shutting down: running tasks have %g s; a second signal does not wait for them, a third one exits at once',
                    self.options.shutdown_timeout)
        begun = time.monotonic()
        self.stop(0.0 if self._signals > 1 else None)
        logger.info('stopped, after %.1f s', time.monotonic() - begun)
        return 0

    def _exit_in_time(self) -> None:
        """A process that has been told to stop does so also when a task blocks its hub."""
        if self._engine is not None and self._signals:
            patience = self.options.shutdown_timeout if self._signals == 1 else 0.0
            self._engine.exit_at(patience + CLEANUP + LAST_SETTLE + 2)


class _Host:
    """Where an engine lives. It is stopped once, whoever and how many ask for that, and from wherever they do."""

    def __init__(self) -> None:
        self._hub: Any = None
        self._asked = False
        self._ended = False
        self._waiting: list[Waiter] = []

    def start(self, make: Callable[[], Engine]) -> Engine:
        """The engine runs."""
        raise NotImplementedError

    def stop(self, timeout: float) -> None:
        """The engine has stopped."""
        me = waiter()
        self._waiting.append(me)
        self.call(functools.partial(self._ask, timeout))
        while not self._ended:
            me.wait(None)

    def call(self, step: Callable[[], None]) -> None:
        """The step is taken in the hub, soon, if it is still there; from any thread and from signal handlers."""
        loop = self._hub.loop
        if loop is not None:
            try:
                loop.run_callback_threadsafe(step)
            except ValueError:      # it has just been destroyed
                pass

    def _ask(self, timeout: float) -> None:
        if not self._asked:
            self._asked = True
            self._begin_stop(timeout)

    def _begin_stop(self, timeout: float) -> None:
        """In the hub: the engine begins to stop; must not switch."""
        raise NotImplementedError

    def _stop(self, engine: Engine, timeout: float) -> None:
        """The engine has stopped. Called in a greenlet that no task runs in."""
        try:
            engine.stop(timeout)
        except BaseException:
            logger.exception('the consumer failed while it stopped')

    def _end(self) -> None:
        """Those who wait for the stop go on."""
        self._ended = True
        for waiting in self._waiting:
            try:
                waiting.wake()
            except Exception:       # a task that was interrupted here, in the hub that is gone
                pass


class _InHub(_Host):
    """Hosts an engine in the hub of the thread that starts it."""

    def start(self, make: Callable[[], Engine]) -> Engine:
        self._hub = gevent.get_hub()
        self._engine = make()
        self._engine.start()
        return self._engine

    def _begin_stop(self, timeout: float) -> None:
        gevent.spawn(self._stop, self._engine, timeout).link(lambda _: self._end())


class _InThread(_Host):
    """Hosts an engine in a native thread with a hub of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._ready = ThreadWaiter()
        self._error: BaseException | None = None
        self._timeout = 0.0

    def start(self, make: Callable[[], Engine]) -> Engine:
        self._make = make
        native.start_thread(self._run)
        self._ready.wait(None)
        if self._error is not None:
            raise self._error
        return self._engine

    def _begin_stop(self, timeout: float) -> None:
        self._timeout = timeout
        self._told.set()

    def _run(self) -> None:
        self._hub = gevent.get_hub()
        self._hub.SYSTEM_ERROR = ()     # a greenlet that a task left behind may raise what it likes, also SystemExit
        self._told = Event()
        try:
            self._engine = self._make()
            self._engine.start()
        except BaseException as exc:
            self._error = exc
        self._ready.wake()
        if self._error is None:
            self._told.wait()
            self._stop(self._engine, self._timeout)
        close_hub()
        self._end()
