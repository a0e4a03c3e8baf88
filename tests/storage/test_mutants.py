"""The model is worth believing: every one of these seeded bugs of the protocol is caught by it, in the scripts and in their twin.

A bug is a replacement in the text of a script, and the same one in the text of ``memory.py`` where it can be made there.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from geventhuey.exceptions import StorageError
from geventhuey.storage import memory
from geventhuey.storage.redis import scripts
from tests.storage import test_contract_waking as waking
from tests.storage.kit import MemoryKit
from tests.storage.model import Protocol

#: Bounded, and the same each time; a bug that is found is not made smaller.
HUNT = settings(max_examples=400, stateful_step_count=30, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
                report_multiple_bugs=False, suppress_health_check=list(HealthCheck))


class Mutant(NamedTuple):
    """A bug: in ``script``, ``old`` is ``new``; in memory, the first of ``twin`` is the second."""

    name: str
    script: str
    old: str
    new: str
    twin: tuple[str, str] | None = None


MUTANTS = [
    # -- settle
    Mutant('settle has no fence', 'settle',
           "if redis.call('HEXISTS', KEYS[1], tag) == 1 then", 'if true then',
           ('was_held = held.pop(tag, None) is not None', 'was_held = held.pop(tag, None) is not None or True')),
    Mutant('settle leaves the delivery in flight', 'settle',
           "redis.call('HDEL', KEYS[1], tag)", '',
           ('held.pop(tag, None) is not None', 'held.get(tag) is not None')),
    Mutant('who lost a delivery has its effects', 'settle',
           "if redis.call('HEXISTS', KEYS[1], tag) == 1 then",
           "if redis.call('HEXISTS', KEYS[1], tag) == 0 then bring_about(i, effects) else",
           ('                if was_held:\n', '                if True:\n')),
    Mutant('what is enqueued loses its priority', 'settle',
           "Q = function(i) woken[place(ARGV[i], 'tail')] = true end",
           "Q = function(i) redis.call('RPUSH', PREFIX .. 'queue:' .. queue_of(ARGV[i]), ARGV[i]) end",
           ('queues.add(self._place(effect.message))',
            'self._queues[Message.decode(effect.message).queue].plain.append(effect.message)')),
    Mutant('a result is not written', 'settle',
           'R = function(i) keep(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])) end', 'R = function(i) end',
           ('told += self._keep(effect.task_id, effect.record, effect.ttl)', 'pass')),
    Mutant('a retry is due at once', 'settle',
           'put_in_schedule(ARGV[i], exact_ms() + tonumber(ARGV[i + 1]))', 'put_in_schedule(ARGV[i], exact_ms())',
           ('self._put_in_schedule(effect.message, self._now() + effect.delay)',
            'self._put_in_schedule(effect.message, self._now())')),
    # -- fetch
    Mutant('a repeated request pops again', 'fetch',
           'if request == last then', 'if false then',
           ('if request == registration.request:', 'if False:')),
    Mutant('an old request is accepted', 'fetch',
           'if request < last then return {3, -1, 0} end', '',
           ('if request < registration.request:', 'if False:')),
    Mutant('an evicted consumer may fetch', 'fetch',
           "if last == 'x' then return {1, -1, 0} end", "if last == 'x' then last = 'x:0' end"),
    Mutant('what is fetched is not in flight', 'fetch',
           "redis.call('HSET', KEYS[2], unpack(records))", '',
           ('self._inflight[consumer].update([(tag, raw) for _, tag, raw in deliveries])', 'pass')),
    Mutant('a mark is shown and not kept', 'fetch',
           "if #marked > 0 then redis.call('HSET', KEYS[2], unpack(marked)) end", ''),
    Mutant('a request that brought something is not remembered', 'fetch',
           "redis.call('HSET', KEYS[1], ARGV[2], math.floor(now) .. ':' .. ARGV[3])", '',
           ('registration.beat, registration.request = self._beat(), request', 'pass')),
    Mutant('an empty answer uses up the number', 'fetch',
           'if n == 0 then return out end',
           "if n == 0 then redis.call('HSET', KEYS[1], ARGV[2], math.floor(now) .. ':' .. ARGV[3]) return out end",
           ('        if deliveries:\n', '        registration.request = request\n        if deliveries:\n')),
    Mutant('only the first due message leaves the schedule', 'fetch',
           "redis.call('ZREM', KEYS[3], unpack(due))", "redis.call('ZREM', KEYS[3], due[1])",
           ('taken, self._items = self._items[:n], self._items[n:]', 'taken, self._items = self._items[:n], self._items[1:]')),
    Mutant('a message is due early', 'fetch',
           "'-inf', now, 'LIMIT'", "'-inf', '+inf', 'LIMIT'",
           ('self._schedule.take(self._now(), base.MAX_PROMOTE)', "self._schedule.take(float('inf'), base.MAX_PROMOTE)")),
    Mutant('a message that becomes due loses its priority', 'fetch',
           "if is_message(m) then queues[place(m, 'tail')] = true else",
           "if is_message(m) then redis.call('RPUSH', PREFIX .. 'queue:' .. queue_of(m), m) else",
           ('woken.add(self._place(raw))', 'self._queues[Message.decode(raw).queue].plain.append(raw)')),
    Mutant('low priorities run before none', 'fetch',
           "redis.call('ZRANGEBYSCORE', zset, '-inf', '(0',", "redis.call('ZRANGEBYSCORE', zset, '-inf', '+inf',",
           ('self.priority.take(-0.5, at_most)', "self.priority.take(float('inf'), at_most)")),
    Mutant('the limit of a queue is ignored', 'fetch',
           'local want = math.min(at_most - popped, limit[q])', 'local want = at_most - popped',
           ('want = min(at_most - popped, limit)', 'want = at_most - popped')),
    Mutant('several messages use up one revoke_once', 'fetch',
           'mark, used[field] = REVOKED_FOR_GOOD, true', 'mark = REVOKED_FOR_GOOD',
           ('                    del self._revoked[field]\n', '')),
    Mutant('a used revoke_once uses up the next one', 'fetch',
           'if not has(flags, REVOKED_FOR_GOOD) then', 'if true then flags = flags % 128',
           ('if not raw[2] & REVOKED_FOR_GOOD:', 'if True:')),
    Mutant('a signed revocation comes without its proof', 'fetch',
           "if mark > 0 and signature ~= '' then", 'if false then',
           ("revocation.encode() if revocation.signature else b''", "b''")),
    Mutant('a message bears two proofs', 'fetch',
           'not used[field] and not has(flags, PROOF)', 'not used[field]',
           ('if field not in self._revoked or raw[2] & PROOF:', 'if field not in self._revoked:')),
    # -- suspects
    Mutant('suspects wait among the others', 'place',
           'if deliveries >= SUSPECT then', 'if false then',
           ('((queue.suspects, message.deliveries) if message.deliveries >= SUSPECT\n'
            '                            else (queue.priority, message.priority))', '(queue.priority, message.priority)')),
    Mutant('any number of suspects comes', 'fetch',
           'math.min(room, at_most - popped, limit[q])', 'math.min(at_most - popped, limit[q])',
           ('min(room, at_most - len(got), left[name])', 'min(at_most - len(got), left[name])')),
    Mutant('suspects do not count', 'fetch',
           'room, limit[q] = room - #found, limit[q] - #found', '',
           ('room, left[name] = room - len(raws), left[name] - len(raws)', 'pass')),
    Mutant('the worst suspects have others beside them', 'fetch',
           "if waiting and fewest == '-inf' then break end", '',
           ('            if waiting and above == first:\n                break\n', '')),
    Mutant('the room of one class is that of all', 'fetch',
           "fewest = '(' .. most", "fewest = '(-999'",
           ('            above = -deliveries\n', '            above = -999.0\n')),
    # -- dead letters
    Mutant('a dead letter that is tried again stays dead', 'retry_dead',
           "redis.call('HDEL', KEYS[1], field)\n      redis.call('ZREM', KEYS[2], field)\n", '',
           ('            found = self._take_dead(task_id)\n',
            '            found = self._take_dead(task_id)\n            self._dead.extend(found)\n')),
    Mutant('a dead letter that is tried again is a suspect still', 'retry_dead',
           'place(made_new(m), ', 'place(m, ',
           ('self._place(made_new(raw))', 'self._place(raw)')),
    Mutant('a task that is tried again was lost', 'retry_dead',
           "redis.call('DEL', KEYS[3])", '',
           ('            if found and (self._record(task_id) or b\'\')[:1] == base.LOST:\n', '            if False:\n')),
    Mutant('a purge of one dead letter purges all', 'purge_dead',
           "if ARGV[1] == '' then", 'if true then',
           ('if task_id is None or (_is_whole(letter[2])', 'if True or (_is_whole(letter[2])')),
    # -- once
    Mutant('a key is given to who asks last', 'claim',
           "'NX', ", '',
           ('            if expiry > self._now():\n                return holder == owner\n', '')),
    Mutant('a key is refused to its owner', 'claim',
           "return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0", 'return 0',
           ('return holder == owner', 'return False')),
    Mutant('anybody gives a key back', 'unclaim',
           "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end", '',
           ('if holder != owner or expiry <= self._now():', 'if expiry <= self._now():')),
    # -- reap and release
    Mutant('the reaper ignores the beat', 'reap',
           'if beat ~= ARGV[3] then return {-1} end', '',
           ('(found.beat != EVICTED and str(found) != beat)', 'False')),
    Mutant('an eviction leaves no mark', 'reap',
           "redis.call('HDEL', KEYS[1], consumer)\n    redis.call('HSET', KEYS[1], consumer, 'x')", '',
           ('            found.beat = EVICTED\n', '')),
    Mutant('the first step of a reap forgets the consumer', 'reap',
           "if redis.call('EXISTS', KEYS[2]) == 1 then return",
           "redis.call('HDEL', KEYS[1], consumer) if redis.call('EXISTS', KEYS[2]) == 1 then return",
           ('        done = not held\n', '        done = not held\n        self._consumers.pop(consumer, None)\n')),
    Mutant('the last step of a reap forgets nobody', 'reap',
           "redis.call('HDEL', KEYS[3], consumer)", '',
           ('self._info.pop(consumer, None)', 'pass')),
    Mutant('what is taken back stays in flight', 'reap',
           "redis.call('HDEL', KEYS[2], tags[j])", '',
           ('raw := held.pop(tag)', 'raw := held[tag]')),
    Mutant('what is taken back stands in the wrong order', 'reap',
           'tonumber(a) > tonumber(b)', 'tonumber(a) < tonumber(b)',
           ('sorted(held, reverse=True)', 'sorted(held)')),
    Mutant('what is taken back goes to the tail', 'reap',
           "place(m, 'head')", "place(m, 'tail')",
           ('self._place(raw, at_head=True)', 'self._place(raw)')),
    Mutant('what is taken back loses its priority', 'reap',
           "queues[place(m, 'head')] = true", "redis.call('LPUSH', PREFIX .. 'queue:' .. queue_of(m), m)",
           ('queues.add(self._place(raw, at_head=True))', 'self._queues[message.queue].plain.appendleft(raw)')),
    Mutant('what is taken back stays revoked', 'place',
           """local function going_back(m, deliveries)
  local flags = string.byte(m, 3)
  if has(flags, REVOKED) then flags = flags - REVOKED end""",
           """local function going_back(m, deliveries)
  local flags = string.byte(m, 3)""",
           ('            raw = going_back(raw, deliveries)\n', '            raw = raw[:1] + bytes((deliveries,)) + raw[2:]\n')),
    Mutant('what is taken back keeps the proof of a mark that is forgotten', 'place',
           'flags, last = flags - PROOF, last - 1 - string.byte(m, -1)', ''),
    Mutant('a release counts a delivery', 'reap',
           '(release and 0 or 1)', '1',
           ('message.deliveries + (max_deliveries is not None)', 'message.deliveries + 1')),
    Mutant('a death counts no delivery', 'reap',
           '(release and 0 or 1)', '0',
           ('message.deliveries + (max_deliveries is not None)', 'message.deliveries')),
    Mutant('poison is queued for ever', 'reap',
           'if at_most_once or (not release and deliveries >= max_deliveries) then', 'if at_most_once then',
           ('if at_most_once or (max_deliveries is not None and deliveries >= max_deliveries):', 'if at_most_once:')),
    Mutant('what may run once runs twice', 'reap',
           'if at_most_once or (not release and', 'if (not release and',
           ('if at_most_once or (max_deliveries is not None and', 'if (max_deliveries is not None and')),
    Mutant('a release gives back what may run once and may have run', 'reap',
           'has(string.byte(m, 3), AT_MOST_ONCE) and not unbegun[tags[j]]',
           'has(string.byte(m, 3), AT_MOST_ONCE) and not release',
           ('and tag not in unbegun', 'and max_deliveries is not None')),
    Mutant('a release buries what has not been begun', 'reap',
           'for j = 7, #ARGV do unbegun[ARGV[j]] = true end', '',
           ('and tag not in unbegun', '')),
    Mutant('nobody is told of a death', 'reap',
           "if string.byte(m, 3) % 2 == 1 then keep(id_of(m), 'L' .. reason, tonumber(ARGV[6])) end", '',
           ('if message.flags & WANTS_RESULT:', 'if False:')),
    # -- registration
    Mutant('a beat revives an evicted consumer', 'beat',
           "if beat == 'x' then return {1, now, held} end", "if beat == 'x' then beat = 'x:0' end",
           ('            standing = self._standing(consumer)\n            if standing is Standing.GOOD:',
            '            standing = self._standing(consumer)\n            if standing is not Standing.UNKNOWN:')),
    Mutant('a beat does not show', 'beat',
           "redis.call('HSET', KEYS[1], ARGV[1], now .. ':' .. string.match(beat, ':(%d+)$'))", '',
           ('self._consumers[consumer].beat = self._beat()', 'pass')),
    Mutant('a registration revives an evicted consumer', 'register',
           "redis.call('HSETNX', KEYS[1]", "redis.call('HSET', KEYS[1]",
           ('self._consumers.setdefault(consumer, _Consumer(self._beat(), max([request, *used])))',
            'self._consumers[consumer] = _Consumer(self._beat(), max([request, *used]))')),
    Mutant('a registration gives tags away that are in flight', 'register',
           'last = math.max(last, math.floor(tonumber(tag) / 512))', '',
           ('max([request, *used])', 'request')),
    Mutant('who lives is adopted', 'adopt',
           "redis.call('HSETNX', KEYS[1], ARGV[1], 'x')", "redis.call('HSET', KEYS[1], ARGV[1], 'x')",
           ('if consumer not in self._info or consumer in self._consumers:', 'if consumer not in self._info:')),
    Mutant('who never was is adopted', 'adopt',
           "if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return 0 end", '',
           ('if consumer not in self._info or consumer in self._consumers:', 'if consumer in self._consumers:')),
    # -- producers
    Mutant('a tick is not remembered', 'tick',
           "redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])", '',
           ('            self._cron[name] = tick\n', '')),
    Mutant('ticks may go down', 'tick',
           'tonumber(last) >= tonumber(ARGV[3])', 'tonumber(last) == tonumber(ARGV[3])',
           ('self._cron.get(name, tick - 1) >= tick', 'self._cron.get(name, tick - 1) == tick')),
    Mutant('a restored message stays revoked', 'restore',
           "return redis.call('HDEL', KEYS[1], ARGV[1])", "return redis.call('HEXISTS', KEYS[1], ARGV[1])",
           ('return self._revoked.pop(field, None) is not None', 'return field in self._revoked')),
    Mutant('the last of a priority runs first', 'place',
           "side == 'head' and -1 or 1", "side == 'head' and 1 or -1",
           ('next(self._head if at_head else self._tail)', 'next(self._tail if at_head else self._head)')),
]

#: Bugs that the model does not look for, and the test of the contract that does.
NOT_IN_THE_MODEL = [
    (Mutant('what a fetch leaves wakes nobody', 'fetch',
            "if popped - before >= want and redis.call('EXISTS', list, zset) > 0 then wake(name) end", '',
            ('            if len(raws) >= want and (self._queues[name].plain or self._queues[name].priority):\n'
             '                woken.add(name)\n', '')),
     waking.test_a_fetch_that_leaves_something_wakes_the_next),
    (Mutant('what becomes due wakes nobody', 'fetch',
            '  for queue in pairs(queues) do wake(queue) end\nend\nnext_due()', 'end\nnext_due()',
            ('woken.add(self._place(raw))', 'self._place(raw)')),
     waking.test_what_a_fetch_has_promoted_wakes_those_who_serve_it),
    (Mutant('what a settle enqueues wakes nobody', 'settle',
            'for queue in pairs(woken) do wake(queue) end', '',
            ('            self._forget_empty(consumer)\n            woken = self._wake(queues)\n',
             '            self._forget_empty(consumer)\n            woken = []\n')),
     waking.test_an_effect_wakes_who_waits),
    (Mutant('suspects that stay behind wake nobody', 'fetch',
            "if redis.call('EXISTS', zset) == 1 then wake(ARGV[3 + 2 * q] .. FOR_SUSPECTS) end", '',
            ('                if raws and self._queues[name].suspects:\n                    woken.add(base.for_suspects(name))\n', '')),
     waking.test_suspects_that_stay_behind_wake_the_next),
]


# -- how a bug is sown ------------------------------------------------------------------------------------------

def replaced(text: str, old: str, new: str) -> str:
    """The text with the replacement made: at one place, and no other."""
    assert text.count(old) == 1, f'{old!r} is there {text.count(old)} times'
    return text.replace(old, new)


def mutate_script(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The storages made from now on run the script with the bug."""
    read = scripts._source
    bad = replaced(read(mutant.script), mutant.old, mutant.new)
    monkeypatch.setattr(scripts, '_source', lambda name: bad if name == mutant.script else read(name))


