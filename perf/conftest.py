"""Fixtures for the benchmarks: an application on each storage in turn, with a Redis server of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from geventhuey import Huey
from geventhuey.storage.base import BaseStorage
from geventhuey.testing.redis_server import RedisServer


@pytest.fixture(scope='session')
def redis_server() -> Iterator[RedisServer]:
    """One server for the whole run."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def memory_huey() -> Iterator[Huey]:
    """An application in memory, empty."""
    huey = Huey.from_url('memory://', 'bench')
    yield huey
    huey.close()


@pytest.fixture
def redis_huey(redis_server: RedisServer) -> Iterator[Huey]:
    """An application on Redis, empty."""
    redis_server.flush()
    huey = Huey.from_url(redis_server.url, 'bench')
    yield huey
    huey.close()


@pytest.fixture(params=['memory', 'redis'])
def huey(request: pytest.FixtureRequest) -> Huey:
    """An application on each storage in turn, empty."""
    found: Huey = request.getfixturevalue(f'{request.param}_huey')
    return found


@pytest.fixture
def storage(huey: Huey) -> BaseStorage:
    """Each storage in turn, empty."""
    return huey.storage
