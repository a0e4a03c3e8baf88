"""Message: what travels, and its bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geventhuey.exceptions import ConfigurationError, MessageError
from geventhuey.message import (
    HEADER,
    MAX_MESSAGE,
    MAX_PRIORITY,
    MIN_PRIORITY,
    PROOF,
    REVOKED,
    REVOKED_FOR_GOOD,
    VERSION,
    Message,
    check_name,
    going_back,
    made_new,
    marked,
)

TEXT = st.text(st.characters(exclude_categories=['Cs']), min_size=1, max_size=60)
MOMENTS = st.integers(0, 2 ** 40).map(lambda ms: ms / 1000)
MESSAGES = st.builds(
    Message, TEXT, TEXT, st.binary(max_size=100), TEXT, st.integers(MIN_PRIORITY, MAX_PRIORITY), st.integers(0, 255), MOMENTS,
    st.none() | st.integers(1, 2 ** 40).map(lambda ms: ms / 1000), st.integers(0, 255), st.binary(max_size=50),
).map(lambda message: message if message.flags & PROOF else message._replace(proof=b''))
SENT = MESSAGES.map(lambda message: message._replace(flags=message.flags % PROOF, deliveries=0, proof=b''))


@given(MESSAGES)
def test_what_is_encoded_is_decoded(message):
    found = Message.decode(message.encode())
    assert found._replace(created=0, expires=None) == message._replace(created=0, expires=None)
    assert abs(found.created - message.created) < 0.0011
    assert (found.expires is None) == (message.expires is None)
    assert found.expires is None or abs(found.expires - message.expires) < 0.0011


@given(SENT, st.sampled_from([REVOKED, REVOKED_FOR_GOOD]), st.binary(max_size=50), st.integers(0, 300))
def test_a_mark_changes_nothing_else_and_only_that_of_a_used_revocation_stays(message, mark, proof, deliveries):
    raw = message.encode()
    revoked = marked(raw, mark, proof)
    flags = message.flags | mark | (PROOF if proof else 0)
    assert Message.decode(revoked) == Message.decode(raw)._replace(flags=flags, proof=proof)
    assert made_new(revoked) == raw
    back = Message.decode(going_back(revoked, deliveries))
    expected = Message.decode(revoked if mark == REVOKED_FOR_GOOD else raw)
    assert back == expected._replace(deliveries=min(255, deliveries))


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda junk: bytes([VERSION]) + junk))
def test_whatever_the_bytes_are_they_are_a_message_or_an_error(raw):
    try:
        message = Message.decode(raw)
    except MessageError:
        return
    assert message.id and message.name and message.queue


@given(MESSAGES, st.data())
def test_a_message_that_is_cut_short_in_its_head_is_none(message, data):
    raw = message.encode()
    head = len(raw) - len(message.payload) - (1 + len(message.proof) if message.flags & PROOF else 0)
    with pytest.raises(MessageError):
        Message.decode(raw[:data.draw(st.integers(0, head - 1))])


def test_the_layout_is_that_of_the_documentation():
    raw = Message('id', 'name', b'payload', 'queue', 1, 2, 3.5, 4.5, 5).encode()
    assert HEADER.size == 24
    assert raw[0] == 1
    assert raw[1] == 5
    assert raw[2] == 2
    assert int.from_bytes(raw[3:5], 'big') == 32769
    assert int.from_bytes(raw[5:13], 'big') == 3500
    assert int.from_bytes(raw[13:21], 'big') == 4500
    assert tuple(raw[21:24]) == (2, 4, 5)
    assert raw[24:] == b'idnamequeuepayload'


def test_the_defaults():
    assert Message('id', 'name', b'') == ('id', 'name', b'', 'default', 0, 0, 0.0, None, 0, b'')


def test_a_message_of_another_version_says_which():
    raw = bytearray(Message('id', 'name', b'').encode())
    raw[0] = 9
    with pytest.raises(MessageError, match='version 9; this program reads version 1'):
        Message.decode(bytes(raw))


@pytest.mark.parametrize('field', [21, 22, 23])
def test_a_message_without_id_name_or_queue_is_none(field):
    raw = bytearray(Message('i', 'n', b'payload', 'q').encode())
    raw[field] = 0
    with pytest.raises(MessageError):
        Message.decode(bytes(raw))


def test_names_that_are_no_text_are_no_message():
    raw = Message('i', 'n', b'', 'q').encode()
    with pytest.raises(MessageError, match='not a message'):
        Message.decode(raw[:24] + b'\xff' + raw[25:])


@pytest.mark.parametrize(('message', 'text'), [
    (Message('x' * 256, 'name', b''), 'longer than 255 bytes'),
    (Message('id', 'x' * 256, b''), 'longer than 255 bytes'),
    (Message('id', 'name', b'', priority=32768), r'priority 32768 is outside -32768\.\.32767'),
    (Message('id', 'name', b'', priority=-32769), 'priority -32769 is outside'),
    (Message('id', 'name', bytes(MAX_MESSAGE)), 'put the data elsewhere'),
])
def test_what_does_not_fit_is_refused(message, text):
    with pytest.raises(ConfigurationError, match=text):
        message.encode()


def test_the_largest_message_travels():
    message = Message('id', 'name', bytes(MAX_MESSAGE - 24 - len('idnamedefault')))
    assert len(message.encode()) == MAX_MESSAGE


@pytest.mark.parametrize('name', ['a', 'A.b:c-d_9', 'x' * 128])
def test_names_that_may_be_used(name):
    assert check_name('the name', name) == name


@pytest.mark.parametrize('name', ['', 'a b', 'a\n', '\n', 'a/b', 'ä', 'x' * 129, None, 7, b'a', '{a}'])
def test_names_that_may_not(name):
    with pytest.raises(ConfigurationError, match='the name .*: use 1 to 128 of the characters'):
        check_name('the name', name)
