"""The twins: random sequences of verbs, most of which make no sense, have the same answers from memory and from Redis."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geventhuey.exceptions import MessageError
from geventhuey.message import AT_MOST_ONCE, WANTS_RESULT, Message
from geventhuey.storage import base
from geventhuey.storage.base import (
    Bury,
    Enqueue,
    Keep,
    NoteError,
    Publish,
    Revocation,
    Schedule,
    Settlement,
    Standing,
    name_field,
    task_field,
)
from tests.storage.kit import FAR, PAST, Kit, MemoryKit, drain_tokens, message

# -- what verbs are called with ---------------------------------------------------------------------------------

consumers = st.sampled_from(['c1', 'c2'])
requests = st.integers(0, 3)
#: A fetch's request, counted from the last one: mostly the next.
ahead = st.sampled_from([1, 1, 1, 1, 2, 0, -1])
#: Which of what is in flight; a tag that is not when there are fewer.
places = st.integers(0, 3)
TASK_IDS, NAMES = ('a', 'b', 'ü'), ('app.one', 'app.two')
ALL_FIELDS = [*map(task_field, TASK_IDS), *map(name_field, NAMES)]
task_ids, names = st.sampled_from(TASK_IDS), st.sampled_from(NAMES)
queues = st.sampled_from(['p', 'q'])
priorities = st.sampled_from([0, 0, 0, 5, 1, -1, -1])
limits = st.dictionaries(queues, st.integers(0, 3), min_size=1)
records = st.sampled_from([b'Vvalue', b'Eerror', b'N', b'Llost'])
ttls = st.sampled_from([None, 1e6])
instants = st.builds(lambda start, seconds: start + seconds, st.sampled_from([PAST, PAST, FAR]), st.integers(0, 9))
flags = st.sampled_from([0, WANTS_RESULT, AT_MOST_ONCE | WANTS_RESULT])
some_messages = st.builds(lambda deliveries, *parts: message(*parts)._replace(deliveries=deliveries), st.sampled_from([0, 0, 1, 2, 3]),
                          task_ids, queues, priorities, flags, names)
fields = st.sampled_from(ALL_FIELDS)
revocations = st.builds(Revocation, st.none() | instants, st.booleans(), st.sampled_from(['', 'a1b2']))
raws = some_messages.map(Message.encode)
effects = st.one_of(
    st.builds(Keep, task_ids, records, ttls), st.builds(Enqueue, raws), st.builds(Schedule, raws, st.sampled_from([0.0, 1e6])),
    st.builds(Bury, raws, task_ids, st.sampled_from(['why', 'because'])), st.builds(NoteError, st.binary(max_size=3)),
    st.builds(Publish, st.just(b'{}')))
settlements = st.builds(Settlement, places, st.lists(effects, max_size=3).map(tuple))
junk = st.binary(max_size=40) | st.builds(lambda raw, at, byte: raw[:at] + byte + raw[at + 1:], raws, st.integers(0, 30),
                                          st.binary(min_size=1, max_size=1))
few = st.integers(0, 3)
some = st.none() | st.integers(1, 3)

#: What each verb is called with; those that only look are all called after every step.
VERBS: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    'enqueue': (st.lists(some_messages, max_size=3),),
    'schedule': (some_messages, instants),
    'tick': (names, few, some_messages),
    'introduce': (st.lists(names, max_size=2), few),
    'register': (consumers, requests, st.sampled_from([b'', b'info'])),
    'beat': (consumers,),
    'fetch': (consumers, ahead, limits, few, st.sampled_from([((2, 1),), ((3, 1), (2, 2)), ((4, 0), (3, 1), (2, 5))])),
    'settle': (consumers, st.lists(settlements, max_size=3)),
    'recall': (consumers, st.lists(places, unique=True)),
    'reap': (consumers, st.sampled_from(['now', 'seen', 'never']), st.integers(1, 3), few, ttls),
    'release': (consumers, few),
    'retry_dead': (task_ids,),
    'purge_dead': (st.none() | task_ids,),
    'claim': (st.sampled_from(['k1', 'k2']), st.sampled_from(['me', 'you']), st.just(1e9)),
    'unclaim': (st.sampled_from(['k1', 'k2']), st.sampled_from(['me', 'you'])),
    'adopt': (consumers,),
    'wake': (st.lists(queues, unique=True),),
    'put_result': (task_ids, records, ttls),
    'result': (task_ids, st.booleans()),
    'results_of': (st.lists(task_ids, max_size=3), st.booleans()),
    'revoke': (fields, revocations, ttls),
    'restore': (fields,),
    'pending': (queues, some),
    'scheduled': (some,),
    'take_due': (instants, few),
    'note_error': (st.binary(max_size=3),),
    'errors': (some, few),
    'dead': (some,),
    'malformed': (some,),
    'publish': (st.just([b'{}']),),
    'trim': (),
    'flush': (),
    # behind the storage's back
    'put_junk': (queues, junk),
    'lose_registry': (),
    'drain': (),
}

#: Those that make the others meet something come more often.
OFTEN = ['enqueue', 'register', 'fetch', 'fetch', 'settle', 'reap', 'adopt', 'tick', 'revoke', 'restore', 'drain']
verbs = st.sampled_from([*sorted(VERBS), *OFTEN, *OFTEN])
steps = st.lists(verbs.flatmap(lambda verb: st.tuples(st.just(verb), *VERBS[verb])), min_size=15, max_size=50)
BEGINNING: list[tuple[Any, ...]] = [
    ('register', 'c1', 0, b'info'),
    ('enqueue', [message('a', 'p'), message('b', 'q', 5, WANTS_RESULT), message('c', 'p', 0, AT_MOST_ONCE | WANTS_RESULT)]),
    ('fetch', 'c1', 1, {'p': 3, 'q': 3}, 3),
    ('enqueue', [message('a', 'q', -1), message('b', 'p', -1), message('c', 'q')]),
    ('revoke', name_field('app.task'), Revocation(None, True), None),
]


# -- one of the twins -------------------------------------------------------------------------------------------

class Twin:
    """A storage, and what is the same of its answers on every machine and at every time."""

    def __init__(self, kit: Kit) -> None:
        kit.empty()
        self.kit = kit
        self.storage = kit.storage
        #: The beats that a reaper has seen last.
        self.seen: dict[str, str] = {}

    def do(self, verb: str, *args: Any) -> Any:
        """The verb's answer, without what depends on the clock."""
        before = self.storage.consumers()
        if verb == 'reap':
            consumer, which, *others = args
            beat = {'now': before.get(consumer, ''), 'seen': self.seen.get(consumer, ''), 'never': 'x'}[which]
            return self.storage.reap(consumer, beat, *others)
        if verb == 'drain':
            return drain_tokens(self.kit)
        if verb in ('register', 'beat'):
            self._look(verb, args[0], before)
        call = getattr(self.storage, verb, None) or getattr(self.kit, verb)
        answer = call(*getattr(self, '_for_' + verb, lambda *args: args)(*args))
        if verb == 'beat':
            self._wait_for_another(args[0], before)
        return getattr(self, '_' + verb, lambda answer: answer)(answer)

    def _look(self, verb: str, consumer: str, before: dict[str, str]) -> None:
        if verb == 'beat' and consumer in before:
            self.seen[consumer] = before[consumer]
        else:
            self.seen.pop(consumer, None)

    def _wait_for_another(self, consumer: str, before: dict[str, str]) -> None:
        """Two beats in one millisecond are one; not so for those who compare."""
        deadline = time.monotonic() + 1
        while self.storage.consumers().get(consumer, 'x') == before.get(consumer) != 'x':
            assert time.monotonic() < deadline, 'a beat does not show'
            self.storage.beat(consumer)

    def _for_fetch(self, consumer: str, ahead: int, *others: Any) -> Any:
        last = self.storage.consumers().get(consumer, '').rpartition(':')[2]
        return consumer, max(0, int(last) + ahead) if last.isdigit() else 1, *others

    def _for_settle(self, consumer: str, settlements: list[Settlement]) -> Any:
        return consumer, [each._replace(tag=self._tag(consumer, each.tag)) for each in settlements]

    def _for_recall(self, consumer: str, places: list[int]) -> Any:
        return consumer, [self._tag(consumer, place) for place in places]

    def _tag(self, consumer: str, place: int) -> int:
        held = sorted(self.storage.held(consumer))
        return held[place] if place < len(held) else base.TAGS_PER_REQUEST + place

    def _beat(self, beat: base.Beat) -> Any:
        return beat.standing, beat.held

    def _fetch(self, fetched: base.Fetched) -> Any:
        due = fetched.next_due
        return fetched._replace(next_due=due if not due else 'some day')

    def _scheduled(self, scheduled: list[tuple[float, bytes]]) -> Any:
        now = self.kit.now()
        return [(due if due < PAST + 10 or due >= FAR else round((due - now) / 1000), raw) for due, raw in scheduled]

    def _dead(self, dead: list[tuple[float, str, bytes]]) -> Any:
        return [(why, raw) for _, why, raw in dead]

    def picture(self) -> Any:
        """Everything that can be looked at."""
        storage = self.storage
        return {
            'tokens': self.kit.tokens(),
            'consumers': {name: beat.rpartition(':')[2] for name, beat in storage.consumers().items()},
            'info': storage.consumer_info(),
            'in flight': self.kit.in_flight(),
            'held': {name: sorted(storage.held(name)) for name in ('c1', 'c2')},
            'queues': {queue: (storage.pending(queue), storage.pending_count(queue)) for queue in ('p', 'q')},
            'schedule': (self._scheduled(storage.scheduled()), storage.scheduled_count()),
            'dead': self._dead(storage.dead()),
            'errors': storage.errors(),
            'malformed': storage.malformed(),
            'results': (storage.results(), storage.result_count()),
            'revocations': {field: storage.revocation(field) for field in ALL_FIELDS},
            'counters': storage.counters(),
        }


