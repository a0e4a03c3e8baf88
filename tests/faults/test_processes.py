"""Consumers are killed and stopped, one or all, at every point of their work: nothing is lost, every second run has a reason."""

from __future__ import annotations

import random
import signal
import sys
import time
from pathlib import Path

import pytest

from geventhuey import ConfigurationError, TaskException, TaskLost
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

@pytest.mark.slow
def test_ten_thousand_tasks_run_at_once_with_256_open_files(trial):
    trial.give_many(10_000, 8.0)
    program = trial.run('bash', '-c', 'ulimit -n 256; exec "$0" -m geventhuey.cli.consumer app.huey -w 10000', sys.executable)
    trial.wait_started(10_000, 60)
    runs = [run for each in trial.runs().values() for run in each]
    assert max(run.started for run in runs) < min((run.ended for run in runs if run.ended), default=time.time())
    trial.judge_once(90)
    assert program.lines('only 256 files may be open')


@KINDS
def test_a_task_that_eats_all_memory_fails_alone(trial, kind):
    program = trial.start('-k', kind, '-w', '20')
    trial.give_many(19, 1.0)
    greedy = trial.send('fail', 0, 'MemoryError')
    with pytest.raises(TaskException, match='MemoryError'):
        greedy.get(blocking=True, timeout=30)
    trial.judge_once(tracebacks=1)
    assert program.process.poll() == 0


# -- tasks that hold everything up, clocks that jump, children ----------------------------------------------------

@pytest.mark.slow
def test_a_task_that_holds_the_interpreter_longer_than_the_lease_makes_its_consumer_a_zombie_that_changes_nothing(trial):
    zombie = trial.start('-w', '10', lease=1)
    trial.give_many(5, 2.0)
    task = trial.task('hold_gil', 4.0)
    trial.huey.enqueue(task)
    trial.history.sent(task.task_id)
    trial.wait_started(6)
    began = time.time()
    other = trial.start('-w', '10', lease=1)
    other.wait_for(r'is dead: \d+ of its tasks are back', bound=90)
    trial.history.fault('held up', zombie.pid, began, time.time(), {*trial.results, task.task_id})
    report = trial.judge(bound=120)
    assert report.explained == {'held up': 6}
    assert zombie.lines('was not ours any more')


def test_a_clock_that_jumps_by_an_hour_makes_nobody_dead_and_nothing_early(trial, tmp_path):
    jump = tmp_path / 'jump'
    program = start_at_point(trial, '-w', '10', POINT_CLOCK=str(jump))
    other = trial.start('-w', '10')
    for seconds in ('0', '3600', '-3600', '0'):
        jump.write_text(seconds)
        trial.give_many(20, 0.01)
        begun = time.monotonic()
        late = trial.huey.add_schedule(trial.task('whose', 0, 0.0), 1.0)
        assert late.get(blocking=True, timeout=30) in (program.pid, other.pid)
        assert 0.99 < time.monotonic() - begun < 10
    trial.wait_idle()
    assert {len(runs) for runs in trial.runs().values()} == {1} and len(trial.runs()) == 80
    for each in (program, other):
        assert not each.lines('is dead') + each.lines('taken for dead')
        assert each.stop() == 0


@pytest.mark.slow
def test_consumers_that_are_killed_around_the_tick_cost_no_tick_and_make_none_twice(trial):
    """A periodic task that a killed consumer was running runs again; each tick is enqueued once all the same."""
    from tests.consumer.test_periodic import tick, ticks
    dice, kills = random.Random(5), 6
    programs = [tick(trial, 0.5, 'red') for _ in range(2)]
    for _ in range(kills):
        time.sleep(-time.time() % 0.5 + dice.uniform(-0.1, 0.1) % 0.5)     # around the tick
        programs.pop(0).kill()
        programs.append(tick(trial, 0.5, 'red'))
    trial.journal.wait_for('red', kills + 5)
    for program in programs:
        assert program.stop() == 0
    ran = ticks(trial, 'red')
    assert sorted(set(ran)) == list(range(min(ran), max(ran) + 1)), 'a tick is missing'
    assert len(ran) - len(set(ran)) <= kills
    assert not trial.huey.dead()


@KINDS
@pytest.mark.parametrize('how', ['subprocess', 'multiprocessing', 'fork'])
def test_a_task_may_have_children(trial, kind, how):
    program = trial.start('-k', kind, '-w', '10')
    children = [trial.send('start_child', how) for _ in range(4)]
    trial.give_many(50, 0.2)
    assert [child.get(blocking=True, timeout=60) for child in children] == [42] * 4
    trial.judge_once()
    assert program.process.poll() == 0


# -- what is too large --------------------------------------------------------------------------------------------

def test_what_is_too_large_is_refused_by_its_producer_and_by_a_consumer(trial):
    with pytest.raises(ConfigurationError, match='larger than 16777216: put the data elsewhere'):
        trial.send('echo', 'x' * (17 << 20))
    message = trial.huey.registry.message(trial.task('echo', 'small'), 1)
    trial.redis.rpush(trial.keys.queue('default'), message.encode() + bytes(17 << 20))
    program = trial.start('-w', '4')
    with pytest.raises(TaskLost, match='larger than 16777216'):
        trial.huey.result(message.id, blocking=True, timeout=30)
    large = trial.send('repeat', 'x', 17 << 20)
    with pytest.raises(TaskException, match='the result of .* is larger than 16777216'):
        large.get(blocking=True, timeout=30)
    trial.give_many(5)
    trial.judge_once(kept={'dead', 'dead_order'}, tracebacks=1)
    assert program.process.poll() == 0
