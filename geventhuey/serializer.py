"""How arguments and results become bytes and back: the serializers, and which one a setting means.

``pickle`` and ``pickle-any`` are in pickles.py; ``json`` and ``msgpack`` carry plain data only, so that other languages can read it.
What would come back as something else is refused at the call; but tuples come back as lists.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from geventhuey.exceptions import ConfigurationError, SerializationError
from geventhuey.pickles import AnyPickle, RestrictedPickle, first_line, module_name

__all__ = ['AnyPickle', 'Json', 'MessagePack', 'RestrictedPickle', 'Serializer', 'module_name', 'serializer']

T = TypeVar('T')


class Serializer(Protocol):
    """Turns values into bytes and back."""

    name: str

    def dumps(self, value: object) -> bytes:
        """The value as bytes. Raises SerializationError when it cannot travel."""

    def loads(self, data: bytes) -> Any:
        """The value of these bytes. Raises SerializationError when they are damaged or hold what is not allowed."""

    def allow(self, cls: type[T]) -> type[T]:
        """Instances of ``cls`` may travel from now on; returns ``cls``."""


class Json:
    """JSON: None, booleans, numbers, texts, lists and dicts with texts as keys."""

    name = 'json'
    carries = 'JSON carries None, booleans, numbers, texts, lists and dicts whose keys are texts'
    keys: tuple[type, ...] = (str,)

    def dumps(self, value: object) -> bytes:
        try:
            data = self._write(value)
            key = _foreign_key(value, self.keys)
        except Exception as exc:            # too deep, a circle, a number or text that does not fit
            raise SerializationError(f'{first_line(exc)} ({self.carries})') from exc
        if key is not None:
            raise SerializationError(f'a dict has a key of type {key.__name__} ({self.carries})')
        return data

    def loads(self, data: bytes) -> Any:
        try:
            return self._read(data)
        except Exception as exc:
            raise SerializationError(f'the bytes cannot be read: {type(exc).__name__}: {first_line(exc)}') from exc

    def allow(self, cls: type[T]) -> type[T]:
        raise ConfigurationError(f'{self.name} carries plain data, no {getattr(cls, "__name__", cls)}: '
                                 f"only serializer='pickle' carries classes")

    def _write(self, value: object) -> bytes:
        return json.dumps(value, separators=(',', ':')).encode()

    def _read(self, data: bytes) -> Any:
        return json.loads(data)


class MessagePack(Json):
    """MessagePack: what JSON carries, bytes, aware datetimes (they come back in UTC), integers of up to 64 bits."""

    name = 'msgpack'
    carries = 'msgpack carries None, booleans, integers of 64 bits, floats, texts, bytes, aware datetimes, lists and dicts with plain keys'
    keys = (str, bytes, int, float, type(None))

    def __init__(self) -> None:
        try:
            msgpack = importlib.import_module('msgpack')
        except ImportError as exc:
            raise ConfigurationError("serializer='msgpack' needs a package: python -m pip install 'geventhuey[msgpack]'") from exc
        self._pack: Callable[..., bytes] = msgpack.packb
        self._unpack: Callable[..., Any] = msgpack.unpackb

    def _write(self, value: object) -> bytes:
        return self._pack(value, use_bin_type=True, datetime=True, unicode_errors='surrogatepass')

    def _read(self, data: bytes) -> Any:
        return self._unpack(data, raw=False, strict_map_key=False, timestamp=3, unicode_errors='surrogatepass')


def _foreign_key(value: object, known: tuple[type, ...]) -> type | None:
    """The type of a key, in any dict within the value, that is none of the known ones; None when there is none."""
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            for key in one:
                if not isinstance(key, known):
                    return type(key)
            rest.extend(one.values())
        elif isinstance(one, (list, tuple)):
            rest.extend(one)
    return None


def serializer(setting: str | Serializer) -> Serializer:
    """The serializer of this name, or the object itself when it is one. Raises ConfigurationError for an unknown name."""
    if not isinstance(setting, str):
        if all(callable(getattr(setting, verb, None)) for verb in ('dumps', 'loads', 'allow')):
            return setting
        raise ConfigurationError(f'serializer={setting!r} has no dumps, loads and allow')
    known: dict[str, Callable[[], Serializer]] = {
        cls.name: cls for cls in (RestrictedPickle, AnyPickle, Json, MessagePack)}
    if setting not in known:
        raise ConfigurationError(f'serializer={setting!r} is not known; there are {", ".join(sorted(known))}')
    return known[setting]()
