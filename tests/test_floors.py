"""The layout: imports go one way, importing the package costs nothing, and what is installed is whole."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / 'geventhuey'

#: The floor of every module and package directly below geventhuey; '' is geventhuey itself.
FLOORS = {
    'exceptions': 0, 'clock': 0, 'crontab': 0, 'message': 0, 'pickles': 0, 'serializer': 0, 'envelope': 0, 'native': 0,
    'texts': 0, 'waiter': 0,
    'storage': 1,
    'task': 2, 'registry': 2, 'events': 2, 'signals': 2, 'revocation': 2,
    'dead_letter': 3, 'inspection': 3, 'once': 3,
    'executor': 3, 'function': 3, 'producer': 3, 'result': 3, 'lease': 3, 'workflow': 3, 'locks': 3, 'limits': 3,
    'api': 4,
    'consumer': 5,
    'cli': 6, 'testing': 6, 'contrib': 6, '__main__': 6, '': 6,
}

#: (module, function, package): the one import upwards, made when it is called.
PERMITTED = {('geventhuey.api', 'create_consumer', 'geventhuey.consumer')}

#: Parts of the consumer that know the other parts ('' is geventhuey.consumer, which names what leaves it) ...
KNOW_ALL = {'', 'consumer', 'engine'}
#: ... and those that every part knows.
KNOWN_TO_ALL = {'component', 'options'}

#: What importing the package must not import.
HEAVY = {'gevent', 'redis', 'ssl'}


def find_modules() -> dict[str, Path]:
    """Every module of the package, by its full name."""
    modules = {}
    for path in sorted(PACKAGE.rglob('*.py')):
        parts = path.relative_to(CHECKOUT).with_suffix('').parts
        modules['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return modules


MODULES = find_modules()


def part_of(module: str, level: int) -> str:
    """``part_of('geventhuey.storage.base', 1)`` is 'storage'; '' where the name is shorter."""
    return '.'.join(module.split('.')[level:level + 1])


def is_type_checking(node: ast.If) -> bool:
    return ast.unparse(node.test) in ('TYPE_CHECKING', 'typing.TYPE_CHECKING')


def find_imports(node: ast.AST, function: str = '') -> Iterator[tuple[ast.AST, str]]:
    """Every import that can happen, with the function around it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and is_type_checking(child):
            for otherwise in child.orelse:
                yield from find_imports(ast.Module([otherwise], []), function)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from find_imports(child, child.name)
        elif isinstance(child, ast.Import | ast.ImportFrom) or is_import_by_name(child):
            yield child, function
        else:
            yield from find_imports(child, function)


def is_import_by_name(node: ast.AST) -> bool:
    """``import_module('...')`` or ``__import__('...')`` of a name that is written there."""
    if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
        return False
    return ast.unparse(node.func).split('.')[-1] in ('import_module', '__import__')


