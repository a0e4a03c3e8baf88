"""The contract of what wakes somebody: tokens, results, events."""

from __future__ import annotations

import gc

import gevent
import pytest

from geventhuey.storage import base
from geventhuey.storage.base import (
    Enqueue,
    Schedule,
    task_field,
)
from tests.storage.kit import (
    BOUND,
    FAR,
    FOR_EVER,
    PAST,
    Calls,
    Consumer,
    drain_tokens,
    eventually,
    in_thread,
    message,
    messages,
)

# -- being woken ------------------------------------------------------------------------------------------------

def test_a_message_wakes_who_begins_to_wait_later(storage):
    storage.enqueue(messages('a b'))
    assert storage.wait_wake(['default'], BOUND) is True
    assert storage.wait_wake(['default'], 0.0) is False         # one token, however many messages


def test_nobody_is_woken_for_another_queue(kit):
    kit.storage.enqueue(messages('a'))
    assert kit.storage.wait_wake(['other'], 0.01) is False
    assert kit.tokens() == {'default'}


@pytest.mark.parametrize('enqueue', [
    pytest.param(lambda storage: storage.enqueue(messages('a', 'b')), id='enqueue'),
    pytest.param(lambda storage: storage.enqueue([message('a', 'b', 5)]), id='enqueue-priority'),
    pytest.param(lambda storage: storage.schedule(message('a', 'b'), due=PAST), id='schedule'),
    pytest.param(lambda storage: storage.schedule(message('a', 'b', 5), delay=1), id='schedule-delay'),
    pytest.param(lambda storage: storage.tick('name', 1, message('a', 'b')), id='tick'),
    pytest.param(lambda storage: storage.wake(['b']), id='wake'),
])
def test_who_waits_is_woken(kit, enqueue):
    waiter = in_thread(kit.another().wait_wake, ['a', 'b'], BOUND)
    eventually(lambda: kit.waiting() == 1)
    enqueue(kit.storage)
    assert waiter.result(BOUND) is True
    assert kit.tokens() == set()


def test_an_effect_wakes_who_waits(kit):
    consumer = Consumer(kit.storage)
    for effect in (Enqueue(message('n', 'b', 1).encode()), Schedule(message('n', 'b').encode(), 0.5)):
        kit.storage.enqueue(messages('a'))
        drain_tokens(kit)
        consumer.settle(*consumer.fetch(), effects=[effect])
        assert kit.tokens() == {'b'}


def test_a_far_due_time_wakes_nobody(kit):
    kit.storage.schedule(message('a'), due=FAR)
    assert kit.tokens() == set()


def test_one_token_wakes_one_waiter(kit):
    waiters = [in_thread(kit.another().wait_wake, ['default'], BOUND) for _ in range(3)]
    for left in (2, 1, 0):
        eventually(lambda left=left: kit.waiting() == left + 1)
        kit.storage.enqueue(messages('a'))
        eventually(lambda left=left: sum(waiter.done() for waiter in waiters) == 3 - left)
        assert kit.waiting() == left
    assert [waiter.result(BOUND) for waiter in waiters] == [True] * 3


def test_tokens_of_several_queues_wake_several_waiters(kit):
    waiters = [in_thread(kit.another().wait_wake, ['a', 'b'], BOUND) for _ in range(2)]
    eventually(lambda: kit.waiting() == 2)
    kit.storage.wake(['a', 'b'])
    assert [waiter.result(BOUND) for waiter in waiters] == [True, True]
    kit.storage.wake(['b', 'a'])
    assert kit.tokens() == {'a', 'b'}
    assert kit.storage.wait_wake(['a', 'b'], BOUND) and len(kit.tokens()) == 1


def test_who_waits_in_vain_goes_on(kit):
    assert kit.storage.wait_wake(['default'], 0.05) is False
    assert kit.waiting() == 0
    kit.storage.enqueue(messages('a'))
    assert kit.tokens() == {'default'}


