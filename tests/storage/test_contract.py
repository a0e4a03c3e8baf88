"""One contract, every storage: what each verb promises on the way from a call to a consumer. Runs on memory, then on Redis.

The other verbs are in ``test_contract_*.py`` beside this file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from geventhuey.message import REVOKED, REVOKED_FOR_GOOD, WANTS_RESULT, Message
from geventhuey.storage import base
from geventhuey.storage.base import (
    Reaped,
    Settlement,
    Standing,
    task_field,
)
from tests.storage.kit import (
    BOUND,
    FAR,
    FOR_EVER,
    ONCE,
    PAST,
    Consumer,
    eventually,
    flags_of,
    ids,
    in_thread,
    message,
    messages,
    take_all,
)

CHECKOUT = Path(__file__).resolve().parents[2]


# -- enqueue: a call -> queue ---------------------------------------------------------------------------------

def test_messages_run_first_in_first_out(storage):
    storage.enqueue(messages('a b'))
    storage.enqueue(messages('c'))
    assert storage.pending_count('default') == 3
    assert ids(Consumer(storage).fetch()) == 'a b c'


def test_urgent_messages_run_before_plain_ones_and_those_before_the_others(storage):
    storage.enqueue([message('low', priority=-1), message('plain'), message('urgent', priority=1),
                     message('lowest', priority=-32768), message('most-urgent', priority=32767)])
    assert ids(Consumer(storage).fetch()) == 'most-urgent urgent plain low lowest'


def test_messages_of_one_priority_run_first_in_first_out(storage):
    for word in 'abc':
        storage.enqueue([message(f'low-{word}', priority=-5), message(f'urgent-{word}', priority=5), message(f'plain-{word}')])
    consumer = Consumer(storage)
    got = [ids(consumer.fetch(2)) for _ in range(5)]
    assert got == ['urgent-a urgent-b', 'urgent-c plain-a', 'plain-b plain-c', 'low-a low-b', 'low-c']


def test_equal_messages_are_messages_of_their_own(storage):
    for priority in (0, 3):
        storage.enqueue([message('a', priority=priority)] * 2)
    storage.schedule(message('b'), due=PAST)
    storage.schedule(message('b'), due=PAST)
    assert ids(Consumer(storage).fetch()) == 'a a a a b b'


def test_many_messages_of_one_call_keep_their_order(storage):
    storage.enqueue([message(f'{n}', priority=n % 3 - 1) for n in range(1800)])
    expected = [f'{n}' for residue in (2, 1, 0) for n in range(1800) if n % 3 == residue]
    assert take_all(storage).split() == expected


def test_enqueueing_nothing_changes_nothing(kit):
    kit.storage.enqueue([])
    assert kit.leftovers() == set()


def test_a_message_travels_unchanged(storage):
    sent = Message('id-é', 'app.naïve', bytes(range(256)), 'other', -7, WANTS_RESULT, 1_700_000_000.25, 1_700_000_001.5)
    storage.enqueue([sent])
    delivery = Consumer(storage).fetch(limits={'other': 1})[0]
    assert Message.decode(delivery.message) == sent
    assert delivery.consumer == 'consumer' and delivery.request == 1


def test_a_message_that_cannot_travel_takes_no_other_with_it(storage):
    with pytest.raises(ValueError):
        storage.enqueue([message('a'), message('b' * 300)])
    assert storage.pending_count('default') == 0


# -- schedule: a call -> schedule -> queue ----------------------------------------------------------------------

def test_a_fetch_brings_what_is_due_behind_what_waits(storage):
    storage.schedule(message('second'), due=PAST + 1)
    storage.schedule(message('first'), due=PAST)
    storage.schedule(message('urgent', priority=1), due=PAST + 2)
    storage.schedule(message('not-yet'), due=FAR)
    storage.enqueue(messages('waiting'))
    assert ids(Consumer(storage).fetch()) == 'urgent waiting first second'
    assert ids(storage.scheduled()) == 'not-yet'


def test_a_message_is_not_due_early(kit):
    kit.storage.schedule(message('a'), delay=3600)
    kit.storage.schedule(message('b'), due=kit.now() + 3600)
    consumer = Consumer(kit.storage)
    kit.later(3590)
    assert consumer.fetch() == []
    kit.later(10.001)
    assert ids(consumer.fetch()) == 'a b'


def test_a_due_time_is_kept_to_the_millisecond(storage):
    storage.schedule(message('a'), due=FAR + 0.123)
    [(due, _)] = storage.scheduled()
    assert due == pytest.approx(FAR + 0.123, abs=0.0011)


def test_a_delay_is_counted_by_the_clock_of_the_storage(kit):
    kit.storage.schedule(message('a'), delay=1000)
    [(due, _)] = kit.storage.scheduled()
    assert due == pytest.approx(kit.now() + 1000, abs=5)


def test_a_message_without_a_due_time_is_due_at_once(storage):
    storage.schedule(message('a'))
    storage.schedule(message('b'), delay=-10)
    assert ids(Consumer(storage).fetch()) == 'b a'


def test_the_schedule_is_listed_by_due_time(storage):
    for task_id, due in ('d', FAR + 2), ('a', PAST), ('c', FAR + 1), ('b', FAR):
        storage.schedule(message(task_id), due=due)
    assert ids(storage.scheduled()) == 'a b c d'
    assert [due for due, _ in storage.scheduled(2)] == [PAST, FAR]
    assert storage.scheduled_count() == 4


def test_a_fetch_says_when_to_come_again(kit):
    consumer = Consumer(kit.storage)
    assert consumer.ask().next_due is None
    kit.storage.schedule(message('b'), due=kit.now() + 7200)
    kit.storage.schedule(message('a'), due=kit.now() + 3600)
    assert consumer.ask().next_due == pytest.approx(3600, abs=BOUND)
    kit.storage.enqueue(messages('c'))
    assert consumer.ask().next_due == pytest.approx(3600, abs=BOUND)
    assert consumer.ask(request=1).next_due == pytest.approx(3600, abs=BOUND)       # a repeated one, too


def test_a_fetch_promotes_so_many_at_most(storage):
    for n in range(base.MAX_PROMOTE + 50):
        storage.schedule(message(f'{n}'), due=PAST + n)
    consumer = Consumer(storage)
    assert ids(consumer.fetch(1)) == '0'
    assert consumer.last.next_due == 0
    assert (storage.pending_count('default'), storage.scheduled_count()) == (base.MAX_PROMOTE - 1, 50)
    assert take_all(storage).split() == [f'{n}' for n in range(1, base.MAX_PROMOTE + 50)]


def test_take_due_hands_out_each_message_once(storage):
    for task_id, due in ('a', PAST), ('b', PAST + 1), ('c', PAST + 2), ('d', FAR):
        storage.schedule(message(task_id), due=due)
    assert ids(storage.take_due(PAST + 1, 1)) == 'a'
    assert ids(storage.take_due(PAST + 1, 9)) == 'b'
    assert storage.take_due(PAST + 1, 9) == []
    assert ids(storage.scheduled()) == 'c d'


# -- tick -------------------------------------------------------------------------------------------------------

def test_a_tick_enqueues_once(storage):
    assert storage.tick('app.hourly', 100, message('a')) is True
    assert storage.tick('app.hourly', 100, message('b')) is False
    assert storage.tick('app.hourly', 99, message('c')) is False
    assert storage.tick('app.daily', 100, message('d')) is True
    assert storage.tick('app.hourly', 101, message('e')) is True
    assert ids(Consumer(storage).fetch()) == 'a d e'


def test_a_tick_is_done_by_one_of_many(kit):
    storages = [kit.another() for _ in range(8)]
    done = [in_thread(each.tick, 'app.hourly', 7, message('a', priority=2)) for each in storages]
    assert sorted(future.result(BOUND) for future in done) == [False] * 7 + [True]
    assert ids(kit.storage.pending('default')) == 'a'


def test_a_tick_wakes(storage):
    storage.tick('app.hourly', 1, message('a', 'cron'))
    assert storage.wait_wake(['cron'], BOUND)


def test_a_name_that_was_introduced_has_had_its_tick(storage):
    storage.tick('app.old', 5, message('a'))
    storage.introduce(['app.old', 'app.new'], 9)
    assert storage.tick('app.new', 9, message('b')) is False
    assert storage.tick('app.old', 9, message('c')) is True
    assert storage.tick('app.new', 10, message('d')) is True
    assert ids(storage.pending('default')) == 'd c a'


# -- registration -----------------------------------------------------------------------------------------------

def test_only_who_is_registered_may_fetch(storage):
    storage.enqueue(messages('a'))
    assert storage.fetch('nobody', 1, {'default': 1}, 1) == base.Fetched(Standing.UNKNOWN, [])
    assert storage.beat('nobody').standing is Standing.UNKNOWN
    assert storage.pending_count('default') == 1


def test_a_consumer_is_known_with_what_it_says_of_itself(storage):
    Consumer(storage, 'one')
    Consumer(storage, 'two')
    assert set(storage.consumers()) == {'one', 'two'}
    assert storage.consumer_info() == {'one': b'info of one', 'two': b'info of two'}


def test_to_register_again_changes_nothing(storage):
    consumer = Consumer(storage)
    storage.enqueue(messages('a b'))
    held = consumer.fetch(1)
    beat = consumer.beat_text()
    storage.register(consumer.name, 0, b'info of consumer')
    assert consumer.beat_text() == beat
    assert consumer.ask(request=1).deliveries == held
    assert ids(consumer.fetch()) == 'b'


def test_a_registration_goes_on_from_the_last_request(storage):
    storage.enqueue(messages('a'))
    consumer = Consumer(storage, request=41)
    assert consumer.ask(request=40).standing is Standing.STALE
    assert consumer.fetch()[0].request == 42


def test_a_beat_changes_what_reapers_see(kit):
    consumer = Consumer(kit.storage)
    before = consumer.beat_text()
    eventually(lambda: kit.storage.beat('consumer') and consumer.beat_text() != before)
    kit.storage.enqueue(messages('a b'))
    consumer.fetch(2)
    beat = kit.storage.beat('consumer')
    assert (beat.standing, beat.held) == (Standing.GOOD, 2)
    assert beat.now == pytest.approx(kit.now(), abs=5)


def test_a_fetch_that_brings_something_changes_the_beat(storage):
    storage.enqueue(messages('a'))
    consumer = Consumer(storage)
    before = consumer.beat_text()
    consumer.fetch()
    assert consumer.beat_text() != before


def test_a_beat_does_not_undo_an_eviction(storage):
    storage.enqueue(messages('a b'))
    consumer = Consumer(storage)
    consumer.fetch()
    consumer.die(at_most=1)
    assert storage.beat('consumer').standing is Standing.EVICTED
    assert consumer.ask() == base.Fetched(Standing.EVICTED, [])
    storage.register('consumer', 9, b'')
    assert storage.beat('consumer') .standing is Standing.EVICTED
    assert consumer.die() == Reaped(1, 0, True)


# -- fetch: queue -> in flight ----------------------------------------------------------------------------------

def test_a_repeated_request_has_the_same_answer(storage):
    storage.enqueue([message('a'), message('b', priority=1), message('c')])
    consumer = Consumer(storage)
    first = consumer.ask(2)
    assert ids(first.deliveries) == 'b a'
    assert consumer.ask(2, request=1) == first
    assert ids(consumer.fetch()) == 'c'


def test_a_repeated_request_brings_no_more_than_the_first(storage):
    storage.enqueue(messages('a'))
    consumer = Consumer(storage)
    first = consumer.ask()
    storage.enqueue(messages('b'))
    storage.schedule(message('c'), due=PAST)
    assert consumer.ask(request=1).deliveries == first.deliveries
    assert storage.pending_count('default') == 1


def test_a_repeated_request_brings_what_is_still_in_flight(storage):
    storage.enqueue(messages('a b c'))
    consumer = Consumer(storage)
    first = consumer.fetch()
    consumer.settle(first[1])
    assert ids(consumer.ask(request=1).deliveries) == 'a c'
    consumer.settle_all()
    assert consumer.ask(request=1) == base.Fetched(Standing.GOOD, [])


def test_a_repeated_request_says_again_who_is_revoked(storage):
    storage.revoke(task_field('a'), ONCE, None)
    storage.revoke(task_field('b'), FOR_EVER, None)
    storage.enqueue(messages('a b c'))
    consumer = Consumer(storage)
    first = consumer.fetch()
    storage.restore(task_field('b'))
    assert consumer.ask(request=1).deliveries == first
    assert flags_of(first) == [REVOKED_FOR_GOOD, REVOKED, 0]


def test_an_empty_answer_does_not_use_up_the_number(storage):
    consumer = Consumer(storage)
    assert consumer.ask(request=1) == base.Fetched(Standing.GOOD, [])
    assert consumer.ask(request=1) == base.Fetched(Standing.GOOD, [])
    storage.enqueue(messages('a'))
    assert ids(consumer.ask(request=1).deliveries) == 'a'


def test_an_old_request_is_refused(storage):
    storage.enqueue(messages('a b c'))
    consumer = Consumer(storage)
    consumer.fetch(1)
    consumer.fetch(1)
    assert consumer.ask(request=1) == base.Fetched(Standing.STALE, [])
    assert storage.pending_count('default') == 1


def test_a_forgotten_consumer_is_unknown(storage):
    storage.enqueue(messages('a'))
    consumer = Consumer(storage)
    consumer.fetch()
    consumer.die()
    assert consumer.ask() == base.Fetched(Standing.UNKNOWN, [])
    assert storage.settle('consumer', [Settlement(513)]) == [False]


def test_queues_are_served_in_the_order_given(storage):
    storage.enqueue(messages('a1 a2 a3', 'a') + messages('b1 b2', 'b') + messages('c1', 'c'))
    consumer = Consumer(storage)
    assert ids(consumer.fetch(3, {'b': 9, 'a': 9})) == 'b1 b2 a1'
    assert ids(consumer.fetch(9, {'a': 1, 'c': 5, 'd': 5})) == 'a2 c1'
    assert ids(consumer.fetch(9, {'b': 9, 'a': 0})) == ''
    assert ids(consumer.fetch(9, {'a': 9})) == 'a3'


def test_a_fetch_brings_no_more_than_was_asked_for(storage):
    storage.enqueue([message(f'{n}', priority=n - 3) for n in range(7)])
    consumer = Consumer(storage)
    assert consumer.fetch(0) == []
    assert consumer.fetch(5, {}) == []
    assert ids(consumer.fetch(2, {'default': 4})) == '6 5'
    assert ids(consumer.fetch(4, {'default': 2})) == '4 3'


def test_a_fetch_brings_so_many_at_most_that_tags_stay_apart(storage):
    storage.enqueue([message(f'{n}') for n in range(2 * base.MAX_FETCH)])
    consumer = Consumer(storage)
    first, second = consumer.fetch(600), consumer.fetch(600)
    assert (len(first), len(second)) == (base.MAX_FETCH, base.MAX_FETCH)
    assert len(storage.held('consumer')) == 2 * base.MAX_FETCH
    assert {delivery.request for delivery in first} == {1}


def test_what_is_in_flight_can_be_looked_at(storage):
    storage.enqueue(messages('a b c'))
    consumer = Consumer(storage)
    a, b, c = consumer.fetch()
    consumer.settle(b)
    assert sorted(storage.held('consumer')) == [a.tag, c.tag]
    assert storage.recall('consumer', [c.tag, b.tag, a.tag, 7]) == [c, a]
    assert storage.recall('consumer', []) == storage.recall('nobody', [1]) == storage.held('nobody') == []


def test_consumers_hold_messages_of_their_own(storage):
    storage.enqueue(messages('a b'))
    one, two = Consumer(storage, 'one'), Consumer(storage, 'two')
    [a], [b] = one.fetch(1), two.fetch(1)
    assert a.tag == b.tag and ids([a, b]) == 'a b'
    assert one.settle(a) == [True]
    assert storage.recall('two', [b.tag]) == [b]


def test_each_message_goes_to_one_of_many_consumers(kit):
    kit.storage.enqueue([message(f'{n}', priority=n % 2) for n in range(300)])

    def take(storage, name):
        consumer, got = Consumer(storage, name), []
        while deliveries := consumer.fetch(7):
            got += ids(deliveries).split()
        return got

    taken = [in_thread(take, kit.another(), f'consumer{n}') for n in range(6)]
    counted = Counter(word for future in taken for word in future.result(BOUND))
    assert counted == Counter(f'{n}' for n in range(300))


# -- what it says of itself -------------------------------------------------------------------------------------

def test_a_storage_says_where_and_what_it_is(kit):
    assert kit.storage.describe().startswith(f'{kit.kind}://')
    product, warnings = kit.storage.check()
    assert product and all(isinstance(warning, str) for warning in warnings)
    assert kit.storage.in_process == (kit.kind == 'memory')


def test_a_closed_storage_opens_again(kit):
    kit.storage.enqueue(messages('a'))
    kit.storage.close()
    assert kit.storage.pending_count('default') == 1


# -- the same where gevent has patched the process --------------------------------------------------------------

@pytest.mark.skipif('GEVENTHUEY_PATCHED' in os.environ, reason='it is patched already')
def test_the_contract_holds_in_a_patched_process():
    files = sorted(str(path) for path in Path(__file__).parent.glob('test_contract*.py'))
    program = (f'from gevent import monkey; monkey.patch_all(); import sys, pytest; '
               f'sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *{files!r}]))')
    ended = subprocess.run([sys.executable, '-c', program], cwd=CHECKOUT, capture_output=True, text=True, timeout=100,
                           env={**os.environ, 'GEVENTHUEY_PATCHED': '1'})
    assert ended.returncode == 0, ended.stdout + ended.stderr
