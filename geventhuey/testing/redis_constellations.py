"""Several Redis servers that know each other, for tests: a master with its replica and three sentinels, and a cluster.

::

    with SentinelSet() as servers:
        huey = RedisHuey('app', url=servers.url)
        servers.master.kill()
        servers.wait_for_master(other_than=servers.master)

    with ClusterSet() as servers:
        huey = RedisHuey('app', url=servers.url)
        servers.migrate(servers.slot_of('gh:{app}:'), to=servers.nodes[1])
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import redis
from redis.crc import key_slot

from geventhuey.testing.redis_server import RedisServer

#: Seconds within which the servers have to agree, on a loaded machine.
BOUND = 60.0
SLOTS, NODES = 16384, 3
#: Slots in one command, and keys that move at once, at most.
CHUNK = 4096
KEYS = 100


class _Constellation:
    """Servers that start and end together."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def start(self) -> None:
        """The servers run and know each other."""
        raise NotImplementedError

    def stop(self) -> None:
        """No server of ours is left."""
        self._stack.close()

    def _started(self, server: RedisServer) -> RedisServer:
        return self._stack.enter_context(server)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        self.stop()


class _Sentinel(RedisServer):
    """A sentinel that watches one service; what it learns is in its file, and survives kill() and restart()."""

    def __init__(self, service: str, master: int, quorum: int, down_after_ms: int, lines: str) -> None:
        super().__init__()
        self._text = (f'sentinel monitor {service} 127.0.0.1 {master} {quorum}\n'
                      f'sentinel down-after-milliseconds {service} {down_after_ms}\n'
                      f'sentinel failover-timeout {service} {down_after_ms * 2}\n{lines}')

    def _arguments(self, port: int) -> list[str]:
        file = self.directory / 'sentinel.conf'
        if not file.exists():
            file.write_text(self._text)
        return [self.binary, str(file), '--port', str(port), '--bind', '127.0.0.1', '--dir', str(self.directory), '--sentinel']


