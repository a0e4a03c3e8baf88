"""Redis is full, read-only, loading, busy, paused, locked, out of connections, or back in time: everybody goes on when it does."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
import redis

from geventhuey import QueueWriteException, RedisHuey
from geventhuey.testing.redis_server import RedisServer
from tests.consumer.kit import CHECKOUT, Program, wait_until
from tests.faults.kit import Trial


def working(trial: Trial, *options: str) -> Program:
    """A consumer that has shown that it works."""
    program = trial.start('-w', '20', *options, lease=4)
    trial.give_many(20, 0.0)
    trial.wait_ended(20)
    return program


def check_back(trial: Trial, program: Program) -> None:
    """It works as before, has said so once, and nothing has run twice."""
    trial.give_many(20, 0.0)
    trial.said_once(program)
    assert not program.lines('is dead') + program.lines('taken for dead')
    trial.judge_once()


# -- not now ------------------------------------------------------------------------------------------------------

def read_only(trial: Trial, server: RedisServer) -> None:
    server.command('REPLICAOF', '127.0.0.1', '1')


def writable(trial: Trial, server: RedisServer) -> None:
    server.command('REPLICAOF', 'NO', 'ONE')


def without_replicas(trial: Trial, server: RedisServer) -> None:
    server.command('CONFIG', 'SET', 'min-replicas-to-write', '1')


def with_replicas(trial: Trial, server: RedisServer) -> None:
    server.command('CONFIG', 'SET', 'min-replicas-to-write', '0')


def disk_broken(trial: Trial, server: RedisServer) -> None:
    (server.directory / 'taken').mkdir(exist_ok=True)
    server.command('CONFIG', 'SET', 'save', '3600 1')
    server.command('CONFIG', 'SET', 'dbfilename', 'taken')      # a folder: nothing can be written there
    server.command('BGSAVE')
    wait_until(lambda: b'rdb_last_bgsave_status:err' in server.command('INFO', 'persistence'))


def disk_mended(trial: Trial, server: RedisServer) -> None:
    server.command('CONFIG', 'SET', 'dbfilename', 'dump.rdb')
    server.command('CONFIG', 'SET', 'save', '')


def busy(trial: Trial, server: RedisServer) -> None:
    server.command('CONFIG', 'SET', 'lua-time-limit', '50')

    def spin() -> None:
        try:
            server.command('EVAL', 'while true do end', '0', timeout=30)
        except OSError:
            pass
    threading.Thread(target=spin, daemon=True).start()
    wait_until(lambda: server.command('PING').startswith(b'BUSY'))


def idle(trial: Trial, server: RedisServer) -> None:
    server.command('SCRIPT', 'KILL')


STATES = {
    'READONLY': (read_only, writable, '(READONLY|UNBLOCKED)'),
    'NOREPLICAS': (without_replicas, with_replicas, 'NOREPLICAS'),
    'MISCONF, a full disk': (disk_broken, disk_mended, 'MISCONF'),
    'BUSY': (busy, idle, 'BUSY'),
}


@pytest.mark.parametrize('state', STATES)
def test_a_server_that_cannot_serve_now_is_waited_for(fragile_trial, victim, state):
    trial = fragile_trial
    begin, end, word = STATES[state]
    program = working(trial)
    trial.give_many(10, 1.0)
    trial.wait_started(30)
    begin(trial, victim)
    with pytest.raises(QueueWriteException, match=word):
        trial.huey.enqueue(trial.task('trial', 0.0, 0))     # the way there stands, and nobody has been cut off
    program.wait_for(f'the storage is away.*{word}')
    wait_until(lambda: sum(run.how == 'end' for runs in trial.runs().values() for run in runs) == 30)     # what runs, runs on
    end(trial, victim)
    check_back(trial, program)


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['ALL', 'WRITE'])
def test_a_server_that_holds_its_clients_for_longer_than_the_lease_costs_nothing(fragile_trial, victim, mode):
    trial = fragile_trial
    program = working(trial)
    other = trial.start('-w', '20', lease=4)
    trial.give_many(40, 1.0)
    trial.wait_started(60)
    victim.command('CLIENT', 'PAUSE', '9000', mode)
    program.wait_for('the storage is away')
    trial.wait_ended(60)
    wait_until(lambda: program.lines('the storage is back'))
    trial.give_many(20, 0.0)
    assert not [line for each in (program, other) for line in each.lines('is dead') + each.lines('taken for dead')]
    trial.judge_once()


def test_a_server_that_loads_its_data_is_waited_for(tmp_path: Path):
    with RedisServer(appendonly=True, extra=['--key-load-delay', '0']) as server:
        trial = Trial(server.url, tmp_path)
        try:
            program = working(trial)
            for n in range(2000):
                trial.redis.set(f'other:{n}', n)
            server.command('BGREWRITEAOF')
            wait_until(lambda: b'aof_rewrite_in_progress:0' in server.command('INFO', 'persistence'))
            trial.give_many(10, 1.0)
            trial.wait_started(30)
            server.kill()
            server.extra = ('--key-load-delay', '1500')
            starting = threading.Thread(target=server.start)
            starting.start()
            program.wait_for('the storage is away')
            with pytest.raises(QueueWriteException, match='LOADING|reached|lost'):
                trial.huey.enqueue(trial.task('trial', 0.0, 0))
            starting.join(60)
            check_back(trial, program)
        finally:
            trial.close()


# -- full ---------------------------------------------------------------------------------------------------------

def test_when_memory_is_full_producers_are_told_at_once_and_consumers_drain_it(fragile_trial, victim):
    trial = fragile_trial
    trial.give_many(200, 0.01)
    victim.command('CONFIG', 'SET', 'maxmemory', '100kb')
    begun = time.monotonic()
    with pytest.raises(QueueWriteException, match=r'out of memory \(maxmemory\)'):
        trial.huey.enqueue(trial.task('trial', 0.0, 0))
    assert time.monotonic() - begun < 5
    program = trial.start('-w', '20', lease=4)
    trial.wait_ended(200)
    assert 'is away' not in program.text()
    victim.command('CONFIG', 'SET', 'maxmemory', '0')
    trial.give_many(20, 0.0)
    trial.judge_once()


def test_an_eviction_policy_that_throws_tasks_away_is_warned_of(fragile_trial, victim):
    victim.command('CONFIG', 'SET', 'maxmemory', '100mb')
    victim.command('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru')
    program = fragile_trial.start('-w', '2')
    program.wait_for('WARNING.*maxmemory-policy is allkeys-lru: .* set maxmemory-policy noeviction')
    fragile_trial.give_many(5)
    fragile_trial.judge_once()


# -- connections --------------------------------------------------------------------------------------------------

def test_a_server_without_free_connections_is_waited_for(fragile_trial, victim):
    trial = fragile_trial
    program = working(trial)
    keeper = redis.Redis.from_url(victim.url)
    keeper.ping()
    keeper.config_set('maxclients', 1)
    keeper.execute_command('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    trial.huey.close()
    with pytest.raises(QueueWriteException, match='max number of clients'):
        trial.huey.enqueue(trial.task('trial', 0.0, 0))
    program.wait_for('the storage is away')
    late = trial.start('-w', '2', ready=False)
    late.wait_for('the storage is away.*max number of clients')
    keeper.config_set('maxclients', 10000)
    keeper.close()
    check_back(trial, program)


def test_connections_that_are_killed_at_random_cost_nothing(fragile_trial, victim):
    trial = fragile_trial
    programs = [trial.start('-w', '20', lease=4) for _ in range(2)]
    killer = redis.Redis.from_url(victim.url)
    for n in range(60):
        trial.give_many(10, 0.02)
        clients = [client for client in killer.client_list() if client['name'].startswith('geventhuey')]
        killer.execute_command('CLIENT', 'KILL', 'ID', clients[n % len(clients)]['id'])
    trial.wait_ended(len(trial.results))
    killer.close()
    for program in programs:
        assert not program.lines('is dead') + program.lines('runs twice')
    trial.judge_once()


def test_two_thousand_greenlets_that_enqueue_at_once_do_not_disturb_the_consumer(trial, tmp_path):
    program = trial.start('-w', '50')
    script = '''
from gevent import monkey; monkey.patch_all()
import gevent, os, sys
from tests.consumer.apps.work import make_huey
huey = make_huey()
cls = next(cls for cls in huey.registry if cls.task_name == 'trial')
jobs = [gevent.spawn(huey.enqueue, cls(((0.0, 0), {}), f'task-{n}', None, 2, 0)) for n in range(2000)]
gevent.joinall(jobs, raise_error=True)
print(sum('geventhuey' in client['name'] and client['name'].endswith('producer') for client in __import__('redis').Redis.from_url(
    os.environ['WORK_URL']).client_list()), 'connections')
'''
    for n in range(2000):
        trial.history.sent(f'task-{n}')
    producer = trial.run(sys.executable, '-c', script, cwd=CHECKOUT)
    assert producer.wait(60) == 0, producer.text()
    assert producer.lines('1 connections') or producer.lines('2 connections'), producer.text()
    trial.judge_once()
    assert 'is away' not in program.text()


# -- passwords ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(('user', 'word'), [(':wrong-secret', 'password|WRONGPASS'), ('', 'NOAUTH|Authentication'),
                                            ('small:small-secret', 'NOPERM|permission')])
def test_who_is_not_let_in_at_the_start_is_told_in_a_line_and_ends(tmp_path, user, word):
    with RedisServer(extra=['--requirepass', 'the-secret']) as server:
        admin = redis.Redis.from_url(f'redis://:the-secret@127.0.0.1:{server.port}/0')
        admin.execute_command('ACL', 'SETUSER', 'small', 'on', '>small-secret', '+ping', '+client', '+select', '+info', '~*')
        trial = Trial(f'redis://{user}{"@" if user else ""}127.0.0.1:{server.port}/0', tmp_path)
        try:
            program = trial.start('-w', '2', ready=False)
            if user.startswith('small'):
                program.wait_for('the storage is away.*(NOPERM|permission)')
                program.signal()
                assert program.wait() == 0
            else:
                assert program.wait() == 78
                assert len([line for line in program.text().splitlines() if line.startswith('geventhuey-consumer:')]) == 1
            assert 'secret' not in program.text().replace('wrong-secret@', '')
            assert 'Traceback' not in program.text()
        finally:
            trial.close()
            admin.close()


# -- back in time -------------------------------------------------------------------------------------------------

def test_a_server_that_comes_back_as_it_was_before_loses_only_what_came_since(fragile_trial, victim, tmp_path):
    """Its append-only file is that of an earlier moment: what was settled since is in flight again, and is run again or forgotten."""
    trial = fragile_trial
    program = trial.start('-w', '20', lease=4)
    trial.give_many(10, 3.0)
    trial.wait_started(10)
    copy = tmp_path / 'earlier'
    source = victim.directory / ('appendonlydir' if (victim.directory / 'appendonlydir').exists() else 'appendonly.aof')
    wait_until(lambda: trial.in_flight() == 10)
    time.sleep(1.2)             # until everything is on the disk: everysec
    (shutil.copytree if source.is_dir() else shutil.copy)(source, copy)
    early = set(trial.results)
    began = time.time()
    trial.give_many(20, 0.0)
    trial.wait_ended(20)
    late = set(trial.results) - early
    victim.kill()
    shutil.rmtree(source) if source.is_dir() else os.remove(source)
    (shutil.copytree if copy.is_dir() else shutil.copy)(copy, source)
    victim.restart()
    trial.wait_ended(30)
    trial.give_many(20, 0.0)
    trial.wait_ended(50)
    for task_id in late:                # their results are gone with the rest
        del trial.results[task_id]
    trial.history.fault('rollback', None, began, time.time(), early | late)
    trial.judge(bound=90)
    assert program.process.poll() == 0


def test_an_empty_server_forgets_everything_and_everybody_goes_on(tmp_path):
    with RedisServer() as server:
        trial = Trial(server.url, tmp_path)
        try:
            program = trial.start('-w', '20', lease=4)
            trial.give_many(10, 2.0)
            trial.wait_started(10)
            server.kill()
            program.wait_for('the storage is away')
            server.restart()
            trial.wait_ended(10)        # they ran on; their results had no place to go to
            trial.results.clear()
            trial.give_many(20, 0.0)
            trial.said_once(program)
            trial.judge_once()
        finally:
            trial.close()


def test_a_name_is_told_apart_from_a_password_in_every_line(tmp_path):
    huey = RedisHuey('app', url='redis://user:the-secret@127.0.0.1:1/0')
    assert 'the-secret' not in f'{huey!r} {huey.storage.describe()}'
    with pytest.raises(QueueWriteException) as info:
        huey.enqueue(huey.task(name='t')(lambda: None).task_class(((), {})))
    assert 'the-secret' not in str(info.value)
