"""Heartbeat: a native thread that says "alive" and watches the hub. A task that blocks the hub does not make the consumer look dead.

It takes no lock and writes no log, because a blocked task may hold the lock of either: what it sees it posts to the Reporter, another
native thread, which logs it and does nothing else.
"""

from __future__ import annotations

import _queue
import linecache
import logging
import os
import sys
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, NamedTuple

import gevent

from geventhuey import native
from geventhuey.clock import SyncedClock
from geventhuey.consumer.component import close_hub
from geventhuey.exceptions import StorageError
from geventhuey.executor import Executor
from geventhuey.lease import Lease
from geventhuey.storage.base import BaseStorage, Standing
from geventhuey.waiter import ThreadWaiter

logger = logging.getLogger('geventhuey.consumer')

#: Seconds without a sign of life of the hub after which it is called blocked, and how often it is asked.
BLOCKED = 1.0
#: Frames of the blocking task's stack that are shown.
STACK = 12

_RUN: CodeType = Executor.run.__code__
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class _Place(NamedTuple):
    """One line of a stack."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f'  {self.file}:{self.line} in {self.function}: {linecache.getline(self.file, self.line).strip()}'


class _Block(NamedTuple):
    """What the hub was found doing instead of its work."""

    seconds: float
    task: str
    stack: tuple[_Place, ...]

    def __str__(self) -> str:
        where = '\n'.join(map(str, self.stack))
        return f'the hub has been blocked for {self.seconds:.1f} s by {self.task}: no other task goes on meanwhile\n{where}'


class HubWatch:
    """Asks the hub, from another thread, whether it still turns."""

    def __init__(self) -> None:
        self._thread = native.thread_id()
        self._asked: float | None = None
        self._call = gevent.get_hub().loop.async_()
        self._call.start(self._answer)
        self._blocked_at = 0.0
        self._tell_at = BLOCKED

    def _answer(self) -> None:
        self._asked = None

    def look(self) -> _Block | str | None:
        """A block that is worth telling, the end of one, or None. Called by the watching thread alone."""
        now = time.monotonic()
        asked = self._asked
        if asked is None:
            ended = self._tell_at > BLOCKED
            told = f'the hub goes on, after {now - self._blocked_at:.1f} s' if ended else None
            self._tell_at = BLOCKED
            self._asked = self._blocked_at = now
            try:
                self._call.send()
            except ValueError:      # the hub has just gone
                pass
            return told
        if now - asked < self._tell_at:
            return None
        self._tell_at = max(10.0, self._tell_at * 2)
        return _Block(now - asked, *_what_runs(self._thread))

    def close(self) -> None:
        """It asks no more."""
        self._call.close()


def _what_runs(thread: int) -> tuple[str, tuple[_Place, ...]]:
    """The task that a native thread runs, as text, and where it is: the innermost lines last."""
    task, places = 'something that is no task', []
    frame: FrameType | None = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code is _RUN:
            task = _shown(frame.f_locals.get('task', task))
            break
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            places.append(_Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return task, tuple(reversed(places[:STACK]))


def _shown(task: object) -> str:
    """The task's repr, whatever a class of the application's makes of it: an error here would end the heartbeat."""
    try:
        return repr(task)
    except Exception:
        return f'a {type(task).__name__}'


class Reporter:
    """A native thread that logs what is posted to it."""

    def __init__(self) -> None:
        self._posts: _queue.SimpleQueue[object] = _queue.SimpleQueue()
        #: True when its thread is over, or as good as that.
        self.has_ended = True

    def start(self) -> None:
        """It waits for posts."""
        self.has_ended = False
        native.start_thread(self._run)

    def post(self, news: object) -> None:
        """The news will be logged; never blocks."""
        self._posts.put(news)

    def stop(self) -> None:
        """It ends when it has logged what was posted before."""
        self._posts.put(None)

    def _run(self) -> None:
        while True:
            news = self._posts.get()
            if news is None:
                break
            logger.warning('%s', news)
        close_hub()
        self.has_ended = True


class Heartbeat:
    """Beats every ``interval`` seconds on a connection of its own, and looks at the hub.

    :param watch: the hub, or None.
    :param result_ttl: seconds for which it is kept that a task was lost, when the process has to end without its hub.
    """

    def __init__(self, storage: BaseStorage, lease: Lease, interval: float, clock: SyncedClock, watch: HubWatch | None,
                 reporter: Reporter, result_ttl: float | None = None) -> None:
        self._storage = storage
        self._lease = lease
        self._interval = interval
        self._clock = clock
        self._watch = watch
        self._reporter = reporter
        self._result_ttl = result_ttl
        self._wakeup = ThreadWaiter()
        self._stopped = False
        self._deadline: tuple[float, Callable[[], None]] | None = None
        #: Messages in flight at the last beat, and when that was (monotonic).
        self.held: tuple[int, float] = (0, 0.0)
        #: True when its thread is over, or as good as that.
        self.has_ended = True

    def start(self) -> None:
        """It beats, in a native thread."""
        self.has_ended = False
        native.start_thread(self._run)

    def stop(self) -> None:
        """It beats no more."""
        self._stopped = True
        self._wakeup.wake()

    def exit_at(self, moment: float, last_words: Callable[[], None]) -> None:
        """At this moment (monotonic) everything that is still held is released and the process ends, whatever its hub does."""
        self._deadline = moment, last_words
        self._wakeup.wake()

    def _run(self) -> None:
        session = self._storage.session('beat')
        next_beat = 0.0
        while not self._stopped:
            now = time.monotonic()
            if self._deadline is not None and now >= self._deadline[0]:
                self._end(session)
            if now >= next_beat:
                next_beat = now + self._interval
                self._beat(session)
            if self._watch is not None and not self._stopped:
                news = self._watch.look()
                if news is not None:
                    self._reporter.post(news)
            pause = next_beat - time.monotonic()
            if self._deadline is not None:
                pause = min(pause, self._deadline[0] - time.monotonic())
            self._wakeup.wait(max(0.01, min(BLOCKED, pause)))
        session.close()
        close_hub()
        self.has_ended = True

    def _beat(self, session: BaseStorage) -> None:
        try:
            beat = session.beat(self._lease.consumer)
            if beat.standing is Standing.UNKNOWN and not self._stopped:
                self._lease.register(session)       # the registry was lost; who fetches nothing now would not notice
        except StorageError:                # the fetcher says so
            return
        except Exception as exc:            # whatever it is: without a beat the consumer is taken for dead
            self._reporter.post(f'the heartbeat failed and goes on: {exc!r}')
            return
        self._clock.heard(beat.now)
        self.held = beat.held, time.monotonic()

    def _end(self, session: Any) -> None:
        assert self._deadline is not None
        try:
            while not session.release(self._lease.consumer, 200, (), self._result_ttl).done:
                pass
        except Exception:                   # others will take it back
            pass
        self._deadline[1]()
        os._exit(1)
