"""The contract of revocations, of what is kept to be looked at, of junk, and of emptiness."""

from __future__ import annotations

import random

import pytest

from geventhuey.exceptions import MessageError
from geventhuey.message import REVOKED, REVOKED_FOR_GOOD, WANTS_RESULT, Message
from geventhuey.storage import base
from geventhuey.storage.base import (
    Bury,
    Keep,
    NoteError,
    Revocation,
    Settlement,
    Standing,
    name_field,
    task_field,
)
from tests.storage.kit import (
    FAR,
    FOR_EVER,
    ONCE,
    PAST,
    Calls,
    Consumer,
    drain_tokens,
    eventually,
    flags_of,
    ids,
    message,
    messages,
)

# -- revocations ------------------------------------------------------------------------------------------------

def test_a_revoked_message_comes_with_a_flag(storage):
    storage.revoke(task_field('b'), FOR_EVER, None)
    storage.enqueue(messages('a b c'))
    consumer = Consumer(storage)
    assert flags_of(consumer.fetch()) == [0, REVOKED, 0]


def test_a_revoked_name_is_not_a_revoked_id(storage):
    storage.revoke(name_field('x'), FOR_EVER, None)
    storage.revoke(task_field('y'), FOR_EVER, None)
    storage.enqueue([message('1', name='x'), message('x', name='z'), message('2', name='y'), message('y', name='z')])
    assert flags_of(Consumer(storage).fetch()) == [REVOKED, 0, 0, REVOKED]


def test_a_revocation_can_be_taken_back(storage):
    storage.revoke(task_field('a'), FOR_EVER, 60.0)
    assert storage.restore(task_field('a')) is True
    assert storage.restore(task_field('a')) is False
    assert storage.restore(name_field('a')) is False
    storage.enqueue(messages('a'))
    assert flags_of(Consumer(storage).fetch()) == [0]


def test_a_revocation_holds_until_its_time(kit):
    storage = kit.storage
    until = round(kit.now()) + 3600.5
    storage.revoke(task_field('a'), Revocation(until, False), None)
    assert storage.revocation(task_field('a')) == Revocation(until, False)
    consumer = Consumer(storage)
    storage.enqueue(messages('a'))
    assert flags_of(consumer.fetch()) == [REVOKED]
    kit.later(3602)
    storage.enqueue(messages('a'))
    assert flags_of(consumer.fetch()) == [0]


def test_a_revocation_replaces_an_earlier_one(storage):
    field = name_field('app.task')
    for revocation in (FOR_EVER, Revocation(FAR, False), ONCE, Revocation(FAR, True), FOR_EVER):
        storage.revoke(field, revocation, None)
        assert storage.revocation(field) == revocation
    assert storage.revocation(task_field('app.task')) is None


def test_a_revocation_for_the_next_run_is_used_up_by_one_message(storage):
    storage.revoke(name_field('app.task'), ONCE, 60.0)
    storage.enqueue(messages('a b c'))
    consumer = Consumer(storage)
    assert flags_of(consumer.fetch(2)) == [REVOKED_FOR_GOOD, 0]
    assert storage.revocation(name_field('app.task')) is None
    assert flags_of(consumer.fetch(2)) == [0]


def test_one_message_uses_up_one_revocation(storage):
    storage.revoke(name_field('app.task'), ONCE, None)
    storage.revoke(task_field('a'), ONCE, None)
    storage.enqueue(messages('a b c'))
    assert flags_of(Consumer(storage).fetch()) == [REVOKED_FOR_GOOD, REVOKED_FOR_GOOD, 0]


def test_a_message_that_is_revoked_twice_bears_both_flags(storage):
    storage.revoke(task_field('a'), ONCE, None)
    storage.revoke(name_field('app.task'), FOR_EVER, None)
    storage.enqueue(messages('a b'))
    assert flags_of(Consumer(storage).fetch()) == [REVOKED | REVOKED_FOR_GOOD, REVOKED]


@pytest.mark.parametrize('back', ['reap', 'release'])
def test_what_goes_back_forgets_a_revocation_but_not_one_that_it_has_used_up(storage, back):
    storage.revoke(task_field('a'), ONCE, None)
    storage.revoke(task_field('b'), FOR_EVER, None)
    storage.enqueue([message('a', flags=WANTS_RESULT), message('b', flags=WANTS_RESULT), message('c', priority=-1)])
    consumer = Consumer(storage)
    assert flags_of(consumer.fetch()) == [WANTS_RESULT | REVOKED_FOR_GOOD, WANTS_RESULT | REVOKED, 0]
    storage.restore(task_field('b'))
    assert consumer.die() if back == 'reap' else storage.release('consumer', 9)
    assert flags_of(Consumer(storage, 'next').fetch()) == [WANTS_RESULT | REVOKED_FOR_GOOD, WANTS_RESULT, 0]


