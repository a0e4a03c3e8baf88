"""RedisStorage alone: one connection and many callers, some of which are killed or forked."""

from __future__ import annotations

import functools
import os
import random
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gevent
import pytest
from gevent.lock import Semaphore

from geventhuey.exceptions import (
    StorageError,
    StorageOutcomeUnknown,
    StorageUnavailable,
)
from geventhuey.storage.redis.address import Address
from geventhuey.storage.redis.connection import ANSWER_TIMEOUT, SharedLink
from tests.storage.kit import (
    BOUND,
)

CHECKOUT = Path(__file__).resolve().parents[2]


# -- one connection, many callers -------------------------------------------------------------------------------

class Canaries:
    """Callers of one SharedLink, each of which looks whether the answer is its own."""

    def __init__(self, url, engine):
        self.connections = 0
        self.answered = 0
        self._connect = functools.partial(Address.of(url, None, {}).connect, 'canary', engine)
        self.link = SharedLink(self._counted, Semaphore if engine else None)

    def _counted(self):
        self.connections += 1
        return self._connect()

    def call(self, caller, number, size=0):
        """One call with two commands, and its answers looked at."""
        first, second = (f'{caller}:{number}:{command}:'.encode() + bytes(size) for command in (1, 2))
        assert self.link.call((('ECHO', first), ('ECHO', second))) == [first, second]
        self.answered += 1

    def calls(self, caller, count):
        for number in range(count):
            self.call(caller, number)


def test_200_threads_share_a_connection(redis_url):
    canaries = Canaries(redis_url, engine=False)
    with ThreadPoolExecutor(200) as pool:
        futures = [pool.submit(canaries.calls, caller, 20) for caller in range(200)]
    assert [future.result(BOUND) for future in futures] == [None] * 200
    assert canaries.connections == 1
    canaries.link.close()


def test_200_greenlets_share_a_connection(redis_url):
    canaries = Canaries(redis_url, engine=True)
    greenlets = [gevent.spawn(canaries.calls, caller, 20) for caller in range(200)]
    gevent.joinall(greenlets, BOUND, raise_error=True)
    assert (canaries.answered, canaries.connections) == (4000, 1)
    canaries.link.close()


def test_callers_that_are_killed_take_nobodys_answer(redis_url):
    canaries = Canaries(redis_url, engine=True)
    canaries.call('first', 0)
    rng = random.Random(4)
    callers = [gevent.spawn(canaries.calls, caller, 50) for caller in range(100)]
    victims = [gevent.spawn(canaries.calls, f'victim{n}', 10 ** 9) for n in range(100)]

    def give_up(caller):
        for number in range(50):
            with gevent.Timeout(rng.uniform(0.0, 0.004), False):
                canaries.call(caller, number)

    impatient = [gevent.spawn(give_up, f'impatient{n}') for n in range(50)]
    while victims:
        gevent.sleep(0)
        victims.pop(rng.randrange(len(victims))).kill(block=False)
    gevent.joinall(callers + impatient, BOUND, raise_error=True)
    assert all(greenlet.ready() for greenlet in callers + impatient)
    assert canaries.answered > 100 * 50 and canaries.connections == 1
    canaries.link.close()


def test_who_is_killed_while_he_sends_breaks_the_connection_but_no_answer(redis_url):
    canaries = Canaries(redis_url, engine=True)
    canaries.call('first', 0)
    big = gevent.spawn(canaries.call, 'big', 0, 24 * 1024 * 1024)
    unknown = []

    def call(caller):
        try:
            canaries.call(caller, 0)
        except StorageOutcomeUnknown:
            unknown.append(caller)

    gevent.sleep(0)
    callers = [gevent.spawn(call, caller) for caller in range(20)]
    began = time.monotonic()
    big.kill()
    gevent.joinall(callers, BOUND, raise_error=True)
    canaries.call('last', 0)
    assert time.monotonic() - began < ANSWER_TIMEOUT        # nobody waits for an answer to half a command
    assert canaries.answered + len(unknown) == 22
    assert canaries.connections == 2
    canaries.link.close()


