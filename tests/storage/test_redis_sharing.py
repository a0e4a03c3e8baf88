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
from geventhuey.storage.redis.connection import ANSWER_TIMEOUT, MAX_ALONE, SharedLink, _Turns
from geventhuey.testing.fault_proxy import FaultProxy
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


def count_writes(canaries):
    """How often the canaries' connection is written to from now on."""
    writes = []
    link = canaries.link._connected()
    send = link.send

    def counted(data):
        writes.append(len(data))
        send(data)

    link.send = counted
    return writes


def test_greenlets_of_a_patched_process_share_their_round_trips_although_one_alone_spins(redis_url):
    program = """
        import gevent.monkey; gevent.monkey.patch_all()
        import sys
        import gevent
        sys.path.insert(0, sys.argv[1])
        from tests.storage.test_redis_sharing import BOUND, Canaries, count_writes
        canaries = Canaries(sys.argv[2], engine=False)
        writes = count_writes(canaries)
        canaries.calls('alone', 100)
        alone = len(writes)
        gevent.joinall([gevent.spawn(canaries.calls, caller, 20) for caller in range(500)], BOUND, raise_error=True)
        print(alone, len(writes) - alone, canaries.answered)
    """
    ended = subprocess.run([sys.executable, '-c', textwrap.dedent(program), str(CHECKOUT), redis_url], capture_output=True, text=True,
                           timeout=BOUND)
    assert ended.returncode == 0, ended.stderr
    alone, together, answered = map(int, ended.stdout.split())
    assert (alone, answered) == (100, 10_100) and together < 1000


def test_a_server_that_is_far_away_is_spun_for_less_and_less_often(redis_server):
    with FaultProxy(redis_server.port) as proxy:
        proxy.latency = 0.003
        canaries = Canaries(f'redis://127.0.0.1:{proxy.port}/0', engine=False)
        spins = []
        link = canaries.link._connected()
        spin = link.spin
        link.spin = lambda seconds: spins.append(spin(seconds)) or spins[-1]
        canaries.calls('patient', 200)
        canaries.link.close()
    assert len(spins) < 10 and not any(spins)


def test_one_who_calls_alone_spins_and_lets_the_others_in_now_and_then():
    turns = _Turns()
    others = 0
    for _ in range(10 * MAX_ALONE):
        others += turns.are_for_others_too()
        assert turns.begins(1)
        turns.has_spun(True)
    assert 9 <= others <= 10
    assert [turns.begins(callers) for callers in (2, *[1] * MAX_ALONE)] == [False] * MAX_ALONE + [True]


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


SIGNALLED = textwrap.dedent('''
    import faulthandler, random, signal, sys, time
    from geventhuey.storage.redis import RedisStorage

    class Stop(BaseException):
        pass

    def handle(*_):
        global armed, count
        if armed:
            armed, count = False, count + 1
            if sys.argv[2] == 'raises':
                raise Stop
            assert storage.pending('default') == []

    faulthandler.dump_traceback_later(30, exit=True)
    storage, armed, count = RedisStorage('signalled', sys.argv[1]), False, 0
    storage.pending('default')
    signal.signal(signal.SIGALRM, handle)
    end = time.monotonic() + 3

    def once():
        global armed
        armed = True
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00001, 0.0004))
        for _ in range(4):
            assert storage.pending('default') == []
        armed = False

    while time.monotonic() < end:
        try:
            try:
                once()
            except Stop:
                pass
        except Stop:        # between the call and the inner one
            pass
    armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(storage.pending('default'), count > 100)
''')


@pytest.mark.parametrize('what', ['calls', 'raises'])
def test_a_signal_handler_may_call_and_raise_at_any_moment_of_a_call(redis_url, what):
    # the turn is not lost, nobody waits for himself, and hiredis does not crash over a number
    assert run_program(SIGNALLED, redis_url, what) == '[] True\n'


FORKED_MEANWHILE = textwrap.dedent('''
    import os, sys
    from gevent import monkey
    monkey.patch_all()
    import gevent
    from geventhuey.exceptions import StorageOutcomeUnknown
    from geventhuey.storage.redis.address import Address
    from geventhuey.storage.redis.connection import SharedLink

    def call():
        try:
            return link.call([('BLPOP', 'nothing', '0.5')])
        except StorageOutcomeUnknown:
            return 'unknown'

    link = SharedLink(lambda: Address.of(sys.argv[1], None, {}).connect('test', False))
    callers = [gevent.spawn(call) for _ in range(3)]
    gevent.sleep(0.1)
    pid = os.fork()
    with gevent.Timeout(20):
        answers = [caller.get() for caller in callers]
    if pid == 0:
        os._exit(answers != ['unknown'] * 3 or link.call([('PING',)]) != [b'PONG'])
    print(answers == [[None]] * 3, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
''')


def test_greenlets_that_a_fork_takes_along_in_the_middle_of_a_call_hear_of_it(redis_url):
    assert run_program(FORKED_MEANWHILE, redis_url) == 'True 0\n'


IMPORTING = textwrap.dedent('''
    import sys
    from gevent import monkey
    monkey.patch_all()
    from geventhuey.storage.redis import RedisStorage

    storage, before = RedisStorage('importing', sys.argv[1]), set(sys.modules)
    storage.pending('default')
    print([name for name in set(sys.modules) - before if name.startswith(('email', 'importlib', 'redis'))])
''')


def test_redis_py_imports_nothing_in_the_first_call(redis_url):
    # native threads of a patched process that import at the same time may wait for each other for ever
    assert run_program(IMPORTING, redis_url) == '[]\n'
