"""Where gevent patches the process: here, once, before the application is imported."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

logger = logging.getLogger('geventhuey.consumer')

#: What a module must not have kept a reference to when gevent patches.
_PATCHED = {'socket': ('socket', 'create_connection', 'getaddrinfo'), 'ssl': ('SSLContext', 'SSLSocket'),
            'threading': ('Thread', 'Lock', 'RLock', 'Event', 'Condition', 'local'), 'time': ('sleep',),
            'select': ('select', 'poll'), 'subprocess': ('Popen',), 'queue': ('SimpleQueue',)}


def patch() -> None:
    """Blocking calls of the standard library switch to another greenlet from now on.

    Modules that were imported before and kept an unpatched original are named in a warning.
    """
    from gevent import monkey
    before = list(_present())
    monkey.patch_all()
    after = {id(value) for _, value in _present()}
    # by identity: some of these change what they are made of and stay what they are, such as Thread
    originals = {id(value): name for name, value in before if id(value) not in after}
    for module, kept in early(originals):
        logger.warning('%s was imported before gevent could patch the process and keeps %s: what it does may block all tasks', module, kept)


def _present() -> Iterator[tuple[str, Any]]:
    """The full name and the value, now, of everything in ``_PATCHED`` whose module has been imported."""
    for module, names in _PATCHED.items():
        for name in names:
            if hasattr(sys.modules.get(module), name):
                yield f'{module}.{name}', getattr(sys.modules[module], name)


def early(originals: dict[int, str]) -> Iterator[tuple[str, str]]:
    """The modules outside the standard library (and gevent) that hold one of the originals, and which."""
    for name, module in sorted(sys.modules.items()):
        top = name.partition('.')[0]
        if top in sys.stdlib_module_names or top in ('gevent', 'greenlet', 'geventhuey', 'zope', '__main__'):
            continue
        for value in list(getattr(module, '__dict__', {}).values()):       # not every entry is a module
            if id(value) in originals:
                yield name, originals[id(value)]
                break
