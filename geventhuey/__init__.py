"""geventhuey: a task queue for I/O-heavy Python on gevent and Redis, with Huey's API."""

from geventhuey.api import Huey, MemoryHuey, RedisHuey
from geventhuey.clock import Clock, ManualClock
from geventhuey.crontab import crontab
from geventhuey.dead_letter import DeadLetter
from geventhuey.exceptions import (
    CancelExecution,
    ConfigurationError,
    DataStoreGetException,
    DataStorePutException,
    DataStoreTimeout,
    EnqueueOutcomeUnknown,
    QueueException,
    QueueReadException,
    QueueRemoveException,
    QueueWriteException,
    ResultConsumed,
    ResultTimeout,
    RetryTask,
    ScheduleAddException,
    ScheduleReadException,
    SerializationError,
    SignatureError,
    TaskCancelled,
    TaskException,
    TaskInterrupted,
    TaskLost,
    TaskRevoked,
)
from geventhuey.result import ResultGroup, TaskResultWrapper
from geventhuey.task import PeriodicQueueTask, QueueTask

__version__ = '0.1.0'

#: The name that later versions of Huey use.
Result = TaskResultWrapper

__all__ = [
    'CancelExecution', 'Clock', 'ConfigurationError', 'DataStoreGetException', 'DataStorePutException', 'DataStoreTimeout', 'DeadLetter',
    'EnqueueOutcomeUnknown', 'Huey', 'ManualClock', 'MemoryHuey', 'PeriodicQueueTask', 'QueueException', 'QueueReadException',
    'QueueRemoveException', 'QueueTask', 'QueueWriteException', 'RedisHuey', 'Result', 'ResultConsumed', 'ResultGroup', 'ResultTimeout',
    'RetryTask', 'ScheduleAddException', 'ScheduleReadException', 'SerializationError', 'SignatureError', 'TaskCancelled', 'TaskException',
    'TaskInterrupted', 'TaskLost', 'TaskResultWrapper', 'TaskRevoked', 'crontab',
]
