"""Trial: an application whose every task writes its history, faults that say what they hit, and the judgement at the end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geventhuey.exceptions import EnqueueOutcomeUnknown, QueueWriteException
from geventhuey.message import Message
from geventhuey.testing.history import ENDED, History, Report, Run
from tests.consumer.kit import BOUND, Program, Work, wait_until

AWAY, BACK = 'the storage is away', 'the storage is back'
#: Seconds of silence after which the consumers of a trial are given up.
LEASE = 1.5


class Trial(Work):
    """An application on trial."""

    def __init__(self, url: str, folder: Path, **settings: Any) -> None:
        super().__init__(url, folder, **settings)
        self.history = History(Path(f'{self.journal.path}.history'))
        self.results: dict[str, Any] = {}

    # -- what happens ---------------------------------------------------------------------------------------

    def start(self, *options: str, lease: float = LEASE, ready: bool = True, **environment: str) -> Program:
        """A consumer with a short lease."""
        return self.consume('--lease', str(lease), *options, ready=ready, **environment)

    def give(self, seconds: float = 0.0, fails: int = 0, delay: float | None = None, priority: int = 0) -> Any:
        """A task has been enqueued, or perhaps; the wrapper of its result, or None. What certainly was not is tried again."""
        task = self.task('trial', seconds, fails)
        task.priority = priority
        give_up = time.monotonic() + BOUND
        while True:
            due = None if delay is None else time.time() + delay
            try:
                result = self.huey.enqueue(task) if delay is None else self.huey.add_schedule(task, delay)
            except EnqueueOutcomeUnknown:
                self.history.sent(task.task_id, certain=False, tries=fails + 1)
                return None
            except QueueWriteException:
                if time.monotonic() > give_up:
                    raise
                continue
            self.history.sent(task.task_id, due=due, tries=fails + 1)
            self.results[task.task_id] = result
            return result

    def give_many(self, count: int, seconds: float = 0.0) -> None:
        """So many tasks have been enqueued."""
        for _ in range(count):
            self.give(seconds)

    def runs(self) -> dict[str, list[Run]]:
        """What has run so far."""
        return self.history.runs()

    def started(self) -> int:
        """How many runs there were."""
        return sum(map(len, self.runs().values()))

    def wait_started(self, count: int, bound: float = BOUND) -> None:
        """So many runs have begun."""
        wait_until(lambda: self.started() >= count, bound, lambda: f'{count} starts (there are {self.started()})')

    def wait_ended(self, count: int, bound: float = BOUND) -> None:
        """So many tasks have ended."""
        wait_until(lambda: self.history.ended_count() >= count, bound, lambda: f'{count} ends (there are {self.history.ended_count()})')

    def held_by(self, pid: int) -> set[str]:
        """The ids of what the consumers of this process have in flight."""
        ids = set()
        for name in {*self.consumers(), *(key.decode() for key in self.redis.hkeys(self.keys.consumer_info))}:
            if f':{pid}:' in name:
                ids |= {Message.decode(raw).id for raw in self.redis.hvals(self.keys.inflight(name))}
        return ids

    def kill(self, program: Program, pid: int | None = None) -> set[str]:
        """A consumer (or a child of it) has been killed with -9; answers what it held."""
        pid = pid or program.pid
        began = time.time()
        os.kill(pid, signal.SIGSTOP)        # so that nobody takes it back before it is looked at
        held = self._at_rest(pid)
        os.kill(pid, signal.SIGKILL)
        if pid == program.pid:
            program.wait()
        self.history.fault('kill', pid, began, time.time(), held)
        return held

    def _at_rest(self, pid: int) -> set[str]:
        """What a process that stands still holds, when its last requests have arrived as well."""
        before = None
        while before != (held := self.held_by(pid)):
            before = held
            time.sleep(0.01)
        return held

    @contextmanager
    def stopped(self, program: Program) -> Iterator[set[str]]:
        """Meanwhile the consumer stands still; answers what it held."""
        began = time.time()
        program.signal(signal.SIGSTOP)
        held = self._at_rest(program.pid)
        try:
            yield held
        finally:
            program.signal(signal.SIGCONT)
            self.history.fault('stop', program.pid, began, time.time(), held)

    # -- the judgement --------------------------------------------------------------------------------------

    def judge(self, bound: float = 60.0, kept: Set[str] = frozenset(), tracebacks: int = 0) -> Report:
        """Everything has run to its end, each run is explained, the results are those of runs that ended, and no key is left over.

        Consumers that still live are told to stop, and do.
        """
        self.wait_idle(bound)
        report = self.history.check()
        report.raise_if_wrong()
        runs = self.runs()
        for task_id, result in self.results.items():
            pid, begun = result.get(blocking=True, timeout=BOUND)
            assert any(run.pid == pid and run.how == ENDED and abs(run.started - begun) < 1 for run in runs[task_id]), \
                f'the result of {task_id} is that of no run that ended'
        for program in self.programs:
            if program.process.poll() is None:
                assert program.stop() == 0, program.text()
        assert sum(program.text().count('Traceback') for program in self.programs) == tracebacks
        assert self.leftovers() <= kept
        return report

    def judge_once(self, bound: float = 60.0, **expected: Any) -> Report:
        """The same, and nothing but what the tasks asked for themselves has run twice."""
        report = self.judge(bound, **expected)
        assert not report.explained, report
        return report

    def said_once(self, program: Program) -> None:
        """The consumer said once that the storage was away, and once, with the time, that it is back."""
        program.wait_for(rf'{BACK}, after \d+\.\d s')
        assert len(program.lines(AWAY)) == len(program.lines(BACK)) == 1, program.text()