def test_an_error_is_raised_for_its_caller_only(redis_kit):
    redis_kit.raw.set(redis_kit.storage.keys.schedule, 'no zset')
    session = redis_kit.storage.session('mixed')
    wrong = [gevent.spawn(session.scheduled_count) for _ in range(10)]
    right = [gevent.spawn(session.pending_count, 'default') for _ in range(10)]
    gevent.joinall(wrong + right, BOUND)
    assert [greenlet.value for greenlet in right] == [0] * 10
    assert {type(greenlet.exception) for greenlet in wrong} == {StorageError}
    session.close()


def test_all_callers_hear_that_redis_is_away(own_kit, server):
    session = own_kit.storage.session('settle')
    server.kill()
    greenlets = [gevent.spawn(session.pending_count, 'default') for _ in range(50)]
    gevent.joinall(greenlets, BOUND)
    assert {type(greenlet.exception) for greenlet in greenlets} == {StorageUnavailable}


FORKED = textwrap.dedent('''
    import os, sys
    from contextlib import ExitStack
    if sys.argv[2] == 'patched':
        from gevent import monkey
        monkey.patch_all()
    from geventhuey.storage.redis import RedisStorage
    from tests.storage.kit import Calls, Consumer, eventually, ids, messages

    storage = RedisStorage('forked', sys.argv[1])
    client = storage._call(('CLIENT', 'ID'))
    parent = Consumer(storage, 'parent')
    storage.enqueue(messages('a b'))
    assert ids(parent.fetch(1)) == 'a'

    def watch(task_id):
        woken = Calls()
        with storage.watching(task_id, woken):
            eventually(lambda: woken.count)
            before = woken.count
            storage.put_result(task_id, b'V', None)
            eventually(lambda: woken.count > before)

    def run_child():
        other = storage._call(('CLIENT', 'ID'))
        assert isinstance(other, int) and other != client
        assert ids(Consumer(storage, 'child').fetch(1)) == 'b'
        storage.wait_wake(['nothing'], 0.01)
        watch('child')

    watch('before')
    storage.wait_wake(['nothing'], 0.01)
    woken = Calls()
    with storage.watching('across', woken):
        eventually(lambda: woken.count)
        pid = os.fork()
        if not pid:
            code = 1
            try:
                run_child()
                code = 0
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                os._exit(code)
        for n in range(300):
            assert storage._call(('ECHO', f'parent{n}')) == f'parent{n}'.encode()
        assert os.waitpid(pid, 0)[1] == 0
        before = woken.count
        storage.put_result('across', b'V', None)
        eventually(lambda: woken.count > before)
    assert storage._call(('CLIENT', 'ID')) == client
    assert len(storage.held('parent')) == len(storage.held('child')) == 1
    watch('after')
    print('as it should be')
''')


def run_program(program, *args):
    """What the program prints; fails when it fails."""
    ended = subprocess.run([sys.executable, '-c', program, *args], cwd=CHECKOUT, capture_output=True, text=True, timeout=60,
                           env={**os.environ, 'PYTHONPATH': str(CHECKOUT)})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize('patched', ['plain', 'patched'])
def test_a_fork_has_connections_of_its_own(redis_url, patched):
    assert run_program(FORKED, redis_url, patched) == 'as it should be\n'


LISTENING = textwrap.dedent('''
    import sys
    from gevent import monkey
    monkey.patch_all()
    from geventhuey import native
    from geventhuey.storage.redis import RedisStorage
    from tests.storage.kit import Calls, eventually

    storage, woken = RedisStorage('listening', sys.argv[1]), Calls()
    with storage.watching('a', woken):
        eventually(lambda: woken.count)
        print(storage._results._carrier._thread == native.thread_id())
''')


def test_results_are_listened_for_in_the_main_hub_where_gevent_has_patched(redis_url):
    # a native thread with a hub of its own may crash the interpreter when that ends
    assert run_program(LISTENING, redis_url) == 'True\n'
