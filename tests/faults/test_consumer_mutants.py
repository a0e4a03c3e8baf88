"""The exploration is worth believing: every one of these seeded bugs of the consumer is caught by it.

A bug is a replacement in the text of a module; the exploration runs a copy of the consumer that has it.
"""

from __future__ import annotations

import pytest

from tests.faults.consumer_copy import Bug
from tests.faults.exploration import explore

#: Seeds in which a bug has to be found.
SEEDS = 3000

BUGS = [
    Bug('settles everything twice', 'consumer.settler',
        '            done = self._storage.settle(consumer, settlements, events)\n',
        '            self._storage.settle(consumer, settlements, events)\n'
        '            done = self._storage.settle(consumer, settlements, events)\n'),
    Bug('resends a lost end', 'consumer.settler',
        '            if not ended and not self._sent_before:\n',
        '            if not ended and not self._sent_before:\n                self.add(outcome)\n'),
    Bug('drops outcomes when the answer is lost', 'consumer.settler',
        '            self._sent_before = True\n            raise',
        '            self._sending = []\n            raise'),
    Bug('takes any outage for a lost lease', 'consumer.settler',
        '            self._sent_before = True\n',
        ''),
    Bug('takes every end for one that was sent before', 'consumer.settler',
        '            self._sent_before = False\n',
        ''),
    Bug('settles first and brings the effects later', 'consumer.settler',
        '            done = self._storage.settle(consumer, settlements, events)\n',
        '            self._storage.settle(consumer, [each._replace(effects=()) for each in settlements], events)\n'
        '            done = self._storage.settle(consumer, settlements, events)\n'),
    Bug('forgets all outcomes of a batch but one', 'consumer.settler',
        'self._sending, self._outcomes = self._outcomes, []',
        'self._sending, self._outcomes = self._outcomes[:1], []'),
    Bug('forgets what comes meanwhile', 'consumer.settler',
        '        self._sending = []\n        self._settled()',
        '        self._sending = []\n        self._outcomes = []\n        self._settled()'),
    Bug('uses a request number again', 'lease',
        '                    self.request += 1',
        '                    pass'),
    Bug('advances after an empty answer', 'lease',
        '                if fetched.deliveries:\n                    self.request += 1',
        '                self.request += 1'),
    Bug('advances before the answer', 'lease',
        '            fetched = storage.fetch(self.consumer, self.request, limits, at_most)',
        '            self.request += 1\n'
        '            fetched = storage.fetch(self.consumer, self.request - 1, limits, at_most)\n'
        '            self.request -= 1'),
    Bug('keeps the old name', 'lease',
        '        self.consumer = self._new_name()\n        self.names.append',
        '        self.names.append'),
    Bug('registers with the number that comes next', 'lease',
        'storage.register(self.consumer, self.request - 1,',
        'storage.register(self.consumer, self.request,'),
    Bug('goes on when evicted as when unknown', 'lease',
        '                self.renew(storage)',
        '                self.register(storage)'),
    Bug('a worker whose task failed is never free again', 'consumer.pool',
        '            self._running.pop(me, None)\n            was',
        '            if outcome.error is None:\n                self._running.pop(me, None)\n            was'),
    Bug('fetches one more than free', 'consumer.fetcher',
        'min(self._pool.free(), self._at_most)',
        'min(self._pool.free() + 1, self._at_most)'),
    Bug('a full fetcher swallows the token that comes', 'consumer.fetcher',
        '                        self._news.clear()\n                        self._storage.wake(self._queues)',
        '                        self._news.clear()'),
    Bug('a stop wakes nobody', 'consumer.fetcher',
        '                with gevent.Timeout(LAST_WAKE, False):\n                    self._storage.wake(self._queues)',
        '                pass'),
    Bug('waits its longest with something due', 'consumer.fetcher',
        'self._news.wait(LONGEST_WAIT if fetched.next_due is None else min(LONGEST_WAIT, fetched.next_due))',
        'self._news.wait(LONGEST_WAIT)'),
    Bug('clears the room after looking', 'consumer.fetcher',
        '        if self._pool.free() <= 0 or self._backlog():\n            self._room.wait',
        '        if True:\n            self._room.wait'),
    Bug('clears the news before it waits', 'consumer.fetcher',
        '            self._outage.over(self)     # it may',
        '            self._news.clear()\n            self._outage.over(self)     # it may'),
    Bug('stop does not release', 'consumer.engine',
        '        self._release()\n        self.pool',
        '        self.pool'),
    Bug('stop does not stop fetching first', 'consumer.engine',
        '        self.fetcher.stop()\n        running',
        '        running'),
    Bug('interrupt is an error of the task', 'consumer.engine',
        "            self.executor.interrupting = TaskInterrupted('the consumer shuts down; the task will be run again')\n"
        '            self.pool.interrupt(self.executor.interrupting)',
        "            self.pool.interrupt(TaskInterrupted('over'))"),
    Bug('the reaper does not begin anew after an error', 'consumer.reaper',
        '            self._seen.clear()\n            self._orphans.clear()\n',
        ''),
    Bug('the reaper does not see that a beat changed', 'consumer.reaper',
        'seen[name] if name in seen and seen[name].beat == beat else _Seen(beat, now)',
        '_Seen(beat, seen[name].since if name in seen else now)'),
    Bug('the reaper waits for a part of the lease only', 'consumer.reaper',
        'if beat == EVICTED or now - since >= self._lease',
        'if beat == EVICTED or now - since >= self._lease / 6'),
    Bug('the reaper leaves alone what another began', 'consumer.reaper',
        '            if beat == EVICTED or now',
        '            if beat == EVICTED:\n                continue\n            if now'),
    Bug('a consumer that lost its registration is left alone', 'consumer.reaper',
        '                self._storage.adopt(name)',
        '                pass'),
    Bug('a registration is taken for lost at once', 'consumer.reaper',
        '            if now - since >= self._lease or _has_ended(info[name]):',
        '            if True:'),
    Bug('the audit runs what is running', 'consumer.audit',
        '        known = before | self._tags()',
        '        known = set()'),
    Bug('the audit runs nothing', 'consumer.audit',
        '                self._pool.put(delivery)',
        '                pass'),
    Bug('the audit takes what is not settled for unknown', 'consumer.engine',
        'return self.pool.running() + self.settler.unsettled()',
        'return self.pool.running()'),
    Bug('the audit takes what is being settled for unknown', 'consumer.settler',
        'in (*self._sending, *self._outcomes)]',
        'in self._outcomes]'),
    Bug('beat ends on error', 'consumer.heartbeat',
        '        except StorageError:                # the fetcher says so\n            return',
        '        except StorageError:                # the fetcher says so\n            self._stopped = True\n            return'),
    Bug('an error ends the part', 'consumer.component',
        '                pause = self._failed(exc)',
        '                raise'),
]


#: What was a bug once.
ONCE = Bug('the audit takes workers that a fetch was promised', 'consumer.engine',
           'return self.pool.free() - self.fetcher.asked', 'return self.pool.free()')


def name_of(bug: Bug) -> str:
    return bug.name.replace(' ', '-')


def test_there_are_enough_and_each_is_another_one():
    assert len({bug[1:] for bug in BUGS}) == len(BUGS) >= 15


@pytest.mark.parametrize('bug', BUGS, ids=name_of)
@pytest.mark.slow
def test_the_exploration_catches_a_bug_of_the_consumer(bug):
    for seed in range(SEEDS):
        try:
            explore(seed, bug)
        except Exception:
            return
    pytest.fail(f'nothing is wrong with a consumer that {bug.name}')


@pytest.mark.slow
def test_with_one_worker_the_audit_and_a_fetch_never_bring_two_tasks():
    """The exploration itself has gone through the same seeds without this bug."""
    for seed in range(SEEDS):
        try:
            explore(seed, ONCE)
        except Exception as exc:
            assert 'free workers' in str(exc), exc
            return
    pytest.fail('it is not a bug any more')
