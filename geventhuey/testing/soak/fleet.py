"""The soak's consumers: real processes of ``geventhuey-consumer``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from geventhuey.cli import supervisor
from geventhuey.testing.soak import APPLICATION_VARIABLE

APPLICATION = 'geventhuey.testing.soak.app.huey'
#: Consumers that may die under a task before it is given up: those of a soak all die through no fault of their tasks.
MAX_DELIVERIES = 100
#: Seconds that consumers have to stop; half of it is for the tasks that still run.
STOP_TIMEOUT = 10.0


class Usage(NamedTuple):
    """What a process uses: bytes of memory, and files and sockets that are open."""

    memory: int
    files: int

    @classmethod
    def of(cls, pid: int) -> Usage | None:
        """That of a process; None where the system does not say."""
        try:
            pages = int(Path(f'/proc/{pid}/statm').read_text().split()[1])
            return cls(pages * os.sysconf('SC_PAGE_SIZE'), len(os.listdir(f'/proc/{pid}/fd')))
        except (OSError, IndexError):
            return None


class Fleet:
    """Consumer processes; one that was killed is started again. All end with this process."""

    def __init__(self, url: str, log: Path, count: int, options: Sequence[str]) -> None:
        self._command = [sys.executable, '-m', 'geventhuey.cli.consumer', os.environ.get(APPLICATION_VARIABLE, APPLICATION),
                         '-k', 'greenlet', '-n', '-q', '-t', str(STOP_TIMEOUT / 2), '--max-deliveries', str(MAX_DELIVERIES),
                         '--url', url, *options]
        self._log = log
        self._count = count
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pipe = os.pipe()
        self._lock = threading.Lock()
        self._is_stopping = False
        #: Those that ended although nobody killed them, in words.
        self.deserters: list[str] = []
        self._born: dict[int, float] = {}

    def start(self) -> None:
        """All of them run, or begin to."""
        with self._lock:
            self._processes = [self._launch() for _ in range(self._count)]

    def _launch(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, supervisor.PIPE_VARIABLE: str(self._pipe[0])}
        with open(self._log, 'ab') as log:
            # a session of its own: Ctrl+C on the terminal is for us
            process = subprocess.Popen(self._command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       pass_fds=(self._pipe[0],), start_new_session=True)
        self._born[process.pid] = time.monotonic()
        return process

    def pids(self) -> list[int]:
        """Those that live."""
        with self._lock:
            return [process.pid for process in self._processes if process.poll() is None]

    def births(self) -> dict[int, float]:
        """When each of those that live was started, by pid (monotonic)."""
        with self._lock:
            return {process.pid: self._born[process.pid] for process in self._processes if process.poll() is None}

    def kill(self, pid: int) -> None:
        """The process has ended as by kill -9, and another one is started in its place."""
        with self._lock:
            process = next((process for process in self._processes if process.pid == pid), None)
            if process is None or self._is_stopping:
                return
            process.kill()
            process.wait()
            self._processes[self._processes.index(process)] = self._launch()

    def look(self) -> None:
        """Whoever has ended by itself is noted, and started again."""
        with self._lock:
            for place, process in enumerate(self._processes):
                if process.poll() is not None and not self._is_stopping:
                    self.deserters.append(f'consumer {process.pid} ended with {process.returncode}\n{self.said()}')
                    self._processes[place] = self._launch()

    def said(self) -> str:
        """The end of what they said."""
        return self._log.read_text(errors='replace')[-3000:] if self._log.exists() else ''

    def stop(self) -> None:
        """None of them is left."""
        with self._lock:
            if self._is_stopping:
                return
            self._is_stopping = True
            for process in self._processes:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    process.send_signal(signal.SIGCONT)
            deadline = time.monotonic() + STOP_TIMEOUT
            for process in self._processes:
                try:
                    process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            for end in self._pipe:
                os.close(end)
