"""What a consumer does with a task from its call to its result: retries, schedule, revocations, and the events that tell of it."""

from __future__ import annotations

import datetime
import itertools
import json
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from geventhuey import Huey, TaskException, TaskRevoked
from tests.consumer.apps.work import pause
from tests.consumer.kit import Work, wait_until

#: Seconds by which a task may be late on a loaded machine; a consumer that polled once per second would often be later.
LATE = 0.8


@pytest.fixture(params=['memory', 'redis'])
def huey(request: pytest.FixtureRequest) -> Iterator[Huey]:
    """An application, in memory and on Redis."""
    url = 'memory://' if request.param == 'memory' else request.getfixturevalue('redis_url')
    huey = Huey.from_url(url, f'running-{uuid.uuid4().hex[:8]}')
    yield huey
    huey.close()


@pytest.fixture(params=['greenlet', 'thread'])
def consume(huey: Huey, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Starts a consumer of the application, for use with ``with``."""
    def start(**options: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', RuntimeWarning)
            return huey.consumer(**{'worker_type': request.param, 'workers': 10, 'shutdown_timeout': 5, **options}).start()

    @contextmanager
    def consumer(**options: Any) -> Iterator[Any]:
        running = start(**options)
        try:
            yield running
        finally:
            running.stop()
    return consumer


# -- retries ---------------------------------------------------------------------------------------------------

def test_a_task_that_fails_is_tried_again_after_its_delay_as_often_as_it_may(huey, consume):
    runs = []

    @huey.task(retries=2, retry_delay=0.3, retries_as_argument=True, include_task=True)
    def fail(value, retries, task):
        runs.append((time.monotonic(), value, retries, task.retries, task.task_id))
        raise LookupError(f'with {retries} left')

    with consume():
        result = fail(['mutable'])
        with pytest.raises(TaskException, match='with 0 left'):
            result.get(blocking=True, timeout=20)
    times, values, retries, of_task, ids = zip(*runs)
    assert values == (['mutable'],) * 3
    assert retries == of_task == (2, 1, 0)
    assert set(ids) == {result.task_id}
    for before, after in itertools.pairwise(times):
        assert 0.3 <= after - before < 0.3 + LATE
    assert [(entry['id'], entry['retries'], 'with' in entry['error']) for entry in huey.errors()] == [
        (result.task_id, left, True) for left in (0, 1, 2)]


def test_a_task_that_succeeds_at_last_has_a_result_and_no_more_runs(huey, consume):
    runs = []

    @huey.task(retries=5)
    def fail_twice():
        runs.append(1)
        if len(runs) < 3:
            raise LookupError
        return 'third time'

    with consume():
        assert fail_twice().get(blocking=True, timeout=20) == 'third time'
    assert len(runs) == 3
    assert huey.pending_count() == huey.scheduled_count() == 0


def test_a_retry_starts_with_the_arguments_of_the_call(huey, consume):
    seen = []

    @huey.task(retries=1)
    def consume_list(items):
        seen.append(list(items))
        items.clear()
        if len(seen) == 1:
            raise LookupError

    with consume():
        consume_list([1, 2]).get(blocking=True, timeout=20)
    assert seen == [[1, 2], [1, 2]]


# -- schedule --------------------------------------------------------------------------------------------------

def test_what_is_scheduled_runs_when_it_is_due_never_early_and_not_much_late(huey, consume):
    ran = {}

    @huey.task()
    def note(n):
        ran[n] = time.time()

    due = {}
    with consume():
        for n in range(8):
            delay = 0.3 + n * 0.15
            due[n] = time.time() + delay
            if n % 4 == 0:
                note.schedule((n,), delay=delay)
            elif n % 4 == 1:
                note.schedule(args=(n,), eta=datetime.datetime.fromtimestamp(due[n]))
            elif n % 4 == 2:
                note.schedule(kwargs={'n': n}, eta=datetime.datetime.fromtimestamp(due[n], datetime.timezone.utc))
            else:
                note.schedule((n,), eta=datetime.datetime.utcfromtimestamp(due[n]), convert_utc=False)
        assert huey.pending_count() == 0
        assert huey.scheduled_count() == 8
        wait_until(lambda: len(ran) == 8)
    for n, moment in due.items():
        assert -0.001 <= ran[n] - moment < LATE, f'{n}: {ran[n] - moment}'
    assert huey.scheduled_count() == 0


def test_what_was_due_before_runs_at_once(huey, consume):
    ran = []

    @huey.task()
    def note(n):
        ran.append(n)

    note.schedule((0,), eta=datetime.datetime(2001, 1, 1))
    note.schedule((1,), delay=0)
    waiting = note.schedule((2,), delay=0.05)
    wait_until(lambda: huey.scheduled()[0].eta < time.time())
    with consume(workers=1):
        waiting.get(blocking=True, timeout=20)
    assert sorted(ran) == [0, 1, 2]


def test_a_due_task_wakes_a_consumer_whose_workers_are_busy_as_soon_as_one_is_free(huey, consume):
    ran = []

    @huey.task()
    def note(n, seconds):
        ran.append((n, time.monotonic()))
        pause(seconds)

    with consume(workers=1):
        note('long', 0.6)
        wait_until(lambda: ran)
        note.schedule(('due', 0), delay=0.1)
        wait_until(lambda: len(ran) == 2)
    assert 0.55 < ran[1][1] - ran[0][1] < 0.6 + LATE


# -- revocations -----------------------------------------------------------------------------------------------

@pytest.fixture
def task(huey: Huey) -> Any:
    """A task that remembers its runs in ``runs``."""
    @huey.task(name='revocable')
    def task(n):
        task.runs.append(n)
        return n
    task.runs = []
    return task


def test_a_revoked_task_does_not_run_and_its_waiter_is_told(huey, consume, task):
    revoked, other = task(1), task(2)
    revoked.revoke()
    assert huey.is_revoked(revoked.task)
    scheduled = task.schedule((3,), delay=0.2)
    huey.revoke_by_id(scheduled.task_id)
    with consume():
        assert other.get(blocking=True, timeout=20) == 2
        for result in (revoked, scheduled):
            with pytest.raises(TaskRevoked):
                result.get(blocking=True, timeout=20)
    assert task.runs == [2]


def test_a_restored_task_runs(huey, consume, task):
    result = task(1)
    result.revoke()
    assert result.restore()
    assert not result.restore()
    with consume():
        assert result.get(blocking=True, timeout=20) == 1


def test_revoke_once_skips_one_run(huey, consume, task):
    again = task(1).task
    huey.revoke(again, revoke_once=True)
    huey.enqueue(again)
    with consume(workers=1):
        last = task(9)
        last.get(blocking=True, timeout=20)
    assert task.runs == [1, 9]
    assert not huey.is_revoked(again)


@pytest.mark.parametrize(('seconds', 'ran'), [(-60, [1]), (60, [])])
def test_revoke_until_skips_until_then(huey, consume, task, seconds, ran):
    result = task(1)
    huey.revoke(result.task, revoke_until=datetime.datetime.now() + datetime.timedelta(seconds=seconds))
    with consume(workers=1):
        wait_until(lambda: not huey.pending_count())
    assert task.runs == ran


def test_all_tasks_of_a_name_are_revoked_until_they_are_restored(huey, consume, task):
    @huey.task()
    def other(n):
        return n

    task.revoke()
    assert task.is_revoked()
    with consume(workers=1):
        skipped = [task(n) for n in range(3)]
        assert other(7).get(blocking=True, timeout=20) == 7
        for result in skipped:
            with pytest.raises(TaskRevoked):
                result.get(blocking=True, timeout=20)
        assert task.restore()
        assert task(4).get(blocking=True, timeout=20) == 4
        task.revoke(revoke_once=True)
        once, after = task(5), task(6)
        assert after.get(blocking=True, timeout=20) == 6
        with pytest.raises(TaskRevoked):
            once.get(blocking=True, timeout=20)
    assert task.runs == [4, 6]


def test_a_task_that_runs_is_not_touched_by_a_revocation(huey, consume):
    begun = threading.Event()

    @huey.task()
    def slow():
        begun.set()
        pause(0.3)
        return 'ran'

    with consume():
        result = slow()
        assert begun.wait(20)
        result.revoke()
        assert result.get(blocking=True, timeout=20) == 'ran'


# -- results ---------------------------------------------------------------------------------------------------

def test_results_are_pushed_and_those_that_nobody_wants_are_not_kept(huey, consume):
    @huey.task()
    def echo(value):
        return value

    values = [0, '', False, [], {'a': (1, 2.5)}, b'\x00' * 100_000, None, 'x']
    with consume():
        results = [echo(value) for value in values]
        assert [result.get(blocking=True, timeout=20) for result in results] == values
        assert [result() for result in results] == values
        assert huey.result_count() == 0
        kept = echo('kept')
        assert kept.get(blocking=True, timeout=20, preserve=True) == 'kept'
        assert huey.result(kept.task_id, preserve=True) == huey.result(kept.task_id) == 'kept'
        begun = time.monotonic()
        for n in range(50):
            assert echo(n).get(blocking=True, timeout=20) == n
        assert time.monotonic() - begun < 4         # Huey's first look comes after 0.1 s


def test_tasks_run_first_in_first_out(huey, consume):
    order = []

    @huey.task()
    def note(n):
        order.append(n)

    results = [note(n) for n in range(200)]
    with consume(workers=1):
        results[-1].get(blocking=True, timeout=20)
    assert order == list(range(200))


def test_tasks_enqueue_tasks_and_wait_for_them(huey, consume):
    @huey.task()
    def double(n):
        return n * 2

    @huey.task()
    def parent(n):
        pause(0)
        return [double(i).task_id for i in range(n)]

    with consume(workers=5):
        ids = parent(20).get(blocking=True, timeout=20)
        assert sorted(huey.result(task_id, blocking=True, timeout=20) for task_id in ids) == list(range(0, 40, 2))


def test_workers_wait_for_the_tasks_that_they_enqueued(work):
    consumer = work.consume('-w', '40')
    results = [work.send('enqueue_more', n, 10) for n in range(20)]
    assert [result.get(blocking=True, timeout=60) for result in results] == [10 * n + 45 for n in range(20)]
    assert consumer.stop() == 0


def test_both_kinds_of_workers_run_as_many_tasks_at_once_as_there_are_workers(huey, consume):
    now, most, lock = [0], [0], threading.Lock()

    @huey.task()
    def meet():
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        pause(0.05)
        with lock:
            now[0] -= 1

    results = [meet() for _ in range(60)]
    with consume(workers=7):
        for result in results:
            result.get(blocking=True, timeout=20)
    assert most == [7]


# -- events ----------------------------------------------------------------------------------------------------

@contextmanager
def listening(huey: Huey) -> Iterator[list[dict[str, Any]]]:
    """Collects the events while entered."""
    events: list[dict[str, Any]] = []
    stream = iter(huey.storage)

    def read() -> None:
        for event in stream:
            if event.get('status') == 'the end':
                return
            events.append(event)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    yield events
    huey.storage.publish([b'{"status": "the end"}'])
    reader.join(20)
    assert not reader.is_alive()


def stories(events: list[dict[str, Any]]) -> dict[str, list[str]]:
    """What happened to each task, by its id."""
    told: dict[str, list[str]] = {}
    for event in events:
        told.setdefault(event.get('id', ''), []).append(event['status'])
    return told


def test_events_tell_of_each_task_in_hueys_order_and_with_hueys_fields(huey, consume):
    secret = 'an argument'

    @huey.task()
    def simple(value):
        return value

    @huey.task(retries=1, retry_delay=0.1)
    def fail_late(value):
        raise LookupError('no reason')

    @huey.task(retries=1)
    def fail_at_once(value):
        raise LookupError('no reason')

    @huey.task()
    def lost(value):
        return threading.Lock()

    with consume(periodic=False), listening(huey) as events:
        simple('first')                             # from here on the consumer knows that somebody listens
        wait_until(lambda: any(event['status'] == 'finished' for event in events))
        events.clear()
        plain = simple(secret)
        late, at_once, bad = fail_late(secret), fail_at_once(secret), lost(secret)
        revoked = simple.schedule((secret,), delay=0.05)
        revoked.revoke()
        assert plain.get(blocking=True, timeout=20) == secret
        for result in (late, at_once, bad):
            with pytest.raises(TaskException):
                result.get(blocking=True, timeout=20)
        with pytest.raises(TaskRevoked):
            revoked.get(blocking=True, timeout=20)
    told = stories(events)
    failing = ['started', 'error-task', 'retrying', 'started', 'error-task']
    assert told[plain.task_id] == ['started', 'finished']
    assert told[late.task_id] == [*failing[:3], 'scheduled', *failing[3:]]
    assert told[at_once.task_id] == failing
    assert told[bad.task_id] == ['started', 'error-task']
    assert told[revoked.task_id][-1] == 'revoked'
    assert 'started' not in told[revoked.task_id]
    assert set(told) == {plain.task_id, late.task_id, at_once.task_id, bad.task_id, revoked.task_id}
    for event in events:
        assert {'status', 'error', 'id', 'task', 'retries', 'retry_delay', 'execute_time', 'timestamp'} <= set(event)
        assert event['error'] is (event['status'] == 'error-task')
        assert ('traceback' in event) is event['error']
        assert secret not in json.dumps(event)
        if event['status'] in ('finished', 'error-task'):
            assert 0 <= event['duration'] < 20
    assert [event['task'] for event in events if event['id'] == plain.task_id] == ['queuecmd_simple'] * 2
    assert [event['retries'] for event in events if event['id'] == at_once.task_id] == [1, 1, 0, 0, 0]
    assert 'LookupError: no reason' in next(event for event in events if event['error'] and event['id'] == late.task_id)['traceback']


def test_events_tell_that_a_task_was_scheduled(huey, consume):
    @huey.task()
    def simple():
        return 1

    with consume(periodic=False), listening(huey) as events:
        simple().get(blocking=True, timeout=20)
        result = simple.schedule(delay=0.1)
        result.get(blocking=True, timeout=20)
    assert stories(events)[result.task_id] == ['scheduled', 'started', 'finished']


def test_an_application_without_events_publishes_none(consume, huey):
    huey.events = False

    @huey.task()
    def simple():
        return 1

    with consume(), listening(huey) as events:
        for _ in range(3):
            simple().get(blocking=True, timeout=20)
    assert events == []


def test_nothing_is_published_while_nobody_listens(work: Work):
    seen: list[str] = []
    with work.redis.monitor() as monitor:
        over = threading.Event()

        def watch() -> None:
            for command in monitor.listen():
                seen.append(command['command'])
                if 'the end' in command['command']:
                    break
            over.set()
        threading.Thread(target=watch, daemon=True).start()
        consumer = work.consume('-w', '10')
        for n in range(5):
            work.send('add', n, 1).get(blocking=True, timeout=20)
        with pytest.raises(TaskException):
            work.send('fail', 0, 'Boom').get(blocking=True, timeout=20)
        assert consumer.stop() == 0
        work.redis.echo('the end')
        assert over.wait(20)
    published = [command for command in seen if command.upper().startswith('PUBLISH')]
    assert published                                                    # results are told to those who wait
    assert not [command for command in published if work.keys.events in command]


def test_periodic_tasks_are_told_of():
    from geventhuey import MemoryHuey
    from geventhuey.consumer.consumer import Consumer
    huey = MemoryHuey()

    @huey.periodic_task(lambda moment: True, name='periodic')
    def periodic() -> int:
        return 1

    with Consumer(huey, tick=0.2), listening(huey) as events:
        wait_until(lambda: sum(event['status'] == 'finished' for event in events) >= 3)
    statuses = [event['status'] for event in events]
    assert {'checking-periodic', 'scheduling-periodic', 'started', 'finished'} <= set(statuses)
    story = next(told for task_id, told in stories(events).items() if told[:1] == ['scheduling-periodic'])
    assert story == ['scheduling-periodic', 'started', 'finished']
    assert huey.result_count() == 0
