"""Consumers are killed and stopped, one or all, at every point of their work: nothing is lost, every second run has a reason."""

from __future__ import annotations

import random
import signal
import sys
import time
from pathlib import Path

import pytest

from geventhuey import TaskException
from tests.consumer.kit import Program, wait_until
from tests.faults.kit import LEASE, Trial

POINT = Path(__file__).resolve().parent / 'apps'
KINDS = pytest.mark.parametrize('kind', ['greenlet', 'thread'])


def start_at_point(trial: Trial, *options: str, ready: bool = True, **environment: str) -> Program:
    """A consumer whose process does what the environment says."""
    known = set(trial.consumers())
    command = (sys.executable, '-m', 'geventhuey.cli.consumer', 'point.huey', '--lease', str(LEASE), *options)
    program = trial.run(*command, cwd=POINT, **environment)
    if ready:
        wait_until(lambda: set(trial.consumers()) - known or program.process.poll() is not None)
    return program


def wait_killed(trial: Trial, program: Program, began: float) -> None:
    """It has killed itself, and the history knows what it held."""
    assert program.wait() == -signal.SIGKILL, program.text()
    trial.history.fault('kill', program.pid, began, time.time(), trial.held_by(program.pid))


# -- kill -9 ------------------------------------------------------------------------------------------------------

def test_500_tasks_of_a_killed_consumer_run_again(trial):
    first, second = trial.start('-w', '500'), trial.start('-w', '500')
    trial.give_many(900, 1.0)
    trial.wait_started(900)
    held = trial.kill(first)
    assert len(held) >= 300
    report = trial.judge()
    assert report.explained['kill'] >= 300
    assert max(report.recoveries) < 6
    assert 'is dead' in second.text()


@pytest.mark.slow
def test_many_kills_one_after_the_other_lose_nothing(trial):
    dice = random.Random(4)
    programs = [trial.start('-w', '50') for _ in range(3)]
    for n in range(8):
        trial.give_many(60, dice.uniform(0, 0.3))
        time.sleep(dice.uniform(0.1, 0.4))              # any moment will do
        trial.kill(programs.pop(0))
        programs.append(trial.start('-w', '50'))
        assert n < 8
    trial.judge()


@pytest.mark.parametrize('point', ['before settle', 'after settle', 'before start'])
def test_a_consumer_that_dies_at_this_point_loses_nothing(trial, point):
    began = time.time()
    dying = start_at_point(trial, '-w', '20', POINT_KILL=point)
    trial.give_many(20, 0.0)
    wait_killed(trial, dying, began)
    trial.start('-w', '20')
    trial.judge()
    ran = [[run.pid == dying.pid for run in runs] for runs in trial.runs().values()]
    if point == 'before settle':
        assert [True, False] in ran and [True] not in ran
    elif point == 'after settle':
        assert [True] in ran, 'what it has settled does not run again'
    else:
        assert ran == [[False]] * 20, 'what it has not begun runs once'


@KINDS
def test_when_all_consumers_are_killed_the_next_one_finds_their_tasks_at_once(trial, kind):
    programs = [trial.start('-k', kind, '-w', '10', lease=15) for _ in range(3)]
    trial.give_many(30, 2.0)
    trial.wait_started(30)
    for program in programs:
        trial.kill(program)
    begun = time.time()
    trial.start('-w', '30', lease=15)
    trial.wait_started(60)
    assert time.time() - begun < 6
    assert trial.judge().explained['kill'] == 30


def test_a_process_of_another_host_is_given_up_when_it_is_silent_and_not_before(trial):
    elsewhere = start_at_point(trial, '-w', '10', POINT_BOOT='another-boot:pid:[4026531836]')
    trial.give_many(10, 1.0)
    trial.wait_started(10)
    trial.start('-w', '10')
    trial.kill(elsewhere)
    report = trial.judge()
    assert report.explained['kill'] == 10
    assert min(report.recoveries) > LEASE * 0.6 and max(report.recoveries) < LEASE + 4


# -- SIGSTOP ------------------------------------------------------------------------------------------------------

