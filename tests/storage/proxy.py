"""A way to a server that can lose answers or change them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable


class Proxy:
    """Listens on ``port`` and passes everything on, until it is told otherwise. Use it with ``with``."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.port: int = self._listener.getsockname()[1]
        #: So many answers are lost, each with its connection, after the server has given them; so many pass before that.
        self.lose = self.spare = 0
        #: What becomes of an answer on its way.
        self.edit: Callable[[bytes], bytes] = bytes
        self._sockets = [self._listener]

    @property
    def url(self) -> str:
        return f'redis://127.0.0.1:{self.port}/0'

    def __enter__(self) -> Proxy:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            _cut(each)

    def _start(self, run: Callable[..., None], *args: socket.socket) -> None:
        threading.Thread(target=run, args=args, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(('127.0.0.1', self._target))
            except OSError:
                return
            self._sockets += client, server
            self._start(self._pass_requests, client, server)
            self._start(self._pass_answers, server, client)

    def _pass_requests(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(65536):
                server.sendall(data)
        except OSError:
            pass
        _cut(server)

    def _pass_answers(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while data := server.recv(65536):
                if self.lose and not self.spare:
                    self.lose -= 1
                    break
                self.spare -= self.spare > 0
                client.sendall(self.edit(data))
        except OSError:
            pass
        _cut(client)


def _cut(sock: socket.socket) -> None:
    """The connection is closed, also for a thread that waits for it."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    sock.close()
