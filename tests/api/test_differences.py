"""What differs from Huey 1.3 on purpose."""

from __future__ import annotations

import datetime
import inspect
import threading

import pytest
import redis

from geventhuey import ConfigurationError, Huey, MemoryHuey, RedisHuey, TaskException, TaskLost, crontab
from geventhuey.api import WEEK
from geventhuey.exceptions import ResultConsumed
from geventhuey.lease import Lease
from geventhuey.testing import drain
from tests.api.kit import BOUND, InThread


def lose(huey, at_most=10):
    """A consumer has taken everything and died."""
    lease = Lease()
    lease.register(huey.storage)
    taken = lease.fetch(huey.storage, {'default': 100}, 100).deliveries
    beat = huey.storage.consumers()[lease.consumer]
    while not huey.storage.reap(lease.consumer, beat, at_most, 100, huey.result_ttl).done:
        pass
    return len(taken)


# -- 1. at least once -----------------------------------------------------------------------------------------

def test_what_a_dead_consumer_ran_is_run_again(huey):
    @huey.task()
    def add(a, b):
        return a + b

    result = add(1, 2)
    assert lose(huey) == 1
    assert huey.pending_count() == 1
    drain(huey)
    assert result() == 3


def test_a_task_under_which_consumers_keep_dying_is_given_up_and_its_waiter_told(huey):
    @huey.task()
    def add(a, b):
        return a + b

    result = add(1, 2)
    lose(huey, at_most=2)
    lose(huey, at_most=2)
    assert huey.pending_count() == 0
    with pytest.raises(TaskLost, match='died while it ran'):
        result.get(blocking=True, timeout=BOUND)
    with pytest.raises(TaskLost, match='died while it ran'):
        result.get()


# -- 2. names -------------------------------------------------------------------------------------------------

def test_a_task_is_known_by_module_and_name(huey):
    @huey.task()
    def add(a, b):
        return a + b

    assert add.task_class.task_name == f'{__name__}.add'


def test_the_same_function_name_in_another_module_is_another_task(huey):
    source = 'def add(a, b):\n    return a * b\n'
    other = {'__name__': 'another_module'}
    exec(source, other)

    @huey.task()
    def add(a, b):
        return a + b

    times = huey.task()(other['add'])
    results = add(3, 4), times(3, 4)
    drain(huey)
    assert [result() for result in results] == [7, 12]
    assert sorted(huey.get_tasks()) == sorted(['another_module.add', f'{__name__}.add'])


@pytest.mark.parametrize('name', [None, 'a name'])
def test_a_second_registration_of_a_name_raises(huey, name):
    def define():
        @huey.task(name=name)
        def add(a, b):
            return a + b
        return add

    first = define()
    with pytest.raises(ConfigurationError, match='there is a task named .* already .* give one of them another name='):
        define()
    assert huey.registry.task(huey.registry.message(first.task_class(((1, 2), {})))).execute() == 3


def test_a_periodic_task_may_not_take_the_name_of_a_task(huey):
    @huey.task(name='work')
    def work():
        pass

    with pytest.raises(ConfigurationError, match='there is a task named'):
        @huey.periodic_task(crontab(), name='work')
        def more_work():
            pass


@pytest.mark.parametrize('length', [1, 160])
def test_names_of_up_to_160_characters_travel(huey, length):
    @huey.task(name='n' * length)
    def work():
        return 1

    result = work()
    drain(huey)
    assert result() == 1


def test_names_in_any_script_travel(huey):
    @huey.task(name='Aufgabe für 東京')
    def work():
        return 1

    result = work()
    assert [task.task_name for task in huey.pending()] == ['Aufgabe für 東京']
    drain(huey)
    assert result() == 1


def test_each_instance_has_a_registry_of_its_own(make):
    one, two = make('one'), make('two')

    @one.periodic_task(crontab())
    def always():
        pass

    assert len(one.read_periodic()) == 1
    assert two.read_periodic() == []
    assert two.get_tasks() == []


# -- 3. failed tasks --------------------------------------------------------------------------------------------

def test_get_of_a_failed_task_raises_what_is_known_of_it(huey):
    class Mine(Exception):
        pass

    @huey.task(retries=1)
    def fail(number):
        raise Mine(number)

    result = fail(7)
    drain(huey)
    with pytest.raises(TaskException) as raised:
        result.get()
    error = raised.value
    assert type(error) is TaskException
    assert str(error) == 'Mine(7)'
    assert error.metadata['error'] == 'Mine(7)'
    assert error.metadata['task_id'] == result.task_id
    assert error.metadata['retries'] == 0
    assert 'raise Mine(number)' in error.metadata['traceback']
    assert all(type(value) in (str, int) for value in error.metadata.values())


