"""The storage contract: every verb by which a task changes state, and what must be true of it.

::

               enqueue                  fetch                settle
       call ---------------> queue -------------> in flight ----------> gone, result kept
         |                    ^  ^                  |  |  |
         | schedule     (due) |  +------ reap ------+  |  +-----> dead letters
         |                    |         release        | retry
         +----------------> schedule <-----------------+

A message is always in exactly one place: a queue, the schedule, one consumer's in-flight records, or the dead letters.  Each verb is
atomic, and each verb that a consumer may have to repeat (because an answer was lost) does nothing when it is repeated.

Who holds a message is a *consumer*: one registration, named by a string that is never used again.  What it fetched stays its own
while its beat changes; a reaper that has seen the beat stand still for long enough takes everything back.  No two machines' clocks
are ever compared for that.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple

from geventhuey.exceptions import StorageError
from geventhuey.message import SUSPECT, Message

#: First byte of a result record.  A value and an error are kept; the others are tombstones: they tell a waiter how it
#: ended, live for TOMBSTONE_TTL seconds and do not count as results.
VALUE, ERROR = b'V', b'E'
NOTHING, CONSUMED, REVOKED, LOST, CANCELLED = b'N', b'C', b'R', b'L', b'X'
KEPT = (VALUE, ERROR)
TOMBSTONE_TTL = 60.0

#: Messages that one fetch brings at most; tags are ``request * 512 + n``.
MAX_FETCH = 511
TAGS_PER_REQUEST = 512
#: Due messages that one fetch promotes at most.
MAX_PROMOTE = 200
#: Seconds within which what is scheduled has to be due to wake somebody; consumers look that often anyway.
SOON = 6.0
#: Dead letters and malformed messages that are kept at most; the oldest go first.
MAX_DEAD, MAX_MALFORMED = 10_000, 1000


class Standing(enum.Enum):
    """What the storage thinks of the consumer that asks."""

    GOOD = 0
    EVICTED = 1     #: found silent, its messages are being taken back: go on under a new name
    UNKNOWN = 2     #: not registered: never, drained after an eviction, or the registry was lost
    STALE = 3       #: an older request than the last one that was answered


class Delivery(NamedTuple):
    """A message in flight: ``tag`` names it among its consumer's."""

    consumer: str
    tag: int
    message: bytes

    @property
    def request(self) -> int:
        """The number of the fetch that brought it."""
        return self.tag // TAGS_PER_REQUEST


class Fetched(NamedTuple):
    """A fetch's answer."""

    standing: Standing
    deliveries: list[Delivery]
    #: Seconds until the next message in the schedule is due; None when there is none.
    next_due: float | None = None
    #: How many listen to the events.
    listeners: int = 0


class Beat(NamedTuple):
    """A beat's answer."""

    standing: Standing
    #: The storage's clock, unix seconds.
    now: float
    #: How many messages this consumer has in flight.
    held: int


class Reaped(NamedTuple):
    """What one step of a reap (or a release) did. ``done`` when nothing is left to take back."""

    requeued: int
    dead: int
    done: bool


# -- effects: what the end of a delivery brings about, in the order given -------------------------------------

class Keep(NamedTuple):
    """The result record of a task is written and those who wait for it are told. ``ttl`` in seconds, None for ever."""

    task_id: str
    record: bytes
    ttl: float | None


class Enqueue(NamedTuple):
    """A message enters its queue."""

    message: bytes


class Schedule(NamedTuple):
    """A message enters the schedule, due in ``delay`` seconds by the storage's clock."""

    message: bytes
    delay: float


class Bury(NamedTuple):
    """A message goes to the dead letters."""

    message: bytes
    task_id: str
    reason: str


class NoteError(NamedTuple):
    """An entry of the error list."""

    entry: bytes


class Publish(NamedTuple):
    """An event for those who listen."""

    event: bytes


Effect = Keep | Enqueue | Schedule | Bury | NoteError | Publish


class Settlement(NamedTuple):
    """The end of one delivery."""

    tag: int
    effects: tuple[Effect, ...] = ()