@KINDS
def test_a_consumer_that_stands_still_longer_than_the_lease_changes_nothing_when_it_goes_on(trial, kind):
    zombie = trial.start('-k', kind, '-w', '10')
    trial.give_many(10, 1.0)
    trial.wait_started(10)
    trial.start('-w', '10')
    with trial.stopped(zombie) as held:
        assert len(held) == 10
        trial.wait_started(20)
    zombie.wait_for('was not ours any more', count=10)
    report = trial.judge()
    assert report.explained == {'stop': 10}


def test_a_consumer_that_stands_still_for_less_than_the_lease_is_not_noticed(trial):
    program = trial.start('-w', '10', lease=4)
    other = trial.start('-w', '10', lease=4)
    trial.give_many(20, 1.0)
    trial.wait_started(20)
    with trial.stopped(program):
        time.sleep(1.5)         # not a wait: this is the fault
    trial.judge_once()
    for each in (program, other):
        assert not each.lines('is dead') + each.lines('taken for dead')


# -- reapers ------------------------------------------------------------------------------------------------------

def test_many_who_find_the_same_dead_consumer_take_each_task_back_once(trial):
    dead = trial.start('-w', '300')
    trial.give_many(300, 4.0)
    trial.wait_started(300)
    others = [trial.start('-w', '60') for _ in range(5)]
    held = trial.kill(dead)
    report = trial.judge()
    assert report.explained['kill'] == len(held) >= 200
    found = [other.wait_for(r'(\d+) of its tasks are back')[1] for other in others if other.lines('is dead')]
    assert sum(map(int, found)) == len(held)


def test_a_reaper_that_is_killed_in_the_middle_is_followed_by_another(trial):
    dead = trial.start('-w', '100')
    trial.give_many(100, 1.0)
    trial.wait_started(100)
    began = time.time()
    reaper = start_at_point(trial, '-w', '1', POINT_KILL='in a reap', POINT_CHUNK='10')
    trial.kill(dead)
    wait_killed(trial, reaper, began)
    assert len(trial.held_by(dead.pid)) == 90, 'it has taken ten back, and no more'
    trial.start('-w', '100')
    trial.judge()


# -- rolling restarts ---------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_a_rolling_restart_of_many_consumers_under_load_costs_nothing(trial):
    programs = [trial.start('-w', '40', '-t', '10', lease=5) for _ in range(8)]
    for program in programs:
        trial.give_many(120, 0.05)
        program.signal()
        trial.start('-w', '40', '-t', '10', lease=5)
    for program in programs:
        assert program.wait() == 0
    trial.judge_once()


@pytest.mark.slow
def test_a_rolling_restart_that_does_not_wait_for_tasks_costs_nothing_but_their_second_run(trial):
    programs = [trial.start('-w', '40', '-t', '0.1', lease=5) for _ in range(4)]
    for program in programs:
        trial.give_many(60, 1.0)
        began = time.time()
        held = trial.held_by(program.pid)
        program.signal()
        assert program.wait() == 0
        interrupted = {task_id for task_id, runs in trial.runs().items() if any(run.how == 'interrupted' for run in runs)}
        trial.history.fault('SIGTERM', program.pid, began, time.time(), held | interrupted)
        trial.start('-w', '40', '-t', '10', lease=5)
    trial.judge()
    assert {run.deliveries for runs in trial.runs().values() for run in runs} == {0}, 'a stop counts as no death'


# -- limits of the system -----------------------------------------------------------------------------------------

def test_a_consumer_that_may_open_few_files_runs_all_the_same(trial):
    command = 'ulimit -n 64; exec "$0" -m geventhuey.cli.consumer app.huey -w 500 --lease 2'
    program = trial.run('bash', '-c', command, sys.executable)
    trial.give_many(600, 0.3)
    trial.judge_once()
    assert program.lines('only 64 files may be open')


@KINDS
def test_a_task_that_eats_all_memory_fails_alone(trial, kind):
    program = trial.start('-k', kind, '-w', '20')
    trial.give_many(19, 1.0)
    greedy = trial.send('fail', 0, 'MemoryError')
    with pytest.raises(TaskException, match='MemoryError'):
        greedy.get(blocking=True, timeout=30)
    trial.judge_once(tracebacks=1)
    assert program.process.poll() == 0
