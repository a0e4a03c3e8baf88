"""The way to Redis is slow, half open, cut, and full of nonsense: each task runs once all the same."""

from __future__ import annotations

import time

import pytest

from geventhuey import EnqueueOutcomeUnknown, QueueWriteException
from geventhuey.exceptions import StorageUnavailable
from geventhuey.lease import Lease
from geventhuey.message import Message
from geventhuey.storage.base import Keep, Settlement
from geventhuey.storage.redis import RedisStorage
from geventhuey.testing.fault_proxy import KINDS
from tests.consumer.kit import wait_until
from tests.faults.kit import Trial

WORKERS = pytest.mark.parametrize('kind', ['greenlet', 'thread'])


def check_nobody_was_given_up(trial: Trial) -> None:
    """No consumer was taken for dead, and none had to stop hearing of it."""
    for program in trial.programs:
        assert not program.lines('is dead') + program.lines('taken for dead') + program.lines('runs twice')


# -- slow ---------------------------------------------------------------------------------------------------------

def test_a_slow_and_uneven_way_costs_time_only_and_little_of_it(far_trial, proxy):
    trial = far_trial
    proxy.latency, proxy.jitter = 0.125, 0.075
    trial.start('-w', '100', lease=4)
    begun = time.monotonic()
    trial.give_many(1000, 0.01)
    trial.wait_ended(1000)
    assert time.monotonic() - begun < 60, 'one task for each round trip would take 125 s and more'
    check_nobody_was_given_up(trial)
    trial.judge_once()


# -- half open ----------------------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize('role', ['fetch', 'wait', 'settle', 'beat'])
def test_a_connection_that_is_half_open_is_given_up_and_what_comes_late_changes_nothing(far_trial, proxy, role):
    trial = far_trial
    programs = [trial.start('-w', '10', lease=20) for _ in range(2)]
    trial.give_many(100, 0.05)
    wait_until(lambda: proxy.connections().count(role) == 2)
    proxy.hold(role)
    trial.give_many(50, 0.05)
    if role in ('fetch', 'settle'):
        programs[0].wait_for('the storage is away')
    time.sleep(6)               # longer than anybody waits for an answer
    proxy.release()
    trial.give_many(50, 0.05)
    trial.wait_ended(200)
    check_nobody_was_given_up(trial)
    trial.judge_once()


def test_who_waits_for_a_result_over_a_half_open_connection_gets_it(far_trial, proxy):
    trial = far_trial
    trial.huey.use_url(proxy.url)
    trial.start('-w', '10')
    first = trial.give(0.0)
    assert first.get(blocking=True, timeout=30, preserve=True)
    wait_until(lambda: 'results' in proxy.connections())
    proxy.hold('results')
    result = trial.give(0.2)
    assert result.get(blocking=True, timeout=30, preserve=True)
    proxy.release(drop=True)
    trial.judge_once()


# -- cut ----------------------------------------------------------------------------------------------------------

@WORKERS
@pytest.mark.parametrize('faults', [*([each] for each in KINDS), KINDS], ids=[*KINDS, 'all'])
def test_faults_at_random_cost_no_task_and_no_second_run(far_trial, proxy, faults, kind):
    trial = far_trial
    trial.start('-k', kind, '-w', '20', lease=10)
    trial.start('-k', kind, '-w', '20', lease=10)
    proxy.at_random(0.08, faults)
    trial.give_many(400, 0.01)
    trial.wait_ended(400)
    wait_until(lambda: sum(proxy.statistics[each] for each in faults) >= 5)
    proxy.at_random(0.0)
    check_nobody_was_given_up(trial)
    trial.judge_once()


@pytest.mark.slow
def test_a_producer_whose_connection_is_cut_knows_what_it_does_not_know(far_trial, proxy):
    trial = far_trial
    trial.huey.use_url(proxy.url)
    trial.start('-w', '20', lease=10)
    proxy.at_random(0.1, KINDS)
    trial.give_many(300, 0.0)
    proxy.at_random(0.0)
    unknown = 300 - len(trial.results)
    assert unknown > 0
    report = trial.judge_once()
    assert report.tasks == 300 and not report.lost
    assert len(trial.runs()) >= len(trial.results)


@pytest.mark.parametrize(('fault', 'error'), [('cut_before', EnqueueOutcomeUnknown), ('cut_after', EnqueueOutcomeUnknown),
                                              ('truncate', EnqueueOutcomeUnknown), ('garble', EnqueueOutcomeUnknown)])
def test_a_cut_while_a_task_is_on_its_way_says_which_one_it_was(far_trial, proxy, fault, error):
    trial = far_trial
    trial.huey.use_url(proxy.url)
    trial.huey.pending_count()          # the connection stands
    proxy.next(fault, role='producer')
    task = trial.task('trial', 0.0, 0)
    with pytest.raises(error) as info:
        trial.huey.enqueue(task)
    assert info.value.task_id == task.task_id
    assert isinstance(info.value, QueueWriteException)
    trial.history.sent(task.task_id, certain=fault in ('cut_after', 'truncate', 'garble'))
    trial.start('-w', '2')
    trial.judge_once()


def test_an_answer_that_is_cut_at_any_byte_neither_loses_a_task_nor_brings_one_twice(proxy, redis_url):
    storage = RedisStorage('cut', proxy.url)
    fetching, settling = storage.session('fetch'), storage.session('settle')
    lease = Lease()
    lease.register(fetching)
    settling.publish([b'{}'])
    brought: list[str] = []
    for keep in range(1, 120):
        storage.enqueue([Message(f'm{keep}', 'name', b'payload', flags=1)])
        proxy.next('truncate', role='fetch', keep=keep)
        deliveries = repeated(lambda: lease.fetch(fetching, {'default': 5}, 5)).deliveries
        brought += [Message.decode(delivery.message).id for delivery in deliveries]
        proxy.next('truncate', role='settle', keep=keep % 4 + 1)
        ends = [Settlement(delivery.tag, (Keep(f'm{keep}', b'V', 60.0),)) for delivery in deliveries]
        repeated(lambda ends=ends: settling.settle(lease.consumer, ends))
        assert storage.held(lease.consumer) == []
        assert storage.result(f'm{keep}', preserve=False) == b'V'
    assert brought == [f'm{keep}' for keep in range(1, 120)]
    assert proxy.statistics['truncate'] >= 2 * 119 - 10
    for each in (fetching, settling, storage):
        each.close()


def repeated(step):
    """What the step answers, when it goes through at last."""
    for _ in range(10):
        try:
            return step()
        except StorageUnavailable:
            pass
    raise AssertionError('it does not go through')


# -- an outage is no reason to run wild ----------------------------------------------------------------------------

@WORKERS
def test_while_nobody_answers_a_consumer_asks_now_and_then(far_trial, proxy, kind):
    trial = far_trial
    program = trial.start('-k', kind, '-w', '10')
    trial.give_many(10, 0.0)
    trial.wait_ended(10)
    port, proxy.target = proxy.target, 1            # nobody is there
    before = proxy.statistics['connections']
    proxy.cut()
    program.wait_for('the storage is away')
    time.sleep(6)               # the outage
    attempts = proxy.statistics['connections'] - before
    proxy.target = port
    assert 5 <= attempts <= 80, 'five parts, each first after 0.05 s, then twice as long, up to 2 s'
    trial.give_many(10, 0.0)
    trial.wait_ended(20)
    trial.said_once(program)
    trial.judge_once()