def test_a_failed_task_stays_failed(huey):
    @huey.task()
    def fail():
        raise ValueError('once')

    result = fail()
    drain(huey)
    for arguments in ({}, {'blocking': True, 'timeout': 0}, {}):
        with pytest.raises(TaskException, match='once'):
            result.get(**arguments)


def test_get_waits_for_the_last_retry(huey):
    @huey.task(retries=1)
    def fail():
        raise ValueError('each time')

    result = fail()
    drain(huey, 1)
    assert result.get() is None
    drain(huey, 1)
    with pytest.raises(TaskException):
        result.get()


# -- 4. None --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('store_none', [False, True])
def test_a_blocking_get_returns_when_the_task_ends_also_with_none(make, store_none):
    huey = make(store_none=store_none)

    @huey.task()
    def nothing():
        pass

    result = nothing()
    waiting = InThread(lambda: result.get(blocking=True))
    drain(huey)
    assert waiting.result() is None


@pytest.mark.parametrize('store_none', [False, True])
def test_a_get_that_comes_after_the_end_returns_too(make, store_none):
    huey = make(store_none=store_none)

    @huey.task()
    def nothing():
        pass

    result = nothing()
    drain(huey)
    assert result.get(blocking=True, timeout=BOUND) is None
    assert result.get(blocking=True, timeout=0) is None


# -- 5. etas ----------------------------------------------------------------------------------------------------

def test_an_eta_goes_straight_into_the_schedule(huey):
    @huey.task()
    def work():
        pass

    work.schedule(eta=datetime.datetime.now() + datetime.timedelta(hours=1))
    assert (huey.pending_count(), huey.scheduled_count()) == (0, 1)


def test_microseconds_are_kept(huey):
    @huey.task()
    def work():
        pass

    moment = datetime.datetime(2035, 1, 1, 0, 0, 0, 123_456)
    result = work.schedule(eta=moment)
    assert result.task.eta == huey.scheduled()[0].eta == moment.timestamp()


# -- 6. crontab ---------------------------------------------------------------------------------------------------

def test_crontab_keeps_huey_s_order_and_its_sunday():
    assert list(inspect.signature(crontab).parameters)[:5] == ['month', 'day', 'day_of_week', 'hour', 'minute']
    sunday = datetime.datetime(2035, 6, 3, 12, 0)
    assert crontab('6', '3', '0', '12', '0')(sunday)
    assert crontab(day_of_week='7')(sunday)
    assert crontab(day_of_week='sun', minute='0-30/5')(sunday)
    with pytest.raises(ValueError):
        crontab(minute='anything')


# -- 7. names of applications -----------------------------------------------------------------------------------

@pytest.mark.parametrize('name', ['MyApp', 'my-app', 'my_app', 'My.App:queue-1', 'a', 'x' * 128, '0'])
def test_names_of_applications_keep_their_case(make, name):
    assert make(name).name == name


def test_names_that_differ_in_case_are_two_queues(make):
    one, two = make('QA-Jobs'), make('qa-jobs')

    @one.task()
    def work():
        pass

    work()
    assert (one.pending_count(), two.pending_count()) == (1, 0)


# -- 8. expiry ----------------------------------------------------------------------------------------------------

def test_results_expire_after_a_week_by_default(huey, make):
    assert huey.result_ttl == WEEK == 7 * 24 * 3600
    assert make(result_ttl=5).result_ttl == 5
    assert make(result_ttl=None).result_ttl is None


@pytest.mark.parametrize(('ttl', 'kept'), [(WEEK, False), (None, True)])
def test_results_and_errors_are_forgotten_in_time(make, clock, ttl, kept):
    huey = make(result_ttl=ttl)

    @huey.task()
    def add(a, b):
        return a + b

    @huey.task()
    def fail():
        raise ValueError

    results = add(1, 2), fail()
    drain(huey)
    clock.advance(WEEK - 1)
    assert huey.result_count() == 2
    clock.advance(2)
    assert huey.result_count() == 2 * kept
    assert results[0]() == (3 if kept else None)


def test_results_have_a_time_to_live_on_redis(redis_server, redis_url):
    for ttl, expected in ((100, range(90_000, 100_001)), (None, [-1])):
        huey = RedisHuey('app', url=redis_url, result_ttl=ttl)

        @huey.task()
        def add(a, b):
            return a + b

        result = add(1, 2)
        drain(huey)
        assert int(redis_server.command('PTTL', f'gh:{{app}}:result:{result.task_id}')) in expected
        huey.close()


