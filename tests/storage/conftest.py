"""Fixtures of the storage tests: each storage in turn, empty, under a name of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from geventhuey.testing.fault_proxy import FaultProxy
from geventhuey.testing.redis_server import RedisServer
from tests.storage.kit import Kit, MemoryKit, RedisKit

STORAGES = ('memory', 'redis')


def make_kit(kind: str, request: pytest.FixtureRequest) -> Kit:
    return MemoryKit() if kind == 'memory' else RedisKit(request.getfixturevalue('redis_url'))


@pytest.fixture(params=STORAGES)
def kit(request: pytest.FixtureRequest) -> Iterator[Kit]:
    """A storage with the levers that only a test may pull."""
    kit = make_kit(request.param, request)
    yield kit
    kit.close()


@pytest.fixture
def storage(kit: Kit) -> Any:
    """Each storage in turn, empty."""
    return kit.storage


@pytest.fixture
def redis_kit(request: pytest.FixtureRequest) -> Iterator[RedisKit]:
    """Redis alone."""
    kit = RedisKit(request.getfixturevalue('redis_url'))
    yield kit
    kit.close()


@pytest.fixture
def memory_kit() -> MemoryKit:
    """Memory alone."""
    return MemoryKit()


@pytest.fixture(scope='module')
def own_server() -> Iterator[RedisServer]:
    """A server that these tests may kill, fill and lock."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(own_server: RedisServer) -> RedisServer:
    """That server, running and empty."""
    if not own_server.is_running:
        own_server.start()
    own_server.command('CONFIG', 'SET', 'maxmemory', '0')
    own_server.flush()
    return own_server


@pytest.fixture
def own_kit(server: RedisServer) -> Iterator[RedisKit]:
    """A storage on that server."""
    kit = RedisKit(server.url)
    yield kit
    kit.close()


@pytest.fixture
def proxy(redis_server: RedisServer, redis_url: str) -> Iterator[FaultProxy]:
    """A way to the server that can lose answers."""
    with FaultProxy(redis_server.port) as proxy:
        yield proxy