def test_a_wait_holds_up_no_other_call(kit):
    waiter = in_thread(kit.storage.wait_wake, ['default'], BOUND)
    eventually(lambda: kit.waiting() == 1)
    kit.storage.enqueue(messages('a'))          # over the same object: were it held up, nobody would ever be woken
    assert waiter.result(BOUND / 2) is True


def test_greenlets_wait_without_stopping_their_hub(kit):
    storages = [kit.storage.session(f'wait{n}') for n in range(5)]
    waiters = [gevent.spawn(each.wait_wake, ['default'], BOUND) for each in storages]
    ticks = gevent.spawn(lambda: [gevent.sleep(0) for _ in range(100)])
    in_hub_until(lambda: kit.waiting() == 5)
    assert ticks.ready()
    for _ in waiters:
        woken = sum(waiter.ready() for waiter in waiters)
        in_thread(kit.another().enqueue, messages('a'))
        in_hub_until(lambda woken=woken: sum(waiter.ready() for waiter in waiters) == woken + 1)
    assert [waiter.get() for waiter in waiters] == [True] * 5
    for each in storages:
        each.close()


def in_hub_until(condition):
    """Lets the greenlets of this thread run until the condition holds."""
    with gevent.Timeout(BOUND):
        while not condition():
            gevent.sleep(0.002)


def test_suspects_that_stay_behind_wake_the_next(kit):
    """And nobody for ever: who may take none wakes nobody."""
    kit.storage.enqueue([message(word)._replace(deliveries=2) for word in 'abc'])
    consumer = Consumer(kit.storage)
    for room, woken in ((1, True), (0, False), (1, True), (1, False)):
        drain_tokens(kit)
        consumer.ask(9, suspects=((4, 1), (2, room)))
        assert kit.tokens() == ({'default!'} if woken else set())


def test_a_fetch_that_leaves_something_wakes_the_next(kit):
    consumer = Consumer(kit.storage)
    for queue in ('a', 'b'):
        kit.storage.enqueue(messages('1 2', queue))
    for limits, at_most, left in (({'a': 1, 'b': 1}, 9, {'a', 'b'}), ({'a': 1, 'b': 1}, 1, {'b'}), ({'b': 0}, 9, {'b'}),
                                  ({'b': 5}, 9, set())):
        drain_tokens(kit)
        consumer.fetch(at_most, limits)
        assert kit.tokens() == left


def test_what_a_fetch_has_promoted_wakes_those_who_serve_it(kit):
    kit.storage.schedule(message('a', 'other'), due=PAST)
    drain_tokens(kit)
    assert Consumer(kit.storage).fetch() == []
    assert kit.tokens() == {'other'}


def test_a_turned_clock_wakes_all_who_wait(memory_kit):
    waiters = [in_thread(memory_kit.storage.wait_wake, [queue], BOUND) for queue in 'aab']
    eventually(lambda: memory_kit.waiting() == 3)
    memory_kit.later(1)
    assert [waiter.result(BOUND) for waiter in waiters] == [True] * 3


def test_a_clock_that_is_turned_just_before_somebody_waits_is_not_missed(memory_kit):
    storage = memory_kit.storage
    storage.schedule(message('a'), delay=100)
    drain_tokens(memory_kit)
    memory_kit.later(99)
    assert memory_kit.tokens() == set()
    memory_kit.later(1)
    assert storage.wait_wake(['default'], 0.0) is True


# -- results ----------------------------------------------------------------------------------------------------

def test_a_result_that_is_preserved_can_be_read_again(storage):
    assert storage.result('a', preserve=True) is None
    storage.put_result('a', b'Vvalue', 60.0)
    assert storage.result('a', preserve=True) == storage.result('a', preserve=True) == b'Vvalue'


@pytest.mark.parametrize('record', [b'Vvalue', b'Eerror'])
def test_a_result_that_is_read_leaves_a_tombstone(storage, record):
    storage.put_result('a', record, None)
    assert storage.result('a', preserve=False) == record
    assert storage.result('a', preserve=False) == storage.result('a', preserve=True) == base.CONSUMED
    assert storage.results() == {} and storage.result_count() == 0


