"""Serializers: what becomes bytes, and what comes back from them. (What applications see of it is in api/test_travel.py.)"""

from __future__ import annotations

import pickle
import pickletools
import subprocess
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventhuey.exceptions import ConfigurationError, SerializationError
from geventhuey.serializer import AnyPickle, RestrictedPickle, module_name, serializer

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


def asks_for_memory(data):
    """True where the bytes may number what they remember as they like, and Python makes room for all the numbers below."""
    return b'r' in data or b'p' in data


@given(st.binary(max_size=300).filter(lambda data: not asks_for_memory(data)))
def test_whatever_the_bytes_are_they_are_a_value_or_an_error(data):
    try:
        RestrictedPickle().loads(data)
    except SerializationError:
        pass


@given(nested(PLAIN), st.integers(0, 1000), st.integers(0, 255))
def test_a_value_with_a_wrong_byte_is_a_value_or_an_error(value, position, byte):
    data = bytearray(RestrictedPickle().dumps(value))
    data[position % len(data)] = byte
    if asks_for_memory(data):
        return
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
