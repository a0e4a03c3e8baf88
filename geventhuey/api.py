"""Huey: the application. Its decorators make tasks; its methods enqueue, revoke and look at them."""

from __future__ import annotations

import contextlib
import datetime
import functools
import inspect
import logging
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from geventhuey.clock import Clock, to_datetime, to_timestamp
from geventhuey.envelope import Envelope, Secrets
from geventhuey.exceptions import (
    CancelExecution,
    ConfigurationError,
    DataStorePutException,
    MessageError,
    QueueException,
    QueueReadException,
    ScheduleReadException,
    StorageError,
)
from geventhuey.executor import Executor, Outcome
from geventhuey.function import PeriodicFunction, TaskFunction
from geventhuey.inspection import DEFAULT_QUEUE, Inspection
from geventhuey.lease import HandLease
from geventhuey.message import REVOKED, REVOKED_FOR_GOOD, Message, check_name
from geventhuey.once import Once
from geventhuey.producer import Producer
from geventhuey.result import EagerTaskResult, ResultGroup, TaskResultWrapper
from geventhuey.revocation import Revocations, field_of, fields_of
from geventhuey.serializer import Serializer
from geventhuey.serializer import serializer as serializer_of
from geventhuey.signals import SIGNAL_CANCELED, SIGNAL_COMPLETE, SIGNAL_ERROR, SIGNAL_EXECUTING, Callbacks, HasCallbacks
from geventhuey.storage.base import BaseStorage, Delivery, Keep, NoteError, Settlement, name_field
from geventhuey.storage.memory import MemoryStorage
from geventhuey.task import (
    MAX_DELAY,
    MAX_RETRIES,
    Expires,
    QueueTask,
    TaskRegistry,
    ValidateDatetime,
    check_number,
    check_priority,
    check_task_id,
    expiry,
    task_class,
)

if TYPE_CHECKING:
    from geventhuey.consumer.consumer import Consumer

logger = logging.getLogger('geventhuey')

T = TypeVar('T')

#: Seconds that results and revocations are kept for by default.
WEEK = 7 * 86400.0
#: Characters of a key of ``once``.
MAX_KEY = 500
#: Where Redis is, for applications that do not say it themselves.
URL_VARIABLE = 'GEVENTHUEY_URL'
#: What signs, for applications that do not say it themselves.
SECRET_VARIABLE = 'GEVENTHUEY_SECRET'
REDIS_SCHEMES = ('redis://', 'rediss://', 'unix://', 'redis+sentinel://', 'rediss+sentinel://', 'redis+cluster://',
                 'rediss+cluster://')