def test_old_revocations_are_trimmed(kit):
    storage = kit.storage
    storage.revoke(task_field('a'), FOR_EVER, 100.0)
    storage.revoke(task_field('b'), FOR_EVER, 3600.0)
    storage.revoke(task_field('c'), FOR_EVER, None)
    storage.revoke(task_field('d'), FOR_EVER, 100.0)
    storage.revoke(task_field('d'), FOR_EVER, None)         # replaced by one that is never forgotten
    assert storage.trim() == 0
    kit.later(200)
    assert storage.trim() == 1
    assert storage.trim() == 0
    assert [storage.revocation(task_field(each)) is not None for each in 'abcd'] == [False, True, True, True]


# -- looking ----------------------------------------------------------------------------------------------------

def test_pending_lists_the_last_to_run_first(storage):
    storage.enqueue([message('c'), message('e', priority=-2), message('a', priority=2), message('b', priority=1),
                     message('d'), message('f', priority=-3)])
    assert ids(storage.pending('default')) == 'f e d c b a'
    assert [ids(storage.pending('default', limit)) for limit in (1, 2, 3, 5, 9)] == [
        'f', 'f e', 'f e d', 'f e d c b', 'f e d c b a']
    assert storage.pending_count('default') == 6
    assert storage.pending('nothing') == [] and storage.pending_count('nothing') == 0


def test_the_error_list_has_the_last_first(storage):
    for n in range(5):
        storage.note_error(b'%d' % n)
    assert storage.errors() == [b'4', b'3', b'2', b'1', b'0']
    assert storage.errors(2) == [b'4', b'3']
    assert storage.errors(2, 1) == [b'3', b'2']
    assert storage.errors(None, 3) == [b'1', b'0']
    assert storage.errors(9, 9) == []


@pytest.mark.parametrize('most', [3, 0])
def test_the_error_list_keeps_the_last_entries_only(kit, most):
    kit.storage.max_errors = most
    if kit.kind == 'memory':
        kit.storage._empty()
    kit.storage.enqueue(messages('a'))
    consumer = Consumer(kit.storage)
    for n in range(3):
        kit.storage.note_error(b'%d' % n)
    consumer.settle(*consumer.fetch(), effects=[NoteError(b'3'), NoteError(b'4')])
    assert kit.storage.errors() == [b'4', b'3', b'2'][:most]


def test_dead_letters_are_listed_the_last_first(storage):
    bury(storage, 25)
    assert [why for _, why, _ in storage.dead()] == [f'{n}: a reason' for n in range(24, -1, -1)]
    assert [why for _, why, _ in storage.dead(2)] == ['24: a reason', '23: a reason']


def bury(storage, how_many):
    """So many dead letters, in one step; their payload may hold anything."""
    storage.enqueue([message('a', payload=b'\0 payload \0')])
    consumer = Consumer(storage)
    [delivery] = consumer.fetch()
    consumer.settle(delivery, effects=[Bury(delivery.message, 'a', f'{n}: a reason') for n in range(how_many)])
    assert all(raw == delivery.message for _, _, raw in storage.dead(3))


def test_the_oldest_dead_letters_go(storage):
    bury(storage, base.MAX_DEAD + 5)
    dead = storage.dead()
    assert (len(dead), dead[0][1], dead[-1][1]) == (base.MAX_DEAD, f'{base.MAX_DEAD + 4}: a reason', '5: a reason')


# -- bytes that are no messages ---------------------------------------------------------------------------------

def make_junk():
    """Bytes that are no messages, each wrong in its own way."""
    good = message('identity', 'queue').encode()
    rng = random.Random(7)
    yield from (good[:length] for length in range(len(good) - len(b'payload')))
    yield b'\x02' + good[1:]
    yield b'\x00' + good[1:]
    for offset in (21, 22, 23):
        yield good[:offset] + b'\0' + good[offset + 1:]
        yield good[:offset] + b'\xff' + good[offset + 1:]
    for offset in (24, 34, 44):         # not UTF-8: in the id, in the name, in the queue's name
        yield good[:offset] + b'\xff' + good[offset + 1:]
        yield good[:offset] + b'\xed\xa0\x80' + good[offset + 3:]
    for _ in range(100):
        yield rng.randbytes(rng.randrange(1, 80))
        yield good[:1] + rng.randbytes(23) + good[24:]


JUNK = [junk for junk in make_junk() if junk]


def is_message(raw):
    try:
        Message.decode(raw)
        return True
    except MessageError:
        return False


