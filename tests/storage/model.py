"""The protocol as a state machine: any sequence of verbs and faults, and what must be true after each of them.

``Protocol`` does the same to a storage and to a ``Book`` and compares.

    I1  a message is in exactly one place: a queue, the schedule, one consumer's in-flight records, the dead letters, or ended
    I2  who holds something is registered, or has at least described itself, so that its messages can be taken back
    I3  only a fetch puts anything in flight, and only for a consumer that is registered and not evicted
    I4  a settle has an effect only for what its consumer still holds, and only the first one has
    I5  a repeated fetch has the same answer, an older one is refused
    I6  a reaper that has seen an old beat takes nothing
    I7  a tick enqueues once, and ticks only go up
    I8  a message is delivered once, and once more for each time it went back
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from geventhuey.message import AT_MOST_ONCE, WANTS_RESULT, Message
from geventhuey.storage import base
from geventhuey.storage.base import (
    Bury,
    Effect,
    Enqueue,
    Fetched,
    Keep,
    NoteError,
    Reaped,
    Revocation,
    Schedule,
    Settlement,
    Standing,
    Suspects,
    name_field,
    task_field,
)
from tests.storage.book import MAX_DELIVERIES, NAMES, QUEUES, Book, Registration
from tests.storage.kit import Kit

#: Seconds: one step of the clock, and a delay that it brings over its end.
STEP, DELAY = 2_000_000.0, 1_000_000.0


class Owner:
    """A process with a registration, and what it remembers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.request = 1


any_index = st.integers(0, 1000)
any_queue = st.sampled_from(QUEUES)
any_priority = st.sampled_from((0, 0, 0, 2, 1, -1))
any_suspects = st.sampled_from((((3, 1), (2, 2)), ((3, 0), (2, 1)), ((2, 9),), ((2, 1),), ((9, 1), (3, 1), (2, 1))))
ALL_SUSPECTS = ((2, 9),)
any_flags = st.sampled_from((0, WANTS_RESULT, AT_MOST_ONCE | WANTS_RESULT))
few = st.integers(1, 3)


def pick(items: Any, index: int) -> Any:
    """One of the items; the index may be any number."""
    return list(items)[index % len(items)]


