"""Fixtures for every test: a Redis server of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from geventhuey.testing.redis_server import RedisServer


@pytest.fixture(scope='session')
def redis_server() -> Iterator[RedisServer]:
    """One server for the whole run; who kills or pauses a server starts one of his own."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty database."""
    redis_server.flush()
    return redis_server.url


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Any:
    """What was captured can travel between the processes that share the tests, also where a test logs what is no text."""
    report = yield
    report.sections = [(name, text.encode('utf-8', 'backslashreplace').decode()) for name, text in report.sections]
    return report
