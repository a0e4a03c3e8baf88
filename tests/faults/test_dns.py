"""The host name of Redis does not resolve, or slowly: nothing blocks meanwhile, and it is asked for again until it does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from geventhuey.testing.redis_server import RedisServer
from tests.consumer.kit import Program, Work, wait_until
from tests.faults.reach import AWAY, check_said

NAME = 'redis.test'
#: Runs the rest of the command with these files as /etc/hosts and /etc/resolv.conf, which nobody else sees.
IN_A_NAMESPACE = ('unshare', '-rm', 'sh', '-c',
                  'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$@"', 'sh')
#: What stands in for the C library where namespaces are not permitted, and where it has to be slow.
RESOLVER = f'''
import _socket, os, time
resolve = _socket.getaddrinfo

def getaddrinfo(host, *args, **kwargs):
    if host in ({NAME!r}, {NAME.encode()!r}):
        time.sleep(float(open({{folder!r}} + '/seconds').read()))
        if {NAME!r} not in open({{folder!r}} + '/hosts').read():
            raise _socket.gaierror(_socket.EAI_AGAIN, 'Temporary failure in name resolution')
        host = '127.0.0.1'
    return resolve(host, *args, **kwargs)

_socket.getaddrinfo = getaddrinfo
'''


class Names:
    """What the name stands for in consumers that are started here; it may change meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / 'sitecustomize.py').write_text(RESOLVER.format(folder=str(folder)))
        (folder / 'resolv.conf').write_text('nameserver 127.0.0.1\n')       # where nobody listens
        self.take(0.0)
        self.resolve(False)

    def resolve(self, there: bool) -> None:
        """The name is known, or not."""
        (self.folder / 'hosts').write_text(f'127.0.0.1 localhost{" " + NAME if there else ""}\n')

    def take(self, seconds: float) -> None:
        """Every answer takes so long."""
        (self.folder / 'seconds').write_text(str(seconds))

    def consume(self, work: Work, server: RedisServer, *options: str, is_slow: bool = False) -> Program:
        """A consumer that knows Redis by the name only."""
        command = [sys.executable, '-m', 'geventhuey.cli.consumer', 'app.huey', '--url', f'redis://{NAME}:{server.port}/0', *options]
        wrapped = [*IN_A_NAMESPACE, str(self.folder / 'hosts'), str(self.folder / 'resolv.conf')]
        if not is_slow and subprocess.run([*wrapped, 'true'], capture_output=True).returncode == 0:
            return work.run(*wrapped, *command)
        return work.run(*command, PYTHONPATH=os.pathsep.join((str(self.folder), work.environment['PYTHONPATH'])))


@pytest.fixture
def names(tmp_path):
    return Names(tmp_path / 'names')


@pytest.fixture
def server():
    with RedisServer() as server:
        yield server


@pytest.fixture
def work(server, tmp_path):
    work = Work(server.url, tmp_path)
    yield work
    work.close()


def cut(work: Work) -> None:
    """No consumer is connected any more."""
    for client in work.redis.client_list():
        if client['name'].startswith(f'geventhuey:{work.name}') and not client['name'].endswith(('producer', 'results')):
            work.redis.client_kill_filter(_id=client['id'])


@pytest.mark.parametrize('kind', ['greenlet', 'thread'])
def test_a_name_that_does_not_resolve_is_asked_for_until_it_does(work, server, names, kind):
    consumer = names.consume(work, server, '-k', kind, '-w', '20')
    consumer.wait_for(f'{AWAY}.*(name resolution|not known)')
    names.resolve(True)
    assert work.send('add', 1, 2).get(blocking=True, timeout=30) == 3
    # it is gone while tasks run: they run on, and are told of when it is back
    results = [work.send('rest', n, 1.0) for n in range(20)]
    work.journal.wait_for('start', 20)
    names.resolve(False)
    cut(work)
    consumer.wait_for(AWAY, count=2)
    work.journal.wait_for('end', 20)
    names.resolve(True)
    assert [result.get(blocking=True, timeout=30) for result in results] == [n * 10 for n in range(20)]
    assert work.journal.times('start') == {str(n): 1 for n in range(20)}
    check_said(consumer, at_most=2)
    assert not consumer.lines('blocked')
    assert consumer.stop() == 0


@pytest.mark.parametrize('kind', ['greenlet', 'thread'])
def test_a_name_server_that_takes_its_time_blocks_nobody(work, server, names, kind):
    names.resolve(True)
    consumer = names.consume(work, server, '-k', kind, '-w', '20', is_slow=True)
    assert work.send('add', 1, 2).get(blocking=True, timeout=30) == 3
    results = [work.send('rest', n, 0.1 * n) for n in range(20)]
    work.journal.wait_for('start', 20)
    names.take(4.0)
    cut(work)
    cut_at = time.time()
    work.journal.wait_for('end', 20)
    assert max(entry.time for entry in work.journal.entries('end')) < cut_at + 3.5, 'the tasks waited for the name server'
    names.take(0.0)
    assert [result.get(blocking=True, timeout=60) for result in results] == [n * 10 for n in range(20)]
    wait_until(lambda: len(consumer.lines(AWAY)) == len(consumer.lines('the storage is back')))
    assert not consumer.lines('blocked')
    assert work.journal.times('start') == {str(n): 1 for n in range(20)}
    assert consumer.stop() == 0
