"""The contract of the verbs that end a delivery, or take it back: settle, reap, release, adopt."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from geventhuey.message import AT_MOST_ONCE, WANTS_RESULT, Message
from geventhuey.storage import base
from geventhuey.storage.base import (
    Bury,
    Enqueue,
    Keep,
    NoteError,
    Publish,
    Reaped,
    Schedule,
    Settlement,
    Standing,
)
from tests.storage.kit import (
    BOUND,
    Calls,
    Consumer,
    drain_tokens,
    eventually,
    ids,
    in_thread,
    message,
    messages,
    retry,
    retry_later,
    take_all,
)

# -- settle: in flight -> end -----------------------------------------------------------------------------------

def test_a_delivery_is_settled_by_its_holder_only(storage):
    storage.enqueue(messages('a'))
    one, two = Consumer(storage, 'one'), Consumer(storage, 'two')
    [delivery] = one.fetch()
    assert two.settle(delivery, effects=all_effects(delivery)) == [False]
    assert_no_effect(storage)
    assert one.settle(delivery) == [True]
    assert storage.held('one') == []


def test_a_second_settle_has_no_effect(storage):
    storage.enqueue(messages('a'))
    consumer = Consumer(storage)
    [delivery] = consumer.fetch()
    assert consumer.settle(delivery) == [True]
    assert consumer.settle(delivery, effects=all_effects(delivery)) == [False]
    assert_no_effect(storage)


def test_who_lost_a_delivery_changes_nothing(storage):
    storage.enqueue(messages('a'))
    consumer = Consumer(storage)
    [delivery] = consumer.fetch()
    consumer.die()
    take_all(storage)
    assert consumer.settle(delivery, effects=all_effects(delivery)) == [False]
    assert_no_effect(storage)


def all_effects(delivery):
    return [Keep('a', b'Vvalue', None), retry(delivery), retry_later(delivery, 3600), Bury(delivery.message, 'a', 'poison'),
            NoteError(b'an error')]


def assert_no_effect(storage):
    assert storage.result('a', preserve=True) is None
    assert storage.pending('default') == storage.scheduled() == storage.dead() == storage.errors() == []


def test_every_effect_happens_with_the_end_of_the_delivery(kit):
    storage = kit.storage
    storage.enqueue(messages('a'))
    consumer = Consumer(storage)
    [delivery] = consumer.fetch()
    events = iter(kit.another())
    effects = [Keep('a', b'Vvalue', 60.0), Enqueue(message('next', 'other', 3).encode()), Schedule(message('later').encode(), 3600),
               Bury(delivery.message, 'a', 'poison'), NoteError(b'an error'), Publish(b'{"status": "finished"}')]
    assert consumer.settle(delivery, effects=effects) == [True]
    assert storage.result('a', preserve=True) == b'Vvalue'
    assert ids(storage.pending('other')) == 'next'
    [(due, raw)] = storage.scheduled()
    assert due == pytest.approx(kit.now() + 3600, abs=5) and ids([raw]) == 'later'
    [(when, why, raw)] = storage.dead()
    assert when == pytest.approx(kit.now(), abs=5) and (why, ids([raw])) == ('poison', 'a')
    assert storage.errors() == [b'an error']
    assert next(events) == {'status': 'finished'}
    assert storage.counters() == {'dead': 1}


def test_effects_happen_in_the_order_given(storage):
    storage.enqueue(messages('a b'))
    consumer = Consumer(storage)
    a, b = consumer.fetch()
    storage.settle('consumer', [
        Settlement(a.tag, (Keep('a', b'V1', None), Keep('a', b'V2', None), *map(Enqueue, encoded('c d')))),
        Settlement(b.tag, (NoteError(b'1'), *map(Enqueue, encoded('e')), NoteError(b'2')))])
    assert storage.result('a', preserve=True) == b'V2'
    assert ids(storage.pending('default')) == 'e d c'
    assert storage.errors() == [b'2', b'1']


def encoded(text):
    return [each.encode() for each in messages(text)]


def test_what_an_effect_enqueues_has_its_priority(storage):
    storage.enqueue(messages('a plain'))
    consumer = Consumer(storage)
    consumer.settle(*consumer.fetch(1), effects=[Enqueue(message('low', priority=-1).encode()),
                                                 Enqueue(message('urgent', priority=1).encode())])
    assert ids(consumer.fetch()) == 'urgent plain low'


def test_a_settle_answers_for_each_delivery(storage):
    storage.enqueue(messages('a b c'))
    consumer = Consumer(storage)
    a, b, c = consumer.fetch()
    consumer.settle(b)
    assert consumer.settle(a, b, c, a, effects=[NoteError(b'entry')]) == [True, False, True, False]
    assert storage.errors() == [b'entry'] * 2
    assert storage.settle('consumer', []) == []


def test_a_settle_may_be_large(storage):
    storage.enqueue([message(f'{n}') for n in range(700)])
    consumer = Consumer(storage)
    deliveries = consumer.fetch(400) + consumer.fetch(400)
    settlements = [Settlement(delivery.tag, (Keep(ids([delivery]), b'V' + bytes(5000), 60.0),)) for delivery in deliveries]
    assert storage.settle('consumer', settlements) == [True] * 700
    assert storage.result_count() == 700
    assert storage.held('consumer') == []


def test_an_evicted_consumer_may_settle_what_it_still_holds(storage):
    storage.enqueue(messages('a b'))
    consumer = Consumer(storage)
    a, b = consumer.fetch()
    consumer.die(at_most=1)         # takes back the newest
    assert consumer.settle(a, b, effects=[NoteError(b'entry')]) == [True, False]
    assert storage.errors() == [b'entry']
    assert consumer.die() == Reaped(0, 0, True)


# -- reap: in flight -> queue -----------------------------------------------------------------------------------

def test_a_silent_consumer_loses_everything_to_the_heads_of_its_queues(storage):
    storage.enqueue([*messages('a b c'), *messages('x', 'other'), message('low', priority=-1), message('urgent', priority=1)])
    consumer = Consumer(storage)
    assert ids(consumer.fetch(limits={'default': 5, 'other': 5})) == 'urgent a b c low x'
    storage.enqueue([*messages('d'), message('low2', priority=-1), message('urgent2', priority=1)])
    assert consumer.die() == Reaped(6, 0, True)
    assert ids(storage.pending('default')[::-1]) == 'urgent urgent2 a b c d low low2'
    assert ids(storage.pending('other')) == 'x'
    assert storage.counters() == {'reaped': 6}


def test_a_reap_in_steps_keeps_the_order(storage):
    storage.enqueue([message(f'{n}', priority=n % 2) for n in range(20)])
    consumer = Consumer(storage)
    consumer.fetch(7)
    consumer.fetch(13)
    order = [f'{n}' for n in (*range(1, 20, 2), *range(0, 20, 2))]
    steps = [consumer.die(at_most=8) for _ in range(3)]
    assert steps == [Reaped(8, 0, False), Reaped(8, 0, False), Reaped(4, 0, True)]
    assert take_all(storage).split() == order


def test_a_large_reap_loses_nothing(storage):
    storage.enqueue([message(f'{n}') for n in range(2500)])
    consumer = Consumer(storage)
    while consumer.fetch(500):
        pass
    reaped = []
    while not reaped or not reaped[-1].done:
        reaped.append(consumer.die(at_most=200))
    assert sum(step.requeued for step in reaped) == 2500 and len(reaped) == 13
    assert Counter(take_all(storage).split()) == Counter(f'{n}' for n in range(2500))


def test_a_reap_makes_a_message_one_delivery_older(storage):
    storage.enqueue(messages('a'))
    for n in range(3):
        consumer = Consumer(storage, f'consumer{n}')
        [delivery] = consumer.fetch()
        assert Message.decode(delivery.message).deliveries == n
        consumer.die()


def test_who_has_beaten_since_is_not_reaped(storage):
    storage.enqueue(messages('a b'))
    consumer = Consumer(storage)
    seen = consumer.beat_text()
    consumer.fetch(1)
    assert storage.reap('consumer', seen, 5, 10, None) is None
    assert storage.beat('consumer').standing is Standing.GOOD
    assert ids(consumer.fetch()) == 'b'


def test_a_beat_between_look_and_reap_saves_the_consumer(storage):
    storage.enqueue(messages('a'))
    consumer = Consumer(storage)
    consumer.fetch()
    seen = consumer.beat_text()
    eventually(lambda: storage.beat('consumer') and consumer.beat_text() != seen)
    assert storage.reap('consumer', seen, 5, 10, None) is None
    assert len(storage.held('consumer')) == 1


@pytest.mark.parametrize('beat', ['', 'x', '0', '0:0'])
def test_a_beat_that_never_was_reaps_nobody(storage, beat):
    storage.enqueue(messages('a'))
    consumer = Consumer(storage)
    consumer.fetch()
    assert storage.reap('consumer', beat, 5, 10, None) is None
    assert storage.beat('consumer') [::2] == (Standing.GOOD, 1)


def test_who_is_not_registered_cannot_be_reaped(storage):
    assert storage.reap('nobody', 'x', 5, 10, None) is None
    assert storage.consumers() == {}


def test_an_evicted_consumer_is_reaped_further_whatever_its_beat_was(storage):
    storage.enqueue(messages('a b'))
    consumer = Consumer(storage)
    consumer.fetch()
    seen = consumer.beat_text()
    assert storage.reap('consumer', seen, 5, 1, None) == Reaped(1, 0, False)
    assert storage.consumers() == {'consumer': 'x'}
    assert storage.reap('consumer', 'whatever', 5, 1, None) == Reaped(1, 0, True)


def test_the_last_step_of_a_reap_forgets_the_consumer(storage):
    storage.enqueue(messages('a'))
    consumer = Consumer(storage)
    consumer.fetch()
    assert consumer.die().done
    assert storage.consumers() == storage.consumer_info() == {}


def test_an_idle_consumer_is_forgotten_at_once(storage):
    assert Consumer(storage).die() == Reaped(0, 0, True)
    assert storage.consumers() == storage.consumer_info() == {}


def test_several_reapers_move_each_message_once(kit):
    kit.storage.enqueue([message(f'{n}') for n in range(120)])
    consumer = Consumer(kit.storage)
    consumer.fetch(120)
    seen = consumer.beat_text()
    barrier = threading.Barrier(6)

    def reap(storage):
        barrier.wait(BOUND)
        moved = 0
        while (reaped := storage.reap('consumer', seen, 5, 3, None)) is not None:
            moved += reaped.requeued
        return moved

    reapers = [in_thread(reap, kit.another()) for _ in range(6)]
    assert sum(future.result(BOUND) for future in reapers) == 120
    assert take_all(kit.storage).split() == [f'{n}' for n in range(120)]


def test_a_message_that_kills_its_consumers_becomes_a_dead_letter(storage):
    storage.enqueue([message('poison', flags=WANTS_RESULT), message('quiet')])
    for n in range(2):
        consumer = Consumer(storage, f'consumer{n}')
        consumer.fetch()
        assert consumer.die(max_deliveries=3) == Reaped(2, 0, True)
    consumer = Consumer(storage, 'last')
    consumer.fetch()
    assert consumer.die(max_deliveries=3) == Reaped(0, 2, True)
    assert [(why, ids([raw]), Message.decode(raw).deliveries) for _, why, raw in storage.dead()] == [
        ('its consumer died while it ran, 3 times', 'poison', 3), ('its consumer died while it ran, 3 times', 'quiet', 3)]
    assert storage.result('poison', preserve=True) == b'Lits consumer died while it ran, 3 times'
    assert storage.result('quiet', preserve=True) is None
    assert storage.counters() == {'reaped': 4, 'dead': 2}


def test_a_message_that_may_run_once_is_not_queued_again(storage):
    storage.enqueue([message('once', flags=AT_MOST_ONCE | WANTS_RESULT), message('often')])
    consumer = Consumer(storage)
    consumer.fetch()
    assert consumer.die(result_ttl=None) == Reaped(1, 1, True)
    assert ids(storage.pending('default')) == 'often'
    assert ids(storage.dead()) == 'once'
    assert storage.result('once', preserve=True) == b'Lits consumer died while it ran, and it may run only once'


def test_who_waits_for_a_message_that_dies_is_told(kit):
    kit.storage.enqueue([message('once', flags=AT_MOST_ONCE | WANTS_RESULT)])
    consumer = Consumer(kit.storage)
    consumer.fetch()
    woken = Calls()
    with kit.another().watching('once', woken):
        eventually(lambda: woken.count)
        before = woken.count
        consumer.die()
        eventually(lambda: woken.count > before)
    assert kit.storage.result('once', preserve=True)[:1] == base.LOST


def test_a_reap_wakes_a_consumer_of_each_queue(kit):
    kit.storage.enqueue(messages('a') + messages('b', 'other'))
    consumer = Consumer(kit.storage)
    consumer.fetch(limits={'default': 1, 'other': 1})
    drain_tokens(kit)
    consumer.die()
    assert kit.tokens() == {'default', 'other'}


def test_deliveries_are_counted_no_further_than_a_byte_holds(storage):
    storage.enqueue([message('a')._replace(deliveries=255)])
    consumer = Consumer(storage)
    consumer.fetch()
    assert consumer.die(max_deliveries=256) == Reaped(1, 0, True)
    assert Message.decode(storage.pending('default')[0]).deliveries == 255


# -- release, adopt ---------------------------------------------------------------------------------------------

def test_a_release_takes_everything_back_as_if_it_had_never_been_fetched(storage):
    storage.enqueue([*messages('a b c'), message('once', flags=AT_MOST_ONCE), message('urgent', priority=1)])
    before = storage.pending('default')
    consumer = Consumer(storage)
    unbegun = [delivery.tag for delivery in consumer.fetch()]
    assert storage.release('consumer', 3, unbegun) == Reaped(3, 0, False)
    assert storage.beat('consumer').standing is Standing.GOOD
    assert storage.release('consumer', 3, unbegun) == Reaped(2, 0, True)
    assert storage.pending('default') == before
    assert storage.consumers() == storage.consumer_info() == {}
    assert storage.counters() == {'released': 5}
    assert storage.dead() == []


def test_a_release_buries_what_may_run_once_and_has_been_begun(storage):
    storage.enqueue([message('often'), message('begun', flags=AT_MOST_ONCE | WANTS_RESULT), message('unbegun', flags=AT_MOST_ONCE)])
    deliveries = Consumer(storage).fetch()
    assert storage.release('consumer', 9, [deliveries[2].tag], None) == Reaped(2, 1, True)
    assert ids(storage.pending('default')) == 'unbegun often'
    assert [(why, ids([raw])) for _, why, raw in storage.dead()] == [
        ('its consumer was stopped while it ran, and it may run only once', 'begun')]
    assert storage.result('begun', preserve=True) == b'Lits consumer was stopped while it ran, and it may run only once'


def test_a_release_of_an_old_message_is_no_death(storage):
    storage.enqueue([message('a')._replace(deliveries=254)])
    consumer = Consumer(storage)
    consumer.fetch()
    assert storage.release('consumer', 9) == Reaped(1, 0, True)
    assert Message.decode(storage.pending('default')[0]).deliveries == 254


def test_a_release_may_be_repeated(storage):
    Consumer(storage)
    assert storage.release('consumer', 1) == storage.release('consumer', 1) == Reaped(0, 0, True)


def test_a_release_wakes(kit):
    kit.storage.enqueue(messages('a'))
    Consumer(kit.storage).fetch()
    drain_tokens(kit)
    kit.storage.release('consumer', 1)
    assert kit.tokens() == {'default'}


def test_a_consumer_whose_registration_was_lost_can_be_reaped(kit):
    storage = kit.storage
    storage.enqueue(messages('a'))
    consumer = Consumer(storage)
    consumer.fetch()
    assert storage.adopt('consumer') is False
    assert storage.beat('consumer').standing is Standing.GOOD
    kit.lose_registry()
    assert consumer.ask().standing is Standing.UNKNOWN
    assert storage.adopt('consumer') is True
    assert storage.adopt('consumer') is False
    assert consumer.ask().standing is Standing.EVICTED
    assert consumer.die() == Reaped(1, 0, True)
    assert storage.consumer_info() == {}


def test_who_never_described_himself_is_not_adopted(storage):
    assert storage.adopt('nobody') is False
    assert storage.consumers() == {}


def test_a_consumer_whose_registration_was_lost_may_register_again_and_keeps_what_it_holds(kit):
    kit.storage.enqueue(messages('a b'))
    consumer = Consumer(kit.storage)
    [a] = consumer.fetch(1)
    kit.lose_registry()
    kit.storage.register('consumer', consumer.request - 1, b'info of consumer')
    assert ids(consumer.fetch()) == 'b'
    assert consumer.settle(a) == [True]


def test_an_answer_that_was_lost_together_with_the_registration_is_not_lost(kit):
    kit.storage.enqueue(messages('a b'))
    consumer = Consumer(kit.storage)
    lost = consumer.ask(1, request=1)           # its owner never hears of it
    consumer.request = 1
    kit.lose_registry()
    kit.storage.register('consumer', 0, b'info of consumer')
    assert consumer.ask(1).deliveries == lost.deliveries
    assert ids(consumer.fetch()) == 'b'
