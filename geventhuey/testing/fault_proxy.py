"""FaultProxy: a way to Redis on which requests and answers are delayed, lost, cut short and changed.

::

    with FaultProxy(server.port) as proxy:
        huey = RedisHuey('app', url=proxy.url)
        proxy.next('cut_after', role='producer')    # the next request of a producer is answered, and nobody hears it

A fault strikes where a request or an answer passes.  Kinds:

    cut_before   the request does not reach the server; its connection is closed
    cut_after    the server has got the request; its answer is lost, and the connection is closed
    reset        the same as cut_before, by a reset
    truncate     the beginning of the answer passes, then the connection is closed
    garble       the answer is replaced by bytes that are none

Only the standard library is needed.  The proxy has native threads and sockets, also where gevent has patched the process: a hub
that is blocked does not stop it.
"""

from __future__ import annotations

import random
import re
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from geventhuey import native

ON_REQUESTS = ('cut_before', 'cut_after', 'reset')
ON_ANSWERS = ('truncate', 'garble')
KINDS = ON_REQUESTS + ON_ANSWERS
GARBAGE = b'HTTP/1.1 400 Bad Request\r\n\r\n'
#: How a connection of ours says what it is for.
_ROLE = re.compile(rb'SETNAME\r\n\$\d+\r\ngeventhuey:[^\r]*:([a-z]+)\r\n', re.IGNORECASE)
#: Bytes that pass at once, and seconds between two looks at what is held.
CHUNK, LOOK = 65536, 0.005
#: Pieces per second in which a throttled connection carries its bytes.
PIECES = 20
#: A socket that blocks threads only: the class below Python's own, which gevent does not replace.
_Socket: Any = native.original('socket', 'SocketType')
_sleep: Callable[[float], None] = native.original('time', 'sleep')


class _Planned:
    """Faults that are to strike: so many of a kind, after some that are spared."""

    def __init__(self, kind: str, count: int, role: str, spare: int, keep: int) -> None:
        self.kind, self.count, self.role, self.spare, self.keep = kind, count, role, spare, keep


