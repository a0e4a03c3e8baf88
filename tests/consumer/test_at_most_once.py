"""at_most_once: whatever befalls the consumer, the task is not run again, and who waits for it is told."""

from __future__ import annotations

import signal

import pytest

from geventhuey import TaskLost
from tests.consumer.kit import Work, wait_until

KINDS = pytest.mark.parametrize('kind', ['greenlet', 'thread'])


def check_lost(work: Work, results: list, why: str) -> None:
    """Each has run once and ended as lost; another consumer has nothing to do."""
    for result in results:
        with pytest.raises(TaskLost, match=why):
            result.get(blocking=True, timeout=30)
    work.wait_idle()
    last = work.consume('-w', '20')
    assert work.send('add', 1, 2).get(blocking=True, timeout=30) == 3
    assert last.stop() == 0
    assert work.journal.times('start') == {str(n): 1 for n in range(len(results))}
    assert {letter.id for letter in work.huey.dead()} == {result.task_id for result in results}
    assert work.leftovers() <= {'dead', 'dead_order'}


@KINDS
def test_what_a_killed_consumer_ran_is_lost_and_says_so(work, kind):
    consumer = work.consume('-k', kind, '-w', '20', '--lease', '1')
    results = [work.send('only_once', n, 60) for n in range(5)]
    work.journal.wait_for('start', 5)
    other = work.consume('-w', '1', '--lease', '1')
    consumer.kill()
    other.wait_for('5 went to the dead letters')
    assert other.stop() == 0
    check_lost(work, results, 'its consumer died while it ran, and it may run only once')


@KINDS
def test_what_a_stopped_consumer_had_to_interrupt_is_lost_and_what_ended_is_not(work, kind):
    consumer = work.consume('-k', kind, '-w', '20', '-t', '0.5')
    results = [work.send('only_once', n, 60) for n in range(3)]
    ended, again = work.send('add', 1, 1), work.send('rest', 'again', 60)
    work.journal.wait_for('start', 4)
    assert consumer.stop(20) == 0
    assert ended.get() == 2
    assert work.pending() == ['again']
    again.revoke()
    for n, result in enumerate(results):
        with pytest.raises(TaskLost, match='its consumer was stopped while it ran, and it may run only once'):
            result.get(blocking=True, timeout=5)
        assert work.journal.times('start')[str(n)] == 1
    assert len(work.huey.dead()) == 3
    last = work.consume('-w', '20')
    wait_until(lambda: not work.huey.pending_count())
    assert last.stop() == 0
    assert work.journal.count('start') == 4


def test_a_task_that_swallows_the_interrupt_is_lost_as_well(work):
    consumer = work.consume('-t', '0.3')
    result = work.send('stubborn_once', 0, 60)
    work.journal.wait_for('start')
    assert consumer.stop(20) == 0
    check_lost(work, [result], 'stopped while it ran')


@pytest.mark.slow
def test_a_consumer_that_has_to_end_without_its_hub_loses_it_as_well(work):
    consumer = work.consume('-t', '0.3')
    result = work.send('block_once', 0, 120)
    work.journal.wait_for('start')
    consumer.signal(signal.SIGTERM)
    assert consumer.wait(25) == 1
    check_lost(work, [result], 'stopped while it ran')


def test_what_was_taken_by_hand_and_not_executed_is_for_others(work):
    work.send('only_once', 0, 0.0)
    assert work.huey.dequeue() is not None
    work.huey.close()
    assert work.pending() == ['0']
    assert work.huey.dead() == []


def test_what_was_taken_by_hand_and_is_being_executed_does_not_run_again(work):
    """Another thread closes the application meanwhile, or the program ends."""
    result = work.send('add', 1, 2)
    held = []

    @work.huey.task(name='closes', at_most_once=True)
    def closes():
        held.append(work.in_flight())
        work.huey._hand.close()

    lost = closes()
    work.huey.execute(work.huey.dequeue())
    work.huey.execute(work.huey.dequeue())
    assert held == [1] and result.get() == 3
    with pytest.raises(TaskLost, match='may run only once'):
        lost.get(blocking=True, timeout=5, preserve=True)
    assert work.pending() == [] and [letter.id for letter in work.huey.dead()] == [lost.task_id]
    assert work.redis.ttl(work.keys.result(lost.task_id)) > 0
