"""Pickle, plain and restricted: arguments and results that may be objects of classes.

``pickle`` (the default) is pickle read by a restricted unpickler: plain data, the standard value types and the classes that the
application has allowed.  What it would refuse to read it refuses to write, so that the mistake shows at the call.
``pickle-any`` is plain pickle: whoever can write to the storage can run code in the consumer.
"""

from __future__ import annotations

import builtins
import decimal
import fractions
import inspect
import io
import pickle
import pickletools
import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from geventhuey.exceptions import SerializationError

T = TypeVar('T')

#: The types beside plain data that restricted pickle reads, by module. Each builds values and does nothing else;
#: ``range``, ``bytes``, ``bytearray`` and networks are left out because a few bytes of message could fill the memory with them.
_VALUE_TYPES = {
    'builtins': ('int', 'float', 'complex', 'str', 'bool', 'list', 'tuple', 'dict', 'set', 'frozenset', 'slice',
                 'Ellipsis', 'NotImplemented'),
    'collections': ('OrderedDict', 'Counter', 'defaultdict', 'deque'),
    'datetime': ('date', 'datetime', 'time', 'timedelta', 'timezone'),
    'ipaddress': ('IPv4Address', 'IPv4Interface', 'IPv6Address', 'IPv6Interface'),
    'pathlib': ('Path', 'PosixPath', 'WindowsPath', 'PurePath', 'PurePosixPath', 'PureWindowsPath'),
    'pathlib._local': ('Path', 'PosixPath', 'WindowsPath', 'PurePath', 'PurePosixPath', 'PureWindowsPath'),
    'uuid': ('UUID', 'SafeUUID'),
    'zoneinfo': ('ZoneInfo',),
}
_VALUES = {(module, name) for module, names in _VALUE_TYPES.items() for name in names}
_EXCEPTIONS = {name: cls for name, cls in vars(builtins).items() if isinstance(cls, type) and issubclass(cls, BaseException)}

#: Decimal places before or behind the point that a number may have.
MAX_PLACES = 10_000

#: What Python calls the program that is running, in its own process and in those that multiprocessing starts.
MAIN_NAMES = ('__main__', '__mp_main__')

#: The opcodes by which a pickle numbers what it remembers; our own pickles have none.
_PUT, _TEXT_PUT = ord('r'), ord('p')
#: Where bytes may be an opcode that numbers what is remembered, with a number that is worth a look.
_NUMBERED = re.compile(rb'r..(?:[^\0]|\0[^\0])|p[^\n]{5}', re.DOTALL)
#: Up to a thousand opcodes of pickle that are complete: those whose length is in them or in the byte that follows.
_OPCODES = re.compile(
    rb'(?:[()012NQRabdeolstu}\]\x81\x85-\x89\x8f-\x94\x97\x98]|[Khq\x80\x82].|[M\x83]..|[Jj\x84].{4}|[G\x95].{8}|r..\0\0|'
    rb'p[^\n]{0,4}\n|[FILPSVg][^\n]*\n|[ci][^\n]*\n[^\n]*\n|'
    rb'[CU\x8a\x8c](?:' + b'|'.join(re.escape(bytes((n,))) + b'.{%d}' % n for n in range(256)) + rb')){0,1000}', re.DOTALL)
#: Those whose length is a number of so many bytes that follows.
_COUNTED = {b'B': 4, b'T': 4, b'X': 4, b'\x8b': 4, b'\x8d': 8, b'\x8e': 8, b'\x96': 8}

#: Sets the attributes of what is on the stack.
_BUILD = b'b'
#: How older protocols name a class, or a number stands for one.
_OLD_GLOBAL = re.compile(rb'c[^\n]*\n[^\n]*\n|[\x82-\x84]')

#: Since protocol 4 pickle names every class and function with this opcode: without it, the stream is plain data.
_STACK_GLOBAL = b'\x93'


class AnyPickle:
    """Plain pickle: everything that pickle can write, travels."""

    name = 'pickle-any'

    def dumps(self, value: object) -> bytes:
        try:
            return pickle.dumps(value, 5)
        except Exception as exc:            # a __reduce__ of the user's may raise anything
            raise SerializationError(f'{first_line(exc)}') from exc

    def loads(self, data: bytes) -> Any:
        try:
            return pickle.loads(data)
        except Exception as exc:
            raise SerializationError(f'the bytes cannot be read: {type(exc).__name__}: {first_line(exc)}') from exc

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
                if (module, name) in _BOUNDED:
                    return _BOUNDED[module, name]
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
        if (_PUT in data or _TEXT_PUT in data) and _NUMBERED.search(data):
            _check_numbers(data)
        if _BUILD in data and (_STACK_GLOBAL in data or _OLD_GLOBAL.search(data)):
            _check_builds(data)
        try:
            return self._unpickler(io.BytesIO(data)).load()
        except _Refused as exc:
            raise SerializationError(str(exc)) from exc
        except Exception as exc:
            raise SerializationError(f'the bytes cannot be read: {type(exc).__name__}: {first_line(exc)}') from exc

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


