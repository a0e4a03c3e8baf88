"""Tasks: what a call becomes, and the registry that knows which name means which code."""

from __future__ import annotations

import datetime
import difflib
import inspect
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from geventhuey.clock import Clock, to_datetime, to_timestamp
from geventhuey.envelope import TASK, Envelope
from geventhuey.exceptions import ConfigurationError, MessageError, QueueException, SerializationError, SignatureError
from geventhuey.message import AT_MOST_ONCE, MAX_ID, MAX_MESSAGE, MAX_NAME, MAX_PRIORITY, MIN_PRIORITY, Message
from geventhuey.serializer import module_name

logger = logging.getLogger('geventhuey')

#: Bytes of a payload from which it is called large, and names that are remembered for that at most.
LARGE, MAX_LARGE = 1024 * 1024, 1000
#: More retries than this are a mistake, and ten years are longer than any queue lives.
MAX_RETRIES = 10_000
MAX_DELAY = 10 * 366 * 86400.0
#: Unix seconds to both sides, all of which a datetime can show.
MAX_TIME = 62_135_596_800.0
#: Unix seconds that no datetime reaches.
MAX_EXPIRES = 1e12

ValidateDatetime = Callable[[datetime.datetime], bool]
#: When a task is not to be started any more: so many seconds (or a timedelta) after the call, or at a datetime.
Expires = float | datetime.timedelta | datetime.datetime

#: The digit of a UUID that holds its variant, by a random one.
_VARIANT = {digit: '89ab'[int(digit, 16) & 3] for digit in '0123456789abcdef'}


class QueueTask:
    """One call of a task. Subclasses say in ``execute`` what it does; a decorated function has its own subclass.

    :param data: the arguments; ``(args, kwargs)`` for decorated functions.
    :param task_id: its identity, also of its result; a new UUID by default.
    :param execute_time: not before this datetime (naive: UTC).
    :param retries: how often it may still be run again after a failure.
    :param retry_delay: seconds between a failure and the next run.
    """

    #: The name under which messages know it; set when it is registered.
    task_name: ClassVar[str] = ''
    #: False when no consumer of another process could import the code.
    importable: ClassVar[bool] = True
    #: True when it must not be run again after its consumer died or was stopped under it: it is lost then, and a dead letter.
    at_most_once: ClassVar[bool] = False

    def __init__(self, data: Any = None, task_id: str | None = None, execute_time: datetime.datetime | None = None,
                 retries: int = 0, retry_delay: float = 0) -> None:
        self.data = data
        self.task_id = task_id or self.create_id()
        self.eta: float | None = None if execute_time is None else to_timestamp(execute_time, local=False)
        self.retries = retries
        self.retry_delay = retry_delay
        self.queue = 'default'
        self.priority = 0
        self.expires: float | None = None
        self.timeout: float | None = None
        self.flags = AT_MOST_ONCE if self.at_most_once else 0
        self.deliveries = 0

    @property
    def name(self) -> str:
        """The name of its class."""
        return type(self).__name__

    @property
    def revoke_id(self) -> str:
        """Huey's name for the place of its revocation."""
        return f'r:{self.task_id}'

    @property
    def execute_time(self) -> datetime.datetime | None:
        """Not before this time (naive, UTC); None for at once."""
        return None if self.eta is None else to_datetime(self.eta, utc=True)

    @execute_time.setter
    def execute_time(self, moment: datetime.datetime | None) -> None:
        self.eta = None if moment is None else to_timestamp(moment, local=False)

    def create_id(self) -> str:
        """A new identity: a random UUID (version 4 of RFC 9562), in half the time that the ``uuid`` module needs."""
        digits = os.urandom(16).hex()
        return f'{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}'

    def get_data(self) -> Any:
        return self.data

    def set_data(self, data: Any) -> None:
        self.data = data

    def execute(self) -> Any:
        """Does the work. Subclasses override it."""
        raise NotImplementedError

    def __repr__(self) -> str:
        when = f' @{self.execute_time}' if self.eta is not None else ''
        left = f' {self.retries} retries' if self.retries else ''
        return f'{self.task_name or self.name}: {self.task_id}{when}{left}'

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QueueTask) and (type(self), self.task_id, self.eta) == (type(other), other.task_id, other.eta)

    def __hash__(self) -> int:
        return hash(self.task_id)


