"""Blocking results in processes that gevent has patched, early or late, and in processes that were forked."""

from __future__ import annotations

import pytest

from tests.api.kit import run_python, said, write

#: What every program here begins with, once gevent is imported or not.
APP = '''
    import os, sys, time
    from collections import Counter
    from geventhuey import DataStoreTimeout, Huey
    from geventhuey.testing import drain
    import redis

    URL = '{url}'
    huey = Huey.from_url(URL, '{name}')

    @huey.task(name='echo')
    def echo(value):
        return value

    def connections():
        names = [client['name'] for client in redis.Redis.from_url(URL).client_list()]
        return dict(sorted(Counter(name.rpartition(':')[2] for name in names if '{name}' in name).items()))

    def subscribed(n):
        give_up = time.monotonic() + 20
        while len(redis.Redis.from_url(URL).pubsub_channels('gh:{{{name}}}:result:*')) != n:
            assert time.monotonic() < give_up
            time.sleep(0.01)
'''


@pytest.fixture
def run(tmp_path, redis_url, request):
    """Runs a program whose first part is ``first``, then the application above, then ``rest``; answers what it printed."""
    def run(first, rest, url=redis_url):
        source = first + APP.format(url=url, name=f'app-{abs(hash(request.node.name))}') + rest
        write(tmp_path, 'program.py', source)
        return said(run_python(['program.py'], tmp_path))
    return run


PATCHED = '''
    from gevent import monkey
    monkey.patch_all()
    import gevent
    gevent.get_hub()    # before a thread makes one, too: the imports of two hubs may lock each other up
'''

FIVE_HUNDRED = '''
    results = [echo(number) for number in range(500)]
    waiters = [gevent.spawn(result.get, blocking=True, timeout=20) for result in results]
    if not huey.storage.in_process:
        subscribed(500)
        print(connections())
    gevent.sleep(0)
    begun = time.monotonic()
    drain(huey)
    assert [waiter.get() for waiter in waiters] == list(range(500))
    print(time.monotonic() - begun < 4)
'''


def test_five_hundred_greenlets_of_a_patched_process(run):
    assert run(PATCHED, FIVE_HUNDRED).splitlines() == ["{'producer': 1, 'results': 1}", 'True']


def test_five_hundred_greenlets_of_a_patched_process_in_memory(run):
    assert run(PATCHED, FIVE_HUNDRED, url='memory://') == 'True'


LATE = '''
    huey.pending_count()            # a connection is there before
    from gevent import monkey
    monkey.patch_all()
    import gevent
'''


@pytest.mark.parametrize('used_before', [True, False])
def test_a_process_that_is_patched_after_the_application_was_made(run, used_before):
    late = LATE if used_before else LATE.replace('huey.pending_count()', 'pass')
    lines = run('', late + FIVE_HUNDRED).splitlines()
    assert lines[-1] == 'True'


def test_a_native_thread_of_a_patched_process_waits_too(run):
    assert run(PATCHED, '''
    pool = gevent.get_hub().threadpool
    results = [echo(number) for number in range(5)]
    waiters = [pool.spawn(result.get, blocking=True, timeout=20) for result in results]
    subscribed(5)
    begun = time.monotonic()
    drain(huey)
    print([waiter.get() for waiter in waiters], time.monotonic() - begun < 4)
    ''') == '[0, 1, 2, 3, 4] True'


def test_native_threads_of_a_patched_process_come_and_go(run):
    assert run(PATCHED, '''
    start, counts = monkey.get_original('_thread', 'start_new_thread'), []

    def work(number):
        try:
            echo(number)
            counts.append(huey.pending_count())
        except BaseException as exc:
            counts.append(repr(exc))

    for number in range(6):
        start(work, (number,))
        while len(counts) == number:
            gevent.sleep(0.01)
        gevent.sleep(0.01)
    print(counts)
    ''') == '[1, 2, 3, 4, 5, 6]'


def test_the_first_waiter_of_a_patched_process_may_be_a_native_thread_that_ends(run):
    assert run(PATCHED, '''
    pool = gevent.get_hub().threadpool
    for number in range(3):
        result = echo(number)
        waiter = pool.spawn(result.get, blocking=True, timeout=20)
        drain(huey)
        assert waiter.get() == number
        pool.kill()
    result = echo('a value')
    waiter = gevent.spawn(result.get, blocking=True, timeout=20)
    subscribed(1)
    begun = time.monotonic()
    drain(huey)
    print(waiter.get(), time.monotonic() - begun < 4)
    ''') == 'a value True'


