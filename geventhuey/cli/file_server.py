"""FileServer: Python files over HTTP, slow and now and then unavailable on purpose: something to fetch for the demo and the examples.

It has a process of its own, so that what one measures is the fetching: its clients' hub is not busy answering them, too.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, quote

from geventhuey import native
from geventhuey.cli.open_files import allow_open_files
from geventhuey.exceptions import ConfigurationError

#: Folders that are left out: what others have installed, and tests (some of their files are no Python on purpose).
LEFT_OUT = {'site-packages', 'dist-packages', 'test', 'tests', '__pycache__'}
STATISTICS = '/:statistics'
#: Connections that may wait to be accepted: thousands of clients come in the same moment.
BACKLOG = 4096
#: Open files that the server asks for: one for each client.
OPEN_FILES = 20_000

Start = Callable[[str, list[tuple[str, str]]], object]


class FileServer:
    """Serves the standard library's Python files while its ``with`` block runs, from another process that ends with this one.

    :param folder: serve the files below this folder instead.
    :param latency: seconds that it takes over each answer.
    :raises ConfigurationError: there is no Python file.
    """

    def __init__(self, folder: Path | None = None, latency: float = 0.1) -> None:
        self.folder = folder or Path(sysconfig.get_path('stdlib'))
        self.latency = latency
        #: What it serves: paths below the folder, in order.
        self.files = find_files(self.folder)
        if not self.files:
            raise ConfigurationError(f'there is no Python file to serve in {self.folder}')

    def __enter__(self) -> FileServer:
        command = [sys.executable, '-m', 'geventhuey.cli.file_server', str(self.folder), str(self.latency)]
        # a session of its own: Ctrl+C on the terminal is for its owner
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        assert self._process.stdout is not None
        try:
            port = self._process.stdout.readline().decode().strip()
            if not port:
                raise RuntimeError(f'the file server ended with code {self._process.wait()}')
        except BaseException:
            self._end()
            raise
        self._address = f'127.0.0.1:{port}'
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def url(self, number: int, fails: int = 0) -> str:
        """Where a file is: the files come in order, over and over. The first ``fails`` requests to this URL are answered by 503."""
        return f'http://{self._address}/{quote(self._file(number))}?number={number}&fails={int(fails)}'

    def sha256(self, number: int) -> str:
        """The digest of the same file, as it is on the disk now; empty when it is gone."""
        try:
            return hashlib.sha256((self.folder / self._file(number)).read_bytes()).hexdigest()
        except OSError:
            return ''

    def statistics(self) -> dict[str, int]:
        """How many ``requests`` there were, how many were ``refused`` with 503, and the most that were ``at_once``."""
        connection = http.client.HTTPConnection(self._address, timeout=60)
        try:
            connection.request('GET', STATISTICS)
            counts: dict[str, int] = json.loads(connection.getresponse().read())
            return counts
        finally:
            connection.close()

    def _file(self, number: int) -> str:
        return self.files[number % len(self.files)]


def find_files(folder: Path) -> list[str]:
    """The plain Python files below the folder, as sorted paths."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        paths = [Path(place, name) for name in names if name.endswith('.py')]
        found += [path.relative_to(folder).as_posix() for path in paths if path.is_file() and not path.is_symlink()]
    return sorted(found)


class _Files:
    """The server's application (WSGI)."""

    def __init__(self, folder: Path, latency: float) -> None:
        import gevent
        self._sleep = gevent.sleep
        self._latency = latency
        self._paths = {f'/{file}': folder / file for file in find_files(folder)}
        self._refusals: Counter[str] = Counter()
        self._busy = 0
        self._counts = {'requests': 0, 'refused': 0, 'at_once': 0}

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        if environ['PATH_INFO'] == STATISTICS:
            return _answer(start, '200 OK', json.dumps(self._counts).encode())
        self._counts['requests'] += 1
        self._busy += 1
        self._counts['at_once'] = max(self._busy, self._counts['at_once'])
        try:
            self._sleep(self._latency)
            return self._serve(environ['PATH_INFO'].encode('latin-1').decode(), environ['QUERY_STRING'], start)
        finally:
            self._busy -= 1

    def _serve(self, name: str, query: str, start: Start) -> Iterable[bytes]:
        if self._refusals[query] < int(parse_qs(query).get('fails', ['0'])[0]):
            self._refusals[query] += 1
            self._counts['refused'] += 1
            return _answer(start, '503 Service Unavailable', b'not now\n')
        try:
            return _answer(start, '200 OK', self._paths[name].read_bytes())
        except (KeyError, OSError):
            return _answer(start, '404 Not Found', b'there is no such file\n')


def _answer(start: Start, status: str, content: bytes) -> Iterable[bytes]:
    start(status, [('Content-Type', 'application/octet-stream'), ('Content-Length', str(len(content)))])
    return [content]


def serve(folder: Path, latency: float) -> None:
    """Serves on a free port, which it prints, until its standard input is closed."""
    from gevent import socket
    from gevent.pywsgi import WSGIServer
    allow_open_files(OPEN_FILES)
    listener = socket.socket()
    listener.bind(('127.0.0.1', 0))
    listener.listen(BACKLOG)

    def end_with_owner() -> None:
        os.read(0, 1)
        os._exit(0)
    native.start_thread(end_with_owner)
    print(listener.getsockname()[1], flush=True)
    WSGIServer(listener, _Files(folder, latency), log=None).serve_forever()


if __name__ == '__main__':
    serve(Path(sys.argv[1]), float(sys.argv[2]))
