"""FaultProxy over TCP and over a unix socket, in processes that gevent has patched and in others."""

from __future__ import annotations

import subprocess
import sys

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from geventhuey.testing.fault_proxy import KINDS, FaultProxy
from geventhuey.testing.redis_server import RedisServer
from tests.consumer.kit import CHECKOUT


@pytest.fixture(params=['tcp', 'unix'])
def proxy(request):
    with RedisServer(unix_socket=True) as server:
        target = server.port if request.param == 'tcp' else str(server.unix_socket_path)
        with FaultProxy(target, seed=1) as proxy:
            proxy.server = server
            yield proxy


def client_of(proxy):
    return redis.Redis.from_url(proxy.url, socket_timeout=2.0, retry=Retry(NoBackoff(), 0))


@pytest.mark.parametrize(('kind', 'reaches'), [('cut_before', b'0'), ('reset', b'0'), ('cut_after', b'1'), ('truncate', b'1'),
                                               ('garble', b'1')])
def test_a_fault_strikes_once_and_what_the_server_got_is_as_its_name_says(proxy, kind, reaches):
    client = client_of(proxy)
    client.set('n', 0)
    proxy.next(kind)
    with pytest.raises(redis.RedisError):
        client.incr('n')
    assert proxy.server.command('GET', 'n') == reaches
    client.connection_pool.disconnect()
    assert client.ping()
    assert {each: proxy.statistics[each] for each in KINDS if proxy.statistics[each]} == {kind: 1}
    client.close()


def test_what_is_held_comes_late_or_not_at_all(proxy):
    client = client_of(proxy)
    client.set('n', 0)
    for drop in (True, False):
        proxy.hold()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        proxy.release(drop=drop)
        client.connection_pool.disconnect()
        assert client.ping()
    client.close()


@pytest.mark.parametrize('patch', ['', 'from gevent import monkey; monkey.patch_all()'], ids=['unpatched', 'patched'])
def test_it_serves_whether_or_not_gevent_has_patched(redis_server, redis_url, patch):
    source = f'''{patch}
import redis
from geventhuey.testing.fault_proxy import FaultProxy
with FaultProxy({redis_server.port}) as proxy:
    client = redis.Redis.from_url(proxy.url, socket_timeout=20)
    assert client.ping()
    client.close()
print('served')'''
    ended = subprocess.run([sys.executable, '-c', source], capture_output=True, text=True, timeout=60, cwd=CHECKOUT)
    assert (ended.returncode, ended.stdout.strip()) == (0, 'served'), ended.stderr
