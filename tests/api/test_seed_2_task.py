"""Huey.task(retries, retry_delay, retries_as_argument, include_task), and what it adds to the function."""

from __future__ import annotations

import datetime
import time

import pytest

from geventhuey import QueueTask, TaskException, TaskResultWrapper
from geventhuey.message import Message
from geventhuey.testing import drain

NOW = datetime.datetime.now


def define(huey, **settings):
    """A task that fails as often as its argument says, and its runs."""
    runs = []

    @huey.task(**settings)
    def fail_first(times):
        runs.append(len(runs) + 1)
        if len(runs) <= times:
            raise ValueError(f'run {len(runs)}')
        return f'run {len(runs)}'

    return fail_first, runs


@pytest.fixture
def beans(huey):
    """The seed's example."""
    @huey.task()
    def count_some_beans(num):
        """Counts beans."""
        return f'Counted {num} beans'
    return count_some_beans


# -- a call -------------------------------------------------------------------------------------------------

def test_a_call_is_serialized_into_a_message(huey, beans):
    beans(100)
    raw, = huey.storage.pending('default')
    message = Message.decode(raw)
    assert message.name == beans.task_class.task_name
    assert huey.registry.task(message).get_data() == ((100,), {})


def test_a_call_is_enqueued(huey, beans):
    beans(100)
    task, = huey.pending()
    assert task.data == ((100,), {})


def test_a_call_returns_a_wrapper_that_fetches_the_result(huey, beans):
    result = beans(1000000)
    assert isinstance(result, TaskResultWrapper)
    drain(huey)
    assert result() == 'Counted 1000000 beans'


def test_a_call_without_a_result_store_returns_none(make):
    huey = make(result_store=False)

    @huey.task()
    def count_some_beans(num):
        return f'Counted {num} beans'

    assert count_some_beans(1000000) is None


def test_every_kind_of_argument_arrives(huey):
    @huey.task()
    def echo(a, b=2, *rest, c, d=4, **more):
        return [a, b, rest, c, d, more]

    result = echo(1, 20, 30, c=3, e=5)
    drain(huey)
    assert result() == [1, 20, (30,), 3, 4, {'e': 5}]


def test_a_wrong_call_fails_where_it_runs(huey, beans):
    result = beans()
    drain(huey)
    with pytest.raises(TaskException, match="missing 1 required positional argument: 'num'"):
        result()


def test_the_function_keeps_its_name_and_its_text(beans):
    assert beans.__name__ == 'count_some_beans'
    assert beans.__doc__ == 'Counts beans.'
    assert beans.__module__ == __name__
    assert beans.__wrapped__(1) == 'Counted 1 beans'


def test_always_eager_executes_the_function_immediately(make):
    huey = make(always_eager=True)

    @huey.task()
    def count_some_beans(num):
        return f'Counted {num} beans'

    assert count_some_beans(3)() == 'Counted 3 beans'


# -- retries ------------------------------------------------------------------------------------------------

def test_retries_is_how_often_a_failed_task_is_run_again(huey):
    fail_first, runs = define(huey, retries=3)
    result = fail_first(3)
    drain(huey)
    assert len(runs) == 4
    assert result() == 'run 4'


def test_when_the_retries_are_used_up_it_has_failed(huey):
    fail_first, runs = define(huey, retries=2)
    result = fail_first(9)
    drain(huey)
    assert len(runs) == 3
    with pytest.raises(TaskException, match='run 3'):
        result()


def test_by_default_nothing_is_retried(huey):
    fail_first, runs = define(huey)
    fail_first(9)
    drain(huey)
    assert len(runs) == 1


def test_a_task_that_succeeds_is_not_run_again(huey):
    fail_first, runs = define(huey, retries=5)
    fail_first(0)
    drain(huey)
    assert len(runs) == 1


def test_a_retry_is_the_same_task(huey):
    fail_first, _ = define(huey, retries=1)
    result = fail_first(1)
    first, second = drain(huey)
    assert first.task_id == second.task_id == result.task_id
    assert (first.retries, second.retries) == (1, 0)


def test_each_failure_is_noted(huey):
    fail_first, _ = define(huey, retries=2)
    fail_first(2)
    drain(huey)
    assert [entry['error'] for entry in huey.errors()] == ["ValueError('run 2')", "ValueError('run 1')"]


# -- retry_delay --------------------------------------------------------------------------------------------

def test_retry_delay_is_the_time_between_retries(make, clock):
    huey = make()
    fail_first, runs = define(huey, retries=2, retry_delay=10)
    fail_first(2)
    drain(huey)
    clock.advance(9.9)
    drain(huey)
    assert len(runs) == 1
    clock.advance(0.2)
    drain(huey)
    assert len(runs) == 2
    clock.advance(10)
    drain(huey)
    assert len(runs) == 3


