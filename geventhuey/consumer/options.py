"""What a consumer can be told. One field is one default, one flag and one line of help, and is checked when it is set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from geventhuey.exceptions import ConfigurationError

WORKER_THREAD, WORKER_GREENLET, WORKER_PROCESS = WORKER_TYPES = ('thread', 'greenlet', 'process')

#: More workers than this in one process are a mistake: each holds at least 10 kB.
MAX_WORKERS = 1_000_000
MAX_THREADS = 10_000
MAX_PROCESSES = 1024


def option(default: Any, flags: Sequence[str], help: str, group: str = 'work', check: Callable[[Any], bool] | None = None,
           needs: str = '', kind: type | None = None, command_default: Any = dataclasses.MISSING) -> Any:
    """A field of Options. ``check`` must hold for its value, which ``needs`` puts into words; ``kind`` converts the flag's text."""
    return dataclasses.field(default=default, metadata={
        'flags': tuple(flags), 'help': help, 'group': group, 'check': check, 'needs': needs, 'kind': kind or type(default),
        'command_default': default if command_default is dataclasses.MISSING else command_default})


def _between(lowest: float, highest: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and lowest <= value <= highest


def _whole(lowest: int, highest: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest


@dataclasses.dataclass
class Options:
    """The settings of a consumer, with Huey's names and defaults. Raises ConfigurationError for a value that makes no sense."""

    workers: int = option(1, ('-w', '--workers'), 'tasks that run at the same time in one process', check=_whole(1, MAX_WORKERS),
                          needs=f'a whole number from 1 to {MAX_WORKERS}', command_default=100)
    worker_type: str = option(WORKER_THREAD, ('-k', '--worker-type'), 'what a task runs in: greenlet, thread or process',
                              check=lambda value: value in WORKER_TYPES, needs='thread, greenlet or process',
                              command_default=WORKER_GREENLET)
    processes: int = option(1, ('-p', '--processes'), 'consumer processes, each with its own workers; crashed ones are started again',
                            check=_whole(1, MAX_PROCESSES), needs=f'a whole number from 1 to {MAX_PROCESSES}')
    periodic: bool = option(True, ('-n', '--no-periodic'), 'do not enqueue periodic tasks', 'time')
    utc: bool = option(True, ('-o', '--localtime'), 'crontab means local time instead of UTC', 'time')
    scheduler_interval: float = option(1, ('-s', '--scheduler-interval'),
                                       'accepted for Huey: due tasks run to the millisecond, whatever it says', 'compatible',
                                       check=_between(0, 3600), needs='seconds, 1 to 60', kind=float)
    initial_delay: float = option(0.1, ('-d', '--delay'), 'accepted for Huey: nothing polls', 'compatible',
                                  check=_between(0, 86400), needs='seconds, not negative')
    max_delay: float = option(10.0, ('-m', '--max-delay'), 'accepted for Huey: nothing polls', 'compatible',
                              check=_between(0, 86400), needs='seconds, not negative')
    backoff: float = option(1.15, ('-b', '--backoff'), 'accepted for Huey: nothing polls', 'compatible',
                            check=_between(1, 1000), needs='a number of at least 1')
    check_worker_health: bool = option(True, ('-C', '--disable-health-check', '--disable_health_check'),
                                       'do not look after the parts of the consumer', 'health')
    health_check_interval: float = option(1, ('-c', '--health-check-interval', '--health_check_interval'),
                                          'seconds between looks at the parts of the consumer', 'health',
                                          check=_between(0.01, 3600), needs='seconds from 0.01 to 3600', kind=float)
    shutdown_timeout: float = option(25.0, ('-t', '--shutdown-timeout'),
                                     'seconds that running tasks have to end; what does not goes back to its queue', 'health',
                                     check=_between(0, 86400), needs='seconds, not negative')
    lease: float = option(15.0, ('--lease',), 'seconds without a sign of life after which a consumer is given up', 'health',
                          check=_between(0.2, 3600), needs='seconds from 0.2 to 3600')
    max_deliveries: int = option(5, ('--max-deliveries',), 'consumers that may die under a task before it goes to the dead letters',
                                 'health', check=_whole(1, 255), needs='a whole number from 1 to 255')
    name: str = option('', ('--name',), 'what this consumer calls itself, instead of the host name', 'health',
                       check=lambda value: isinstance(value, str) and len(value) <= 100 and value.isprintable() and ' ' not in value,
                       needs='at most 100 printable characters without blanks')

    def __post_init__(self) -> None:
        if self.worker_type == 'gevent':        # Huey's other name for it
            self.worker_type = WORKER_GREENLET
        for field in dataclasses.fields(self):
            check, value = field.metadata['check'], getattr(self, field.name)
            if check is not None and not check(value):
                raise ConfigurationError(f'{field.name}={value!r}: {field.metadata["needs"]} is needed')
        self.scheduler_interval = min(60, max(1, self.scheduler_interval))
        if self.worker_type == WORKER_THREAD and self.workers > MAX_THREADS:
            raise ConfigurationError(f'workers={self.workers} threads are too many (at most {MAX_THREADS}): use worker_type=greenlet')
        if self.worker_type == WORKER_PROCESS:
            if self.processes > 1:
                raise ConfigurationError('worker_type=process starts one process for each worker: give -w alone, '
                                         'or -p with -k greenlet or thread')
            if self.workers > MAX_PROCESSES:
                raise ConfigurationError(f'workers={self.workers} processes are too many (at most {MAX_PROCESSES})')

    @property
    def beat_interval(self) -> float:
        """Seconds between two signs of life: five in a lease, so that a few may get lost."""
        return self.lease / 5
