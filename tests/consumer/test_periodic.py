"""Periodic tasks with short minutes: once per tick, however many consumers; what was missed; revocations."""

from __future__ import annotations

import sys
import time

import pytest

from geventhuey import MemoryHuey
from geventhuey.clock import SyncedClock
from geventhuey.consumer.component import Outage
from geventhuey.consumer.scheduler import Scheduler
from tests.consumer.kit import Program, Work, wait_until

TICK = 0.5


def tick(work: Work, seconds: float, *names: str, **environment: str) -> Program:
    """A consumer with ticks of so many seconds; it has registered."""
    known = set(work.consumers())
    program = work.run(sys.executable, 'ticking.py', str(seconds), *names, **environment)
    wait_until(lambda: set(work.consumers()) - known, what=lambda: f'a consumer that registers:\n{program.text()}\n')
    return program


def ticks(work: Work, name: str, pid: int | None = None) -> list[int]:
    """The ticks that a task has run for, in the order of its runs."""
    return [int(entry.n) for entry in work.journal.entries(name) if pid in (None, entry.pid)]


def periodic_function(work: Work, name: str):
    """The task as the application's program knows it."""
    return work.huey.periodic_task(lambda moment: True, name=name)(lambda: None)


@pytest.mark.slow
def test_each_task_runs_once_per_tick_among_all_consumers(work):
    names = ('red', 'green', 'blue')
    consumers = [tick(work, TICK, *names) for _ in range(2)]
    work.journal.wait_for('red', 21)
    for consumer in consumers:
        assert consumer.stop() == 0
    for name in names:
        ran = ticks(work, name)
        assert len(ran) >= 20
        assert sorted(ran) == list(range(ran[0], ran[0] + len(ran)))
    assert {entry.pid for name in names for entry in work.journal.entries(name)} == {consumer.pid for consumer in consumers}
    late = [entry.time - int(entry.n) * TICK for entry in work.journal.entries('red')]
    assert min(late) >= 0
    assert sorted(late)[len(late) // 2] < TICK


def test_a_killed_consumer_costs_no_tick(work):
    first, second = tick(work, TICK, 'red'), tick(work, TICK, 'red')
    work.journal.wait_for('red', 3)
    first.kill()
    work.journal.wait_for('red', 7)
    assert second.stop() == 0
    ran = ticks(work, 'red')
    assert sorted(set(ran)) == list(range(ran[0], ran[-1] + 1))
    assert len(ran) <= len(set(ran)) + 1


@pytest.mark.slow
def test_a_tick_that_was_missed_is_made_up_for_while_it_lasts_but_not_for_a_new_task(work):
    seconds = 2.0
    first = tick(work, seconds, 'known')
    work.journal.wait_for('known')
    assert first.stop() == 0
    last = max(ticks(work, 'known'))
    time.sleep(max(0.0, (last + 1.3) * seconds - time.time()))     # into the middle of the next one, which nobody serves
    second = tick(work, seconds, 'known', 'new')
    work.journal.wait_for('new', 2)
    assert second.stop() == 0
    made_up = ticks(work, 'known', second.pid)
    assert made_up[0] > last
    assert made_up[:3] == [made_up[0], made_up[0] + 1, made_up[0] + 2]
    assert ticks(work, 'new')[:2] == [made_up[0] + 1, made_up[0] + 2]
    assert sorted(set(ticks(work, 'known'))) == sorted(ticks(work, 'known'))


@pytest.mark.slow
def test_revoked_periodic_tasks_do_not_run_until_they_are_restored(work):
    consumer = tick(work, TICK, 'clock', 'task')
    task = periodic_function(work, 'task')

    def pass_ticks(count: int) -> int:
        """So many ticks have passed; the last of them."""
        before = work.journal.count('clock')
        work.journal.wait_for('clock', before + count)
        return ticks(work, 'clock')[-1]

    first = pass_ticks(1)
    pass_ticks(1)           # the task of the first tick, which is enqueued after the clock's, has run for certain
    task.revoke()
    assert task.is_revoked()
    revoked_at = pass_ticks(1) + 1
    pass_ticks(2)
    assert task.restore()
    restored_at = pass_ticks(1)
    pass_ticks(2)
    task.revoke(revoke_once=True)
    once_at = pass_ticks(1)
    last = pass_ticks(3)
    assert not task.is_revoked()
    assert consumer.stop() == 0
    ran = set(ticks(work, 'task'))
    assert first in ran
    assert not ran & set(range(revoked_at, restored_at - 1))
    assert set(range(restored_at + 1, once_at - 1)) <= ran
    assert len(set(range(once_at - 1, last)) - ran) == 1


def test_no_tick_is_counted_before_the_clock_of_the_storage_is_known():
    huey = MemoryHuey()
    ran = []

    @huey.periodic_task(lambda moment: True, name='task')
    def task() -> None:
        ran.append(1)

    clock = SyncedClock()
    scheduler = Scheduler(huey.storage, huey.registry, clock, True, 60.0, lambda: False, lambda event: None, Outage())
    scheduler.run_once()
    assert 0 < scheduler.rest() < 1
    clock.heard(60_000_000.0)
    scheduler.run_once()            # introduces the task
    clock.heard(60_000_061.0)
    scheduler.run_once()
    assert [task.task_id for task in huey.pending()] == ['cron:task:1000001']


@pytest.mark.parametrize('ahead', ['3600', '-3600'])
def test_a_consumer_whose_clock_is_wrong_disturbs_nobody(work, ahead):
    right = tick(work, TICK, 'red')
    work.journal.wait_for('red', 1)
    wrong = tick(work, TICK, 'red', WORK_CLOCK_AHEAD=ahead)
    before = work.journal.count('red')
    work.journal.wait_for('red', before + 4, 10)
    assert right.stop() == wrong.stop() == 0
    ran = ticks(work, 'red')
    assert sorted(ran) == list(range(min(ran), min(ran) + len(ran)))
    assert abs(ran[-1] * TICK - time.time()) < 60