class Huey(Producer, Inspection, HasCallbacks):
    """An application: its tasks, its queue, its results. Use ``RedisHuey``, ``MemoryHuey`` or a subclass with ``get_storage``.

    :param name: 1 to 128 of ``A-Z a-z 0-9 _ . : -``; producers and consumers that share it share the queue.
    :param result_store: keep what tasks return; without it, calls return None.
    :param events: consumers announce what they do to those who listen.
    :param store_none: keep a result also when it is None.
    :param always_eager: run every task at the call, in the caller; also named ``immediate``.
    :param store_errors: keep errors, in the error list and for ``get``.
    :param blocking: ``dequeue()`` waits for a task. (Consumers always block and never poll.)
    :param utc: what the application calls its own time: UTC, or local time.
    :param serializer: ``'pickle'`` (restricted), ``'json'``, ``'msgpack'``, ``'pickle-any'``, or an object with dumps, loads and allow.
    :param secret: signs every message, result, error and revocation, and refuses what is not signed: a text of 16 or more bytes, or
        several, of which the first one signs and all verify. By default the environment's ``GEVENTHUEY_SECRET`` says it (several
        with commas in between); an empty sequence signs nothing.
    :param compression: compress arguments and results that become smaller by that.
    :param result_ttl: seconds that results are kept for; None for ever.
    :param clock: for tests: a ``ManualClock``.
    :param storage_kwargs: for the storage.
    :raises ConfigurationError: a name or setting is wrong (it is a ValueError, too).
    """

    def __init__(self, name: str = 'huey', result_store: bool = True, events: bool = True, store_none: bool = False,
                 always_eager: bool = False, store_errors: bool = True, blocking: bool = False, *, results: bool | None = None,
                 immediate: bool | None = None, utc: bool = True, serializer: str | Serializer = 'pickle',
                 secret: Secrets | None = None, compression: bool = False,
                 result_ttl: float | None = WEEK, clock: Clock | None = None, **storage_kwargs: Any) -> None:
        self.name = check_name('the name', name)
        self.result_store = result_store if results is None else results
        self.events = events
        self.store_none = store_none
        self.always_eager = always_eager if immediate is None else immediate
        self.store_errors = store_errors
        self.blocking = blocking
        self.utc = utc
        self.serializer = serializer_of(serializer)
        self.envelope = Envelope(self.serializer, self.name, _secrets_of_the_environment() if secret is None else secret, compression)
        self.result_ttl = None if result_ttl is None else float(check_number('result_ttl', result_ttl, MAX_DELAY))
        if self.result_ttl == 0:
            raise ConfigurationError('result_ttl=0 would keep no result: use None to keep all, result_store=False to keep none')
        self.clock = clock or Clock()
        self.registry = TaskRegistry(self.envelope, self.clock)
        self.callbacks = Callbacks()
        self._use(self.get_storage(**storage_kwargs))

    @staticmethod
    def from_url(url: str, name: str = 'huey', **settings: Any) -> Huey:
        """The application at a URL: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://``, ``redis+cluster://`` or
        ``memory://``.
        """
        scheme, slashes, _ = url.partition('://')
        if scheme == 'memory':
            return MemoryHuey(name, **settings)
        if url.startswith(REDIS_SCHEMES):
            return RedisHuey(name, url=url, **settings)
        begins = f'that begins with {scheme!r}' if slashes else 'without ://'       # the rest may hold a password
        raise ConfigurationError(f'a URL {begins} is not understood: use redis://, rediss://, unix://, redis+sentinel://, '
                                 'redis+cluster:// or memory://')

    def get_storage(self, **storage_kwargs: Any) -> BaseStorage:
        """The storage; override it in a subclass."""
        raise NotImplementedError('Storage API not implemented in the base Huey class. Use `RedisHuey` or `MemoryHuey` instead.')

    def use_url(self, url: str) -> None:
        """The application's tasks are at this URL from now on, whatever it was made with."""
        self.close()
        self._use(Huey.from_url(url, self.name, clock=self.clock).storage)

    def _use(self, storage: BaseStorage) -> None:
        self.storage = storage
        self._hand = HandLease(storage)
        self.revocations = Revocations(storage, self.envelope, self.clock, WEEK)
        if self.serializer.name == 'pickle-any' and not self.envelope.signs and not storage.is_local:
            warnings.warn("serializer='pickle-any' without a secret: whoever can write to this Redis can run code in the consumers; "
                          'set secret= or GEVENTHUEY_SECRET, or use another serializer', RuntimeWarning, stacklevel=3)

    @property
    def immediate(self) -> bool:
        """Another name for ``always_eager``."""
        return self.always_eager

    @immediate.setter
    def immediate(self, value: bool) -> None:
        self.always_eager = value

    @property
    def results(self) -> bool:
        """Another name for ``result_store``."""
        return self.result_store

    @results.setter
    def results(self, value: bool) -> None:
        self.result_store = value

    # -- decorators -----------------------------------------------------------------------------------------

    def task(self, retries: int = 0, retry_delay: float = 0, retries_as_argument: bool = False, include_task: bool = False,
             name: str | None = None, context: bool = False,
             at_most_once: bool = False, *, priority: int = 0,
             expires: Expires | None = None) -> Callable[[Callable[..., Any]], TaskFunction]:
        """Calls of the decorated function become tasks.

        :param retries: how often a task is run again after a failure.
        :param retry_delay: seconds between a failure and the next run.
        :param retries_as_argument: the function gets the retries that are left as ``retries``.
        :param include_task: the function gets the task as ``task``; also named ``context``.
        :param name: the task's name; by default the module and the function's name.
        :param at_most_once: when its consumer dies (or is stopped) while it runs, it is not run again: who waits for it gets
            ``TaskLost``, and it is a dead letter.  Retries after a failure are made all the same.
        :param priority: tasks with a higher one run first; 0 is ordinary, and the fastest; from -32768 to 32767.
        :param expires: a task that has not been started so many seconds (or a timedelta) after the call, or by a datetime (naive: local
            time), is not run: who waits for it gets ``TaskLost``.
        """
        if callable(retries):
            raise TypeError('write @huey.task() with its parentheses')
        check_number('retries', retries, MAX_RETRIES, int)
        check_number('retry_delay', retry_delay, MAX_DELAY)
        check_priority(priority)
        expiry(expires, 0.0)

        def decorate(func: Callable[..., Any]) -> TaskFunction:
            cls = task_class(_plain_function(func), name, retries_as_argument, include_task or context, at_most_once=at_most_once)
            return TaskFunction(self, func, self.registry.register(cls), retries, retry_delay, priority, expires)
        return decorate

    def context_task(self, obj: Any, as_argument: bool = False, **settings: Any) -> Callable[[Callable[..., Any]], TaskFunction]:
        """As ``task``, and the function runs within ``with obj:``; with ``as_argument`` it gets what that yields as its first argument.

        :param settings: those of ``task``.
        """
        if not all(hasattr(type(obj), method) for method in ('__enter__', '__exit__')):
            raise TypeError(f'context_task takes what can be used as "with ...:", not {obj!r}')

        def decorate(func: Callable[..., Any]) -> TaskFunction:
            @functools.wraps(_plain_function(func))
            def within(*args: Any, **kwargs: Any) -> Any:
                # what contextlib.contextmanager makes can be entered once only, but makes others like it
                with getattr(obj, '_recreate_cm', lambda: obj)() as given:
                    return func(given, *args, **kwargs) if as_argument else func(*args, **kwargs)
            if as_argument:
                with contextlib.suppress(ValueError):       # a builtin that does not say
                    within.__signature__ = inspect.signature(functools.partial(func, None))     # type: ignore[attr-defined]
            return self.task(**settings)(within)
        return decorate

    def periodic_task(self, validate_datetime: ValidateDatetime, name: str | None = None, at_most_once: bool = False, *,
                      retries: int = 0, retry_delay: float = 0, priority: int = 0,
                      expires: Expires | None = None) -> Callable[[Callable[..., Any]], PeriodicFunction]:
        """Consumers run the decorated function in every minute for which ``validate_datetime(datetime)`` is true.

        It runs once per minute, however many consumers there are, and takes no arguments.  A call of it stays a call.
        ``at_most_once``: a run whose consumer dies is not made up for.  The others are as in ``task``.
        """
        if not _takes_one_argument(validate_datetime):
            raise TypeError('validate_datetime must be callable with a datetime, as crontab(minute="0") is; '
                            f'not {validate_datetime!r}')
        settings = {'run_retries': check_number('retries', retries, MAX_RETRIES, int),
                    'run_retry_delay': check_number('retry_delay', retry_delay, MAX_DELAY),
                    'run_priority': check_priority(priority), 'run_expires': expires}
        expiry(expires, 0.0)

        def decorate(func: Callable[..., Any]) -> PeriodicFunction:
            cls = task_class(_plain_function(func), name, validate_datetime=validate_datetime, at_most_once=at_most_once)
            for setting, value in settings.items():
                setattr(cls, setting, value)
            required = [parameter.name for parameter in inspect.signature(func).parameters.values()
                        if parameter.default is parameter.empty and parameter.kind in (0, 1, 3)]
            if required:
                raise ConfigurationError(f'{cls.task_name}: a periodic task takes no arguments, but {", ".join(required)} is required')
            return PeriodicFunction(self, func, self.registry.register(cls))
        return decorate

    def allow(self, cls: type[T]) -> type[T]:
        """Objects of this class may be arguments and results; usable as a decorator."""
        return self.serializer.allow(cls)

    # -- tasks on their way: enqueue, enqueue_many and add_schedule are in producer.py -----------------------

    def _wrapper(self, task: QueueTask) -> TaskResultWrapper | None:
        return TaskResultWrapper(self, task) if self.result_store else None

    def _group(self, results: list[TaskResultWrapper]) -> ResultGroup | None:
        return ResultGroup(self, results) if self.result_store else None

    def _run_eagerly(self, task: QueueTask) -> TaskResultWrapper | None:
        self.registry.message(task)         # what could not travel in production is refused here, too
        callbacks = self.callbacks
        callbacks.signals.send(SIGNAL_EXECUTING, task)
        try:
            callbacks.before(task, Exception)
            value = task.execute()
        except BaseException as exc:
            callbacks.post_execute.call_all(task, None, exc, logged=Exception)
            if isinstance(exc, CancelExecution):
                callbacks.signals.send(SIGNAL_CANCELED, task)
            else:
                callbacks.signals.send(SIGNAL_ERROR, task, exc)
            raise
        callbacks.post_execute.call_all(task, value, None, logged=Exception)
        callbacks.signals.send(SIGNAL_COMPLETE, task)
        return EagerTaskResult(self, task, value) if self.result_store else None

    # -- by hand --------------------------------------------------------------------------------------------

    def dequeue(self) -> QueueTask | None:
        """The next task of the queue, held by this process until ``execute`` or ``close``; None when there is none.

        With ``blocking`` it waits up to the storage's ``read_timeout`` seconds.  Raises QueueException for a task of a name
        that is not registered (it goes to the dead letters), QueueReadException when the storage cannot be read.
        """
        timeout = float(getattr(self.storage, 'read_timeout', 1.0)) if self.blocking else 0.0
        try:
            delivery = self._hand.take({DEFAULT_QUEUE: 1}, timeout)
            if delivery is None:
                return None
            try:
                task = self.registry.task(Message.decode(delivery.message))
            except (QueueException, MessageError):
                self._settle(delivery, self.executor().execute(delivery))
                raise
        except StorageError as exc:
            raise QueueReadException(f'{type(exc).__name__}: {exc}') from exc
        task.__dict__['_delivery'] = delivery
        return task

    def execute(self, task: QueueTask) -> Any:
        """Runs the task here and stores its result; a task from ``dequeue`` is finished (or retried) by that.

        Returns what it returned; raises what it raised.
        """
        if not isinstance(task, QueueTask):
            raise TypeError(f'Unknown object: {task!r} (a task is needed)')
        delivery: Delivery | None = task.__dict__.pop('_delivery', None)
        if delivery is not None:
            self._hand.begin(delivery)
        message = Message.decode(delivery.message) if delivery is not None else self._message(task)
        outcome = self.executor().run(delivery or Delivery('', 0, b''), message, task)
        try:
            if delivery is not None:
                self._settle(delivery, outcome)
            else:
                self._store(outcome)
        except StorageError as exc:
            raise DataStorePutException(f'{type(exc).__name__}: {exc}') from exc
        if outcome.error is not None:
            try:
                raise outcome.error
            finally:
                del outcome         # the error's traceback holds this frame
        return outcome.value

    def _settle(self, delivery: Delivery, outcome: Outcome) -> None:
        if not self._hand.settle(delivery, Settlement(delivery.tag, outcome.effects)):
            logger.warning('a task from dequeue() was not held any more at its end: nothing is kept of it, and it may run twice')

    def _store(self, outcome: Outcome) -> None:
        """What the run of a task that was never in a queue leaves behind."""
        for effect in outcome.effects:
            if isinstance(effect, Keep):
                self.storage.put_result(*effect)
            elif isinstance(effect, NoteError):
                self.storage.note_error(effect.entry)

    def executor(self, listening: Callable[[], bool] = lambda: False) -> Executor:
        """One that runs deliveries with this application's settings."""
        return Executor(self.registry, self.envelope, self.clock, store_none=self.store_none,
                        store_errors=self.store_errors and self.result_store, result_ttl=self.result_ttl, listening=listening,
                        callbacks=self.callbacks)

    def ready_to_run(self, task: QueueTask, dt: datetime.datetime | None = None) -> bool:
        """True when the task's ``execute_time`` has come by ``dt`` (naive: UTC; now by default)."""
        moment = self.clock.now() if dt is None else to_timestamp(dt, local=False)
        return task.eta is None or task.eta <= moment

    def read_schedule(self, dt: datetime.datetime | None = None) -> list[QueueTask]:
        """The tasks that are due at ``dt`` (naive: UTC; now by default) or before, taken out of the schedule."""
        moment = self.clock.now() if dt is None else to_timestamp(dt, local=False)
        try:
            return self._tasks(self.storage.take_due(moment, 1000))
        except StorageError as exc:
            raise ScheduleReadException(f'{type(exc).__name__}: {exc}') from exc

    def read_periodic(self, dt: datetime.datetime | None = None) -> list[QueueTask]:
        """A task of each periodic function that is to run in the minute ``dt`` (now by default)."""
        moment = dt or to_datetime(self.clock.now(), self.utc)
        tasks = (cls() for cls in self.registry.periodic())
        return [task for task in tasks if task.validate_datetime(moment)]

    # -- once -----------------------------------------------------------------------------------------------

    def once(self, key: str, ttl: float) -> Once:
        """True for the first one who asks for the key within ``ttl`` seconds, among all processes of the application.

        For tasks that must not do something twice although they may run twice; as a ``with`` block it frees the key when the block
        raises.  Raises DataStorePutException when the storage cannot be reached.
        """
        if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY:
            raise ConfigurationError(f'a key for once() is a text of 1 to {MAX_KEY} characters, not {key!r:.100}')
        if check_number('ttl', ttl, MAX_DELAY) <= 0:
            raise ConfigurationError(f'ttl={ttl}: for how many seconds is the key to be remembered?')
        return Once(self.storage, key, ttl)

    # -- results and revocations ----------------------------------------------------------------------------

    def result(self, task_id: str, blocking: bool = False, timeout: float | None = None, backoff: float = 1.15,
               max_delay: float = 1.0, revoke_on_timeout: bool = False, preserve: bool = False) -> Any:
        """What the task returned, as ``TaskResultWrapper.get`` has it."""
        task = QueueTask(task_id=check_task_id(task_id))
        return TaskResultWrapper(self, task).get(blocking, timeout, backoff, max_delay, revoke_on_timeout, preserve)

    def revoke(self, task: QueueTask, revoke_until: datetime.datetime | None = None, revoke_once: bool = False) -> None:
        """The task is not started: until a datetime (naive: local time), the next time only, or not at all.

        A task that runs is not touched.  A periodic task is revoked as a whole.  A later call replaces an earlier one.
        """
        self.revocations.revoke(field_of(task), revoke_until, revoke_once)

    def restore(self, task: QueueTask) -> bool:
        """The task is not revoked any more; True when it was."""
        return self.revocations.restore(field_of(task))

    def revoke_all(self, task_class: type[QueueTask], revoke_until: datetime.datetime | None = None, revoke_once: bool = False) -> None:
        """All tasks of a class (``add.task_class``) are skipped: until a datetime (naive: local time), the next one only, or at all."""
        self.revocations.revoke(name_field(task_class.task_name), revoke_until, revoke_once)

    def restore_all(self, task_class: type[QueueTask]) -> bool:
        """The class is not revoked any more; True when it was."""
        return self.revocations.restore(name_field(task_class.task_name))

    def revoke_by_id(self, task_id: str, revoke_until: datetime.datetime | None = None, revoke_once: bool = False) -> None:
        """``revoke`` by the task's id."""
        self.revoke(QueueTask(task_id=check_task_id(task_id)), revoke_until, revoke_once)

    def restore_by_id(self, task_id: str) -> bool:
        """``restore`` by the task's id."""
        return self.restore(QueueTask(task_id=check_task_id(task_id)))

    def is_revoked(self, task: QueueTask | str, dt: datetime.datetime | None = None, peek: bool = True) -> bool:
        """True when the task (or the task of this id) would be skipped at ``dt`` (naive: local time; now by default)."""
        if isinstance(task, QueueTask) and task.flags & (REVOKED | REVOKED_FOR_GOOD):
            return True
        return any(self.revocations.is_revoked(field, dt, peek) for field in fields_of(task))

    # -- consumers, and the end -----------------------------------------------------------------------------

    def create_consumer(self, **options: Any) -> Consumer:
        """A consumer of this application's tasks in this process; not started yet."""
        from geventhuey.consumer.consumer import Consumer
        return Consumer(self, **options)

    def consumer(self, **options: Any) -> Consumer:
        """A consumer to be used with ``with``: it runs while the block does.

        In a process that gevent has patched, tasks run in the thread of the caller: a Ctrl+C that comes while one of them computes
        is raised in that task.
        """
        return self.create_consumer(**options)

    def flush(self) -> None:
        """Queue, schedule, results, revocations and errors are empty. What runs, runs on."""
        self._looked(self.storage.flush, QueueException)

    def close(self) -> None:
        """What was taken with ``dequeue`` and not executed is back in its queue; connections are closed."""
        self._hand.close()
        self.storage.close()

    def __repr__(self) -> str:
        return f'<{type(self).__name__} {self.name!r} at {self.storage.describe()}>'


