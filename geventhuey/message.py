"""Message: the one shape that travels. Nothing else in the package knows its bytes, but for the scripts that edit two of them.

::

    offset  bytes  what
    0       1      version of this layout: 1
    1       1      deliveries: how often a consumer died while it held this message (edited by reap)
    2       1      flags (those of revocation are edited by fetch, reap and release)
    3       2      priority + 32768, big-endian: higher runs first, 0 is ordinary
    5       8      created, unix ms, big-endian
    13      8      expires, unix ms, big-endian; 0 is never
    21      1      length of the id         22  1  length of the name         23  1  length of the queue's name
    24      ...    id, name, queue (UTF-8), then the payload, which only the serializer understands
    end     ...    with the flag ``PROOF``: the signed revocation by which it is revoked, and one byte with its length
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from geventhuey.exceptions import ConfigurationError, MessageError

VERSION = 1
HEADER = struct.Struct('>BBBHqqBBB')

#: Whoever sent it may wait for its end: tell it.
WANTS_RESULT = 1
#: If its consumer dies, it ends as lost instead of running again.
AT_MOST_ONCE = 2
#: Sent by a tick of the crontab; its results are not kept.
PERIODIC = 4
#: The revocation that fetch has found stands behind the payload, because it is signed.
PROOF = 32
#: Looked up by fetch: it is revoked now. Forgotten when the message goes back to a queue.
REVOKED = 64
#: Fetch used up a ``revoke_once`` on it: it stays revoked, wherever it goes.
REVOKED_FOR_GOOD = 128

#: So many consumers have died under a message that it may be the reason: it waits apart, and few of its kind run at a time.
SUSPECT = 2

#: Bytes; a name of more characters than this is refused, so that its UTF-8 fits into one length byte.
MAX_NAME = 160
MAX_ID = 200
#: The whole message. Redis would take 512 MB; a queue is no place for that.
MAX_MESSAGE = 16 * 1024 * 1024
#: What a proof may add to it.
MAX_PROOF = 256
MIN_PRIORITY, MAX_PRIORITY = -32768, 32767

_NAME = re.compile(r'[A-Za-z0-9_.:-]{1,128}')


class Message(NamedTuple):
    """A task on its way. Times are unix seconds."""

    id: str
    name: str
    payload: bytes
    queue: str = 'default'
    priority: int = 0
    flags: int = 0
    created: float = 0.0
    expires: float | None = None
    deliveries: int = 0
    proof: bytes = b''

    def encode(self) -> bytes:
        """The message as bytes. Raises ConfigurationError when a part of it is too long to travel."""
        task_id, name, queue = self.id.encode(), self.name.encode(), self.queue.encode()
        try:
            head = HEADER.pack(VERSION, self.deliveries, self.flags, self.priority + 32768, round(self.created * 1000),
                               _expiry(self.expires), len(task_id), len(name), len(queue))
        except struct.error:
            self._explain(len(task_id), len(name))
            raise
        raw = b''.join((head, task_id, name, queue, self.payload))
        if self.flags & PROOF:
            raw += self.proof + bytes((len(self.proof),))
        if len(raw) > MAX_MESSAGE:
            raise ConfigurationError(f'{self.name}: its message of {len(raw)} bytes is larger than {MAX_MESSAGE}: '
                                     f'put the data elsewhere and send its address')
        return raw

    def identity(self) -> bytes:
        """All but the payload and what the storage edits on the way: what a signature of the payload covers as well."""
        task_id, name, queue = self.id.encode(), self.name.encode(), self.queue.encode()
        return HEADER.pack(VERSION, 0, self.flags & ~(PROOF | REVOKED | REVOKED_FOR_GOOD), self.priority + 32768,
                           round(self.created * 1000), _expiry(self.expires),
                           len(task_id), len(name), len(queue)) + task_id + name + queue

    def _explain(self, id_bytes: int, name_bytes: int) -> None:
        """Raises ConfigurationError for the part that does not fit into the header."""
        if not MIN_PRIORITY <= self.priority <= MAX_PRIORITY:
            raise ConfigurationError(f'priority {self.priority} is outside {MIN_PRIORITY}..{MAX_PRIORITY}')
        if id_bytes > 255 or name_bytes > 255:
            raise ConfigurationError(f'task id {self.id[:40]!r}... or name {self.name[:40]!r}... is longer than 255 bytes')

    @classmethod
    def decode(cls, raw: bytes) -> Message:
        """The message of these bytes. Raises MessageError for anything else."""
        try:
            (version, deliveries, flags, priority, created, expires,
             id_len, name_len, queue_len) = HEADER.unpack_from(raw)
            if version != VERSION:
                raise MessageError(f'a message of version {version}; this program reads version {VERSION}')
            name_at = 24 + id_len
            queue_at = name_at + name_len
            payload_at = queue_at + queue_len
            end, proof = len(raw), b''
            if flags & PROOF:
                end -= 1 + raw[-1]
                proof = raw[end:-1]
            if not id_len or not name_len or not queue_len or payload_at > end:
                raise MessageError('a message that is cut short')
            return cls(raw[24:name_at].decode(), raw[name_at:queue_at].decode(), raw[payload_at:end],
                       raw[queue_at:payload_at].decode(), priority - 32768, flags, created / 1000,
                       expires / 1000 if expires else None, deliveries, proof)
        except (struct.error, UnicodeDecodeError) as exc:
            raise MessageError(f'not a message: {exc}') from exc


def _expiry(expires: float | None) -> int:
    """Unix milliseconds; the first instant of 1970 is one later, as 0 is never."""
    return 0 if expires is None else round(expires * 1000) or 1


def marked(raw: bytes, mark: int, proof: bytes = b'') -> bytes:
    """The same message, revoked: with one of the two flags, and the signed revocation if there is one."""
    if not proof:
        return raw[:2] + bytes((raw[2] | mark,)) + raw[3:]
    return b''.join((raw[:2], bytes((raw[2] | mark | PROOF,)), raw[3:], proof, bytes((len(proof),))))


def going_back(raw: bytes, deliveries: int) -> bytes:
    """The same message with so many deliveries and without the mark that is forgotten when it goes back."""
    return _cleared(raw, deliveries, REVOKED)


def made_new(raw: bytes) -> bytes:
    """The same message as its producer sent it."""
    return _cleared(raw, 0, REVOKED | REVOKED_FOR_GOOD)


def _cleared(raw: bytes, deliveries: int, marks: int) -> bytes:
    flags, end = raw[2] & ~marks, len(raw)
    if flags & PROOF and not flags & REVOKED_FOR_GOOD:
        flags &= ~PROOF
        end -= 1 + raw[-1]
    return b''.join((raw[:1], bytes((min(255, deliveries), flags)), raw[3:end]))


def check_name(kind: str, name: object) -> str:
    """The name, when it may be used for an application or a queue; raises ConfigurationError otherwise."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(f'{kind} {name!r}: use 1 to 128 of the characters A-Z a-z 0-9 _ . : -')
    return name
