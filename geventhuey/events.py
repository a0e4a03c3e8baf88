"""What a consumer announces of its work, under Huey's names and in Huey's form: one JSON object per event, never an argument."""

from __future__ import annotations

import json
import time
from typing import Any

from geventhuey.task import QueueTask

EVENT_CHECKING_PERIODIC = 'checking-periodic'
EVENT_ERROR_DEQUEUEING = 'error-dequeueing'
EVENT_ERROR_ENQUEUEING = 'error-enqueueing'
EVENT_ERROR_INTERNAL = 'error-internal'
EVENT_ERROR_SCHEDULING = 'error-scheduling'
EVENT_ERROR_STORING_RESULT = 'error-storing-result'
EVENT_ERROR_TASK = 'error-task'
EVENT_FINISHED = 'finished'
EVENT_RETRYING = 'retrying'
EVENT_REVOKED = 'revoked'
EVENT_SCHEDULED = 'scheduled'
EVENT_SCHEDULING_PERIODIC = 'scheduling-periodic'
EVENT_STARTED = 'started'
EVENT_TIMEOUT = 'timeout'


def event(status: str, task: QueueTask | None = None, error: bool = False, **data: Any) -> bytes:
    """An event as it is published: ``status``, ``error``, what identifies the task, and ``data``."""
    content: dict[str, Any] = {'status': status, 'error': error}
    if task is not None:
        content |= {'id': task.task_id, 'task': task.name, 'name': task.task_name, 'retries': task.retries,
                    'retry_delay': task.retry_delay, 'execute_time': task.eta}
    return json.dumps(content | {'timestamp': time.time()} | data).encode()
