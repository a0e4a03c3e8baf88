"""Every error this package raises. ``QueueException`` is the root of those that Huey's users catch."""

from __future__ import annotations

import datetime


class QueueException(Exception):
    """The root of this package's errors."""

    #: Raised by ``enqueue_many``: so many tasks, from the first one on, are in the queue for certain.
    enqueued = 0


class ConfigurationError(QueueException, ValueError):
    """A setting, a name or an option is wrong; the text says which and what to do."""


# -- what went wrong with the storage, named by what was asked of it (Huey's names) ---------------------------

class QueueWriteException(QueueException):
    """A task could not be put into the queue."""


class QueueReadException(QueueException):
    """The queue could not be read."""


class QueueRemoveException(QueueException):
    """A task could not be taken out of the queue."""


class DataStoreGetException(QueueException):
    """A result, a revocation or an error list could not be read."""


class DataStorePutException(QueueException):
    """A result or a revocation could not be written."""


class DataStoreTimeout(QueueException):
    """No result came within the time that was allowed. Also named ``ResultTimeout``."""


class ScheduleAddException(QueueException):
    """A task could not be put into the schedule."""


class ScheduleReadException(QueueException):
    """The schedule could not be read."""


ResultTimeout = DataStoreTimeout


# -- the storage's own errors --------------------------------------------------------------------------------

class StorageError(QueueException):
    """The storage answered with a refusal; the text is the server's."""


class StorageUnavailable(StorageError):
    """The storage cannot be reached, or cannot serve now; what was asked has certainly not been done."""


class StorageOutcomeUnknown(StorageUnavailable):
    """The connection broke after the request was sent: what was asked may or may not have been done."""


class StorageRefused(StorageError):
    """The storage will not serve this client: wrong password, no permission, a version that is too old."""


class EnqueueOutcomeUnknown(QueueWriteException):
    """The connection broke while a task was on its way: it may or may not have been enqueued.

    Enqueueing it again may run it twice.  ``task_id`` says which one it was.
    """

    def __init__(self, message: str, task_id: str | None = None) -> None:
        super().__init__(message)
        self.task_id = task_id


# -- messages ------------------------------------------------------------------------------------------------

class MessageError(QueueException):
    """A message's bytes are not a message, or not one of this version."""


class SerializationError(QueueException):
    """A value cannot travel: it cannot be serialized, or its type is not allowed to."""


class SignatureError(SerializationError):
    """Something is not signed, or not with a secret that this program knows, or not for what it is used as."""


# -- how a task ended ----------------------------------------------------------------------------------------

class TaskException(QueueException):
    """The task failed. The text is the error's; ``metadata`` holds what is known of it.

    ``metadata`` has ``error`` (the error's repr), ``traceback`` (text), ``task_id`` and ``retries`` as far as they are known.
    No class named in a result is ever imported.
    """

    def __init__(self, message: str = '', metadata: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.metadata = metadata or {}

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.metadata)


class TaskLost(TaskException):
    """The task will not run (again): its consumers died under it too often, or it was flushed away."""


class TaskRevoked(TaskException):
    """The task was revoked before it started, and so has no result."""


class TaskCancelled(TaskException):
    """The task was given up by ``CancelExecution``, and so has no result."""


class ResultConsumed(DataStoreGetException):
    """The result was there, and somebody else has read it already (read it with ``preserve=True`` to keep it)."""


class CancelExecution(QueueException):
    """Raised by a task, or by a ``pre_execute`` hook before it: the task ends here.

    :param retry: True: it is run again all the same, also when it has no retries left; None: if it has any; False: it is not.
    """

    def __init__(self, message: str = '', retry: bool | None = None) -> None:
        if not isinstance(message, str):
            raise TypeError(f'the first argument of CancelExecution is its message, not {message!r}: write CancelExecution(retry=True)')
        super().__init__(message)
        self.retry = retry


class RetryTask(QueueException):
    """Raised by a task: it is run again, which costs none of its retries and is no failure.

    :param eta: when, as a datetime (naive: local time); by default at once.
    :param delay: or seconds from now.
    """

    def __init__(self, message: str = '', eta: datetime.datetime | None = None, delay: float | None = None) -> None:
        if not isinstance(message, str):
            raise TypeError(f'the first argument of RetryTask is its message, not {message!r}: write RetryTask(delay=30)')
        super().__init__(message)
        self.eta = eta
        self.delay = delay


class TaskInterrupted(BaseException):
    """Raised inside a running task when its consumer shuts down: the task goes back to the head of its queue.

    It derives from BaseException, so that a task's ``except Exception`` does not swallow it.
    """
