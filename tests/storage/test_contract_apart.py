"""The contract: what waits apart. Suspects, dead letters that are tried again or thrown away, keys that are claimed once."""

from __future__ import annotations

import pytest

from geventhuey.message import PROOF, REVOKED, REVOKED_FOR_GOOD, WANTS_RESULT, Message
from geventhuey.storage import base
from geventhuey.storage.base import Bury, Keep, Reaped, Revocation, Suspects, task_field
from tests.storage.kit import BOUND, Consumer, drain_tokens, eventually, flags_of, ids, in_thread, message, take_all

#: Four may die: as a consumer with 128 workers asks for them.
CLASSES: Suspects = ((4, 1), (3, 2), (2, 3))


def suspects(storage, text: str, deliveries: int, queue: str = 'default') -> None:
    """One message for each word, under which so many consumers have died."""
    storage.enqueue([message(word, queue)._replace(deliveries=deliveries) for word in text.split()])


def fetched(storage, at_most: int = 100, allowed: Suspects = CLASSES, limits: dict[str, int] | None = None) -> str:
    """What a new consumer's first fetch brings."""
    consumer = Consumer(storage, f'c{len(storage.consumers())}')
    return ids(consumer.ask(at_most, limits, suspects=allowed).deliveries)


# -- suspects ---------------------------------------------------------------------------------------------------

def test_a_message_under_which_two_consumers_have_died_waits_apart_and_comes_first(storage):
    storage.enqueue([message('a'), message('urgent', priority=5)])
    for n in range(2):
        consumer = Consumer(storage, f'victim{n}')
        assert ids(consumer.fetch(1)) == 'urgent'
        assert consumer.die() == Reaped(1, 0, True)
    storage.enqueue([message('most urgent', priority=9)])
    assert ids(storage.pending('default')[::-1]) == 'urgent most urgent a'
    assert storage.pending_count('default') == 3
    assert take_all(storage) == 'urgent most urgent a'


def test_no_more_suspects_come_than_there_is_room_for(storage):
    suspects(storage, 'a b c d e', 2)
    suspects(storage, 'f g h', 3)
    storage.enqueue([message('plain')])
    assert fetched(storage) == 'f g a b c plain'
    assert fetched(storage) == 'h d e'


def test_a_suspect_on_its_last_chance_comes_without_others(storage):
    suspects(storage, 'two', 2)
    suspects(storage, 'last last2', 4)
    storage.enqueue([message('plain')])
    assert fetched(storage) == 'last plain'
    assert fetched(storage) == 'last2'
    assert fetched(storage) == 'two'


def test_while_one_on_its_last_chance_waits_no_suspects_come_but_all_else_does(storage):
    suspects(storage, 'two', 2)
    suspects(storage, 'seven', 7)
    storage.enqueue([message('plain')])
    assert fetched(storage, allowed=((4, 0), (3, 2), (2, 3))) == 'plain'
    assert ids(storage.pending('default')) == 'two seven'


def test_who_does_not_say_how_many_gets_one_suspect(storage):
    suspects(storage, 'a b', 2)
    consumer = Consumer(storage)
    assert ids(storage.fetch(consumer.name, 1, {'default': 9}, 9).deliveries) == 'a'


def test_suspects_count_in_the_limits(storage):
    suspects(storage, 'a b c', 2, 'p')
    suspects(storage, 'd', 3, 'q')
    storage.enqueue([message('e', 'p'), message('f', 'q')])
    assert fetched(storage, 3, limits={'p': 2, 'q': 5}) == 'd a b'
    assert fetched(storage, 1, limits={'p': 1, 'q': 1}) == 'c'
    assert fetched(storage, 9, limits={'q': 1, 'p': 1}) == 'f e'


def test_suspects_of_queues_that_nobody_asks_for_stay(storage):
    suspects(storage, 'a', 2, 'p')
    assert fetched(storage, limits={'q': 9}) == ''
    assert fetched(storage, limits={}) == ''
    assert storage.pending_count('p') == 1


def test_what_is_released_or_dies_again_goes_to_the_head_of_its_like(storage):
    suspects(storage, 'a b', 2)
    suspects(storage, 'c', 3)
    first, second = Consumer(storage, 'first'), Consumer(storage, 'second')
    assert ids(first.ask(2, suspects=((4, 1), (3, 1), (2, 1))).deliveries) == 'c a'
    assert ids(second.fetch()) == 'b'
    storage.release('second', 9)
    assert first.die() == Reaped(2, 0, True)
    assert [(Message.decode(raw).id, Message.decode(raw).deliveries) for raw in storage.pending('default')[::-1]] == [
        ('c', 4), ('a', 3), ('b', 2)]


def test_a_repeated_fetch_brings_the_same_suspects(storage):
    suspects(storage, 'a b c d', 2)
    consumer = Consumer(storage)
    again = [storage.fetch(consumer.name, 1, {'default': 9}, 9, CLASSES).deliveries for _ in range(2)]
    assert again[0] == again[1] and ids(again[0]) == 'a b c'


def test_flush_takes_suspects_along(storage):
    suspects(storage, 'a', 2)
    storage.flush()
    assert storage.pending('default') == [] and storage.pending_count('default') == 0


def test_the_pending_list_ends_with_the_suspects(storage):
    storage.enqueue([message('a'), message('b')])
    suspects(storage, 'c d', 2)
    assert ids(storage.pending('default')) == 'b a d c'
    assert ids(storage.pending('default', 3)) == 'b a d'


# -- dead letters -----------------------------------------------------------------------------------------------

