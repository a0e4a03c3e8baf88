"""Which server to connect to, where that may change: Sentinel knows the master, the nodes of a Cluster know who serves a slot.

They are asked anew before every connection, so that nothing here needs to be told of a change.  Whoever was told that it is
elsewhere now (``is_elsewhere`` in ``connection.py``) closes its connection; that is all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from geventhuey.exceptions import ConfigurationError, StorageError, StorageRefused, StorageUnavailable

Node = tuple[str, int]
#: Opens a connection of redis-py's to a server, with these settings instead of the address's own. Raises StorageError.
Open = Callable[[Node, Mapping[str, Any]], Any]

SENTINEL, CLUSTER = 'redis+sentinel', 'redis+cluster'
#: The schemes of the two, and of the same over TLS.
SCHEMES = (SENTINEL, 'rediss+sentinel', CLUSTER, 'rediss+cluster')
SENTINEL_PORT, PORT = 26379, 6379
#: Seconds for a server that is only asked: the next one may know as much.
ASK_TIMEOUT = 0.5
#: Servers that are remembered beside those of the URL, at most: asking all of a large cluster would take too long.
KNOWN = 8


class Discovery:
    """Servers that know where to connect to."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._seeds = tuple(nodes)
        self._nodes = self._seeds       # those that are asked, the most promising one first; replaced as a whole, by any thread

    def connect(self, open: Open) -> Any:
        """A connection to the right server. Raises StorageUnavailable, or StorageRefused when somebody has to mend something."""
        problems: list[StorageError] = []
        tried: set[Node] = set()
        for node in self._nodes:
            try:
                told = self._ask(node, open)
                if told not in tried:       # else two of them say the same, and it was not right
                    tried.add(told)
                    return self._checked(open(told, {}))
            except StorageError as exc:
                problems.append(exc)
        problem = min(problems, key=lambda exc: not isinstance(exc, StorageRefused))
        kind = StorageRefused if isinstance(problem, StorageRefused) else StorageUnavailable
        raise kind(f'{self.wanted} cannot be reached by way of {self.hosts}: {problem}') from problem

    def _checked(self, connection: Any) -> Any:
        try:
            self.check(connection)
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def check(self, connection: Any) -> None:
        """The server at the other end is the right one. Raises StorageUnavailable when it is not."""

    @property
    def wanted(self) -> str:
        """What is looked for, for people."""
        raise NotImplementedError

    @property
    def path(self) -> str:
        """What stands behind the hosts in the URL."""
        return ''

    @property
    def hosts(self) -> str:
        """The servers that the URL names, as it names them."""
        return ','.join(f'[{host}]:{port}' if ':' in host else f'{host}:{port}' for host, port in self._seeds)

    def _ask(self, node: Node, open: Open) -> Node:
        """Where this one says that it is. Raises StorageError."""
        raise NotImplementedError

    def _prefer(self, *nodes: Node) -> None:
        """These are asked first, next time."""
        first = tuple(dict.fromkeys(nodes))[:KNOWN]
        self._nodes = (*first, *(seed for seed in self._seeds if seed not in first))


class Sentinel(Discovery):
    """The master of a service, which the sentinels know."""

    def __init__(self, nodes: Sequence[Node], service: str, credentials: Mapping[str, Any]) -> None:
        super().__init__(nodes)
        self.service = service
        self._settings = {'username': None, 'password': None, 'credential_provider': None, **credentials, 'db': 0}

    @property
    def wanted(self) -> str:
        return f'the master of {self.service!r}'

    @property
    def path(self) -> str:
        return f'/{self.service}'

    def _ask(self, node: Node, open: Open) -> Node:
        answer, = _answers(node, open, self._settings, ('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', self.service))
        if answer is None:
            raise StorageUnavailable(f'the Sentinel at {_name(node)} knows no service {self.service!r}')
        self._prefer(node)
        return _text(answer[0]), int(answer[1])

    def check(self, connection: Any) -> None:
        role = _said(connection, ('ROLE',))
        if _text(role[0]) != 'master':
            raise StorageUnavailable(f'the server at {connection.host}:{connection.port} is not the master of {self.service!r}')


