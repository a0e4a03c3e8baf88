"""What the tests of the ways to reach Redis share: an application that finds its server, and a producer that knows what was done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import redis

from geventhuey.exceptions import EnqueueOutcomeUnknown, QueueWriteException
from tests.consumer.kit import BOUND, Program, Work

AWAY, BACK = 'the storage is away', 'the storage is back'


class Finding:
    """redis-py's methods, each over a connection that finds the right server; repeated while there is none."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            deadline = time.monotonic() + BOUND
            while True:
                pool = self._work.huey.storage.address.pool('test')
                try:
                    answer = getattr(redis.Redis(connection_pool=pool), name)(*args, **kwargs)
                    return answer if isinstance(answer, dict | list | int | str | bytes | None) else list(answer)
                except (redis.ConnectionError, redis.ResponseError):
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)
                finally:
                    pool.disconnect()
        return call

    def close(self) -> None:
        """Nothing is open."""


class FoundWork(Work):
    """An application whose server may be another one from call to call."""

    def _client(self) -> Any:
        return Finding(self)


class Producer:
    """Enqueues the tasks 0, 1, 2, ... and knows of each what became of it."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.count = 0
        self.done: dict[int, Any] = {}      # the result's wrapper, by task
        self.unknown: set[int] = set()      # may or may not have been enqueued
        self.refused = 0                    # certainly not, and tried again

    def send(self, seconds: float) -> None:
        """One more task that takes so many seconds has been enqueued, or may have been."""
        n, self.count = self.count, self.count + 1
        deadline = time.monotonic() + BOUND
        while True:
            try:
                self.done[n] = self.work.send('rest', n, seconds)
                return
            except EnqueueOutcomeUnknown:
                self.unknown.add(n)
                return
            except QueueWriteException:
                self.refused += 1
                assert time.monotonic() < deadline, 'nothing can be enqueued'

    def send_while(self, condition: Callable[[], bool], seconds: float, pause: float) -> None:
        """Tasks have been enqueued for as long as the condition was true."""
        while condition():
            self.send(seconds)
            time.sleep(pause)

    def check_results(self, tasks: Iterable[int] | None = None) -> None:
        """Each of these tasks (of all that were enqueued) has ended with the right result."""
        for n in self.done if tasks is None else tasks:
            assert self.done[n].get(blocking=True, timeout=60) == n * 10

    def check_exactly_once(self) -> None:
        """Every task that was enqueued ran exactly once and has its result, none ran twice, nothing is left."""
        self.check_results()
        self.work.wait_idle(60)
        started, ended = self.work.journal.times('start'), self.work.journal.times('end')
        assert set(started) - {str(n) for n in self.unknown} == {str(n) for n in self.done}
        assert {n for n, times in started.items() if times > 1} == set()
        assert ended == started


def check_said(consumer: Program, at_most: int = 1) -> None:
    """The consumer said whenever the storage was away that it is back, and not more often than it was; it showed no traceback."""
    if consumer.lines(AWAY):
        consumer.wait_for(BACK, count=len(consumer.lines(AWAY)))
    assert len(consumer.lines(AWAY)) == len(consumer.lines(BACK)) <= at_most, consumer.text()
    assert 'Traceback' not in consumer.text()
