"""Waiters: threads and greenlets that are woken from anywhere."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from geventhuey import native
from geventhuey.waiter import GreenletWaiter, ThreadWaiter, waiter

BOUND = 20.0


def in_thread(run):
    """What ``run()`` returned in a native thread of its own, which has no hub unless ``run`` makes one."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(run()), daemon=True)
    thread.start()
    thread.join(BOUND)
    assert answers, 'it did not come to its end'
    return answers[0]


def in_hub(run):
    """What ``run()`` returned in a native thread with a gevent hub of its own."""
    def work():
        import gevent
        try:
            return run()
        finally:
            gevent.get_hub().destroy(destroy_loop=True)

    return in_thread(work)


KINDS = pytest.mark.parametrize(('kind', 'where'), [(ThreadWaiter, in_thread), (GreenletWaiter, in_hub)])


@KINDS
def test_nobody_wakes(kind, where):
    def run():
        begun = time.monotonic()
        assert kind().wait(0.05) is False
        return time.monotonic() - begun

    assert 0.04 < where(run) < 5


@KINDS
def test_the_wake_may_come_first(kind, where):
    def run():
        one = kind()
        one.wake()
        return one.wait(BOUND)

    assert where(run) is True


@KINDS
def test_any_number_of_wakes_is_one(kind, where):
    def run():
        one = kind()
        for _ in range(5):
            one.wake()
        return [one.wait(BOUND), one.wait(0)]

    assert where(run) == [True, False]


@KINDS
def test_one_can_wait_again(kind, where):
    def run():
        one, answers = kind(), []
        for _ in range(3):
            one.wake()
            answers += [one.wait(BOUND), one.wait(0)]
        return answers

    assert where(run) == [True, False] * 3


@KINDS
@pytest.mark.parametrize('timeout', [None, BOUND])
def test_the_wake_may_come_from_another_thread(kind, where, timeout):
    def run():
        one = kind()
        waker = threading.Timer(0.05, one.wake)
        waker.start()
        return one.wait(timeout)

    assert where(run) is True


@KINDS
@pytest.mark.parametrize('timeout', [0, -1, -0.5])
def test_no_time_to_wait(kind, where, timeout):
    assert where(lambda: kind().wait(timeout)) is False


@KINDS
def test_many_wake_at_once(kind, where):
    def run():
        one = kind()
        threads = [threading.Thread(target=one.wake) for _ in range(20)]
        for thread in threads:
            thread.start()
        answer = one.wait(BOUND)
        for thread in threads:
            thread.join()
        return answer

    assert where(run) is True


def test_other_greenlets_go_on():
    def run():
        import gevent
        one, turns = GreenletWaiter(), []

        def others():
            for _ in range(5):
                turns.append(1)
                gevent.sleep(0)
            one.wake()

        gevent.spawn(others)
        assert one.wait(BOUND)
        return len(turns)

    assert in_hub(run) == 5


def test_waking_one_whose_thread_has_ended_does_nothing():
    waiters = []
    in_hub(lambda: waiters.append(GreenletWaiter()) or True)
    waiters[0].wake()


def test_waking_one_whose_loop_has_just_ended_does_nothing(monkeypatch):
    waiters = []

    def run():
        one = GreenletWaiter()
        waiters.append((one, one._hub.loop))
        return True

    in_hub(run)
    one, loop = waiters[0]

    class Hub:
        pass

    one._hub = Hub()
    one._hub.loop = loop
    one.wake()


def test_who_calls_gets_the_right_kind():
    def run():
        import gevent
        gevent.get_hub()
        return type(waiter()), in_thread(lambda: type(waiter()))

    assert in_thread(lambda: type(waiter())) is ThreadWaiter
    assert in_hub(run) == (GreenletWaiter, ThreadWaiter), 'a hub of another thread does not count'


def test_in_a_patched_process_everybody_gets_a_greenlet_s():
    source = '''
from gevent import monkey
monkey.patch_all()
import gevent
from geventhuey.waiter import waiter
one = waiter()
print(type(one).__name__, type(gevent.get_hub().threadpool.apply(waiter)).__name__)
gevent.spawn_later(0.05, one.wake)
print(one.wait(None))
'''
    ended = subprocess.run([sys.executable, '-c', source], capture_output=True, text=True, timeout=60,
                           env={'PYTHONPATH': ':'.join(path for path in sys.path if path)})
    assert ended.stdout.split() == ['GreenletWaiter', 'GreenletWaiter', 'True'], ended.stderr


def test_thread_ids_are_those_of_native_threads():
    assert in_hub(lambda: GreenletWaiter()._thread) != native.thread_id()
