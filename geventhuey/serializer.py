"""How arguments and results become bytes, and who may come back from bytes.

``pickle`` (the default) is pickle read by a restricted unpickler: plain data, the standard value types and the classes that the
application has allowed.  What it would refuse to read it refuses to write, so that the mistake shows at the call.
``pickle-any`` is plain pickle: whoever can write to the storage can run code in the consumer.
"""

from __future__ import annotations

import builtins
import io
import pickle
import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from geventhuey.exceptions import ConfigurationError, SerializationError

T = TypeVar('T')

#: The types beside plain data that restricted pickle reads, by module. Each builds values and does nothing else;
#: ``range``, ``bytes`` and ``bytearray`` are left out because a few bytes of message could make them fill the memory.
_VALUE_TYPES = {
    'builtins': ('int', 'float', 'complex', 'str', 'bool', 'list', 'tuple', 'dict', 'set', 'frozenset', 'slice',
                 'Ellipsis', 'NotImplemented'),
    'collections': ('OrderedDict', 'Counter', 'defaultdict', 'deque'),
    'datetime': ('date', 'datetime', 'time', 'timedelta', 'timezone'),
    'decimal': ('Decimal',),
    'fractions': ('Fraction',),
    'ipaddress': ('IPv4Address', 'IPv4Network', 'IPv4Interface', 'IPv6Address', 'IPv6Network', 'IPv6Interface'),
    'pathlib': ('Path', 'PosixPath', 'WindowsPath', 'PurePath', 'PurePosixPath', 'PureWindowsPath'),
    'pathlib._local': ('Path', 'PosixPath', 'WindowsPath', 'PurePath', 'PurePosixPath', 'PureWindowsPath'),
    'uuid': ('UUID', 'SafeUUID'),
    'zoneinfo': ('ZoneInfo._unpickle',),
}
_VALUES = {(module, name) for module, names in _VALUE_TYPES.items() for name in names}
_EXCEPTIONS = {name: cls for name, cls in vars(builtins).items() if isinstance(cls, type) and issubclass(cls, BaseException)}

#: Since protocol 4 pickle names every class and function with this opcode: without it, the stream is plain data.
_STACK_GLOBAL = b'\x93'


class Serializer(Protocol):
    """Turns values into bytes and back."""

    name: str

    def dumps(self, value: object) -> bytes:
        """The value as bytes. Raises SerializationError when it cannot travel."""

    def loads(self, data: bytes) -> Any:
        """The value of these bytes. Raises SerializationError when they are damaged or hold what is not allowed."""

    def allow(self, cls: type[T]) -> type[T]:
        """Instances of ``cls`` may travel from now on; returns ``cls``."""


class AnyPickle:
    """Plain pickle: everything that pickle can write, travels."""

    name = 'pickle-any'

    def dumps(self, value: object) -> bytes:
        try:
            return pickle.dumps(value, 5)
        except Exception as exc:            # a __reduce__ of the user's may raise anything
            raise SerializationError(f'{_first_line(exc)}') from exc

    def loads(self, data: bytes) -> Any:
        try:
            return pickle.loads(data)
        except Exception as exc:
            raise SerializationError(f'the bytes cannot be read: {type(exc).__name__}: {_first_line(exc)}') from exc

    def allow(self, cls: type[T]) -> type[T]:
        return cls


class RestrictedPickle(AnyPickle):
    """Pickle for plain data, the standard value types and the classes that were allowed; nothing else is read or written."""

    name = 'pickle'

    def __init__(self) -> None:
        allowed: dict[tuple[str, str], Any] = {}
        self._allowed = allowed

        class Unpickler(pickle.Unpickler):
            """Knows classes by name only where they are allowed; imports nothing on a message's word."""

            def find_class(self, module: str, name: str) -> Any:
                found = allowed.get((module, name))
                if found is not None:
                    return found
                if module == 'builtins' and name in _EXCEPTIONS:
                    return _EXCEPTIONS[name]
                if (module, name) in _VALUES:
                    return super().find_class(module, name)
                if module == '__main__':
                    found = [cls for (_, qualname), cls in allowed.items() if qualname == name]
                    if len(found) == 1:
                        return found[0]
                raise _Refused(module, name)

        self._unpickler: Callable[[io.BytesIO], pickle.Unpickler] = Unpickler

    def dumps(self, value: object) -> bytes:
        data = super().dumps(value)
        if _STACK_GLOBAL in data:
            self.loads(data)
        return data

    def loads(self, data: bytes) -> Any:
        try:
            return self._unpickler(io.BytesIO(data)).load()
        except _Refused as exc:
            raise SerializationError(str(exc)) from exc
        except Exception as exc:
            raise SerializationError(f'the bytes cannot be read: {type(exc).__name__}: {_first_line(exc)}') from exc

    def allow(self, cls: type[T]) -> type[T]:
        """Instances of ``cls`` may be arguments and results; usable as a decorator.

        A class of ``__main__`` is known under the name of its file as well, so that the program that is run and the consumer
        that imports it agree.  Raises TypeError for anything but a class.
        """
        if not isinstance(cls, type):
            raise TypeError(f'allow() takes a class, not {cls!r}')
        names = {cls.__module__}
        if cls.__module__ == '__main__':
            names.add(main_module_name() or '__main__')
        for module in names:
            self._allowed[module, cls.__qualname__] = cls
        return cls


class _Refused(Exception):
    """A class that restricted pickle does not let through."""

    def __init__(self, module: str, name: str) -> None:
        what = f'{module}.{name}'
        cure = f'huey.allow({name})' if module != 'builtins' else f'huey.allow({name})  (or send plain data instead)'
        super().__init__(f'{what} is not allowed to travel; if it is a class of yours, add the line: {cure}')


def serializer(setting: str | Serializer) -> Serializer:
    """The serializer of this name, or the object itself when it is one. Raises ConfigurationError for an unknown name."""
    if not isinstance(setting, str):
        if all(callable(getattr(setting, verb, None)) for verb in ('dumps', 'loads', 'allow')):
            return setting
        raise ConfigurationError(f'serializer={setting!r} has no dumps, loads and allow')
    known: dict[str, type[AnyPickle]] = {cls.name: cls for cls in (RestrictedPickle, AnyPickle)}
    if setting not in known:
        raise ConfigurationError(f'serializer={setting!r} is not known; there are {", ".join(sorted(known))}')
    return known[setting]()


def main_module_name() -> str | None:
    """The name under which a consumer can import the program that is running, or None when it cannot.

    ``python -m pkg.app`` says it itself; ``python app.py`` is ``app``, as Python looks for modules beside the script.
    """
    main = sys.modules.get('__main__')
    spec = getattr(main, '__spec__', None)
    if spec is not None and spec.name:
        return str(spec.name)
    file = getattr(main, '__file__', None)
    if not file:
        return None
    stem = str(file).replace('\\', '/').rsplit('/', 1)[-1].removesuffix('.py')
    return stem if stem.isidentifier() else None


def _first_line(exc: BaseException) -> str:
    """The first line of an error's text, whatever its __str__ does."""
    try:
        return str(exc).split('\n', 1)[0][:500]
    except Exception:
        return f'{type(exc).__name__} (whose text cannot be shown)'


