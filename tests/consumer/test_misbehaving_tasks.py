"""Tasks that raise anything, leak a timeout, or block everybody: their neighbours and the consumer do not suffer."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from geventhuey import TaskException
from tests.consumer.kit import APPS, Work, wait_until

#: What a task may raise, and what its error is called.
KINDS = {
    'SystemExit': 'SystemExit(1)', 'exit': 'SystemExit(3)', 'KeyboardInterrupt': 'KeyboardInterrupt()', 'StopIteration': 'StopIteration()',
    'Boom': "Boom('boom')", 'GeneratorExit': 'GeneratorExit()', 'Unkind': 'Unkind', 'BaseException': "BaseException('base')",
    'RecursionError': 'RecursionError', 'MemoryError': 'MemoryError()', 'GreenletExit': "GreenletExit('bye')",
    'interrupted itself': "TaskInterrupted('not by the consumer')",
}
GREEN_KINDS = {'Timeout': '<Timeout at ', 'killed': 'GreenletExit()'}


def check_neighbours(work: Work, neighbours: list, bound: float = 60) -> None:
    """All of them ended with their results, and ran once."""
    assert [result.get(blocking=True, timeout=bound) for result in neighbours] == [n * 10 for n in range(len(neighbours))]
    work.wait_idle()
    assert set(work.journal.times('start').values()) == {1}


def line_of(path: Path, part: str, after: str) -> int:
    """The number of the first line with ``part`` behind the first one with ``after``."""
    lines = path.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if after in line)
    return next(number for number, line in enumerate(lines[first:], first + 1) if part in line)


@pytest.mark.parametrize(('options', 'kinds', 'neighbours'), [
    (('-w', '600'), KINDS | GREEN_KINDS, 499), (('-k', 'thread', '-w', '60'), KINDS, 49)], ids=['greenlet', 'thread'])
def test_whatever_a_task_raises_is_its_own_affair(work, options, kinds, neighbours):
    consumer = work.consume(*options)
    others = [work.send('rest', n, 1.0) for n in range(neighbours)]
    work.journal.wait_for('start', neighbours)
    failed = {kind: work.send('fail', kind.replace(' ', '-'), kind) for kind in kinds}
    for kind, text in kinds.items():
        with pytest.raises(TaskException) as caught:
            failed[kind].get(blocking=True, timeout=60)
        assert str(caught.value).startswith(text)
        if kind != 'Unkind':
            assert 'raise_it' in str(caught.value.metadata['traceback'])
    check_neighbours(work, others)
    assert {entry.pid for entry in work.journal.entries()} == {consumer.pid}
    assert len(consumer.lines(') failed:')) + len(consumer.lines(' failed: ')) >= len(kinds)
    assert consumer.stop() == 0


@pytest.mark.parametrize('kind', ['SystemExit', 'KeyboardInterrupt', 'GreenletExit', 'Boom'])
def test_a_greenlet_that_a_task_left_behind_may_raise_anything(work, kind):
    consumer = work.consume('-w', '100')
    others = [work.send('rest', n, 0.5) for n in range(50)]
    work.journal.wait_for('start', 50)
    assert work.send('spawn', 'spawner', kind).get(blocking=True, timeout=30) == 'spawner'
    check_neighbours(work, others)
    assert consumer.process.poll() is None
    assert consumer.stop() == 0


# -- timeouts that were forgotten ------------------------------------------------------------------------------

def test_a_forgotten_timeout_that_fires_while_its_worker_is_parked_harms_nobody(work):
    consumer = work.consume('-w', '500')
    others = [work.send('rest', n, 1.0) for n in range(499)]
    work.journal.wait_for('start', 499)
    assert work.send('leak_timeout', 'leak', 0.05).get(blocking=True, timeout=30) == 'leak'
    check_neighbours(work, others)
    assert work.send('add', 1, 2).get(blocking=True, timeout=30) == 3
    assert 'Traceback' not in consumer.text()
    assert consumer.stop() == 0


def test_a_forgotten_timeout_does_not_strike_the_next_task_of_its_worker(work):
    consumer = work.consume('-w', '1')
    for turn in range(3):
        assert work.send('leak_timeout', f'leak-{turn}', 0.3).get(blocking=True, timeout=30)
    others = [work.send('rest', 0, 1.0), work.send('rest', 1, 0.1)]
    check_neighbours(work, others)
    assert 'Traceback' not in consumer.text()
    assert consumer.stop() == 0


def test_one_worker_serves_many_tasks_whatever_they_do_with_it(work):
    consumer = work.consume('-w', '1')
    ways = ('nothing', 'log', 'local', 'timeout', 'children', 'thread', 'wait', 'fail')
    workers = [work.send('who_runs_me', how).get(blocking=True, timeout=30) for how in ways * 3]
    assert len(set(workers)) == 1
    assert consumer.stop() == 0


@pytest.mark.parametrize('while_it', ['runs', 'is over'])
def test_a_task_may_kill_the_greenlet_of_another(work, while_it):
    consumer = work.consume('-w', '4')
    victims = [work.send('remember') for _ in range(2)]
    work.journal.wait_for('remember', 2)
    if while_it == 'is over':
        assert len({victim.get(blocking=True, timeout=30) for victim in victims}) == 2
    assert work.send('kill_remembered').get(blocking=True, timeout=15) == 2
    if while_it == 'runs':
        for victim in victims:
            with pytest.raises(TaskException, match='GreenletExit'):
                victim.get(blocking=True, timeout=15)
    check_neighbours(work, [work.send('rest', n, 0.1) for n in range(10)])
    assert consumer.stop() == 0


def test_a_worker_does_not_keep_what_its_task_returned_and_raised(work):
    consumer = work.consume('-w', '50')
    for _ in range(3):
        results = [work.send('add', n, 1) for n in range(50)] + [work.send('fail', n, 'Boom') for n in range(50)]
        for result in results[:50]:
            result.get(blocking=True, timeout=30)
        work.wait_idle()
    count = work.send('count_greenlets').get(blocking=True, timeout=30)
    assert count <= 50 + 20
    assert consumer.stop() == 0


def test_a_log_that_waits_while_a_forgotten_timeout_fires_changes_no_outcome(work, tmp_path):
    (tmp_path / 'logging_app.py').write_text(f"""