class Revocation(NamedTuple):
    """``until`` in unix seconds, None for ever; ``once`` revokes the next run only; ``signature`` in hexadecimal digits, or empty."""

    until: float | None
    once: bool
    signature: str = ''

    @property
    def terms(self) -> str:
        """What it says, as it is stored and signed: until when in whole milliseconds (0 is for ever), and whether once."""
        return f'{0 if self.until is None else max(1, -int(-self.until * 1000 // 1))}:{int(self.once)}'

    def identity(self, field: str) -> bytes:
        """What its signature covers: who is revoked, and how."""
        return f'{field}\0{self.terms}'.encode()

    def encode(self) -> bytes:
        """It as bytes."""
        return f'{self.terms}:{self.signature}'.encode() if self.signature else self.terms.encode()

    @classmethod
    def decode(cls, raw: bytes) -> Revocation:
        """The revocation of these bytes. Raises ValueError for anything else."""
        until, once, *signature = raw.decode('ascii').split(':')
        return cls(int(until) / 1000 if until != '0' else None, once == '1', ''.join(signature))


#: Which suspects a fetch may bring: by deliveries, from the most to the least, at most so many. See ``BaseStorage.fetch``.
Suspects = Sequence[tuple[int, int]]
ONE_SUSPECT: Suspects = ((SUSPECT, 1),)


def for_suspects(queue: str) -> str:
    """Who waits for this, beside the queue, is woken when a suspect comes to wait there."""
    return queue + '!'


def task_field(task_id: str) -> str:
    """Where the revocation of one task is kept."""
    return 'i:' + task_id


def name_field(name: str) -> str:
    """Where the revocation of all tasks of a name is kept."""
    return 'n:' + name


