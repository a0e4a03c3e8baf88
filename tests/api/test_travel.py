"""What may be an argument or a result, and how one is told what may not."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import ipaddress
import pathlib
import pickle
import re
import threading
import uuid
import zoneinfo

import pytest

from geventhuey import ConfigurationError, DataStoreGetException, SerializationError, TaskException
from geventhuey.message import MAX_MESSAGE, Message
from geventhuey.testing import drain


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Colour(enum.Enum):
    RED = 1


class Pair(collections.namedtuple('Pair', 'a b')):
    pass


class Mine(Exception):
    pass


class Outer:
    class Inner:
        def __eq__(self, other):
            return type(other) is type(self)


VALUES = [
    None, True, 7, -2 ** 200, 1.5, float('inf'), 2j, 'text', 'Zeichen 東京', '\udc80', b'bytes\x93', bytearray(b'more'),
    [1, [2]], (1, (2,)), {1: {2: 3}}, {1, 2}, frozenset([1]), slice(1, 2, 3), ..., NotImplemented,
    datetime.date(2035, 1, 1), datetime.datetime(2035, 1, 1, 12, 0, 0, 5), datetime.time(12), datetime.timedelta(1),
    datetime.datetime(2035, 1, 1, tzinfo=datetime.timezone.utc), datetime.timezone(datetime.timedelta(hours=2)),
    datetime.datetime(2035, 1, 1, tzinfo=zoneinfo.ZoneInfo('UTC')),
    decimal.Decimal('1.50'), fractions.Fraction(1, 3), uuid.UUID(int=5), pathlib.PurePosixPath('/a/b'), pathlib.Path('/a'),
    ipaddress.ip_address('10.0.0.1'), ipaddress.ip_address('::1'),
    collections.OrderedDict(a=1), collections.Counter('aab'), collections.defaultdict(list, a=[1]), collections.deque([1], 3),
]


@pytest.fixture
def echo(huey):
    @huey.task()
    def echo(value):
        return value
    return echo


@pytest.mark.parametrize('value', VALUES, ids=[repr(value)[:40].encode('ascii', 'replace').decode() for value in VALUES])
def test_plain_data_and_value_types_travel_both_ways(huey, echo, value):
    result = echo(value)
    assert type(huey.pending()[0].data[0][0]) is type(value)
    drain(huey)
    found = result() if value is not None else None
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize('error', [
    ValueError('text'), KeyError('k'), OSError(2, 'no such file'), SystemExit(3), KeyboardInterrupt()])
def test_the_exceptions_of_python_itself_travel_as_values(huey, echo, error):
    result = echo(error)
    drain(huey)
    found = result()
    assert (type(found), found.args) == (type(error), error.args)


# -- classes of the application -----------------------------------------------------------------------------------

OBJECTS = [Point(1, 2), Colour.RED, Pair(1, 2), Outer.Inner()]


@pytest.mark.parametrize('value', OBJECTS, ids=lambda value: type(value).__name__)
def test_an_object_of_a_class_of_ones_own_is_refused_with_the_line_to_add(huey, echo, value):
    line = f'huey.allow({type(value).__qualname__})'
    with pytest.raises(SerializationError, match=re.escape(line)) as raised:
        echo(value)
    assert f"{__name__}.echo: argument 'value' (of type {type(value).__name__}) cannot travel" in str(raised.value)
    assert huey.pending_count() == 0
    exec(line, {'huey': huey, **globals()})
    result = echo(value)
    drain(huey)
    assert result() == value


def test_what_is_allowed_may_be_a_result(huey):
    @huey.task()
    def make_point():
        return Point(1, 2)

    result = make_point()
    drain(huey)
    with pytest.raises(TaskException, match=r'of type Point\).*huey.allow\(Point\)'):
        result()
    huey.allow(Point)
    result = make_point()
    drain(huey)
    assert result() == Point(1, 2)


def test_allow_is_usable_as_a_decorator(huey):
    cls = huey.allow(Point)
    assert cls is Point


def test_what_is_allowed_in_one_application_is_not_in_another(make):
    one, two = make('one'), make('two')
    one.allow(Point)
    data = one.serializer.dumps(Point(1, 2))
    with pytest.raises(SerializationError, match='Point is not allowed'):
        two.serializer.loads(data)


@pytest.mark.parametrize('thing', [Point(1, 2), len, 'Point', None])
def test_only_classes_can_be_allowed(huey, thing):
    with pytest.raises(TypeError, match=r'allow\(\) takes a class'):
        huey.allow(thing)


def test_a_result_that_may_not_be_read_here_is_kept_until_it_may(redis_url):
    """The producer forgot the line that the consumer has."""
    from geventhuey import RedisHuey
    producer, consumer = RedisHuey('app', url=redis_url), RedisHuey('app', url=redis_url)
    consumer.allow(Point)

    def make_point():
        return Point(1, 2)

    call = producer.task(name='make_point')(make_point)
    consumer.task(name='make_point')(make_point)
    result = call()
    drain(consumer)
    for _ in range(2):
        with pytest.raises(DataStoreGetException, match=r'huey.allow\(Point\)'):
            result()
    producer.allow(Point)
    assert result() == Point(1, 2)


# -- what cannot travel -----------------------------------------------------------------------------------------

CULPRIT = threading.Lock()


@pytest.mark.parametrize(('args', 'kwargs', 'label'), [
    ((CULPRIT,), {}, "'a'"),
    ((1, CULPRIT), {}, "'b'"),
    ((1, 2, CULPRIT), {}, 'number 3'),
    ((1, 2, 3, CULPRIT), {}, 'number 4'),
    ((), {'a': CULPRIT}, "'a'"),
    ((1,), {'key': CULPRIT}, "'key'"),
    ((1,), {'any': CULPRIT}, "'any'"),
    ((1, [1, {2: CULPRIT}]), {}, "'b'"),
])
def test_the_error_names_the_argument_that_cannot_travel(huey, args, kwargs, label):
    @huey.task(name='work')
    def work(a, b=None, *rest, key=None, **more):
        pass

    for call in (lambda: work(*args, **kwargs), lambda: work.schedule(args=args, kwargs=kwargs, delay=60)):
        with pytest.raises(SerializationError) as raised:
            call()
        assert f'work: argument {label} (of type ' in str(raised.value)
    assert (huey.pending_count(), huey.scheduled_count()) == (0, 0)


def test_keyword_only_arguments_are_not_taken_for_positional_ones(huey):
    @huey.task()
    def work(a, *, key=None):
        pass

    with pytest.raises(SerializationError, match='argument number 2'):
        work(1, CULPRIT)


def test_the_data_of_a_class_of_ones_own_that_cannot_travel(huey):
    from geventhuey import QueueTask

    @huey.registry.register
    class Put(QueueTask):
        pass

    with pytest.raises(SerializationError, match='Put: its data cannot travel'):
        huey.enqueue(Put(CULPRIT))


class Hostile:
    def __reduce__(self):
        raise RuntimeError('hostile')


@pytest.mark.parametrize('value', [lambda: 0, (n for n in 'abc'), len, threading.Lock(), Hostile(), object, range(5), open],
                         ids=['lambda', 'generator', 'function', 'lock', 'hostile', 'class', 'range', 'open'])
def test_what_is_no_data_is_refused_at_the_call(huey, echo, value):
    with pytest.raises(SerializationError, match="argument 'value'"):
        echo(value)
    assert huey.pending_count() == 0


def test_an_argument_that_is_nested_too_deeply_is_refused(huey, echo):
    value = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(SerializationError, match="argument 'value'"):
        echo(value)
    while value:        # as deep as this, Python itself would fall over it
        value = value.pop()


def test_a_message_that_is_too_large_is_refused(huey, echo):
    with pytest.raises(ConfigurationError, match='put the data elsewhere'):
        echo(bytes(MAX_MESSAGE))
    assert huey.pending_count() == 0


@pytest.mark.parametrize(('give', 'text'), [
    (lambda: threading.Lock(), r'the result \(of type lock\) cannot travel'),
    (lambda: Point(1, 2), r'the result \(of type Point\) cannot travel.*huey.allow\(Point\)'),
    (lambda: (n for n in 'abc'), r'the result \(of type generator\) cannot travel'),
    (Hostile, r'the result \(of type Hostile\) cannot travel'),
    (lambda: bytes(MAX_MESSAGE), 'the result of .* bytes is larger than'),
])
def test_a_result_that_cannot_travel_makes_its_task_fail(huey, give, text):
    @huey.task(name='work')
    def work():
        return give()

    result = work()
    drain(huey)
    with pytest.raises(TaskException, match=text):
        result()
    assert len(huey.errors()) == 1


def test_without_a_result_store_it_does_not_matter(make):
    huey = make(result_store=False)
    ran = []

    @huey.task()
    def work():
        ran.append(1)
        return threading.Lock()

    work()
    drain(huey)
    assert ran == [1]
    assert huey.storage.errors() == []


# -- messages from somebody who means ill ---------------------------------------------------------------------------

def calling(function, *args):
    """A pickle that calls the function as it is read."""
    class Call:
        def __reduce__(self):
            return function, args
    return pickle.dumps(((Call(),), {}), 5)


def test_a_pickle_that_would_run_code_is_refused(huey, tmp_path):
    import os
    for function in (os.system, eval, exec, __import__, os.popen):
        with pytest.raises(SerializationError, match='not allowed to travel'):
            huey.serializer.loads(calling(function, f'touch {tmp_path}/done'))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(('owner', 'name'), [
    (datetime.datetime, 'mro'), (zoneinfo.ZoneInfo, 'no_cache'), (zoneinfo.ZoneInfo, 'clear_cache'), ('text', '_unpickle'),
    (int, '__subclasses__')])
def test_a_pickle_that_would_reach_for_an_attribute_is_refused(huey, owner, name):
    with pytest.raises(SerializationError, match='getattr is not allowed to travel'):
        huey.serializer.loads(calling(getattr, owner, name))


def test_a_message_that_would_run_code_goes_to_the_dead_letters(huey, echo, tmp_path):
    import os
    payload = b'\0' + calling(os.mkdir, str(tmp_path / 'done'))
    huey.storage.enqueue([Message('an-id', echo.task_class.task_name, payload, flags=1)])
    assert drain(huey) == []
    assert not (tmp_path / 'done').exists()
    (_, reason, _), = huey.storage.dead()
    assert 'not allowed to travel' in reason
    with pytest.raises(TaskException, match='not allowed to travel'):
        huey.result('an-id')


def test_a_result_that_would_run_code_is_refused(huey, tmp_path):
    import os
    huey.storage.put_result('an-id', b'V\0' + calling(os.mkdir, str(tmp_path / 'done')), None)
    with pytest.raises(DataStoreGetException, match='not allowed to travel'):
        huey.result('an-id')
    assert not (tmp_path / 'done').exists()


@pytest.mark.parametrize('record', [b'V', b'Vjunk', b'V\0junk', b'E',
                                    b'Ejunk', b'E\0' + pickle.dumps(5, 5), b'E\0' + pickle.dumps([1, 2], 5)])
def test_a_result_that_is_damaged_is_an_error_of_its_own(huey, record):
    huey.storage.put_result('an-id', record, None)
    with pytest.raises(DataStoreGetException, match='an-id'):
        huey.result('an-id')


# -- other serializers --------------------------------------------------------------------------------------------

def test_pickle_any_is_what_huey_did(make):
    huey = make(serializer='pickle-any')

    @huey.task()
    def echo(value):
        return value

    result = echo(Point(1, 2))
    drain(huey)
    assert result() == Point(1, 2)
    assert huey.allow(Point) is Point
    with pytest.raises(SerializationError, match="argument 'value'"):
        echo(CULPRIT)


def test_a_serializer_of_ones_own(make):
    import json

    class Json:
        name = 'json'

        def dumps(self, value):
            try:
                return json.dumps(value).encode()
            except TypeError as exc:
                raise SerializationError(str(exc)) from exc

        def loads(self, data):
            return json.loads(data)

        def allow(self, cls):
            return cls

    huey = make(serializer=Json())

    @huey.task(retries=1)
    def add(a, b):
        if b is None:
            raise ValueError('no b')
        return [a, b]

    result = add(1, b=2)
    failed = add(1, b=None)
    drain(huey)
    assert result() == [1, 2]
    with pytest.raises(TaskException, match='no b'):
        failed()
    assert len(huey.errors()) == 2
    with pytest.raises(SerializationError, match="argument 'b'"):
        add(1, {2})


@pytest.mark.parametrize('serializer', ['yaml', '', None, 5, object()])
def test_unknown_serializers_are_refused(make, serializer):
    with pytest.raises(ConfigurationError, match='serializer='):
        make(serializer=serializer)
