"""What the command's tests share: a folder with modules that a test writes, and the command run there as a process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

from tests.consumer.kit import BOUND, Program, Work, wait_until

CONSUMER = (sys.executable, '-m', 'geventhuey.cli.consumer')
PASSWORD = 'open-sesame'

#: An application whose tasks the fixture can send: name and URL are in its environment.
APP = '''
    import os
    from geventhuey import RedisHuey, crontab

    huey = RedisHuey(os.environ['WORK_NAME'], url=os.environ['WORK_URL'])

    @huey.task(name='add')
    def add(a, b):
        return a + b

    @huey.task(name='fail')
    def fail(n, kind):
        raise LookupError('as it should')

    @huey.periodic_task(crontab(minute='0'), name='hourly')
    def hourly():
        pass

    @huey.periodic_task(lambda moment: False, name='by_itself')
    def by_itself():
        pass
'''


class Ended(NamedTuple):
    """How a command has ended, and what it said."""

    code: int
    out: str
    error: str


class Site(Work):
    """A folder with modules in it, and programs that run there."""

    def write(self, **modules: str) -> None:
        """The modules are in the folder."""
        for name, text in modules.items():
            (self.folder / f'{name}.py').write_text(textwrap.dedent(text))

    def end(self, *options: str, command: tuple[str, ...] = CONSUMER, **environment: str) -> Ended:
        """The command has ended by itself."""
        ended = subprocess.run((*command, *options), cwd=self.folder, env={**self.environment, **environment}, stdin=subprocess.DEVNULL,
                               capture_output=True, text=True, timeout=BOUND)
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def start(self, *options: str, command: tuple[str, ...] = CONSUMER, **environment: str) -> Program:
        """The command runs."""
        return self.run(*command, *options, cwd=self.folder, **environment)

    def start_ready(self, *options: str, command: tuple[str, ...] = CONSUMER, count: int = 1, **environment: str) -> Program:
        """The command runs, and as many consumers more than before are registered."""
        known = set(self.consumers())
        program = self.start(*options, command=command, **environment)

        def is_ready() -> bool:
            assert program.process.poll() is None, f'it ended with {program.process.poll()}:\n{program.text()}'
            return len(set(self.consumers()) - known) >= count
        wait_until(is_ready, what=lambda: f'{count} consumers that register:\n{program.text()}\n')
        return program


def errors(program: Program) -> list[str]:
    """The log's lines of level ERROR."""
    return program.lines('] ERROR:')


def variable_of(pid: int, name: str) -> str:
    """The value that a process was started with; empty when there is none, or no such process."""
    try:
        said = Path(f'/proc/{pid}/environ').read_bytes().decode(errors='replace').split('\0')
    except (FileNotFoundError, ProcessLookupError):
        return ''
    return next((entry.partition('=')[2] for entry in said if entry.startswith(f'{name}=')), '')
