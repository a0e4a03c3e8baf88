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
)}
