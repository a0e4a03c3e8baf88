"""What a program may get wrong, and what it is told."""

from __future__ import annotations

import datetime
import functools

import pytest

from geventhuey import ConfigurationError, Huey, MemoryHuey, QueueTask, RedisHuey, crontab
from geventhuey.testing import drain

NOT_A_NUMBER = float('nan')
NEVER = float('inf')
NOW = datetime.datetime.now


@pytest.fixture
def work(huey):
    @huey.task()
    def work(*args, **kwargs):
        return [args, kwargs]
    return work


# -- applications ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', ['', ' ', 'my app', 'app\n', 'a/b', 'a{b}', 'größe', 'x' * 129, None, 5, b'app', '*', 'a\0b'])
def test_names_of_applications_outside_the_pattern(name):
    with pytest.raises(ConfigurationError, match='use 1 to 128 of the characters'):
        MemoryHuey(name)


def test_a_configuration_error_is_a_value_error():
    assert issubclass(ConfigurationError, ValueError)


@pytest.mark.parametrize('ttl', [-1, -0.001, NOT_A_NUMBER, NEVER, 1e12, 0])
def test_absurd_result_ttl(make, ttl):
    with pytest.raises(ConfigurationError, match='result_ttl='):
        make(result_ttl=ttl)


@pytest.mark.parametrize('ttl', ['5', datetime.timedelta(1), True, []])
def test_a_result_ttl_that_is_no_number(make, ttl):
    with pytest.raises(TypeError, match='result_ttl must be a number'):
        make(result_ttl=ttl)


@pytest.mark.parametrize('url', ['http://x', 'localhost:6379', '', 'redis:/x', 'redis+magic://x', 'amqp://x'])
def test_unknown_url_schemes(url):
    with pytest.raises(ConfigurationError, match=r'use redis://, rediss://, unix://, redis\+sentinel://, redis\+cluster:// or memory://'):
        Huey.from_url(url)


@pytest.mark.parametrize('url', ['redis:/user:secret@host', 'secret', 'http://user:secret@host'])
def test_an_error_about_a_url_does_not_show_its_password(url):
    with pytest.raises(ConfigurationError) as raised:
        Huey.from_url(url)
    assert 'secret' not in str(raised.value)


@pytest.mark.parametrize('url', [
    'http://:secret@x', 'redis://:secret@host:port', 'redis://host:99999999?password=secret', 'redis://:secret/x@host', 'redis://host/?db=secret'])
def test_a_url_that_redis_does_not_understand(url):
    with pytest.raises(ConfigurationError, match='is no Redis URL') as raised:
        RedisHuey('app', url=url)
    assert 'secret' not in str(raised.value)


def test_an_over_determined_connection():
    import redis
    pool = redis.ConnectionPool()
    for settings in ({'url': 'redis://x', 'host': 'x'}, {'url': 'redis://x', 'connection_pool': pool},
                     {'connection_pool': pool, 'port': 1}, {'connection_pool': pool, 'url': 'redis://x', 'db': 1}):
        with pytest.raises(ValueError, match='over-determined'):
            RedisHuey('app', **settings)


def test_a_pool_that_is_none():
    with pytest.raises(ConfigurationError, match='takes a redis.ConnectionPool'):
        RedisHuey('app', connection_pool='pool')


# -- decorators -------------------------------------------------------------------------------------------------

def test_task_without_parentheses(huey):
    with pytest.raises(TypeError, match=r'@huey.task\(\)'):
        @huey.task
        def work():
            pass


def test_periodic_task_without_parentheses(huey):
    with pytest.raises(TypeError, match='validate_datetime must be callable with a datetime'):
        @huey.periodic_task
        def work():
            pass


@pytest.mark.parametrize('validate', [None, '* * * * *', 60, datetime.timedelta(minutes=1), lambda: True, lambda a, b: True])
def test_a_validate_datetime_that_cannot_be_asked(huey, validate):
    with pytest.raises(TypeError, match=r'crontab\(minute="0"\)'):
        huey.periodic_task(validate)


@pytest.mark.parametrize('retries', [-1, 10_001, 10 ** 20])
def test_absurd_retries(huey, retries):
    with pytest.raises(ConfigurationError, match='retries='):
        huey.task(retries=retries)


@pytest.mark.parametrize('retries', ['3', 1.5, None, True, [1]])
def test_retries_that_are_no_whole_number(huey, retries):
    with pytest.raises(TypeError, match='retries must be a number'):
        huey.task(retries=retries)


