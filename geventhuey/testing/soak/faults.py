"""What is done to the soak's consumers, to their connections and to the server."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import redis

from geventhuey.exceptions import StorageUnavailable
from geventhuey.storage.base import BaseStorage
from geventhuey.testing import fault_proxy
from geventhuey.testing.fault_proxy import FaultProxy
from geventhuey.testing.history import History
from geventhuey.testing.redis_server import RedisServer
from geventhuey.testing.soak.fleet import Fleet

T = TypeVar('T')

KINDS = ('kill', 'stop', 'client-kill', 'cut', 'redis-kill')
#: Seconds in which a request that a process had sent before it was stopped has certainly been dealt with.
ON_THE_WAY = 0.05
#: How long a process stands still, in leases: so short that it keeps what it holds, or so long that it loses it.
SHORT, LONG = (0.05, 0.5), (1.5, 3.0)
#: What befalls connections; how long they are held or slow, in leases: so short that a beat comes in time.
CUTS, HELD = (*fault_proxy.KINDS, *fault_proxy.KINDS, 'close', 'hold', 'latency'), (0.02, 0.3)
#: Seconds: longer than any call waits for an answer; what each request and answer takes longer; and how long the server is away.
OUTLASTING, LATENCY, DOWN = 5.5, (0.01, 0.1), (0.1, 2.0)


class Faults(NamedTuple):
    """How many faults of each kind."""

    kill: int = 0
    stop: int = 0
    client_kill: int = 0
    cut: int = 0
    redis_kill: int = 0

    def drawn(self, dice: random.Random) -> list[tuple[float, str]]:
        """All of them in the order in which they are to happen, each with the share of the tasks that are to have ended before."""
        kinds = [kind for kind, count in zip(KINDS, self, strict=True) for _ in range(count)]
        dice.shuffle(kinds)
        return list(zip(sorted(dice.uniform(0.02, 0.95) for _ in kinds), kinds, strict=True))


class Injector:
    """Does what is to go wrong, spread over the run, and records it.

    :param storage: the application's, by a way without faults.
    :param admin: a client of the same server.
    :param name_of: what the history calls the try that a message is.
    :param progress: answers which share of the tasks has ended.
    """

    def __init__(self, faults: Faults, seed: int, fleet: Fleet, storage: BaseStorage, admin: redis.Redis, history: History,
                 name_of: Callable[[bytes], str], lease: float, progress: Callable[[], float], proxy: FaultProxy | None,
                 server: RedisServer | None) -> None:
        self._dice = random.Random(seed)
        self._faults = faults
        self._plan = faults.drawn(self._dice)
        self._fleet = fleet
        self._storage = storage
        self._admin = admin
        self._history = history
        self._name_of = name_of
        self._lease = lease
        self._progress = progress
        self._proxy = proxy
        self._server = server
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._standing: dict[int, threading.Thread] = {}
        #: How many there have been of each kind.
        self.done = dict.fromkeys(KINDS, 0)
        self._slow = 0
        self.error: Exception | None = None

    def start(self) -> None:
        """Faults happen."""
        self._thread.start()

    @property
    def has_cut(self) -> bool:
        """True when connections are to break."""
        return any((self._faults.client_kill, self._faults.cut, self._faults.redis_kill))

    def cuts(self) -> dict[str, int]:
        """What the proxy has done, by kind."""
        if self._proxy is None:
            return {}
        return {**{kind: count for kind, count in self._proxy.statistics.items() if kind != 'connections'}, 'latency': self._slow}

    def summary(self) -> str:
        """What has gone wrong so far, in short."""
        return ', '.join(f'{count} {kind}' for kind, count in self.done.items() if count)

    @property
    def is_done(self) -> bool:
        """True when nothing more will go wrong, and no process stands still."""
        return not self._thread.is_alive() and not self._stands()

    def stop(self) -> None:
        """Nothing goes wrong any more."""
        self._stopped.set()
        for thread in (self._thread, *self._standing.values()):
            if thread.is_alive():
                thread.join()

    def _run(self) -> None:
        try:
            for share, kind in self._plan:
                while self._progress() < share:
                    if self._stopped.wait(0.01):
                        return
                while not getattr(self, '_' + kind.replace('-', '_'))():
                    if self._stopped.wait(0.1):
                        return
                self.done[kind] += 1
        except Exception as exc:
            self.error = exc

    # -- each answers whether it has happened ---------------------------------------------------------------

    def _kill(self) -> bool:
        pid = self._victim()
        if pid is None:
            return False
        os.kill(pid, signal.SIGSTOP)        # so that nobody takes back what it holds before we have seen it
        try:
            held = self._held(pid)
        finally:
            moment = time.time()
            self._fleet.kill(pid)
        self._history.fault('kill', pid, moment, moment, held)
        return True

    def _stop(self) -> bool:
        pid = self._victim()
        if pid is None:
            return False
        seconds = self._dice.uniform(*self._dice.choice((SHORT, LONG))) * self._lease
        began = time.time()
        os.kill(pid, signal.SIGSTOP)

        def go_on(held: frozenset[str]) -> None:
            self._stopped.wait(max(0.0, began + seconds - time.time()))
            os.kill(pid, signal.SIGCONT)
            self._history.fault('stop', pid, began, time.time(), held)
        try:
            held = self._held(pid)
        except BaseException:
            os.kill(pid, signal.SIGCONT)
            raise
        self._standing[pid] = threading.Thread(target=go_on, args=(held,), daemon=True)
        self._standing[pid].start()
        return True

    def _client_kill(self) -> bool:
        ours = [client for client in self._admin.client_list() if client['name'].startswith(f'geventhuey:{self._storage.name}:')]
        if not ours:
            return False
        client = self._dice.choice(ours)
        moment = time.time()
        if not self._admin.client_kill_filter(_id=client['id']):
            return False                    # it has gone by itself
        self._history.fault('client-kill', None, moment, time.time(), ())
        return True

    def _cut(self) -> bool:
        """Something happens to a connection of one role, or to several; it excuses no second run."""
        assert self._proxy is not None
        proxy, dice, began = self._proxy, self._dice, time.time()
        role = dice.choice(sorted(set(proxy.connections()) - {''}) or [''])
        kind = dice.choice(CUTS)
        if kind == 'hold' and role in ('beat', '') and self._stands():
            return False                    # together they may last as long as a lease
        if kind == 'close':
            struck = proxy.cut(role) > 0
        elif kind == 'hold':
            proxy.hold(role)
            # for longer than a call waits for its answer; but a beat that does not come through is a reason to give a consumer up
            is_long = role != 'beat' and dice.random() < 0.1
            self._stopped.wait(OUTLASTING if is_long else dice.uniform(*HELD) * self._lease)
            proxy.release(drop=dice.random() < 0.5)
            struck = not self._stopped.wait(self._lease / 5)
        elif kind == 'latency':
            proxy.latency = dice.uniform(*LATENCY)
            struck = not self._stopped.wait(dice.uniform(*HELD) * self._lease)
            proxy.latency = 0.0
            self._slow += 1
        else:
            before = proxy.statistics[kind]
            proxy.next(kind, role=role, keep=dice.randrange(1, 8))
            struck = self._comes_true(lambda: proxy.statistics[kind] > before)
        self._history.fault('cut', None, began, time.time(), ())
        return struck

    def _redis_kill(self) -> bool:
        """The server is gone for a while. What it has answered it remembers, so that excuses nothing either."""
        assert self._server is not None
        began = time.time()
        self._server.kill()
        self._stopped.wait(self._dice.uniform(*DOWN))
        self._server.restart()
        self._history.fault('redis-kill', None, began, time.time(), ())
        return True

    # -- means ----------------------------------------------------------------------------------------------

    def _comes_true(self, condition: Callable[[], bool]) -> bool:
        """True as soon as the condition holds, False when it does not within a second."""
        deadline = time.monotonic() + 1
        while not condition():
            if time.monotonic() > deadline or self._stopped.wait(0.005):
                return False
        return True

    def _victim(self) -> int | None:
        """A consumer that runs and has registered, at random; None while there is none."""
        able = sorted(set(self._surely(self._names)) & set(self._fleet.pids()) - self._stands())
        return self._dice.choice(able) if able else None

    def _stands(self) -> set[int]:
        """Those that stand still."""
        return {pid for pid, thread in list(self._standing.items()) if thread.is_alive()}

    def _names(self) -> dict[int, list[str]]:
        """The names under which processes have registered and may hold something, by pid."""
        names: dict[int, list[str]] = {}
        for name in {**self._storage.consumers(), **self._storage.consumer_info()}:
            names.setdefault(int(name.split(':')[-2]), []).append(name)
        return names

    def _held(self, pid: int) -> frozenset[str]:
        """The ids of the tasks that a process holds, and of those that were on their way to it: it stands still."""
        def look() -> set[str]:
            return {self._name_of(delivery.message) for name in self._names().get(pid, ())
                    for delivery in self._storage.recall(name, self._storage.held(name))}
        held = self._surely(look)
        time.sleep(ON_THE_WAY)
        return frozenset(held | self._surely(look))

    @staticmethod
    def _surely(look: Callable[[], T]) -> T:
        """What a look at the storage shows, even though its connection may just have been one of those that were closed."""
        for _ in range(3):
            try:
                return look()
            except StorageUnavailable:
                pass
        return look()
