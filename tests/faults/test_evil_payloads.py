"""Whoever can write to Redis sends what no program of ours would: refused, counted, set aside; the consumer goes on."""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from geventhuey import DataStoreGetException, SignatureError
from geventhuey.envelope import RESULT, SIGNED, TASK, Envelope
from geventhuey.message import WANTS_RESULT, Message
from geventhuey.serializer import serializer
from geventhuey.storage import base
from tests.consumer.kit import Program, Work

SECRET = 'the-secret-of-these-tests-alone'
#: The first byte of what is neither signed nor compressed.
PLAIN = b'\0'
#: Bytes that a consumer may grow by, whatever is sent to it.
GROWTH = 150 << 20


@pytest.fixture
def signed(redis_url: str, tmp_path: Path) -> Iterator[Work]:
    """An application with a secret, and its consumers."""
    work = Work(redis_url, tmp_path, secret=SECRET)
    yield work
    work.close()


class Call:
    """Pickled, it is a call."""

    def __init__(self, path: Path) -> None:
        self._command = f'touch {path}'

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self._command,)


def genuine(work: Work, *args: int) -> Message:
    """A message as the application sends it."""
    return work.huey.registry.message(work.task('add', *args), WANTS_RESULT)


def goes_on(work: Work, consumer: Program) -> None:
    """A good task is run, and nothing waits."""
    assert work.send('add', 20, 3).get(blocking=True, timeout=60) == 23
    work.wait_idle(60)
    assert 'Traceback' not in consumer.text()


def refused(work: Work, consumer: Program, messages: list[Message | bytes], reason: str) -> None:
    """Each of them went to the dead letters for this reason, and the consumer goes on."""
    for message in messages:
        work.redis.rpush(work.keys.queue('default'), message if isinstance(message, bytes) else message.encode())
    goes_on(work, consumer)
    dead = work.huey.storage.dead()
    assert len(dead) == len(messages) == work.huey.storage.counters()['dead']
    assert [why for _, why, _ in dead if reason not in why] == []


@pytest.mark.parametrize('how', ['unsigned', 'signed by somebody else', 'no secret here'])
def test_a_call_of_the_system_in_a_pickle_is_not_made(redis_url, tmp_path, how):
    work = Work(redis_url, tmp_path, secret=() if how == 'no secret here' else SECRET)
    try:
        consumer = work.consume(**({} if how == 'no secret here' else {'GEVENTHUEY_SECRET': SECRET}))
        message = Message('evil', 'add', b'', flags=WANTS_RESULT)
        secrets = (b'a secret of somebody else',) if how == 'signed by somebody else' else ()
        sender = Envelope(serializer('pickle-any'), work.name, secrets)
        evil = message._replace(payload=sender.dumps(TASK, (((Call(tmp_path / 'done'), 1), {}), {}), message.identity()))
        refused(work, consumer, [evil], 'not allowed to travel' if how == 'no secret here' else 'sign')
        assert not (tmp_path / 'done').exists()
        assert consumer.stop() == 0
    finally:
        work.close()


def test_what_was_signed_for_another_place_is_refused(signed):
    consumer = signed.consume(GEVENTHUEY_SECRET=SECRET)
    message = genuine(signed, 1, 2)
    other = genuine(signed, 3, 4)
    data = signed.huey.serializer.dumps((((1, 2), {}), {}))
    value = (((1, 2), {}), {})
    elsewhere = Envelope(signed.huey.serializer, 'another-application', SECRET).dumps(TASK, value, message.identity())
    result = signed.huey.envelope.dumps(RESULT, value, base.VALUE + message.id.encode())
    refused(signed, consumer, [
        message._replace(payload=elsewhere), message._replace(payload=other.payload), message._replace(payload=result),
        message._replace(payload=PLAIN + data), message._replace(payload=bytes((SIGNED,)) + bytes(16) + data),
        message._replace(id='another'), message._replace(name='echo'), message._replace(queue='another'),
        message._replace(priority=5), message._replace(created=message.created + 1), message._replace(expires=message.created + 1e6),
        message._replace(flags=0), message._replace(flags=WANTS_RESULT | 2), message._replace(flags=WANTS_RESULT | 16)], 'sign')
    assert consumer.stop() == 0


