"""A consumer inside another program: started and stopped from anywhere, any number of times; its parameters; its health."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time

import gevent
import pytest

from geventhuey import ConfigurationError, MemoryHuey
from geventhuey.consumer.consumer import Consumer
from geventhuey.consumer.options import Options
from tests.consumer.apps.work import make_huey
from tests.consumer.kit import Work, wait_until

SITUATIONS = pytest.mark.parametrize(('patched', 'kind'), [
    ('patched', 'greenlet'), ('patched', 'thread'), ('plain', 'greenlet'), ('plain', 'thread')])
STORAGES = pytest.mark.parametrize('storage', ['memory', 'redis'])


def run_embedded(work: Work, storage: str, patched: str, kind: str, scenario: str) -> dict:
    """What a program of this kind printed."""
    environment = {} if storage == 'redis' else {'WORK_URL': 'memory://'}
    program = work.run(sys.executable, 'embed.py', patched, kind, scenario, **environment)
    assert program.wait(60) == 0, program.text()
    assert 'Traceback' not in program.text()
    return json.loads(program.text().splitlines()[-1])


@pytest.mark.parametrize(('storage', 'patched', 'kind'), [
    ('redis', 'patched', 'greenlet'), ('redis', 'patched', 'thread'), ('redis', 'plain', 'greenlet'), ('redis', 'plain', 'thread'),
    ('memory', 'patched', 'thread'), ('memory', 'plain', 'greenlet')])
def test_starting_and_stopping_over_and_over_leaves_nothing_behind(work, storage, patched, kind):
    seen = run_embedded(work, storage, patched, kind, 'cycles')
    for what, before in seen['before'].items():
        assert seen['after'][what] <= before + 3, f'{what}: {seen}'      # of twelve cycles


@STORAGES
@SITUATIONS
def test_several_threads_stop_it_at_once(work, storage, patched, kind):
    assert run_embedded(work, storage, patched, kind, 'stop_from_thread') == {'ended': [0, 0, 0], 'result': 10, 'pending': 0}


@SITUATIONS
def test_a_task_stops_the_consumer_that_runs_it_and_goes_back(work, patched, kind):
    seen = run_embedded(work, 'redis', patched, kind, 'stop_from_task')
    assert seen['pending'] == 1
    assert work.in_flight() == 0
    assert work.consumers() == {}


@STORAGES
@SITUATIONS
def test_an_error_in_the_block_comes_out_when_the_consumer_has_stopped(work, storage, patched, kind):
    assert run_embedded(work, storage, patched, kind, 'with_that_raises') == {'error': 'mine', 'result': 10, 'running': 0}


@pytest.mark.parametrize('kind', ['greenlet', 'thread'])
def test_the_main_thread_of_an_unpatched_program_may_block(work, kind):
    assert run_embedded(work, 'redis', 'plain', kind, 'blocked_main') == {'results': [1, 2, 3, 4, 5], 'finished': 5}


@pytest.mark.parametrize(('storage', 'patched'), [('redis', 'patched'), ('memory', 'plain')])
def test_threads_that_end_after_the_consumer_harm_nobody(work, storage, patched):
    assert run_embedded(work, storage, patched, 'thread', 'threads_still_run') == {'pending': 1, 'left': 0}
    work.journal.wait_for('end', 2)


# -- parameters ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(('option', 'value'), [
    ('workers', 0), ('workers', -1), ('workers', '4'), ('workers', 1.5), ('workers', True), ('workers', None), ('workers', 20_000),
    ('worker_type', 'fork'), ('worker_type', None), ('processes', 0), ('scheduler_interval', -1), ('scheduler_interval', float('nan')),
    ('initial_delay', -0.1), ('max_delay', -1), ('backoff', 0.99), ('health_check_interval', 0), ('shutdown_timeout', -1),
    ('shutdown_timeout', float('nan')), ('shutdown_timeout', 'x'), ('lease', 0.1), ('lease', 3601), ('max_deliveries', 0),
    ('max_deliveries', 256), ('name', 'two words'), ('name', 'x' * 101), ('name', 7)])
def test_a_parameter_that_makes_no_sense_is_refused_by_its_name(option, value):
    with pytest.raises(ConfigurationError, match=option):
        Consumer(MemoryHuey(), **{option: value})
    with pytest.raises(ValueError):         # as Huey has it
        MemoryHuey().create_consumer(**{option: value})


def test_a_parameter_that_does_not_exist_is_refused():
    with pytest.raises(ConfigurationError, match='wrokers'):
        Consumer(MemoryHuey(), wrokers=3)


@pytest.mark.parametrize('options', [{'worker_type': 'process'}, {'processes': 2}])
def test_several_processes_are_the_commands_business(options):
    with pytest.raises(ConfigurationError, match='geventhuey-consumer'):
        Consumer(MemoryHuey(), **options)


def test_the_parameters_and_defaults_are_hueys():
    options = Consumer(MemoryHuey()).options
    assert (options.workers, options.periodic, options.initial_delay, options.backoff, options.max_delay, options.utc) == \
        (1, True, 0.1, 1.15, 10.0, True)
    assert (options.scheduler_interval, options.worker_type, options.check_worker_health, options.health_check_interval) == \
        (1, 'thread', True, 1)
    assert Options(worker_type='gevent').worker_type == 'greenlet'
    assert (Options(scheduler_interval=0.1).scheduler_interval, Options(scheduler_interval=120).scheduler_interval) == (1, 60)
    huey_options = {'workers': 3, 'periodic': False, 'initial_delay': 0.2, 'backoff': 2.0, 'max_delay': 5.0, 'utc': False,
                    'scheduler_interval': 5, 'worker_type': 'thread', 'check_worker_health': False, 'health_check_interval': 2}
    assert MemoryHuey().create_consumer(**huey_options).options.workers == 3


def test_an_eager_application_needs_no_consumer(caplog):
    huey = MemoryHuey(always_eager=True)
    consumer = Consumer(huey)
    assert 'always_eager is on' in caplog.text
    with pytest.raises(ConfigurationError, match='always_eager'):
        consumer.start()
    with pytest.raises(ConfigurationError, match='always_eager'):
        with huey.consumer():
            pass
    huey.immediate = False
    with consumer:
        pass


def test_it_is_started_once_at_a_time():
    consumer = Consumer(MemoryHuey())
    with pytest.raises(ConfigurationError, match='not been started'):
        consumer.statistics()
    consumer.stop()
    with consumer:
        with pytest.raises(ConfigurationError, match='started already'):
            consumer.start()
    consumer.stop()
    consumer.start().stop()


def test_greenlets_in_an_unpatched_program_work_and_are_warned_of(tmp_path):
    huey = make_huey('greenlets', 'memory://')
    add = next(cls for cls in huey.registry if cls.task_name == 'add')
    with pytest.warns(RuntimeWarning, match='gevent has not patched'):
        with huey.consumer(worker_type='greenlet', workers=2):
            assert huey.enqueue(add(((1, 2), {}))).get(blocking=True, timeout=20) == 3


# -- health ----------------------------------------------------------------------------------------------------

@pytest.fixture
def counted():
    """An application in memory whose task counts its runs, and the counts."""
    huey, runs, lock = MemoryHuey(), {}, threading.Lock()

    @huey.task()
    def count(n):
        with lock:
            runs[n] = runs.get(n, 0) + 1
        return n

    return count, runs


def kill(consumer: Consumer, part: object, greenlet: str) -> None:
    """A part's greenlet has died."""
    over = threading.Event()

    def step() -> None:
        getattr(part, greenlet).kill(block=False)
        gevent.spawn_later(0.01, over.set)
    consumer._host.call(step)
    assert over.wait(20)


