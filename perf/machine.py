"""Machine: what the figures were measured on, and how much of it others used meanwhile."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import psutil

import geventhuey

PACKAGES = ('gevent', 'greenlet', 'redis', 'hiredis')


def describe() -> str:
    """Cores, model and system; no names."""
    return f'{os.cpu_count()} cores, {_model()}, {platform.system()} {platform.machine()}'


def _model() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return models[0] if models else platform.processor() or 'unknown processor'


def versions() -> str:
    """Everything of ours that matters; the server says its own."""
    return ', '.join([f'geventhuey {geventhuey.__version__}', f'{platform.python_implementation()} {platform.python_version()}',
                      *(f'{package} {version(package)}' for package in PACKAGES)])


class Others:
    """How busy the machine is with what is none of ours."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._busy, self._ours = _busy(), _ours()

    def cores(self) -> float:
        """Cores that others used since this object was made, on average. What the host took away counts, too."""
        seconds = time.monotonic() - self._begun
        return max(0.0, (_busy() - self._busy) - (_ours() - self._ours)) / seconds


def _busy() -> float:
    """Seconds that all cores have been busy since the boot."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, 'iowait', 0.0) - getattr(times, 'guest', 0.0) - getattr(times, 'guest_nice', 0.0))


def _ours() -> float:
    """Seconds of CPU of this process and all that it has started."""
    own = os.times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in psutil.Process().children(recursive=True):
        try:
            total += sum(child.cpu_times()[:2])
        except psutil.Error:            # it has ended in between: it is in the children's sum by now, or will be
            pass
    return total