def test_what_redis_edits_leaves_the_signature_good(signed):
    message = genuine(signed, 1, 2)
    for edited in (message._replace(deliveries=3), message._replace(flags=WANTS_RESULT | 32), message._replace(flags=WANTS_RESULT | 192)):
        assert signed.huey.registry.task(Message.decode(edited.encode())).get_data() == ((1, 2), {})


def test_the_result_of_another_task_or_unsigned_is_refused(signed):
    consumer = signed.consume(GEVENTHUEY_SECRET=SECRET)
    first, second = signed.send('add', 1, 2), signed.send('add', 3, 4)
    assert first.get(blocking=True, timeout=30, preserve=True) == 3
    second.get(blocking=True, timeout=30)
    record = signed.redis.get(signed.keys.result(first.task_id))
    for forged in (record, base.VALUE + PLAIN + signed.huey.serializer.dumps(3), base.ERROR + record[1:]):
        signed.huey.storage.put_result(second.task_id, forged, 60)
        second.reset()
        with pytest.raises(DataStoreGetException) as caught:
            second.get()
        assert isinstance(caught.value.__cause__, SignatureError)
    signed.huey.storage.put_result('forged', b'V' + PLAIN, 60)
    assert list(signed.huey.all_results()) == [first.task_id]
    assert consumer.stop() == 0


def test_a_secret_is_changed_while_tasks_wait(signed):
    waiting = signed.send('add', 1, 2)
    consumer = signed.consume(GEVENTHUEY_SECRET=f'the-next-secret-of-these-tests,{SECRET}')
    with pytest.raises(DataStoreGetException, match='its signature is none of ours'):
        waiting.get(blocking=True, timeout=30)          # signed with the new secret, which this program has not got yet
    assert consumer.stop() == 0


@pytest.mark.parametrize('secret', ['', SECRET])
def test_a_decompression_bomb_is_refused_and_takes_no_memory(redis_url, tmp_path, secret):
    work = Work(redis_url, tmp_path, secret=secret or ())
    try:
        consumer = work.consume(**({'GEVENTHUEY_SECRET': secret} if secret else {}))
        goes_on(work, consumer)
        before = psutil.Process(consumer.pid).memory_info().rss
        packing = zlib.compressobj(9)
        bomb = b''.join([*(packing.compress(bytes(1 << 24)) for _ in range(64)), packing.flush()])
        message = genuine(work, 1, 2)
        head = bytes((1 | SIGNED * bool(secret),))
        envelope = work.huey.envelope
        mac = envelope._signature(envelope._hashers(TASK)[0], message.identity(), head + bomb) if secret else b''
        refused(work, consumer, [message._replace(payload=head + mac + bomb)] * 5, 'come out of')
        assert psutil.Process(consumer.pid).memory_info().rss - before < GROWTH
        assert consumer.stop() == 0
    finally:
        work.close()


@pytest.mark.slow
def test_ten_thousand_times_junk_is_set_aside_and_takes_no_memory(work):
    dice = random.Random(30)
    consumer = work.consume('-w', '20', '-q')
    goes_on(work, consumer)
    before = psutil.Process(consumer.pid).memory_info().rss
    whole = [dice.randbytes(dice.randrange(0, 200)) for _ in range(5000)]
    message = genuine(work, 1, 2)
    starts = [b'', PLAIN, PLAIN + b'\x80\x05', PLAIN + b'\x80\x05Nr', b'\1', b'\2', b'\3']
    payloads = [dice.choice(starts) + dice.randbytes(dice.randrange(0, 200)) for _ in range(5000)]
    payloads += [PLAIN + b'\x80\x05Nr\xff\xff\xff\x7f.', PLAIN + b'Np999999999\n.']
    evil = [message._replace(id=f'evil-{n}', payload=payload).encode() for n, payload in enumerate(payloads)]
    for start in range(0, 5000, 500):
        work.redis.rpush(work.keys.queue('default'), *whole[start:start + 500], *evil[start:start + 500])
    work.redis.rpush(work.keys.queue('default'), *evil[5000:])
    goes_on(work, consumer)
    counters = work.huey.storage.counters()
    assert counters['malformed'] + counters['dead'] == len(whole) + len(evil)
    assert counters['dead'] >= len(evil)
    assert psutil.Process(consumer.pid).memory_info().rss - before < GROWTH
    assert consumer.stop() == 0
