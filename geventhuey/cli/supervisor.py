"""Supervisor: several consumer processes as one. It imports neither gevent nor the application."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from geventhuey import native
from geventhuey.consumer.options import WORKER_PROCESS, Options

logger = logging.getLogger('geventhuey.supervisor')

#: A child finds its number, how many there are, and the pipe whose end means that its supervisor is gone, in its environment.
NUMBER_VARIABLE, COUNT_VARIABLE, PIPE_VARIABLE = 'GEVENTHUEY_CHILD', 'GEVENTHUEY_CHILDREN', 'GEVENTHUEY_PARENT_PIPE'
#: Seconds until a crashed child is started again: the first time and at most. One that lived longer than the longest begins anew.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
#: Seconds that children have beyond their own shutdown timeout.
PATIENCE = 10.0
#: Exit codes with which starting again would not help.
HOPELESS = (2, 78)


def is_needed(options: Options) -> bool:
    """True in a process that is to start others."""
    return not is_child() and (options.processes > 1 or options.worker_type == WORKER_PROCESS)


def is_child() -> bool:
    """True in a process that a supervisor has started."""
    return NUMBER_VARIABLE in os.environ


def is_first_child() -> bool:
    """True in the one that speaks for all."""
    return os.environ.get(NUMBER_VARIABLE) == '1'


def die_with_parent() -> None:
    """This process gets a SIGTERM when its supervisor is gone, however that went."""
    pipe = os.environ.get(PIPE_VARIABLE)
    if pipe is None:
        return

    def wait() -> None:
        os.read(int(pipe), 1)
        os.kill(os.getpid(), signal.SIGTERM)
    native.start_thread(wait)


class _Child:
    """One place for a process, and the process in it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.start_at = 0.0
        self.pause = FIRST_PAUSE


class Supervisor:
    """Starts children, starts crashed ones again, and passes signals on.

    :param args: the command line, which the children get with one process each.
    """

    def __init__(self, args: Sequence[str], options: Options) -> None:
        count = options.workers if options.worker_type == WORKER_PROCESS else options.processes
        own = ['-k', 'thread', '-w', '1'] if options.worker_type == WORKER_PROCESS else []
        self._command = [sys.executable, '-m', 'geventhuey.cli.consumer', *args, '-p', '1', *own]
        self._children = [_Child(number + 1) for number in range(count)]
        self._timeout = options.shutdown_timeout
        self._signals = 0
        self._deadline = float('inf')
        self._hopeless = 0

    def run(self) -> int:
        """Runs until it is told to stop, or until a child says that there is no hope; answers the exit code."""
        self._pipe = os.pipe()
        os.set_inheritable(self._pipe[0], True)
        woken = self._watch_signals()
        logger.info('supervisor of %d processes, PID %d', len(self._children), os.getpid())
        worst = 0
        while True:
            for child in self._children:
                worst = max(worst, self._look_after(child))
            if self._is_stopping() and not any(child.process for child in self._children):
                return self._hopeless or worst
            if time.monotonic() > self._deadline:
                self._pass_on(signal.SIGKILL)
            if select.select([woken], [], [], self._until_next())[0]:
                os.read(woken, 4096)

    def _watch_signals(self) -> int:
        """The pipe that can be read after a signal."""
        woken, writable = os.pipe()
        os.set_blocking(writable, False)
        signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        return woken

    def _stop(self, number: int, frame: object) -> None:
        """The children are told to stop; each further signal is passed on as well."""
        self._signals += 1
        self._deadline = min(self._deadline, time.monotonic() + self._timeout + PATIENCE)
        self._pass_on(signal.SIGTERM)

    def _is_stopping(self) -> bool:
        return bool(self._signals or self._hopeless)

    def _pass_on(self, number: int) -> None:
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                child.process.send_signal(number)

    def _look_after(self, child: _Child) -> int:
        """The child has been started if it is due, or its end been noticed; answers the code it ended with, else 0."""
        now = time.monotonic()
        if child.process is None:
            if not self._is_stopping() and now >= child.start_at:
                self._start(child)
            return 0
        code = child.process.poll()
        if code is None:
            return 0
        child.process = None
        if self._is_stopping():
            return 0 if code == -signal.SIGTERM else abs(code)      # told to stop before it could say how
        if code in HOPELESS:
            self._hopeless = code
            self._deadline = now + self._timeout + PATIENCE
            self._pass_on(signal.SIGTERM)
            return code
        child.pause = FIRST_PAUSE if now - child.started > LONGEST_PAUSE else min(LONGEST_PAUSE, child.pause * 2)
        child.start_at = now + child.pause
        logger.error('process %d ended with %s, it is started again in %.1f s', child.number,
                     f'code {code}' if code >= 0 else signal.Signals(-code).name, child.pause)
        return 0

    def _start(self, child: _Child) -> None:
        environment = {**os.environ, NUMBER_VARIABLE: str(child.number), COUNT_VARIABLE: str(len(self._children)),
                       PIPE_VARIABLE: str(self._pipe[0])}
        # a session of its own: Ctrl+C on the terminal reaches the children through us only
        child.process = subprocess.Popen(self._command, env=environment, pass_fds=(self._pipe[0],), start_new_session=True)
        child.started = time.monotonic()

    def _until_next(self) -> float:
        """Seconds until something is due without a signal."""
        due = [child.start_at for child in self._children if child.process is None and not self._is_stopping()]
        return max(0.01, min([*due, self._deadline, time.monotonic() + 60]) - time.monotonic())
