"""Bare loops: the least that a task costs when nothing but its road is left. What is faster than these has left something out.

They know Redis's protocol, redis-py's connection, pickle and greenlets, and nothing of geventhuey but the bytes of its messages.
None of them looks anything up, catches, logs, counts, waits for news or could be told to stop; each says why it is a limit.
"""

from __future__ import annotations

import hashlib
import pickle
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import gevent
import greenlet
import redis

from geventhuey.testing.redis_server import RedisServer

#: Messages of one fetch at most: as many as geventhuey's consumer brings to 500 workers.
BATCH = 500
INFLIGHT, RESULT = 'bare:inflight', 'bare:result:'
#: Milliseconds for which a result is kept: geventhuey's default, a week.
TTL_MS = 7 * 24 * 3600 * 1000

#: KEYS[1] queue  KEYS[2] in flight  ARGV[1] at most  ARGV[2] the first tag.  Returns the messages; their tags are the next numbers.
FETCH = """
local got = redis.call('LPOP', KEYS[1], ARGV[1])
if not got then return {} end
local records = {}
for j = 1, #got do records[2 * j - 1], records[2 * j] = ARGV[2] + j - 1, got[j] end
redis.call('HSET', KEYS[2], unpack(records))
return got
"""

#: KEYS[1] in flight  ARGV[1] ttl in ms  ARGV[2] number of results, then for each: key, record; then the tags.
SETTLE = """
local last = 2 + 2 * ARGV[2]
for i = 3, last, 2 do redis.call('SET', ARGV[i], ARGV[i + 1], 'PX', ARGV[1]) end
return redis.call('HDEL', KEYS[1], unpack(ARGV, last + 1))
"""


class Run(NamedTuple):
    """What a loop took."""

    tasks: int
    seconds: float
    #: Seconds of CPU of the loop, and of Redis.
    cpu: float
    redis_cpu: float

    @property
    def rate(self) -> float:
        """Tasks per second."""
        return self.tasks / self.seconds


class Pickled(NamedTuple):
    """Where a message has its pickle: from this byte on."""

    offset: int


# -- a consumer -----------------------------------------------------------------------------------------------

def drain(server: RedisServer, queue: str, record: bytes | None = None, pickled: Pickled | None = None) -> Run:
    """The queue is empty: every message was fetched, a function was called for it, and it was settled.

    It is the limit of every consumer that loses no message when it dies, takes up to 500 at a time and does nothing meanwhile: a
    message has to be moved to where it outlives the consumer, one call is what it is there for, and it has to be taken away. One
    script and one command for 500 of them, on one connection, cannot be had cheaper; tags are numbers, so nothing is searched.
    Loop and Redis take turns, as with every consumer whose workers all are busy with the same batch.

    ``record``: each task has this result, one SET with a ttl in the script that settles. ``pickled``: each task's arguments are
    unpickled, and its result is pickled: what no task queue with arguments can do without.
    """
    connection = redis.Connection(host='127.0.0.1', port=server.port)
    connection.connect()
    _ask(connection, 'SCRIPT', 'LOAD', FETCH)
    _ask(connection, 'SCRIPT', 'LOAD', SETTLE)
    fetch, settle = (hashlib.sha1(text.encode()).hexdigest() for text in (FETCH, SETTLE))
    done = tag = 0
    begun, used, redis_used = time.perf_counter(), time.process_time(), redis_cpu(connection)
    while True:
        messages = _ask(connection, 'EVALSHA', fetch, 2, queue, INFLIGHT, BATCH, tag)
        if not messages:
            break
        if pickled is None:
            for _ in messages:
                _noop()
        else:
            start = pickled.offset
            for message in messages:
                pickle.loads(message[start:])
                pickle.dumps(_noop(), pickle.HIGHEST_PROTOCOL)
        tags = range(tag, tag + len(messages))
        if record is None:
            _ask(connection, 'HDEL', INFLIGHT, *tags)
        else:
            results: list[Any] = []
            for message in messages:        # the id stands behind the header of 24 bytes, one of which is its length
                results += RESULT + message[24:24 + message[21]].decode(), record
            _ask(connection, 'EVALSHA', settle, 1, INFLIGHT, TTL_MS, len(messages), *results, *tags)
        done, tag = done + len(messages), tags.stop
    run = Run(done, time.perf_counter() - begun, time.process_time() - used, redis_cpu(connection) - redis_used)
    connection.disconnect()
    return run


