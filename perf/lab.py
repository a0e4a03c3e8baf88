"""Lab: a Redis of its own, and real consumer processes that work on it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import redis
import speed_app
from tqdm import tqdm

from geventhuey import Huey
from geventhuey.testing.redis_server import RedisServer

HERE = Path(__file__).resolve().parent
#: Seconds that anything may take: for slow machines.
PATIENCE = 600.0
START_TIMEOUT = 60.0
#: Seconds between two looks at what is settled.
LOOK = 0.005


class Drained(NamedTuple):
    """What it took to empty a queue."""

    tasks: int
    #: From the last look that saw none settled to the first one that saw all.
    seconds: float
    #: Unix seconds of that last look.
    ended: float
    consumer_cpu: float
    redis_cpu: float

    @property
    def rate(self) -> float:
        """Tasks per second."""
        return self.tasks / self.seconds


class Lab:
    """Where the questions are asked. ``tasks`` and ``workers`` are what the command was told; samples follow from them."""

    def __init__(self, server: RedisServer, tasks: int, workers: int, progress: bool = True) -> None:
        self.server = server
        self.tasks = tasks
        self.workers = workers
        self.redis = redis.Redis.from_url(server.url)
        self._progress = progress
        for app in (speed_app.huey, speed_app.forgetful):
            app.use_url(server.url)

    @property
    def samples(self) -> int:
        """How often something is measured whose spread matters: 1,000 times, as a rule."""
        return min(1000, max(10, self.tasks // 100))

    @property
    def share(self) -> float:
        """How much of a whole measurement this is: 1 from 100,000 tasks on."""
        return min(1.0, self.tasks / 100_000)

    def bar(self, what: str, total: int) -> Any:
        """A progress bar."""
        return tqdm(total=total, desc=what, unit=' tasks', leave=False, disable=not self._progress)

    @contextmanager
    def consumer(self, huey: Huey, workers: int | None = None, processes: int = 1) -> Iterator[ConsumerProcess]:
        """A consumer with greenlets, of one process or several, and how much it uses."""
        name = next(name for name, value in vars(speed_app).items() if value is huey)
        process = ConsumerProcess(self, huey, name, self.workers if workers is None else workers, processes)
        try:
            yield process
        finally:
            process.stop()

    def drain(self, huey: Huey, consumer: ConsumerProcess, tasks: int) -> Drained:
        """Waits until all tasks are settled: none is in the queue or in flight, and with results on, each has one."""
        begun = None
        with self.bar(f'{tasks:,} tasks run', tasks) as bar:
            while True:
                now, wall, used = time.monotonic(), time.time(), consumer.cpu()
                server_used = _cpu(self.server.pid)
                settled = self._settled(huey, consumer, tasks)
                if not settled or begun is None:
                    begun = now, used, server_used
                    if settled:
                        raise RuntimeError(f'{settled} tasks were settled before anybody looked')
                bar.update(settled - bar.n)
                if settled >= tasks:
                    break
                consumer.check()
                time.sleep(LOOK)
        if huey.results and huey.result_count() != tasks:
            raise RuntimeError(f'{tasks} tasks have left {huey.result_count()} results')
        return Drained(tasks, now - begun[0], wall, used - begun[1], server_used - begun[2])

    def _settled(self, huey: Huey, consumer: ConsumerProcess, tasks: int) -> int:
        """How many tasks are settled, by what is in Redis at one moment."""
        if not consumer.names():
            return 0
        left, size = self.left(huey, consumer)
        ended: int = tasks - left
        return min(ended, size) if huey.results and ended == tasks else ended

    def left(self, huey: Huey, consumer: ConsumerProcess) -> tuple[int, int]:
        """How many tasks are in the queue or in flight, and how many keys Redis has, at one moment."""
        storage: Any = huey.storage
        pipeline = self.redis.pipeline(transaction=True)
        pipeline.llen(storage.keys.queue('default')).dbsize()
        for name in consumer.names():
            pipeline.hlen(storage.keys.inflight(name))
        queued, size, *inflight = pipeline.execute()
        return queued + sum(inflight), size


class ConsumerProcess:
    """``geventhuey-consumer -k greenlet`` on the lab's Redis."""

    def __init__(self, lab: Lab, huey: Huey, name: str, workers: int, processes: int = 1) -> None:
        self._lab = lab
        self._huey = huey
        self._log = lab.server.directory / 'consumer.log'
        command = [sys.executable, '-m', 'geventhuey.cli.consumer', f'speed_app.{name}', '-k', 'greenlet', '-w', str(workers),
                   '-p', str(processes), '-t', '1', '--url', lab.server.url]
        with open(self._log, 'wb') as log:
            self._process = subprocess.Popen(command, cwd=HERE, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._observed = psutil.Process(self._process.pid)
        self._processes = processes
        self._names: list[str] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    def names(self) -> list[str]:
        """What its processes are called in the storage; none until all have registered."""
        if not self._names:
            found = list(self._huey.storage.consumers())
            self._names = found if len(found) >= self._processes else []
        return self._names

    def ready(self) -> ConsumerProcess:
        """It waits for tasks; returns self."""
        self.wait_until(lambda: bool(self.names()), START_TIMEOUT)
        return self

    def wait_until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """The condition holds. Raises RuntimeError when it does not within so many seconds, or the process ends."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f'it did not come true within {seconds:g} s\n{self.log()}')
            time.sleep(0.01)

    def check(self) -> None:
        """It lives. Raises RuntimeError, with the end of its log, when it does not."""
        if self._process.poll() is not None:
            raise RuntimeError(f'the consumer ended with {self._process.returncode}\n{self.log()}')

    def log(self) -> str:
        """The end of what it said."""
        return self._log.read_text(errors='replace')[-5000:]

    def cpu(self) -> float:
        """Seconds of CPU that it has used, with all its processes."""
        return _cpu(self.pid) + sum(_cpu(child.pid) for child in self._children())

    def suspend(self) -> None:
        """It stands still, and all its processes."""
        for process in (self._observed, *self._children()):
            process.suspend()

    def resume(self) -> None:
        """It goes on."""
        for process in (*self._children(), self._observed):
            process.resume()

    def _children(self) -> list[psutil.Process]:
        return self._observed.children(recursive=True) if self._processes > 1 else []

    def connections(self) -> list[str]:
        """What each of its connections to Redis is called, by Redis."""
        ports = {connection.laddr.port for connection in self._observed.net_connections('tcp')
                 if connection.raddr and connection.raddr.port == self._lab.server.port}
        clients = {int(client['addr'].rpartition(':')[2]): client['name'] for client in self._lab.redis.client_list()}
        return sorted(clients.get(port, 'unknown').rpartition(':')[2] for port in ports)

    def stop(self) -> None:
        """It has ended, and what it left in Redis is gone."""
        if self._process.poll() is None:
            self.resume()
            self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._lab.server.flush()


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has used, in user and system mode."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
