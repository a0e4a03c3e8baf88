"""Envelope: what is around the bytes that a serializer makes, on their way: compression and a signature.

::

    offset  bytes  what
    0       1      marks: 1 compressed, 2 signed
    1       16     the signature, if it is signed: keyed BLAKE2b (RFC 7693) over the marks, the identity and the rest
    ...     ...    what the serializer has made, compressed by zlib or as it is

Every secret has a key of its own for each application and purpose, so that what is signed as a result is no message, nor anything in
another application; and the identity (of a message: its header, of a result: whose it is) is signed along, so that none can be
passed off as another.  On reading, the signature comes first, then the compression, whose result is bounded, and then the serializer.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import zlib
from collections.abc import Sequence
from typing import Any

from geventhuey.exceptions import ConfigurationError, SerializationError, SignatureError
from geventhuey.serializer import Serializer

COMPRESSED, SIGNED = 1, 2
#: Bytes of a signature.
SIGNATURE = 16
#: Bytes from which compressing is worth a try.
COMPRESS_FROM = 1024
#: Bytes that may come out of a compressed body.
MAX_OPENED = 64 * 1024 * 1024
#: Bytes of a secret, at least: 128 bits.
MIN_SECRET = 16

#: Purposes: what is signed for one of them is worth nothing for another.
TASK, RESULT, ERROR, REVOCATION = b'task', b'result', b'error', b'revocation'

_NEW_SECRET = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'

Secrets = str | bytes | Sequence[str | bytes]


class Envelope:
    """Turns the values of one application into bytes that may travel, and back.

    :param secrets: the first one signs, all of them verify; none: nothing is signed, and what is signed is refused.
    :param compression: compress what becomes smaller by that; what is compressed is read in any case.
    """

    def __init__(self, serializer: Serializer, app: str = '', secrets: Secrets = (), compression: bool = False) -> None:
        self._serializer = serializer
        self._app = app
        self._secrets = _checked(secrets)
        self._compression = compression
        #: True when everything is signed, so that an identity is needed.
        self.signs = bool(self._secrets)
        self._is_plain = not self.signs and not compression
        self._hashers = functools.cache(self._make_hashers)

    @property
    def serializer_name(self) -> str:
        """What the serializer calls itself, or its class is called."""
        return str(getattr(self._serializer, 'name', type(self._serializer).__name__))

    def __repr__(self) -> str:
        return f'<Envelope {self._app!r}{", signed" if self.signs else ""}{", compressed" if self._compression else ""}>'

    def dumps(self, purpose: bytes, value: object, identity: bytes = b'') -> bytes:
        """The value as a body. Raises SerializationError when it cannot travel."""
        data = self._serializer.dumps(value)
        if self._is_plain and len(data) <= MAX_OPENED:
            return b'\0' + data
        if len(data) > MAX_OPENED:
            raise SerializationError(f'{len(data)} bytes are more than {MAX_OPENED}: put the data elsewhere and send its address')
        marks = b'\0'
        if self._compression and len(data) >= COMPRESS_FROM:
            smaller = zlib.compress(data)
            if len(smaller) < len(data):
                data, marks = smaller, b'\1'
        if not self.signs:
            return marks + data
        marks = bytes((marks[0] | SIGNED,))
        return marks + self._signature(self._hashers(purpose)[0], identity, marks + data) + data

    def loads(self, purpose: bytes, body: bytes, identity: bytes = b'') -> Any:
        """The value of a body. Raises SignatureError when it is not signed as it has to be, SerializationError when it cannot be read."""
        if not self.signs and body[:1] == b'\0':
            return self._serializer.loads(body[1:])
        return self._serializer.loads(self.opened(purpose, body, identity))

    def opened(self, purpose: bytes, body: bytes, identity: bytes = b'') -> bytes:
        """What the serializer has made of the value, once it is known to be genuine. Raises as ``loads`` does."""
        if body[:1] == b'\0' and not self.signs:
            return body[1:]
        marks = body[0] if body else 0xff
        if marks & ~(COMPRESSED | SIGNED):
            raise SerializationError('the bytes cannot be read: they do not begin as a body does')
        data = body[1:]
        if self.signs:
            data = self._verified(purpose, identity, body)
        elif marks & SIGNED:
            raise SignatureError('it is signed, and this program has no secret: set secret= or GEVENTHUEY_SECRET')
        return _inflated(data) if marks & COMPRESSED else data

    def seal(self, purpose: bytes, identity: bytes) -> str:
        """The signature of something that is all identity, in hexadecimal digits; empty without a secret."""
        return self._signature(self._hashers(purpose)[0], identity, b'').hex() if self.signs else ''

    def is_sealed(self, purpose: bytes, identity: bytes, seal: str) -> bool:
        """True when the seal is that of one of the secrets, or when there are none."""
        return not self.signs or any(hmac.compare_digest(self._signature(hasher, identity, b'').hex(), seal)
                                     for hasher in self._hashers(purpose))

    def _verified(self, purpose: bytes, identity: bytes, body: bytes) -> bytes:
        """The body behind its signature."""
        if not body[0] & SIGNED:
            raise SignatureError('it is not signed, and this program accepts only what is: is a secret missing where it came from?')
        signature, data = body[1:1 + SIGNATURE], body[1 + SIGNATURE:]
        signed = body[:1] + data
        for hasher in self._hashers(purpose):
            if hmac.compare_digest(self._signature(hasher, identity, signed), signature):
                return data
        raise SignatureError('its signature is none of ours: it was made with another secret, for another purpose or identity, '
                             'or changed since')

    def _signature(self, hasher: Any, identity: bytes, signed: bytes) -> bytes:
        mine = hasher.copy()
        mine.update(len(identity).to_bytes(4, 'big') + identity + signed)
        digest: bytes = mine.digest()
        return digest

    def _make_hashers(self, purpose: bytes) -> list[Any]:
        """One for each secret, with the key that it has for this application and purpose."""
        return [hashlib.blake2b(digest_size=SIGNATURE, key=hashlib.blake2b(
            self._app.encode() + b'\0' + purpose, key=hashlib.sha512(secret).digest(), digest_size=64, person=b'geventhuey').digest())
            for secret in self._secrets]


def _inflated(data: bytes) -> bytes:
    """The bytes before they were compressed. Raises SerializationError when they are none, or too many."""
    inflater = zlib.decompressobj()
    try:
        opened = inflater.decompress(data, MAX_OPENED)
    except zlib.error as exc:
        raise SerializationError(f'the bytes cannot be read: they are not compressed as they say ({exc})') from exc
    if inflater.unconsumed_tail:
        raise SerializationError(f'more than {MAX_OPENED} bytes come out of {len(data)} compressed ones: put the data elsewhere and '
                                 f'send its address')
    if not inflater.eof or inflater.unused_data:
        raise SerializationError('the bytes cannot be read: what was compressed is cut short or followed by something else')
    return opened


def _checked(secrets: Secrets) -> list[bytes]:
    """The secrets as bytes. Raises ConfigurationError for what is too short to be one, without showing it."""
    if isinstance(secrets, (str, bytes)):
        secrets = [secrets]
    if not isinstance(secrets, Sequence):
        raise ConfigurationError(f'a secret is a text or bytes, or a list of them, not a {type(secrets).__name__}')
    found = []
    for secret in secrets:
        if not isinstance(secret, (str, bytes)):
            raise ConfigurationError(f'a secret is a text or bytes, not {type(secret).__name__}')
        found.append(secret.encode() if isinstance(secret, str) else secret)
        if len(found[-1]) < MIN_SECRET:
            raise ConfigurationError(f'a secret of {len(found[-1])} bytes is too short, {MIN_SECRET} are needed; a new one: {_NEW_SECRET}')
    return found
