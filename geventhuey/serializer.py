"""How arguments and results become bytes, and who may come back from bytes.

``pickle`` (the default) is pickle read by a restricted unpickler: plain data, the standard value types and the classes that the
application has allowed.  What it would refuse to read it refuses to write, so that the mistake shows at the call.
``pickle-any`` is plain pickle: whoever can write to the storage can run code in the consumer.
``json`` and ``msgpack`` carry plain data only, which programs in other languages understand, too.
"""

from __future__ import annotations

import builtins
import inspect
import io
import json
import pickle
import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from geventhuey import pickle_opcodes
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
    'zoneinfo': ('ZoneInfo',),
}
_VALUES = {(module, name) for module, names in _VALUE_TYPES.items() for name in names}
_EXCEPTIONS = {name: cls for name, cls in vars(builtins).items() if isinstance(cls, type) and issubclass(cls, BaseException)}

#: What Python calls the program that is running, in its own process and in those that multiprocessing starts.
MAIN_NAMES = ('__main__', '__mp_main__')

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
                if (module, name) == ('builtins', 'getattr'):
                    return _zone_reader
                if module in MAIN_NAMES:
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
        if not pickle_opcodes.is_harmless(data):
            raise SerializationError('the bytes cannot be read: they are no pickle, or one that would fill the memory')
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
        for module in {cls.__module__, module_name(cls) or cls.__module__}:
            self._allowed[module, cls.__qualname__] = cls
        return cls


def _zone_reader(owner: object, name: str) -> Any:
    """``getattr`` for the one attribute that the pickle of a ZoneInfo asks for."""
    if owner is getattr(sys.modules.get('zoneinfo'), 'ZoneInfo', None) and name == '_unpickle':
        return getattr(owner, name)
    raise _Refused('builtins', 'getattr')


class _Refused(Exception):
    """A class that restricted pickle does not let through."""

    def __init__(self, module: str, name: str) -> None:
        what = f'{module}.{name}'
        cure = f'huey.allow({name})' if module != 'builtins' else f'huey.allow({name})  (or send plain data instead)'
        super().__init__(f'{what} is not allowed to travel; if it is a class of yours, add the line: {cure}')


class PlainData:
    """What carries no classes."""

    name: str

    def allow(self, cls: type[T]) -> type[T]:
        raise ConfigurationError(f'serializer={self.name!r} carries plain data only, {cls!r} cannot travel by it: '
                                 f'use the default serializer (pickle), or send plain data')


class Json(PlainData):
    """JSON (RFC 8259): None, bools, numbers, texts, lists, and dicts whose keys are texts. Tuples arrive as lists."""

    name = 'json'

    def __init__(self) -> None:
        self._encode = json.JSONEncoder(ensure_ascii=False, separators=(',', ':')).encode

    def dumps(self, value: object) -> bytes:
        try:
            data = self._encode(value).encode()
        except (TypeError, ValueError, RecursionError) as exc:
            raise SerializationError(f'{_first_line(exc)}: JSON carries plain data only') from exc
        _check_keys(value)
        return data

    def loads(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as exc:     # its text would quote the data
            raise SerializationError(f'the bytes cannot be read: they are no JSON ({type(exc).__name__})') from exc


class MsgPack(PlainData):
    """MessagePack: as JSON, with bytes, dicts with any simple key, and aware datetimes. Tuples arrive as lists."""

    name = 'msgpack'

    def __init__(self) -> None:
        try:
            import msgpack
        except ImportError as exc:
            raise ConfigurationError("serializer='msgpack' needs a package: python -m pip install 'geventhuey[msgpack]'") from exc
        self._pack: Callable[[object], bytes] = lambda value: msgpack.packb(value, datetime=True)
        self._unpack: Callable[[bytes], Any] = lambda data: msgpack.unpackb(data, strict_map_key=False, timestamp=3)

    def dumps(self, value: object) -> bytes:
        try:
            return self._pack(value)
        except Exception as exc:
            # a naive datetime is refused with a text of its own, a number of more than 64 bits as an overflow
            raise SerializationError(f'{_first_line(exc)}: MessagePack carries plain data, numbers of 64 bits and aware datetimes') from exc

    def loads(self, data: bytes) -> Any:
        try:
            return self._unpack(data)
        except Exception as exc:
            raise SerializationError(f'the bytes cannot be read: they are no MessagePack ({type(exc).__name__})') from exc


def _check_keys(value: object) -> None:
    """Raises SerializationError for a dict with a key that JSON would turn into a text: it would come back as another one."""
    rest = [value]
    while rest:
        inner = rest.pop()
        if isinstance(inner, dict):
            for key in inner:
                if not isinstance(key, str):
                    raise SerializationError(f'a dict with a key of type {type(key).__name__} would come back with a text for it')
            rest += inner.values()
        elif isinstance(inner, (list, tuple)):
            rest += inner


def serializer(setting: str | Serializer) -> Serializer:
    """The serializer of this name, or the object itself when it is one. Raises ConfigurationError for an unknown name."""
    if not isinstance(setting, str):
        if all(callable(getattr(setting, verb, None)) for verb in ('dumps', 'loads', 'allow')):
            return setting
        raise ConfigurationError(f'serializer={setting!r} has no dumps, loads and allow')
    known: dict[str, Callable[[], Serializer]] = {cls.name: cls for cls in (RestrictedPickle, AnyPickle, Json, MsgPack)}
    if setting not in known:
        raise ConfigurationError(f'serializer={setting!r} is not known; there are {", ".join(sorted(known))}')
    return known[setting]()


def module_name(thing: Any) -> str | None:
    """The name under which a consumer imports the module of the function or class, or None when it cannot.

    Of the program that is running, ``python -m pkg.app`` says it itself; ``python app.py`` is ``app``, as Python looks for modules
    beside the script.
    """
    module = str(thing.__module__)
    if module not in MAIN_NAMES:
        return module
    main = getattr(inspect.unwrap(thing), '__globals__', {})    # a profiler's __main__ is not that of the program it runs
    if main.get('__name__') != module:
        main = getattr(sys.modules.get(module), '__dict__', {})
    spec = main.get('__spec__')
    if spec is not None and spec.name not in MAIN_NAMES:
        return str(spec.name)
    stem = str(main.get('__file__') or '').replace('\\', '/').rsplit('/', 1)[-1].removesuffix('.py')
    return stem if stem.isidentifier() and stem not in MAIN_NAMES else None


def _first_line(exc: BaseException) -> str:
    """The first line of an error's text, whatever its __str__ does."""
    try:
        return str(exc).split('\n', 1)[0][:500]
    except Exception:
        return f'{type(exc).__name__} (whose text cannot be shown)'