class PeriodicQueueTask(QueueTask):
    """A task that runs whenever ``validate_datetime`` says so."""

    #: The function that decides it, when it was given to the decorator: a ``Crontab``, as a rule.
    rule: ClassVar[ValidateDatetime | None] = None
    #: What its runs are made with: retries, seconds between them, priority, and when they expire.
    run_retries: ClassVar[int] = 0
    run_retry_delay: ClassVar[float] = 0
    run_priority: ClassVar[int] = 0
    run_expires: ClassVar[Expires | None] = None

    @classmethod
    def run(cls, task_id: str, now: float) -> PeriodicQueueTask:
        """One run of it, with the settings that its runs have."""
        task = cls(((), {}), task_id, None, cls.run_retries, cls.run_retry_delay)
        task.priority, task.expires = cls.run_priority, expiry(cls.run_expires, now)
        return task

    def validate_datetime(self, moment: datetime.datetime) -> bool:
        """True when it is to run in this minute. ``moment`` is naive, UTC or local as the consumer is set."""
        return False


def task_class(func: Callable[..., Any], name: str | None = None, retries_as_argument: bool = False,
               include_task: bool = False, validate_datetime: ValidateDatetime | None = None,
               at_most_once: bool = False) -> type[QueueTask]:
    """A task class for the function, with the name under which messages will know it.

    That is the module and the function's name, or ``name`` as it is given.  What is defined in ``__main__`` is named as a consumer
    will import it.
    """
    if name is None and not hasattr(func, '__name__'):
        raise ConfigurationError(f'{func!r} has no name of its own: give it one with name=')
    home = module_name(func)
    module = home or func.__module__
    full_name = check_task_name(f'{module}.{func.__name__}' if name is None else name)

    def execute(self: QueueTask) -> Any:
        args, kwargs = self.get_data() or ((), {})
        if retries_as_argument:
            kwargs = {**kwargs, 'retries': self.retries}
        if include_task:
            kwargs = {**kwargs, 'task': self}
        return func(*args, **kwargs)

    members: dict[str, Any] = {'execute': execute, '__module__': module, '__doc__': func.__doc__, '__wrapped__': staticmethod(func),
                               'task_name': full_name, 'importable': name is not None or home is not None, 'at_most_once': at_most_once}
    base: type[QueueTask] = QueueTask
    if validate_datetime is not None:
        base = PeriodicQueueTask
        members['rule'] = staticmethod(validate_datetime)
        members['validate_datetime'] = lambda self, moment: bool(validate_datetime(moment))
    return type(name or f'queuecmd_{func.__name__}', (base,), members)


