"""The application that recovery.py kills: its tasks write down when they start and end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from geventhuey import RedisHuey

HERE = Path(__file__).resolve().parent
#: A task that is to be caught by a death waits for it so long, in seconds.
FOR_DEATH = 600.0

Consumer = subprocess.Popen[bytes]

huey = RedisHuey('recovery')


def note(path: str, word: str, n: int) -> None:
    """One whole line of the journal."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f'{word} {n} {os.getpid()} {time.time():.4f}\n'.encode())
    finally:
        os.close(file)


@huey.task(include_task=True)
def hold(path: str, n: int, seconds: float, deaths: int = 0, task: Any = None) -> None:
    """Waits; and until so many consumers have died under it, for the death of this one."""
    note(path, 'start', n)
    time.sleep(FOR_DEATH if task.deliveries < deaths else seconds)
    note(path, 'end', n)


def start(url: str, workers: int, lease: float, log: Path) -> Consumer:
    """A consumer process with so many greenlets."""
    command = [sys.executable, '-m', 'geventhuey.cli.consumer', 'recovery_app.huey', '-k', 'greenlet', '-w', str(workers), '-t', '0',
               '--lease', str(lease), '--url', url]
    with open(log, 'ab') as file:
        return subprocess.Popen(command, cwd=HERE, stdin=subprocess.DEVNULL, stdout=file, stderr=file)


def end(program: Consumer) -> None:
    """It has ended, however it is."""
    program.kill()
    program.wait()