@pytest.mark.parametrize('record', [b'N', b'C', b'R', b'Lwhy'])
def test_a_tombstone_is_no_result(storage, record):
    storage.put_result('a', record, 60.0)
    assert storage.results() == {} and storage.result_count() == 0
    assert storage.result('a', preserve=False) == record
    assert storage.result('a', preserve=True) == record


def test_results_are_listed(storage):
    for n in range(1200):
        storage.put_result(f'{n}', b'V%d' % n, 60.0)
    storage.put_result('failed', b'Eerror', None)
    storage.put_result('gone', b'N', 60.0)
    assert storage.results() == {'failed': b'Eerror', **{f'{n}': b'V%d' % n for n in range(1200)}}
    assert storage.result_count() == 1201


def test_a_result_expires(kit):
    kit.storage.put_result('a', b'Vvalue', 100.0)
    kit.storage.put_result('b', b'Vvalue', None)
    kit.later(99)
    assert kit.storage.result('a', preserve=True) == b'Vvalue'
    kit.later(1.001)
    assert kit.storage.result('a', preserve=False) is None
    assert kit.storage.results() == {'b': b'Vvalue'}


@pytest.mark.parametrize('ttl', [0.0, -1.0])
def test_a_result_without_time_to_live_does_not_stay_for_ever(kit, ttl):
    kit.storage.put_result('a', b'Vvalue', ttl)
    kit.storage.revoke(task_field('a'), FOR_EVER, ttl)
    kit.later(1)
    eventually(lambda: kit.storage.result('a', preserve=True) is None)
    eventually(kit.storage.trim)


def test_a_tombstone_expires(kit):
    kit.storage.put_result('a', b'Vvalue', None)
    kit.storage.result('a', preserve=False)
    kit.later(base.TOMBSTONE_TTL + 0.001)
    assert kit.storage.result('a', preserve=True) is None


def test_a_later_result_replaces_an_earlier_one(storage):
    storage.put_result('a', b'Eerror', 60.0)
    storage.put_result('a', b'Vvalue', None)
    assert storage.result('a', preserve=True) == b'Vvalue'


def test_one_of_many_readers_gets_the_result(kit):
    kit.storage.put_result('a', b'Vvalue', None)
    readers = [in_thread(kit.another().result, 'a', False) for _ in range(8)]
    assert sorted(reader.result(BOUND) for reader in readers) == [base.CONSUMED] * 7 + [b'Vvalue']


def test_many_results_are_read_in_their_order_and_each_once(storage):
    for n in range(0, 1200, 2):
        storage.put_result(f'task{n}', b'V%d' % n, None)
    storage.put_result('task1', b'Eerror', 60.0)
    storage.put_result('task3', base.REVOKED, 60.0)
    wanted = [f'task{n}' for n in range(1200)]
    there: list[bytes | None] = [b'V%d' % n if n % 2 == 0 else None for n in range(1200)]
    there[1], there[3] = b'Eerror', base.REVOKED
    assert storage.results_of(wanted, preserve=True) == there
    assert storage.results_of(wanted[::-1], preserve=False) == there[::-1]
    consumed = [None if record is None else base.CONSUMED for record in there]
    consumed[3] = base.REVOKED
    assert storage.results_of(wanted, preserve=False) == consumed
    assert storage.results_of([], preserve=False) == []


def test_a_result_that_is_asked_for_twice_at_once_is_read_once(storage):
    storage.put_result('a', b'Vvalue', None)
    assert storage.results_of(['a', 'a'], preserve=False) == [b'Vvalue', base.CONSUMED]


