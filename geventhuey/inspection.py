"""Inspection: what is in an application's queue, schedule, results and error list, and what was given up."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from geventhuey.dead_letter import DeadLetter
from geventhuey.envelope import ERROR, RESULT, Envelope
from geventhuey.exceptions import (
    DataStoreGetException,
    QueueException,
    QueueReadException,
    QueueWriteException,
    ScheduleReadException,
    SerializationError,
    StorageError,
)
from geventhuey.storage.base import BaseStorage
from geventhuey.task import QueueTask, TaskRegistry, check_number, check_task_id

logger = logging.getLogger('geventhuey')

T = TypeVar('T')

DEFAULT_QUEUE = 'default'


class Inspection:
    """The part of an application that looks at its tasks, and at those that were given up."""

    storage: BaseStorage
    registry: TaskRegistry
    envelope: Envelope

    def pending(self, limit: int | None = None) -> list[QueueTask]:
        """The tasks in the queue, the newest first; ``limit`` of them at most.

        Those that this program cannot read (it does not know them, or their signature) are left out; ``pending_count`` counts them.
        """
        _check_limit(limit)
        return self._looked(lambda: self._tasks(self.storage.pending(DEFAULT_QUEUE, limit)), QueueReadException)

    def scheduled(self, limit: int | None = None) -> list[QueueTask]:
        """The tasks in the schedule, the soonest first; ``limit`` of them at most. What cannot be read is left out, as in ``pending``."""
        _check_limit(limit)
        return self._looked(lambda: self._tasks([raw for _, raw in self.storage.scheduled(limit)]), ScheduleReadException)

    def all_results(self) -> dict[str, bytes]:
        """Everything that tasks have returned and nobody has read, pickled (by the serializer), by task id.

        An error's is the pickled dict of what is known of it.  Looks at every result: not for every day.
        """
        found = {}
        for task_id, record in self._looked(self.storage.results, DataStoreGetException).items():
            try:
                found[task_id] = self.envelope.opened(RESULT, record[1:], record[:1] + task_id.encode())
            except SerializationError as exc:
                logger.error('the result of %s is left out: %s', task_id, exc)
        return found

    def pending_count(self) -> int:
        """How many tasks are in the queue."""
        return self._looked(lambda: self.storage.pending_count(DEFAULT_QUEUE), QueueReadException)

    def scheduled_count(self) -> int:
        """How many tasks are in the schedule."""
        return self._looked(self.storage.scheduled_count, ScheduleReadException)

    def result_count(self) -> int:
        """How many results are kept. Looks at every result: not for every day."""
        return self._looked(self.storage.result_count, DataStoreGetException)

    def errors(self, limit: int | None = None, offset: int = 0) -> list[dict[str, Any]]:
        """The last errors of tasks, the newest first: dicts with id, task, retries, execute_time, error and traceback."""
        _check_limit(limit, offset)
        found = []
        for entry in self._looked(lambda: self.storage.errors(limit, offset), DataStoreGetException):
            try:
                found.append(self.envelope.loads(ERROR, entry))
            except SerializationError as exc:
                logger.error('an entry of the error list is left out: %s', exc)
        return found

    # -- dead letters ---------------------------------------------------------------------------------------

    def dead(self, limit: int | None = None) -> list[DeadLetter]:
        """The tasks that were given up, the last first; ``limit`` of them at most. The last 10,000 are kept.

        They cannot be run (an unknown name, bytes that cannot be read), their consumers died under them too often, or once, when
        they may run only once.
        """
        _check_limit(limit)
        return [DeadLetter.of(*letter) for letter in self._looked(lambda: self.storage.dead(limit), QueueReadException)]

    def retry_dead(self, task_id: str) -> bool:
        """The dead letter of this task is in its queue again, as if newly sent; False when there is none."""
        return bool(self._looked(lambda: self.storage.retry_dead(check_task_id(task_id)), QueueWriteException))

    def purge_dead(self, task_id: str | None = None) -> int:
        """The dead letter of this task is gone, or all are; answers how many."""
        which = None if task_id is None else check_task_id(task_id)
        return self._looked(lambda: self.storage.purge_dead(which), QueueWriteException)

    # -- the tasks that there are ---------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.pending_count()

    def __bool__(self) -> bool:
        return True

    def get_tasks(self) -> list[str]:
        """The names of all tasks."""
        return sorted(cls.task_name for cls in self.registry)

    def get_periodic_tasks(self) -> list[str]:
        """The names of the periodic tasks."""
        return [cls.task_name for cls in self.registry.periodic()]

    def get_regular_tasks(self) -> list[str]:
        """The names of the tasks that run when they are called."""
        return sorted(set(self.get_tasks()) - set(self.get_periodic_tasks()))

    def _tasks(self, raws: list[bytes]) -> list[QueueTask]:
        """The tasks of these messages; those of other programs are left out."""
        return [task for task in map(self.registry.decode, raws) if task is not None]

    def _looked(self, look: Callable[[], T], error: type[QueueException]) -> T:
        try:
            return look()
        except StorageError as exc:
            raise error(f'{type(exc).__name__}: {exc}') from exc


def _check_limit(*limits: int | None) -> None:
    for limit in limits:
        check_number('a limit or offset', limit or 0, 2 ** 31, int)