class BaseStorage:
    """What an engine asks of a storage. Subclass it, override every verb, and hand it out in ``Huey.get_storage``.

    Times are seconds (floats), instants unix seconds.  Errors: StorageUnavailable when the storage cannot serve (nothing was
    done), StorageOutcomeUnknown when the answer was lost, StorageError when it refused.
    """

    #: True when it lives in this process alone: other processes cannot share it.
    in_process: ClassVar[bool] = False
    #: True when only programs of this machine can reach it.
    is_local: bool = False

    def __init__(self, name: str, max_errors: int = 1000) -> None:
        self.name = name
        #: Entries that the error list keeps at most; the oldest go first.
        self.max_errors = max_errors

    # -- connections ----------------------------------------------------------------------------------------

    def session(self, role: str) -> BaseStorage:
        """The same storage for one part of an engine, over a connection of its own that works in a gevent hub."""
        return self

    def close(self) -> None:
        """The connections of this object are closed; it opens new ones when it is used again."""

    def describe(self) -> str:
        """Where it is, without a password."""
        raise NotImplementedError

    def check(self) -> tuple[str, list[str]]:
        """Which server it is, and warnings about how it is set up. Raises StorageRefused when it cannot be used at all."""
        raise NotImplementedError

    # -- producers: a call -> queue, a call -> schedule -----------------------------------------------------

    def enqueue(self, messages: Sequence[Message]) -> None:
        """The messages are at the tails of their queues, behind all others of their priority, and a consumer is woken."""
        raise NotImplementedError

    def schedule(self, message: Message, due: float | None = None, delay: float = 0.0, event: bytes = b'') -> None:
        """The message is in the schedule, due at the instant ``due``, or ``delay`` seconds from the storage's now.

        The event, if there is one, is published in the same step.
        """
        raise NotImplementedError

    def tick(self, name: str, tick: int, message: Message) -> bool:
        """The message is in its queue unless ``name`` has had this tick or a later one. True for the one that did it."""
        raise NotImplementedError

    def introduce(self, names: Sequence[str], tick: int) -> None:
        """Each name that never had a tick has had this one, so that a new periodic task does not run for the minute it came in."""
        raise NotImplementedError

    # -- consumers: registration ----------------------------------------------------------------------------

    def register(self, consumer: str, request: int, info: bytes = b'') -> None:
        """The consumer may fetch; ``request`` is the last number it used. Nothing changes when it is registered already.

        A later request of which something is in flight counts as used: its answer was lost, and can be asked for again.
        """
        raise NotImplementedError

    def beat(self, consumer: str) -> Beat:
        """The consumer is known to live, when its standing is good; an eviction is not undone."""
        raise NotImplementedError

    def consumers(self) -> dict[str, str]:
        """Every registered consumer and its beat: a text to compare with the last one seen, and nothing else."""
        raise NotImplementedError

    def consumer_info(self) -> dict[str, bytes]:
        """What each consumer has said of itself when it registered."""
        raise NotImplementedError

    # -- consumers: queue -> in flight -> end ---------------------------------------------------------------

    def fetch(self, consumer: str, request: int, limits: Mapping[str, int], at_most: int,
              suspects: Suspects = ONE_SUSPECT) -> Fetched:
        """What is due enters its queue; then up to ``at_most`` messages (``limits`` of each queue, in that order) are in flight.

        Messages with ``SUSPECT`` or more deliveries wait apart and come first, but no more than ``suspects`` allows:
        ``((4, 1), (3, 7), (2, 62))`` is one with at least 4 deliveries, 7 with 3 and 62 with 2.  While one waits that falls into
        the first class, none of the others come: those of the first class are to run without other suspects beside them.

        Repeating a request whose answer brought messages answers with those of them that are still in flight.  A request
        that brought none has not been used, and its number is to be used again.  A revoked message comes with a flag set:
        ``REVOKED``, or ``REVOKED_FOR_GOOD`` when it has used up a ``revoke_once``.  Bytes that are no message go to the
        malformed ones and are counted.
        """
        raise NotImplementedError

    def settle(self, consumer: str, settlements: Sequence[Settlement], events: Sequence[bytes] = ()) -> list[bool | StorageError]:
        """Deliveries that this consumer still holds have ended and their effects have happened; True for each of those.

        False: it was not held (any more), and nothing happened for it.  A StorageError: the storage refused an effect, and the
        delivery is still in flight.  ``events`` are published in any case.
        """
        raise NotImplementedError

    def held(self, consumer: str) -> list[int]:
        """The tags of everything the consumer has in flight."""
        raise NotImplementedError

    def recall(self, consumer: str, tags: Sequence[int]) -> list[Delivery]:
        """Those of the tags that are in flight, with their messages."""
        raise NotImplementedError

    # -- in flight -> queue ---------------------------------------------------------------------------------

    def reap(self, consumer: str, beat: str, max_deliveries: int, at_most: int, result_ttl: float | None) -> Reaped | None:
        """Up to ``at_most`` of a silent consumer's messages are back at the heads of their queues, one delivery older.

        With the first step the consumer is evicted; with the last one it is forgotten.  None: its beat is not ``beat`` any
        more (it lives), or it is not registered.  A message that reaches ``max_deliveries``, or may run only once, goes to
        the dead letters and its waiters are told.
        """
        raise NotImplementedError

    def release(self, consumer: str, at_most: int, unbegun: Sequence[int] = (), result_ttl: float | None = None) -> Reaped:
        """Up to ``at_most`` of the consumer's own messages are back at the heads of their queues, as if never fetched.

        One that may run only once goes to the dead letters and its waiters are told, unless its tag is one of the ``unbegun``.
        With the last step the consumer is not registered any more.
        """
        raise NotImplementedError

    def adopt(self, consumer: str) -> bool:
        """A consumer that has described itself but is not registered is marked evicted, so that it can be reaped."""
        raise NotImplementedError

    # -- being woken ----------------------------------------------------------------------------------------

    def wake(self, queues: Sequence[str]) -> None:
        """One of those who wait for each queue is woken, now or when it begins to wait."""
        raise NotImplementedError

    def wait_wake(self, queues: Sequence[str], timeout: float) -> bool:
        """Waits until one of the queues may hold something: True; or ``timeout`` seconds: False.

        Who has room for suspects waits for ``for_suspects(queue)`` as well.
        """
        raise NotImplementedError

    # -- results --------------------------------------------------------------------------------------------

    def put_result(self, task_id: str, record: bytes, ttl: float | None) -> None:
        """The record is the task's result, and those who wait for it are told."""
        raise NotImplementedError

    def result(self, task_id: str, preserve: bool) -> bytes | None:
        """``results_of`` for one task."""
        return self.results_of((task_id,), preserve)[0]

    def results_of(self, task_ids: Sequence[str], preserve: bool) -> list[bytes | None]:
        """The tasks' records, in their order. What is kept is replaced by a tombstone ``CONSUMED``, unless ``preserve``.

        When the connection breaks in between, a record may come and stay: it is read at least once.
        """
        raise NotImplementedError

    def results(self) -> dict[str, bytes]:
        """Every kept record by task id; costs a look at every result."""
        raise NotImplementedError

    def result_count(self) -> int:
        """How many records are kept; costs a look at every result."""
        raise NotImplementedError

    def watching(self, task_id: str, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """``watching_all`` for one task."""
        return self.watching_all({task_id: wake})

    def watching_all(self, wakes: Mapping[str, Callable[[], None]]) -> AbstractContextManager[None]:
        """While entered, a task's ``wake()`` is called whenever its record may have changed, and once at the beginning.

        It is called from any thread.  Whoever is woken reads the record again; a lost call is possible, so read again every
        few seconds, too.
        """
        raise NotImplementedError

    # -- once -----------------------------------------------------------------------------------------------

    def claim(self, key: str, owner: str, ttl: float) -> bool:
        """True when the key is the owner's: nobody has claimed it within the last ``ttl`` seconds, or the owner itself has."""
        raise NotImplementedError

    def unclaim(self, key: str, owner: str) -> bool:
        """The key is free; True when it was the owner's, otherwise nothing happens."""
        raise NotImplementedError

    # -- revocations ----------------------------------------------------------------------------------------

    def revoke(self, field: str, revocation: Revocation, ttl: float | None) -> None:
        """The task or the name is revoked; an earlier revocation of it is replaced. Forgotten after ``ttl`` seconds."""
        raise NotImplementedError

    def restore(self, field: str) -> bool:
        """The task or the name is not revoked; True when it was."""
        raise NotImplementedError

    def revocation(self, field: str) -> Revocation | None:
        """How the task or the name is revoked."""
        raise NotImplementedError

    def trim(self) -> int:
        """Revocations whose time is over are gone; answers how many."""
        raise NotImplementedError

    # -- looking, and by hand -------------------------------------------------------------------------------

    def pending(self, queue: str, limit: int | None = None) -> list[bytes]:
        """Messages in a queue, the last to run first."""
        raise NotImplementedError

    def pending_count(self, queue: str) -> int:
        """How many messages are in a queue."""
        raise NotImplementedError

    def scheduled(self, limit: int | None = None) -> list[tuple[float, bytes]]:
        """Due times and messages in the schedule, the soonest first."""
        raise NotImplementedError

    def scheduled_count(self) -> int:
        """How many messages are in the schedule."""
        raise NotImplementedError

    def take_due(self, now: float, limit: int) -> list[bytes]:
        """Messages due at the instant ``now`` or before have left the schedule; the caller alone has them."""
        raise NotImplementedError

    def note_error(self, entry: bytes) -> None:
        """The entry heads the error list."""
        raise NotImplementedError

    def errors(self, limit: int | None = None, offset: int = 0) -> list[bytes]:
        """Entries of the error list, the last first."""
        raise NotImplementedError

    def dead(self, limit: int | None = None) -> list[tuple[float, str, bytes]]:
        """Dead letters, the last first: when (unix seconds), why, and the message."""
        raise NotImplementedError

    def retry_dead(self, task_id: str) -> int:
        """The dead letters of this task are at the tail of their queue, as if newly sent; answers how many.

        That it was lost is not its result any more.
        """
        raise NotImplementedError

    def purge_dead(self, task_id: str | None = None) -> int:
        """The dead letters of this task, or all, are gone; answers how many."""
        raise NotImplementedError

    def malformed(self, limit: int | None = None) -> list[bytes]:
        """Bytes that were no messages, the last first."""
        raise NotImplementedError

    def counters(self) -> dict[str, int]:
        """What has been counted so far: malformed, dead, reaped, released, ..."""
        raise NotImplementedError

    def flush(self) -> None:
        """Queues, schedule, results, revocations, errors and dead letters are empty. What is in flight runs to its end.

        Who waits for a result is told that it will not come.
        """
        raise NotImplementedError

    # -- events ---------------------------------------------------------------------------------------------

    def publish(self, events: Sequence[bytes]) -> None:
        """Those who listen now get the events."""
        raise NotImplementedError

    def listener(self) -> Any:
        """A subscription to the events, as the storage's own library knows it."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The events from now on, as dicts, without an end."""
        raise NotImplementedError
