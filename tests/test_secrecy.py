"""Arguments, results, passwords and secrets stay out of logs and reprs. (The text of the user's own exception is the user's affair.)"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from geventhuey import DataStoreGetException, Huey, RedisHuey, SerializationError
from geventhuey.exceptions import ConfigurationError
from geventhuey.message import Message
from geventhuey.testing.drain import drain
from tests.consumer.kit import Work

#: The first byte of what is neither signed nor compressed.
PLAIN = b'\0'
CANARY = 'canary-7f3a91'
SECRET = f'{CANARY}-as-a-secret'
SERIALIZERS = ['pickle', 'json', 'msgpack', 'pickle-any']


class Unfit:
    """Cannot travel, and shows what it holds."""

    def __repr__(self) -> str:
        return CANARY

    def __reduce__(self) -> object:
        raise TypeError('it cannot be pickled')


@pytest.mark.parametrize('serializer', SERIALIZERS)
def test_no_repr_and_no_line_of_the_log_shows_what_travels(serializer, caplog):
    caplog.set_level(logging.DEBUG)
    huey = Huey.from_url('memory://', 'app', serializer=serializer, secret=SECRET, compression=True)

    @huey.task(name='work', retries=1)
    def work(text, fails=False):
        if fails:
            raise ValueError('it failed')
        return text

    @huey.task(name='unfit')
    def unfit(text):
        return Unfit()

    shown = []
    for args in ((CANARY,), (CANARY, True), (CANARY * 200_000,)):
        result = work(*args)
        shown += [huey, huey.storage, huey.envelope, huey.registry, result, result.task, huey.serializer, work, *huey.pending()]
    shown += [unfit(CANARY), work.schedule((CANARY,), delay=100)]
    for value in (Unfit(), [CANARY, {CANARY: Unfit()}]):
        with pytest.raises(SerializationError) as caught:
            work(value)
        shown.append(caught.value)
    ran = drain(huey)
    for n, payload in enumerate([CANARY.encode(), PLAIN + CANARY.encode(), b'\x02' + CANARY.encode() * 5, b'\x03' + CANARY.encode() * 5]):
        huey.storage.enqueue([Message(f'evil-{n}', 'work', payload)])
        huey.storage.put_result(f'evil-{n}', b'V' + payload, 60)
        with pytest.raises(DataStoreGetException) as caught:
            huey.result(f'evil-{n}', preserve=True)
        shown.append(caught.value)
    drain(huey)
    huey.all_results()
    reasons = [reason for _, reason, _ in huey.storage.dead()]
    assert len(reasons) == 4
    assert CANARY not in ' '.join(map(repr, [*shown, *ran, *reasons]))
    assert len(caplog.records) > 5 and CANARY not in caplog.text


def test_a_verbose_consumer_says_nothing_of_what_travels(redis_url, tmp_path: Path):
    work = Work(redis_url, tmp_path, secret=SECRET)
    try:
        consumer = work.consume('-v', GEVENTHUEY_SECRET=SECRET)
        results = [work.send('echo', CANARY) for _ in range(3)]
        assert [result.get(blocking=True, timeout=30) for result in results] == [CANARY] * 3
        failing, unfit = work.send('fail', CANARY, 'Boom'), work.send('unserializable', CANARY)
        for payload in (CANARY.encode(), PLAIN + CANARY.encode(), b'\x02' + CANARY.encode() * 5):
            work.huey.storage.enqueue([Message('evil', 'echo', payload, flags=1)])
        work.redis.rpush(work.keys.queue('default'), CANARY)
        for result in (failing, unfit):
            with pytest.raises(Exception, match=r'boom|cannot travel'):
                result.get(blocking=True, timeout=30)
        work.wait_idle()
        assert consumer.stop() == 0
        text = consumer.text()
        assert ', signed, tasks at' in text and 'dead letters' in text and 'finished in' in text
        assert CANARY not in text
    finally:
        work.close()


@pytest.mark.parametrize('settings', [
    {'url': f'redis://user:{CANARY}@localhost:1'}, {'host': 'localhost', 'port': 1, 'password': CANARY}])
def test_a_password_is_not_shown(settings, caplog):
    huey = RedisHuey('app', secret=SECRET, **settings)

    @huey.task(name='work')
    def work(text):
        return text

    with pytest.raises(Exception) as caught:
        work(CANARY)
    assert CANARY not in f'{caught.value!r} {caught.value.__cause__!r} {huey!r} {huey.storage!r} {huey.storage.address!r} {huey.envelope!r}'
    assert CANARY not in caplog.text


@pytest.mark.parametrize('secret', [CANARY, [SECRET, CANARY], [SECRET, 5], {SECRET: 1}])
def test_a_secret_that_is_refused_is_not_shown(secret):
    with pytest.raises(ConfigurationError) as caught:
        Huey.from_url('memory://', secret=secret)
    assert CANARY not in str(caught.value)