def _check_numbers(data: bytes) -> None:
    """Raises SerializationError where a pickle numbers what it remembers higher than it is long.

    No pickler does that, and CPython makes room for all the numbers below: six bytes could fill the memory.  What comes after
    bytes that are no pickle does not matter, since reading ends there, too.
    """
    at = 0
    while at < len(data):
        found = _OPCODES.match(data, at)
        ends, at = found is None or found.end() == at, found.end() if found else at
        opcode = data[at:at + 1]
        if opcode == b'r':
            number, size = int.from_bytes(data[at + 1:at + 5], 'little'), 5
        elif opcode == b'p':
            end = data.find(b'\n', at)
            end = len(data) if end < 0 else end
            number, size = _number(data[at + 1:end]), end + 1 - at
        elif opcode in _COUNTED:
            width = _COUNTED[opcode]
            number, size = 0, 1 + width + int.from_bytes(data[at + 1:at + 1 + width], 'little')
        elif ends:
            return
        else:
            continue
        if number > len(data):
            raise SerializationError('the bytes cannot be read: they ask for more memory than any value of their size needs')
        at += size


def _check_builds(data: bytes) -> None:
    """Raises SerializationError where a pickle would set attributes of a class instead of those of an object.

    No pickler does that: it would change the class for the whole process.  The stack is followed as pickle would build it
    (https://docs.python.org/3/library/pickletools.html), as far as it has to be known what is a class.
    """
    stack: list[str] = []
    memo: dict[int, str] = {}
    try:
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name == 'MEMOIZE':
                memo[len(memo)] = stack[-1]
            elif name.endswith('PUT'):
                memo[int(str(argument))] = stack[-1]
            elif name.endswith('GET'):
                stack.append(memo[int(str(argument))])
            elif name == 'DUP':
                stack.append(stack[-1])
            else:
                below = _pop(stack, opcode)
                if name == 'BUILD' and below == 'class':
                    raise SerializationError('the bytes cannot be read: they would change a class')
                stack += ['class' if 'GLOBAL' in name or 'EXT' in name else each.name for each in opcode.stack_after]
    except SerializationError:
        raise
    except Exception as exc:            # it stumbles over nonsense in many ways
        raise SerializationError('the bytes cannot be read: they are no pickle') from exc


def _pop(stack: list[str], opcode: pickletools.OpcodeInfo) -> str:
    """What the opcode takes from the stack is gone; answers the lowest of it."""
    before = opcode.stack_before
    count = len(before)
    if pickletools.markobject in before or (opcode.name == 'POP' and stack[-1] == 'mark'):
        mark = len(stack) - 1 - stack[::-1].index('mark')
        count = len(stack) - mark + (before.index(pickletools.markobject) if pickletools.markobject in before else 0)
    if count > len(stack):
        raise ValueError('the stack is empty')
    lowest = stack[-count] if count else ''
    del stack[len(stack) - count:]
    return lowest


def _number(line: bytes) -> int:
    """The number that pickle reads there; 0 where it reads none and stops."""
    try:
        return int(line)
    except ValueError:
        return 0


def _zone_reader(owner: object, name: str) -> Any:
    """``getattr`` for the one attribute that the pickle of a ZoneInfo asks for."""
    if owner is getattr(sys.modules.get('zoneinfo'), 'ZoneInfo', None) and name == '_unpickle':
        return getattr(owner, name)
    raise _Refused('builtins', 'getattr')


def _decimal(text: str = '0') -> decimal.Decimal:
    """A Decimal of a size that can be computed with."""
    value = decimal.Decimal(text)
    if value.is_finite() and abs(value.adjusted()) > MAX_PLACES:
        raise ValueError(f'a Decimal of more than {MAX_PLACES} places')
    return value


def _fraction(numerator: int | str = 0, denominator: int | None = None) -> fractions.Fraction:
    """A Fraction of two whole numbers, or of their text as Python writes it; an exponent could keep the interpreter busy for hours."""
    if isinstance(numerator, str):
        top, _, bottom = numerator.partition('/')
        return fractions.Fraction(int(top), int(bottom or 1))
    if not isinstance(numerator, int) or not isinstance(denominator, int | None):
        raise TypeError('a Fraction of something else than whole numbers')
    return fractions.Fraction(numerator, denominator)


#: What stands in for a class or function that could be told to do more than to build a value.
_BOUNDED: dict[tuple[str, str], Callable[..., Any]] = {
    ('builtins', 'getattr'): _zone_reader, ('decimal', 'Decimal'): _decimal, ('fractions', 'Fraction'): _fraction}


class _Refused(Exception):
    """A class that restricted pickle does not let through."""

    def __init__(self, module: str, name: str) -> None:
        what = f'{module}.{name}'
        cure = f'huey.allow({name})' if module != 'builtins' else f'huey.allow({name})  (or send plain data instead)'
        super().__init__(f'{what} is not allowed to travel; if it is a class of yours, add the line: {cure}')


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


def first_line(exc: BaseException) -> str:
    """The first line of an error's text, whatever its __str__ does."""
    try:
        return str(exc).split('\n', 1)[0][:500]
    except Exception:
        return f'{type(exc).__name__} (whose text cannot be shown)'
