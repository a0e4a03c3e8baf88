"""A gevent hub without a wall clock: its time stands still until somebody lets it go on, and what comes next is decided, not raced for."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent._hub_local import get_hub_if_exists, get_loop, set_loop
from gevent.hub import Hub, set_hub


class _Call:
    """What the loop calls soon, as gevent knows it."""

    def __init__(self, call: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.callback: Callable[..., Any] | None = call
        self.args: tuple[Any, ...] | None = args

    def stop(self) -> None:
        self.callback = self.args = None

    close = stop

    def __bool__(self) -> bool:
        return self.args is not None

    @property
    def pending(self) -> bool:
        return self.callback is not None


class _Watcher:
    """A timer, or a call from another thread."""

    def __init__(self, loop: VirtualLoop, after: float = 0.0) -> None:
        self._loop = loop
        self._after = max(0.0, after)
        self.callback: Callable[..., Any] | None = None
        self.args: tuple[Any, ...] = ()
        self.pending = False

    def start(self, callback: Callable[..., Any], *args: Any, update: bool = False) -> None:
        self.callback, self.args = callback, args
        self._loop.start_timer(self, self._after)

    def stop(self) -> None:
        self.callback, self.args = None, ()

    close = stop

    @property
    def active(self) -> bool:
        return self.callback is not None

    def __enter__(self) -> _Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Async(_Watcher):
    def start(self, callback: Callable[..., Any], *args: Any, update: bool = False) -> None:
        self.callback, self.args = callback, args

    def send(self) -> None:
        if self.callback is not None:
            self._loop.run_callback(self.callback, *self.args)


class VirtualLoop:
    """What gevent asks of a loop. When no greenlet can go on, ``decide`` says what happens; False ends the run.

    :param seed: of ``random``, which is all the chance there is.
    """

    default = False
    error_handler: Any = None

    def __init__(self, seed: object, decide: Callable[[], bool]) -> None:
        self.random = random.Random(seed)
        self.decide = decide
        self.time = 1000.0
        #: The processes of this world that live: when each was started, by its number.
        self.processes: dict[int, str] = {}
        self._calls: deque[_Call] = deque()
        self._timers: list[tuple[float, int, _Watcher, object]] = []
        self._count = itertools.count()

    def run(self) -> None:
        """All that can go on goes on, until it is decided that it is over."""
        while True:
            while self._calls:
                call = self._calls.popleft()
                callback, args = call.callback, call.args
                call.callback = None
                if callback is None or args is None:
                    continue
                try:
                    callback(*args)
                except BaseException as exc:
                    self.error_handler.handle_error(None, type(exc), exc, exc.__traceback__)
                call.args = None
            if not self.decide():
                return

    def run_callback(self, callback: Callable[..., Any], *args: Any) -> _Call:
        call = _Call(callback, args)
        self._calls.append(call)
        return call

    run_callback_threadsafe = run_callback

    def timer(self, after: float, repeat: float = 0.0, ref: bool = True, priority: int | None = None) -> _Watcher:
        return _Watcher(self, after)

    def async_(self, ref: bool = True, priority: int | None = None) -> _Async:
        return _Async(self)

    def start_timer(self, timer: _Watcher, after: float) -> None:
        heapq.heappush(self._timers, (self.time + after, next(self._count), timer, timer.callback))

    def next_timer(self) -> float | None:
        """When the next timer is due."""
        while self._timers and self._timers[0][2].callback is not self._timers[0][3]:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def pass_time(self, until: float) -> None:
        """It is that late, and the timers that are due by then go off."""
        self.time = max(self.time, until)
        while (due := self.next_timer()) is not None and due <= self.time:
            timer = heapq.heappop(self._timers)[2]
            callback, args = timer.callback, timer.args
            timer.callback = None
            assert callback is not None
            self.run_callback(callback, *args)

    def now(self) -> float:
        return self.time

    def update_now(self) -> None:
        pass

    def destroy(self) -> None:
        pass


class VirtualHub:
    """While entered, this thread's hub is one on a virtual loop; every greenlet that was started there is over at the end."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.errors: list[BaseException] = []
        self._started: list[Any] = []

    def __enter__(self) -> VirtualHub:
        self._before = get_hub_if_exists()      # none is made: tests that come after this one may be in a process without gevent
        self.hub = Hub(self.loop)
        self.hub.handle_error = self._failed
        set_hub(self.hub)
        gevent.Greenlet.add_spawn_callback(self._started.append)
        return self

    def _failed(self, context: object, kind: type[BaseException], value: BaseException, trace: object) -> None:
        if not issubclass(kind, gevent.GreenletExit):
            self.errors.append(value.with_traceback(trace) if isinstance(value, kind) else kind(value))     # type: ignore[arg-type]

    def run(self) -> None:
        """Runs until it is decided that it is over."""
        try:
            self.hub.switch()
        except gevent.hub.LoopExit:
            pass

    def __exit__(self, *_: object) -> None:
        self.loop.decide = lambda: False
        for _ in range(5):
            for greenlet in self._started:
                if not greenlet.dead:
                    greenlet.kill(block=False)
            self.run()
        gevent.Greenlet.remove_spawn_callback(self._started.append)
        self._started.clear()
        set_hub(self._before)
        loop = get_loop()
        self.hub.destroy(destroy_loop=False)
        set_loop(loop)                          # it would have left ours for the next hub of this thread