import logging, sys
import gevent
sys.path.insert(0, {str(APPS)!r})
from work import make_huey

class Slow(logging.Handler):
    def emit(self, record):
        if 'leak_and_fail' in record.getMessage():
            gevent.sleep(0.5)

logging.getLogger().addHandler(Slow())
huey = make_huey()
""")
    consumer = work.run(*consumer_command('logging_app.huey', '-w', '2'), cwd=tmp_path)
    for n in range(4):
        result = work.send('leak_and_fail', n, 0.1)
        with pytest.raises(TaskException, match='with a timeout that ticks on'):
            result.get(blocking=True, timeout=30)
    assert work.send('add', 1, 2).get(blocking=True, timeout=30) == 3
    work.wait_idle()
    assert set(work.journal.times('start').values()) == {1}
    assert consumer.stop() == 0


def consumer_command(path: str, *options: str) -> tuple[str, ...]:
    import sys
    return (sys.executable, '-m', 'geventhuey.cli.consumer', path, *options)


# -- blocking --------------------------------------------------------------------------------------------------

def check_blamed(consumer, task: str) -> None:
    """The log names the task that blocks the hub, and its line."""
    block = consumer.wait_for(r'the hub has been blocked for [\d.]+ s by (\w+): [0-9a-f-]{36}: '
                              r'no other task goes on meanwhile\n((?:  .*\n)+)')
    assert block[1] == task
    line = line_of(APPS / 'work.py', 'spin(seconds)', f'def {task}(')
    assert f'work.py:{line} in {task}: spin(seconds)' in block[2]


@pytest.mark.parametrize('task', ['block', 'block_with_lock'])
@pytest.mark.slow
def test_a_task_that_blocks_longer_than_the_lease_is_blamed_and_nothing_runs_twice(work, task):
    consumer, watcher = work.consume('-w', '500', '--lease', '3'), work.consume('-w', '1', '--lease', '3')
    others = [work.send('rest', n, 5.0) for n in range(499)]
    work.journal.wait_for('start', 499)
    blocker = work.send(task, 'blocker', 4.5)
    blocked = work.journal.wait_for('start', 500)
    pid = next(entry.pid for entry in blocked if entry.n == 'blocker')
    guilty = consumer if pid == consumer.pid else watcher
    assert blocker.get(blocking=True, timeout=60) == 'blocker'
    check_blamed(guilty, task)
    check_neighbours(work, others)
    guilty.wait_for('the hub goes on, after [45]')
    assert not consumer.lines('is dead') + watcher.lines('is dead')
    assert not consumer.lines('taken for dead') + watcher.lines('taken for dead')
    assert consumer.stop() == watcher.stop() == 0


@pytest.mark.slow
def test_a_task_that_blocks_for_twenty_seconds_is_blamed_and_nothing_runs_twice(work):
    consumer = work.consume('-w', '500')
    others = [work.send('rest', n, 2.0) for n in range(499)]
    work.journal.wait_for('start', 499)
    begun = time.monotonic()
    assert work.send('block', 'blocker', 20.0).get(blocking=True, timeout=60) == 'blocker'
    assert time.monotonic() - begun >= 20
    check_blamed(consumer, 'block')
    check_neighbours(work, others)
    assert len(consumer.lines('has been blocked')) == 2      # after 1 s and after 10 s
    wait_until(lambda: consumer.lines('the hub goes on, after'))
    assert consumer.stop() == 0
