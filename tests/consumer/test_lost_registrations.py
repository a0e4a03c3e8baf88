"""What Redis forgets of a consumer, and what it believes too much: registrations that are lost, deliveries that nobody knows of."""

from __future__ import annotations

import threading
import uuid

import pytest

from geventhuey import RedisHuey
from geventhuey.consumer import audit
from geventhuey.message import WANTS_RESULT
from tests.consumer.kit import wait_until


def forget(work, name: str | None = None) -> None:
    """Redis has lost a registration, or all."""
    if name is None:
        work.redis.delete(work.keys.consumers)
    else:
        assert work.redis.hdel(work.keys.consumers, name) == 1


def test_a_dead_consumer_that_is_not_registered_is_found_all_the_same(work):
    consumer = work.consume('-w', '10')
    results = [work.send('rest', n, 0.3) for n in range(5)]
    work.journal.wait_for('start', 5)
    consumer.kill()
    forget(work)
    again = work.consume('-w', '10')
    assert [result.get(blocking=True, timeout=30) for result in results] == [n * 10 for n in range(5)]
    assert again.stop() == 0
    assert work.leftovers() == set()
    assert work.redis.exists(work.keys.consumer_info) == 0


@pytest.mark.parametrize('slots', ['3', '10'], ids=['busy', 'with room'])
def test_a_live_consumer_whose_registration_is_lost_keeps_what_it_runs(work, slots):
    consumer = work.consume('-w', slots, '--lease', '1')
    name, = work.consumers()
    other = work.consume('-w', '1', '--lease', '1')
    others_name = next(found for found in work.consumers() if found != name)
    for n in range(2):
        work.send('rest', f'block-{n}', 0.0)
    work.wait_idle()
    results = [work.send('whose', n, 2.5) for n in range(4)]
    work.journal.wait_for('start', 6)
    for _ in range(3):
        before = set(work.consumers())
        forget(work)
        wait_until(lambda before=before: set(work.consumers()) == before)
    assert {name, others_name} == set(work.consumers())
    pids = [result.get(blocking=True, timeout=30) for result in results]
    assert set(pids) <= {consumer.pid, other.pid}
    work.wait_idle()
    assert set(work.journal.times('start').values()) == {1}
    for program in (consumer, other):
        assert not program.lines('is dead') + program.lines('runs twice')
        assert program.stop() == 0
    assert work.leftovers() == set()


@pytest.fixture
def counting(redis_url, monkeypatch):
    """An application whose task counts its runs, with an audit that looks all the time."""
    monkeypatch.setattr(audit, 'INTERVAL', 0.02)
    huey, runs, lock = RedisHuey(f'audit-{uuid.uuid4().hex[:8]}', url=redis_url), {}, threading.Lock()

    @huey.task(name='count')
    def count(n):
        with lock:
            runs[n] = runs.get(n, 0) + 1
        return n

    yield huey, count, runs
    huey.close()


def test_a_delivery_that_nobody_here_knows_of_is_run(counting, caplog):
    huey, count, runs = counting
    with huey.consumer(workers=4, lease=0.5) as consumer:
        assert count(0).get(blocking=True, timeout=20) == 0
        lease = consumer._engine.lease
        task = count.task_class(((1,), {}))
        message = huey.registry.message(task, WANTS_RESULT).encode()
        inflight = huey.storage.keys.inflight(lease.consumer)
        huey.storage._call(('HSET', inflight, (lease.request - 1) * 512 + 77, message))     # an answer that was lost
        assert huey.result(task.task_id, blocking=True, timeout=20) == 1
        wait_until(lambda: not huey.storage.held(lease.consumer))
    assert runs == {0: 1, 1: 1}
    assert 'was unknown here' in caplog.text


def test_an_audit_in_the_middle_of_everything_finds_nothing(counting, caplog):
    huey, count, runs = counting
    results = [count(n) for n in range(3000)]
    with huey.consumer(workers=20, lease=0.3):
        assert [result.get(blocking=True, timeout=60) for result in results] == list(range(3000))
    assert set(runs.values()) == {1}
    assert 'was unknown here' not in caplog.text


def test_what_was_fetched_by_a_process_that_then_stood_still_does_not_run_there_late():
    """It has been given up meanwhile, and its tasks have run elsewhere: the answer that it finds at last is out of date."""
    from geventhuey import MemoryHuey
    from geventhuey.lease import Lease

    huey = MemoryHuey('late')
    huey.task(name='work')(lambda: None)()
    lease = Lease(lease=0.1)
    lease.register(huey.storage)
    fetch, asked = huey.storage.fetch, []

    class Slow:
        """The process stands still after its first fetch, longer than its lease; somebody takes everything back."""

        register = staticmethod(huey.storage.register)

        @staticmethod
        def fetch(consumer, *args):
            asked.append(consumer)
            fetched = fetch(consumer, *args)
            if len(asked) == 1:
                assert huey.storage.reap(consumer, huey.storage.consumers()[consumer], 5, 9, None).requeued == 1
                threading.Event().wait(0.06)
            return fetched

    fetched = lease.fetch(Slow, {'default': 1}, 1)
    assert len(asked) >= 2 and len(fetched.deliveries) == 1
    [delivery] = fetched.deliveries
    assert delivery.message[1] == 1, 'it is the one that went back, fetched anew'
    assert huey.storage.held(lease.consumer) == [delivery.tag]