def targets(node: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """The modules of ours that this import imports, by their full names."""
    if isinstance(node, ast.Call):
        name = str(node.args[0].value)          # type: ignore[attr-defined]
        bare = name.lstrip('.')
        names = [absolute(bare, len(name) - len(bare), module, is_package)]
    elif isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        assert isinstance(node, ast.ImportFrom)
        base = absolute(node.module or '', node.level, module, is_package)
        names = []
        for alias in node.names:
            name = f'{base}.{alias.name}'
            is_module = name in MODULES or (base == 'geventhuey' and alias.name in FLOORS)
            names.append(name if is_module else base)
    for name in names:
        if name.split('.')[0] == 'geventhuey':
            yield name


def absolute(name: str, dots: int, module: str, is_package: bool) -> str:
    """The full name of what ``module`` calls ``name``, with so many dots before it."""
    if not dots:
        return name
    above = module.split('.')
    above = above[:len(above) - dots + is_package]
    return '.'.join([*above, *filter(None, [name])])


def is_hidden(module: str, target: str) -> bool:
    """True for two parts of one floor that must not know each other."""
    floor = part_of(module, 1)
    if floor != part_of(target, 1):
        return False
    here, there = part_of(module, 2), part_of(target, 2)
    if floor == 'consumer':
        return here != there and here not in KNOW_ALL and there not in KNOWN_TO_ALL
    if floor == 'storage':
        return {here, there} == {'memory', 'redis'}
    return False


def find_faults(module: str, source: str, is_package: bool = False) -> list[str]:
    """Every import of this module that goes the wrong way, in words."""
    faults = []
    floor = FLOORS[part_of(module, 1)]
    for node, function in find_imports(ast.parse(source)):
        for target in targets(node, module, is_package):
            at = f'{module}, line {node.lineno}:'       # type: ignore[attr-defined]
            above = FLOORS.get(part_of(target, 1))
            if any((module, function) == permitted[:2] and f'{target}.'.startswith(f'{permitted[2]}.')
                   for permitted in PERMITTED):
                continue
            if above is None:
                faults.append(f'{at} {target} is not on the map: {how_to_add(target)}')
            elif above > floor:
                faults.append(f'{at} floor {floor} imports {target} of floor {above}: move that code down')
            elif is_hidden(module, target):
                faults.append(f'{at} imports its sibling {target}: whoever knows them all hands it over')
    return faults


def how_to_add(module: str) -> str:
    name = part_of(module, 1)
    return (f'add {name!r} with its floor to FLOORS in tests/test_floors.py: no lower than anything that it '
            f'imports, no higher than anything that imports it')


# -- the package --------------------------------------------------------------------------------------------

@pytest.mark.parametrize('module', MODULES)
def test_a_module_is_on_the_map(module):
    assert part_of(module, 1) in FLOORS, f'{module} is not on the map: {how_to_add(module)}'


@pytest.mark.parametrize('module', [module for module in MODULES if part_of(module, 1) in FLOORS])
def test_imports_go_down(module):
    path = MODULES[module]
    faults = find_faults(module, path.read_text(encoding='utf-8'), path.name == '__init__.py')
    assert not faults, '\n'.join(faults)


def test_every_folder_with_modules_is_a_package():
    assert [str(path.parent) for path in MODULES.values() if not (path.parent / '__init__.py').exists()] == []


def imported_by(statement: str) -> set[str]:
    """The top-level names of the modules that Python imports for this statement."""
    environment = {**os.environ, 'PYTHONPATH': str(CHECKOUT)}
    ended = subprocess.run(
        [sys.executable, '-X', 'importtime', '-c', statement],
        env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.startswith('import time:')]
    return {line.rpartition('|')[2].strip().split('.')[0] for line in lines}


@pytest.mark.parametrize('module', [
    module for module in ('geventhuey', 'geventhuey.cli.main', 'geventhuey.cli.consumer')
    if module == 'geventhuey' or module in MODULES
])
def test_importing_is_light(module):
    imported = imported_by(f'import {module}')
    assert 'geventhuey' in imported
    assert imported & HEAVY == imported_by('pass') & HEAVY      # what Python itself starts with is its own


def test_what_is_installed_is_whole(tmp_path):
    where = 'import importlib.util as u; spec = u.find_spec("geventhuey"); print(spec.origin if spec else "")'
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    origin = subprocess.run(
        [sys.executable, '-c', where],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60).stdout.strip()
    if not origin or Path(origin).parent == PACKAGE:
        pytest.skip('no copy of the package is installed')
    files = [path.relative_to(PACKAGE) for path in PACKAGE.rglob('*') if path.suffix in ('.py', '.lua')]
    missing = [str(file) for file in [*files, Path('py.typed')] if not (Path(origin).parent / file).exists()]
    assert missing == []


# -- the rules themselves ------------------------------------------------------------------------------------

@pytest.mark.parametrize(('module', 'source'), [
    ('message', 'from geventhuey.exceptions import QueueException'),
    ('storage.redis.storage', 'from . import keys\nfrom ..base import BaseStorage'),
    ('api', 'from geventhuey import message, storage'),
    ('api', 'import redis, json; from geventhuey.exceptions import QueueException'),
    ('api', 'def create_consumer():\n from geventhuey.consumer.consumer import Consumer'),
    ('api', 'import typing\nif typing.TYPE_CHECKING:\n from geventhuey.consumer import Consumer'),
    ('consumer.fetcher', 'from .component import Component'),
    ('consumer.fetcher', 'from geventhuey.consumer import options'),
    ('consumer.consumer', 'from geventhuey.consumer.fetcher import Fetcher'),
    ('consumer.engine', 'from geventhuey.consumer.consumer import Consumer'),
    ('cli.main', 'from geventhuey import Huey'),
])
def test_this_is_allowed(module, source, monkeypatch):
    monkeypatch.setitem(MODULES, 'geventhuey.consumer.options', PACKAGE)
    assert find_faults(f'geventhuey.{module}', source) == []


@pytest.mark.parametrize(('module', 'source', 'fault'), [
    ('message', 'import json\nimport geventhuey.storage', 'line 2: floor 0 imports geventhuey.storage of'),
    ('storage.base', 'from geventhuey import Huey', 'imports geventhuey of floor 6'),
    ('storage.base', 'from geventhuey import task', 'imports geventhuey.task of floor 2'),
    ('storage.base', 'from .. import api', 'imports geventhuey.api of floor 4'),
    ('storage.base', 'def f():\n def g():\n  from ..api import Huey', 'line 3: floor 1 imports'),
    ('storage.base', 'class A:\n try:\n  from geventhuey.api import Huey\n except E: pass', 'of floor 4'),
    ('storage.base', 'if TYPE_CHECKING: pass\nelse:\n from geventhuey.api import Huey', 'of floor 4'),
    ('storage.base', 'x = [importlib.import_module("geventhuey.api")]', 'of floor 4'),
    ('storage.base', 'import_module("..api", __package__)', 'of floor 4'),
    ('storage.memory', 'from geventhuey.storage.redis import keys', 'its sibling geventhuey.storage.redis'),
    ('api', 'from geventhuey.consumer import Consumer', 'of floor 5'),
    ('api', 'def f():\n from geventhuey.consumer import Consumer', 'of floor 5'),
    ('api', 'def create_consumer():\n from geventhuey.cli import main', 'of floor 6'),
    ('consumer.fetcher', 'from geventhuey.consumer.pool import Pool', 'its sibling geventhuey.consumer.pool'),
    ('consumer.fetcher', 'from geventhuey.consumer import Consumer', 'its sibling geventhuey.consumer'),
    ('consumer.consumer', 'from geventhuey.testing import drain', 'of floor 6'),
    ('api', 'from geventhuey.helpers import x', "not on the map: add 'helpers' with its floor to FLOORS"),
])
def test_this_is_not(module, source, fault):
    faults = find_faults(f'geventhuey.{module}', source)
    assert len(faults) == 1 and fault in faults[0], faults