def test_a_task_that_waits_for_its_retry_is_in_the_schedule(huey):
    fail_first, _ = define(huey, retries=1, retry_delay=60)
    fail_first(1)
    drain(huey)
    assert huey.pending_count() == 0
    task, = huey.scheduled()
    assert task.retries == 0
    assert task.execute_time is not None


def test_without_retry_delay_it_is_tried_again_at_once(huey):
    fail_first, runs = define(huey, retries=1)
    fail_first(1)
    drain(huey)
    assert len(runs) == 2


# -- retries_as_argument, include_task ------------------------------------------------------------------------

def test_retries_as_argument_passes_the_retries_that_are_left(huey):
    seen = []

    @huey.task(retries=2, retries_as_argument=True)
    def fail(label, retries):
        seen.append((label, retries))
        raise ValueError

    fail('x')
    drain(huey)
    assert seen == [('x', 2), ('x', 1), ('x', 0)]


def test_without_it_the_function_does_not_get_them(huey):
    @huey.task(retries=2)
    def echo(**kwargs):
        return kwargs

    result = echo(a=1)
    drain(huey)
    assert result() == {'a': 1}


def test_include_task_passes_the_task_as_task(huey):
    seen = []

    @huey.task(include_task=True)
    def look(label, task):
        seen.append((label, task))

    result = look('x')
    drain(huey)
    (label, task), = seen
    assert label == 'x'
    assert isinstance(task, QueueTask)
    assert isinstance(task, look.task_class)
    assert task.task_id == result.task_id
    assert task.data == (('x',), {})


def test_include_task_and_retries_go_together(huey):
    seen = []

    @huey.task(retries=2, include_task=True, retries_as_argument=True)
    def fail(task=None, retries=None):
        seen.append((task.task_id, task.retries, retries))
        raise ValueError

    result = fail()
    drain(huey)
    assert seen == [(result.task_id, left, left) for left in (2, 1, 0)]


def test_context_is_another_name_for_include_task(huey):
    @huey.task(context=True)
    def who(task=None):
        return task.task_id

    result = who()
    drain(huey)
    assert result() == result.task_id


# -- name ---------------------------------------------------------------------------------------------------

def test_a_name_of_ones_own(huey):
    @huey.task(name='another name')
    def work():
        return 1

    assert work.task_class.task_name == 'another name'
    assert 'another name' in huey.get_tasks()
    result = work()
    drain(huey)
    assert result() == 1


# -- {function}.schedule --------------------------------------------------------------------------------------

def test_schedule_with_an_eta(huey, beans):
    in_an_hour = NOW() + datetime.timedelta(seconds=3600)
    result = beans.schedule(args=(100000,), eta=in_an_hour)
    assert isinstance(result, TaskResultWrapper)
    assert huey.pending_count() == 0
    task, = huey.scheduled()
    assert task.data == ((100000,), {})
    assert abs(task.eta - in_an_hour.timestamp()) < 0.001


def test_schedule_with_a_delay(huey, beans):
    before = time.time()
    beans.schedule(args=(100000,), delay=(60 * 60))
    task, = huey.scheduled()
    assert before + 3600 <= task.eta <= time.time() + 3600


def test_schedule_takes_keyword_arguments(huey):
    @huey.task()
    def echo(a, b):
        return [a, b]

    result = echo.schedule(args=[1], kwargs={'b': 2})
    drain(huey)
    assert result() == [1, 2]


@pytest.mark.parametrize('kind_of_time', ['delay', 'eta'])
def test_schedule_runs_at_the_time_and_not_before(make, clock, kind_of_time):
    huey = make()

    @huey.task()
    def add(a, b):
        return a + b

    time = 60 if kind_of_time == 'delay' else datetime.datetime.fromtimestamp(clock.now() + 60)
    result = add.schedule(args=(1, 2), **{kind_of_time: time})
    clock.advance(59.9)
    assert drain(huey) == []
    clock.advance(0.2)
    drain(huey)
    assert result() == 3


@pytest.mark.parametrize('arguments', [{}, {'delay': 0}, {'delay': 0.0}], ids=['neither', 'delay 0', 'delay 0.0'])
def test_schedule_without_a_time_is_a_call(huey, beans, arguments):
    result = beans.schedule(args=(3,), **arguments)
    assert huey.pending_count() == 1
    drain(huey)
    assert result() == 'Counted 3 beans'


def test_an_eta_that_is_over_runs_at_once(huey, beans):
    result = beans.schedule(args=(3,), eta=NOW() - datetime.timedelta(days=1))
    assert huey.pending_count() == 1
    drain(huey)
    assert result() == 'Counted 3 beans'