def test_junk_in_a_queue_is_set_aside_and_counted(kit):
    kit.put_junk('default', message('a').encode(), *JUNK, message('b').encode())
    consumer = Consumer(kit.storage)
    got = []
    while kit.storage.pending_count('default'):
        got += consumer.fetch(50)
        consumer.settle_all()
    good = [raw for raw in JUNK if is_message(raw)]
    junk = [raw for raw in JUNK if not is_message(raw)]
    assert [delivery.message for delivery in got] == [message('a').encode(), *good, message('b').encode()]
    assert kit.storage.malformed() == junk[::-1]
    assert kit.storage.malformed(2) == junk[:-3:-1]
    assert kit.storage.counters() == {'malformed': len(junk)}


def test_junk_in_the_schedule_is_set_aside_and_counted(kit):
    junk = sorted({raw for raw in JUNK if not is_message(raw)})[:100]
    for raw in junk:
        kit.schedule_junk(raw)
    kit.storage.schedule(message('a'), due=PAST + 1)
    assert ids(Consumer(kit.storage).fetch()) == 'a'
    assert sorted(kit.storage.malformed()) == junk
    assert kit.storage.counters() == {'malformed': len(junk)}


def test_an_answer_of_nothing_but_junk_does_not_use_up_the_number(kit):
    kit.put_junk('default', b'junk', b'more')
    kit.storage.enqueue(messages('a'))
    consumer = Consumer(kit.storage)
    assert consumer.ask(2, request=1) == base.Fetched(Standing.GOOD, [])
    assert kit.tokens() == {'default'}
    assert ids(consumer.ask(2, request=1).deliveries) == 'a'


def test_the_last_malformed_ones_are_kept(kit):
    kit.put_junk('default', *[b'%d' % n for n in range(base.MAX_MALFORMED + 5)])
    consumer = Consumer(kit.storage)
    while kit.storage.pending_count('default'):
        assert consumer.fetch(500) == []
    assert kit.storage.malformed() == [b'%d' % n for n in range(base.MAX_MALFORMED + 4, 4, -1)]
    assert kit.storage.counters() == {'malformed': base.MAX_MALFORMED + 5}


# -- flush ------------------------------------------------------------------------------------------------------

def test_a_flush_leaves_what_is_in_flight(kit):
    storage = kit.storage
    storage.enqueue(messages('a b') + messages('c', 'other') + [message('d', priority=1)])
    storage.schedule(message('e'), due=FAR)
    storage.put_result('f', b'Vvalue', None)
    storage.revoke(task_field('g'), FOR_EVER, 60.0)
    storage.note_error(b'error')
    kit.put_junk('junk', b'junk')
    consumer = Consumer(storage)
    held = consumer.fetch(2, {'default': 2, 'junk': 1})
    storage.settle('consumer', [Settlement(held[1].tag, (Bury(held[1].message, 'a', 'why'),))])
    storage.flush()
    assert [storage.pending('default'), storage.pending('other'), storage.scheduled(), storage.dead(), storage.errors(),
            storage.malformed(), storage.results(), storage.revocation(task_field('g'))] == [[]] * 6 + [{}, None]
    assert storage.held('consumer') == [held[0].tag]
    assert consumer.ask().standing is Standing.GOOD
    assert consumer.settle(held[0], effects=[Keep('d', b'Vvalue', None)]) == [True]
    assert storage.result('d', preserve=True) == b'Vvalue'


def test_a_flush_tells_those_who_wait(kit):
    woken = Calls()
    with kit.another().watching('a', woken):
        eventually(lambda: woken.count)
        before = woken.count
        kit.storage.flush()
        eventually(lambda: woken.count > before)
        assert kit.storage.result('a', preserve=False)[:1] == base.LOST
    assert kit.storage.result('b', preserve=True) is None


def test_a_flush_of_nothing(kit):
    kit.storage.flush()
    assert kit.leftovers() == set()


# -- nothing stays ----------------------------------------------------------------------------------------------

def test_nothing_is_left_when_everything_has_ended(kit):
    storage = kit.storage
    storage.enqueue([message(f'{n}', priority=n % 3 - 1, flags=WANTS_RESULT) for n in range(30)])
    storage.schedule(message('due'), due=PAST)
    storage.revoke(task_field('3'), ONCE, 60.0)
    storage.revoke(task_field('gone'), FOR_EVER, 60.0)
    first, second = Consumer(storage, 'first'), Consumer(storage, 'second')
    first.fetch(20)
    first.die(at_most=5)
    first.die()
    while deliveries := second.fetch(8):
        second.settle(*deliveries, effects=[Keep(ids(deliveries[:1]), b'Vvalue', 60.0)])
    assert storage.release('second', 5).done
    with storage.watching('0', Calls()):
        pass
    kit.later(61)
    assert storage.trim() == 1
    drain_tokens(kit)
    assert kit.leftovers() <= {'counters', 'sequence'}
    storage.flush()
    assert kit.leftovers() <= {'counters', 'sequence'}
