"""What nobody can run: junk, unknown names, results that cannot travel, tasks that kill their process."""

from __future__ import annotations

import random

import pytest

from geventhuey import TaskException, TaskLost
from geventhuey.envelope import TASK
from geventhuey.message import WANTS_RESULT, Message
from tests.consumer.kit import Work, wait_until


def junk(work: Work) -> list[bytes]:
    """Bytes that are no messages, some of them nearly."""
    dice = random.Random(20)
    whole = work.huey.registry.message(work.task('add', 1, 2), WANTS_RESULT).encode()
    header = whole[:24] + b'\0\0'
    return [b'', b'\0', b'x' * 10, b'\x01' * 24, b'\xff' * 300, whole[:24], whole[:30], b'\x02' + whole[1:], header,
            *(dice.randbytes(dice.randrange(1, 200)) for _ in range(200)),
            *(whole[:cut] for cut in range(1, 24 + 36 + 3 + 7))]


@pytest.mark.parametrize('kind', ['greenlet', 'thread'])
def test_junk_in_the_queue_is_counted_and_set_aside(work, kind):
    pieces = junk(work)
    results = []
    for n, piece in enumerate(pieces):
        work.redis.rpush(work.keys.queue('default'), piece)
        if n % 10 == 0:
            results.append(work.send('add', n, 0))
    work.redis.zadd(work.keys.schedule, {b'12345678' + b'junk that is due': 1000})
    consumer = work.consume('-k', kind, '-w', '10')
    assert [result.get(blocking=True, timeout=30) for result in results] == list(range(0, len(pieces), 10))
    work.wait_idle()
    assert work.huey.storage.counters()['malformed'] == len(pieces) + 1
    assert sorted(work.huey.storage.malformed()) == sorted([*pieces, b'junk that is due'])
    assert 'Traceback' not in consumer.text()
    assert consumer.stop() == 0


def test_a_message_whose_payload_is_damaged_goes_to_the_dead_letters(work):
    whole = work.huey.registry.message(work.task('add', 1, 2), WANTS_RESULT)
    damaged = [whole._replace(id=f'cut-{cut}', payload=whole.payload[:-cut]) for cut in range(1, len(whole.payload), 5)]
    damaged += [whole._replace(id='nothing', payload=b''), whole._replace(id='random', payload=random.Random(1).randbytes(100)),
                whole._replace(id='evil', payload=b'cos\nsystem\n(S"true"\ntR.'),
                whole._replace(id='bytes', payload=work.huey.envelope.dumps(TASK, b'no task')),
                whole._replace(id='settings', payload=work.huey.envelope.dumps(TASK, ((), 7)))]
    work.huey.storage.enqueue(damaged)
    consumer = work.consume('-w', '10')
    assert work.send('add', 2, 3).get(blocking=True, timeout=30) == 5
    work.wait_idle()
    dead = work.huey.storage.dead()
    assert len(dead) == len(damaged)
    assert {message for _, _, message in dead} == {message.encode() for message in damaged}
    with pytest.raises(TaskLost):
        work.huey.result('evil', blocking=True, timeout=10)
    assert consumer.stop() == 0


def test_a_name_that_nobody_knows_goes_to_the_dead_letters_and_is_said_once(work):
    consumer = work.consume('-w', '10')
    messages = [Message(f'unknown-{n}', 'not.known', work.huey.envelope.dumps(TASK, (((), {}), {})), flags=WANTS_RESULT) for n in range(20)]
    work.huey.storage.enqueue(messages)
    with pytest.raises(TaskLost, match='not.known not found'):
        work.huey.result('unknown-19', blocking=True, timeout=30)
    work.wait_idle()
    reasons = [reason for _, reason, _ in work.huey.storage.dead()]
    assert len(reasons) == 20
    assert all('not.known not found' in reason for reason in reasons)
    assert len(consumer.lines('not.known')) == 1
    assert consumer.stop() == 0


@pytest.mark.parametrize('kind', ['greenlet', 'thread'])
def test_a_result_that_cannot_travel_fails_that_task_and_names_its_type(work, kind):
    consumer = work.consume('-k', kind, '-w', '10')
    result = work.send('unserializable', 0)
    with pytest.raises(TaskException, match=r'the result \(of type .*[lL]ock.*\) cannot travel'):
        result.get(blocking=True, timeout=30)
    assert work.send('echo', 'fine').get(blocking=True, timeout=30) == 'fine'
    assert work.journal.count('start') == 1
    assert consumer.stop() == 0


@pytest.mark.slow
def test_a_task_that_kills_its_process_ends_in_the_dead_letters_and_no_other_does(work):
    supervisor = work.consume('-p', '2', '-w', '20', '--max-deliveries', '3', '--lease', '2')
    wait_until(lambda: len(work.consumers()) == 2)
    poison = work.send('die', 'poison', 0.4)
    results = [work.send('rest', n, 0.1) for n in range(100)]
    with pytest.raises(TaskLost, match='its consumer died while it ran, 3 times'):
        poison.get(blocking=True, timeout=60)
    assert [result.get(blocking=True, timeout=30) for result in results] == [n * 10 for n in range(100)]
    work.wait_idle()
    assert len(work.huey.storage.dead()) == 1
    assert work.journal.times('start')['poison'] == 3
    assert max(work.journal.times('start').values()) <= 3
    assert supervisor.lines('ended with code 9, it is started again')
    assert supervisor.stop() == 0
    assert work.leftovers() <= {'dead', 'dead_order'}
