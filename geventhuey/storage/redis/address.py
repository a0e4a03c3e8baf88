"""Where Redis is and how to get in: URLs, keywords, pools of redis-py's; redis-py connects (TLS, passwords), then the socket is ours."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.sentinel import SentinelConnectionPool

from geventhuey.exceptions import ConfigurationError, StorageError, StorageRefused, StorageUnavailable
from geventhuey.storage.redis import discovery
from geventhuey.storage.redis.connection import translated

#: Seconds to wait for a connection.
CONNECT_TIMEOUT = 1.0
#: What a connection pool or a URL may say of an address; all else that it says is about pools and clients, which are not used.
_ADDRESS = ('host', 'port', 'db', 'path', 'username', 'password', 'credential_provider', 'socket_keepalive', 'socket_keepalive_options',
            'socket_type', 'socket_connect_timeout')

# redis-py looks its own version up when it connects first, and modules are imported for that. Several native threads of a process that
# gevent has patched may wait for each other for ever when they import at the same time: so it is done here, once.
importlib.metadata.version('redis')



class Address:
    """Where a Redis server is, or who knows where, and how to get in."""

    def __init__(self, connection_class: type[Any], settings: Mapping[str, Any], found_by: discovery.Discovery | None = None) -> None:
        self.connection_class = connection_class
        self.found_by = found_by
        self.settings = {key: value for key, value in settings.items()
                         if (key in _ADDRESS or key.startswith('ssl_')) and value is not None}

    @classmethod
    def of(cls, url: str | None, connection_pool: Any, params: Mapping[str, Any], key: str = '') -> Address:
        """The address that one of the three gives. Raises ConfigurationError when more than one does, or it is not understood.

        ``key`` is one of the application's, which share one slot where it is a cluster.
        """
        unknown = [key for key in params if key not in (*_ADDRESS, 'ssl', 'unix_socket_path') and not key.startswith('ssl_')]
        if unknown:
            raise ConfigurationError(f'{", ".join(unknown)}: not understood; a Redis connection takes '
                                     f'{", ".join(_ADDRESS)}, ssl, ssl_..., unix_socket_path')
        if any(mark in str(params.get('host', '')) for mark in '/@'):      # a URL, perhaps with a password
            raise ConfigurationError('host= takes the name of a host; a URL is for url=')
        for number in ('port', 'db'):
            if not str(params.get(number, 0)).isdigit():
                raise ConfigurationError(f'{number}={params[number]!r} is not a number')
        given = [name for name, value in (('url', url), ('connection_pool', connection_pool), (', '.join(params), params)) if value]
        if len(given) > 1:
            raise ConfigurationError(f'the connection is over-determined by {" and ".join(given)}: '
                                     f'give url=, or connection_pool=, or host=/port=/db=/... alone')
        if connection_pool is not None:
            if not isinstance(connection_pool, ConnectionPool):
                raise ConfigurationError(f'connection_pool= takes a redis.ConnectionPool, not a {type(connection_pool).__name__}')
            if isinstance(connection_pool, SentinelConnectionPool):
                return cls._of_sentinels(connection_pool)
            return cls(connection_pool.connection_class, connection_pool.connection_kwargs)
        if url is not None:
            found_by = None
            if str(url).partition('://')[0] in discovery.SCHEMES:
                found_by, url = discovery.discovery(url, key)
            _check_url(str(url))
            try:
                settings = dict(parse_url(url))
            except ValueError:          # its text may quote a part of the password, and so may a part of the URL
                scheme, found, _ = str(url).partition('://')
                raise ConfigurationError(f'a URL that is no Redis URL ({scheme if found else ""}://...): use redis://, rediss://, '
                                         'unix://, redis+sentinel:// or redis+cluster://, then [[user]:password@], then '
                                         'host[:port][/db] or a path; write %2F for a / in a password') from None
            return cls(settings.pop('connection_class', Connection), settings, found_by)
        return cls._of_keywords(dict(params))

    @classmethod
    def _of_sentinels(cls, pool: SentinelConnectionPool) -> Address:
        """The master that the pool stands for. (What the sentinels have for credentials, all of them have.)"""
        if not pool.is_master:
            raise ConfigurationError('connection_pool stands for replicas of a service; tasks need the master')
        known = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
        found_by = discovery.Sentinel([(one['host'], int(one['port'])) for one in known], pool.service_name,
                                      {name: known[0].get(name) for name in ('username', 'password')})
        return cls(SSLConnection if issubclass(pool.connection_class, SSLConnection) else Connection, pool.connection_kwargs, found_by)

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
        if self.found_by is not None:
            return False
        return 'path' in self.settings or str(self.settings.get('host', 'localhost')) in ('localhost', '127.0.0.1', '::1')

    def __str__(self) -> str:
        """The address as a URL, without its password."""
        at = self.settings
        user = f'{at.get("username", "")}:***@' if at.get('password') or at.get('credential_provider') else ''
        if 'path' in at:
            return f'unix://{user}{at["path"]}?db={at.get("db", 0)}'
        scheme = 'rediss' if issubclass(self.connection_class, SSLConnection) else 'redis'
        if isinstance(self.found_by, discovery.Cluster):
            return f'{scheme}+cluster://{user}{self.found_by.hosts}'
        if self.found_by is not None:
            return f'{scheme}+sentinel://{user}{self.found_by.hosts}{self.found_by.path}/{at.get("db", 0)}'
        return f'{scheme}://{user}{at.get("host", "localhost")}:{at.get("port", 6379)}/{at.get("db", 0)}'

    def connect(self, name: str, engine: bool) -> Any:
        """A connected socket. ``engine``: one of gevent's, whether or not the process is patched.

        Raises StorageUnavailable, or StorageRefused for a wrong password or a missing permission.
        """
        connection = self._connection(name, engine)
        sock, connection._sock = connection._sock, None      # ours from here on: redis-py must not close it
        return sock

    @property
    def is_cluster(self) -> bool:
        """True when it is a node of a Redis Cluster, the one that serves the application's slot."""
        return isinstance(self.found_by, discovery.Cluster)

    def pool(self, name: str) -> ConnectionPool:
        """A pool of redis-py's, for its own clients; its connections find the right server as ours do."""
        kind = self.connection_class
        if self.found_by is not None:
            kind = _finding(kind, lambda: self._connection(name, engine=False))
        return ConnectionPool(connection_class=kind, **{**self.settings, 'socket_timeout': None, 'client_name': name, 'protocol': 2})

    def _connection(self, name: str, engine: bool) -> Any:
        """A connection of redis-py's, to the right server."""
        kind = _with_gevent_sockets(self.connection_class) if engine else self.connection_class
        settings = {'socket_connect_timeout': CONNECT_TIMEOUT, **self.settings, 'socket_timeout': CONNECT_TIMEOUT,
                    'client_name': name, 'protocol': 2}
        if self.found_by is None:
            return _opened(kind(**settings), str(self))
        return self.found_by.connect(lambda node, more: _opened(
            kind(**{**settings, 'host': node[0], 'port': node[1], **more}), f'{node[0]}:{node[1]}'))


