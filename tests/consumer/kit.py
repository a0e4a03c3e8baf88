"""What the consumer and command tests share: an application, consumer processes, the journal of what its tasks did, bounded waits."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import redis

from geventhuey.storage.redis.keys import Keys
from tests.consumer.apps import work as application

#: Seconds within which anything that is waited for has to happen, on a loaded machine.
BOUND = 30.0
CHECKOUT = Path(__file__).resolve().parents[2]
APPS = Path(__file__).resolve().parent / 'apps'
#: What an application may keep when everything has been run and every result been read.
KEPT = {'counters', 'cron', 'sequence', 'errors', 'wake'}


def wait_until(condition: Callable[[], Any], bound: float = BOUND, what: str | Callable[[], str] = 'it') -> Any:
    """The condition's first true answer. Fails when there is none within ``bound`` seconds."""
    deadline = time.monotonic() + bound
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f'{what() if callable(what) else what} did not come true within {bound:g} s')
        time.sleep(0.01)


class Entry(NamedTuple):
    """A line of the journal."""

    word: str
    n: str
    more: tuple[str, ...]
    pid: int
    time: float


class Journal:
    """What the tasks wrote down."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self, word: str | None = None) -> list[Entry]:
        """The whole lines so far, all or those of one kind."""
        text = self.path.read_text() if self.path.exists() else ''
        entries = []
        for line in text[:text.rfind('\n') + 1].splitlines():     # the last one may be on its way
            first, n, *more, pid, moment = line.split()
            entries.append(Entry(first, n, tuple(more), int(pid), float(moment)))
        return [entry for entry in entries if word in (None, entry.word)]

    def count(self, word: str) -> int:
        """How many lines of this kind there are."""
        return len(self.entries(word))

    def times(self, word: str) -> Counter[str]:
        """How often each task wrote a line of this kind."""
        return Counter(entry.n for entry in self.entries(word))

    def wait_for(self, word: str, count: int = 1, bound: float = BOUND) -> list[Entry]:
        """The lines of this kind, as soon as there are ``count``."""
        wait_until(lambda: self.count(word) >= count, bound, lambda: f'{count} x {word} in the journal (there are {self.count(word)})')
        return self.entries(word)


class Program:
    """A process, and what it says."""

    def __init__(self, command: Sequence[str], log: Path, cwd: Path | str = APPS, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        with open(log, 'ab') as file:
            self.process = subprocess.Popen(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                            start_new_session=True)
        self.pid = self.process.pid

    def text(self) -> str:
        """Everything it has said."""
        return self.log.read_text(errors='replace')

    def lines(self, part: str) -> list[str]:
        """The lines in which ``part`` occurs."""
        return [line for line in self.text().splitlines() if part in line]

    def wait_for(self, pattern: str, bound: float = BOUND, count: int = 1) -> re.Match[str]:
        """The first match of the pattern in what it says, as soon as there are ``count``."""
        def found() -> re.Match[str] | None:
            matches = list(re.finditer(pattern, self.text()))
            assert len(matches) >= count or self.process.poll() is None, f'it ended with {self.process.poll()}:\n{self.text()}'
            return matches[0] if len(matches) >= count else None
        match: re.Match[str] = wait_until(found, bound, lambda: f'{pattern!r} in\n{self.text()}\n')
        return match

    def signal(self, number: int = signal.SIGTERM) -> None:
        """It is sent a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """It has ended as by kill -9."""
        self.process.kill()
        self.process.wait()

    def wait(self, bound: float = BOUND) -> int:
        """The code it ended with."""
        try:
            return self.process.wait(bound)
        except subprocess.TimeoutExpired:
            raise AssertionError(f'it did not end within {bound:g} s:\n{self.text()}') from None

    def stop(self, bound: float = BOUND) -> int:
        """The code it ended with, when it was told to: as soon as it listens, whatever it has said before."""
        wait_until(lambda: self.process.poll() is not None or self._listens(signal.SIGTERM),
                   what=lambda: f'a handler of SIGTERM:\n{self.text()}')
        self.signal()
        return self.wait(bound)

    def _listens(self, number: int) -> bool:
        """True once the process has a handler for the signal."""
        caught = re.search(r'^SigCgt:\s*([0-9a-f]+)$', Path(f'/proc/{self.pid}/status').read_text(), re.MULTILINE)
        return caught is not None and bool(int(caught[1], 16) >> number - 1 & 1)

    def children(self) -> list[int]:
        """The processes that it has started and that live."""
        found = []
        for task in Path(f'/proc/{self.pid}/task').glob('*/children'):
            found += [int(pid) for pid in task.read_text().split() if is_alive(int(pid))]
        return sorted(found)


