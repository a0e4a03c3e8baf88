"""Suspects: how many may run together, and that none of the innocent is buried with the culprit."""

from __future__ import annotations

import time

import pytest

from geventhuey.consumer.suspects import Suspects
from geventhuey.storage.base import Delivery
from tests.consumer.kit import wait_until


def delivery(tag: int, deliveries: int) -> Delivery:
    return Delivery('c', tag, bytes((1, deliveries)))


@pytest.mark.parametrize(('workers', 'max_deliveries', 'wanted'), [
    (500, 5, ((4, 1), (3, 7), (2, 62))),
    (500, 4, ((3, 1), (2, 7))),
    (500, 3, ((2, 1),)),
    (500, 2, ((2, 1),)),
    (500, 10, ((9, 1), (8, 7), (2, 62))),
    (1, 5, ((4, 1), (3, 1), (2, 1)))])
def test_the_more_suspicious_the_fewer_run_together(workers, max_deliveries, wanted):
    assert tuple(Suspects(workers, max_deliveries).wanted()) == wanted


def test_what_runs_takes_room_and_what_ends_gives_it_back():
    suspects = Suspects(500, 5)
    for tag in range(3):
        suspects.begun(delivery(tag, 2))
    suspects.begun(delivery(3, 3))
    assert suspects.wanted() == ((4, 0), (3, 6), (2, 59))
    assert suspects.ended(delivery(0, 2)) is True
    assert suspects.ended(delivery(0, 2)) is False
    assert suspects.ended(delivery(4, 1)) is False
    assert suspects.wanted() == ((4, 0), (3, 6), (2, 60))


def test_a_last_chance_is_taken_alone():
    suspects = Suspects(500, 5)
    suspects.begun(delivery(0, 2))
    assert dict(suspects.wanted())[4] == 0
    suspects.ended(delivery(0, 2))
    suspects.begun(delivery(1, 6))
    assert suspects.wanted() == ()


@pytest.mark.slow
@pytest.mark.parametrize('poisons', [1, 3])
def test_a_task_that_kills_every_consumer_is_buried_alone(work, poisons):
    """Supervised processes start again and again; the innocent run beside the culprits, and none of them is lost."""
    supervisor = work.consume('-p', '2', '-w', '64', '--lease', '1')
    wait_until(lambda: len(work.consumers()) == 2)
    results = []
    for n in range(150):
        if n % (150 // poisons) == 0:
            work.send('die', f'poison{n}', 0.3)
        results.append(work.send('rest', n, 0.1))
    wait_until(lambda: len(work.huey.dead()) == poisons, 100)
    assert [result.get(blocking=True, timeout=60) for result in results] == [n * 10 for n in range(150)]
    work.wait_idle()
    assert {letter.name for letter in work.huey.dead()} == {'die'}
    assert work.journal.times('start')['poison0'] == 5
    assert supervisor.stop() == 0
    assert work.leftovers() <= {'dead', 'dead_order'}


def test_a_suspect_is_heard_of_by_who_has_room_for_it(work):
    """One consumer is busy with a suspect of the last chance: the other one, which waits, gets the next ones at once."""
    busy = work.consume('-w', '8', '--max-deliveries', '3')
    work.huey.storage.enqueue([suspect(work, 'busy', 20.0)])
    work.journal.wait_for('start')
    idle = work.consume('-w', '8', '--max-deliveries', '3')
    took = []
    for n in range(5):
        begun = time.monotonic()
        work.huey.storage.enqueue([suspect(work, n, 0.0)])
        work.journal.wait_for('end', n + 1)
        took.append(time.monotonic() - begun)
    assert sorted(took)[3] < 2, 'nobody waits for the next look, which comes every 5 s'
    assert {entry.pid for entry in work.journal.entries('end')} == {idle.pid}
    busy.kill()
    assert idle.stop() == 0


def suspect(work, n: object, seconds: float):
    """A message under which two consumers have died."""
    return work.huey.registry.message(work.task('rest', n, seconds))._replace(deliveries=2)