class SentinelSet(_Constellation):
    """A master, a replica, and three sentinels that watch them under the name ``service``.

    :param password: of the servers, for the default user.
    :param sentinel_password: of the sentinels.
    :param down_after_ms: milliseconds of silence after which a sentinel thinks that a server is down.
    :param min_replicas: a server without so many replicas takes no writes; with 1, a master that has been replaced is none any more.
    """

    def __init__(self, service: str = 'tasks', password: str = '', sentinel_password: str = '', down_after_ms: int = 1000,
                 min_replicas: int = 0) -> None:
        super().__init__()
        self.service = service
        self.password = password
        self.sentinel_password = sentinel_password
        self.down_after_ms = down_after_ms
        self.min_replicas = min_replicas
        self.servers: list[RedisServer] = []
        self.sentinels: list[RedisServer] = []

    def start(self) -> None:
        extra = ['--min-replicas-to-write', str(self.min_replicas)]
        if self.password:
            extra += ['--requirepass', self.password, '--masterauth', self.password]
        first = self._started(RedisServer(appendonly=True, extra=extra))
        second = self._started(RedisServer(appendonly=True, extra=['--replicaof', '127.0.0.1', str(first.port), *extra]))
        self.servers = [first, second]
        wait_until(lambda: self._client(second).info('replication').get('master_link_status') == 'up', 'a replica')
        lines = f'sentinel auth-pass {self.service} {self.password}\n' if self.password else ''
        if self.sentinel_password:
            lines += f'requirepass {self.sentinel_password}\nsentinel sentinel-pass {self.sentinel_password}\n'
        self.sentinels = [self._started(_Sentinel(self.service, first.port, 2, self.down_after_ms, lines)) for _ in range(3)]
        wait_until(self._is_complete, 'three sentinels that know each other and the replica')

    def __enter__(self) -> SentinelSet:
        self.start()
        return self

    @property
    def url(self) -> str:
        """``redis+sentinel://[:PASSWORD@]127.0.0.1:PORT,127.0.0.1:PORT,127.0.0.1:PORT/SERVICE``"""
        user = f':{self.password}@' if self.password else ''
        hosts = ','.join(f'127.0.0.1:{sentinel.port}' for sentinel in self.sentinels)
        query = f'?sentinel_password={self.sentinel_password}' if self.sentinel_password else ''
        return f'redis+sentinel://{user}{hosts}/{self.service}{query}'

    @property
    def master(self) -> RedisServer:
        """The server that is the master now, as the sentinels know it."""
        port = int(self._ask('sentinel', 'get-master-addr-by-name', self.service)[1])
        return next(server for server in self.servers if server.port == port)

    @property
    def replica(self) -> RedisServer:
        """The other one."""
        master = self.master
        return next(server for server in self.servers if server is not master)

    def wait_for_master(self, other_than: RedisServer) -> RedisServer:
        """Another server, as soon as it is the master and says so itself."""
        def found() -> RedisServer | None:
            master = self.master
            return master if master is not other_than and self._client(master).execute_command('ROLE')[0] == b'master' else None
        server: RedisServer = wait_until(found, 'another master')
        return server

    def wait_for_replica(self) -> RedisServer:
        """The server that is not the master, as soon as it has everything that the master has."""
        def found() -> RedisServer | None:
            replica, port = self.replica, self.master.port
            if not replica.is_running:
                return None
            seen = self._client(replica).info('replication')
            is_up = (seen.get('master_link_status'), seen.get('master_port')) == ('up', port)
            return replica if is_up and self._is_complete() else None
        server: RedisServer = wait_until(found, 'a replica that follows')
        return server

    def fail_over(self) -> None:
        """The sentinels have been told to make the replica the master."""
        wait_until(lambda: self._ask('sentinel', 'failover', self.service) in (b'OK', True), 'a sentinel that begins')

    def _is_complete(self) -> bool:
        for sentinel in self.sentinels:
            client = redis.Redis(port=sentinel.port, password=self.sentinel_password or None)
            seen: Any = client.sentinel_master(self.service)
            if (seen['num-other-sentinels'], seen['num-slaves']) != (len(self.sentinels) - 1, 1) or seen['flags'] != 'master':
                return False
        return True

    def _ask(self, *command: str) -> Any:
        """The first answer that a sentinel gives."""
        error: Exception = RuntimeError('no sentinel runs')
        for sentinel in self.sentinels:
            if sentinel.is_running:
                try:
                    return redis.Redis(port=sentinel.port, password=self.sentinel_password or None).execute_command(*command)
                except redis.RedisError as exc:
                    error = exc
        return error

    def _client(self, server: RedisServer) -> redis.Redis:
        return redis.Redis(port=server.port, password=self.password or None, socket_timeout=10)


