"""Every documented callable takes the documented parameters, in their order, with their defaults."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

import geventhuey
from geventhuey import Huey, MemoryHuey, RedisHuey, TaskResultWrapper, crontab

#: The seed's signatures, word for word; what is in brackets may be left out.
SEED = """
Huey(name[, result_store=True[, events=True[, store_none=False[, always_eager=False[, store_errors=True[, blocking=False[, **storage_kwargs]]]]]]])
Huey.task([retries=0[, retry_delay=0[, retries_as_argument=False[, include_task=False]]]])
{decorated func}.schedule(args=None, kwargs=None, eta=None, delay=None, convert_utc=True)
{decorated func}.call_local
Huey.periodic_task(validate_datetime)
{decorated_func}.revoke([revoke_until=None[, revoke_once=False]])
{decorated_func}.is_revoked([dt=None])
{decorated_func}.restore()
Huey.revoke(task[, revoke_until=None[, revoke_once=False]])
Huey.restore(task)
Huey.revoke_by_id(task_id[, revoke_until=None[, revoke_once=False]])
Huey.restore_by_id(task_id)
Huey.is_revoked(task[, dt=None])
Huey.result(task_id[, blocking=False[, timeout=None[, backoff=1.15[, max_delay=1.0[, revoke_on_timeout=False[, preserve=False]]]]]])
Huey.pending([limit=None])
Huey.scheduled([limit=None])
Huey.all_results()
crontab(month='*', day='*', day_of_week='*', hour='*', minute='*')
TaskResultWrapper(huey, task)
TaskResultWrapper.get([blocking=False[, timeout=None[, backoff=1.15[, max_delay=1.0[, revoke_on_timeout=False[, preserve=False]]]]]])
TaskResultWrapper.__call__(**kwargs)
TaskResultWrapper.revoke()
TaskResultWrapper.restore()
"""     # noqa: E501

huey = MemoryHuey('signatures')


@huey.task()
def plain():
    """A task."""


@huey.periodic_task(crontab())
def periodic():
    """A periodic task."""


def parse(line: str) -> tuple[str, list[tuple[str, Any]]]:
    """The name and the (parameter, default) pairs of one signature of the seed."""
    name, _, rest = line.partition('(')
    pairs = []
    for piece in re.sub(r'[\[\]]', '', rest.rpartition(')')[0]).split(','):
        parameter, _, default = piece.strip().partition('=')
        if parameter:
            pairs.append((parameter, eval(default) if default else inspect.Parameter.empty))
    return name, pairs


def find(name: str) -> Any:
    """The callable of this name; bound, as a program uses it."""
    owner, _, attribute = name.rpartition('.')
    if owner.startswith('{'):
        return getattr(periodic if owner == '{decorated_func}' else plain, attribute)
    if owner == 'Huey':
        return getattr(huey, attribute)
    if owner == 'TaskResultWrapper':
        return getattr(TaskResultWrapper(huey, plain.task_class()), attribute)
    return getattr(geventhuey, attribute)


SIGNATURES = [line for line in SEED.strip().splitlines() if '(' in line]


@pytest.mark.parametrize('line', SIGNATURES, ids=[line.partition('(')[0] for line in SIGNATURES])
def test_the_parameters_are_those_of_the_seed(line):
    name, documented = parse(line)
    parameters = list(inspect.signature(find(name)).parameters.values())
    kinds = inspect.Parameter
    if any(parameter.startswith('**') for parameter, _ in documented):
        documented = documented[:-1]
        assert any(parameter.kind == kinds.VAR_KEYWORD for parameter in parameters)
    ours = [(parameter.name, parameter.default) for parameter in parameters if parameter.kind == kinds.POSITIONAL_OR_KEYWORD]
    if name == 'Huey':
        assert ours[0] == ('name', 'huey')      # the seed's own examples leave it out
        ours[0] = ('name', kinds.empty)
    assert ours[:len(documented)] == documented


@pytest.mark.parametrize('line', SIGNATURES, ids=[line.partition('(')[0] for line in SIGNATURES])
def test_what_comes_after_them_may_be_left_out(line):
    name, documented = parse(line)
    positional = [pair for pair in documented if not pair[0].startswith('**')]
    given = [None for _, default in positional if default is inspect.Parameter.empty]
    inspect.signature(find(name)).bind(*given)
    inspect.signature(find(name)).bind(*[None] * len(positional))


def test_nothing_of_the_seed_is_left_out_of_the_table():
    assert len(SEED.strip().splitlines()) == 23


def test_call_local_is_there():
    assert callable(plain.call_local)


def test_task_class_is_there():
    assert plain.task_class.__name__ == 'queuecmd_plain'
    assert periodic.task_class.__name__ == 'queuecmd_periodic'


@pytest.mark.parametrize('cls', [Huey, RedisHuey, MemoryHuey])
def test_every_application_class_takes_the_same(cls):
    assert inspect.signature(cls) == inspect.signature(Huey)


def test_the_names_that_programs_import_are_exported():
    for name in ('Huey', 'RedisHuey', 'MemoryHuey', 'crontab', 'TaskResultWrapper', 'DataStoreTimeout'):
        assert name in geventhuey.__all__
        assert hasattr(geventhuey, name)


def test_the_modules_that_programs_import_from_are_there():
    from geventhuey.api import Huey as from_api
    from geventhuey.exceptions import DataStoreTimeout
    assert from_api is Huey
    assert DataStoreTimeout is geventhuey.DataStoreTimeout


def test_every_exported_name_exists():
    assert [name for name in geventhuey.__all__ if not hasattr(geventhuey, name)] == []
    assert len(set(geventhuey.__all__)) == len(geventhuey.__all__)
