"""The server gives way to another one, or is for a while none that may serve: nothing is lost but what it never passed on."""

from __future__ import annotations

import time

import pytest

from geventhuey import QueueWriteException
from geventhuey.testing.fault_proxy import FaultProxy
from geventhuey.testing.redis_server import RedisServer
from tests.consumer.kit import wait_until
from tests.faults.kit import Trial


@pytest.mark.slow
def test_a_replica_that_lags_behind_takes_over(victim, tmp_path):
    """What ended since the replica heard last is in flight again and runs again; what ran then and now runs once."""
    with RedisServer(appendonly=True) as replica, FaultProxy(victim.port) as link, FaultProxy(victim.port) as front:
        replica.command('REPLICAOF', '127.0.0.1', str(link.port))
        wait_until(lambda: b'master_link_status:up' in replica.command('INFO', 'replication'))
        trial = Trial(front.url, tmp_path)
        try:
            program = trial.start('-w', '40', lease=4)
            trial.give_many(10, 1.5)            # these end while the replica hears nothing
            trial.give_many(10, 6.0)            # these run on
            trial.wait_started(20)
            running = set(trial.results)
            assert victim.command('WAIT', '1', '5000') is not None
            began = time.time()
            link.hold()
            trial.give_many(20, 0.0)            # of these the replica never hears
            trial.wait_ended(30)
            unheard = set(trial.results) - running
            replica.command('REPLICAOF', 'NO', 'ONE')
            front.target = replica.port
            victim.kill()
            front.cut()
            trial.wait_ended(40)
            trial.give_many(20, 0.0)            # served by the new one
            trial.wait_ended(60)
            for task_id in unheard:
                del trial.results[task_id]
            trial.history.fault('rollback', None, began, time.time(), running | unheard)
            report = trial.judge(bound=90)
            assert not report.lost
            assert all(len(runs) == 1 for task_id, runs in trial.runs().items() if task_id not in running)
            assert 'Traceback' not in program.text()
        finally:
            trial.close()


def test_a_replica_that_has_lost_its_master_is_waited_for(fragile_trial, victim):
    trial = fragile_trial
    program = trial.start('-w', '20', lease=4)
    trial.give_many(10, 1.0)
    trial.wait_started(10)
    victim.command('CONFIG', 'SET', 'replica-serve-stale-data', 'no')
    victim.command('REPLICAOF', '127.0.0.1', '1')
    with pytest.raises(QueueWriteException, match='MASTERDOWN|READONLY'):
        trial.huey.enqueue(trial.task('trial', 0.0, 0))
    program.wait_for('the storage is away.*(MASTERDOWN|READONLY|UNBLOCKED)')       # the last one is said to who was waiting
    wait_until(lambda: b'errorstat_MASTERDOWN' in victim.command('INFO', 'errorstats'))
    trial.wait_ended(10)
    victim.command('REPLICAOF', 'NO', 'ONE')
    trial.give_many(20, 0.0)
    trial.said_once(program)
    trial.judge_once()


def test_a_cluster_node_without_slots_is_waited_for(far_trial, proxy):
    trial = far_trial
    program = trial.start('-w', '20', lease=10)
    trial.give_many(10, 1.0)
    trial.wait_started(10)
    with RedisServer(extra=['--cluster-enabled', 'yes']) as empty:
        port, proxy.target = proxy.target, empty.port
        before = proxy.statistics['connections']
        proxy.cut()
        program.wait_for('the storage is away')         # said once, with the first reason: the cut
        wait_until(lambda: b'errorstat_CLUSTERDOWN' in empty.command('INFO', 'errorstats'))
        trial.wait_ended(10)
        proxy.target = port
        proxy.cut()
    assert proxy.statistics['connections'] - before <= 100, 'it does not spin'
    trial.give_many(20, 0.0)
    trial.said_once(program)
    trial.judge_once()
