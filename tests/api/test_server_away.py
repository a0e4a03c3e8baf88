"""Redis that is away, hangs, asks for a password, or comes back."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest
import redis

from geventhuey import DataStoreTimeout, EnqueueOutcomeUnknown, RedisHuey
from geventhuey.exceptions import (
    DataStoreGetException,
    QueueReadException,
    QueueWriteException,
    StorageRefused,
    StorageUnavailable,
)
from geventhuey.testing import RedisServer, drain
from tests.api.kit import BOUND, InThread, program_environment, run_python, said, wait_until, write


@pytest.fixture
def server():
    """A server of this test's own, to be killed."""
    with RedisServer(appendonly=True) as server:
        yield server


def define(url, **settings):
    huey = RedisHuey('app', url=url, **settings)

    @huey.task(name='echo')
    def echo(value):
        return value

    return huey, echo


# -- away -----------------------------------------------------------------------------------------------------------

def test_a_producer_fails_within_about_a_second(server):
    _, echo = define(server.url)
    echo(1)
    server.kill()
    with pytest.raises(QueueWriteException):        # its connection was there a moment ago: the outcome may be unknown
        echo(2)
    begun = time.monotonic()
    with pytest.raises(QueueWriteException, match='cannot be reached') as raised:
        echo(3)
    assert time.monotonic() - begun < 2.5
    assert not isinstance(raised.value, EnqueueOutcomeUnknown)
    assert isinstance(raised.value.__cause__, StorageUnavailable)


def test_a_producer_that_never_reached_it_fails_alike():
    _, echo = define('redis://127.0.0.1:1/0')
    begun = time.monotonic()
    with pytest.raises(QueueWriteException, match=re.escape('Redis at redis://127.0.0.1:1/0 cannot be reached')):
        echo(1)
    assert time.monotonic() - begun < 2.5


def test_a_short_absence_is_not_noticed(server):
    huey, echo = define(server.url)
    echo(1)
    server.restart()
    result = echo(2)
    drain(huey)
    assert result() == 2


def test_looking_fails_too():
    huey, _ = define('redis://127.0.0.1:1/0')
    with pytest.raises(DataStoreGetException):
        huey.result('x')
    with pytest.raises(QueueReadException):
        huey.dequeue()


def test_who_begins_to_wait_while_it_is_away_is_told():
    huey, _ = define('redis://127.0.0.1:1/0')
    begun = time.monotonic()
    with pytest.raises((DataStoreGetException, DataStoreTimeout)):
        huey.result('x', blocking=True, timeout=0.2)
    assert time.monotonic() - begun < 5


def test_what_was_enqueued_is_there_when_it_comes_back(server):
    huey, echo = define(server.url)
    results = [echo(number) for number in range(10)]
    server.restart()
    drain(huey)
    assert [result() for result in results] == list(range(10))


def test_who_waits_while_it_goes_away_gets_the_value_when_it_is_back(server):
    huey, echo = define(server.url)
    result = echo('a value')
    thread = InThread(lambda: result.get(blocking=True, timeout=BOUND))
    wait_until(lambda: redis.Redis.from_url(server.url).pubsub_channels())
    server.restart()
    drain(huey)
    assert thread.result() == 'a value'


def test_an_error_does_not_show_the_password():
    _, echo = define('redis://user:secret@127.0.0.1:1/0')
    with pytest.raises(QueueWriteException) as raised:
        echo(1)
    error = raised.value
    while error is not None:
        assert 'secret' not in str(error)
        error = error.__cause__ or error.__context__


# -- there, but silent ----------------------------------------------------------------------------------------------

def test_a_server_that_does_not_answer_any_more_leaves_the_outcome_open(server, monkeypatch):
    from geventhuey.storage.redis import connection
    monkeypatch.setattr(connection, 'ANSWER_TIMEOUT', 0.3)
    monkeypatch.setattr(connection.SharedLink.call, '__defaults__', (0.3,))
    huey, echo = define(server.url)
    echo(1)
    server.pause()
    try:
        begun = time.monotonic()
        with pytest.raises(EnqueueOutcomeUnknown) as raised:
            echo(2)
        assert time.monotonic() - begun < 3
    finally:
        server.resume()
    assert raised.value.task_id
    wait_until(lambda: huey.pending_count() == 2)
    assert {task.task_id for task in huey.pending()} >= {raised.value.task_id}


