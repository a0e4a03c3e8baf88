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
"""

from __future__ import annotations

import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType

ON_REQUESTS = ('cut_before', 'cut_after', 'reset')
ON_ANSWERS = ('truncate', 'garble')
KINDS = ON_REQUESTS + ON_ANSWERS
GARBAGE = b'HTTP/1.1 400 Bad Request\r\n\r\n'
#: How a connection of ours says what it is for.
_ROLE = re.compile(rb'SETNAME\r\n\$\d+\r\ngeventhuey:[^\r]*:([a-z]+)\r\n')
#: Bytes that pass at once.
CHUNK = 65536


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
        #: Bytes per second that a connection carries; 0 is without a limit.
        self.throttle = 0
        #: What becomes of an answer on its way.
        self.edit: Callable[[bytes], bytes] = bytes
        #: How many faults of each kind there were, and how many connections.
        self.statistics: Counter[str] = Counter()
        self._dice = random.Random(seed)
        self._rate = 0.0
        self._kinds: tuple[str, ...] = KINDS
        self._planned: list[_Planned] = []
        self._held: set[str] = set()
        self._lock = threading.Condition()
        self._passages: list[_Passage] = []
        self._listener = socket.create_server(('127.0.0.1', 0), backlog=256)
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
        with self._lock:
            held, self._held = self._held, set()
            self._lock.notify_all()
        if drop:
            for passage in list(self._passages):
                if passage.role in held or '' in held:
                    passage.close()

    def cut(self, role: str = '') -> int:
        """Every connection of the role, or every one, is closed; answers how many."""
        found = [passage for passage in list(self._passages) if role in ('', passage.role)]
        for passage in found:
            passage.close()
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
            if self._rate and possible and self._dice.random() < self._rate:
                kind = self._dice.choice(possible)
                self.statistics[kind] += 1
                return _Planned(kind, 1, role, 0, self._dice.randrange(1, 8))
        return None

    def wait_for_passage(self, passage: _Passage, size: int) -> None:
        """What passes has taken its time, and is not held."""
        if self.latency:
            time.sleep(max(0.0, self.latency + self._dice.uniform(-self.jitter, self.jitter)))
        if self.throttle:
            time.sleep(size / self.throttle)
        with self._lock:
            while ('' in self._held or passage.role in self._held) and not passage.is_closed and not self._is_closed:
                self._lock.wait(1.0)

    def forget(self, passage: _Passage) -> None:
        """The connection has ended."""
        if passage in self._passages:
            self._passages.remove(passage)

    # -- life -----------------------------------------------------------------------------------------------

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """It listens no more, and all its connections are closed."""
        self._is_closed = True
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self.release(drop=False)
        self.cut()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.statistics['connections'] += 1
            try:
                server = self._connect()
            except OSError:                 # who connects to us finds what he would find there
                client.close()
                continue
            server.settimeout(None)
            self._passages.append(_Passage(self, client, server))

    def _connect(self) -> socket.socket:
        if isinstance(self.target, int):
            return socket.create_connection((self.host, self.target), 5.0)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            server.settimeout(5.0)
            server.connect(self.target)
        except OSError:
            server.close()
            raise
        return server


class _Passage:
    """One connection through the proxy: a thread for each direction."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._loses_answer = False
        self.role = ''
        self.is_closed = False
        for sock in (client, server):
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for run in (self._pass_requests, self._pass_answers):
            threading.Thread(target=run, daemon=True).start()

    def close(self) -> None:
        """Both ends are closed."""
        if self.is_closed:
            return
        self.is_closed = True
        self._proxy.forget(self)
        for sock in (self._client, self._server):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def _reset(self) -> None:
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.is_closed = True
        self._proxy.forget(self)
        self._client.close()
        try:
            self._server.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._server.close()

    def _pass_requests(self) -> None:
        try:
            while data := self._client.recv(CHUNK):
                if not self.role and (found := _ROLE.search(data)):
                    self.role = found[1].decode()
                self._proxy.wait_for_passage(self, len(data))
                fault = self._proxy.strikes(ON_REQUESTS, self.role)
                if fault is not None and fault.kind == 'reset':
                    self._reset()
                    return
                if fault is not None and fault.kind == 'cut_before':
                    break
                if fault is not None:
                    self._loses_answer = True
                self._server.sendall(data)
        except OSError:
            pass
        self.close()

    def _pass_answers(self) -> None:
        try:
            while data := self._server.recv(CHUNK):
                if self._loses_answer:
                    break
                self._proxy.wait_for_passage(self, 0)
                fault = self._proxy.strikes(ON_ANSWERS, self.role)
                if fault is not None and fault.kind == 'truncate':
                    self._client.sendall(data[:min(fault.keep, len(data) - 1)])
                    break
                self._client.sendall(self._proxy.edit(GARBAGE if fault is not None else data))
        except OSError:
            pass
        self.close()
