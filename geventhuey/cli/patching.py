"""Where gevent patches the process: here, once, before the application is imported."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

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
    originals = {id(getattr(sys.modules[module], name)): f'{module}.{name}'
                 for module, names in _PATCHED.items() if module in sys.modules
                 for name in names if hasattr(sys.modules[module], name)}
    monkey.patch_all()
    for module, kept in early(originals):
        logger.warning('%s was imported before gevent could patch the process and keeps %s: what it does may block all tasks', module, kept)


def early(originals: dict[int, str]) -> Iterator[tuple[str, str]]:
    """The modules outside the standard library (and gevent) that hold one of the originals, and which."""
    for name, module in sorted(sys.modules.items()):
        top = name.partition('.')[0]
        if module is None or top in sys.stdlib_module_names or top in ('gevent', 'greenlet', 'geventhuey', 'zope', '__main__'):
            continue
        for value in list(vars(module).values()):
            if id(value) in originals:
                yield name, originals[id(value)]
                break