# -- passwords ------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def guarded():
    """A server that asks for a password."""
    with RedisServer(extra=['--requirepass', 'the-password']) as server:
        yield server


def at(server, login=''):
    return f'redis://{login}127.0.0.1:{server.port}/0'


def test_the_right_password_lets_in(guarded):
    huey, echo = define(at(guarded, ':the-password@'))
    result = echo(1)
    drain(huey)
    assert result.get(blocking=True, timeout=BOUND) == 1


@pytest.mark.parametrize('login', ['', ':wrong-secret@', 'nobody:wrong-secret@'], ids=['none', 'wrong', 'unknown user'])
def test_a_wrong_password_is_told_at_once_and_not_shown(guarded, login):
    huey, echo = define(at(guarded, login))
    begun = time.monotonic()
    with pytest.raises(QueueWriteException, match='refuses') as raised:
        echo(1)
    assert time.monotonic() - begun < 1
    assert isinstance(raised.value.__cause__, StorageRefused)
    assert 'wrong-secret' not in str(raised.value)
    with pytest.raises(DataStoreGetException, match='refuses'):
        huey.result('x')
    with pytest.raises(DataStoreGetException, match='refuses'):
        huey.result('x', blocking=True, timeout=0.2)


# -- a full server --------------------------------------------------------------------------------------------------

def test_a_full_server_refuses_tasks_and_says_why(server):
    huey, echo = define(server.url)
    echo(1)
    server.command('CONFIG', 'SET', 'maxmemory', '1')
    with pytest.raises(QueueWriteException, match='out of memory'):
        echo(2)
    assert huey.pending_count() == 1
    server.command('CONFIG', 'SET', 'maxmemory', '0')
    echo(3)
    assert huey.pending_count() == 2


# -- a user who may not do everything -------------------------------------------------------------------------------

@pytest.fixture
def without_channels(server):
    """The URL of a user who may touch every key and no channel: what ``ACL SETUSER`` makes since Redis 7, if told no more."""
    assert server.command('ACL', 'SETUSER', 'worker', 'on', '>word', '~*', '+@all', 'resetchannels') == b'OK'
    return at(server, 'worker:word@')


def test_a_user_who_may_not_subscribe_is_told_so_now_and_then(without_channels, caplog):
    huey, _ = define(without_channels)
    with caplog.at_level('INFO', 'geventhuey'), pytest.raises(DataStoreTimeout):
        huey.result('x', blocking=True, timeout=1.0)
    assert 1 <= len(caplog.records) <= 5


def test_a_user_who_may_not_publish_loses_no_task(without_channels):
    huey, echo = define(without_channels)
    result = echo(1)
    assert len(drain(huey)) == 1
    assert result.get() == 1
    assert any('not pushed' in warning for warning in huey.storage.check()[1])


# -- the end of a program -------------------------------------------------------------------------------------------

def test_a_program_whose_server_is_gone_ends_all_the_same(server, tmp_path):
    write(tmp_path, 'program.py', f'''
        import sys
        from geventhuey import RedisHuey
        huey = RedisHuey('app', url='{server.url}')

        @huey.task(name='echo')
        def echo(value):
            return value

        echo(1)
        huey.dequeue()
        print('taken', flush=True)
        sys.stdin.read()
    ''')
    program = subprocess.Popen([sys.executable, 'program.py'], cwd=tmp_path, env=program_environment(), stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout.readline() == 'taken\n'
    server.kill()
    begun = time.monotonic()
    program.communicate(timeout=BOUND)
    assert time.monotonic() - begun < 5


def test_a_program_that_ends_gives_back_what_it_had_taken(server, tmp_path):
    write(tmp_path, 'program.py', f'''
        from geventhuey import RedisHuey
        huey = RedisHuey('app', url='{server.url}')

        @huey.task(name='echo')
        def echo(value):
            return value

        echo(1)
        print(huey.dequeue().data)
    ''')
    assert said(run_python(['program.py'], tmp_path)) == '((1,), {})'
    huey, _ = define(server.url)
    assert huey.pending_count() == 1
    assert huey.storage.consumers() == {}