@pytest.mark.slow
def test_the_twins_have_the_same_answers(redis_kit):
    memory_kit = MemoryKit()
    done: set[Any] = set()

    @settings(max_examples=120, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(steps)
    def compare(steps):
        one, other = Twin(memory_kit), Twin(redis_kit)
        for step in [*BEGINNING, *steps]:
            answer = one.do(*step)
            assert answer == other.do(*step)
            assert one.picture() == other.picture()
            done.add((step[0], getattr(answer, 'standing', None) or bool(answer)))

    compare()
    reached = {('fetch', standing) for standing in Standing} | {('reap', False), ('tick', False), ('trim', False)}
    reached |= {(verb, True) for verb in ('reap', 'adopt', 'settle', 'tick', 'restore')}
    assert reached <= done and {verb for verb, _ in done} == set(VERBS)


def test_the_twins_know_a_message_when_they_see_one(redis_kit):
    memory_kit = MemoryKit()

    @settings(max_examples=300, derandomize=True, database=None, deadline=None)
    @given(st.lists(st.one_of(st.binary(min_size=1, max_size=60), junk.filter(bool),
                              st.builds(header, *[lengths] * 3, st.binary(max_size=12))), min_size=1, max_size=20))
    def compare(raws):
        for kit in (memory_kit, redis_kit):
            kit.empty()
            kit.put_junk('q', *raws)
            kit.storage.register('c', 0)
            fetched = kit.storage.fetch('c', 1, {'q': 100}, 100)
            assert [delivery.message for delivery in fetched.deliveries] == [raw for raw in raws if is_message(raw)]
            assert kit.storage.malformed() == [raw for raw in raws if not is_message(raw)][::-1]

    compare()


lengths = st.integers(0, 5)


def header(id_length: int, name_length: int, queue_length: int, rest: bytes) -> bytes:
    """The beginning of a message that says so of the lengths of what follows."""
    return b'\x01' + bytes(20) + bytes((id_length, name_length, queue_length)) + rest


def is_message(raw: bytes) -> bool:
    try:
        Message.decode(raw)
        return True
    except MessageError:
        return False
