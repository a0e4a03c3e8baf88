"""What the API's tests share: programs of their own, bounded waits, and one who ends tasks while others wait."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]

#: Seconds within which anything that is waited for has to happen, on a loaded machine.
BOUND = 20.0


def wait_until(condition: Callable[[], Any], bound: float = BOUND) -> Any:
    """What the condition answers, as soon as that is true."""
    give_up = time.monotonic() + bound
    while not (answer := condition()):
        assert time.monotonic() < give_up, 'it did not come about'
        time.sleep(0.002)
    return answer


class InThread:
    """A function that runs in a native thread; ``result()`` is what it returned or raised."""

    def __init__(self, run: Callable[[], Any]) -> None:
        self._run = run
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._value, self._error = self._run(), None
        except BaseException as exc:
            self._value, self._error = None, exc

    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> Any:
        self._thread.join(BOUND)
        assert self.is_over(), 'it still runs'
        if self._error is not None:
            raise self._error
        return self._value


def run_python(arguments: Sequence[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own that finds the package as any other."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=program_environment(**environment), capture_output=True, text=True, timeout=60)


def program_environment(**environment: str) -> dict[str, str]:
    """The environment of a program that is to find the package."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith('GEVENTHUEY_')}
    return {**inherited, 'PYTHONPATH': str(CHECKOUT), 'PYTHONDONTWRITEBYTECODE': '1', **environment}


def said(ended: subprocess.CompletedProcess[str]) -> str:
    """What the program printed; fails with its error when it did not end well."""
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def write(folder: Path, name: str, source: str) -> Path:
    """A file with this source."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source), encoding='utf-8')
    return path