def bury(storage, *letters: Message) -> None:
    """Each of the messages is a dead letter, and its result says so."""
    storage.enqueue(letters)
    consumer = Consumer(storage, 'gravedigger')
    for delivery in consumer.fetch():
        task_id = Message.decode(delivery.message).id
        consumer.settle(delivery, effects=[Bury(delivery.message, task_id, 'why'), Keep(task_id, b'Lwhy', None)])


def test_a_dead_letter_that_is_tried_again_is_as_if_newly_sent(storage):
    storage.enqueue([message('poison', flags=WANTS_RESULT)])
    consumer = Consumer(storage)
    consumer.fetch()
    consumer.die(max_deliveries=1)
    storage.enqueue([message('other')])
    assert storage.result('poison', preserve=True)[:1] == base.LOST
    assert storage.retry_dead('poison') == 1
    assert storage.dead() == []
    assert storage.result('poison', preserve=True) is None
    assert storage.pending('default')[::-1] == [message('other').encode(), message('poison', flags=WANTS_RESULT).encode()]


@pytest.mark.parametrize('signature', ['', 'cafe'])
def test_a_dead_letter_that_is_tried_again_is_not_revoked(storage, signature):
    storage.revoke(task_field('a'), Revocation(None, True, signature), None)
    bury(storage, message('a'))
    [(_, _, raw)] = storage.dead()
    assert Message.decode(raw).flags & REVOKED_FOR_GOOD
    storage.retry_dead('a')
    assert storage.pending('default') == [message('a').encode()]


def test_only_the_dead_letters_of_the_task_are_tried_again_or_thrown_away(storage):
    bury(storage, message('a'), message('b'), message('ab'), message('a'), message('ü:1'))
    assert storage.retry_dead('c') == storage.purge_dead('c') == 0
    assert storage.retry_dead('a') == 2
    assert ids(storage.dead()) == 'ü:1 ab b'
    assert storage.purge_dead('ü:1') == 1
    assert ids(storage.dead()) == 'ab b'
    assert storage.purge_dead() == 2
    assert storage.dead() == []
    assert ids(storage.pending('default')) == 'a a'


def test_a_result_that_is_none_of_a_loss_stays_when_the_task_is_tried_again(storage):
    bury(storage, message('a'))
    storage.put_result('a', b'Vvalue', None)
    storage.retry_dead('a')
    assert storage.result('a', preserve=True) == b'Vvalue'


def test_a_dead_letter_that_is_tried_again_wakes_a_consumer(kit):
    bury(kit.storage, message('a'))
    drain_tokens(kit)
    waiter = in_thread(kit.another().wait_wake, ['default'], BOUND)
    eventually(lambda: kit.waiting() == 1)
    kit.storage.retry_dead('a')
    assert waiter.result(BOUND) is True


def test_many_who_try_a_dead_letter_again_have_it_run_once(kit):
    bury(kit.storage, message('a'))
    found = [in_thread(kit.another().retry_dead, 'a') for _ in range(8)]
    assert sum(future.result(BOUND) for future in found) == 1
    assert take_all(kit.storage) == 'a'


# -- the proof of a signed revocation ----------------------------------------------------------------------------

def test_a_message_that_is_revoked_with_a_signature_brings_the_revocation_along(storage):
    revocation = Revocation(None, False, 'cafe')
    storage.revoke(task_field('a'), revocation, None)
    storage.enqueue([message('a'), message('b')])
    consumer = Consumer(storage)
    deliveries = consumer.fetch()
    assert flags_of(deliveries) == [REVOKED | PROOF, 0]
    assert Revocation.decode(Message.decode(deliveries[0].message).proof) == revocation == storage.revocation(task_field('a'))
    assert Message.decode(deliveries[0].message).payload == b'payload'
    storage.release(consumer.name, 9)
    assert storage.pending('default')[::-1] == [message('a').encode(), message('b').encode()]


def test_the_proof_of_a_revocation_that_is_used_up_stays(storage):
    storage.revoke(task_field('a'), Revocation(None, True, 'cafe'), None)
    storage.enqueue([message('a')])
    for n in range(2):
        consumer = Consumer(storage, f'c{n}')
        [delivery] = consumer.fetch()
        assert Message.decode(delivery.message).flags == REVOKED_FOR_GOOD | PROOF
        assert Message.decode(delivery.message).proof == b'0:1:cafe'
        storage.release(consumer.name, 9)
    assert storage.revocation(task_field('a')) is None


# -- once -------------------------------------------------------------------------------------------------------

def test_a_key_is_its_first_owners(storage):
    assert storage.claim('k', 'me', 60)
    assert not storage.claim('k', 'you', 60)
    assert storage.claim('k', 'me', 60), 'whose answer was lost asks again'
    assert storage.claim('other', 'you', 60)


def test_a_key_is_given_back_by_its_owner_alone(storage):
    storage.claim('k', 'me', 60)
    assert not storage.unclaim('k', 'you')
    assert not storage.claim('k', 'you', 60)
    assert storage.unclaim('k', 'me')
    assert not storage.unclaim('k', 'me')
    assert storage.claim('k', 'you', 60)


def test_a_key_is_free_when_its_time_is_over(kit):
    assert kit.storage.claim('k', 'me', 60)
    kit.later(61)
    assert not kit.storage.unclaim('k', 'me')
    assert kit.storage.claim('k', 'you', 60)
    assert not kit.storage.claim('k', 'me', 60)


def test_one_of_many_who_claim_a_key_at_once_gets_it(kit):
    claims = [in_thread(kit.another().claim, 'k', f'owner{n}', 60) for n in range(8)]
    assert sum(claim.result(BOUND) for claim in claims) == 1
