"""Once: a helper for tasks that must not do something twice although they may be run twice."""

from __future__ import annotations

import secrets
from types import TracebackType

from geventhuey.exceptions import DataStorePutException, StorageError
from geventhuey.storage.base import BaseStorage


class Once:
    """True for the first one who asks for the key within ``ttl`` seconds, false for all others.

    ::

        with huey.once(f'charge {order}', ttl=86400) as first:
            if first:
                charge(order)

    When the block raises, the key is free again, so that a retry does the work.  When the process dies in the block, it stays
    taken: what is in the block is done once at most.
    """

    def __init__(self, storage: BaseStorage, key: str, ttl: float) -> None:
        self._storage = storage
        self._key = key
        self._owner = secrets.token_hex(16)
        try:
            self._is_first = storage.claim(key, self._owner, ttl)
        except StorageError as exc:
            raise DataStorePutException(f'{type(exc).__name__}: {exc}') from exc

    def __bool__(self) -> bool:
        return self._is_first

    def __repr__(self) -> str:
        return f'<Once {self._key!r}: {"the first" if self._is_first else "not the first"}>'

    def forget(self) -> None:
        """The key is free again, if this was the first. Raises DataStorePutException when the storage cannot be reached."""
        if self._is_first:
            try:
                self._storage.unclaim(self._key, self._owner)
            except StorageError as exc:
                raise DataStorePutException(f'{type(exc).__name__}: {exc}') from exc

    def __enter__(self) -> bool:
        return self._is_first

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self.forget()
