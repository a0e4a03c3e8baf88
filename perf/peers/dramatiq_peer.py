"""Dramatiq: ``dramatiq-gevent`` with one process; its middleware and its prefetch (two messages a thread) as they come.

``dramatiq-gevent`` always has a parent process that watches the worker: it is in the memory, not in the CPU of a task.
Both clients may have a connection for each greenlet (redis-py's pool: 100).
"""

from __future__ import annotations

import os
import time
from typing import Any

import dramatiq
import redis
import tally
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

RESULTS = os.environ['PEER_RESULTS'] == '1'


def _client() -> redis.Redis:
    return redis.Redis(connection_pool=redis.ConnectionPool.from_url(os.environ['PEER_REDIS'], max_connections=20_000))


broker = RedisBroker(client=_client())
if RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(client=_client()), store_results=True))
dramatiq.set_broker(broker)

noop = dramatiq.actor(tally.noop, actor_name='noop')
nap = dramatiq.actor(tally.nap, actor_name='nap')
started = dramatiq.actor(tally.started, actor_name='started')
#: ``group().run()`` enqueues one message after the other.
bulk = None


def call(task: Any, *args: Any) -> Any:
    return task.send(*args)


def wait(handle: Any, timeout: float) -> Any:
    return handle.get_result(block=True, timeout=int(timeout * 1000))


def schedule(task: Any, eta: float, *args: Any) -> None:
    task.send_with_options(args=args, delay=round((eta - time.time()) * 1000))