class ClusterSet(_Constellation):
    """Three nodes of a Redis Cluster, each with a third of the slots.

    :param with_replicas: each of them has a replica, which takes its place when it is gone.
    :param node_timeout_ms: milliseconds of silence after which the others think that a node is gone.
    """

    def __init__(self, with_replicas: bool = False, node_timeout_ms: int = 5000) -> None:
        super().__init__()
        self.with_replicas = with_replicas
        self.node_timeout_ms = node_timeout_ms
        self.nodes: list[RedisServer] = []
        self.replicas: list[RedisServer] = []

    def start(self) -> None:
        self.nodes = [self._node() for _ in range(NODES)]
        self.replicas = [self._node() for _ in self.nodes if self.with_replicas]
        for index, node in enumerate(self.nodes):
            slots = range(SLOTS * index // NODES, SLOTS * (index + 1) // NODES)
            for start in range(0, len(slots), CHUNK):
                self._on(node, 'CLUSTER', 'ADDSLOTS', *slots[start:start + CHUNK])
            self._on(node, 'CLUSTER', 'SET-CONFIG-EPOCH', index + 1)
        for node in (*self.nodes[1:], *self.replicas):
            self._on(self.nodes[0], 'CLUSTER', 'MEET', '127.0.0.1', node.port)
        wait_until(self._is_complete, 'nodes that agree')
        for node, replica in zip(self.nodes, self.replicas):
            self._on(replica, 'CLUSTER', 'REPLICATE', self._on(node, 'CLUSTER', 'MYID').decode())
        wait_until(lambda: all(b'master_link_status:up' in self._on(replica, 'INFO', 'replication') for replica in self.replicas),
                   'replicas that follow')

    def __enter__(self) -> ClusterSet:
        self.start()
        return self

    def _node(self) -> RedisServer:
        return self._started(RedisServer(appendonly=True, extra=[
            '--cluster-enabled', 'yes', '--cluster-node-timeout', str(self.node_timeout_ms), '--cluster-require-full-coverage', 'no']))

    @property
    def url(self) -> str:
        """``redis+cluster://127.0.0.1:PORT,127.0.0.1:PORT,127.0.0.1:PORT``"""
        return 'redis+cluster://' + ','.join(f'127.0.0.1:{node.port}' for node in self.nodes)

    @staticmethod
    def slot_of(key: str) -> int:
        """The slot of the key."""
        return int(key_slot(key.encode()))

    def owner(self, slot: int) -> RedisServer:
        """The node that serves the slot, as soon as one says so of itself."""
        def found() -> RedisServer | None:
            return next((node for node in (*self.nodes, *self.replicas) if node.is_running and self._slots(node).get(slot) == node.port),
                        None)
        server: RedisServer = wait_until(found, f'an owner of slot {slot}')
        return server

    def migrate(self, slot: int, to: RedisServer, at_once: int = KEYS, pause: float = 0.0) -> int:
        """The slot has moved to the node, ``at_once`` keys at a time with a pause after each time; answers how many keys moved."""
        moved = 0
        with self.migrating(slot, to) as step:
            while (count := step(at_once)):
                moved += count
                time.sleep(pause)
        return moved

    @contextlib.contextmanager
    def migrating(self, slot: int, to: RedisServer) -> Iterator[Callable[[int], int]]:
        """The slot is on its way to the node; what is yielded moves so many keys and answers how many. At the end it has moved."""
        source = self.owner(slot)
        names = {node.port: self._on(node, 'CLUSTER', 'MYID').decode() for node in self.nodes}
        self._on(to, 'CLUSTER', 'SETSLOT', slot, 'IMPORTING', names[source.port])
        self._on(source, 'CLUSTER', 'SETSLOT', slot, 'MIGRATING', names[to.port])

        def step(at_most: int) -> int:
            keys = self._on(source, 'CLUSTER', 'GETKEYSINSLOT', slot, at_most)
            if keys:
                self._on(source, 'MIGRATE', '127.0.0.1', to.port, '', 0, 10000, 'KEYS', *keys)
            return len(keys)

        yield step
        while step(KEYS):
            pass
        for node in (to, source, *(node for node in self.nodes if node not in (to, source))):
            self._on(node, 'CLUSTER', 'SETSLOT', slot, 'NODE', names[to.port])

    def _is_complete(self) -> bool:
        return all(b'cluster_state:ok' in self._on(node, 'CLUSTER', 'INFO') and len(set(self._slots(node).values())) == NODES
                   and len(self._slots(node)) == SLOTS for node in (*self.nodes, *self.replicas))

    def _slots(self, node: RedisServer) -> dict[int, int]:
        """The port that serves each slot, as the node knows it."""
        return {slot: owner[1] for first, last, owner, *_ in self._on(node, 'CLUSTER', 'SLOTS') for slot in range(first, last + 1)}

    def _on(self, node: RedisServer, *command: Any) -> Any:
        """The node's answer."""
        client = redis.Redis(port=node.port, socket_timeout=20)
        try:
            client.response_callbacks.clear()
            return client.execute_command(*command)
        finally:
            client.close()


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """The condition's first true answer. Raises TimeoutError when there is none in time."""
    deadline = time.monotonic() + BOUND
    while True:
        try:
            answer = condition()
        except redis.ConnectionError:       # one of them has just been ended
            answer = None
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f'{what} did not come about within {BOUND:g} s')
        time.sleep(0.02)
