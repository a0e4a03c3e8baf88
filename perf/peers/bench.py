"""Bench: one contender on an empty Redis; its producer and its worker are processes in the contender's own environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import redis

from geventhuey.testing.redis_server import RedisServer
from peers.contenders import Contender
from peers.venvs import CHECKOUT

HERE = Path(__file__).resolve().parent
#: Seconds that a worker has to run its first task.
START_TIMEOUT = 40.0
#: Seconds that a producer may take beyond what it was told.
DRIVER_TIMEOUT = 60.0
#: Seconds between two looks.
LOOK = 0.02
#: Seconds that it takes at most until a killed process is gone.
STOP_TIMEOUT = 10.0


class Failed(Exception):
    """A contender could not answer a question; the text is for the table."""


class Bench:
    """Where one contender is asked."""

    def __init__(self, contender: Contender, programs: Path | None, server: RedisServer) -> None:
        self.contender = contender
        self.server = server
        self.redis = redis.Redis.from_url(server.url)
        self._others = 0
        #: None: this interpreter, which can import geventhuey.
        self._programs = programs
        self._environment = {**os.environ, 'PYTHONPATH': str(HERE), 'PEER_REDIS': server.url, **contender.environment}
        if programs is None:
            self._environment['PYTHONPATH'] += os.pathsep + os.pathsep.join(filter(None, sys.path))
        else:
            self._environment['PATH'] = f'{programs}{os.pathsep}{os.environ.get("PATH", "")}'

    def flush(self) -> None:
        """Redis is empty."""
        self.server.flush()

    def driver(self, action: str, results: bool = False, patience: float = 0.0, **arguments: Any) -> Any:
        """What the producer answers. Raises Failed with the end of what it said when it does not."""
        text = json.dumps({'greenlets': self.contender.greenlets, **arguments})
        command = [self._program('{bin}/python'), str(HERE / 'driver.py'), self.contender.module, action, text]
        try:
            ended = subprocess.run(command, cwd=HERE, env={**self._environment, 'PEER_RESULTS': str(int(results))},
                                   stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DRIVER_TIMEOUT + patience)
        except subprocess.TimeoutExpired as exc:
            raise Failed(f'its producer did not end within {exc.timeout:g} s') from exc
        if ended.returncode:
            raise Failed(f'its producer ended with {ended.returncode}: {_end(ended.stderr)}')
        return json.loads(ended.stdout.splitlines()[-1])

    def fill(self, task: str, args: list[Any], count: int, seconds: float, results: bool = False) -> int:
        """So many tasks are in the queue, or as many as could be put there in so many seconds."""
        self.flush()
        filled: int = self.driver('enqueue', results, seconds, task=task, args=args, count=count, seconds=seconds, how='many')['count']
        return filled

    @contextmanager
    def worker(self, slots: int, results: bool = False, total: int = 0, tail: int = 1) -> Iterator[Worker]:
        """Its worker process, which is gone afterwards with all that it has started."""
        folder = Path(tempfile.mkdtemp(prefix='geventhuey-compare-'))
        environment = {**self._environment, 'PEER_RESULTS': str(int(results)), 'PEER_SLOTS': str(slots),
                       'PEER_FILE': str(folder / 'tally'), 'PEER_TOTAL': str(total), 'PEER_TAIL': str(tail)}
        self._others = int(self.redis.info('clients')['connected_clients'])
        worker = Worker([self._program(word).replace('{slots}', str(slots)) for word in self.contender.command], environment, folder)
        try:
            yield worker
        finally:
            worker.stop()
            shutil.rmtree(folder)

    def clients(self) -> int:
        """Connections to Redis that were not there before the worker."""
        return int(self.redis.info('clients')['connected_clients']) - self._others

    def reads(self) -> int:
        """How often Redis has read something from a connection."""
        return int(self.redis.info('stats')['total_reads_processed'])

    def _program(self, word: str) -> str:
        if self._programs is None:
            return sys.executable if word == '{bin}/python' else word
        return word.replace('{bin}', str(self._programs))


class Worker:
    """A worker process."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self._tally = folder / 'tally'
        self._log = folder / 'log'
        self.begun = time.time()
        with open(self._log, 'wb') as log:
            self._process = subprocess.Popen(command, cwd=HERE, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                             start_new_session=True)
        self._observed = psutil.Process(self._process.pid)

    def tally(self) -> dict[str, Any] | None:
        """What its tasks have taken down so far."""
        try:
            found: dict[str, Any] = json.loads(self._tally.read_text())
        except FileNotFoundError:
            return None
        return found

    def wait_for(self, done: Callable[[dict[str, Any]], bool], seconds: float, meanwhile: Callable[[], object] = lambda: None) -> bool:
        """Whether it comes true within so many seconds; these begin with its first task. Raises Failed when it runs none, or dies."""
        deadline, has_begun = time.monotonic() + START_TIMEOUT, False
        while True:
            found = self.tally()
            if found is not None and not has_begun:
                deadline, has_begun = time.monotonic() + seconds, True
            if found is not None and done(found):
                return True
            self.check()
            if time.monotonic() > deadline:
                if has_begun:
                    return False
                raise Failed(f'no task of it ended within {START_TIMEOUT:g} s: {self.log()}')
            meanwhile()
            time.sleep(LOOK)

    def check(self) -> None:
        """It lives. Raises Failed with the end of its log when it does not."""
        if self._process.poll() is not None:
            raise Failed(f'its worker ended with {self._process.returncode}: {self.log()}')

    def log(self) -> str:
        """The end of what it said."""
        return _end(self._log.read_text(errors='replace'))

    def cpu(self) -> float:
        """Seconds of CPU that its processes have used."""
        return float(sum(sum(process.cpu_times()[:2]) for process in self._tree()))

    def memory(self) -> int:
        """Bytes that are its own, and its share of what it has in common with others."""
        return sum(process.memory_full_info().pss for process in self._tree())

    def _tree(self) -> list[psutil.Process]:
        return [self._observed, *self._observed.children(recursive=True)]

    def stop(self) -> None:
        """All its processes have ended."""
        # Killed at once: Redis is emptied next, and some take long to wind up what they have fetched.
        tree = self._tree() if self._process.poll() is None else []
        for process in tree:
            try:
                process.kill()
            except psutil.NoSuchProcess:    # it has ended with its parent
                pass
        _, alive = psutil.wait_procs(tree, STOP_TIMEOUT)
        if alive:
            raise Failed(f'some of its processes cannot be ended: {alive}')
        self._process.wait()


def _end(text: str) -> str:
    """The last lines that say something, in one, without where the checkout is."""
    lines = [line.strip() for line in text.replace(f'{CHECKOUT}{os.sep}', '').splitlines() if re.search(r'[a-z]', line)]
    return ' / '.join(lines[-3:])[-400:] or 'it said nothing'