@pytest.mark.parametrize('delay', [-1, -0.5, NOT_A_NUMBER, NEVER, 1e12])
def test_absurd_delays(huey, work, delay):
    with pytest.raises(ConfigurationError, match='retry_delay='):
        huey.task(retry_delay=delay)
    with pytest.raises(ConfigurationError, match='delay='):
        work.schedule(delay=delay)
    assert (huey.pending_count(), huey.scheduled_count()) == (0, 0)


@pytest.mark.parametrize('delay', ['5', datetime.timedelta(seconds=5), True, [5]])
def test_delays_that_are_no_number(huey, work, delay):
    with pytest.raises(TypeError, match='retry_delay must be a number'):
        huey.task(retry_delay=delay)
    with pytest.raises(TypeError, match='delay must be a number'):
        work.schedule(delay=delay)


@pytest.mark.parametrize('name', ['', 'x' * 161, 'a\nb', 'a\0b', '\x1b[31mred', '\udc80', '東' * 100, 42, b'name', ['a']])
@pytest.mark.parametrize('periodic', [False, True])
def test_names_of_tasks_that_cannot_travel(huey, name, periodic):
    decorate = huey.periodic_task(crontab(), name=name) if periodic else huey.task(name=name)
    with pytest.raises(ConfigurationError, match='printable characters are needed'):
        @decorate
        def work():
            pass
    assert huey.get_tasks() == []


def test_a_function_whose_own_name_is_too_long(huey):
    namespace = {'__name__': 'm' * 100}
    exec(f'def {"f" * 100}(): pass', namespace)
    with pytest.raises(ConfigurationError, match='give a shorter name='):
        huey.task()(namespace['f' * 100])


def test_a_function_without_a_name(huey):
    add_one = functools.partial(int.__add__, 1)
    with pytest.raises(ConfigurationError, match='give it one with name='):
        huey.task()(add_one)
    work = huey.task(name='add one')(add_one)
    result = work(2)
    drain(huey)
    assert result() == 3


async def coroutine():
    pass


async def asynchronous_generator():
    yield 1


class AsynchronousObject:
    async def __call__(self):
        pass


@pytest.mark.parametrize('func', [coroutine, asynchronous_generator, functools.partial(coroutine), AsynchronousObject()],
                         ids=['function', 'generator', 'partial', 'object'])
def test_async_functions(huey, func):
    for decorate in (huey.task(name='work'), huey.periodic_task(crontab(), name='work')):
        with pytest.raises(ConfigurationError, match='is async: tasks are ordinary functions'):
            decorate(func)


@pytest.mark.parametrize('thing', [None, 42, 'name', [len]])
def test_what_is_no_function(huey, thing):
    for decorate in (huey.task(name='work'), huey.periodic_task(crontab(), name='work')):
        with pytest.raises(TypeError, match='a function is needed'):
            decorate(thing)


@pytest.mark.parametrize('func', [
    lambda a: 0, lambda a, b=1: 0, lambda *, key: 0, lambda *rest, key: 0, lambda a, /: 0])
def test_a_periodic_task_with_required_arguments(huey, func):
    with pytest.raises(ConfigurationError, match='a periodic task takes no arguments, but .* is required'):
        huey.periodic_task(crontab())(func)
    assert huey.get_periodic_tasks() == []


# -- calls --------------------------------------------------------------------------------------------------------

def test_delay_and_eta_both(huey, work):
    for delay in (60, 0):
        with pytest.raises(ValueError, match='Both a delay and an eta cannot be specified at the same time'):
            work.schedule(eta=NOW(), delay=delay)


@pytest.mark.parametrize('eta', [5, 5.5, '2035-01-01', datetime.date(2035, 1, 1), datetime.timedelta(1), True, (2035, 1, 1)])
def test_an_eta_that_is_no_datetime(huey, work, eta):
    with pytest.raises(TypeError, match='a datetime is needed'):
        work.schedule(eta=eta)
    assert (huey.pending_count(), huey.scheduled_count()) == (0, 0)


@pytest.mark.parametrize('eta', [
    datetime.datetime.max, datetime.datetime.max.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=-12))),
    datetime.datetime(2100, 1, 1)])
@pytest.mark.parametrize('convert_utc', [True, False])
def test_an_eta_that_is_too_far_away(huey, work, eta, convert_utc):
    with pytest.raises(ValueError):
        work.schedule(eta=eta, convert_utc=convert_utc)
    assert huey.scheduled_count() == 0


@pytest.mark.parametrize('eta', [datetime.datetime.min.replace(tzinfo=datetime.timezone.utc), datetime.datetime(1960, 1, 1),
                                 datetime.datetime(1960, 1, 1, tzinfo=datetime.timezone.utc)])
