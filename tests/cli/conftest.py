"""Fixtures of the command's tests: a folder with an application in it, and Redis servers that are set up in their own ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from geventhuey.testing.redis_server import RedisServer
from tests.cli.kit import PASSWORD, Site


@pytest.fixture
def site(redis_url: str, tmp_path: Path) -> Iterator[Site]:
    """A folder for an application on the shared Redis."""
    site = Site(redis_url, tmp_path)
    yield site
    site.close()


@pytest.fixture(scope='module')
def locked_redis() -> Iterator[RedisServer]:
    """A server that wants a password and throws keys away when its memory is full."""
    with RedisServer(extra=['--requirepass', PASSWORD, '--maxmemory', '100mb', '--maxmemory-policy', 'allkeys-lru']) as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server that forgets nothing when it is killed."""
    with RedisServer(appendonly=True) as server:
        yield server
