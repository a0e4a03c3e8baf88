"""Fixtures of the fault tests: applications on trial, on the shared Redis and on one that the test may hurt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from geventhuey.testing.fault_proxy import FaultProxy
from geventhuey.testing.redis_server import RedisServer
from tests.consumer.conftest import work
from tests.faults.kit import Trial

__all__ = ['work']


@pytest.fixture
def trial(redis_url: str, tmp_path: Path) -> Iterator[Trial]:
    """An application on the shared Redis."""
    trial = Trial(redis_url, tmp_path)
    yield trial
    trial.close()


@pytest.fixture
def victim() -> Iterator[RedisServer]:
    """A server that forgets nothing when it is killed."""
    with RedisServer(appendonly=True) as server:
        yield server


@pytest.fixture
def fragile_trial(victim: RedisServer, tmp_path: Path) -> Iterator[Trial]:
    """An application on that server."""
    trial = Trial(victim.url, tmp_path)
    yield trial
    if victim.is_running:
        victim.resume()
    trial.close()


@pytest.fixture
def proxy(redis_server: RedisServer, redis_url: str) -> Iterator[FaultProxy]:
    """A way to the shared Redis on which things go wrong."""
    with FaultProxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def far_trial(proxy: FaultProxy, redis_url: str, tmp_path: Path) -> Iterator[Trial]:
    """An application whose consumers reach Redis through the proxy; the test itself does not."""
    trial = Trial(redis_url, tmp_path)
    trial.url = proxy.url
    yield trial
    trial.close()
