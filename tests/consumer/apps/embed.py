"""A program with a consumer inside: ``python embed.py patched|plain greenlet|thread SCENARIO``. Prints what it saw as JSON."""

import gc
import json
import os
import sys
import time
import warnings

PATCHED, KIND, SCENARIO = sys.argv[1] == 'patched', sys.argv[2], sys.argv[3]
if PATCHED:
    from gevent import monkey
    monkey.patch_all()

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from work import make_huey  # noqa: E402

from geventhuey import native  # noqa: E402

warnings.simplefilter('ignore', RuntimeWarning)
huey = make_huey()
TASKS = {cls.task_name: cls for cls in huey.registry}


def send(name, *args):
    return huey.enqueue(TASKS[name]((args, {})))


def census():
    """What a process may leak, by its kind."""
    from greenlet import greenlet
    gc.collect()
    return {'greenlets': sum(isinstance(thing, greenlet) and not thing.dead for thing in gc.get_objects()),
            'threads': len(os.listdir('/proc/self/task')), 'files': len(os.listdir('/proc/self/fd'))}


def cycles():
    """Start and stop over and over leaves nothing behind."""
    def cycle():
        with huey.consumer(worker_type=KIND, workers=3, shutdown_timeout=5):
            results = [send('add', n, n) for n in range(5)] + [send('rest', n, 0.01) for n in range(3)]
            assert [result.get(blocking=True, timeout=30) for result in results] == [0, 2, 4, 6, 8, 0, 10, 20]

    for _ in range(3):
        cycle()
    time.sleep(1.5)             # the threads of the last one come to their ends
    before = census()
    for _ in range(12):
        cycle()
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and any(count > before[kind] + 3 for kind, count in census().items()):
        time.sleep(0.1)
    return {'before': before, 'after': census()}


def stop_from_thread():
    """Another native thread stops it, and so does the one that started it."""
    consumer = huey.create_consumer(worker_type=KIND, workers=3, shutdown_timeout=5).start()
    result = send('rest', 1, 0.5)
    while not consumer.statistics()['running']:
        time.sleep(0.01)
    ended = []

    def stop():
        consumer.stop()
        ended.append(consumer.statistics()['running'])

    for _ in range(2):
        native.start_thread(stop)
    stop()
    deadline = time.monotonic() + 20
    while len(ended) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    return {'ended': ended, 'result': result.get(blocking=True, timeout=10), 'pending': huey.pending_count()}


def stop_from_task():
    """A task stops the consumer that runs it: it is interrupted, or given up, and goes back."""
    consumer = huey.create_consumer(worker_type=KIND, workers=3, shutdown_timeout=0.3)

    @huey.task(name='stop_it')
    def stop_it():
        called.append(1)
        consumer.stop()

    called = []
    consumer.start()
    stop_it()
    deadline = time.monotonic() + 20
    while not called and time.monotonic() < deadline:
        time.sleep(0.01)
    consumer.stop()             # waits until it has stopped
    return {'pending': huey.pending_count(), 'running': consumer.statistics()['running']}


def with_that_raises():
    """The error comes out, and the consumer has stopped."""
    consumer = huey.consumer(worker_type=KIND, workers=3, shutdown_timeout=5)
    try:
        with consumer:
            result = send('rest', 1, 0.3)
            while not consumer.statistics()['running']:
                time.sleep(0.01)
            raise LookupError('mine')
    except LookupError as exc:
        return {'error': str(exc), 'result': result.get(), 'running': consumer.statistics()['running']}


def blocked_main():
    """The program's own thread blocks for a while; the consumer does not mind where it has a thread of its own."""
    with huey.consumer(worker_type=KIND, workers=3) as consumer:
        results = [send('add', n, 1) for n in range(5)]
        end = time.monotonic() + (0 if PATCHED else 1.0)
        while time.monotonic() < end:
            pass
        return {'results': [result.get(blocking=True, timeout=30) for result in results], 'finished': consumer.statistics()['finished']}


def threads_still_run():
    """A stop does not wait for threads for ever; what they hand in afterwards harms nobody."""
    consumer = huey.create_consumer(worker_type='thread', workers=2, shutdown_timeout=0.1).start()
    send('rest', 1, 1.6)
    while not consumer.statistics()['running']:
        time.sleep(0.01)
    consumer.stop()
    pending = huey.pending_count()
    time.sleep(1.0)             # the thread comes to its end now
    with huey.consumer(worker_type='thread', workers=2):
        deadline = time.monotonic() + 20
        while huey.pending_count() and time.monotonic() < deadline:
            time.sleep(0.01)
    return {'pending': pending, 'left': huey.pending_count()}


print(json.dumps(globals()[SCENARIO]()))
huey.close()