class Protocol(RuleBasedStateMachine):
    """Does the same to a storage and to a book. Set ``kit`` in a subclass."""

    kit: Kit

    def __init__(self) -> None:
        super().__init__()
        self.kit.empty()
        self.storage = self.kit.storage
        self.book = Book()
        self.owners: list[Owner] = []
        self.names: list[str] = []
        #: Every delivery that anybody has ever heard of, and how often each message was delivered.
        self.heard: list[tuple[str, int]] = []
        self.delivered: Counter[str] = Counter()
        #: Beats that a reaper has seen, by consumer.
        self.seen: dict[str, list[str]] = {}

    @initialize(priorities=st.lists(any_priority, min_size=4, max_size=8), flags=any_flags, suspects=any_suspects,
                deliveries=st.sampled_from([(0,), (1,), (0, 2, 3, 3), (3, 2), (3,)]))
    def begin(self, priorities, flags, suspects, deliveries):
        """Two consumers, one of which holds something."""
        for priority, count, queue in zip(priorities, itertools.cycle(deliveries), itertools.cycle(('default', 'default', 'other'))):
            self.enqueue(self.book.next(queue, priority, flags)._replace(deliveries=count))
        self.start()
        self.start()
        self.hear_all(self.owners[0], dict.fromkeys(QUEUES, 9), 3, suspects)

    # -- producers ------------------------------------------------------------------------------------------

    @rule(queue=any_queue, priorities=st.lists(any_priority, min_size=1, max_size=3), flags=any_flags, name=st.sampled_from(NAMES))
    def enqueue_some(self, queue, priorities, flags, name):
        for priority in priorities:
            self.enqueue(self.book.next(queue, priority, flags, name))

    def enqueue(self, made: Message) -> None:
        self.storage.enqueue([made])
        self.book.place(self.book.add(made).id)

    @rule(queue=any_queue, priority=any_priority, due=st.integers(0, 9), far=st.booleans())
    def schedule(self, queue, priority, due, far):
        made = self.book.add(self.book.next(queue, priority))
        if far:
            self.storage.schedule(made, delay=DELAY + 1000 * due)
            self.book.put_in_schedule(made.id, self.book.now + DELAY + 1000 * due)
        else:
            self.storage.schedule(made, due=self.kit.now() - 1000 * (due + 1))
            self.book.put_in_schedule(made.id, self.book.now - 1000 * (due + 1))

    @precondition(lambda self: self.book.schedule)
    @rule()
    def make_due(self):
        self.kit.later(STEP)
        self.book.now += STEP

    @rule(name=st.sampled_from(NAMES), tick=st.integers(1, 4), queue=any_queue, priority=any_priority)
    def tick(self, name, tick, queue, priority):
        made = self.book.next(queue, priority, name=name)
        is_new = tick > self.book.ticks.get(name, 0)
        assert self.storage.tick(name, tick, made) is is_new
        if is_new:
            self.book.ticks[name] = tick
            self.book.place(self.book.add(made).id)

    @rule(index=any_index, fields=st.sampled_from([(True,), (False,), (True, False), (True, False)]),
          once=st.tuples(st.booleans(), st.booleans()), signature=st.sampled_from(['', 'abc123']))
    def revoke(self, index, fields, once, signature):
        """Mostly of somebody who is about to run; of all of its name, or both."""
        for by_name in fields:
            field = self.field(index, by_name)
            self.book.revoked[field] = Revocation(None, once[by_name], signature)
            self.storage.revoke(field, self.book.revoked[field], None)

    @precondition(lambda self: self.book.revoked)
    @rule(index=any_index, by_name=st.booleans(), known=st.booleans())
    def restore(self, index, by_name, known):
        field = pick(self.book.revoked, index) if known else self.field(index, by_name)
        assert self.storage.restore(field) is (self.book.revoked.pop(field, None) is not None)

    @rule(key=st.sampled_from('ab'), owner=st.sampled_from('xy'), gives_back=st.booleans())
    def claim(self, key, owner, gives_back):
        holder = self.book.claims.get(key, owner)
        if gives_back:
            assert self.storage.unclaim(key, owner) is (self.book.claims.get(key) == owner)
            if holder == owner:
                self.book.claims.pop(key, None)
        else:
            assert self.storage.claim(key, owner, 2e9) is (holder == owner)
            self.book.claims.setdefault(key, owner)

    def field(self, index: int, by_name: bool) -> str:
        task_id = pick(self.book.waiting() or ['m0'], index % 3)
        return name_field(self.book.messages[task_id].name) if by_name else task_field(task_id)

    # -- consumers ------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.owners.append(Owner(self.new_name()))

    def new_name(self) -> str:
        """The name of a new registration."""
        name = f'c{len(self.names)}'
        self.names.append(name)
        self.register(name, 0)
        return name

    def register(self, name: str, request: int) -> None:
        self.storage.register(name, request, b'info')
        self.book.register(name, request)

    @precondition(lambda self: self.owners)
    @rule(index=any_index, at_most=st.integers(1, 4), suspects=any_suspects)
    def fetch(self, index, at_most, suspects):
        self.hear_all(pick(self.suspects(), index), dict.fromkeys(QUEUES, 9), at_most, suspects)

    @precondition(lambda self: self.owners)
    @rule(index=any_index, at_most=st.integers(0, 5), limits=st.permutations(QUEUES), limit=st.integers(0, 4), hears=st.booleans(),
          suspects=any_suspects)
    def fetch_some(self, index, at_most, limits, limit, hears, suspects):
        """Who does not hear the answer asks again under the same number, sooner or later."""
        owner = pick(self.owners, index)
        asked = {limits[0]: limit, limits[1]: at_most}
        if hears:
            self.hear_all(owner, asked, at_most, suspects)
        else:
            self.asked(owner.name, owner.request, asked, at_most, suspects)

    def hear_all(self, owner: Owner, limits: dict[str, int], at_most: int, suspects: Suspects = ALL_SUSPECTS) -> None:
        """A fetch, and what a well-behaved consumer does about the answer."""
        fetched = self.asked(owner.name, owner.request, limits, at_most, suspects)
        if fetched.standing is not Standing.GOOD:
            if fetched.standing is Standing.UNKNOWN:
                self.register(owner.name, owner.request - 1)
            else:
                owner.name, owner.request = self.new_name(), 1
            fetched = self.asked(owner.name, owner.request, limits, at_most, suspects)
        if fetched.deliveries:
            owner.request += 1
        for delivery in fetched.deliveries:
            self.hear(delivery)

    def hear(self, delivery: base.Delivery) -> None:
        assert (delivery.consumer, delivery.tag) not in self.heard, 'a delivery was brought twice'
        self.heard.append((delivery.consumer, delivery.tag))
        task_id = Message.decode(delivery.message).id
        self.delivered[task_id] += 1
        assert self.delivered[task_id] <= self.book.allowed[task_id], 'I8: a message was delivered twice'

    @precondition(lambda self: self.owners)
    @rule(index=any_index, back=st.integers(1, 3))
    def fetch_late(self, index, back):
        """A copy of an old request arrives at last; nobody waits for its answer any more."""
        owner = pick(self.suspects(), index)
        self.asked(owner.name, max(0, owner.request - back), dict.fromkeys(QUEUES, 2), 2)

    def asked(self, name: str, request: int, limits: dict[str, int], at_most: int, suspects: Suspects = ALL_SUSPECTS) -> Fetched:
        """The answer of the storage, which is what the book says."""
        fetched = self.storage.fetch(name, request, limits, at_most, suspects)
        standing, deliveries = self.book.fetch(name, request, limits, at_most, suspects)
        assert fetched.standing is standing
        expected = {tag: self.book.messages[task_id].encode() for tag, task_id in deliveries.items()}
        assert {delivery.tag: delivery.message for delivery in fetched.deliveries} == expected
        assert [delivery.tag for delivery in fetched.deliveries] == sorted(expected)
        if standing is Standing.GOOD:
            assert (fetched.next_due is None) == (not self.book.schedule)
        return fetched

    @precondition(lambda self: self.heard)
    @rule(index=any_index, recent=st.booleans(), twice=st.booleans(),
          kind=st.sampled_from(['none', 'keep', 'retry', 'later', 'bury', 'chain']))
    def settle(self, index, recent, twice, kind):
        """By whoever has heard of the delivery, be it a consumer that has lost it long since."""
        name, tag = self.heard[-1 - index % 3 % len(self.heard)] if recent else pick(self.heard, index)
        task_id = self.book.flight.get(name, {}).get(tag)
        effects = self.effects(kind, task_id or 'm0')
        assert self.storage.settle(name, [Settlement(tag, effects)]) == [task_id is not None]
        self.book.settle(name, tag)
        if task_id is not None:
            self.bring_about(kind, task_id)
        if twice:
            assert self.storage.settle(name, [Settlement(tag, effects)]) == [False]
        self.check_result(task_id or 'm0')

    def effects(self, kind: str, task_id: str) -> tuple[Effect, ...]:
        raw = self.book.messages[task_id].encode()
        what: dict[str, tuple[Effect, ...]] = {
            'none': (),
            'keep': (Keep(task_id, b'V' + task_id.encode(), None),),
            'retry': (NoteError(b'error'), Enqueue(raw)),
            'later': (Schedule(raw, DELAY), NoteError(b'error')),
            'bury': (Bury(raw, task_id, 'buried'), Keep(task_id, b'E', None)),
            'chain': (Enqueue(self.book.next('other', 1).encode()),),
        }
        return what[kind]

    def bring_about(self, kind: str, task_id: str) -> None:
        book = self.book
        if kind == 'keep':
            book.results[task_id] = b'V' + task_id.encode()
        elif kind == 'bury':
            book.ended.remove(task_id)
            book.dead.append(task_id)
            book.results[task_id] = b'E'
        elif kind == 'chain':
            book.place(book.add(book.next('other', 1)).id)
        elif kind in ('retry', 'later'):
            book.ended.remove(task_id)
            book.allowed[task_id] += 1
            book.errors += 1
            if kind == 'retry':
                book.place(task_id)
            else:
                book.put_in_schedule(task_id, book.now + DELAY)

    def check_result(self, task_id: str) -> None:
        found = self.storage.result(task_id, preserve=True) or b''
        expected = self.book.results.get(task_id, b'')
        assert found[:1] == expected[:1] and found.startswith(expected)

    @precondition(lambda self: self.owners)
    @rule(index=any_index)
    def beat(self, index):
        self.beat_of(pick(self.suspects(), index))

    def beat_of(self, owner: Owner) -> None:
        """A reaper looks right before."""
        name = owner.name
        before, deadline = self.storage.consumers().get(name), time.monotonic() + 0.2
        if before is not None:
            self.seen.setdefault(name, []).append(before)
        beat = self.storage.beat(name)
        assert (beat.standing, beat.held) == (self.book.standing(name), len(self.book.flight.get(name, {})))
        while beat.standing is Standing.GOOD and self.storage.consumers()[name] == before:      # in the same millisecond
            assert time.monotonic() < deadline, 'a beat does not show'
            self.storage.beat(name)

    @precondition(lambda self: self.owners)
    @rule(index=any_index)
    def register_again(self, index):
        """The answer to a registration was lost, or a copy of it comes late."""
        owner = pick(self.suspects(), index)
        self.register(owner.name, owner.request - 1)

    def suspects(self) -> list[Owner]:
        """Those who were evicted and do not know it yet, or else all."""
        return [owner for owner in self.owners if self.book.standing(owner.name) is Standing.EVICTED] or self.owners

    @precondition(lambda self: self.owners)
    @rule(index=any_index, at_most=few, goes_on=st.booleans(), knows=st.booleans())
    def release(self, index, at_most, goes_on, knows):
        """A consumer stops; it may be killed while it does. It may know what it has not begun."""
        owner = pick(self.owners, index)
        self.owners.remove(owner)
        unbegun = [tag for tag in self.book.flight.get(owner.name, {}) if tag % 2] if knows else []
        while not self.released(owner.name, at_most, unbegun).done and goes_on:
            pass

    def released(self, name: str, at_most: int, unbegun: Sequence[int] = ()) -> Reaped:
        released = self.storage.release(name, at_most, unbegun)
        assert released == self.book.take_back(name, at_most, reaped=False, unbegun=unbegun)
        return released

    # -- reapers, and what befalls a registry ---------------------------------------------------------------

    @precondition(lambda self: any(self.book.flight.values()))
    @rule(index=any_index, at_most=st.sampled_from([1, 1, 2, 9]), stale=st.sampled_from([False, False, True]),
          then=st.sampled_from(['nothing', 'fetch', 'beat', 'register']))
    def reap(self, index, at_most, stale, then):
        """Of a dead consumer, or of one that only was silent for too long; by somebody whose look may be out of date."""
        name = pick([name for name, held in self.book.flight.items() if held], index)
        looks = self.seen.get(name, ['x']) if stale else [self.storage.consumers().get(name, 'x')]
        self.reaped(name, pick(looks, index), at_most)
        for owner in [owner for owner in self.owners if owner.name == name]:
            if then == 'fetch':
                self.hear_all(owner, dict.fromkeys(QUEUES, 9), 1)
            elif then == 'beat':
                self.beat_of(owner)
            elif then == 'register':
                self.register(owner.name, owner.request - 1)

    @rule(index=any_index, hears=st.booleans())
    def lose_registry(self, index, hears):
        """Mostly while an answer is on its way, which is lost as well."""
        if self.owners and not hears:
            owner = pick(self.owners, index)
            self.asked(owner.name, owner.request, dict.fromkeys(QUEUES, 9), 2)
        self.kit.lose_registry()
        self.book.registered.clear()

    def reaped(self, name: str, beat: str, at_most: int) -> Reaped | None:
        evicted = self.book.standing(name) is Standing.EVICTED
        may = evicted or self.storage.consumers().get(name, '') == beat
        answer = self.storage.reap(name, beat, MAX_DELIVERIES, at_most, None)
        if not may:
            assert answer is None, 'I6: somebody was reaped who has beaten since'
            return None
        self.book.registered[name].evicted = True
        assert answer == self.book.take_back(name, at_most, reaped=True)
        return answer

    @precondition(lambda self: self.book.dead)
    @rule(index=any_index, known=st.booleans(), purge=st.sampled_from(['no', 'no', 'one', 'all']))
    def dead_letter(self, index, known, purge):
        """Somebody has looked at a dead letter, and has it run again or throws it away."""
        task_id = pick(self.book.dead if known else self.book.messages, index)
        if purge == 'no':
            assert self.storage.retry_dead(task_id) == self.book.retry_dead(task_id)
        else:
            which = None if purge == 'all' else task_id
            assert self.storage.purge_dead(which) == self.book.purge_dead(which)
        self.check_result(task_id)

    @rule(what=st.sampled_from(['start', 'crash', 'adopt', 'adopt', 'flush']), index=any_index)
    def misfortune(self, what, index):
        """What happens now and then."""
        if what == 'start' and len(self.owners) < 4:
            self.start()
        elif what == 'crash' and self.owners:
            self.owners.remove(pick(self.owners, index))
        elif what == 'adopt':
            self.adopted(pick([*self.names, 'nobody'], index))
        elif what == 'flush':
            self.flush()

    def flush(self) -> None:
        emptied = [*self.book.waiting(), *self.book.dead]
        if len(emptied) < 3:        # of (almost) nothing: there is to be something left to look at
            self.storage.flush()
            self.book.ended.update(emptied)
            self.book.queues = {queue: [] for queue in QUEUES}
            self.book.schedule, self.book.dead, self.book.results, self.book.revoked = [], [], {}, {}
            self.book.errors = 0

    def adopted(self, name: str) -> None:
        is_orphan = name in self.book.described and name not in self.book.registered
        assert self.storage.adopt(name) is is_orphan
        if is_orphan:
            self.book.registered[name] = Registration(0, evicted=True)

    # -- what is always true --------------------------------------------------------------------------------

    @invariant()
    def everything_is_where_it_ought_to_be(self):
        book, storage = self.book, self.storage
        for queue in QUEUES:
            self.compare(queue, storage.pending(queue)[::-1], book.queues[queue])
        self.compare('schedule', [raw for _, raw in storage.scheduled()], [place.task_id for place in book.schedule])
        self.compare('dead letters', [raw for _, _, raw in storage.dead()][::-1], book.dead)
        in_flight = {name: {tag: Message.decode(raw).id for tag, raw in held.items()}
                     for name, held in self.kit.in_flight().items()}
        assert in_flight == {name: held for name, held in book.flight.items() if held}
        assert len(storage.errors()) == book.errors
        self.check_consumers(in_flight)
        held = itertools.chain(*(held.values() for held in in_flight.values()))
        self.check_places([*book.waiting(), *book.dead, *book.ended, *held])

    def compare(self, what: str, raws: list[bytes], ids: list[str]) -> None:
        assert [Message.decode(raw).id for raw in raws] == ids, what
        assert raws == [self.book.messages[task_id].encode() for task_id in ids], what

    def check_places(self, ids: list[str]) -> None:
        assert Counter(ids) == Counter(list(self.book.messages)), 'I1: a message is in two places, or in none'

    def check_consumers(self, in_flight: dict[str, dict[int, str]]) -> None:
        known, described = self.storage.consumers(), self.storage.consumer_info()
        for name in in_flight:
            assert name in known or name in described, 'I2: nobody will take these back'
        assert known.keys() == self.book.registered.keys() and described.keys() == self.book.described
        for name, beat in known.items():
            registration = self.book.registered[name]
            assert (beat == 'x') is registration.evicted
            assert registration.evicted or beat.endswith(f':{registration.last}')

    # -- the end --------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:       # a step that failed says enough
            self.end()

    def end(self) -> None:
        """Everybody dies; then one consumer runs everything that is left, and nothing stays."""
        for name in sorted(self.book.described):
            self.adopted(name)
            beat = self.storage.consumers()[name]
            while (reaped := self.reaped(name, beat, 2)) is not None and not reaped.done:
                pass
        if self.book.schedule:
            self.make_due()
        self.owners = [Owner(self.new_name())]
        while any(self.book.queues.values()) or self.book.schedule:
            self.hear_all(self.owners[0], dict.fromkeys(QUEUES, 9), 9)
            for name, tag in self.heard:
                self.storage.settle(name, [Settlement(tag)])
                self.book.settle(name, tag)
        self.released(self.owners[0].name, 1)
        for task_id in self.book.messages:
            self.check_result(task_id)
        self.everything_is_where_it_ought_to_be()
        assert self.book.ended | set(self.book.dead) == self.book.messages.keys()
        kept = ('inflight', 'queue', 'priority', 'schedule', 'consumer')
        assert not [key for key in self.kit.leftovers() if key.startswith(kept)]