class Cluster(Discovery):
    """The node that serves one slot, which any node of the cluster knows; all keys of an application are in one slot."""

    def __init__(self, nodes: Sequence[Node], key: str) -> None:
        super().__init__(nodes)
        self.slot = int(key_slot(key.encode(), REDIS_CLUSTER_HASH_SLOTS))

    @property
    def wanted(self) -> str:
        return f'slot {self.slot}'

    def _ask(self, node: Node, open: Open) -> Node:
        info, slots = _answers(node, open, {}, ('CLUSTER', 'INFO'), ('CLUSTER', 'SLOTS'))
        if 'cluster_state:ok' not in _text(info):       # it is cut off, and would name the owner that there was
            raise StorageUnavailable(f'the node at {_name(node)} says that the cluster is down')
        owners = {first: _node(owner, node) for first, last, owner, *_ in slots}
        owner = next((owners[first] for first, last, *_ in slots if first <= self.slot <= last), None)
        if owner is None:
            raise StorageUnavailable(f'the node at {_name(node)} knows no owner of slot {self.slot}')
        self._prefer(owner, *owners.values())           # the owner first: it knows before all others when it is one no more
        return owner


def discovery(url: str, key: str) -> tuple[Discovery, str]:
    """What finds the server of a URL of ours, and a URL that redis-py understands for all else that is in it.

    :param key: one that is looked for, in a cluster.

    Raises ConfigurationError, without the URL's password.
    """
    try:
        return _discovery(url, key)
    except ValueError as exc:
        reason = f': {exc}' if isinstance(exc, ConfigurationError) else ''      # another one's text may quote the password
        form = (f'{SENTINEL}://[[user]:password@]host[:port][,host[:port]...]/service[/db]' if 'sentinel' in url.partition(':')[0] else
                f'{CLUSTER}://[[user]:password@]host[:port][,host[:port]...]')
        raise ConfigurationError(f'a URL that is not understood{reason}; it has to be {form}, and %2F for a / in a password') from None


def _discovery(url: str, key: str) -> tuple[Discovery, str]:
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition('@')
    query = dict(parse_qsl(parts.query))
    sentinels = {name: query.pop(f'sentinel_{name}') for name in ('username', 'password') if f'sentinel_{name}' in query}
    path = parts.path.strip('/').split('/')
    found: Discovery
    if parts.scheme.endswith('+sentinel'):
        service, db = path if len(path) == 2 else (path[0], '0')
        if not service or len(path) > 2:
            raise ConfigurationError('one name of a service is needed behind the hosts')
        found = Sentinel(_hosts(hosts, SENTINEL_PORT), service, sentinels)
    else:
        db = path[0] or '0'
        if db != '0' or len(path) > 1 or query.get('db', '0') != '0' or sentinels:
            raise ConfigurationError('a cluster has no databases but 0, and no sentinels')
        found = Cluster(_hosts(hosts, PORT), key)
    if not db.isdecimal():
        raise ConfigurationError('the database is no number')
    plain = 'rediss' if parts.scheme.startswith('rediss') else 'redis'
    return found, f'{plain}://{user}{at}localhost/{db}?{urlencode(query)}'


def _hosts(text: str, port: int) -> list[Node]:
    """``host:port,host,[address]:port`` as pairs."""
    nodes = []
    for one in text.split(','):
        parts = urlsplit(f'//{one}')
        if not parts.hostname or '@' in one:
            raise ConfigurationError('a host is missing')
        nodes.append((parts.hostname, parts.port or port))
    return nodes


def _answers(node: Node, open: Open, settings: Mapping[str, Any], *commands: tuple[str, ...]) -> list[Any]:
    """The node's answers, over a connection for them alone. Raises StorageError."""
    connection = open(node, {'socket_connect_timeout': ASK_TIMEOUT, 'socket_timeout': ASK_TIMEOUT, **settings})
    try:
        return [_said(connection, command) for command in commands]
    finally:
        connection.disconnect()


def _said(connection: Any, command: tuple[str, ...]) -> Any:
    """The answer over a connection of redis-py's. Raises StorageError."""
    where = f'{connection.host}:{connection.port}'
    try:
        connection.send_command(*command)
        return connection.read_response()
    except redis.exceptions.NoPermissionError as exc:
        raise StorageRefused(f'the server at {where} does not permit {" ".join(command[:2])}: {exc}') from exc
    except redis.exceptions.RedisError as exc:
        raise StorageUnavailable(f'the server at {where} does not answer {" ".join(command[:2])}: {exc}') from exc


def _node(told: Sequence[Any], asked: Node) -> Node:
    """The node as it was told; one that does not know its own name has the one under which it was asked."""
    host = _text(told[0] or b'')
    return (asked[0] if host in ('', '?') else host), int(told[1])


def _name(node: Node) -> str:
    return f'{node[0]}:{node[1]}'


def _text(raw: bytes | str) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw
