"""geventhuey demo: thousands of files fetched at the same time, and every one checked. The process is patched before this is imported."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import gevent
from gevent.queue import Empty, Queue
from tqdm import tqdm

import geventhuey
from geventhuey.cli import supervisor
from geventhuey.cli.demo_tasks import NAME_VARIABLE, RETRIES, Fetched, fetch, huey, ready
from geventhuey.cli.file_server import FileServer
from geventhuey.cli.open_files import allow_open_files
from geventhuey.exceptions import ConfigurationError, QueueException, TaskException
from geventhuey.result import TaskResultWrapper

#: Every so many tasks there is one whose first request (or first two) the server refuses, and one that it always refuses.
SOME_RETRY, SOME_FAIL = 50, 1000
#: Files that are open beside a socket for each worker.
OTHER_FILES = 100
#: Greenlets that wait for results, each for one after another.
WAITERS = 1000
#: Seconds without any news after which what is still missing is given up.
PATIENCE = 30.0
#: Seconds that the consumer has to stop.
STOP_TIMEOUT = 2.0
#: Results that are wrong and shown, at most.
SHOWN = 10


@dataclasses.dataclass
class Job:
    """A task: which file, how often the server is to refuse it, when it was called (monotonic), and how it has ended."""

    number: int
    fails: int
    called: float
    result: TaskResultWrapper
    value: Any = None
    error: QueueException | None = None

    def wait(self) -> None:
        """The task has ended."""
        try:
            # preserve: a read that deletes could not be repeated when its answer got lost with the connection
            self.value = self.result.get(blocking=True, preserve=True)
        except QueueException as exc:
            self.error = exc

    @property
    def is_doomed(self) -> bool:
        """True when it is to fail in the end."""
        return self.fails > RETRIES

    def what_is_wrong(self, digest: str) -> str:
        """What is not as it should be, in words; empty when nothing is. ``digest``: that of the file."""
        if self.value is None and self.error is None:
            return 'has no result'
        if self.is_doomed:
            was_refused = isinstance(self.error, TaskException) and 'HTTPError 503' in str(self.error)
            return '' if was_refused else f'should have failed with 503, but {self.error or self.value!r}'
        if self.error is not None:
            return f'failed: {self.error}'
        if self.value['sha256'] != digest:
            return 'is not what is in the file now'
        return ''


class Demo:
    """One run of the demo.

    :param tasks: how many files are fetched.
    :param workers: how many greenlets fetch them.
    :param latency: seconds that the server takes over each answer.
    :param url: where Redis is; None keeps the tasks in memory.
    :param folder: the files; the standard library's by default.
    """

    def __init__(self, tasks: int, workers: int, latency: float, url: str | None = None, folder: Path | None = None) -> None:
        self._tasks = tasks
        self._workers = workers
        self._latency = latency
        self._url = url
        self._folder = folder
        self._news: Any = Queue()

    def run(self) -> int:
        """The demo has run; answers the exit code: 1 when anything is wrong, 2 when it cannot be done, 128 + signal when interrupted."""
        logging.getLogger('geventhuey.executor').disabled = True       # tasks that fail on purpose; the others are in the report
        try:
            with _signals_as_interrupts():
                return self._run()
        except ConfigurationError as exc:
            print(f'geventhuey demo: {exc}', file=sys.stderr)
            return 2
        except (QueueException, RuntimeError) as exc:
            print(f'geventhuey demo: {exc}', file=sys.stderr)
            return 1
        except KeyboardInterrupt as exc:
            print('geventhuey demo: interrupted', file=sys.stderr)
            return 128 + (exc.args[0] if exc.args else signal.SIGINT)

    def _run(self) -> int:
        limit = allow_open_files(self._workers + OTHER_FILES)
        if limit < self._workers + OTHER_FILES:
            raise ConfigurationError(f'--workers {self._workers}: a process may open {limit} files here, and each worker needs one; '
                                     f'{limit - OTHER_FILES} workers are possible')
        with ExitStack() as stack:
            server = stack.enter_context(FileServer(self._folder, self._latency))
            stack.enter_context(self._consumer())
            if not any(job.value for job in self._ended([Job(0, 0, 0.0, ready())])):
                raise RuntimeError('the consumer does not run tasks')
            print(f'geventhuey {geventhuey.__version__}: {self._tasks} tasks, {self._workers} greenlets, {huey.storage.describe()}, '
                  f'{len(server.files)} files behind {self._latency:g} s of latency')
            begun = time.monotonic()
            jobs = [_job(number, server) for number in range(self._tasks)]
            called = time.monotonic()
            missing = self._wait(jobs)
            report = Report(jobs, missing, begun, called, time.monotonic(), server)
        for line in report.lines():
            print(line)
        return 0 if report.is_right else 1

    def _wait(self, jobs: Sequence[Job]) -> int:
        """The jobs have ended; answers how many have not, and are given up."""
        with tqdm(total=len(jobs), unit=' tasks', smoothing=0) as bar:
            for _ in self._ended(jobs):
                bar.update()
            return len(jobs) - cast('int', bar.n)

    def _ended(self, jobs: Sequence[Job]) -> Iterator[Job]:
        """The jobs, as they end, until there is no news for too long. Raises what the consumer's end is told by."""
        left = iter(jobs)

        def wait() -> None:
            for job in left:
                job.wait()
                self._news.put(job)
        waiters = [gevent.spawn(wait) for _ in range(min(WAITERS, len(jobs)))]
        try:
            for _ in jobs:
                news = self._news.get(timeout=PATIENCE)
                if isinstance(news, Exception):
                    raise news
                yield news
        except Empty:
            return
        finally:
            gevent.killall(waiters)

    def _consumer(self) -> AbstractContextManager[object]:
        """What runs the tasks: greenlets of this process, or a process of its own where the tasks are in Redis."""
        if self._url is not None:
            huey.use_url(self._url)
            huey.storage.check()
        if huey.storage.in_process:
            return huey.consumer(worker_type='greenlet', workers=self._workers, periodic=False, shutdown_timeout=STOP_TIMEOUT)
        return _consumer_process(str(self._url), self._workers, self._news.put)


def _job(number: int, server: FileServer) -> Job:
    """One file's task, called."""
    fails = 0
    if number % SOME_RETRY == 1:
        fails = 1 + number // SOME_RETRY % 2
    elif number % SOME_FAIL == 2:
        fails = RETRIES + 1
    return Job(number, fails, time.monotonic(), fetch(server.url(number, fails)))


@contextmanager
def _consumer_process(url: str, workers: int, tell: Callable[[Exception], object]) -> Iterator[None]:
    """A consumer runs in a process that ends with this one; then nothing of the application is left in Redis.

    ``tell`` takes an error when the process ends by itself.
    """
    alive, ours = os.pipe()
    with tempfile.TemporaryDirectory(prefix='geventhuey-demo-') as folder:
        log = Path(folder, 'log')
        command = [sys.executable, '-m', 'geventhuey.cli.consumer', 'geventhuey.cli.demo_tasks.huey', '-k', 'greenlet', '-w', str(workers),
                   '-n', '-t', str(STOP_TIMEOUT), '--url', url, '-l', str(log)]
        environment = {**os.environ, NAME_VARIABLE: huey.name, supervisor.PIPE_VARIABLE: str(alive)}
        # a session of its own: Ctrl+C on the terminal is for us
        process = subprocess.Popen(command, env=environment, pass_fds=(alive,), start_new_session=True)

        def watch() -> None:
            code = process.wait()
            last = '\n'.join(log.read_text().splitlines()[-10:]) if log.exists() else ''
            tell(RuntimeError(f'the consumer process ended with code {code}\n{last}'.rstrip()))
        watcher = gevent.spawn(watch)
        try:
            yield
        finally:
            watcher.kill()
            process.terminate()
            try:
                process.wait(timeout=STOP_TIMEOUT * 3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(alive)
            os.close(ours)
            _forget(url)


def _forget(url: str) -> None:
    """No key of the application is left in Redis."""
    huey.close()
    import redis
    try:
        with redis.Redis.from_url(url) as connection:
            for key in connection.scan_iter(f'gh:{{{huey.name}}}:*', 1000):
                connection.unlink(key)
    except redis.RedisError as exc:
        print(f'geventhuey demo: keys of gh:{{{huey.name}}}: are left in Redis: {exc}', file=sys.stderr)


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt here, where it waits next, and in no task; a second one ends the process."""
    main, loop = gevent.getcurrent(), gevent.get_hub().loop
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def received(number: int, frame: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        # not raised at once: in a finalizer that happens to run it would be lost
        loop.run_callback_threadsafe(main.throw, KeyboardInterrupt(number))
    for number in before:
        signal.signal(number, received)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Report:
    """What a run has come to.

    :param missing: how many jobs have not ended.
    :param begun: the instant before the first call, ``called`` that after the last one, ``ended`` that of the last result; all by
        the machine's monotonic clock, which its processes share.
    """

    def __init__(self, jobs: Sequence[Job], missing: int, begun: float, called: float, ended: float, server: FileServer) -> None:
        self._jobs = jobs
        self._missing = missing
        self._calls = called - begun
        self._duration = ended - begun
        self._server = server.statistics()
        digests = [server.sha256(number) for number in range(min(len(jobs), len(server.files)))]
        self._problems = [f'task {job.number} ({job.result.task_id}) {problem}' for job in jobs
                          if (problem := job.what_is_wrong(digests[job.number % len(digests)]))]
        self._right = len(jobs) - len(self._problems)
        self._fetched: list[Fetched] = [job.value for job in jobs if job.value is not None]

    @property
    def is_right(self) -> bool:
        """True when every task has ended as it should."""
        return not self._problems

    def lines(self) -> Iterator[str]:
        """The report, line by line."""
        jobs, fetched = self._jobs, self._fetched
        refused = [job for job in jobs if job.is_doomed and job.error is not None]
        retries = sum(RETRIES - value['retries'] for value in fetched) + RETRIES * len(refused)
        runs = [value['seconds'] for value in fetched]
        # of those that had to wait once only
        waits = [job.value['started'] - job.called for job in jobs if job.value is not None and job.value['retries'] == RETRIES]
        rows = [
            ('tasks', f'{len(jobs)} in {self._duration:.2f} s, {len(jobs) / self._duration:.0f} tasks/s; called in {self._calls:.2f} s'),
            ('highest concurrency', f'{self._server["at_once"]} requests at once, as the server saw it'),
            ('wait for a worker', f'p50 {percentile(waits, 50):.3f} s, p99 {percentile(waits, 99):.3f} s'),
            ('run', f'p50 {percentile(runs, 50):.3f} s, p99 {percentile(runs, 99):.3f} s'),
            ('requests', f'{self._server["requests"]}, {self._server["refused"]} of them refused with 503 on purpose'),
            ('retries', f'{retries}'),
            ('failures', f'{len(refused)} expected: 503 to each of {RETRIES + 1} tries'),
            ('verified', f'{self._right} of {len(jobs)}: results by the SHA-256 of their files, failures by their errors'),
        ]
        for title, text in rows:
            yield f'  {title:24}{text}'
        if self._missing:
            yield f'GIVEN UP: {self._missing} tasks, after {PATIENCE:g} s without news'
        for problem in self._problems[:SHOWN]:
            yield f'WRONG: {problem}'
        if len(self._problems) > SHOWN:
            yield f'WRONG: {len(self._problems) - SHOWN} more'


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent of all do not exceed; 0 of none."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)] if values else 0.0
