"""Those who wait for results: one connection of this process, however many they are. And the events, as an iterator."""

from __future__ import annotations

import atexit
import json
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import hiredis

from geventhuey import native
from geventhuey.exceptions import StorageError
from geventhuey.storage.redis.connection import Command, Link, TwoWay
from geventhuey.waiter import ThreadWaiter

logger = logging.getLogger('geventhuey.results')

#: Seconds between attempts to connect again, at most.
MAX_PAUSE = 2.0
#: Channels in one command at most.
CHUNK = 500
Wake = Callable[[], None]


class ResultListener:
    """Wakes whoever waits for a channel, when something is published there, when the subscription stands, and after a reconnect.

    It lives in a native thread of its own, or, where gevent has patched the process, in the main hub.

    :param connect: makes a socket; one of gevent's when its argument is true.
    """

    def __init__(self, connect: Callable[[bool], Any]) -> None:
        self.connect = connect
        self._reset()
        native.on_fork(self.forked)

    def _reset(self) -> None:
        self._lock = native.lock()
        self._waiting: dict[str, list[Wake]] = {}
        self._carrier: _Carrier | None = None

    def forked(self) -> None:
        """This is a child now: the connection, and who reads it, are the parent's."""
        carrier = self._carrier
        self._reset()
        if carrier is not None:
            carrier.abandon()

    def close(self) -> None:
        """The connection is closed; the next one who waits opens a new one."""
        with self._lock:
            carrier, self._carrier = self._carrier, None
        if carrier is not None:
            carrier.shut_down()

    @contextmanager
    def watching(self, wakes: Mapping[str, Wake]) -> Iterator[None]:
        """While entered, a channel's ``wake()`` is called for all its news."""
        others = []
        with self._lock:
            carrier = self._running()
            for channel, wake in wakes.items():
                waiting = self._waiting.setdefault(channel, [])
                waiting.append(wake)
                if len(waiting) == 1:
                    carrier.post('SUBSCRIBE', channel)
                else:
                    others.append(wake)
        carrier.push()
        for wake in others:
            wake()                          # the subscription may stand already; if not, its confirmation wakes us all
        try:
            yield
        finally:
            with self._lock:
                for channel, wake in wakes.items():
                    self._forget(channel, wake, carrier)
            carrier.push()

    def _forget(self, channel: str, wake: Wake, carrier: _Carrier) -> None:
        """One who waited for the channel is not woken any more."""
        waiting = self._waiting.get(channel, [])
        if wake not in waiting:             # this is a child of the process in which somebody waited
            return
        waiting.remove(wake)
        if not waiting:
            del self._waiting[channel]
            carrier.post('UNSUBSCRIBE', channel)

    def _running(self) -> _Carrier:
        """The carrier, started if there is none."""
        if self._carrier is None or not self._carrier.is_alive():
            self._carrier = _HubCarrier(self) if native.is_patched() else _ThreadCarrier(self)
            self._carrier.start()
        return self._carrier

    def is_carried_by(self, carrier: _Carrier) -> bool:
        """True as long as the carrier has not been given up."""
        return self._carrier is carrier

    def channels(self, forget: Callable[[], None]) -> list[str]:
        """Every channel that somebody waits for; nobody comes or goes while ``forget()`` is called."""
        with self._lock:
            forget()
            return list(self._waiting)

    def tell(self, channel: str) -> None:
        """Those who wait for the channel are woken."""
        with self._lock:
            wakes = list(self._waiting.get(channel, ()))
        for wake in wakes:
            wake()


