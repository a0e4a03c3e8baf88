"""The primitives of real threads, whether or not gevent has patched this process.

Code that is shared by native threads and greenlets, and that never switches while it holds a lock, must lock with a lock that
blocks threads only.  Importing this module imports no gevent: what is not loaded has patched nothing.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable
from typing import Any


def original(module: str, name: str) -> Any:
    """The attribute as Python made it, even where gevent has replaced it."""
    if 'gevent.monkey' in sys.modules:
        from gevent import monkey
        return monkey.get_original(module, name)
    __import__(module)
    return getattr(sys.modules[module], name)


def is_patched() -> bool:
    """True when gevent's cooperative threads stand in for real ones in this process."""
    asked = getattr(sys.modules.get('gevent.monkey'), 'is_module_patched', None)       # missing while another thread imports it
    return bool(asked and asked('threading'))


#: A lock that blocks native threads; greenlets of one thread must not switch while they hold it.
lock = original('_thread', 'allocate_lock')

#: The number of the native thread that runs this, as ``sys._current_frames`` counts them.
thread_id: Callable[[], int] = original('_thread', 'get_ident')


#: Data of one native thread, shared by its greenlets.
local = original('_thread', '_local')

_when_forked: weakref.WeakSet[Any] = weakref.WeakSet()


def on_fork(forked: Callable[[], None]) -> None:
    """The bound method will be called in every child that this process forks, as long as its object lives."""
    _when_forked.add(forked.__self__)       # type: ignore[attr-defined]


def _tell_forked() -> None:
    for owner in list(_when_forked):
        try:
            owner.forked()
        except Exception:       # one that fails must not leave the others with what is the parent's
            sys.excepthook(*sys.exc_info())


os.register_at_fork(after_in_child=_tell_forked)


def start_thread(run: Callable[[], None]) -> None:
    """``run`` runs in a native thread of its own, which does not keep the process alive."""
    original('_thread', 'start_new_thread')(run, ())