def _noop() -> bool:
    return True


def _ask(connection: redis.Connection, *words: Any) -> Any:
    connection.send_packed_command(connection.pack_command(*words))
    return connection.read_response()


def redis_cpu(connection: redis.Connection) -> float:
    """Seconds of CPU that the server has used, by its own account."""
    lines = dict(line.split(b':', 1) for line in _ask(connection, 'INFO', 'cpu').splitlines() if b':' in line)
    return float(lines[b'used_cpu_user']) + float(lines[b'used_cpu_sys'])


# -- greenlets ------------------------------------------------------------------------------------------------

def parked(slots: int, rounds: int, nap: float) -> Run:
    """``rounds`` naps for each of the slots have been slept, by greenlets that park in between, the last one parked first to be woken.

    It is the limit of every pool of greenlets: a nap takes a timer and two switches of gevent's, and to wake a parked greenlet takes
    one callback of the hub's. One more greenlet hands out all naps for which somebody is free, once for each turn of the hub.
    """
    hub, waiting, left, ended = gevent.get_hub(), [], slots * rounds, slots * rounds
    dispatcher, called = gevent.getcurrent(), False

    def work() -> None:
        nonlocal ended, called
        while True:
            gevent.sleep(nap)
            ended -= 1
            waiting.append(greenlet.getcurrent())
            if not called:
                called = True
                hub.loop.run_callback(dispatcher.switch)
            if hub.switch() is None:
                return

    begun, used = time.perf_counter(), time.process_time()
    for _ in range(slots):
        gevent.spawn(work)
    left -= slots
    while ended:
        hub.switch()
        called = False
        while left and waiting:
            left -= 1
            hub.loop.run_callback(waiting.pop().switch, True)
    run = Run(slots * rounds, time.perf_counter() - begun, time.process_time() - used, 0.0)
    for worker in waiting:
        hub.loop.run_callback(worker.switch, None)
    gevent.joinall(waiting)
    return run


def switched(times: int) -> float:
    """Microseconds for a greenlet to be made, entered and left: the least that a task in a greenlet of its own costs."""
    return _each(times, lambda: [greenlet.greenlet(_noop).switch() for _ in range(times)])


def switched_back(times: int) -> float:
    """Microseconds for a parked greenlet to be entered and left again: the least that a task in a greenlet of a pool costs."""
    def work() -> None:
        switch = greenlet.getcurrent().parent.switch
        while switch():
            pass
    worker = greenlet.greenlet(work)
    worker.switch()
    seconds = _each(times, lambda: [worker.switch(True) for _ in range(times)])
    worker.switch(False)
    return seconds


def repickled(data: bytes, times: int) -> float:
    """Microseconds to unpickle a message's arguments and to pickle them: the least that arguments cost on both sides."""
    value = pickle.loads(data)
    return _each(times, lambda: [pickle.loads(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)) for _ in range(times)])


# -- Redis ----------------------------------------------------------------------------------------------------

def pinged(port: int, times: int) -> float:
    """Microseconds for six bytes to Redis and seven back, on a bare socket: no call that waits for its answer is faster."""
    with socket.create_connection(('127.0.0.1', port)) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def ask() -> None:
            line.sendall(b'PING\r\n')
            line.recv(64)
        return _each(times, lambda: _repeat(ask, times))


def pushed_in_bulk(url: str, queue: str, message: bytes, times: int) -> float:
    """Messages per second by RPUSH, 500 commands in a pipeline: what redis-py can do when no answer is waited for."""
    client = redis.Redis.from_url(url)
    begun = time.perf_counter()
    for start in range(0, times, BATCH):
        pipeline = client.pipeline(transaction=False)
        for _ in range(min(BATCH, times - start)):
            pipeline.rpush(queue, message)
        pipeline.execute()
    return times / (time.perf_counter() - begun)


def _repeat(call: Callable[[], Any], times: int) -> None:
    for _ in range(times):
        call()


def _each(times: int, work: Callable[[], Iterable[Any] | None]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) / times * 1e6
