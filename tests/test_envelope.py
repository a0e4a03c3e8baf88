"""Envelope: what may travel is signed and compressed, and what comes back is genuine."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventhuey.envelope import COMPRESSED, ERROR, MAX_OPENED, RESULT, SIGNED, TASK, Envelope
from geventhuey.exceptions import ConfigurationError, SerializationError, SignatureError
from geventhuey.serializer import AnyPickle, RestrictedPickle, serializer

OLD, NEW = 'an old secret of 16 bytes', 'a new secret of 16 bytes'
VALUES = st.recursive(st.none() | st.integers() | st.text() | st.binary(),
                      lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


def envelope(secrets=(), compression=False, app='app', kind='pickle'):
    return Envelope(serializer(kind), app, secrets, compression)


@pytest.mark.parametrize('secrets', [(), NEW, [NEW, OLD]], ids=['plain', 'signed', 'rotated'])
@pytest.mark.parametrize('compression', [False, True])
@given(VALUES, st.binary(max_size=50))
def test_what_goes_in_comes_out(secrets, compression, value, identity):
    mine = envelope(secrets, compression)
    assert mine.loads(TASK, mine.dumps(TASK, value, identity), identity) == value


@pytest.mark.parametrize('kind', ['pickle', 'pickle-any', 'json', 'msgpack'])
@pytest.mark.parametrize('secrets', [(), NEW])
@pytest.mark.parametrize('size', [0, 100, 5000, 100_000])
def test_every_serializer_can_be_signed_and_compressed(kind, secrets, size):
    for compression in (False, True):
        mine = envelope(secrets, compression, kind=kind)
        body = mine.dumps(RESULT, 'x' * size, b'id')
        assert mine.loads(RESULT, body, b'id') == 'x' * size
        assert envelope(secrets, not compression, kind=kind).loads(RESULT, body, b'id') == 'x' * size
        assert bool(body[0] & COMPRESSED) is (compression and size >= 5000)
        assert bool(body[0] & SIGNED) is bool(secrets)


def test_what_does_not_become_smaller_is_not_compressed():
    import random
    noise = random.Random(1).randbytes(5000)
    assert envelope(compression=True).dumps(TASK, noise)[0] == 0


# -- signatures -------------------------------------------------------------------------------------------------

def test_the_first_secret_signs_and_all_verify():
    body = envelope(OLD).dumps(TASK, 1, b'id')
    assert envelope([NEW, OLD]).loads(TASK, body, b'id') == 1
    assert envelope([OLD]).loads(TASK, envelope([OLD, NEW]).dumps(TASK, 2, b'id'), b'id') == 2
    for others in ([NEW], ['yet another secret of 16']):
        with pytest.raises(SignatureError, match='none of ours'):
            envelope(others).loads(TASK, body, b'id')


def test_bytes_and_text_are_the_same_secret():
    assert envelope(NEW.encode()).loads(TASK, envelope(NEW).dumps(TASK, 1)) == 1


@pytest.mark.parametrize(('purpose', 'identity', 'app'), [(RESULT, b'id', 'app'), (ERROR, b'id', 'app'), (TASK, b'other', 'app'),
                                                          (TASK, b'', 'app'), (TASK, b'id', 'other')])
def test_a_signature_is_worth_nothing_for_anything_else(purpose, identity, app):
    body = envelope(NEW).dumps(TASK, 1, b'id')
    with pytest.raises(SignatureError, match='none of ours'):
        envelope(NEW, app=app).loads(purpose, body, identity)


def test_what_belongs_to_the_identity_cannot_be_moved_into_the_data():
    mine = envelope(NEW)
    body = mine.dumps(TASK, 'value', b'identity')
    with pytest.raises(SignatureError):
        mine.opened(TASK, body[:17] + b'y' + body[17:], b'identit')


@given(st.data())
def test_a_signed_body_that_was_changed_anywhere_is_refused(data):
    mine = envelope(NEW, compression=True)
    body = bytearray(mine.dumps(TASK, 'a value ' * 300, b'id'))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SerializationError):
        mine.loads(TASK, bytes(body), b'id')


@given(st.data())
def test_a_signed_body_that_is_cut_short_is_refused(data):
    mine = envelope(NEW)
    body = mine.dumps(TASK, 'a value', b'id')
    with pytest.raises(SerializationError):
        mine.loads(TASK, body[:data.draw(st.integers(0, len(body) - 1))], b'id')


def test_with_a_secret_nothing_is_taken_that_is_not_signed():
    with pytest.raises(SignatureError, match='not signed'):
        envelope(NEW).loads(TASK, envelope().dumps(TASK, 1))


def test_without_a_secret_what_is_signed_is_refused_and_the_way_out_is_said():
    with pytest.raises(SignatureError, match='set secret= or GEVENTHUEY_SECRET'):
        envelope().loads(TASK, envelope(NEW).dumps(TASK, 1))


def test_what_is_not_genuine_is_neither_inflated_nor_decoded(monkeypatch):
    mine = Envelope(AnyPickle(), 'app', NEW)
    monkeypatch.setattr(AnyPickle, 'loads', lambda self, data: pytest.fail('it was decoded'))
    monkeypatch.setattr(zlib, 'decompressobj', lambda: pytest.fail('it was inflated'))
    for body in (b'\0junk', b'\1junk', b'\2' + bytes(16) + b'junk', b'\3' + bytes(16) + b'junk'):
        with pytest.raises(SignatureError):
            mine.loads(TASK, body)


@pytest.mark.parametrize('body', [b'', b'\4', b'\xff junk', b'\x80\x05N.'])
def test_what_is_no_body_is_refused(body):
    for mine in (envelope(), envelope(NEW)):
        with pytest.raises(SerializationError, match='they do not begin as a body does|not signed'):
            mine.loads(TASK, body)


def test_what_is_all_identity_is_sealed():
    mine = envelope([NEW, OLD])
    assert mine.is_sealed(TASK, b'id', mine.seal(TASK, b'id'))
    assert mine.is_sealed(TASK, b'id', envelope(OLD).seal(TASK, b'id'))
    for seal in ('', 'junk', mine.seal(RESULT, b'id'), mine.seal(TASK, b'other'), envelope(NEW, app='x').seal(TASK, b'id')):
        assert not mine.is_sealed(TASK, b'id', seal)
    assert envelope().seal(TASK, b'id') == ''
    assert envelope().is_sealed(TASK, b'id', '')


# -- compression ------------------------------------------------------------------------------------------------

def bomb(size):
    """A pickle of zeros, compressed: a thousandth of its size."""
    squeeze = zlib.compressobj(9)
    return b'\1' + squeeze.compress(RestrictedPickle().dumps(bytes(size))) + squeeze.flush()


def test_what_comes_out_is_bounded():
    assert len(envelope().loads(TASK, bomb(MAX_OPENED - 100))) == MAX_OPENED - 100
    with pytest.raises(SerializationError, match='put the data elsewhere'):
        envelope().loads(TASK, bomb(MAX_OPENED + 1))


@pytest.mark.parametrize('change', [lambda body: body[:-3], lambda body: body + b'more', lambda body: b'\1' + body[5:], lambda body: b'\1'])
def test_what_is_not_compressed_as_it_says_is_refused(change):
    body = envelope(compression=True).dumps(TASK, 'x' * 5000)
    with pytest.raises(SerializationError, match='the bytes cannot be read'):
        envelope().loads(TASK, change(body))


# -- secrets ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('secret', ['short', b'short', '', [NEW, 'short']])
def test_a_secret_that_is_too_short_is_refused_and_not_shown(secret):
    with pytest.raises(ConfigurationError, match='16 are needed; a new one: python') as info:
        envelope(secret)
    assert 'short' not in str(info.value).replace('too short', '')


def test_what_is_no_secret_is_refused():
    with pytest.raises(ConfigurationError, match='a text or bytes, not int'):
        envelope([12345678901234567890])


def test_its_repr_shows_no_secret():
    assert repr(envelope([NEW, OLD], True)) == "<Envelope 'app', signed, compressed>"
