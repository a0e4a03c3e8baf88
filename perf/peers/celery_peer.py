"""Celery: the gevent pool on a Redis broker and a Redis result backend.

Acknowledged late, so that a task is not lost with its worker; four tasks are prefetched for each slot, as by default, for many short
tasks; no events, no gossip, no mingling, no heartbeats, no compression.  All pools of connections may have one for each greenlet.
"""

from __future__ import annotations

import datetime
import os
from typing import Any

import tally
from celery import Celery

RESULTS = os.environ['PEER_RESULTS'] == '1'
URL = os.environ['PEER_REDIS']
app = Celery('peers', broker=URL, backend=URL if RESULTS else None)
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=4,
    task_ignore_result=not RESULTS,
    task_store_errors_even_if_ignored=False,
    task_track_started=False,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
    broker_pool_limit=500,
    broker_transport_options={'max_connections': 20_000},
    redis_max_connections=20_000,
    # Otherwise each greenlet makes a backend, with connections, of its own: for every task, that is.
    result_backend_thread_safe=True,
)

noop = app.task(name='noop')(tally.noop)
nap = app.task(name='nap')(tally.nap)
started = app.task(name='started')(tally.started)
#: A group enqueues one message after the other.
bulk = None


def call(task: Any, *args: Any) -> Any:
    return task.delay(*args)


def wait(handle: Any, timeout: float) -> Any:
    return handle.get(timeout=timeout)


def schedule(task: Any, eta: float, *args: Any) -> None:
    task.apply_async(args, eta=datetime.datetime.fromtimestamp(eta, datetime.timezone.utc))