def test_many_tasks_are_watched_at_once(kit):
    calls = {f'task{n}': Calls() for n in range(1200)}
    with kit.storage.watching('task7', Calls()), kit.another().watching_all(calls):
        eventually(lambda: all(call.count for call in calls.values()))
        before = calls['task7'].count, calls['task8'].count
        kit.storage.put_result('task7', b'Vvalue', 60.0)
        eventually(lambda: calls['task7'].count > before[0])
        assert calls['task8'].count == before[1]
    after = calls['task7'].count
    kit.storage.put_result('task7', b'Vother', 60.0)
    if kit.kind == 'redis':
        eventually(lambda: kit.raw.pubsub_channels('*result*') == [])
    assert calls['task7'].count == after


def test_who_watches_is_woken_at_the_beginning_and_by_every_change(kit):
    woken = Calls()
    with kit.another().watching('a', woken):
        eventually(lambda: woken.count >= 1)
        for change in (lambda: kit.storage.put_result('a', b'Vvalue', None), lambda: kit.storage.result('a', preserve=False)):
            before = woken.count
            change()
            eventually(lambda before=before: woken.count > before)
    after = woken.count
    kit.storage.put_result('a', b'Vvalue', None)
    other = Calls()
    with kit.storage.watching('a', other):
        eventually(lambda: other.count)
    assert woken.count == after


def test_200_waiters_are_woken_over_one_connection(kit):
    storage = kit.storage
    waiters = {f'task{n}': Calls() for n in range(100)}
    watches = [storage.watching(task_id, woken) for task_id, woken in waiters.items() for _ in range(2)]
    for watch in watches:
        watch.__enter__()
    eventually(lambda: all(woken.count >= 2 for woken in waiters.values()))
    if kit.kind == 'redis':
        assert kit.connections('results') == 1
    before = {task_id: woken.count for task_id, woken in waiters.items()}
    for task_id in waiters:
        storage.put_result(task_id, b'Vvalue', 60.0)
    eventually(lambda: all(woken.count >= before[task_id] + 2 for task_id, woken in waiters.items()))
    for watch in watches:
        watch.__exit__(None, None, None)
    if kit.kind == 'redis':
        eventually(lambda: kit.raw.pubsub_channels('*result*') == [])


def test_one_who_stops_watching_leaves_the_others_watching(kit):
    first, second = Calls(), Calls()
    with kit.storage.watching('a', first):
        eventually(lambda: first.count)
        with kit.storage.watching('a', second):
            eventually(lambda: second.count)
        before = first.count
        kit.storage.put_result('a', b'Vvalue', None)
        eventually(lambda: first.count > before)


# -- events -----------------------------------------------------------------------------------------------------

def test_events_reach_those_who_listen(kit):
    kit.storage.publish([b'{"n": 0}'])
    one, two = iter(kit.another()), iter(kit.storage)
    kit.storage.publish([b'{"n": 1}', b'{"n": 2}'])
    kit.storage.settle('nobody', [], events=[b'{"n": 3}'])
    for listener in (one, two):
        assert [next(listener)['n'] for _ in range(3)] == [1, 2, 3]
    kit.storage.publish([])


def test_one_may_listen_before_there_is_anything_to_hear(kit):
    events = iter(kit.another())
    listener = in_thread(lambda: next(events))
    kit.storage.publish([b'{"status": "started"}'])
    assert listener.result(BOUND) == {'status': 'started'}


def test_a_fetch_says_how_many_listen(kit):
    consumer = Consumer(kit.storage)
    assert consumer.ask().listeners == 0
    listeners = [iter(kit.another()), iter(kit.storage)]
    assert consumer.ask().listeners == 2
    kit.storage.enqueue(messages('a'))
    consumer.fetch()
    assert consumer.ask(request=1).listeners == consumer.last.listeners == 2
    listeners.clear()
    gc.collect()
    eventually(lambda: consumer.ask().listeners == 0)


def test_a_listener_can_be_closed(kit):
    listener = kit.storage.listener()
    consumer = Consumer(kit.storage)
    eventually(lambda: consumer.ask().listeners == 1)
    listener.close()
    eventually(lambda: consumer.ask().listeners == 0)
