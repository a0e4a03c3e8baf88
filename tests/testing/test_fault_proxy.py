"""The proxy that injects faults: each one as a bare socket and as a storage sees it, in front of a real Redis."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from geventhuey.exceptions import StorageOutcomeUnknown
from geventhuey.storage.redis import RedisStorage
from geventhuey.testing.fault_proxy import KINDS, FaultProxy
from geventhuey.testing.redis_server import RedisServer
from tests.storage.kit import BOUND, eventually, ids, in_thread, messages

PING, PONG = b'PING\r\n', b'+PONG\r\n'
#: Seconds in which what passes at all has long passed.
SOON = 0.5


class Client:
    """A bare connection."""

    def __init__(self, proxy: FaultProxy, role: str = '') -> None:
        self.sock = socket.create_connection(('127.0.0.1', proxy.port), BOUND)
        if role:
            assert self.ask(b'CLIENT SETNAME x\r\n') == b'+OK\r\n'
            name = f'geventhuey:app:{role}'
            assert self.ask(f'*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n${len(name)}\r\n{name}\r\n'.encode()) == b'+OK\r\n'

    def ask(self, request: bytes = PING) -> bytes:
        """What comes back at once; b'' for the end."""
        self.sock.sendall(request)
        return self.sock.recv(65536)

    def rest(self) -> bytes:
        """All that comes until the end."""
        found = b''
        while data := self.sock.recv(65536):
            found += data
        return found

    def is_silent(self) -> bool:
        """Nothing comes, not even the end."""
        self.sock.settimeout(SOON)
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(BOUND)
        return False

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def proxy(redis_server: RedisServer, redis_url: str) -> Iterator[FaultProxy]:
    with FaultProxy(redis_server.port, seed=1) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy: FaultProxy) -> Iterator[object]:
    clients: list[Client] = []

    def connect(role: str = '') -> Client:
        clients.append(Client(proxy, role))
        return clients[-1]
    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def session(proxy: FaultProxy) -> Iterator[RedisStorage]:
    storage = RedisStorage('app', proxy.url)
    session = storage.session('settle')
    session.enqueue(messages('before'))         # connected, and the scripts are there
    yield session
    session.close()
    storage.close()


def value(server: RedisServer) -> bytes:
    return server.command('GET', 'n')


def queued(server: RedisServer) -> str:
    with_itself = RedisStorage('app', server.url)
    try:
        return ids(reversed(with_itself.pending('default')))
    finally:
        with_itself.close()


# -- without a fault ------------------------------------------------------------------------------------------------

def test_everything_passes_until_it_is_told_otherwise(proxy, connect, session, redis_server):
    big = b'x' * 1_000_000
    client = connect()
    client.sock.sendall(b'*3\r\n$3\r\nSET\r\n$1\r\nn\r\n$1000000\r\n' + big + b'\r\n')
    assert client.sock.recv(100) == b'+OK\r\n'
    client.sock.sendall(b'GET n\r\n')
    with client.sock.makefile('rb') as answer:
        assert answer.read(10 + 1_000_000 + 2) == b'$1000000\r\n' + big + b'\r\n'
    session.enqueue(messages('a'))
    assert queued(redis_server) == 'before a'
    assert proxy.statistics == {'connections': 2}
    assert sorted(proxy.connections()) == ['', 'settle']


def test_a_client_that_leaves_is_forgotten(proxy, connect):
    client = connect()
    assert client.ask() == PONG
    client.close()
    eventually(lambda: proxy.connections() == [])


# -- what strikes a request -----------------------------------------------------------------------------------------

def test_a_request_that_is_cut_before_does_not_reach_the_server(proxy, connect, session, redis_server):
    proxy.next('cut_before', count=2)
    for _ in range(2):
        assert connect().ask(b'INCR n\r\n') == b''
    assert connect().ask(b'INCR n\r\n') == b':1\r\n'
    proxy.next('cut_before')
    with pytest.raises(StorageOutcomeUnknown):
        session.enqueue(messages('a'))
    session.enqueue(messages('b'))
    assert queued(redis_server) == 'before b'
    assert proxy.statistics['cut_before'] == 3


def test_a_request_that_is_cut_after_has_reached_the_server(proxy, connect, session, redis_server):
    proxy.next('cut_after', count=2)
    for _ in range(2):
        assert connect().ask(b'INCR n\r\n') == b''
    assert connect().ask(b'INCR n\r\n') == b':3\r\n'
    proxy.next('cut_after')
    with pytest.raises(StorageOutcomeUnknown):
        session.enqueue(messages('a'))
    session.enqueue(messages('b'))
    assert queued(redis_server) == 'before a b'
    assert proxy.statistics['cut_after'] == 3


def test_a_reset_is_felt_as_one(proxy, connect, session, redis_server):
    proxy.next('reset')
    with pytest.raises(ConnectionResetError):
        connect().ask(b'INCR n\r\n')
    proxy.next('reset')
    with pytest.raises(StorageOutcomeUnknown):
        session.enqueue(messages('a'))
    assert redis_server.command('INCR', 'n') == b'1'
    assert queued(redis_server) == 'before'
    assert proxy.statistics['reset'] == 2


def test_a_request_in_many_pieces_is_one(proxy, connect, redis_server):
    request = b'*3\r\n$3\r\nSET\r\n$1\r\nn\r\n$1000000\r\n' + b'x' * 1_000_000 + b'\r\n'
    proxy.next('cut_after', spare=1)
    client = connect()
    assert client.ask(request) == b'+OK\r\n'
    assert client.ask(b'STRLEN n\r\n') == b''
    proxy.next('cut_after', count=2)
    assert connect().ask(request) == b''
    assert proxy.statistics['cut_after'] == 2


def test_so_many_pass_before(proxy, connect):
    proxy.next('cut_before', spare=2)
    client = connect()
    assert [client.ask(), client.ask(), client.ask()] == [PONG, PONG, b'']


# -- what strikes an answer -----------------------------------------------------------------------------------------

def test_the_beginning_of_a_truncated_answer_passes(proxy, connect, session):
    for keep in (0, 1, 4, 100):
        proxy.next('truncate', keep=keep)
        client = connect()
        client.sock.sendall(PING)
        assert client.rest() == PONG[:min(keep, len(PONG) - 1)]
    proxy.next('truncate', keep=2)
    with pytest.raises(StorageOutcomeUnknown):
        session.enqueue(messages('a'))
    assert proxy.statistics['truncate'] == 5


def test_a_garbled_answer_is_no_answer(proxy, connect, session, redis_server):
    proxy.next('garble')
    assert connect().ask().startswith(b'HTTP/1.1 400')
    proxy.next('garble')
    with pytest.raises(StorageOutcomeUnknown, match='not the Redis protocol'):
        session.enqueue(messages('a'))
    session.enqueue(messages('b'))
    assert queued(redis_server) == 'before a b'
    assert proxy.statistics['garble'] == 2


def test_an_answer_can_be_edited(proxy, connect):
    proxy.edit = lambda data: data.replace(b'PONG', b'PANG')
    assert connect().ask() == b'+PANG\r\n'


# -- half open ------------------------------------------------------------------------------------------------------

def test_what_is_held_goes_on_when_it_is_released(proxy, connect, redis_server):
    client = connect()
    assert client.ask() == PONG
    proxy.hold()
    client.sock.sendall(b'INCR n\r\n')
    assert client.is_silent() and value(redis_server) == b'-1'
    later = connect()
    later.sock.sendall(PING)
    assert later.is_silent()
    proxy.release()
    assert client.sock.recv(100) == b':1\r\n'
    assert later.sock.recv(100) == PONG
    assert proxy.statistics['hold'] == 1


def test_an_answer_is_held_as_well(proxy, connect):
    client = connect()
    client.sock.sendall(b'BLPOP list 0\r\n')
    eventually(lambda: proxy.connections() == [''])
    other = connect()
    assert other.ask() == PONG
    proxy.hold()
    with socket.create_connection(('127.0.0.1', proxy.target)) as direct:
        direct.sendall(b'RPUSH list x\r\n')
        assert direct.recv(100) == b':1\r\n'
    assert client.is_silent()
    proxy.release()
    assert client.sock.recv(100).endswith(b'x\r\n')


def test_of_what_is_dropped_nothing_arrives(proxy, connect, redis_server):
    clients = [connect() for _ in range(20)]
    proxy.hold()
    for client in clients:
        client.sock.sendall(b'INCR n\r\n')
    assert clients[-1].is_silent()
    proxy.release(drop=True)
    assert [client.rest() for client in clients] == [b''] * 20
    eventually(lambda: proxy.connections() == [])
    assert value(redis_server) == b'-1'
    assert connect().ask(b'INCR n\r\n') == b':1\r\n'


def test_while_it_is_held_neither_side_hears_that_the_other_has_left(proxy, connect, redis_server):
    leaver, left = connect('leaver'), connect('left')
    name = b'name=geventhuey:app:leaver'
    proxy.hold()
    leaver.close()
    redis_server.command('CLIENT', 'KILL', 'ID', left_id(redis_server, 'left'))
    assert left.is_silent()
    assert name in redis_server.command('CLIENT', 'LIST')
    proxy.release()
    assert left.rest() == b''
    eventually(lambda: name not in redis_server.command('CLIENT', 'LIST'))


def left_id(server: RedisServer, role: str) -> str:
    [line] = [line for line in server.command('CLIENT', 'LIST').decode().splitlines() if f'name=geventhuey:app:{role}' in line]
    return line.split()[0].removeprefix('id=')


def test_a_session_over_a_half_open_connection_gives_up_and_goes_on_later(proxy, session, redis_server):
    proxy.hold('settle')
    with pytest.raises(StorageOutcomeUnknown):
        session.enqueue(messages('a'))          # waits for as long as it waits for any answer
    proxy.release(drop=True)
    session.enqueue(messages('b'))
    assert queued(redis_server) == 'before b'


# -- slow -----------------------------------------------------------------------------------------------------------

def test_latency_is_paid_once_for_each_request(proxy, connect, session):
    client = connect()
    proxy.latency, proxy.jitter = 0.2, 0.05
    began = time.monotonic()
    for _ in range(5):
        assert client.ask() == PONG
    assert 0.75 <= time.monotonic() - began < 1.75, 'twice as long: it was paid on the way back as well'
    began = time.monotonic()
    session.enqueue(messages('a'))
    assert time.monotonic() - began >= 0.15


@pytest.mark.parametrize('direction', ['request', 'answer'])
def test_a_throttled_connection_carries_so_many_bytes_per_second(proxy, connect, direction, redis_server):
    client = connect()
    redis_server.command('SET', 'n', 'x' * 20_000)
    proxy.throttle = 20_000
    began = time.monotonic()
    if direction == 'request':
        assert client.ask(b'*2\r\n$4\r\nECHO\r\n$19000\r\n' + b'x' * 19_000 + b'\r\n')
    else:
        client.sock.sendall(b'GET n\r\n')
        with client.sock.makefile('rb') as answer:
            assert len(answer.read(20_000)) == 20_000
    assert 0.8 <= time.monotonic() - began < BOUND


# -- whom it strikes ------------------------------------------------------------------------------------------------

def test_a_fault_strikes_the_role_that_it_is_meant_for(proxy, connect, session):
    settle, fetch, nobody = connect('settle'), connect('fetch'), connect()
    proxy.next('cut_before', role='fetch')
    assert (settle.ask(), nobody.ask(), fetch.ask()) == (PONG, PONG, b'')
    proxy.hold('settle')
    assert nobody.ask() == PONG
    settle.sock.sendall(PING)
    assert settle.is_silent()
    proxy.release()
    assert settle.sock.recv(100) == PONG
    assert proxy.cut('settle') == 2
    assert settle.rest() == b'' and nobody.ask() == PONG
    assert session.pending_count('default') == 1        # it sees before it writes, and connects anew
    assert proxy.statistics['cut'] == 2


def test_what_lasts_strikes_the_role_that_it_is_meant_for(proxy, connect):
    settle, nobody = connect('settle'), connect()
    proxy.only = 'settle'
    proxy.edit = bytes.lower
    assert (settle.ask(), nobody.ask()) == (b'+pong\r\n', PONG)
    proxy.latency = 0.3
    began = time.monotonic()
    assert settle.ask()
    assert time.monotonic() - began >= 0.3
    proxy.at_random(1.0, ['cut_before'])
    assert (nobody.ask(), settle.ask()) == (PONG, b'')


def test_a_fault_that_there_is_not_is_refused(proxy):
    with pytest.raises(ValueError, match='cut_before'):
        proxy.next('fire')


# -- at random ------------------------------------------------------------------------------------------------------

def fates(server: RedisServer, seed: int) -> list[bytes]:
    """What becomes of 60 requests, one after the other, each on a connection of its own."""
    with FaultProxy(server.port, seed=seed) as proxy:
        proxy.at_random(0.3, ['cut_before', 'truncate'])
        found = []
        for _ in range(60):
            client = Client(proxy)
            client.sock.sendall(PING)
            found.append(client.sock.recv(100))
            client.close()
        proxy.at_random(0.0)
        assert Client(proxy).ask() == PONG
        assert proxy.statistics['cut_before'] + proxy.statistics['truncate'] == sum(answer != PONG for answer in found)
        assert set(proxy.statistics) == {'connections', 'cut_before', 'truncate'}
    return found


def test_faults_at_random_come_at_their_rate_and_by_their_seed(redis_server):
    first = fates(redis_server, 7)
    assert fates(redis_server, 7) == first
    assert fates(redis_server, 8) != first
    assert 10 <= sum(answer != PONG for answer in first) <= 50


def test_every_kind_comes_at_random(proxy):
    proxy.at_random(0.5)
    deadline = time.monotonic() + BOUND
    while set(KINDS) - set(proxy.statistics):
        assert time.monotonic() < deadline
        client = Client(proxy)
        try:
            client.ask()
        except ConnectionResetError:
            pass
        client.close()


# -- the server, and the proxy's own life ---------------------------------------------------------------------------

def test_new_connections_reach_another_server_when_it_is_told_to(proxy, connect, redis_server):
    first = connect()
    assert first.ask(b'SET n first\r\n') == b'+OK\r\n'
    with RedisServer() as other:
        proxy.target = other.port
        assert connect().ask(b'GET n\r\n') == b'$-1\r\n'
        assert first.ask(b'GET n\r\n') == b'$5\r\nfirst\r\n'


def test_where_nobody_listens_connections_end(proxy, connect):
    proxy.target = 1
    assert connect().rest() == b''
    eventually(lambda: proxy.connections() == [])


def test_when_it_is_closed_all_its_connections_are_and_nothing_is_left(redis_server):
    def descriptors() -> int:
        return len(os.listdir('/proc/self/fd'))
    if not os.path.isdir('/proc/self/fd'):
        pytest.skip('no /proc')
    before = descriptors()
    with FaultProxy(redis_server.port) as proxy:
        clients = [Client(proxy) for _ in range(10)]
        assert [client.ask() for client in clients] == [PONG] * 10
        proxy.hold()
        clients[0].sock.sendall(PING)
    assert [client.rest() for client in clients] == [b''] * 10
    for client in clients:
        client.close()
    eventually(lambda: descriptors() == before)
    with pytest.raises(OSError):
        Client(proxy)
    assert proxy.statistics['cut'] == 0


def test_many_clients_at_once_are_served(proxy):
    def run() -> int:
        client = Client(proxy)
        done = sum(client.ask(b'INCR n\r\n').endswith(b'\r\n') for _ in range(100))
        client.close()
        return done
    assert sum(each.result(BOUND) for each in [in_thread(run) for _ in range(20)]) == 2000
    assert threading.active_count() < 100


PATCHED = '''
from gevent import monkey; monkey.patch_all()
import socket, sys, time
import gevent
from geventhuey import native
from geventhuey.testing.fault_proxy import FaultProxy

with FaultProxy(int(sys.argv[1])) as proxy:
    def ask():
        with socket.create_connection(('127.0.0.1', proxy.port), 20) as sock:
            sock.sendall(b'PING\\r\\n')
            return sock.recv(100)
    print([each.get(20) for each in [gevent.spawn(ask) for _ in range(20)]] == [b'+PONG\\r\\n'] * 20)
    proxy.next('cut_after')
    print(ask())
    proxy.hold()
    asking = gevent.spawn(ask)
    print(asking.join(0.3), asking.ready())
    proxy.release()
    print(asking.get(20))
    # the hub is blocked, and a native thread talks through the proxy
    sock = native.original('socket', 'SocketType')(socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(20)
    sock.connect(('127.0.0.1', proxy.port))
    sock.sendall(b'PING\\r\\n')
    print(sock.recv(100))
    sock.close()
'''


def test_in_a_patched_process_it_works_even_while_the_hub_is_blocked(redis_server):
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run([sys.executable, '-c', PATCHED, str(redis_server.port)],
                           env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ['True', "b''", 'None False', r"b'+PONG\r\n'", r"b'+PONG\r\n'"]