def is_alive(pid: int) -> bool:
    """True while the process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] not in 'ZX'
    except (FileNotFoundError, ProcessLookupError):
        return False


class Work:
    """An application of its own, its consumers and its journal."""

    def __init__(self, url: str, folder: Path, **settings: Any) -> None:
        self.name = f'work-{uuid.uuid4().hex[:8]}'
        self.url = url
        self.folder = folder
        self.journal = Journal(folder / 'journal')
        self.keys = Keys(self.name)
        self.huey = application.make_huey(self.name, url, **settings)
        self.redis = self._client()
        self.programs: list[Program] = []
        self._tasks = {cls.task_name: cls for cls in self.huey.registry}

    def _client(self) -> Any:
        """A client of redis-py's, for looking."""
        return redis.Redis.from_url(self.url, socket_timeout=10)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to know of it."""
        paths = [str(CHECKOUT), *filter(None, [os.environ.get('PYTHONPATH')])]
        return {**os.environ, 'PYTHONPATH': os.pathsep.join(paths), application.NAME: self.name, application.URL: self.url,
                application.JOURNAL: str(self.journal.path), 'PYTHONUNBUFFERED': '1'}

    def run(self, *command: str, cwd: Path | str = APPS, **environment: str) -> Program:
        """A program of ours, ended with the test."""
        log = self.folder / f'log-{len(self.programs)}'
        program = Program(command, log, cwd, {**self.environment, **environment})
        self.programs.append(program)
        return program

    def consume(self, *options: str, path: str = 'app.huey', ready: bool = True, **environment: str) -> Program:
        """A ``geventhuey-consumer`` with these options; ``ready``: it is registered with the storage."""
        known = set(self.consumers()) if ready else set()
        program = self.run(sys.executable, '-m', 'geventhuey.cli.consumer', path, *options, **environment)
        if ready:
            def is_ready() -> bool:
                assert program.process.poll() is None, f'it ended with {program.process.poll()}:\n{program.text()}'
                return bool(set(self.consumers()) - known)
            wait_until(is_ready, what=lambda: f'a consumer that registers:\n{program.text()}\n')
        return program

    def send(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """A task of this name is enqueued; the wrapper of its result."""
        return self.huey.enqueue(self.task(name, *args, **kwargs))

    def task(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """A task of this name, as its decorated function makes it, but not enqueued."""
        cls: Any = self._tasks[name]
        retries = {'careless': 2, 'fail_once': 1, 'trial': 2}.get(name, 0)
        return cls((args, kwargs), None, None, retries, 0)

    def consumers(self) -> dict[str, str]:
        """Who is registered, and its beat."""
        return {key.decode(): value.decode() for key, value in self.redis.hgetall(self.keys.consumers).items()}

    def in_flight(self) -> int:
        """How many messages consumers hold."""
        return sum(self.redis.hlen(key) for key in self.redis.keys(self.keys.inflight('*').replace('{', r'\{')))

    def pending(self) -> list[str]:
        """The first argument of each task that waits, the next one first."""
        return [str(task.get_data()[0][0]) for task in reversed(self.huey.pending())]

    def leftovers(self) -> set[str]:
        """What is kept in Redis, beside what is kept for good and what expires by itself."""
        found = set()
        for key in self.redis.scan_iter(match=f'gh:[{{]{self.name}[}}]:*', count=1000):
            name = key.decode().removeprefix(self.keys.prefix)
            if name.partition(':')[0] not in KEPT and self.redis.ttl(key) == -1:
                found.add(name)
        return found

    def wait_idle(self, bound: float = BOUND) -> None:
        """Nothing waits, and nothing is in flight."""
        wait_until(lambda: not self.huey.pending_count() and not self.huey.scheduled_count() and not self.in_flight(), bound,
                   lambda: f'idleness ({self.huey.pending_count()} pending, {self.in_flight()} in flight)')

    def close(self) -> None:
        """Its programs have ended; what they said is shown when the test fails."""
        for program in self.programs:
            if program.process.poll() is None:
                for child in program.children():
                    end(child)
                program.kill()
            print(f'--- {program.process.args} ended with {program.process.returncode}\n{program.text()}')
        self.huey.close()
        self.redis.close()


def end(pid: int) -> None:
    """The process has been sent a kill -9, if it was there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


@contextmanager
def journal_of(path: Path) -> Iterator[None]:
    """Tasks that run in this very process write there."""
    before = os.environ.get(application.JOURNAL)
    os.environ[application.JOURNAL] = str(path)
    try:
        yield
    finally:
        if before is None:
            del os.environ[application.JOURNAL]
        else:
            os.environ[application.JOURNAL] = before
