"""Huey(name, result_store, events, store_none, always_eager, store_errors, blocking, **storage_kwargs)."""

from __future__ import annotations

import time

import pytest

from geventhuey import Huey, MemoryHuey, RedisHuey, TaskException, TaskResultWrapper
from geventhuey.storage.memory import MemoryStorage
from geventhuey.storage.redis import RedisStorage
from geventhuey.testing import drain
from tests.api.kit import BOUND, InThread


def test_calls_are_enqueued_for_execution_by_the_consumer(huey):
    ran = []

    @huey.task()
    def note(value):
        ran.append(value)

    note(1)
    assert ran == []
    assert huey.pending_count() == 1
    drain(huey)
    assert ran == [1]


def test_a_program_may_have_as_many_instances_as_it_likes(make):
    one, two = make('one'), make('two')

    @one.task()
    def add(a, b):
        return a + b

    @two.task(name='add')
    def add_in_two(a, b):
        return a + b

    result = add(1, 2)
    assert drain(two) == []
    assert result() is None
    drain(one)
    assert result() == 3


# -- name ---------------------------------------------------------------------------------------------------

def test_the_name_is_the_application_s(make):
    assert make('my-app').name == 'my-app'


def test_the_name_may_be_left_out(redis_url):
    assert MemoryHuey().name == 'huey'
    assert RedisHuey(url=redis_url).name == 'huey'


def test_who_has_the_same_name_has_the_same_queue(redis_url):
    here, there = RedisHuey('shared', url=redis_url), RedisHuey('shared', url=redis_url)

    @here.task(name='add')
    def add(a, b):
        return a + b

    @there.task(name='add')
    def add_there(a, b):
        return a + b

    result = add(1, 2)
    drain(there)
    assert result() == 3


# -- result_store -------------------------------------------------------------------------------------------

def test_result_store_keeps_results(huey):
    @huey.task()
    def add(a, b):
        return a + b

    assert huey.result_store is True
    result = add(1, 2)
    assert isinstance(result, TaskResultWrapper)
    drain(huey)
    assert result() == 3


def test_without_a_result_store_nothing_is_kept(make):
    huey = make(result_store=False)

    @huey.task()
    def add(a, b):
        return a + b

    assert huey.result_store is False
    assert add(1, 2) is None
    assert add.schedule(args=(1, 2), delay=60) is None
    drain(huey)
    assert huey.result_count() == 0
    assert huey.all_results() == {}


def test_without_a_result_store_no_error_is_kept(make):
    huey = make(result_store=False)

    @huey.task()
    def fail():
        raise ValueError

    fail()
    drain(huey)
    assert huey.errors() == []


# -- events -------------------------------------------------------------------------------------------------

def heard(huey, task):
    """The events of one call, as somebody who listens gets them."""
    events = iter(huey.storage)
    task()
    drain(huey)
    huey.storage.publish([b'{"status": "the end"}'])
    statuses = []
    while (event := next(events))['status'] != 'the end':
        statuses.append(event['status'])
    return statuses


def test_events_are_emitted(huey):
    @huey.task()
    def work():
        return 1

    assert huey.events is True
    assert heard(huey, work) == ['started', 'finished']


def test_events_are_not_emitted(make):
    huey = make(events=False)

    @huey.task()
    def work():
        return 1

    assert huey.events is False
    assert heard(huey, work) == []


# -- store_none ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize(('store_none', 'kept'), [(False, 0), (True, 1)])
def test_store_none_keeps_none_as_a_result(make, store_none, kept):
    huey = make(store_none=store_none)

    @huey.task()
    def nothing():
        return None

    assert huey.store_none is store_none
    result = nothing()
    drain(huey)
    assert huey.result_count() == kept
    assert len(huey.all_results()) == kept
    assert result() is None
    assert huey.result_count() == 0


def test_store_none_is_off_by_default(huey):
    assert huey.store_none is False


# -- always_eager -------------------------------------------------------------------------------------------

def test_always_eager_executes_immediately_without_enqueueing(make):
    huey = make(always_eager=True)
    ran = []

    @huey.task()
    def note(value):
        ran.append(value)
        return value

    note(1)
    assert ran == [1]
    assert huey.pending_count() == huey.scheduled_count() == 0


def test_always_eager_is_off_by_default(huey):
    assert huey.always_eager is False


