"""Fixtures of the consumer tests: an application on the shared Redis, and one on a Redis that the test may hurt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from geventhuey.testing.redis_server import RedisServer
from tests.consumer.kit import Work


@pytest.fixture
def work(redis_url: str, tmp_path: Path) -> Iterator[Work]:
    """An application, its consumers and its journal."""
    work = Work(redis_url, tmp_path)
    yield work
    work.close()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server that forgets nothing when it is killed."""
    with RedisServer(appendonly=True) as server:
        yield server


@pytest.fixture
def fragile(own_redis: RedisServer, tmp_path: Path) -> Iterator[Work]:
    """An application on a server that the test may kill and restart."""
    work = Work(own_redis.url, tmp_path)
    yield work
    if own_redis.is_running:
        own_redis.resume()
    work.close()
