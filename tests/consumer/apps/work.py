"""The application that the consumer tests run: tasks that wait, misbehave, and write down in a journal what happened to them.

The consumer imports it as ``app.huey``; a test makes its own twin with ``make_huey``, so that both know the same tasks.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import geventhuey
from geventhuey import Huey
from geventhuey.testing import history

NAME, URL, JOURNAL = 'WORK_NAME', 'WORK_URL', 'WORK_JOURNAL'

local = threading.local()
remembered: list[Any] = []


def note(*words: object) -> None:
    """One line of the journal, whole or not at all."""
    line = ' '.join(map(str, (*words, os.getpid(), f'{time.time():.3f}'))) + '\n'
    file = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def pause(seconds: float) -> None:
    """Waits in the way of whoever runs it: the process may be patched or not."""
    if 'gevent' in sys.modules:
        from gevent._hub_local import get_hub_if_exists
        if get_hub_if_exists() is not None:
            sys.modules['gevent'].sleep(seconds)
            return
    time.sleep(seconds)


def spin(seconds: float) -> None:
    """Pure Python that lets no other greenlet run."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


class Boom(Exception):
    """An error of the application's."""


class Unkind(Exception):
    """An error that cannot be shown."""

    def __repr__(self) -> str:
        raise ValueError('no')

    __str__ = __repr__


def raise_it(kind: str) -> None:
    """The error of this name, in its way."""
    if kind == 'RecursionError':
        raise_it(kind)
    if kind == 'Timeout':
        import gevent
        with gevent.Timeout(0.01):
            gevent.sleep(30)
    if kind == 'GreenletExit':
        from gevent import GreenletExit
        raise GreenletExit('bye')
    if kind == 'killed':
        import gevent
        gevent.kill(gevent.getcurrent())
        gevent.sleep(30)
    if kind == 'exit':
        sys.exit(3)
    if kind == 'MemoryError':
        bytearray(1 << 62)
    if kind == 'interrupted itself':
        raise geventhuey.TaskInterrupted('not by the consumer')
    known: dict[str, BaseException] = {
        'SystemExit': SystemExit(1), 'KeyboardInterrupt': KeyboardInterrupt(), 'StopIteration': StopIteration(), 'Boom': Boom('boom'),
        'GeneratorExit': GeneratorExit(), 'Unkind': Unkind(), 'BaseException': BaseException('base')}
    raise known[kind]


