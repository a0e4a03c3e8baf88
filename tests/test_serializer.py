"""Serializers: what becomes bytes, and what comes back from them. (What applications see of it is in api/test_travel.py.)"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import ipaddress
import pathlib
import pickle
import pickletools
import subprocess
import sys
import types
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventhuey.exceptions import ConfigurationError, SerializationError
from geventhuey.pickles import _check_numbers
from geventhuey.serializer import AnyPickle, Json, MessagePack, RestrictedPickle, module_name, serializer

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
TYPED = st.datetimes() | st.timedeltas() | st.decimals(allow_nan=False) | st.fractions() | st.uuids() | st.dates() | st.times()


def nested(scalars):
    return st.recursive(scalars, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner))


class Mine:
    pass


@pytest.mark.parametrize('cls', [RestrictedPickle, AnyPickle])
@given(value=nested(PLAIN | TYPED))
def test_values_come_back_as_they_were(cls, value):
    found = cls().loads(cls().dumps(value))
    assert found == value and type(found) is type(value)


@given(st.binary(max_size=300))
def test_whatever_the_bytes_are_they_are_a_value_or_an_error(data):
    try:
        RestrictedPickle().loads(data)
    except SerializationError:
        pass


@given(nested(PLAIN), st.integers(0, 1000), st.integers(0, 255))
def test_a_value_with_a_wrong_byte_is_a_value_or_an_error(value, position, byte):
    data = bytearray(RestrictedPickle().dumps(value))
    data[position % len(data)] = byte
    try:
        RestrictedPickle().loads(bytes(data))
    except SerializationError:
        pass


def test_plain_data_names_no_class():
    """Which is why it need not be read again to know that it may be."""
    data = RestrictedPickle().dumps([1, 1.5, 'text', b'bytes', bytearray(b'x'), (1,), {1}, frozenset([2]), {3: None}, True])
    opcodes = {opcode.name for opcode, _, _ in pickletools.genops(data)}
    assert not opcodes & {'GLOBAL', 'STACK_GLOBAL', 'INST', 'OBJ', 'REDUCE', 'NEWOBJ', 'NEWOBJ_EX', 'EXT1', 'EXT2', 'EXT4'}


def test_plain_data_is_not_read_again(monkeypatch):
    restricted = RestrictedPickle()
    monkeypatch.setattr(restricted, 'loads', lambda data: pytest.fail('it was read'))
    restricted.dumps([1, 'text', {2: (3.5, None)}])


@pytest.mark.parametrize('protocol', range(6))
def test_no_protocol_of_pickle_lets_a_class_in(protocol):
    with pytest.raises(SerializationError, match='(Mine|_reconstructor) is not allowed to travel'):
        RestrictedPickle().loads(pickle.dumps(Mine(), protocol))


@pytest.mark.parametrize('protocol', range(2, 6))
def test_what_is_allowed_comes_back_from_every_protocol(protocol):
    restricted = RestrictedPickle()
    assert restricted.allow(Mine) is Mine
    assert type(restricted.loads(pickle.dumps(Mine(), protocol))) is Mine


@pytest.mark.parametrize('data', [
    b'cos\nsystem\n(S"true"\ntR.', b'(S"true"\nios\nsystem\n.', b'\x80\x02cbuiltins\neval\n.', b'c__builtin__\neval\n.',
    b'\x80\x04\x8c\x02os\x8c\x06system\x93.', b'\x80\x04\x8c\x08builtins\x8c\x0cstr.__init__\x93.',
    b'\x80\x04\x8c\x0bcollections\x8c\x0c_sys.modules\x93.', b'\x80\x04\x8c\x08datetime\x8c\x03sys\x93.'])
def test_no_way_of_naming_lets_a_function_in(data):
    with pytest.raises(SerializationError, match='not allowed to travel'):
        RestrictedPickle().loads(data)


@pytest.mark.parametrize('data', [
    b'', b'.', b'\x80', b'\x80\x7f.', b'N', b'P0\n.', b'\x80\x04N\x94Q.', b'\x82\x01.', b'\x85.', b'R.'])
def test_bytes_that_are_no_pickle(data):
    for reader in (RestrictedPickle(), AnyPickle()):
        with pytest.raises(SerializationError, match='the bytes cannot be read'):
            reader.loads(data)


def test_reading_imports_nothing_that_was_not_allowed():
    import sys
    sys.modules.pop('antigravity', None)
    with pytest.raises(SerializationError, match=r'antigravity.fly is not allowed'):
        RestrictedPickle().loads(b'\x80\x04\x8c\x0bantigravity\x8c\x03fly\x93.')
    assert 'antigravity' not in sys.modules


def test_what_is_allowed_here_is_not_allowed_there():
    here, there = RestrictedPickle(), RestrictedPickle()
    here.allow(Mine)
    with pytest.raises(SerializationError):
        there.dumps(Mine())


def test_the_cure_for_what_is_no_class_of_ones_own():
    with pytest.raises(SerializationError, match=r'huey.allow\(range\)  \(or send plain data instead\)'):
        RestrictedPickle().dumps(range(3))


def test_any_pickle_reads_and_writes_everything():
    reader = AnyPickle()
    assert reader.loads(reader.dumps(subprocess.run)) is subprocess.run
    assert reader.allow(Mine) is Mine
    with pytest.raises(SerializationError):
        reader.dumps(lambda: 0)


class BrokenText(Exception):
    def __str__(self):
        raise RuntimeError


class Hostile:
    def __reduce__(self):
        raise BrokenText


def test_an_error_whose_text_cannot_be_shown():
    with pytest.raises(SerializationError, match='BrokenText'):
        RestrictedPickle().dumps(Hostile())


def test_the_serializer_of_a_name():
    assert type(serializer('pickle')) is RestrictedPickle
    assert type(serializer('pickle-any')) is AnyPickle
    assert serializer('pickle') is not serializer('pickle')
    mine = types.SimpleNamespace(dumps=len, loads=len, allow=len)
    assert serializer(mine) is mine
    with pytest.raises(ConfigurationError, match='there are json, msgpack, pickle, pickle-any'):
        serializer('yaml')
    with pytest.raises(ConfigurationError, match='has no dumps, loads and allow'):
        serializer(types.SimpleNamespace(dumps=len))


# -- pickles that ask for memory ----------------------------------------------------------------------------------

@pytest.mark.parametrize('data', [
    b'\x80\x05Nr\xff\xff\xff\x7f.', b'Nr\0\0\x01\0.', b'\x80\x05Np999999999\n.', b'Np999999999',
    b'Np 9_999_999\n.', b'Np+99999999\r\n.',
    b'\x80\x05\x8c\x03abcNr\xff\xff\xff\x7f.', b'\x80\x05X\x03\0\0\0abcr\xff\xff\xff\x7f.',
    b'\x80\x05\x8e\x01' + bytes(7) + b'rr\xff\xff\xff\x7f.',

    b'\x80\x05' + b'N0' * 5000 + b'Nr\xff\xff\xff\x7f.', b'cbuiltins\nint\nr\xff\xff\xff\x7f.',
    b'\x80\x05\x95\x03' + bytes(7) + b'Nr\xff\xff\xff\x7f.'])
def test_a_few_bytes_that_would_fill_the_memory_are_refused(data):
    with pytest.raises(SerializationError, match='they ask for more memory'):
        RestrictedPickle().loads(data)


@pytest.mark.parametrize('protocol', range(6))
def test_no_pickle_of_a_pickler_is_taken_for_one_that_asks_for_memory(protocol):
    value = [[f'pr{n}', n, 'prrrrrrrrrrr' * 30, -n * 10 ** 30, float(n), {'p': (n, None)}] for n in range(20_000 if protocol else 200)]
    data = pickle.dumps(value, protocol)
    _check_numbers(data)
    assert RestrictedPickle().loads(data) == value


OPCODES = {opcode.code.encode('latin-1'): opcode for opcode in pickletools.opcodes}


@given(st.lists(st.sampled_from(sorted(set(OPCODES) - {b'.', b'r', b'p'}))), st.data())
def test_every_opcode_is_stepped_over_as_pickle_reads_it(codes, data):
    """What comes before a PUT that asks for memory must never hide it."""
    stream = b''
    for code in codes:
        size = OPCODES[code].arg.n if OPCODES[code].arg else 0
        if size == pickletools.UP_TO_NEWLINE:
            lines = 2 if code in b'ci' else 1
            stream += code + b''.join(data.draw(st.binary(max_size=5)).replace(b'\n', b'') + b'\n' for _ in range(lines))
        elif size < 0:
            width = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4, pickletools.TAKEN_FROM_ARGUMENT4U: 4,
                     pickletools.TAKEN_FROM_ARGUMENT8U: 8}[size]
            text = data.draw(st.binary(max_size=300 if width > 1 else 255))
            stream += code + len(text).to_bytes(width, 'little') + text
        else:
            stream += code + data.draw(st.binary(min_size=size, max_size=size))
    with pytest.raises(SerializationError, match='they ask for more memory'):
        _check_numbers(stream + b'r\xff\xff\xff\x7f.')


# -- pickles that do more than to build a value -------------------------------------------------------------------

def slots_of(what, **attributes):
    """A pickle that sets attributes of what the opcodes leave on the stack."""
    state = pickle.dumps((None, attributes), 5)[2:-1]
    return b'\x80\x05' + what + state[9:] + b'b.'


PATH = b'\x8c\x07pathlib\x8c\x04Path\x93'


@pytest.mark.parametrize('what', [PATH, b'cpathlib\nPath\n', PATH + b'\x94h\x00', PATH + b'2', PATH + b'\x940h\x00', PATH + b'q\x070h\x07',
                                  b'(N1' + PATH, b']' + PATH + b'a0' + PATH])
@pytest.mark.parametrize('protocol', [b'\x80\x05', b''])
def test_a_pickle_that_would_change_a_class_is_refused(what, protocol):
    before = pathlib.Path.exists
    with pytest.raises(SerializationError, match='they would change a class|the bytes cannot be read'):
        RestrictedPickle().loads(protocol + slots_of(what, exists=True)[2:])
    assert pathlib.Path.exists is before


def test_a_class_that_is_allowed_is_not_changed_either():
    restricted = RestrictedPickle()
    restricted.allow(Mine)
    name = f'\x8c{chr(len(Mine.__module__))}{Mine.__module__}\x8c{chr(len(Mine.__qualname__))}{Mine.__qualname__}\x93'.encode('latin-1')
    with pytest.raises(SerializationError, match='they would change a class'):
        restricted.loads(slots_of(name, is_admin=True))
    assert not hasattr(Mine, 'is_admin')


@pytest.mark.parametrize('protocol', range(2, 6))
def test_objects_are_built_by_every_protocol(protocol):
    restricted = RestrictedPickle()
    restricted.allow(Mine)
    mine = Mine()
    mine.attribute, mine.other = 'b', [Mine(), uuid.UUID(int=7), decimal.Decimal('1.5')]
    found = restricted.loads(pickle.dumps([mine, mine, {'b': mine}], protocol))
    assert found[0] is found[1] is found[2]['b'] and found[0].attribute == 'b' and found[0].other[1:] == mine.other[1:]


@pytest.mark.parametrize('call', [
    (fractions.Fraction, '1e30000000'), (fractions.Fraction, decimal.Decimal('1e300')), (decimal.Decimal, '1e30000000'),
    (decimal.Decimal, '1e-30000000'), (ipaddress.IPv4Network, '0.0.0.0/0')], ids=repr)
def test_a_few_bytes_that_would_keep_the_interpreter_busy_are_refused(call):
    class Call:
        def __reduce__(self):
            return call[0], call[1:]
    with pytest.raises(SerializationError):
        RestrictedPickle().loads(pickle.dumps(Call(), 5))


@pytest.mark.parametrize('value', [decimal.Decimal('1.50'), decimal.Decimal('NaN'), decimal.Decimal('-Infinity'), decimal.Decimal('1e9999'),
                                   fractions.Fraction(-1, 3), fractions.Fraction(10 ** 400, 7), collections.defaultdict(int, a=1)], ids=str)
def test_numbers_of_any_sensible_size_travel(value):
    assert repr(RestrictedPickle().loads(RestrictedPickle().dumps(value))) == repr(value)


# -- json and msgpack ---------------------------------------------------------------------------------------------

def as_read(value):
    """Tuples come back as lists."""
    if isinstance(value, list | tuple):
        return [as_read(one) for one in value]
    return {key: as_read(one) for key, one in value.items()} if isinstance(value, dict) else value


JSON = st.none() | st.booleans() | st.integers(-2 ** 80, 2 ** 80) | st.floats(allow_nan=False) \
    | st.text(st.characters(exclude_categories=[]))
MSGPACK = st.none() | st.booleans() | st.integers(-2 ** 63, 2 ** 64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary() \
    | st.datetimes(timezones=st.just(datetime.timezone.utc))


@pytest.mark.parametrize(('cls', 'scalars'), [(Json, JSON), (MessagePack, MSGPACK)])
@given(data=st.data())
def test_plain_data_comes_back_from_json_and_msgpack(cls, scalars, data):
    value = data.draw(nested(scalars))
    assert cls().loads(cls().dumps(value)) == as_read(value)


NEITHER = [object(), {1, 2}, decimal.Decimal(1), uuid.uuid4(), pathlib.Path('a'), 1j, len, datetime.datetime(2024, 1, 1),
          datetime.date(2024, 1, 1),
           {(1, 2): 3}, [{'a': [{(1,): 2}]}], {frozenset(): 1}]


@pytest.mark.parametrize(('cls', 'value'), [
    *((cls, value) for cls in (Json, MessagePack) for value in NEITHER),
    *((Json, value) for value in (b'bytes', {1: 2}, {None: 1}, {True: 1}, [{'a': ({2.5: 1},)}],
                                        datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc))),
    (MessagePack, 2 ** 64), (MessagePack, -2 ** 63 - 1)],
    ids=lambda value: getattr(value, '__name__', type(value).__name__))
def test_what_would_come_back_as_something_else_is_refused(cls, value):
    with pytest.raises(SerializationError, match=f'{cls.name.replace("json", "JSON")} carries None'):
        cls().dumps(value)


@pytest.mark.parametrize('cls', [Json, MessagePack])
def test_what_has_no_end_is_refused(cls):
    circle = []
    circle.append(circle)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (circle, deep):
        with pytest.raises(SerializationError):
            cls().dumps(value)


@pytest.mark.parametrize('cls', [Json, MessagePack])
@given(data=st.binary(max_size=100))
def test_whatever_the_bytes_are_json_and_msgpack_make_a_value_or_an_error_of_them(cls, data):
    try:
        cls().loads(data)
    except SerializationError:
        pass


@pytest.mark.parametrize('data', [b'[' * 1_000_000, b'\xdd\xff\xff\xff\xff', b'\x91' * 1_000_000, b'9' * 1_000_000, b'\xff' * 10])
def test_bytes_that_ask_for_too_much_are_refused(data):
    for cls in (Json, MessagePack):
        if (cls, data[:1]) not in ((MessagePack, b'['), (MessagePack, b'9')):
            with pytest.raises(SerializationError):
                cls().loads(data)


@pytest.mark.parametrize('cls', [Json, MessagePack])
def test_only_pickle_carries_classes(cls):
    with pytest.raises(ConfigurationError, match="carries plain data, no Mine: only serializer='pickle' carries classes"):
        cls().allow(Mine)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'msgpack', None)
    with pytest.raises(ConfigurationError, match=r"python -m pip install 'geventhuey\[msgpack\]'"):
        serializer('msgpack')


def named(name='__main__', **namespace):
    """A function of a main module with these attributes."""
    namespace['__name__'] = name
    exec('def func(): pass', namespace)
    return namespace['func']


def spec(name):
    return types.SimpleNamespace(name=name)


@pytest.mark.parametrize(('namespace', 'expected'), [
    ({'name': 'a.module'}, 'a.module'),
    ({'__spec__': spec('pkg.app')}, 'pkg.app'),
    ({'__spec__': spec('pkg.app'), '__file__': '/x/other.py'}, 'pkg.app'),
    ({'__spec__': None, '__file__': '/x/app.py'}, 'app'),
    ({'__file__': 'app.py'}, 'app'),
    ({'__file__': r'C:\x\app.py'}, 'app'),
    ({'__spec__': spec('__main__'), '__file__': '/x/app.py'}, 'app'),
    ({'__spec__': spec('__main__'), '__file__': '/x/__main__.py'}, None),
    ({'__file__': '/x/my-app.py'}, None),
    ({'__file__': '/x/app.pyc'}, None),
    ({'__file__': None}, None),
    ({}, None),
    ({'name': '__mp_main__', '__file__': '/x/app.py'}, 'app'),
    ({'name': '__mp_main__', '__spec__': spec('pkg.app')}, 'pkg.app'),
])
def test_the_name_under_which_a_consumer_imports_a_module(namespace, expected):
    assert module_name(named(**namespace)) == expected
