"""Redis behind TLS, with a user and a password: everything works over it, and who is not who it has to be is refused."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trustme

from geventhuey import Huey
from geventhuey.exceptions import QueueWriteException, StorageRefused, StorageUnavailable
from geventhuey.storage.redis import RedisStorage
from geventhuey.testing.redis_server import RedisServer
from tests.consumer.kit import Work, wait_until

USER, PASSWORD = 'worker', 'sesame'


@contextmanager
def terminator(port: int, context: ssl.SSLContext) -> Iterator[int]:
    """A port that takes TLS and passes what comes on to the other port, in plain."""
    listening = socket.create_server(('127.0.0.1', 0))

    def accept() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    def serve(client: socket.socket) -> None:
        try:
            with context.wrap_socket(client, server_side=True) as outer, socket.create_connection(('127.0.0.1', port)) as inner:
                back = threading.Thread(target=pump, args=(inner, outer), daemon=True)
                back.start()
                pump(outer, inner)
                back.join()
        except OSError:                     # a client that does not trust us
            client.close()

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join()


@pytest.fixture(scope='module')
def authority():
    return trustme.CA()


@pytest.fixture(scope='module')
def ca_file(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp('ca') / 'ca.pem'
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope='module')
def server():
    with RedisServer() as server:
        assert server.command('ACL', 'SETUSER', USER, 'on', f'>{PASSWORD}', '~gh:*', 'resetchannels', '&gh:*', '+@all') == b'OK'
        server.command('CONFIG', 'SET', 'requirepass', 'another')
        yield server


def context_for(authority: trustme.CA, *names: str, asks: bool = False) -> ssl.SSLContext:
    """What a server has that these are the names of; ``asks``: for its clients' certificates, too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    if asks:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture(params=['a server with a certificate', 'clients with certificates, too'])
def url(request, server, authority, ca_file, tmp_path):
    asks = request.param.startswith('clients')
    query = f'?ssl_ca_certs={ca_file}'
    if asks:
        mine = authority.issue_cert('me.example.org')
        mine.private_key_pem.write_to_path(tmp_path / 'key.pem')
        mine.cert_chain_pems[0].write_to_path(tmp_path / 'cert.pem')
        query += f'&ssl_certfile={tmp_path}/cert.pem&ssl_keyfile={tmp_path}/key.pem'
    with terminator(server.port, context_for(authority, 'localhost', asks=asks)) as port:
        yield f'rediss://{USER}:{PASSWORD}@localhost:{port}/0{query}'


@pytest.mark.parametrize('kind', ['greenlet', 'thread'])
def test_tasks_and_results_travel_over_tls(url, tmp_path, kind):
    work = Work(url, tmp_path)
    try:
        consumer = work.consume('-k', kind, '-w', '20')
        results = [work.send('rest', n, 0.05) for n in range(50)]
        big = work.send('echo', b'x' * 3_000_000)
        assert [result.get(blocking=True, timeout=30) for result in results] == [n * 10 for n in range(50)]
        assert big.get(blocking=True, timeout=30) == b'x' * 3_000_000
        late = work.send('rest', 99, 2.0)
        answers = []
        thread = threading.Thread(target=lambda: answers.append(late.get(blocking=True, timeout=30)))
        thread.start()
        wait_until(lambda: work.redis.pubsub_channels(work.keys.result('*').replace('{', r'\{')), what='a waiter that is pushed to')
        thread.join()
        assert answers == [990]
        assert f'tasks at rediss://{USER}:***@localhost' in consumer.text()
        assert PASSWORD not in consumer.text()
        assert not consumer.lines('ERROR') + consumer.lines('WARNING:geventhuey.results')
        assert consumer.stop() == 0
    finally:
        work.close()


@pytest.mark.parametrize('engine', [False, True], ids=['producer', 'engine'])
def test_a_server_of_another_authority_is_refused(server, ca_file, engine):
    with terminator(server.port, context_for(trustme.CA(), 'localhost')) as port:
        storage = RedisStorage('app', f'rediss://{USER}:{PASSWORD}@localhost:{port}/0?ssl_ca_certs={ca_file}')
        with pytest.raises(StorageUnavailable, match='certificate verify failed.*') as caught:
            (storage.session('test') if engine else storage).check()
        assert PASSWORD not in str(caught.value)
        storage.close()


@pytest.mark.parametrize('engine', [False, True], ids=['producer', 'engine'])
def test_a_server_of_another_name_is_refused(server, authority, ca_file, engine):
    with terminator(server.port, context_for(authority, 'redis.example.org')) as port:
        storage = RedisStorage('app', f'rediss://{USER}:{PASSWORD}@localhost:{port}/0?ssl_ca_certs={ca_file}&ssl_check_hostname=true')
        with pytest.raises(StorageUnavailable, match="(?i)hostname mismatch, certificate is not valid for 'localhost'"):
            (storage.session('test') if engine else storage).check()
        storage.close()


@pytest.mark.parametrize('engine', [False, True], ids=['producer', 'engine'])
def test_a_server_that_has_no_tls_is_said(server, engine):
    storage = RedisStorage('app', f'rediss://{USER}:{PASSWORD}@localhost:{server.port}/0')
    with pytest.raises(StorageUnavailable, match='cannot be reached'):
        (storage.session('test') if engine else storage).check()
    storage.close()


def test_a_wrong_password_behind_tls_is_said(url):
    storage = RedisStorage('app', url.replace(PASSWORD, 'wrong'))
    with pytest.raises(StorageRefused, match='refuses the user or the password'):
        storage.check()
    storage.close()


def test_a_producer_that_does_not_trust_the_server_knows_that_nothing_was_enqueued(server, ca_file):
    with terminator(server.port, context_for(trustme.CA(), 'localhost')) as port:
        huey = Huey.from_url(f'rediss://{USER}:{PASSWORD}@localhost:{port}/0?ssl_ca_certs={ca_file}', 'app')

        @huey.task()
        def add(a: int, b: int) -> int:
            return a + b

        with pytest.raises(QueueWriteException, match='certificate verify failed'):
            add(1, 2)
        huey.close()


def test_a_consumer_that_does_not_trust_the_server_says_so_and_waits(server, ca_file, tmp_path):
    with terminator(server.port, context_for(trustme.CA(), 'localhost')) as port:
        work = Work(f'rediss://{USER}:{PASSWORD}@localhost:{port}/0?ssl_ca_certs={ca_file}', tmp_path)
        try:
            consumer = work.consume(ready=False)
            consumer.wait_for('the storage is away.*certificate verify failed')
            assert PASSWORD not in consumer.text() and 'Traceback' not in consumer.text()
            assert consumer.stop() == 0
        finally:
            work.close()