def make_huey(name: str | None = None, url: str | None = None, **settings: Any) -> Huey:
    """The application of this name at this URL; by default what the environment says."""
    huey = Huey.from_url(url or os.environ[URL], name or os.environ[NAME], **settings)

    @huey.task(name='add')
    def add(a: int, b: int) -> int:
        return a + b

    @huey.task(name='echo')
    def echo(value: object) -> object:
        return value

    @huey.task(name='repeat')
    def repeat(text: str, times: int) -> str:
        return text * times

    @huey.task(name='rest', include_task=True)
    def rest(n: int, seconds: float, task: Any) -> int:
        """Waits, and obeys when it is interrupted."""
        note('start', n, task.deliveries)
        try:
            pause(seconds)
            note('end', n)
        except geventhuey.TaskInterrupted:
            note('interrupted', n)
            raise
        return n * 10

    @huey.task(name='trial', include_task=True, retries=2)
    def trial(seconds: float, fails: int, task: Any) -> list[float]:
        """Writes the history of its runs, fails as often as it is told to, and returns which run it was."""
        path, begun = os.environ[JOURNAL] + '.history', time.time()
        history.note(path, history.STARTED, task.task_id, task.deliveries)
        try:
            pause(seconds)
            if task.retries > 2 - fails:
                raise Boom('on purpose')
        except geventhuey.TaskInterrupted:
            history.note(path, history.INTERRUPTED, task.task_id, task.deliveries)
            raise
        except Boom:
            history.note(path, history.FAILED, task.task_id, task.deliveries)
            raise
        history.note(path, history.ENDED, task.task_id, task.deliveries)
        return [os.getpid(), begun]

    @huey.task(name='hold_gil', include_task=True)
    def hold_gil(seconds: float, task: Any) -> None:
        """The first time, a regular expression that takes longer and longer, and lets no other thread of the process run meanwhile."""
        path = os.environ[JOURNAL] + '.history'
        history.note(path, history.STARTED, task.task_id, task.deliveries)
        length, took = 18, 0.0
        while took < seconds and not task.deliveries:
            begun = time.monotonic()
            re.match('(a+)+$', 'a' * length + 'b')
            took, length = time.monotonic() - begun, length + 1
        history.note(path, history.ENDED, task.task_id, task.deliveries)

    @huey.task(name='start_child')
    def start_child(how: str) -> int:
        """What a child of this process answers."""
        if how == 'subprocess':
            return int(subprocess.run([sys.executable, '-c', 'print(42)'], check=True, capture_output=True, timeout=30).stdout)
        if how == 'multiprocessing':
            child = multiprocessing.get_context('spawn').Process(target=print)
            child.start()
            child.join(30)
            return 42 + (child.exitcode or 0)
        pid = os.fork()
        if not pid:
            os._exit(42)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    @huey.task(name='whose')
    def whose(n: int, seconds: float) -> int:
        """Says which process has run it."""
        note('start', n)
        pause(seconds)
        note('end', n)
        return os.getpid()

    @huey.task(name='stubborn')
    def stubborn(n: int, seconds: float) -> None:
        """Waits on when it is interrupted."""
        note('start', n)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                pause(0.05)
            except BaseException as exc:
                note('swallowed', n, type(exc).__name__)
        note('end', n)

    @huey.task(name='only_once', at_most_once=True)
    def only_once(n: int, seconds: float) -> int:
        note('start', n)
        pause(seconds)
        return n

    @huey.task(name='stubborn_once', at_most_once=True)
    def stubborn_once(n: int, seconds: float) -> None:
        stubborn.call_local(n, seconds)

    @huey.task(name='block_once', at_most_once=True)
    def block_once(n: int, seconds: float) -> None:
        note('start', n)
        spin(seconds)

    @huey.task(name='late')
    def late(n: int, seconds: float) -> str:
        """Takes the interrupt for an order to finish its work quickly."""
        note('start', n)
        try:
            pause(seconds)
        except geventhuey.TaskInterrupted:
            note('hurried', n)
        note('end', n)
        return 'hurried'

    @huey.task(name='careless', retries=2)
    def careless(n: int, seconds: float, how: str) -> None:
        """Raises an error of its own when it is interrupted."""
        note('start', n)
        try:
            pause(seconds)
        except BaseException as exc:
            if how == 'from none':
                raise Boom('from none') from None
            if how == 'from another':
                raise Boom('from another') from KeyError('another')
            if how == 'wrapped':
                raise Boom('wrapped') from exc
            raise
        finally:
            if how == 'finally':
                raise Boom('finally')
            note('left', n)

    @huey.task(name='fail')
    def fail(n: int, kind: str) -> None:
        note('start', n)
        raise_it(kind)

    @huey.task(name='fail_once', retries=1)
    def fail_once(n: int) -> str:
        note('start', n)
        with open(os.environ[JOURNAL]) as journal:
            if [line.split()[:2] for line in journal].count(['start', str(n)]) < 2:
                raise Boom('once')
        return 'second time'

    @huey.task(name='leak_timeout')
    def leak_timeout(n: int, seconds: float) -> int:
        """Starts a timeout and forgets it."""
        import gevent
        note('start', n)
        gevent.Timeout(seconds).start()
        return n

    @huey.task(name='leak_and_fail')
    def leak_and_fail(n: int, seconds: float) -> None:
        """Starts a timeout and fails."""
        import gevent
        note('start', n)
        gevent.Timeout(seconds).start()
        raise Boom('with a timeout that ticks on')

    @huey.task(name='spawn')
    def spawn(n: int, kind: str) -> int:
        """Leaves a greenlet behind that raises."""
        import gevent
        note('start', n)
        gevent.spawn(raise_it, kind)
        return n

    @huey.task(name='block')
    def block(n: int, seconds: float) -> int:
        note('start', n)
        spin(seconds)       # this is the line that blocks
        note('end', n)
        return n

    @huey.task(name='block_with_lock')
    def block_with_lock(n: int, seconds: float) -> int:
        """Blocks the hub while it holds every lock of the log."""
        note('start', n)
        handlers = logging.getLogger().handlers
        for handler in handlers:
            handler.acquire()
        module_lock = logging._lock
        module_lock.acquire()
        try:
            spin(seconds)   # this is the line that blocks
        finally:
            module_lock.release()
            for handler in handlers:
                handler.release()
        note('end', n)
        return n

    @huey.task(name='unserializable')
    def unserializable(n: int) -> object:
        note('start', n)
        return threading.Lock()

    @huey.task(name='die')
    def die(n: int, seconds: float = 0.0) -> None:
        """Takes the process down with it."""
        note('start', n)
        pause(seconds)
        os._exit(9)

    @huey.task(name='signal_parent')
    def signal_parent(number: int) -> None:
        os.kill(os.getppid(), number)

    @huey.task(name='enqueue_more')
    def enqueue_more(n: int, count: int) -> int:
        """Enqueues from within, and waits for what comes of it."""
        note('start', n)
        results = [add(n, i) for i in range(count)]
        return sum(result.get(blocking=True, timeout=60) for result in results)

    @huey.task(name='remember')
    def remember() -> int:
        """Keeps its greenlet where others find it."""
        import gevent
        note('remember', id(gevent.getcurrent()))
        remembered.append(gevent.getcurrent())
        pause(0.2)
        return id(gevent.getcurrent())

    @huey.task(name='kill_remembered')
    def kill_remembered() -> int:
        """Kills what the others have remembered, and waits for the end of each."""
        count = len(remembered)
        while remembered:
            remembered.pop().kill(timeout=20)
        return count

    @huey.task(name='who_runs_me')
    def who_runs_me(how: str) -> int:
        """The greenlet that runs it, after something that may leave a trace in it."""
        import gevent
        if how == 'log':
            logging.getLogger('work').warning('hello')
        elif how == 'local':
            local.value = 1
        elif how == 'timeout':
            with gevent.Timeout(5):
                gevent.sleep(0.001)
        elif how == 'children':
            gevent.joinall([gevent.spawn(gevent.sleep, 0.001) for _ in range(3)])
        elif how == 'thread':
            thread = threading.Thread(target=threading.current_thread)
            thread.start()
            thread.join()
        elif how == 'wait':
            event = threading.Event()
            gevent.spawn_later(0.001, event.set)
            event.wait()
        elif how == 'fail':
            try:
                raise_it('Boom')
            except Boom:
                pass
        return id(gevent.getcurrent())

    @huey.task(name='count_greenlets')
    def count_greenlets() -> int:
        from greenlet import greenlet
        gc.collect()
        return sum(isinstance(thing, greenlet) and bool(thing) for thing in gc.get_objects())

    return huey


def ignore_signals() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
