"""Copies of the consumer's modules for a virtual hub: their clock, chance, threads and processes are the hub's, and they may have a bug.

The real modules are not touched.  A copy is made of the very same text, so that nothing in it is there for the tests.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import gevent
from gevent.event import Event
from gevent.queue import SimpleQueue

#: In the order of their imports.
NAMES = ('lease', 'consumer.component', 'consumer.audit', 'consumer.fetcher', 'consumer.heartbeat', 'consumer.pool', 'consumer.reaper',
         'consumer.scheduler', 'consumer.settler', 'consumer.engine')


class Bug(NamedTuple):
    """In a module, ``old`` is ``new``."""

    name: str
    module: str
    old: str
    new: str


def _loop() -> Any:
    return gevent.get_hub().loop


class _Waiter:
    """What blocks a native thread, for a greenlet that stands for one."""

    def __init__(self) -> None:
        self._event = Event()

    def wait(self, timeout: float | None) -> bool:
        woken = self._event.wait(timeout)
        self._event.clear()
        return bool(woken)

    def wake(self) -> None:
        self._event.set()


_TIME = types.SimpleNamespace(monotonic=lambda: _loop().time, time=lambda: _loop().time)
_RANDOM = types.SimpleNamespace(uniform=lambda low, high: _loop().random.uniform(low, high))
_SECRETS = types.SimpleNamespace(token_hex=lambda n: f'{_loop().random.getrandbits(8 * n):0{2 * n}x}')
_NATIVE = types.SimpleNamespace(start_thread=gevent.spawn, on_fork=lambda forked: None, thread_id=lambda: 0)
_QUEUE = types.SimpleNamespace(SimpleQueue=SimpleQueue)

#: What is the virtual hub's, wherever a module has the name.
_REPLACED = {'time': _TIME, 'random': _RANDOM, 'secrets': _SECRETS, 'native': _NATIVE, '_queue': _QUEUE, 'ThreadWaiter': _Waiter,
             'close_hub': lambda: None}


@functools.cache
def text_of(module: str) -> str:
    """The source of a module of the package."""
    spec = importlib.util.find_spec(f'geventhuey.{module}')
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_text(encoding='utf-8')


def with_bug(bug: Bug) -> str:
    """The source with the bug in it; it must have been changed in one place."""
    text = text_of(bug.module)
    assert text.count(bug.old) == 1, f'{bug.name}: {bug.old!r} is there {text.count(bug.old)} times'
    return text.replace(bug.old, bug.new)


def executed(name: str, text: str) -> types.ModuleType:
    """A module of this text, which others find by its name while it is in ``sys.modules``."""
    module = types.ModuleType(name)
    module.__file__ = f'{name.replace(".", "/")}.py'
    sys.modules[name] = module
    exec(compile(text, module.__file__, 'exec'), module.__dict__)
    return module


@functools.cache
def copies(bug: Bug | None = None) -> dict[str, types.ModuleType]:
    """The modules, by name."""
    before = {f'geventhuey.{name}': sys.modules.get(f'geventhuey.{name}') for name in NAMES}
    made = {}
    try:
        for name in NAMES:
            text = with_bug(bug) if bug is not None and bug.module == name else text_of(name)
            made[name] = executed(f'geventhuey.{name}', text)
    finally:
        for full, module in before.items():
            if module is None:
                sys.modules.pop(full, None)
            else:
                sys.modules[full] = module
    for module in made.values():
        for name, replacement in _REPLACED.items():
            if name in vars(module):
                setattr(module, name, replacement)
    lease, reaper = made['lease'], made['consumer.reaper']
    lease.os = types.SimpleNamespace(getpid=lambda: 0)                          # type: ignore[attr-defined]
    lease._boot_id = lambda: 'boot'                                             # type: ignore[attr-defined]
    lease.process_started = lambda pid: _loop().processes.get(pid, '')          # type: ignore[attr-defined]
    reaper.leases = lease                                                       # type: ignore[attr-defined]
    reaper._exists = lambda pid: pid in _loop().processes                       # type: ignore[attr-defined]
    return made
