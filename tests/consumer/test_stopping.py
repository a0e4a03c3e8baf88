"""SIGTERM and SIGINT: what runs may end, what does not goes back to the head of its queue as if it had never been fetched."""

from __future__ import annotations

import signal
import time

import pytest

from tests.consumer.kit import Work, is_alive, wait_until

SIGNALS = pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT], ids=['SIGTERM', 'SIGINT'])


def check_released(work: Work, numbers: list[int]) -> None:
    """The tasks wait in this order, none of them counted as a delivery, and nobody holds anything."""
    assert work.pending() == [str(n) for n in numbers]
    assert {task.deliveries for task in work.huey.pending()} <= {0}
    assert work.in_flight() == 0
    assert work.consumers() == {}
    assert work.leftovers() == ({'queue:default'} if numbers else set())


@SIGNALS
@pytest.mark.parametrize('kind', ['greenlet', 'thread'])
def test_tasks_that_end_in_time_are_settled_and_no_more_is_fetched(work, number, kind):
    consumer = work.consume('-w', '20', '-k', kind)
    results = [work.send('rest', n, 0.5) for n in range(30)]
    work.journal.wait_for('start', 20)
    consumer.signal(number)
    assert consumer.wait(15) == 0
    ended = work.journal.count('end')
    assert 20 <= ended < 30
    assert work.journal.times('start') == work.journal.times('end')
    assert [result.get() for result in results[:ended]] == [n * 10 for n in range(ended)]
    check_released(work, list(range(ended, 30)))
    assert consumer.lines('stopped, after')


@SIGNALS
def test_tasks_that_do_not_end_in_time_are_interrupted_and_go_back_to_the_head(work, number):
    consumer = work.consume('-w', '20', '-t', '0.5')
    for n in range(25):
        work.send('rest', n, 60)
    work.journal.wait_for('start', 20)
    begun = time.monotonic()
    consumer.signal(number)
    assert consumer.wait(15) == 0
    assert time.monotonic() - begun >= 0.5
    assert work.journal.count('interrupted') == 20
    assert consumer.lines('back at the head of the queue: 20')
    check_released(work, list(range(25)))


def test_nothing_is_lost_by_many_stops_under_load(work):
    results = [work.send('rest', n, 0.2) for n in range(600)]
    for stop in range(6):
        consumer = work.consume('-w', '50', '-t', '0.1' if stop % 2 else '10')
        work.journal.wait_for('end', 60 * (stop + 1))
        assert consumer.stop(20) == 0
    last = work.consume('-w', '200')
    assert [result.get(blocking=True, timeout=60) for result in results] == [n * 10 for n in range(600)]
    assert last.stop() == 0
    assert work.journal.count('interrupted') > 0
    assert set(work.journal.times('end').values()) == {1}
    assert {entry.more for entry in work.journal.entries('start')} == {('0',)}
    check_released(work, [])


def test_a_second_signal_does_not_wait(work):
    consumer = work.consume('-t', '60')
    for n in range(3):
        work.send('rest', n, 60)
    work.journal.wait_for('start', 3)
    consumer.signal()
    consumer.wait_for('shutting down')
    begun = time.monotonic()
    consumer.signal()
    assert consumer.wait(15) == 0
    assert time.monotonic() - begun < 10
    assert work.journal.count('interrupted') == 3
    check_released(work, [0, 1, 2])


def test_a_third_signal_ends_the_process_at_once_and_others_take_over(work):
    consumer = work.consume('-t', '60')
    work.send('stubborn', 0, 1.5)
    work.journal.wait_for('start')
    consumer.signal()
    consumer.wait_for('shutting down')
    consumer.signal()
    work.journal.wait_for('swallowed')
    consumer.signal()
    assert consumer.wait(10) == 1
    assert work.in_flight() == 1
    again = work.consume()
    work.journal.wait_for('end')
    assert again.stop() == 0
    check_released(work, [])


def test_a_signal_while_nothing_runs_ends_it_quickly(work):
    consumer = work.consume()
    begun = time.monotonic()
    assert consumer.stop(10) == 0
    assert time.monotonic() - begun < 5
    check_released(work, [])


# -- tasks that do not obey ------------------------------------------------------------------------------------

def test_tasks_that_swallow_the_interrupt_are_given_back(work):
    consumer = work.consume('-t', '0.3')
    for n in range(3):
        work.send('stubborn', n, 60)
    work.journal.wait_for('start', 3)
    assert consumer.stop(15) == 0
    assert {entry.more for entry in work.journal.entries('swallowed')} == {('TaskInterrupted',)}
    check_released(work, [0, 1, 2])


def test_tasks_that_hurry_when_they_are_interrupted_have_ended(work):
    consumer = work.consume('-t', '0.3')
    results = [work.send('late', n, 60) for n in range(3)]
    work.journal.wait_for('start', 3)
    assert consumer.stop(15) == 0
    assert [result.get() for result in results] == ['hurried'] * 3
    check_released(work, [])


@pytest.mark.parametrize('how', ['finally', 'from none', 'from another', 'wrapped', 'as it is'])
def test_a_task_that_raises_another_error_while_it_is_interrupted_is_given_back_and_has_not_failed(work, how):
    consumer = work.consume('-t', '0.3')
    for n in range(2):
        work.send('careless', n, 60, how)
    work.journal.wait_for('start', 2)
    assert consumer.stop(15) == 0
    check_released(work, [0, 1])
    assert [task.retries for task in work.huey.pending()] == [2, 2]
    assert work.huey.errors() == []
    assert not consumer.lines('failed')