class TaskRegistry:
    """Which name means which task class, for one application; and the way between a task and its message."""

    def __init__(self, envelope: Envelope, clock: Clock) -> None:
        self._envelope = envelope
        self._clock = clock
        self._large: set[str] = set()
        self._classes: dict[str, type[QueueTask]] = {}

    def register(self, cls: type[QueueTask]) -> type[QueueTask]:
        """The class is known by its ``task_name`` (module and class name when it has none). Usable as a decorator.

        Raises ConfigurationError when the name is taken by another class, or cannot travel.
        """
        name = cls.__dict__.get('task_name')
        if not name:
            module = module_name(cls)
            cls.importable = module is not None
            name = f'{module or cls.__module__}.{cls.__name__}'
        check_task_name(name)
        other = self._classes.get(name)
        if other is not None and other is not cls:
            raise ConfigurationError(f'there is a task named {name!r} already ({other.__module__}.{other.__name__}); '
                                     f'give one of them another name=')
        cls.task_name = name
        self._classes[name] = cls
        return cls

    def unregister(self, cls: type[QueueTask]) -> bool:
        """The class is not known any more; True when it was."""
        if self._classes.get(cls.task_name) is not cls:
            return False
        del self._classes[cls.task_name]
        return True

    def __contains__(self, name: str) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[type[QueueTask]]:
        return iter(list(self._classes.values()))

    def __len__(self) -> int:
        return len(self._classes)

    def periodic(self) -> list[type[PeriodicQueueTask]]:
        """The classes of periodic tasks, by name."""
        return [cls for _, cls in sorted(self._classes.items()) if issubclass(cls, PeriodicQueueTask)]

    def message(self, task: QueueTask, flags: int = 0, created: float | None = None) -> Message:
        """The task as it travels. Raises SerializationError, naming the argument that cannot."""
        settings: dict[str, Any] = {}
        if task.retries:
            settings['retries'] = task.retries
        if task.retry_delay:
            settings['retry_delay'] = task.retry_delay
        if task.eta is not None:
            settings['eta'] = task.eta
        if task.timeout is not None:
            settings['timeout'] = task.timeout
        if settings:
            _check_settings(settings)
        if task.priority != 0:
            check_priority(task.priority)
        if task.expires is not None:
            check_number('expires, in seconds from 1970,', task.expires, MAX_EXPIRES)
        now = self._clock.now() if created is None else created

        def message(payload: bytes) -> Message:
            return Message(task.task_id, task.task_name, payload, task.queue, task.priority, flags | task.flags, now, task.expires)

        try:
            payload = self._envelope.dumps(TASK, (task.get_data(), settings), message(b'').identity() if self._envelope.signs else b'')
        except SerializationError as exc:
            raise self._named(task, exc) from exc
        if len(payload) > LARGE:
            self._warn(task.task_name, len(payload))
        return message(payload)

    def _warn(self, name: str, size: int) -> None:
        """The log says once for each name that its messages are large."""
        if name not in self._large and len(self._large) < MAX_LARGE:
            self._large.add(name)
            logger.warning('%s: a message of %d bytes; %d are the limit, and smaller ones are faster: put the data elsewhere and send its '
                           'address, or set compression=True', name, size, MAX_MESSAGE)

    def task(self, message: Message) -> QueueTask:
        """The task that a message is. Raises QueueException for a name that nobody registered, SerializationError for its payload."""
        cls = self._classes.get(message.name)
        if cls is None:
            near = difflib.get_close_matches(message.name, self._classes, 3, 0.5)
            raise QueueException(f'{message.name} not found in TaskRegistry: is its module imported by the one with the application, '
                                 f'and is this program as new as the task?'
                                 + (f' There is {", ".join(near)}' if near else ''))
        try:
            content = self._envelope.loads(TASK, message.payload, message.identity() if self._envelope.signs else b'')
        except SignatureError:
            raise
        except SerializationError as exc:
            raise SerializationError(f'{exc} (this program reads {self._envelope.serializer_name}: was it sent with that, too?)') from exc
        try:
            data, settings = content
            if settings:
                _check_settings(settings)
            task = cls(data, message.id, None, settings.get('retries', 0), settings.get('retry_delay', 0))
            task.eta, task.timeout = settings.get('eta'), settings.get('timeout')
        except Exception as exc:            # a class of the application's may raise anything
            raise SerializationError(f'the payload is not that of a task: {type(exc).__name__}') from exc
        task.queue, task.priority, task.expires = message.queue, message.priority, message.expires
        task.flags, task.deliveries = message.flags, message.deliveries
        return task

    def decode(self, raw: bytes) -> QueueTask | None:
        """The task in these bytes, or None when they are none that this application knows."""
        try:
            return self.task(Message.decode(raw))
        except (MessageError, QueueException):
            return None

    def _named(self, task: QueueTask, error: SerializationError) -> SerializationError:
        """The same error with the name of the argument that cannot travel."""
        for label, value in _arguments(task):
            try:
                self._envelope.dumps(TASK, value)
            except SerializationError as exc:
                return SerializationError(f'{task.task_name}: argument {label} (of type {type(value).__name__}) cannot travel: {exc}')
        return SerializationError(f'{task.task_name}: its data cannot travel: {error}')


