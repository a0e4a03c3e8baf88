"""A consumer's way to the storage on which every request is a decision: when it arrives, when its answer does, and whether they do."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gevent
from gevent.hub import Waiter

from geventhuey.message import Message

if TYPE_CHECKING:
    from tests.faults.exploration import World


class Request:
    """One verb that a consumer asks for."""

    def __init__(self, member: Member, role: str, verb: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], time: float) -> None:
        self.member, self.role, self.verb = member, role, verb
        self.args, self.kwargs, self.time = args, kwargs, time
        self.waiter = Waiter()
        self.answer: Any = None
        self.has_failed = False
        #: Nobody waits for the answer any more.
        self.given_up = False
        #: The greenlet that waits in the storage on behalf of this request.
        self.inside: Any = None

    def __str__(self) -> str:
        shown = ', '.join([_shown(arg) for arg in (*self.args, *self.kwargs.values())])
        return f'{self.member} {self.role or "-"}: {self.verb}({shown})'


class Line:
    """A storage for one consumer; ``session`` gives the lines of its parts. Whatever verb it is, the world decides about it."""

    in_process = True

    def __init__(self, world: World, member: Member, role: str = '') -> None:
        self._world, self._member, self._role = world, member, role
        self.name = world.storage.name

    def session(self, role: str) -> Line:
        return Line(self._world, self._member, role)

    def close(self) -> None:
        """Nothing is open."""

    def __getattr__(self, verb: str) -> Any:
        getattr(self._world.storage, verb)
        return functools.partial(self._ask, verb)

    def _ask(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        self._member.go_on()
        request = Request(self._member, self._role, verb, args, kwargs, self._world.loop.time)
        self._world.ask(request)
        try:
            return request.waiter.get()
        finally:
            request.given_up = True
            if request.inside is not None:
                self._world.left(request)
            self._member.go_on()


class Member:
    """A consumer of the world, as a process of its own."""

    def __init__(self, world: World, number: int, workers: int) -> None:
        self.number = number
        self.workers = workers
        self.engine: Any = None
        self.is_dead = self.has_stopped = False
        self.stop_begun: float | None = None
        self.stop_timeout = 0.0
        #: When a request of its was last disturbed or slow.
        self.troubled = -1e9
        #: Its names that were evicted by a fault.
        self.evicted: set[str] = set()
        #: Its names of which it was told that they were taken from it.
        self.lost: set[str] = set()
        #: Ends of deliveries that turned out to be another's, at their first send.
        self.fenced = 0
        self.pid = 100 + number
        self._loop = world.loop
        self._loop.processes[self.pid] = str(number)

    def __str__(self) -> str:
        return f'c{self.number}'

    def info(self) -> dict[str, object]:
        """What it says of itself: half of them are on this host, where others see when it has died."""
        return {'pid': self.pid, 'boot': 'boot' if self.number % 2 else 'elsewhere', 'started': str(self.number)}

    def is_serving(self) -> bool:
        """True when it lives and was not told to stop."""
        return not self.is_dead and self.stop_begun is None

    def go_on(self) -> None:
        """Nothing, in a process that lives; one that was killed never comes back from here."""
        while self.is_dead:
            gevent.get_hub().switch()

    def die(self) -> None:
        """As by kill -9: none of its greenlets does anything that others could see."""
        self.is_dead = True
        self._loop.processes.pop(self.pid, None)


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        try:
            return f'<{Message.decode(value).id}>'
        except Exception:
            return f'{value[:8]!r}'
    if isinstance(value, list) and value and hasattr(value[0], 'tag'):
        return '[' + ', '.join([f'{each.tag}{list(map(lambda e: type(e).__name__, each.effects))}' for each in value]) + ']'
    if isinstance(value, dict):
        return json.dumps(value, default=str)
    return repr(value)[:80]