def test_an_eta_that_is_long_over_runs_at_once(huey, work, eta):
    work.schedule(eta=eta)
    assert len(drain(huey)) == 1


@pytest.mark.parametrize('args', ['text', b'bytes', 5, {1, 2}, {'a': 1}, iter([1])])
def test_args_that_are_no_sequence(huey, work, args):
    with pytest.raises(TypeError, match='args must be a sequence such as a tuple'):
        work.schedule(args=args, delay=60)


@pytest.mark.parametrize('kwargs', ['text', 5, [('a', 1)], ('a', 1)])
def test_kwargs_that_are_no_mapping(huey, work, kwargs):
    with pytest.raises(TypeError, match='kwargs must be a mapping such as a dict'):
        work.schedule(kwargs=kwargs, delay=60)


@pytest.mark.parametrize('task_id', ['', 'x' * 201, 'é' * 101, 5, b'id', 'a\nb', '\udc80', ['a']])
def test_ids_that_cannot_travel(huey, work, task_id):
    uses = [lambda: work.schedule(task_id=task_id), lambda: huey.result(task_id), lambda: huey.revoke_by_id(task_id),
            lambda: huey.restore_by_id(task_id)]
    if task_id:
        uses.append(lambda: huey.enqueue(work.task_class(((), {}), task_id)))
    for use in uses:
        with pytest.raises(ConfigurationError, match='task_id'):
            use()
    assert (huey.pending_count(), huey.scheduled_count()) == (0, 0)


@pytest.mark.parametrize('settings', [
    {'retries': -1}, {'retries': 'x'}, {'retries': 1.5}, {'retry_delay': -1}, {'retry_delay': 'x'}, {'retry_delay': NOT_A_NUMBER}])
def test_a_task_made_by_hand_with_absurd_settings(huey, work, settings):
    with pytest.raises((ConfigurationError, TypeError)):
        huey.enqueue(work.task_class(((), {}), **settings))
    assert huey.pending_count() == 0


def test_an_execute_time_that_is_no_datetime():
    with pytest.raises(TypeError, match='a datetime is needed'):
        QueueTask(execute_time=5)


# -- results, revocations, looking --------------------------------------------------------------------------------

@pytest.mark.parametrize('timeout', [-1, -0.001, NOT_A_NUMBER])
def test_absurd_timeouts(huey, work, timeout):
    result = work()
    for get in (result, result.get, lambda **kwargs: huey.result(result.task_id, **kwargs)):
        with pytest.raises(ValueError, match='timeout='):
            get(blocking=True, timeout=timeout)


@pytest.mark.parametrize('timeout', ['5', datetime.timedelta(seconds=5), []])
def test_timeouts_that_are_no_number(huey, work, timeout):
    with pytest.raises(TypeError):
        work().get(blocking=True, timeout=timeout)


@pytest.mark.parametrize('until', [5, '2035-01-01', datetime.date(2035, 1, 1), datetime.timedelta(1)])
def test_a_revoke_until_that_is_no_datetime(huey, work, until):
    for revoke in (work.revoke, functools.partial(huey.revoke_by_id, 'x'), functools.partial(huey.revoke, work().task)):
        with pytest.raises(TypeError, match='a datetime is needed'):
            revoke(revoke_until=until)
    assert not work.is_revoked()


@pytest.mark.parametrize('dt', [5, '2035-01-01', datetime.date(2035, 1, 1)])
def test_asking_about_a_moment_that_is_no_datetime(huey, work, dt):
    work.revoke(NOW())
    with pytest.raises(TypeError, match='a datetime is needed'):
        work.is_revoked(dt)


@pytest.mark.parametrize('task', [None, 5, object()])
def test_revoking_what_is_no_task(huey, task):
    for use in (huey.revoke, huey.restore, huey.is_revoked):
        with pytest.raises(TypeError, match='a task or a task id is needed'):
            use(task)


@pytest.mark.parametrize('limit', [-1, 2 ** 40])
def test_absurd_limits(huey, limit):
    for look in (huey.pending, huey.scheduled, huey.errors, lambda limit: huey.errors(offset=limit)):
        with pytest.raises(ConfigurationError, match='limit or offset'):
            look(limit)


@pytest.mark.parametrize('limit', ['5', 1.5])
def test_limits_that_are_no_whole_number(huey, limit):
    for look in (huey.pending, huey.scheduled, huey.errors):
        with pytest.raises(TypeError, match='limit or offset'):
            look(limit)