class RedisHuey(Huey):
    """An application whose tasks are in Redis or Valkey.

    ``url=``, or ``connection_pool=``, or the keywords of ``redis.Redis`` (``host``, ``port``, ``db``, ``password``, ...) say where.
    With none of them the environment's ``GEVENTHUEY_URL`` does, or else it is ``localhost:6379``.
    """

    def get_storage(self, **storage_kwargs: Any) -> BaseStorage:
        if not set(storage_kwargs) - {'read_timeout', 'max_errors'} and os.environ.get(URL_VARIABLE, '').startswith(REDIS_SCHEMES):
            storage_kwargs['url'] = os.environ[URL_VARIABLE]
        from geventhuey.storage.redis import RedisStorage
        return RedisStorage(self.name, **storage_kwargs)


class MemoryHuey(Huey):
    """An application whose tasks are in the memory of this process: for tests, and for programs that need no server."""

    def get_storage(self, **storage_kwargs: Any) -> BaseStorage:
        return MemoryStorage(self.name, self.clock, **storage_kwargs)


def _secrets_of_the_environment() -> list[str]:
    """The secrets in ``GEVENTHUEY_SECRET``, which commas separate. Raises ConfigurationError when it is set and has none."""
    if SECRET_VARIABLE not in os.environ:
        return []
    secrets = [secret.strip() for secret in os.environ[SECRET_VARIABLE].split(',') if secret.strip()]
    if not secrets:
        raise ConfigurationError(f'{SECRET_VARIABLE} is set and holds no secret: unset it when nothing is to be signed')
    return secrets


def _plain_function(func: Callable[..., Any]) -> Callable[..., Any]:
    """The function, when it can be a task. Raises ConfigurationError for an async one: it would never be awaited."""
    if not callable(func):
        raise TypeError(f'a function is needed, not {func!r}')
    if any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in (func, type(func).__call__)):
        raise ConfigurationError(f'{getattr(func, "__qualname__", func)} is async: tasks are ordinary functions, '
                                 f'and in a greenlet what blocks lets the others go on')
    return func


def _takes_one_argument(func: Any) -> bool:
    """False for what cannot be called with one argument, such as the function below ``@huey.periodic_task`` without parentheses."""
    try:
        inspect.signature(func).bind(None)
    except TypeError:
        return False
    except ValueError:      # a builtin that does not say
        return callable(func)
    return True