def _arguments(task: QueueTask) -> Iterator[tuple[str, Any]]:
    """The arguments of a call by name, or by position where the function does not say."""
    try:
        args, kwargs = task.get_data()
        func = getattr(type(task), '__wrapped__', type(task).execute)
        names = [name for name, parameter in inspect.signature(func).parameters.items()
                 if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)]
    except (TypeError, ValueError):
        return
    for position, value in enumerate(args):
        yield (repr(names[position]) if position < len(names) else f'number {position + 1}'), value
    for name, value in kwargs.items():
        yield repr(name), value


def _check_settings(settings: dict[str, Any]) -> None:
    """Raises ConfigurationError or TypeError for what a task cannot be run with."""
    check_number('retries', settings.get('retries', 0), MAX_RETRIES, int)
    check_number('retry_delay', settings.get('retry_delay', 0), MAX_DELAY)
    check_number('eta, in seconds from 1970,', abs(settings.get('eta', 0)), MAX_TIME)
    check_number('timeout', settings.get('timeout', 0), MAX_DELAY)


def check_task_name(name: object) -> str:
    """The name, when a task may have it. Raises ConfigurationError otherwise."""
    if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name) <= MAX_NAME or len(name.encode()) > 255:
        raise ConfigurationError(f'task name {name!r}: 1 to {MAX_NAME} printable characters are needed; give a shorter name=')
    return name


def check_task_id(task_id: object) -> str:
    """The id, when it may be one. Raises ConfigurationError otherwise."""
    if not isinstance(task_id, str) or not task_id.isprintable() or not 1 <= len(task_id.encode()) <= MAX_ID:
        raise ConfigurationError(f'task_id {task_id!r}: a text of 1 to {MAX_ID} printable bytes is needed')
    return task_id


def check_priority(priority: object) -> int:
    """The priority, when it may be one. Raises TypeError or ConfigurationError otherwise."""
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise TypeError(f'priority must be a number without a fraction, not {priority!r}')
    if not MIN_PRIORITY <= priority <= MAX_PRIORITY:
        raise ConfigurationError(f'priority={priority} is outside {MIN_PRIORITY}..{MAX_PRIORITY}')
    return priority


def expiry(expires: Expires | None, now: float) -> float | None:
    """The instant, in unix seconds, from which a task that is sent now is not to be started; None for never.

    A naive datetime is local time, and may be over. Raises TypeError or ConfigurationError for what says no time.
    """
    if expires is None:
        return None
    if isinstance(expires, datetime.datetime):
        return max(0.0, to_timestamp(expires))
    if isinstance(expires, str):
        raise TypeError(f'expires must be a number of seconds, a timedelta or a datetime, not {expires!r}')
    seconds = expires.total_seconds() if isinstance(expires, datetime.timedelta) else expires
    if check_number('expires', seconds, MAX_DELAY) <= 0:
        raise ConfigurationError(f'expires={expires!r}: after how many seconds is the task not to be started any more?')
    return now + seconds


def check_number(name: str, value: object, highest: float, kind: type[float] | type[int] = float) -> Any:
    """The number, when it is one from 0 to ``highest``. Raises ConfigurationError (a ValueError) or TypeError otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        raise TypeError(f'{name} must be a number{"" if kind is float else " without a fraction"}, not {value!r}')
    if not 0 <= value <= highest:
        raise ConfigurationError(f'{name}={value} is outside 0..{highest:g}')
    return value