def test_a_fraction_of_a_second_counts(make, clock):
    huey = make()

    @huey.task()
    def work():
        return 1

    work.schedule(delay=0.25)
    clock.advance(0.2)
    assert drain(huey) == []
    clock.advance(0.1)
    assert len(drain(huey)) == 1


def test_schedule_without_a_result_store_returns_none(make):
    huey = make(result_store=False)

    @huey.task()
    def work():
        return 1

    assert work.schedule(delay=60) is None
    assert work.schedule(eta=NOW() + datetime.timedelta(days=1)) is None
    assert huey.scheduled_count() == 2


def test_scheduled_tasks_keep_their_retries(make, clock):
    huey = make()
    fail_first, runs = define(huey, retries=2)
    fail_first.schedule(args=(2,), delay=10)
    clock.advance(10)
    drain(huey)
    assert len(runs) == 3


def test_a_task_id_of_ones_own(huey, beans):
    result = beans.schedule(args=(3,), task_id='my-id')
    assert result.task_id == result.task.task_id == 'my-id'
    drain(huey)
    assert huey.result('my-id') == 'Counted 3 beans'


# -- convert_utc ----------------------------------------------------------------------------------------------

@pytest.fixture
def far_from_utc(monkeypatch):
    """This process is eleven hours ahead of UTC."""
    monkeypatch.setenv('TZ', 'East-11')
    time.tzset()
    yield 11 * 3600
    monkeypatch.undo()
    time.tzset()


def noon(zone=None):
    return datetime.datetime(2035, 6, 1, 12, 0, 0, 250_000, tzinfo=zone)


UTC = datetime.timezone.utc


def test_convert_utc_takes_a_naive_eta_for_local_time(huey, beans, far_from_utc):
    beans.schedule(args=(1,), eta=noon())
    assert huey.scheduled()[0].eta == noon(UTC).timestamp() - far_from_utc


def test_without_convert_utc_a_naive_eta_is_utc(huey, beans, far_from_utc):
    beans.schedule(args=(1,), eta=noon(), convert_utc=False)
    assert huey.scheduled()[0].eta == noon(UTC).timestamp()


def test_in_localtime_mode_a_naive_eta_is_local_time_either_way(make, far_from_utc):
    huey = make(utc=False)

    @huey.task()
    def work():
        return 1

    for convert_utc in (True, False):
        work.schedule(eta=noon(), convert_utc=convert_utc)
    assert {task.eta for task in huey.scheduled()} == {noon(UTC).timestamp() - far_from_utc}


def test_an_aware_eta_says_itself_what_it_means(huey, beans, far_from_utc):
    zones = UTC, datetime.timezone(datetime.timedelta(hours=-7))
    for zone in zones:
        for convert_utc in (True, False):
            beans.schedule(args=(1,), eta=noon(zone), convert_utc=convert_utc)
    found = sorted(task.eta for task in huey.scheduled())
    assert found == [noon(UTC).timestamp()] * 2 + [noon(zones[1]).timestamp()] * 2


def test_a_delay_is_the_same_whatever_convert_utc_says(make, clock, far_from_utc):
    huey = make()

    @huey.task()
    def work():
        return 1

    work.schedule(delay=60, convert_utc=False)
    work.schedule(delay=60, convert_utc=True)
    clock.advance(60)
    assert len(drain(huey)) == 2


def test_the_execute_time_is_naive_utc_with_its_microseconds(huey, beans, far_from_utc):
    beans.schedule(args=(1,), eta=noon(UTC))
    assert huey.scheduled()[0].execute_time == noon()


# -- {function}.call_local, {function}.task_class -------------------------------------------------------------

def test_call_local_calls_the_function_without_enqueueing(huey, beans):
    assert beans.call_local(1337) == 'Counted 1337 beans'
    assert huey.pending_count() == 0


def test_call_local_is_the_plain_function_also_when_eager(make):
    huey = make(always_eager=True)

    @huey.task()
    def fail():
        raise ValueError('as it is')

    with pytest.raises(ValueError, match='as it is'):
        fail.call_local()


def test_task_class_is_the_class_of_the_functions_tasks(huey, beans):
    cls = beans.task_class
    assert issubclass(cls, QueueTask)
    assert f'{cls.__module__}.{cls.__name__}' == f'{__name__}.queuecmd_count_some_beans'
    assert isinstance(beans(1).task, cls)


def test_a_task_made_of_the_class_can_be_enqueued(huey, beans):
    result = huey.enqueue(beans.task_class(((5,), {})))
    drain(huey)
    assert result() == 'Counted 5 beans'