def test_threads_of_a_patched_process_are_greenlets_and_wait(run):
    assert run(PATCHED, '''
    import threading
    results, values = [echo(number) for number in range(20)], {}
    threads = [threading.Thread(target=lambda result=result: values.update({result.id: result.get(blocking=True, timeout=20)}))
               for result in results]
    for thread in threads:
        thread.start()
    subscribed(20)
    drain(huey)
    for thread in threads:
        thread.join()
    print([values[result.id] for result in results] == list(range(20)), connections())
    ''') == "True {'producer': 1, 'results': 1}"


def test_enqueueing_greenlets_of_a_patched_process_share_one_connection(run):
    assert run(PATCHED, '''
    jobs = [gevent.spawn(echo, number) for number in range(500)]
    gevent.joinall(jobs, raise_error=True)
    print(huey.pending_count(), connections())
    ''') == "500 {'producer': 1}"


# -- forks --------------------------------------------------------------------------------------------------------------

FORK = '''
    def in_child(work):
        """What ``work()`` returned in a forked child."""
        pid = os.fork()
        if pid == 0:
            try:
                answer = repr(work())
            except BaseException as exc:
                answer = repr(exc)
            with open(f'{os.getpid()}.answer', 'w') as file:
                file.write(answer)
            os._exit(0)
        os.waitpid(pid, 0)
        with open(f'{pid}.answer') as file:
            return file.read()

    def round_trip(value):
        result = echo(value)
        drain(huey)
        return result.get(blocking=True, timeout=20)
'''


@pytest.mark.parametrize('first', ['', PATCHED], ids=['plain', 'patched'])
def test_a_forked_child_has_connections_of_its_own(run, first):
    assert run(first, FORK + '''
    print(round_trip('before'))
    print(in_child(lambda: round_trip('in the child')))
    print(round_trip('after'))
    print(connections())
    ''').splitlines() == ['before', "'in the child'", 'after', "{'producer': 1, 'results': 1}"]


def test_a_child_that_is_forked_before_anything_was_used(run):
    assert run('', FORK + '''
    print(in_child(lambda: round_trip('in the child')))
    print(round_trip('after'))
    ''').splitlines() == ["'in the child'", 'after']


def test_a_child_takes_tasks_by_hand_under_a_name_of_its_own(run):
    assert run('', FORK + '''
    echo(1), echo(2), echo(3)
    first = huey.dequeue()
    print(in_child(lambda: huey.execute(huey.dequeue())))
    print(huey.execute(first), huey.execute(huey.dequeue()))
    print(len(huey.storage.consumers()))
    huey.close()
    print(len(huey.storage.consumers()))
    ''').splitlines() == ['2', '1 3', '2', '1']


def test_a_child_of_a_patched_process_takes_nothing_from_those_who_wait_in_its_parent(run):
    assert run(PATCHED, FORK + '''
    results = [echo(number) for number in range(5)]
    waiters = [gevent.spawn(result.get, blocking=True, timeout=20) for result in results]
    subscribed(5)
    child = os.fork()
    if child == 0:
        gevent.killall(waiters, block=False)
        gevent.sleep(20)
        os._exit(0)
    begun = time.monotonic()
    drain(huey)
    values = [waiter.get() for waiter in waiters]
    print(values, time.monotonic() - begun < 4)
    os.kill(child, 9)
    os.waitpid(child, 0)
    ''') == '[0, 1, 2, 3, 4] True'


# -- importing ----------------------------------------------------------------------------------------------------------

def test_a_producer_imports_no_gevent(run):
    assert run('', '''
    result = echo(1)
    huey.pending(), huey.scheduled(), huey.revoke(result.task), huey.restore(result.task), result.get()
    try:
        result.get(blocking=True, timeout=0.01)
    except DataStoreTimeout:
        pass
    print('gevent' in sys.modules)
    ''') == 'False'


def test_an_application_in_memory_imports_neither_gevent_nor_redis(run, tmp_path):
    write(tmp_path, 'program.py', '''
        import sys
        from geventhuey import MemoryHuey
        from geventhuey.testing import drain
        huey = MemoryHuey('app')

        @huey.task()
        def add(a, b):
            return a + b

        result = add(1, 2)
        drain(huey)
        print(result(), huey.dequeue(), {'gevent', 'redis', 'hiredis'} & set(sys.modules))
    ''')
    assert said(run_python(['program.py'], tmp_path)) == '3 None set()'
