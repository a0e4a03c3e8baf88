"""Bugs that the exploration cannot see, because it has neither native threads nor sockets: each with a check of its own."""

from __future__ import annotations

import socket
import sys
import time
import types

import gevent
import pytest

from geventhuey.clock import SyncedClock
from geventhuey.consumer.component import Outage
from geventhuey.exceptions import StorageOutcomeUnknown
from geventhuey.lease import Lease
from geventhuey.storage.memory import MemoryStorage
from tests.faults.consumer_copy import Bug, executed, text_of, with_bug
from tests.storage.kit import in_thread

FROM_THE_HUB = Bug('the heartbeat is a greenlet', 'consumer.heartbeat',
                   'native.start_thread(self._run)\n\n    def stop(self) -> None:\n        """It beats no more',
                   'gevent.spawn(self._run)\n\n    def stop(self) -> None:\n        """It beats no more')
KEPT = Bug('a connection is used again after an error', 'storage.redis.connection',
           '        self.close()\n        while requests:', '        while requests:')


SWALLOWS = Bug('a full fetcher swallows the token that it had', 'consumer.fetcher',
               '            self._is_due_soon = False\n            self._storage.wake(self._queues)',
               '            self._is_due_soon = False')


def module_of(name: str, bug: Bug | None) -> types.ModuleType:
    try:
        return executed('mutated', text_of(name) if bug is None else with_bug(bug))
    finally:
        del sys.modules['mutated']


def beats_while_the_hub_is_blocked(bug: Bug | None, seconds: float) -> bool:
    storage, lease = MemoryStorage('beats'), Lease()
    lease.register(storage)
    before = storage.consumers()
    heartbeat = module_of('consumer.heartbeat', bug).Heartbeat(storage, lease, 0.02, SyncedClock(), None, None)
    heartbeat.start()
    try:
        deadline = time.monotonic() + seconds
        while storage.consumers() == before and time.monotonic() < deadline:
            time.sleep(0.01)            # of the thread: no greenlet goes on
        return storage.consumers() != before
    finally:
        heartbeat.stop()


def answer_after_a_late_one(bug: Bug | None) -> bytes:
    servers: list[socket.socket] = []

    def connect() -> socket.socket:
        ours, server = socket.socketpair()
        server.sendall(b'+second\r\n' if servers else b'+hello\r\n')
        servers.append(server)
        return ours

    line = module_of('storage.redis.connection', bug).SharedLink(connect)
    try:
        line.call([('ECHO', 'hello')])      # used a moment ago, it is not looked at before it is used again
        with pytest.raises(StorageOutcomeUnknown):
            line.call([('ECHO', 'first')], timeout=0.02)
        try:
            servers[0].sendall(b'+first\r\n')
        except OSError:
            pass
        return line.call([('ECHO', 'second')])[0]
    finally:
        line.close()
        for server in servers:
            server.close()


def test_a_blocked_hub_does_not_keep_the_heartbeat_from_beating():
    # in a thread of its own: the bug closes the hub of the one that it runs in
    assert in_thread(beats_while_the_hub_is_blocked, None, 30.0).result(60)
    assert not in_thread(beats_while_the_hub_is_blocked, FROM_THE_HUB, 0.3).result(60)


def token_of_a_full_fetcher(bug: Bug | None) -> bool:
    """Whether the token is there for somebody else, of which a fetcher has heard that has no worker free."""
    storage, lease = MemoryStorage('token'), Lease()
    lease.register(storage)
    pool = types.SimpleNamespace(free=lambda: 1)
    fetcher = module_of('consumer.fetcher', bug).Fetcher(storage, storage, lease, pool, {'default': 1}, lambda: False, lambda: ((2, 1),),
                                                         lambda delivery: None, Outage())
    fetcher.look()
    pool.free = lambda: 0
    fetcher.freed()
    with gevent.Timeout(0.05, False):       # it waits for a worker
        fetcher.run_once()
    return storage.wait_wake(['default'], 0.0)


def test_a_full_fetcher_gives_the_token_back_that_it_had():
    assert in_thread(token_of_a_full_fetcher, None).result(60)
    assert not in_thread(token_of_a_full_fetcher, SWALLOWS).result(60)


def test_a_late_answer_is_not_taken_for_that_of_the_next_request():
    assert answer_after_a_late_one(None) == b'second'
    assert answer_after_a_late_one(KEPT) == b'first'
