"""Supervisor: several consumer processes as one. It imports neither gevent nor the application."""

from __future__ import annotations

import dataclasses
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from geventhuey import native
from geventhuey.consumer.options import WORKER_PROCESS, WORKER_THREAD, Options

logger = logging.getLogger('geventhuey.supervisor')

#: A child finds its number and how many there are, and the pipe whose end means that its supervisor is gone, in its environment.
PLACE_VARIABLE, PIPE_VARIABLE = 'GEVENTHUEY_CHILD', 'GEVENTHUEY_PARENT_PIPE'
#: Seconds until a crashed child is started again: the first time and at most. One that lived longer than the longest begins anew.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
#: Seconds that children have beyond their own shutdown timeout.
PATIENCE = 10.0
#: Exit codes with which starting again would not help.
HOPELESS = (2, 78)


class Place(NamedTuple):
    """Which of how many children a process is: 0 of 0 when it is none."""

    number: int
    of: int

    @property
    def is_child(self) -> bool:
        """True in a process that a supervisor has started."""
        return self.number > 0

    @property
    def is_first(self) -> bool:
        """True in the one that speaks for all."""
        return self.number <= 1


def take_place() -> Place:
    """The place of this process; to be asked once, because the processes that it starts itself are not to inherit it."""
    number, _, of = os.environ.pop(PLACE_VARIABLE, '0/0').partition('/')
    return Place(int(number), int(of))


def die_with_parent() -> None:
    """This process gets a SIGTERM when the one that holds the other end of its pipe is gone, however that went; if it has a pipe."""
    said = os.environ.pop(PIPE_VARIABLE, None)
    if said is None:
        return
    pipe = int(said)
    os.set_inheritable(pipe, False)

    def wait() -> None:
        os.read(pipe, 1)
        os.kill(os.getpid(), signal.SIGTERM)
    native.start_thread(wait)


def is_needed(options: Options) -> bool:
    """True when this takes several processes, or another one."""
    return options.processes > 1 or options.worker_type == WORKER_PROCESS


def options_of_child(options: Options) -> Options:
    """What each of the children is told."""
    if options.worker_type == WORKER_PROCESS:
        return dataclasses.replace(options, worker_type=WORKER_THREAD, workers=1)
    return dataclasses.replace(options, processes=1)


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

    :param args: the command line, which the children get, too.
    """

    def __init__(self, args: Sequence[str], options: Options) -> None:
        count = options.workers if options.worker_type == WORKER_PROCESS else options.processes
        self._command = [sys.executable, '-m', 'geventhuey.cli.consumer', *args]
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
        if now - child.started > LONGEST_PAUSE:
            child.pause = FIRST_PAUSE
        child.start_at = now + child.pause
        logger.error('process %d ended with %s, it is started again in %.1f s', child.number,
                     f'code {code}' if code >= 0 else _signal_name(-code), child.pause)
        child.pause = min(LONGEST_PAUSE, child.pause * 2)
        return 0

    def _start(self, child: _Child) -> None:
        environment = {**os.environ, PLACE_VARIABLE: f'{child.number}/{len(self._children)}', PIPE_VARIABLE: str(self._pipe[0])}
        # a session of its own: Ctrl+C on the terminal reaches the children through us only
        child.process = subprocess.Popen(self._command, env=environment, pass_fds=(self._pipe[0],), start_new_session=True)
        child.started = time.monotonic()
        if self._is_stopping():             # a signal came before the child was there to be told
            child.process.send_signal(signal.SIGTERM)

    def _until_next(self) -> float:
        """Seconds until something is due without a signal."""
        due = [child.start_at for child in self._children if child.process is None and not self._is_stopping()]
        return max(0.01, min([*due, self._deadline, time.monotonic() + 60]) - time.monotonic())


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:          # a real-time signal
        return f'signal {number}'
