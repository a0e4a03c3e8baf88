"""Contenders: what each needs, and how its worker is started. Can be read without any of the libraries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Contender(NamedTuple):
    """One column of the tables."""

    name: str
    #: As it is called in the tables.
    title: str
    #: What pip installs, in exact versions.
    requirements: tuple[str, ...]
    #: The worker's command: ``{bin}`` is the folder with the programs of its environment, ``{slots}`` is how many tasks run at once.
    command: tuple[str, ...]
    #: Its mode in a few words; the module says why.
    mode: str
    #: Whether a producer with 500 callers is patched by gevent; otherwise they are coroutines.
    greenlets: bool = False
    #: Whether the checkout is installed into the environment.
    checkout: bool = False
    #: Packages without a wheel, which have to be built.
    built: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}

    @property
    def module(self) -> str:
        """The module with its tasks and its producer."""
        return f'{self.name}_peer'


GEVENT = ('gevent==26.9.0', 'greenlet==3.5.6')
REDIS = ('redis==8.1.0', 'hiredis==3.5.0')
UVLOOP = ('uvloop==0.23.0',)

CONTENDERS = {contender.name: contender for contender in (
    Contender(
        'geventhuey', 'geventhuey', (*GEVENT, *REDIS, 'tqdm==4.70.1'),
        ('{bin}/python', '-m', 'geventhuey.cli.consumer', 'geventhuey_peer.huey', '-k', 'greenlet', '-w', '{slots}', '-q'),
        'geventhuey-consumer -k greenlet', greenlets=True, checkout=True),
    Contender(
        'huey', 'Huey', ('huey==3.5.4', *GEVENT, *REDIS),
        ('{bin}/python', '-m', 'gevent.monkey', '{bin}/huey_consumer', 'huey_peer.huey', '-k', 'greenlet', '-w', '{slots}', '-q'),
        'huey_consumer -k greenlet, blocking pop, notify_result', greenlets=True),
    Contender(
        'dramatiq', 'Dramatiq', ('dramatiq==2.2.1', *GEVENT, *REDIS),
        ('{bin}/dramatiq-gevent', 'dramatiq_peer', '-p', '1', '-t', '{slots}', '--skip-logging'),
        'dramatiq-gevent -p 1, Redis broker, Redis results', greenlets=True),
    Contender(
        'celery', 'Celery', ('celery[redis]==5.7.0', *GEVENT, *REDIS),
        ('{bin}/celery', '-A', 'celery_peer:app', 'worker', '-P', 'gevent', '-c', '{slots}', '-l', 'ERROR', '--without-gossip',
         '--without-mingle', '--without-heartbeat'),
        'celery worker -P gevent, acks_late, prefetch 4 a slot, no events; Redis broker and result backend', greenlets=True),
    # arq does not go with a later redis-py.
    Contender(
        'arq', 'arq', ('arq==0.28.0', 'redis==5.3.1', 'hiredis==3.5.0', *UVLOOP),
        ('{bin}/arq', 'arq_peer.WorkerSettings', '--custom-log-dict', 'arq_peer.LOGGING'),
        'uvloop, poll_delay 0.05 s (worker) and 0.01 s (callers)'),
    Contender(
        'saq', 'SAQ', ('saq==0.26.4', 'typing_extensions==4.16.0', *REDIS, *UVLOOP), ('{bin}/saq', 'saq_peer.settings', '-q'),
        'uvloop, no limit to connections'),
    Contender(
        'taskiq', 'taskiq', ('taskiq==0.13.0', 'taskiq-redis==1.2.4', *REDIS, *UVLOOP),
        ('{bin}/taskiq', 'worker', 'taskiq_peer:broker', '--workers', '1', '--max-async-tasks', '{slots}', '--log-level', 'ERROR'),
        'uvloop, RedisStreamBroker (the one that acknowledges), Redis results, callers poll every 0.01 s'),
    Contender(
        'streaq', 'streaQ', ('streaq==7.2.0', 'coredis==6.9.0', *UVLOOP), ('{bin}/streaq', 'run', 'streaq_peer:worker'),
        'uvloop, prefetch of one a slot', built=('crontab',)),
)}