class FaultProxy:
    """Listens on ``port`` and passes everything on, until it is told otherwise. Use it with ``with``.

    :param target: the port of the server, on ``host``, or the path of its unix socket; may be changed at any time, for new connections.
    :param seed: for faults at random.
    """

    def __init__(self, target: int | str, host: str = '127.0.0.1', seed: int | None = None) -> None:
        self.target = target
        self.host = host
        #: Seconds that every request takes longer, and by how much that varies.
        self.latency = self.jitter = 0.0
        #: Bytes per second that a connection carries in each direction; 0 is without a limit.
        self.throttle = 0
        #: What becomes of an answer on its way.
        self.edit: Callable[[bytes], bytes] = bytes
        #: The role whose connections are slow, throttled, edited and hit at random; '' for all.
        self.only = ''
        #: How many faults of each kind there were, and how many connections.
        self.statistics: Counter[str] = Counter()
        self._dice = random.Random(seed)
        self._rate = 0.0
        self._kinds: tuple[str, ...] = KINDS
        self._planned: list[_Planned] = []
        self._held: set[str] = set()
        self._lock = native.lock()          # no switch while it is held
        self._passages: list[_Passage] = []
        self._listener = _Socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.settimeout(None)
        self._listener.bind(('127.0.0.1', 0))
        self._listener.listen(256)
        self.port: int = self._listener.getsockname()[1]
        self._is_closed = False

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:PORT/0``"""
        return f'redis://127.0.0.1:{self.port}/0'

    # -- what is to happen ----------------------------------------------------------------------------------

    def next(self, kind: str, count: int = 1, role: str = '', spare: int = 0, keep: int = 3) -> None:
        """The next ``count`` requests or answers meet this fault, of one role (``fetch``, ``settle``, ...) or of all.

        :param spare: so many pass before that.
        :param keep: bytes of a truncated answer that pass.
        """
        if kind not in KINDS:
            raise ValueError(f'{kind!r} is none of {", ".join(KINDS)}')
        with self._lock:
            self._planned.append(_Planned(kind, count, role, spare, keep))

    def at_random(self, rate: float, kinds: Sequence[str] = KINDS) -> None:
        """Each request or answer meets one of these faults with this probability; 0 ends that."""
        self._rate, self._kinds = rate, tuple(kinds)

    def hold(self, role: str = '') -> None:
        """Connections of the role, or all, are half open: nothing passes, in no direction, and nobody is told."""
        with self._lock:
            self._held.add(role)
            self.statistics['hold'] += 1

    def release(self, drop: bool = False) -> None:
        """What was held goes on, or (``drop``) is lost with its connection."""
        if drop:
            for passage in list(self._passages):
                if self.is_held(passage.role):
                    passage.close()         # first: of what is lost, nothing may pass
        with self._lock:
            self._held = set()

    def cut(self, role: str = '') -> int:
        """Every connection of the role, or every one, is closed; answers how many."""
        found = [passage for passage in list(self._passages) if role in ('', passage.role)]
        for passage in found:
            passage.close()
        with self._lock:
            self.statistics['cut'] += len(found)
        return len(found)

    def connections(self) -> list[str]:
        """The role of each connection; '' where it has not been said."""
        return [passage.role for passage in list(self._passages)]

    # -- what passes ----------------------------------------------------------------------------------------

    def strikes(self, kinds: tuple[str, ...], role: str) -> _Planned | None:
        """The fault that what passes now meets, if any."""
        with self._lock:
            for planned in self._planned:
                if planned.kind in kinds and planned.role in ('', role):
                    if planned.spare:
                        planned.spare -= 1
                        continue
                    planned.count -= 1
                    if not planned.count:
                        self._planned.remove(planned)
                    self.statistics[planned.kind] += 1
                    return planned
            possible = [kind for kind in self._kinds if kind in kinds]
            if self._rate and possible and self.concerns(role) and self._dice.random() < self._rate:
                kind = self._dice.choice(possible)
                self.statistics[kind] += 1
                return _Planned(kind, 1, role, 0, self._dice.randrange(1, 8))
        return None

    def concerns(self, role: str) -> bool:
        """True when what lasts (slowness, edits, faults at random) is meant for the role."""
        return self.only in ('', role)

    def is_held(self, role: str) -> bool:
        """True while nothing of the role may pass."""
        return '' in self._held or role in self._held

    def delay(self, role: str) -> float:
        """Seconds that a request of the role takes longer."""
        return max(0.0, self.latency + self._dice.uniform(-self.jitter, self.jitter)) if self.concerns(role) else 0.0

    def forget(self, passage: _Passage) -> None:
        """The connection has ended."""
        if passage in self._passages:
            self._passages.remove(passage)

    # -- life -----------------------------------------------------------------------------------------------

    def __enter__(self) -> FaultProxy:
        native.start_thread(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """It listens no more, and all its connections are closed."""
        self._is_closed = True
        _shut_down(self._listener)          # wakes the thread that accepts
        self._listener.close()
        for passage in list(self._passages):
            passage.close()
        self.release()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                number, _ = self._listener._accept()
            except OSError:
                return
            with self._lock:
                self.statistics['connections'] += 1
            passage = _Passage(self, _Socket(socket.AF_INET, socket.SOCK_STREAM, 0, number))
            self._passages.append(passage)
            if self._is_closed:             # meanwhile
                passage.close()
            native.start_thread(passage.run)


class _Passage:
    """One connection through the proxy: a thread for each direction."""

    def __init__(self, proxy: FaultProxy, client: Any) -> None:
        self._proxy = proxy
        self._client = client
        self._server: Any = None
        self._loses_answer = False
        self._is_asked = False              # a request is passing, or waits for its answer
        self._threads = 0
        self.role = ''
        self.is_closed = False

    def run(self) -> None:
        """The connection has come and gone."""
        self._threads = 2
        try:
            self._client.settimeout(None)
            self._server = _connect(self._proxy.host, self._proxy.target)
            for sock in (self._client, self._server):
                if sock.family != socket.AF_UNIX:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:                     # who connects to us finds what he would find there
            self._threads = 1
        else:
            native.start_thread(lambda: self._pass(self._pass_answers))
            self._pass(self._pass_requests)
            return
        self._pass(self.close)

    def close(self) -> None:
        """Both ends find the end of the connection."""
        self.is_closed = True
        for sock in (self._client, self._server):
            if sock is not None:
                _shut_down(sock)

    def _reset(self) -> None:
        self.is_closed = True
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self._client.close()
        _shut_down(self._server)

    def _pass(self, one_way: Callable[[], None]) -> None:
        """One direction has ended, and so the other will; the second one closes what both have used."""
        try:
            one_way()
        except OSError:
            pass
        self.close()
        with self._proxy._lock:
            self._threads -= 1
            is_last = not self._threads
        if is_last:
            self._proxy.forget(self)
            for sock in (self._client, self._server):
                if sock is not None:
                    sock.close()

    def _receive(self, sock: Any) -> bytes:
        """What has come, b'' for the end; neither is known to anybody while it is held."""
        data: bytes = sock.recv(CHUNK)
        if sock is self._client:
            if not self.role and (found := _ROLE.search(data)):
                self.role = found[1].decode()
            if data:
                _sleep(self._proxy.delay(self.role))
        while self._proxy.is_held(self.role) and not self.is_closed:
            _sleep(LOOK)
        if self.is_closed:
            raise ConnectionError('closed meanwhile')
        return data

    def _send(self, sock: Any, data: bytes) -> None:
        rate = self._proxy.throttle if self._proxy.concerns(self.role) else 0
        piece = max(1, rate // PIECES) if rate else CHUNK
        for start in range(0, len(data), piece):
            part = data[start:start + piece]
            if rate:
                _sleep(len(part) / rate)
            sock.sendall(part)

    def _pass_requests(self) -> None:
        while data := self._receive(self._client):
            # A request that comes in pieces is one: it has one fate.
            fault = None if self._is_asked else self._proxy.strikes(ON_REQUESTS, self.role)
            self._is_asked = True
            if fault is not None and fault.kind == 'reset':
                self._reset()
                return
            if fault is not None and fault.kind == 'cut_before':
                return
            if fault is not None:
                self._loses_answer = True
            self._send(self._server, data)

    def _pass_answers(self) -> None:
        while data := self._receive(self._server):
            if self._loses_answer:
                return
            self._is_asked = False
            fault = self._proxy.strikes(ON_ANSWERS, self.role)
            if fault is not None and fault.kind == 'truncate':
                self._send(self._client, data[:min(fault.keep, len(data) - 1)])
                return
            if fault is not None:
                data = GARBAGE
            elif self._proxy.concerns(self.role):
                data = self._proxy.edit(data)
            self._send(self._client, data)


def _connect(host: str, target: int | str) -> Any:
    """A connection to the server, by the first of its addresses that answers."""
    if isinstance(target, str):
        found = [(socket.AF_UNIX, socket.SOCK_STREAM, 0, '', target)]
    else:
        found = native.original('socket', 'getaddrinfo')(host, target, 0, socket.SOCK_STREAM)
    failure: OSError = ConnectionError(f'{host} has no address')
    for family, kind, protocol, _, address in found:
        sock = _Socket(family, kind, protocol)
        try:
            sock.settimeout(5.0)
            sock.connect(address)
            sock.settimeout(None)
            return sock
        except OSError as exc:
            sock.close()
            failure = exc
    raise failure


def _shut_down(sock: Any) -> None:
    """Who waits for the socket, in any thread, finds its end."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