class _Carrier:
    """A listener's connection and who reads it. Anybody may post a command; the order is kept."""

    def __init__(self, listener: ResultListener, send_lock: Any, engine: bool) -> None:
        self._listener = listener
        self._engine = engine
        self._link: Link | None = None
        self._send_lock = send_lock
        self._posted: deque[tuple[str, str]] = deque()

    def start(self) -> None:
        """It listens."""
        raise NotImplementedError

    def is_alive(self) -> bool:
        """False when its thread has ended."""
        return True

    def post(self, kind: str, channel: str) -> None:
        """The command is the next one; called with the listener's lock held, never blocks."""
        self._posted.append((kind, channel))

    def push(self) -> None:
        """What was posted is sent soon."""
        raise NotImplementedError

    def shut_down(self) -> None:
        """Whoever reads finds the end of the connection; from any thread."""
        link = self._link
        if link is not None:
            link.shut_down()

    def abandon(self) -> None:
        """In a forked child: nobody reads here, and the file is closed; the parent, which has it too, is not disturbed."""
        link = self._link
        if link is not None:
            link.close()

    def listen(self) -> None:
        """Connects, subscribes and tells until the listener gives this carrier up; reconnects when it must."""
        pause = 0.0
        was_down = False
        while self._listener.is_carried_by(self):
            link = None
            try:
                link = Link(self._connected())
                self._opened(link)
                for _ in self._read(link):
                    if was_down:
                        logger.info('results are pushed again')
                    pause, was_down = 0.0, False
            except (StorageError, OSError, hiredis.HiredisError) as exc:
                if not self._listener.is_carried_by(self):
                    return
                if not was_down:
                    logger.warning('results are not pushed for now, who waits looks every few seconds: %s', exc)
                was_down = True
                pause = min(MAX_PAUSE, pause * 2 or 0.05)
                time.sleep(pause * random.uniform(0.5, 1.0))
            finally:
                if link is not None:
                    link.close()

    def _connected(self) -> Any:
        """A socket, new."""
        return self._listener.connect(self._engine)

    def _read(self, link: Link) -> Iterator[None]:
        """Tells, until the connection ends by an error; yields after each answer."""
        while True:
            answer = link.receive(None)
            if isinstance(answer, hiredis.ReplyError):
                raise StorageError(str(answer))
            if answer[0] in (b'message', b'subscribe'):
                self._listener.tell(answer[1].decode())
            yield

    def _opened(self, link: Link) -> None:
        """The connection is new: everything that anybody waits for is subscribed to."""
        with self._send_lock:
            self._link = link
            channels = self._listener.channels(self._posted.clear)
            for start in range(0, len(channels), CHUNK):
                command: Command = ('SUBSCRIBE', *channels[start:start + CHUNK])
                link.send(hiredis.pack_command(command))

    def _flush(self) -> None:
        """What was posted has been sent. An error shows to the reader, who connects again."""
        with self._send_lock:
            link = self._link
            if link is None:                # what is posted now is subscribed to when it is open
                return
            posted = [self._posted.popleft() for _ in range(len(self._posted))]
            data = b''.join([hiredis.pack_command(command) for command in _joined(posted)])
            if data:
                try:
                    link.send(data)
                except OSError:
                    pass


def _joined(commands: Sequence[tuple[str, str]]) -> Iterator[Command]:
    """The same commands, neighbours of one kind in one."""
    joined: list[str] = []
    for kind, channel in commands:
        if joined and (joined[0] != kind or len(joined) > CHUNK):
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
        super().__init__(listener, native.lock(), engine=False)

    def start(self) -> None:
        native.start_thread(self.listen)

    def _connected(self) -> Any:
        return TwoWay(super()._connected())

    def push(self) -> None:
        if self._posted:
            self._flush()


class _HubCarrier(_Carrier):
    """In a gevent hub: a greenlet reads and another one sends; they are woken from anywhere."""

    def __init__(self, listener: ResultListener) -> None:
        from gevent.event import Event
        from gevent.lock import Semaphore
        super().__init__(listener, Semaphore(), engine=True)
        self._news = Event()
        self._hub: Any = None
        self._reader: Any = None
        self._sender: Any = None
        self._thread = 0
        self._gone = ThreadWaiter()

    def start(self) -> None:
        import gevent
        hub = gevent.get_hub()
        if hub.main_hub:
            self._spawn()
        else:
            native.start_thread(self._run)
            atexit.register(self._end)

    def _run(self) -> None:
        """A native thread of its own, for waiters whose own thread may end before the others are served."""
        self._spawn()
        self._reader.join()
        self._hub.destroy(destroy_loop=True)
        self._gone.wake()

    def _end(self) -> None:
        """At the end of the program: a thread with a hub that outlives the interpreter crashes it."""
        self._listener.close()
        self._gone.wait(MAX_PAUSE)
        native.original('time', 'sleep')(0.01)      # the thread, too, takes leave of the interpreter

    def _spawn(self) -> None:
        import gevent
        self._hub, self._thread = gevent.get_hub(), native.thread_id()
        self._reader = gevent.spawn(self.listen)
        self._sender = gevent.spawn(self._send)
        self._reader.link(lambda reader: self._sender.kill(block=False))

    def abandon(self) -> None:
        super().abandon()
        if self._reader is not None and native.thread_id() == self._thread:
            self._reader.kill(block=False)
            self._sender.kill(block=False)

    def _send(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            self._flush()

    def is_alive(self) -> bool:
        return self._reader is None or not self._reader.dead

    def push(self) -> None:
        if not self._posted or self._hub is None:       # not started yet: all is subscribed to when it is open
            return
        if native.thread_id() == self._thread:
            self._news.set()
        elif self._hub.loop is not None:
            self._hub.loop.run_callback_threadsafe(self._news.set)


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
