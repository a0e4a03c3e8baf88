"""Redis behind a Unix socket, and nothing else: producers, consumers of both kinds, results, events; and its end and return."""

from __future__ import annotations

import pytest

from geventhuey.exceptions import QueueWriteException
from geventhuey.testing.redis_server import RedisServer
from tests.consumer.kit import Work, wait_until
from tests.faults.reach import AWAY, check_said


@pytest.fixture
def server():
    with RedisServer(appendonly=True, unix_socket=True) as server:
        yield server


@pytest.mark.parametrize('kind', ['greenlet', 'thread'])
def test_everything_works_over_a_unix_socket(server, tmp_path, kind):
    work = Work(server.unix_url, tmp_path)
    try:
        events = iter(work.huey.storage)
        consumer = work.consume('-k', kind, '-w', '20')
        results = [work.send('rest', n, 0.05) for n in range(50)]
        assert [result.get(blocking=True, timeout=30) for result in results] == [n * 10 for n in range(50)]
        assert next(event for event in events if event['status'] == 'finished')
        clients = [client for client in work.redis.client_list() if client['name'].startswith('geventhuey')]
        assert clients and {client['addr'] for client in clients} == {f'{server.unix_socket_path}:0'}
        server.kill()
        consumer.wait_for(AWAY)
        work.huey.close()           # what it has is gone, too, and perhaps only just
        with pytest.raises(QueueWriteException, match=f'unix://{server.unix_socket_path}'):
            work.send('add', 1, 2)
        server.restart()
        assert wait_until(lambda: work.send('add', 1, 2)).get(blocking=True, timeout=30) == 3
        check_said(consumer)
        assert consumer.stop() == 0
    finally:
        work.close()
