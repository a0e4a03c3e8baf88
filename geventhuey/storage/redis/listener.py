"""Those who wait for results: one connection of this process, however many they are. And the events, as an iterator."""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import hiredis

from geventhuey import native
from geventhuey.exceptions import StorageError
from geventhuey.storage.redis.connection import Command, Link

logger = logging.getLogger('geventhuey.results')

#: Seconds between attempts to connect again, at most.
MAX_PAUSE = 2.0
Wake = Callable[[], None]


class ResultListener:
    """Wakes whoever waits for a channel, when something is published there, when the subscription stands, and after a reconnect.

    It lives in a native thread of its own, or, where gevent has patched the process, in the hub that needs it first.
    """

    def __init__(self, connect: Callable[[bool], Any]) -> None:
        self._connect = connect
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = native.lock()
        self._waiting: dict[str, list[Wake]] = {}
        self._carrier: _ThreadCarrier | _HubCarrier | None = None

    @contextmanager
    def watching(self, channel: str, wake: Wake) -> Iterator[None]:
        """While entered, ``wake()`` is called for every news of the channel."""
        if self._pid != os.getpid():        # after a fork the thread and the connection are the parent's
            self._reset()
        with self._lock:
            wakes = self._waiting.setdefault(channel, [])
            wakes.append(wake)
            first = len(wakes) == 1
            carrier = self._carrier
            if carrier is None or not carrier.is_alive():
                carrier = self._carrier = _HubCarrier(self) if native.is_patched() else _ThreadCarrier(self)
                carrier.start()
        if first:
            carrier.post(('SUBSCRIBE', channel))
        else:
            wake()                          # the subscription may stand already, or its confirmation wakes us all
        try:
            yield
        finally:
            with self._lock:
                wakes.remove(wake)
                last = not wakes and self._waiting.pop(channel, None) is not None
            if last:
                carrier.post(('UNSUBSCRIBE', channel))

    def channels(self) -> list[str]:
        """Every channel that somebody waits for."""
        with self._lock:
            return list(self._waiting)

    def tell(self, channel: str) -> None:
        """Those who wait for the channel are woken."""
        with self._lock:
            wakes = list(self._waiting.get(channel, ()))
        for wake in wakes:
            wake()

    def listen(self, opened: Callable[[Link], None], engine: bool) -> None:
        """Connects, subscribes and tells, for ever; reconnects when it must."""
        pause = 0.0
        was_down = False
        while True:
            link = None
            try:
                link = Link(self._connect(engine))
                opened(link)
                if was_down:
                    logger.info('results are pushed again')
                pause, was_down = 0.0, False
                while True:
                    answer = link.receive(None)
                    if isinstance(answer, hiredis.ReplyError):
                        raise StorageError(str(answer))
                    if answer[0] in (b'message', b'subscribe'):
                        self.tell(answer[1].decode())
            except (StorageError, OSError, hiredis.HiredisError) as exc:
                if not was_down:
                    logger.warning('results are not pushed for now: %s', exc)
                was_down = True
                if link is not None:
                    link.close()
                pause = min(MAX_PAUSE, pause * 2 or 0.05)
                time.sleep(pause * random.uniform(0.5, 1.0))


class _Carrier:
    """The connection of a listener: who posts commands need not own it."""

    def __init__(self, listener: ResultListener) -> None:
        self._listener = listener
        self._link: Link | None = None
        self._lock = native.lock()
        self._posted: deque[Command] = deque()

    def _opened(self, link: Link) -> None:
        """The connection is new: everything that anybody waits for is subscribed to."""
        with self._lock:
            self._link = link
            self._posted.clear()
        channels = self._listener.channels()
        for start in range(0, len(channels), 500):
            command: Command = ('SUBSCRIBE', *channels[start:start + 500])
            link.send(hiredis.pack_command(command))
        self._flush()

    def _flush(self) -> None:
        """What was posted has been sent. An error shows to the reader, who connects again."""
        with self._lock:
            link = self._link
            if link is None:
                return
            commands, self._posted = self._posted, deque()
        data = b''.join([hiredis.pack_command(command) for command in _joined(commands)])
        if data:
            try:
                link.send(data)
            except OSError:
                pass


def _joined(commands: Sequence[Command]) -> Iterator[Command]:
    """The same commands, neighbours of one kind in one."""
    joined: list[Any] = []
    for kind, channel in commands:
        if joined and (joined[0] != kind or len(joined) > 500):
            yield tuple(joined)
            joined = []
        if not joined:
            joined = [kind]
        joined.append(channel)
    if joined:
        yield tuple(joined)


class _ThreadCarrier(_Carrier):
    """In a native thread: whoever posts sends."""

    def __init__(self, listener: ResultListener) -> None:
        super().__init__(listener)
        self._send_lock = native.lock()

    def start(self) -> None:
        native.start_thread(self._run)

    def _run(self) -> None:
        self._listener.listen(self._opened, engine=False)

    def is_alive(self) -> bool:
        return True

    def post(self, command: Command) -> None:
        self._posted.append(command)
        self._flush()

    def _flush(self) -> None:
        with self._send_lock:
            super()._flush()


class _HubCarrier(_Carrier):
    """In a gevent hub: a greenlet reads and another one sends; they are woken from anywhere."""

    def start(self) -> None:
        import gevent
        hub = gevent.get_hub()
        if hub.main_hub:
            self._hub = hub
            self._spawn()
        else:
            native.start_thread(self._run)

    def _run(self) -> None:
        """A native thread of its own, for waiters whose own thread may end before the others are served."""
        import gevent
        self._hub = gevent.get_hub()
        self._spawn()
        self._reader.join()

    def _spawn(self) -> None:
        import gevent
        from gevent.event import Event
        self._news = Event()
        self._thread = native.thread_id()
        self._reader = gevent.spawn(self._listener.listen, self._opened, True)
        gevent.spawn(self._send)
        self._news.set()

    def _send(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            self._flush()

    def is_alive(self) -> bool:
        reader = getattr(self, '_reader', None)
        return reader is None or not reader.dead

    def post(self, command: Command) -> None:
        self._posted.append(command)
        news = getattr(self, '_news', None)
        if news is None:                    # starting: all that anybody waits for is subscribed to when it is open
            return
        if native.thread_id() == self._thread:
            news.set()
        elif self._hub.loop is not None:
            self._hub.loop.run_callback_threadsafe(news.set)


class EventListener(Iterator[dict[str, Any]]):
    """Events as dicts; subscribed from the moment it is made."""

    def __init__(self, pubsub: Any) -> None:
        self._pubsub = pubsub
        pubsub.parse_response()             # the confirmation: what is published from here on will come

    def __iter__(self) -> EventListener:
        return self

    def __next__(self) -> dict[str, Any]:
        for message in self._pubsub.listen():
            if message['type'] == 'message':
                return cast('dict[str, Any]', json.loads(message['data']))
        raise StopIteration
