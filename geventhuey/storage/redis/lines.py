"""Which connection a caller uses: the storage's own way to hand them out."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from geventhuey import native
from geventhuey.storage.redis.connection import SharedLink


class _Held:
    """The connections of one native thread (or of all): the one they share, and those on which somebody blocks now and then."""

    def __init__(self, line: SharedLink) -> None:
        self.line = line
        self.idle: list[SharedLink] = []


class Lines:
    """One connection for the whole process, but one for each native thread where gevent has patched it: its sockets belong to a hub.

    :param connect: makes a socket for a role.
    """

    def __init__(self, connect: Callable[[str], Any]) -> None:
        self._connect = connect
        self._shared: _Held | None = None
        self._local = native.local()
        self._all: weakref.WeakSet[SharedLink] = weakref.WeakSet()

    def line(self) -> SharedLink:
        """The connection that callers share, in turns."""
        return self._held().line

    @contextmanager
    def waiting(self) -> Iterator[SharedLink]:
        """A connection that nobody else has meanwhile, for a command that blocks."""
        idle = self._held().idle
        line = idle.pop() if idle else self._new('wait')
        try:
            yield line
        except BaseException:               # its answer may still come
            line.close()
            raise
        idle.append(line)

    def close(self) -> None:
        """All are closed; they open again when they are used."""
        for line in list(self._all):
            line.close()

    def _held(self) -> _Held:
        if native.is_patched():
            held = getattr(self._local, 'held', None)
            if held is None:
                held = self._local.held = _Held(self._new('producer'))
            return held
        if self._shared is None:
            self._shared = _Held(self._new('producer'))
        return self._shared

    def _new(self, role: str) -> SharedLink:
        line = SharedLink(functools.partial(self._connect, role))
        self._all.add(line)
        return line


class FixedLine:
    """The one connection of a part of an engine, which blocks on it as well."""

    def __init__(self, line: SharedLink) -> None:
        self._line = line

    def line(self) -> SharedLink:
        """The connection."""
        return self._line

    @contextmanager
    def waiting(self) -> Iterator[SharedLink]:
        """The connection."""
        yield self._line

    def close(self) -> None:
        """It is closed; it opens again when it is used."""
        self._line.close()
