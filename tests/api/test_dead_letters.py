"""Dead letters by the API: they are listed, tried again, and thrown away."""

from __future__ import annotations

import datetime

import pytest

from geventhuey import ConfigurationError, DeadLetter, TaskLost
from geventhuey.lease import Lease
from geventhuey.message import Message
from geventhuey.testing import drain


def die(huey, times: int, max_deliveries: int = 5) -> None:
    """So many consumers have died under what was in the queue."""
    for _ in range(times):
        lease = Lease()
        lease.register(huey.storage)
        lease.fetch(huey.storage, {'default': 10}, 10)
        huey.storage.reap(lease.consumer, huey.storage.consumers()[lease.consumer], max_deliveries, 10, 60.0)


@pytest.fixture
def note(huey):
    ran = []

    @huey.task(name='note')
    def note(what):
        ran.append(what)
        return what

    note.ran = ran
    return note


def test_a_task_that_killed_its_consumers_is_listed_with_all_that_is_known(huey, note):
    before = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=5)
    result = note('poison')
    die(huey, 5)
    [letter] = huey.dead()
    assert isinstance(letter, DeadLetter)
    assert (letter.id, letter.name, letter.queue, letter.deliveries) == (result.task_id, 'note', 'default', 5)
    assert letter.reason == 'its consumer died while it ran, 5 times'
    assert before <= letter.created <= letter.died + datetime.timedelta(milliseconds=1) <= before + datetime.timedelta(minutes=1)
    assert huey.registry.task(Message.decode(letter.message)).get_data() == (('poison',), {})
    assert 'note' in repr(letter) and letter.id in repr(letter) and 'poison' not in repr(letter)
    with pytest.raises(TaskLost, match='5 times'):
        result.get(blocking=True, timeout=5)


def test_a_dead_letter_that_is_tried_again_runs_and_its_result_comes(huey, note):
    result = note('again')
    die(huey, 1, max_deliveries=1)
    with pytest.raises(TaskLost):
        result.get(blocking=True, timeout=5, preserve=True)
    assert huey.retry_dead(result.task_id) is True
    assert huey.retry_dead(result.task_id) is False
    assert huey.dead() == []
    drain(huey)
    result.reset()
    assert result.get(blocking=True, timeout=5) == 'again'


def test_all_that_are_listed_can_be_tried_again(huey, note):
    for n in range(5):
        note(n)
    die(huey, 1, max_deliveries=1)
    assert all(huey.retry_dead(letter.id) for letter in reversed(huey.dead()))
    drain(huey)
    assert sorted(note.ran) == [0, 1, 2, 3, 4]


def test_dead_letters_are_thrown_away_one_by_one_or_all(huey, note):
    results = [note(n) for n in range(4)]
    die(huey, 1, max_deliveries=1)
    assert len(huey.dead(limit=3)) == 3
    assert huey.purge_dead(results[0].task_id) == 1
    assert huey.purge_dead(results[0].task_id) == 0
    assert huey.purge_dead() == 3
    assert huey.dead() == []


def test_a_task_of_an_unknown_name_is_listed_by_its_name(huey, note):
    huey.storage.enqueue([Message('id', 'not.known', huey.envelope.dumps(b'task', (((), {}), {})))])
    drain(huey)
    [letter] = huey.dead()
    assert letter.name == 'not.known' and 'not found' in letter.reason


@pytest.mark.parametrize('bad', ['', 7, b'id', 'x' * 300])
def test_what_is_no_id_is_refused(huey, bad):
    with pytest.raises(ConfigurationError, match='task_id'):
        huey.retry_dead(bad)
    with pytest.raises(ConfigurationError, match='task_id'):
        huey.purge_dead(bad)


def test_a_task_that_may_run_only_once_is_lost_with_its_consumer_and_says_so(huey):
    @huey.task(name='charge', at_most_once=True)
    def charge():
        raise AssertionError('not to be run')

    result = charge()
    die(huey, 1)
    with pytest.raises(TaskLost, match='may run only once'):
        result.get(blocking=True, timeout=5)
    assert [letter.id for letter in huey.dead()] == [result.task_id]
    assert drain(huey) == []


def test_a_task_that_may_run_only_once_is_retried_when_it_fails(huey):
    runs = []

    @huey.task(name='charge', at_most_once=True, retries=1)
    def charge():
        runs.append(1)
        if len(runs) == 1:
            raise ValueError('the first time')
        return 'done'

    result = charge()
    drain(huey)
    assert result.get(blocking=True, timeout=5) == 'done'