@pytest.mark.parametrize(('name', 'greenlet'), [
    ('Settler', '_greenlet'), ('Fetcher', '_greenlet'), ('Fetcher', '_ear'), ('Reaper', '_greenlet'), ('Audit', '_greenlet'),
    ('Scheduler', '_greenlet')])
def test_a_part_that_died_is_started_again(counted, caplog, name, greenlet):
    caplog.set_level(logging.INFO)
    count, runs = counted
    with Consumer(count._huey, workers=4, health_check_interval=0.05) as consumer:
        assert count(-1).get(blocking=True, timeout=20) == -1
        engine = consumer._engine
        part = next(part for part in (engine.settler, engine.fetcher, *engine._looking) if part.name == name)
        for turn in range(3):
            kill(consumer, part, greenlet)
            wait_until(lambda turn=turn: caplog.text.count(f'{name} died, restarting.') == turn + 1)
            results = [count(n) for n in range(turn * 100, turn * 100 + 100)]
            assert [result.get(blocking=True, timeout=20) for result in results] == list(range(turn * 100, turn * 100 + 100))
    assert set(runs.values()) == {1}
    assert caplog.text.count('died, restarting') == 3


def test_nobody_looks_after_the_parts_when_that_is_not_wanted(counted, caplog):
    count, _ = counted
    with Consumer(count._huey, workers=4, check_worker_health=False, health_check_interval=0.01) as consumer:
        kill(consumer, consumer._engine.fetcher, '_greenlet')
        result = count(1)
        time.sleep(0.2)
        assert result.get() is None
    assert 'died' not in caplog.text


def test_an_error_in_a_part_ends_one_step_only(counted, caplog, monkeypatch):
    count, runs = counted
    failures = [ValueError('first'), KeyError('second')]
    storage = count._huey.storage
    settle = storage.settle

    def failing(*args):
        if failures:
            raise failures.pop()
        return settle(*args)

    monkeypatch.setattr(storage, 'settle', failing)
    with Consumer(count._huey, workers=4):
        assert count(1).get(blocking=True, timeout=20) == 1
    assert runs == {1: 1}
    assert caplog.text.count('Settler: an error of its own, it goes on') == 2
