"""Driver: the producer, in a contender's own environment. ``python driver.py PEER ACTION '{"json": "arguments"}'`` prints JSON.

Every peer has the same functions, as coroutines when it lives on asyncio: ``call``, ``bulk`` (None when it has no such thing), ``wait``,
``schedule``, and optionally ``open``, ``close``.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

#: Callers at once.
CALLERS = 500
#: Calls in one bulk call.
BULK = 1000
#: Calls between two looks at the clock.
LOOK = 20
TIMEOUT = 30.0


class Producer:
    """What a program does that calls tasks. Everything is a coroutine; those of the peers on greenlets never suspend."""

    def __init__(self, peer: Any) -> None:
        self.peer = peer
        self.is_async = inspect.iscoroutinefunction(peer.call)

    async def perform(self, action: str, arguments: dict[str, Any]) -> Any:
        await self.hook('open')
        try:
            return await getattr(self, action)(**arguments)
        finally:
            await self.hook('close')

    async def hook(self, name: str) -> None:
        await _awaited(getattr(self.peer, name, lambda: None)())

    async def call(self, task: str, *args: Any) -> Any:
        return await _awaited(self.peer.call(getattr(self.peer, task), *args))

    async def enqueue(self, task: str, args: list[Any], how: str, count: int, seconds: float) -> dict[str, Any] | None:
        """So many calls, or fewer when the time is up; None when there is no such way."""
        if how == 'bulk' and self.peer.bulk is None:
            return None
        await self.call(task, *args)
        begun = time.perf_counter()
        done = await getattr(self, f'_by_{how}')(task, args, count - 1, begun + seconds)
        return {'count': done + 1, 'rate': done / (time.perf_counter() - begun)}

    async def _by_one(self, task: str, args: list[Any], count: int, deadline: float) -> int:
        function, call = getattr(self.peer, task), self.peer.call
        for done in range(count):
            if done % LOOK == 0 and time.perf_counter() > deadline:
                return done
            if self.is_async:
                await call(function, *args)
            else:
                call(function, *args)
        return count

    async def _by_bulk(self, task: str, args: list[Any], count: int, deadline: float) -> int:
        function, done = getattr(self.peer, task), 0
        while done < count and time.perf_counter() < deadline:
            size = min(BULK, count - done)
            await _awaited(self.peer.bulk(function, [args] * size))
            done += size
        return done

    async def _by_many(self, task: str, args: list[Any], count: int, deadline: float) -> int:
        share = -(-count // CALLERS)
        if self.is_async:
            return sum(await asyncio.gather(*(self._by_one(task, args, share, deadline) for _ in range(CALLERS))))
        import gevent  # the process is patched: see main()
        callers = [gevent.spawn(_run, self._by_one(task, args, share, deadline)) for _ in range(CALLERS)]
        return sum(caller.get() for caller in gevent.joinall(callers, raise_error=True))

    async def start_latency(self, samples: int) -> None:
        """The worker takes down what it sees."""
        for _ in range(samples):
            await self._pause()
            await self.call('started', time.time())

    async def round_trip(self, samples: int) -> list[float]:
        """Seconds from before a call until its result is there, one after the other."""
        found = []
        for _ in range(samples):
            await self._pause()
            begun = time.perf_counter()
            await _awaited(self.peer.wait(await self.call('noop'), TIMEOUT))
            found.append(time.perf_counter() - begun)
        return found

    async def schedule(self, samples: int, ahead: float, spread: float) -> bool:
        """Tasks at random times within ``spread`` seconds, the first of them ``ahead`` from now; False when there is no such way."""
        if self.peer.schedule is None:
            return False
        begin = time.time() + ahead
        for eta in sorted(begin + random.random() * spread for _ in range(samples)):
            await _awaited(self.peer.schedule(self.peer.started, eta, eta))
        return True

    async def _pause(self) -> None:
        """No two calls in step with anything that polls."""
        seconds = random.uniform(0.002, 0.012)
        if self.is_async:
            await asyncio.sleep(seconds)
        else:
            time.sleep(seconds)


async def _awaited(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


def _run(coroutine: Any) -> Any:
    """The answer of a coroutine that never suspends; it blocks, or switches greenlets, instead."""
    try:
        coroutine.send(None)
    except StopIteration as exc:
        return exc.value
    raise RuntimeError('it was suspended')


def main(name: str, action: str, text: str) -> None:
    arguments = json.loads(text)
    greenlets = arguments.pop('greenlets')
    if greenlets and arguments.get('how') == 'many':
        from gevent import monkey
        monkey.patch_all()
    producer = Producer(importlib.import_module(name))
    performed = producer.perform(action, arguments)
    run: Callable[[Any], Any] = asyncio.run if producer.is_async else _run
    if producer.is_async:
        import uvloop
        run = uvloop.run
    print(json.dumps(run(performed)))


if __name__ == '__main__':
    main(*sys.argv[1:])
