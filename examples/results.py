"""What one can do with a call: wait for its result, have it retried, put it off, revoke it.

Start a consumer in one terminal, and this program in another one::

    geventhuey-consumer examples.results.huey
    python -m examples.results
"""

import datetime
import time

from geventhuey import DataStoreTimeout, RedisHuey, TaskException, TaskRevoked

huey = RedisHuey('results')


@huey.task()
def add(a, b):
    return a + b


@huey.task()
def slow(seconds):
    time.sleep(seconds)
    return 'done'


@huey.task(retries=2, retry_delay=0.2, retries_as_argument=True)
def unreliable(retries=0):
    """Succeeds when it is run for the third time."""
    if retries > 0:
        raise OSError('not yet')
    return 'at last'


@huey.task(retries=1)
def broken():
    raise ValueError('never')


def wait_for_results():
    result = add(1, 2)                                      # enqueued, not called
    result()                                                # never waits: None as long as there is no result
    print('waited for:', result.get(blocking=True, timeout=10))

    task_id = add(3, 4).task_id                             # a text: another process may ask for the result
    print('by its id:', huey.result(task_id, blocking=True, timeout=10))

    result = slow(1)
    try:
        result.get(blocking=True, timeout=0.1)
    except DataStoreTimeout:
        print('waited for 0.1 s:', 'nothing yet')
    print('waited on:', result.get(blocking=True, timeout=10))


def retry():
    print('retried:', unreliable().get(blocking=True, timeout=10))
    try:
        broken().get(blocking=True, timeout=10)
    except TaskException as exc:                            # the text of the error; its traceback is in exc.metadata
        print('failed:', exc)


def put_off():
    called = time.monotonic()
    result = add.schedule((5, 6), delay=0.5)
    print('half a second later:', result.get(blocking=True, timeout=10), f'({time.monotonic() - called:.1f} s)')

    soon = datetime.datetime.now() + datetime.timedelta(seconds=0.5)
    print('at a time:', add.schedule((7, 8), eta=soon).get(blocking=True, timeout=10))


def revoke():
    result = add.schedule((9, 10), delay=0.5)
    result.revoke()
    try:
        result.get(blocking=True, timeout=10)
    except TaskRevoked:
        print('revoked:', 'it was not run')

    result = add.schedule((11, 12), delay=0.5)
    result.revoke()
    result.restore()
    print('restored:', result.get(blocking=True, timeout=10))


if __name__ == '__main__':
    wait_for_results()
    retry()
    put_off()
    revoke()