def _opened(connection: Any, where: str) -> Any:
    """The connection, connected. Raises StorageUnavailable or StorageRefused."""
    try:
        connection.connect()
    except redis.exceptions.AuthenticationError as exc:
        raise StorageRefused(f'Redis at {where} refuses the user or the password: {exc}') from exc
    except redis.exceptions.ResponseError as exc:
        raise translated(str(exc), where) from exc
    except Exception as exc:            # a credential provider of the user's may raise anything
        raise StorageUnavailable(f'Redis at {where} cannot be reached: {exc}') from exc
    return connection


def _finding(kind: type[Any], find: Callable[[], Any]) -> type[Any]:
    """The same kind of connection, which finds its server whenever it connects."""
    class FindingConnection(kind):      # type: ignore[misc]
        def _connect(self) -> Any:
            try:
                found = find()
            except StorageError as exc:         # to redis-py, whose retries know its own errors only
                raise redis.exceptions.ConnectionError(str(exc)) from exc
            self.host, self.port = found.host, found.port
            found.disconnect()
            return super()._connect()

    return FindingConnection


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
            # not gevent's create_default_context(): where nothing is patched, it makes one of Python's, which blocks the hub
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.verify_flags = ssl.create_default_context().verify_flags
            context.load_default_certs()
            context.check_hostname = self.check_hostname
            context.verify_mode = self.cert_reqs
            if self.certfile or self.keyfile:
                context.load_cert_chain(self.certfile, self.keyfile, self.certificate_password)
            if self.ca_certs or self.ca_path or self.ca_data:
                context.load_verify_locations(self.ca_certs, self.ca_path, self.ca_data)
            if getattr(self, 'ssl_min_version', None) is not None:         # redis-py 5.0 does not have these two
                context.minimum_version = self.ssl_min_version
            if getattr(self, 'ssl_ciphers', None):
                context.set_ciphers(self.ssl_ciphers)
            return context.wrap_socket(sock, server_hostname=self.host)

    return GeventConnection


def _check_url(url: str) -> None:
    """Raises ConfigurationError, without the URL, for what redis-py would pass over in silence."""
    parts = urlsplit(url)
    if parts.fragment or '#' in url:
        raise ConfigurationError('a URL that is no Redis URL, with a # in it: write %23 for a # in a password') from None
    if parts.scheme in ('redis', 'rediss') and not parts.path.strip('/').isdecimal() and parts.path.strip('/'):
        raise ConfigurationError('a URL that is no Redis URL: what follows the host is not the number of a database; write '
                                 'redis://host:port/0, and %2F for a / in a password') from None