# -- store_errors -------------------------------------------------------------------------------------------

@pytest.mark.parametrize(('store_errors', 'kept'), [(True, 1), (False, 0)])
def test_store_errors_keeps_errors(make, store_errors, kept):
    huey = make(store_errors=store_errors)

    @huey.task()
    def fail():
        raise ValueError('it went wrong')

    assert huey.store_errors is store_errors
    result = fail()
    drain(huey)
    assert len(huey.errors()) == kept
    with pytest.raises(TaskException) as raised:
        result()
    assert ('it went wrong' in str(raised.value)) is store_errors


def test_store_errors_is_on_by_default(huey):
    assert huey.store_errors is True


# -- blocking -----------------------------------------------------------------------------------------------

def test_without_blocking_an_empty_queue_is_known_at_once(make):
    huey = make(read_timeout=BOUND)
    assert huey.blocking is False
    begun = time.monotonic()
    assert huey.dequeue() is None
    assert time.monotonic() - begun < BOUND / 2


def test_with_blocking_the_queue_is_waited_at(make):
    huey = make(blocking=True, read_timeout=BOUND)

    @huey.task()
    def add(a, b):
        return a + b

    assert huey.blocking is True
    taken = InThread(huey.dequeue)
    add(1, 2)
    task = taken.result()
    assert huey.execute(task) == 3


def test_blocking_has_an_end(make):
    huey = make(blocking=True, read_timeout=0.05)
    assert huey.dequeue() is None


def test_with_blocking_a_due_task_is_not_waited_for_longer_than_it_takes(make):
    huey = make(blocking=True, read_timeout=BOUND)

    @huey.task()
    def add(a, b):
        return a + b

    add.schedule(args=(1, 2), delay=0.2)
    begun = time.monotonic()
    task = huey.dequeue() or huey.dequeue()
    assert 0.15 < time.monotonic() - begun < BOUND / 2
    assert huey.execute(task) == 3


# -- storage_kwargs -----------------------------------------------------------------------------------------

def test_storage_kwargs_are_for_the_storage(make):
    assert make(read_timeout=7.5).storage.read_timeout == 7.5
    assert make(max_errors=3).storage.max_errors == 3


def test_unknown_storage_kwargs_are_refused(make):
    with pytest.raises((TypeError, ValueError), match='colour'):
        make(colour='red')


def test_max_errors_is_how_many_errors_are_kept(make):
    huey = make(max_errors=3)

    @huey.task()
    def fail(number):
        raise ValueError(number)

    for number in range(5):
        fail(number)
    drain(huey)
    assert [entry['error'] for entry in huey.errors()] == ['ValueError(4)', 'ValueError(3)', 'ValueError(2)']


def test_storage_kwargs_say_where_redis_is(redis_server, redis_url):
    import redis
    for kwargs in (
        {'url': redis_url},
        {'host': '127.0.0.1', 'port': redis_server.port, 'db': 0},
        {'connection_pool': redis.ConnectionPool.from_url(redis_url)},
    ):
        huey = RedisHuey('app', **kwargs)
        assert huey.pending_count() == 0
        huey.close()


def test_a_database_of_its_own(redis_server, redis_url):
    there = RedisHuey('app', host='127.0.0.1', port=redis_server.port, db=3)

    @there.task(name='work')
    def work():
        return 1

    work()
    assert there.pending_count() == 1
    assert RedisHuey('app', url=redis_url).pending_count() == 0


# -- classes ------------------------------------------------------------------------------------------------

def test_the_base_class_has_no_storage():
    with pytest.raises(NotImplementedError, match='RedisHuey'):
        Huey('app')


def test_a_subclass_brings_its_own_storage():
    given = {}

    class Mine(Huey):
        def get_storage(self, **storage_kwargs):
            given.update(storage_kwargs)
            return MemoryStorage(self.name, self.clock)

    huey = Mine('app', colour='red')
    assert given == {'colour': 'red'}

    @huey.task()
    def add(a, b):
        return a + b

    result = add(1, 2)
    drain(huey)
    assert result() == 3


def test_the_storages_of_the_classes(redis_url):
    assert isinstance(RedisHuey('app', url=redis_url).storage, RedisStorage)
    assert isinstance(MemoryHuey('app').storage, MemoryStorage)


def test_making_an_application_connects_to_nothing():
    assert RedisHuey('app', port=1).name == 'app'
