"""Messages of a version that is not known here, and readers of results that die or give up: nothing disappears."""

from __future__ import annotations

import signal
import sys

import pytest

from geventhuey import DataStoreTimeout, ResultConsumed
from geventhuey.message import VERSION, WANTS_RESULT

READER = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.consumer.apps.work import make_huey
print('reads', flush=True)
make_huey().result(sys.argv[2], blocking=True)
"""

DYING = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from geventhuey.storage.redis.storage import RedisStorage
from tests.consumer.apps.work import make_huey
script = RedisStorage._script
def dying(self, name, *args, **kwargs):
    if name == 'result' and sys.argv[3] == 'before':
        os.kill(os.getpid(), signal.SIGKILL)
    answer = script(self, name, *args, **kwargs)
    if name == 'result':
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
RedisStorage._script = dying
make_huey().result(sys.argv[2], blocking=True)
"""


def test_messages_of_a_newer_version_are_kept_as_they_are_and_counted(trial):
    newer = []
    trial.start('-w', '10')
    for _ in range(30):
        whole = trial.huey.registry.message(trial.task('add', 1, 2), WANTS_RESULT).encode()
        newer.append(bytes((VERSION + 1,)) + whole[1:])
        trial.redis.rpush(trial.keys.queue('default'), newer[-1])
        trial.give()
    trial.wait_ended(30)
    trial.wait_idle()
    assert sorted(trial.huey.storage.malformed()) == sorted(newer)
    assert trial.huey.storage.counters()['malformed'] == 30
    trial.judge_once(kept={'malformed'})


def test_a_reader_that_is_killed_while_it_waits_leaves_the_result_to_the_next(trial):
    result = trial.give()
    reader = trial.run(sys.executable, '-c', READER, str(trial.folder), result.task_id)
    reader.wait_for('reads')
    reader.kill()
    trial.start('-w', '2')
    trial.wait_ended(1)
    trial.judge_once()          # which reads the result


def test_a_reader_that_gives_up_leaves_the_result_to_the_next_time(trial):
    result = trial.give()
    with pytest.raises(DataStoreTimeout):
        result.get(blocking=True, timeout=0.2)
    trial.start('-w', '2')
    trial.judge_once()


def test_a_reader_that_is_killed_between_reading_and_deleting_leaves_the_result_to_the_next(trial):
    result = trial.give()
    trial.start('-w', '2')
    trial.wait_idle()
    assert trial.run(sys.executable, '-c', DYING, str(trial.folder), result.task_id, 'before').wait() == -signal.SIGKILL
    trial.judge_once()


def test_a_reader_that_is_killed_after_deleting_has_read_the_result(trial):
    result = trial.give()
    trial.start('-w', '2')
    trial.wait_idle()
    assert trial.run(sys.executable, '-c', DYING, str(trial.folder), result.task_id, 'after').wait() == -signal.SIGKILL
    with pytest.raises(ResultConsumed):
        trial.results.pop(result.task_id).get(blocking=True, timeout=10)
    trial.judge_once()
