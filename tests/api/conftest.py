"""Fixtures of the API's tests: an application in memory and on Redis in turn.

The seed (Huey's API documentation), in its order, and where each part of it is tested::

    all signatures and defaults      test_seed_signatures.py
    Huey(...), its parameters        test_seed_1_huey.py
    Huey.task and what it adds       test_seed_2_task.py            {function}.schedule, .call_local, .task_class
    Huey.periodic_task               test_seed_3_periodic_task.py   {function}.revoke, .is_revoked, .restore, .task_class
    Huey.revoke ... is_revoked       test_seed_4_revoke.py          also revoke_by_id, restore, restore_by_id
    Huey.result                      test_seed_5_result.py
    pending, scheduled, all_results  test_seed_6_looking.py
    crontab                          ../test_crontab.py
    TaskResultWrapper                test_seed_7_result_wrapper.py  get, __call__, revoke, restore

Beyond the seed: test_parity.py (what else Huey 1.3 does), test_differences.py (what is different on purpose), test_by_hand.py,
test_bad_input.py, test_travel.py (arguments and results), test_endings.py (how tasks end), test_main_module.py (real programs),
test_waiting.py and test_waiting_in_processes.py (blocking results), test_server_away.py, test_drain.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from geventhuey import Huey, ManualClock, MemoryHuey, RedisHuey

Make = Callable[..., Any]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Memory and Redis in turn; memory alone where a clock is turned, for Redis has a clock of its own."""
    if 'kind' in metafunc.fixturenames:
        metafunc.parametrize('kind', ['memory'] if 'clock' in metafunc.fixturenames else ['memory', 'redis'])


@pytest.fixture(autouse=True)
def no_url_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('GEVENTHUEY_URL', raising=False)


@pytest.fixture
def clock() -> ManualClock:
    """The time of this test's application, in memory."""
    return ManualClock()


@pytest.fixture
def make(kind: str, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes an application with these settings; all that are made with one name share their queue on Redis."""
    made: list[Huey] = []

    def make(name: str = 'app', **settings: Any) -> Huey:
        if kind == 'redis':
            huey: Huey = RedisHuey(name, url=request.getfixturevalue('redis_url'), **settings)
        else:
            if 'clock' in request.fixturenames:
                settings.setdefault('clock', request.getfixturevalue('clock'))
            huey = MemoryHuey(name, **settings)
        made.append(huey)
        return huey

    yield make
    for huey in made:
        huey.close()


@pytest.fixture
def huey(make: Make) -> Any:
    """An application, in memory and on Redis in turn."""
    return make()


@pytest.fixture
def redis_huey(redis_url: str) -> Iterator[Any]:
    """An application on Redis alone."""
    huey = RedisHuey('app', url=redis_url)
    yield huey
    huey.close()


@pytest.fixture
def memory_huey() -> Any:
    """An application in memory alone."""
    return MemoryHuey('app')