def test_threads_that_do_not_end_are_given_back_last(work):
    consumer = work.consume('-k', 'thread', '-w', '3', '-t', '0.3')
    for n in range(4):
        work.send('rest', n, 60)
    work.journal.wait_for('start', 3)
    assert consumer.stop(15) == 0
    check_released(work, [0, 1, 2, 3])


# -- in a bad moment -------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_a_signal_while_the_hub_is_blocked_ends_it_when_the_time_is_over(work):
    consumer = work.consume('-t', '0.5')
    work.send('block', 0, 120)
    work.send('rest', 1, 120)
    work.journal.wait_for('start')
    consumer.signal()
    assert consumer.wait(25) == 1
    assert consumer.lines('the hub did not get round to stopping')
    assert sorted(work.pending()) == ['0', '1']
    assert {task.deliveries for task in work.huey.pending()} == {0}
    assert work.consumers() == {}


@pytest.mark.slow
def test_a_second_signal_while_the_hub_is_blocked_does_not_wait_either(work):
    consumer = work.consume('-t', '300')
    work.send('block', 0, 120)
    work.journal.wait_for('start')
    consumer.signal()
    time.sleep(0.2)         # so that it is two signals and not one
    consumer.signal()
    assert consumer.wait(25) == 1
    check_released(work, [0])


def test_a_signal_while_redis_is_gone_ends_it(fragile, own_redis):
    work = fragile
    consumer = work.consume('-t', '0.5')
    work.send('rest', 0, 60)
    work.send('rest', 1, 0.2)
    work.journal.wait_for('start', 2)
    own_redis.kill()
    work.journal.wait_for('end')
    assert consumer.stop(20) == 0
    assert consumer.lines('could not be given back')
    own_redis.restart()
    again = work.consume('-t', '0.1')
    work.journal.wait_for('start', 4)
    work.journal.wait_for('end', 2)
    assert again.stop() == 0
    assert work.pending() == ['0']
    assert work.consumers() == {}


@pytest.mark.slow
def test_a_signal_while_redis_stands_still_ends_it(fragile, own_redis):
    work = fragile
    consumer = work.consume('-t', '0.5')
    work.send('rest', 0, 60)
    work.journal.wait_for('start')
    own_redis.pause()
    begun = time.monotonic()
    consumer.signal()
    code = consumer.wait(40)
    took = time.monotonic() - begun
    own_redis.resume()
    assert took < 0.5 + 10          # each part alone would wait five seconds for an answer
    assert code == 0
    again = work.consume('-t', '0.1')
    work.journal.wait_for('start', 2)
    assert again.stop() == 0


@SIGNALS
@pytest.mark.parametrize(('options', 'codes'), [(('-w', '4'), (130, -15)), (('-k', 'thread'), (130, -15)), (('-p', '2'), (0, 0))],
                         ids=['greenlet', 'thread', 'supervisor'])
def test_a_signal_while_the_application_is_imported_ends_it_at_once(work, number, options, codes):
    program = work.consume(*options, path='slow_app.huey', ready=False, WORK_IMPORT_SECONDS='60')
    work.journal.wait_for('importing')
    program.signal(number)
    assert program.wait(15) == codes[number == signal.SIGTERM]
    assert 'Traceback' not in program.text()
    assert program.children() == []


@pytest.mark.slow
@pytest.mark.parametrize(('options', 'number'), [
    (('-w', '4'), signal.SIGTERM), (('-w', '4'), signal.SIGINT), (('-k', 'thread'), signal.SIGTERM), (('-p', '2'), signal.SIGTERM)])
def test_a_signal_in_any_moment_of_the_start_ends_it(work, number, options):
    programs = []
    for step in range(6):
        imported = work.journal.count('importing')
        program = work.consume(*options, path='slow_app.huey', ready=False)
        programs.append(program)
        if number == signal.SIGINT:         # until then Python itself would say KeyboardInterrupt
            work.journal.wait_for('importing', imported + 1)
        time.sleep(step * 0.07)             # not a wait: any moment will do
        program.signal(number)
    for program in programs:
        assert program.wait() in (0, -number, 130)
        assert 'Traceback' not in program.text()
    wait_until(lambda: not any(program.children() for program in programs))
    last = work.consume()
    wait_until(lambda: len(work.consumers()) == 1)
    assert last.stop() == 0
    check_released(work, [])


@SIGNALS
def test_a_supervisor_stops_its_children_and_loses_nothing(work, number):
    supervisor = work.consume('-p', '2', '-w', '5', '-t', '0.5')
    wait_until(lambda: len(work.consumers()) == 2)
    for n in range(10):
        work.send('rest', n, 60)
    work.journal.wait_for('start', 10)
    children = supervisor.children()
    supervisor.signal(number)
    assert supervisor.wait(20) == 0
    assert not any(map(is_alive, children))
    assert sorted(map(int, work.pending())) == list(range(10))
    assert {task.deliveries for task in work.huey.pending()} == {0}
    assert work.consumers() == {}