def test_revocations_are_forgotten_in_time(make, clock):
    huey = make()

    @huey.task()
    def work():
        pass

    until = datetime.datetime.fromtimestamp(clock.now() + 3 * WEEK)
    huey.revoke_by_id('for ever')
    huey.revoke_by_id('for three weeks', revoke_until=until)
    clock.advance(WEEK + 1)
    huey.storage.trim()
    assert not huey.is_revoked('for ever')
    assert huey.is_revoked('for three weeks')
    clock.advance(3 * WEEK)
    huey.storage.trim()
    assert not huey.is_revoked('for three weeks')


# -- 9. eager mode ------------------------------------------------------------------------------------------------

def test_eager_calls_return_a_wrapper_with_the_same_methods(make):
    huey = make(always_eager=True)

    @huey.task()
    def add(a, b):
        return a + b

    result = add(1, 2)
    assert result() == result.get() == result.get(blocking=True, timeout=1, preserve=True) == 3
    assert result.task_id == result.task.task_id
    assert result.revoke() is None
    assert result.restore() is False
    result.reset()
    assert result() == 3
    assert not huey.is_revoked(result.task_id)


def test_eager_calls_without_a_result_store_return_none(make):
    huey = make(always_eager=True, result_store=False)

    @huey.task()
    def add(a, b):
        return a + b

    assert add(1, 2) is None


def test_eager_calls_refuse_what_could_not_travel(make):
    huey = make(always_eager=True)

    @huey.task()
    def work(value):
        pass

    with pytest.raises(Exception, match="'value'"):
        work(threading.Lock())


# -- 11. one reader of a result -----------------------------------------------------------------------------------

def test_a_result_that_somebody_else_has_read_is_an_error_of_its_own(huey):
    @huey.task()
    def add(a, b):
        return a + b

    result = add(1, 2)
    drain(huey)
    assert huey.result(result.task_id) == 3
    assert result.get() is None
    with pytest.raises(ResultConsumed, match='preserve=True'):
        result.get(blocking=True, timeout=BOUND)


# -- URLs -----------------------------------------------------------------------------------------------------------

def test_the_url_says_the_storage(redis_url):
    assert type(Huey.from_url('memory://')) is MemoryHuey
    assert type(Huey.from_url(redis_url)) is RedisHuey
    huey = Huey.from_url('memory://', 'app', store_none=True)
    assert (huey.name, huey.store_none) == ('app', True)


@pytest.mark.parametrize(('url', 'shown'), [
    ('redis://example.org:6380/2', 'redis://example.org:6380/2'),
    ('redis://:secret@example.org', 'redis://:***@example.org:6379/0'),
    ('rediss://user:secret@example.org', 'rediss://user:***@example.org:6379/0'),
    ('unix:///var/run/redis.sock?db=3', 'unix:///var/run/redis.sock?db=3'),
])
def test_redis_urls_are_understood(url, shown):
    huey = Huey.from_url(url)
    assert isinstance(huey, RedisHuey)
    assert huey.storage.describe() == shown


def test_a_unix_socket_serves():
    from geventhuey.testing import RedisServer
    with RedisServer(unix_socket=True) as server:
        for settings in ({'url': server.unix_url}, {'unix_socket_path': str(server.unix_socket_path)}):
            huey = RedisHuey('app', **settings)

            @huey.task()
            def add(a, b):
                return a + b

            result = add(1, 2)
            drain(huey)
            assert result() == 3
            huey.close()


def test_the_environment_says_where_redis_is_for_those_that_do_not(monkeypatch, redis_url):
    monkeypatch.setenv('GEVENTHUEY_URL', redis_url)
    assert RedisHuey('app').storage.describe() == redis_url
    assert RedisHuey('app', port=1).storage.describe() == 'redis://localhost:1/0'
    monkeypatch.setenv('GEVENTHUEY_URL', 'memory://')
    assert RedisHuey('app').storage.describe() == 'redis://localhost:6379/0'


def test_an_application_can_be_put_elsewhere(make, redis_url):
    huey = make()

    @huey.task()
    def add(a, b):
        return a + b

    huey.use_url('memory://')
    result = add(1, 2)
    assert huey.storage.in_process
    drain(huey)
    assert result() == 3
    add.revoke()
    assert huey.is_revoked(add(1, 2).task)
    assert huey.execute(huey.dequeue()) == 3
    huey.use_url(redis_url)
    assert huey.pending_count() == 0
    assert not add.is_revoked()


# -- junk in the queue ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize('junk', [b'', b'junk', b'\x02' + bytes(40), b'\x01' + b'\xff' * 40])
def test_junk_in_the_queue_is_set_aside(redis_huey, redis_url, junk):
    huey = redis_huey

    @huey.task()
    def work():
        return 1

    redis.Redis.from_url(redis_url).rpush('gh:{app}:queue:default', junk)
    result = work()
    assert huey.pending() == [result.task]
    while huey.pending_count():
        drain(huey)
    assert result() == 1
    assert huey.storage.malformed() == [junk]
