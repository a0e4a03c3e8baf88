"""Fixtures of the storage tests: each storage in turn, empty, under a name of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

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
