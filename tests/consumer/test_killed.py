"""kill -9: of a consumer, of one of two, of a child, of the supervisor. Nothing is lost, and what ran is run again at once."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.consumer.kit import Work, end, is_alive, wait_until


def check_whole(work: Work, results: list, at_most: int = 2) -> None:
    """Every task of 0, 1, 2, ... ended with the right result, none was started more than ``at_most`` times, nothing is left."""
    assert [result.get(blocking=True, timeout=60) for result in results] == [n * 10 for n in range(len(results))]
    work.wait_idle()
    started, ended = work.journal.times('start'), work.journal.times('end')
    assert set(started) == set(ended) == {str(n) for n in range(len(results))}
    assert max(started.values()) <= at_most


def check_clean(work: Work) -> None:
    """No key is left over when the last consumer has stopped."""
    assert work.consumers() == {}
    assert work.leftovers() == set()


@pytest.mark.parametrize(('options', 'running'), [(('-w', '500'), 500), (('-k', 'thread', '-w', '50'), 50)], ids=['greenlet', 'thread'])
def test_what_a_killed_consumer_ran_is_run_again_when_it_is_back(work, options, running):
    consumer = work.consume(*options)
    results = [work.send('rest', n, 0.7) for n in range(running)]
    work.journal.wait_for('start', running)
    consumer.kill()
    assert work.in_flight() >= running - work.journal.count('end')
    begun = time.time()
    again = work.consume(*options)
    check_whole(work, results)
    entries = work.journal.entries('start')
    assert min(entry.time for entry in entries if entry.pid == again.pid) - begun < 6
    assert [entry.more for entry in entries if entry.pid == again.pid] == [('1',)] * (len(entries) - running)
    assert again.wait_for(r'consumer \S+ is dead: (\d+) of its tasks are back')[1] == str(len(entries) - running)
    assert again.stop() == 0
    check_clean(work)


def test_of_two_consumers_the_other_takes_over_within_seconds(work):
    first, second = work.consume('-w', '300'), work.consume('-w', '300')
    results = [work.send('rest', n, 1.0) for n in range(500)]
    work.journal.wait_for('start', 500)
    assert {entry.pid for entry in work.journal.entries('start')} == {first.pid, second.pid}
    first.kill()
    killed = time.time()
    check_whole(work, results)
    again = [entry.time for entry in work.journal.entries('start') if entry.more == ('1',)]
    assert again
    assert max(again) - killed < 7
    assert second.stop() == 0
    check_clean(work)


def test_a_killed_child_is_started_again_and_nothing_is_lost(work):
    supervisor = work.consume('-p', '2', '-w', '100')
    wait_until(lambda: len(work.consumers()) == 2)
    results = [work.send('rest', n, 0.7) for n in range(150)]
    work.journal.wait_for('start', 150)
    victim, other = supervisor.children()
    os.kill(victim, signal.SIGKILL)
    supervisor.wait_for('process [12] ended with SIGKILL, it is started again')
    wait_until(lambda: len(set(supervisor.children()) - {victim, other}) == 1)
    check_whole(work, results)
    assert other in supervisor.children()
    assert supervisor.stop() == 0
    check_clean(work)


@pytest.mark.parametrize('kind', ['greenlet', 'thread'])
def test_children_end_by_themselves_when_their_supervisor_is_killed(work, kind):
    supervisor = work.consume('-p', '2', '-w', '4', '-k', kind, '-t', '10')
    wait_until(lambda: len(work.consumers()) == 2)
    result = work.send('rest', 0, 0.5)
    work.journal.wait_for('start')
    children = supervisor.children()
    assert len(children) == 2
    try:
        supervisor.kill()
        wait_until(lambda: not any(map(is_alive, children)), what='the end of the children')
    finally:
        for child in children:
            end(child)
    assert result.get(blocking=True, timeout=10) == 0
    assert work.journal.count('start') == 1
    check_clean(work)


def test_a_task_that_may_run_only_once_is_lost_with_its_consumer(work):
    from geventhuey import TaskLost
    from geventhuey.message import AT_MOST_ONCE
    consumer = work.consume()
    task = work.task('rest', 0, 60)
    task.flags = AT_MOST_ONCE
    result = work.huey.enqueue(task)
    work.journal.wait_for('start')
    consumer.kill()
    again = work.consume()
    with pytest.raises(TaskLost, match='may run only once'):
        result.get(blocking=True, timeout=30)
    assert again.stop() == 0
    assert work.journal.count('start') == 1