@pytest.fixture
def original_scripts():
    """No script is kept from before or for after the test."""
    scripts.script.cache_clear()
    yield
    scripts.script.cache_clear()


def mutated_memory(mutant: Mutant) -> type[memory.MemoryStorage]:
    """A MemoryStorage with the bug."""
    assert mutant.twin is not None
    text = replaced(Path(memory.__file__).read_text(encoding='utf-8'), *mutant.twin)
    module = types.ModuleType('mutated_memory')
    sys.modules[module.__name__] = module
    try:
        exec(compile(text, mutant.name, 'exec'), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module.MemoryStorage


def hunt(kit, settings=HUNT):
    """Runs the model until it finds something."""
    class Hunted(Protocol):
        pass

    Hunted.kit = kit
    run_state_machine_as_test(Hunted, settings=settings)


def of_both(mutants):
    return [mutant for mutant in mutants if mutant.twin]


def name_of(value):
    return value.name.replace(' ', '-') if isinstance(value, Mutant) else ''


# -- the hunt ---------------------------------------------------------------------------------------------------

def test_there_are_enough_and_each_is_another_one():
    assert len({(mutant.script, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS) >= 15


@pytest.mark.parametrize('mutant', MUTANTS, ids=name_of)
def test_the_model_catches_a_bug_of_a_script(mutant, redis_kit, monkeypatch, original_scripts):
    mutate_script(mutant, monkeypatch)
    with pytest.raises((AssertionError, StorageError)):     # the script itself may stumble over it
        hunt(redis_kit)


@pytest.mark.parametrize('mutant', of_both(MUTANTS), ids=name_of)
def test_the_model_catches_a_bug_of_the_twin(mutant):
    kit = MemoryKit(mutated_memory(mutant))
    with pytest.raises(AssertionError):
        hunt(kit)


@pytest.mark.parametrize(('mutant', 'check'), NOT_IN_THE_MODEL, ids=name_of)
def test_the_contract_catches_a_bug_of_a_script(mutant, check, redis_kit, monkeypatch, original_scripts):
    check(redis_kit)
    redis_kit.empty()
    mutate_script(mutant, monkeypatch)
    scripts.script.cache_clear()
    with pytest.raises(AssertionError):
        check(redis_kit)


@pytest.mark.parametrize(('mutant', 'check'), NOT_IN_THE_MODEL, ids=name_of)
def test_the_contract_catches_a_bug_of_the_twin(mutant, check):
    check(MemoryKit())
    kit = MemoryKit(mutated_memory(mutant))
    with pytest.raises(AssertionError):
        check(kit)


def test_the_model_finds_nothing_where_there_is_nothing(kit):
    hunt(kit, settings(HUNT, max_examples=100))
