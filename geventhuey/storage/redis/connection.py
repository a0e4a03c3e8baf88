"""Connections to Redis: redis-py makes them (addresses, TLS, passwords), and after that the bytes are ours.

``Link`` is one connection with one owner at a time.  ``SharedLink`` lets any number of threads or greenlets use one: who finds it
busy hands in the commands, and they travel with the next ones, in one write and one read.  What redis-py or the server say of an
error is translated here and nowhere else.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import hiredis
import redis
from redis.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection, parse_url

from geventhuey import native
from geventhuey.exceptions import (
    ConfigurationError,
    StorageError,
    StorageOutcomeUnknown,
    StorageRefused,
    StorageUnavailable,
)

Command = tuple[Any, ...]

#: Seconds to wait for a connection, and for an answer of a command that does not block.
CONNECT_TIMEOUT = 1.0
ANSWER_TIMEOUT = 5.0
#: Seconds without use after which a connection is looked at before it is written to: a server that went away in between would
#: otherwise make the outcome of the next command unknown.
IDLE = 0.1
#: Bytes that are sent with one time limit.
PIECE = 64 * 1024
#: Bytes per second that a connection carries at least: what has been sent may be on its way for so long.
SLOWEST = 100_000
#: Commands that travel in one write at most.
MAX_BATCH = 512

_NOT_ENOUGH = object()
#: First words of answers that say "not now": nothing was done, and the same may work later.
_NOT_NOW = ('LOADING', 'BUSY', 'MASTERDOWN', 'CLUSTERDOWN', 'TRYAGAIN', 'READONLY', 'NOREPLICAS', 'MISCONF', 'OOM', 'UNKILLABLE')
_REFUSED = ('NOAUTH', 'WRONGPASS', 'NOPERM', 'DENIED')
#: What a connection pool or a URL may say of an address; all else that it says is about pools and clients, which are not used.
_ADDRESS = ('host', 'port', 'db', 'path', 'username', 'password', 'credential_provider', 'socket_keepalive', 'socket_keepalive_options',
            'socket_type', 'socket_connect_timeout')


class Address:
    """Where a Redis server is and how to get in."""

    def __init__(self, connection_class: type[Any], settings: Mapping[str, Any]) -> None:
        self.connection_class = connection_class
        self.settings = {key: value for key, value in settings.items()
                         if (key in _ADDRESS or key.startswith('ssl_')) and value is not None}

    @classmethod
    def of(cls, url: str | None, connection_pool: Any, params: Mapping[str, Any]) -> Address:
        """The address that one of the three gives. Raises ConfigurationError when more than one does, or it is not understood."""
        unknown = [key for key in params if key not in (*_ADDRESS, 'ssl', 'unix_socket_path') and not key.startswith('ssl_')]
        if unknown:
            raise ConfigurationError(f'{", ".join(unknown)}: not understood; a Redis connection takes '
                                     f'{", ".join(_ADDRESS)}, ssl, ssl_..., unix_socket_path')
        for number in ('port', 'db'):
            if not str(params.get(number, 0)).isdigit():
                raise ConfigurationError(f'{number}={params[number]!r} is not a number')
        given = [name for name, value in (('url', url), ('connection_pool', connection_pool), (', '.join(params), params)) if value]
        if len(given) > 1:
            raise ConfigurationError(f'the connection is over-determined by {" and ".join(given)}: '
                                     f'give url=, or connection_pool=, or host=/port=/db=/... alone')
        if connection_pool is not None:
            if not isinstance(connection_pool, ConnectionPool):
                raise ConfigurationError(f'connection_pool={connection_pool!r} is not a redis.ConnectionPool')
            return cls(connection_pool.connection_class, connection_pool.connection_kwargs)
        if url is not None:
            try:
                settings = dict(parse_url(url))
            except ValueError:          # its text may quote a part of the password, and so may a part of the URL
                scheme, found, _ = str(url).partition('://')
                raise ConfigurationError(f'a URL that is no Redis URL ({scheme if found else ""}://...): use redis://, rediss:// or '
                                         'unix://, then [[user]:password@], then host[:port][/db] or a path; write %2F for a / '
                                         'in a password') from None
            return cls(settings.pop('connection_class', Connection), settings)
        return cls._of_keywords(dict(params))

    @classmethod
    def _of_keywords(cls, params: dict[str, Any]) -> Address:
        """The address in the keywords that ``redis.Redis`` takes."""
        kind: type[Any] = Connection
        if params.pop('ssl', False):
            kind = SSLConnection
        if 'unix_socket_path' in params:
            kind, params['path'] = UnixDomainSocketConnection, params.pop('unix_socket_path')
        return cls(kind, params)

    @property
    def is_local(self) -> bool:
        """True for a socket of this machine, or its loopback interface."""
        return 'path' in self.settings or str(self.settings.get('host', 'localhost')) in ('localhost', '127.0.0.1', '::1')

    def __str__(self) -> str:
        """The address as a URL, without its password."""
        at = self.settings
        user = f'{at.get("username", "")}:***@' if at.get('password') or at.get('credential_provider') else ''
        if 'path' in at:
            return f'unix://{user}{at["path"]}?db={at.get("db", 0)}'
        scheme = 'rediss' if issubclass(self.connection_class, SSLConnection) else 'redis'
        return f'{scheme}://{user}{at.get("host", "localhost")}:{at.get("port", 6379)}/{at.get("db", 0)}'

    def connect(self, name: str, engine: bool) -> Any:
        """A connected socket. ``engine``: one of gevent's, whether or not the process is patched.

        Raises StorageUnavailable, or StorageRefused for a wrong password or a missing permission.
        """
        kind = _with_gevent_sockets(self.connection_class) if engine else self.connection_class
        connection = kind(**{'socket_connect_timeout': CONNECT_TIMEOUT, **self.settings, 'socket_timeout': CONNECT_TIMEOUT,
                             'client_name': name, 'protocol': 2})
        try:
            connection.connect()
        except redis.exceptions.AuthenticationError as exc:
            raise StorageRefused(f'Redis at {self} refuses the user or the password: {exc}') from exc
        except redis.exceptions.ResponseError as exc:
            raise translated(str(exc), str(self)) from exc
        except Exception as exc:            # a credential provider of the user's may raise anything
            raise StorageUnavailable(f'Redis at {self} cannot be reached: {exc}') from exc
        sock, connection._sock = connection._sock, None      # ours from here on: redis-py must not close it
        return sock


def translated(text: str, where: str = '') -> StorageError:
    """The error for what the server said."""
    if text.startswith('ERR Error running script'):         # Redis 6 quotes what it said to the script
        text = text.rpartition(': -')[2]
    word = text.split(' ', 1)[0].removesuffix(':')
    at = f' at {where}' if where else ''
    if word == 'OOM':
        return StorageUnavailable(f'Redis{at} is out of memory (maxmemory): {text}')
    if word in _REFUSED or 'invalid password' in text.lower() or 'invalid username' in text.lower():
        return StorageRefused(f'Redis{at} refuses: {text}')
    if word in _NOT_NOW or 'max number of clients' in text:
        return StorageUnavailable(f'Redis{at} cannot serve now: {text}')
    return StorageError(f'Redis{at}: {text}')


def _with_gevent_sockets(kind: type[Any]) -> type[Any]:
    """The same kind of connection on gevent's sockets."""
    from gevent import socket, ssl

    class GeventConnection(kind):   # type: ignore[misc]
        def _connect(self) -> Any:
            timeout = self.socket_connect_timeout
            if isinstance(self, UnixDomainSocketConnection):
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                sock.settimeout(timeout)
                sock.connect(self.path)
                return sock
            sock = socket.create_connection((self.host, self.port), timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in dict(getattr(self, 'socket_keepalive_options', None) or {}).items():
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
            return self._secured(sock) if isinstance(self, SSLConnection) else sock

        def _secured(self, sock: Any) -> Any:
            context = ssl.create_default_context()
            context.check_hostname = self.check_hostname
            context.verify_mode = self.cert_reqs
            if self.certfile or self.keyfile:
                context.load_cert_chain(self.certfile, self.keyfile, self.certificate_password)
            if self.ca_certs or self.ca_path or self.ca_data:
                context.load_verify_locations(self.ca_certs, self.ca_path, self.ca_data)
            if self.ssl_min_version is not None:
                context.minimum_version = self.ssl_min_version
            if self.ssl_ciphers:
                context.set_ciphers(self.ssl_ciphers)
            return context.wrap_socket(sock, server_hostname=self.host)

    return GeventConnection


class Link:
    """One connection: commands go out, answers come in, in order. One owner at a time.

    ``receive`` may be interrupted (a greenlet that is killed, a timeout of the user's) and resumed: no byte is lost by that.
    """

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._reader = hiredis.Reader(notEnoughData=_NOT_ENOUGH)
        self._timeout: float | None = -1.0

    def send(self, data: bytes) -> None:
        """The bytes are on their way; each piece has its own time, so that a slow connection is no broken one."""
        self._set_timeout(ANSWER_TIMEOUT)
        if len(data) <= PIECE:
            self._sock.sendall(data)
            return
        view = memoryview(data)
        for start in range(0, len(data), PIECE):
            self._sock.sendall(view[start:start + PIECE])

    def receive(self, timeout: float | None) -> Any:
        """The next answer; an error's is a ``hiredis.ReplyError``, not raised. Raises OSError, TimeoutError among them."""
        answer = self._reader.gets()
        while answer is _NOT_ENOUGH:
            self._set_timeout(timeout)
            data = self._sock.recv(65536)
            if not data:
                raise ConnectionError('the server closed the connection')
            self._reader.feed(data)
            answer = self._reader.gets()
        return answer

    def _set_timeout(self, timeout: float | None) -> None:
        if timeout != self._timeout:
            self._sock.settimeout(timeout)
            self._timeout = timeout

    def is_quiet(self) -> bool:
        """True when nothing has come that nobody asked for: not even the end of the connection."""
        poll = native.original('select', 'poll')()
        poll.register(self._sock.fileno(), select.POLLIN)
        return not poll.poll(0)

    def shut_down(self) -> None:
        """Both sides find the end of the connection; from any thread."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        self._sock.close()


class _Request:
    """Commands of one caller, on their way together."""

    __slots__ = ('answers', 'commands', 'data', 'done', 'error')

    def __init__(self, commands: Sequence[Command]) -> None:
        self.commands = len(commands)
        self.data = b''.join([hiredis.pack_command(command) for command in commands])
        self.answers: list[Any] = []
        self.done = False
        self.error: StorageError | None = None


class SharedLink:
    """A connection that any number of callers share, in turns; who has to wait rides along with the next turn.

    The caller whose turn it is writes what everybody has handed in and reads all the answers.  If it is interrupted while it
    reads, the next one goes on where it stopped: nobody else's answer is lost.
    """

    def __init__(self, connect: Callable[[], Any], lock: Callable[[], Any] | None = None) -> None:
        self._connect = connect
        self._new_lock = lock or threading.Lock     # looked up now: gevent may have patched it since the import
        self._is_shared = lock is None      # with users' code, which has signal handlers; an engine's part has none
        self._reset()
        native.on_fork(self.forked)

    def forked(self) -> None:
        """This is a child now: the connection, and the callers that wait for it, are the parent's."""
        self.close()
        self._reset()

    def _reset(self) -> None:
        self._owner = 0
        self._turn = self._new_lock()
        self._link: Link | None = None
        self._used = 0.0
        self._on_the_way = 0.0
        self._waiting: deque[_Request] = deque()
        self._sent: deque[_Request] = deque()

    def call(self, commands: Sequence[Command], timeout: float | None = ANSWER_TIMEOUT) -> list[Any]:
        """The answers to the commands. Raises StorageUnavailable when none was sent, StorageOutcomeUnknown when they may have been."""
        me = threading.get_ident()          # of the greenlet, where gevent has patched it
        if self._is_shared and self._owner == me:       # a signal handler, on top of a call of ours
            return self._alone(commands, timeout)
        request = _Request(commands)
        self._waiting.append(request)
        try:
            with self._turn:
                self._owner = me
                try:
                    while not request.done:
                        self._carry(timeout)
                finally:
                    self._owner = 0
        except BaseException:               # interrupted: what has not been sent yet is not to be sent any more
            if not request.done and request in self._waiting:
                self._waiting.remove(request)
            raise
        if request.error is not None:
            raise request.error
        return request.answers

    def _alone(self, commands: Sequence[Command], timeout: float | None) -> list[Any]:
        """The answers, over a connection for these commands alone."""
        line = SharedLink(self._connect, self._new_lock)
        try:
            return line.call(commands, timeout)
        finally:
            line.close()

    def _carry(self, timeout: float | None) -> None:
        """Everything that waits has been sent, and everything that was sent has been answered or has failed."""
        try:
            if not self._sent:
                link = self._connected()
                batch = self._sent
                while self._waiting and len(batch) < MAX_BATCH:
                    batch.append(self._waiting.popleft())
                try:
                    data = b''.join([request.data for request in batch])
                    self._on_the_way = len(data) / SLOWEST
                    link.send(data)
                except BaseException:       # part of it may be out: no way to go on from there
                    self._fail(StorageOutcomeUnknown('the connection to Redis was cut while sending'), self._sent)
                    raise
            self._receive(timeout)
        except StorageError as exc:
            self._fail(exc, self._waiting)
        except OSError as exc:
            error = StorageOutcomeUnknown(f'the connection to Redis was lost before the answer came: {exc or type(exc).__name__}')
            error.__cause__ = exc
            self._fail(error, self._sent)
        except hiredis.HiredisError as exc:
            self._fail(StorageOutcomeUnknown(f'what came back is not the Redis protocol: {exc}'), self._sent)

    def _receive(self, timeout: float | None) -> None:
        link = self._link
        if link is None:
            raise ConnectionError('the connection was closed')
        while self._sent:
            request = self._sent[0]
            while len(request.answers) < request.commands:
                request.answers.append(link.receive(None if timeout is None else timeout + self._on_the_way))
            request.done = True
            self._sent.popleft()
        self._used = time.monotonic()

    def _connected(self) -> Link:
        if self._link is not None and time.monotonic() - self._used > IDLE and not self._link.is_quiet():
            self.close()
        if self._link is None:
            self._link = Link(self._connect())
        return self._link

    def _fail(self, error: StorageError, requests: deque[_Request]) -> None:
        """The connection is closed; each of the requests has failed with the error."""
        self.close()
        while requests:
            request = requests.popleft()
            request.error = error
            request.done = True

    def close(self) -> None:
        """The connection is closed; the next call opens a new one."""
        link, self._link = self._link, None
        if link is not None:
            link.close()
