"""How to test tasks without a server: the tasks are in memory, and the clock is turned by hand.

Run it::

    python -m pytest examples/test_with_memory.py

An application with a ``RedisHuey`` is brought here by ``huey.use_url('memory://')``.
"""

import pytest

from geventhuey import ManualClock, MemoryHuey, TaskException
from geventhuey.testing import drain

DAY = 24 * 60 * 60

clock = ManualClock()
huey = MemoryHuey('shop', clock=clock)
sent = []


@huey.task(retries=2, retry_delay=60)
def send_mail(address):
    if '@' not in address:
        raise ValueError(f'{address} is no address')
    sent.append(address)
    return f'sent to {address}'


@huey.task()
def order(address):
    """An order is confirmed at once, and the customer asked for an opinion a day later."""
    send_mail(address)
    send_mail.schedule((address,), delay=DAY)


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    sent.clear()
    huey.flush()


def test_a_real_consumer():
    with huey.consumer(worker_type='thread', workers=4):
        results = [send_mail(f'{name}@example.org') for name in ('ann', 'bob')]
        assert [result.get(blocking=True, timeout=5) for result in results] == ['sent to ann@example.org', 'sent to bob@example.org']


def test_a_day_later():
    result = send_mail.schedule(('ann@example.org',), delay=DAY)
    with huey.consumer(worker_type='thread', workers=4):
        assert result.get() is None
        clock.advance(DAY)
        assert result.get(blocking=True, timeout=5) == 'sent to ann@example.org'


def test_an_order_step_by_step():
    order('ann@example.org')
    drain(huey)                         # all that there is to do now, here
    assert sent == ['ann@example.org']
    clock.advance(DAY)
    drain(huey)
    assert sent == ['ann@example.org', 'ann@example.org']


def test_three_tries_a_minute_apart():
    result = send_mail('ann')
    for _ in range(3):
        assert result.get() is None
        assert len(drain(huey)) == 1
        clock.advance(60)
    with pytest.raises(TaskException, match='ann is no address'):
        result.get()


def test_at_the_call():
    huey.immediate = True
    try:
        assert send_mail('ann@example.org').get() == 'sent to ann@example.org'
        with pytest.raises(ValueError):
            send_mail('ann')
    finally:
        huey.immediate = False
