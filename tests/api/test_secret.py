"""secret=: what is signed is accepted where it belongs, and nowhere else."""

from __future__ import annotations

import warnings

import pytest

from geventhuey import ConfigurationError, DataStoreGetException, MemoryHuey, RedisHuey, TaskLost
from geventhuey.message import REVOKED, REVOKED_FOR_GOOD, Message
from geventhuey.storage.base import Revocation, name_field, task_field
from geventhuey.testing import drain

OLD, NEW = 'an old secret of 16 bytes', 'a new secret of 16 bytes'


def app(make, **settings):
    """An application whose task ``double`` notes what it ran with."""
    huey = make(**settings)
    huey.ran = []

    @huey.task(name='double', retries=1)
    def double(n):
        huey.ran.append(n)
        if n == 'fail':
            raise ValueError('failed')
        return n * 2

    huey.double = double
    return huey


def fallen(huey):
    """Why the tasks in the queue were not run."""
    drain(huey)
    return [letter.reason for letter in huey.dead()]


def forge(huey, message, **changes):
    """The message with something changed, in the queue."""
    huey.storage.enqueue([message._replace(**changes)])


@pytest.fixture(params=[{'secret': NEW}, {'secret': NEW, 'compression': True}, {'secret': NEW, 'serializer': 'json'},
                        {'secret': NEW, 'serializer': 'msgpack'}, {'secret': NEW, 'serializer': 'pickle-any'}],
                ids=['pickle', 'compressed', 'json', 'msgpack', 'pickle-any'])
def huey(make, request):
    return app(make, **request.param)


def test_tasks_results_retries_errors_and_schedules_work_with_a_secret(huey):
    plain, later, failing = huey.double(21), huey.double.schedule((1,), delay=0.001), huey.double('fail')
    while huey.pending_count() or huey.scheduled_count():
        drain(huey)
    assert plain.get(preserve=True) == 42 and later.get() == 2
    assert huey.ran.count('fail') == 2
    assert huey.errors()[0]['error'] == "ValueError('failed')"
    with pytest.raises(Exception, match='failed'):
        failing.get()
    assert huey.serializer.loads(huey.all_results()[plain.task_id]) == 42
    assert huey.dead() == []


def test_a_large_argument_and_result_travel(huey):
    result = huey.double('x' * 100_000)
    drain(huey)
    assert result.get() == 'x' * 200_000


def test_messages_without_a_signature_are_dead_letters(make, huey):
    unsigned = app(make, secret=(), serializer=huey.serializer.name)
    forge(huey, unsigned.registry.message(unsigned.double.task_class(((1,), {}))))
    assert 'not signed' in fallen(huey)[0]
    assert huey.ran == []


@pytest.mark.parametrize('changes', [{'id': 'other'}, {'name': 'double2'}, {'queue': 'other'}, {'priority': 5}, {'created': 1.0},
                                     {'expires': 4e9}, {'flags': 2}], ids=str)
def test_messages_whose_header_was_changed_are_dead_letters(make, changes):
    huey = app(make, secret=NEW)
    huey.task(name='double2')(lambda n: huey.ran.append(n))
    message = huey.registry.message(huey.double.task_class(((1,), {})), 1)
    if 'queue' in changes:
        with pytest.raises(Exception, match='signature'):
            huey.registry.task(message._replace(**changes))
        return
    forge(huey, message, **changes)
    assert 'its signature is none of ours' in fallen(huey)[0]
    assert huey.ran == []


def test_what_the_storage_edits_does_not_matter(make):
    huey = app(make, secret=NEW)
    message = huey.registry.message(huey.double.task_class(((1,), {})), 1)
    task = huey.registry.task(Message.decode(message._replace(deliveries=3, flags=message.flags | REVOKED | REVOKED_FOR_GOOD).encode()))
    assert task.get_data()[0][0] == 1


def test_a_result_is_no_message_and_no_other_tasks_result(make):
    huey = app(make, secret=NEW)
    result, other = huey.double(21), huey.double(4)
    drain(huey)
    record = huey.storage.result(result.task_id, preserve=True)
    forge(huey, huey.registry.message(huey.double.task_class(((1,), {}))), payload=record[1:])
    assert 'none of ours' in fallen(huey)[0]
    huey.storage.put_result(other.task_id, record, None)
    with pytest.raises(DataStoreGetException, match='none of ours'):
        other.get()
    huey.storage.put_result(other.task_id, b'E' + record[1:], None)
    other.reset()
    with pytest.raises(DataStoreGetException, match='none of ours'):
        other.get()


def test_a_none_that_nobody_signed_is_no_result(make):
    huey = app(make, secret=NEW)
    result = huey.double('late')
    huey.storage.put_result(result.task_id, b'N', None)
    with pytest.raises(DataStoreGetException, match='not signed by us'):
        result.get(blocking=True, timeout=5)


def test_a_none_that_is_signed_is_one(make):
    huey = make(secret=NEW)
    result = huey.task(name='nothing')(lambda: None)()
    drain(huey)
    assert result.get(blocking=True, timeout=5) is None


def test_another_applications_message_is_refused(make):
    one, two = app(make, secret=NEW), make('two', secret=NEW)
    two.task(name='double')(lambda n: n)
    forge(two, one.registry.message(one.double.task_class(((1,), {}))))
    assert 'none of ours' in fallen(two)[0]


def test_forged_entries_are_left_out_and_said(make, caplog):
    huey = app(make, secret=NEW)
    good = huey.double(1)
    huey.double('fail')
    drain(huey)
    huey.storage.note_error(app(make, secret=()).envelope.dumps(b'error', {'id': 'forged'}))
    huey.storage.put_result('forged', b'V\0' + huey.serializer.dumps(1), None)
    assert [entry['error'] for entry in huey.errors()] == ["ValueError('failed')"] * 2
    assert good.task_id in huey.all_results() and 'forged' not in huey.all_results()
    assert 'left out' in caplog.text


# -- revocations --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('once', [False, True])
@pytest.mark.parametrize('by', ['id', 'name'])
def test_who_knows_the_secret_can_revoke(make, once, by):
    huey = app(make, secret=NEW)
    result = huey.double(1)
    (huey if by == 'id' else huey.double).revoke(*([result.task] if by == 'id' else []), revoke_once=once)
    assert huey.is_revoked(result.task)
    drain(huey)
    assert huey.ran == []


@pytest.mark.parametrize('signature', ['', 'cafe' * 8])
@pytest.mark.parametrize('once', [False, True])
@pytest.mark.parametrize('by', ['id', 'name'])
def test_a_forged_revocation_counts_for_nothing(make, caplog, signature, once, by):
    huey = app(make, secret=NEW)
    result = huey.double(1)
    field = task_field(result.task_id) if by == 'id' else name_field('double')
    huey.storage.revoke(field, Revocation(None, once, signature), None)
    assert not huey.is_revoked(result.task)
    drain(huey)
    assert huey.ran == [1]
    assert 'not by a revocation with a signature of ours' in caplog.text


def test_a_revocation_of_one_task_is_none_of_another(make):
    huey = app(make, secret=NEW)
    first, second = huey.double(1), huey.double(2)
    first.revoke()
    huey.storage.revoke(task_field(second.task_id), huey.storage.revocation(task_field(first.task_id)), None)
    drain(huey)
    assert huey.ran == [2]


@pytest.mark.parametrize('flag', [REVOKED, REVOKED_FOR_GOOD])
def test_a_flag_that_somebody_set_counts_for_nothing(make, flag):
    huey = app(make, secret=NEW)
    message = huey.registry.message(huey.double.task_class(((1,), {})))
    forge(huey, message, flags=message.flags | flag)
    drain(huey)
    assert huey.ran == [1]


# -- rotation, and where secrets come from ------------------------------------------------------------------------

def test_a_secret_can_be_changed_while_tasks_are_on_their_way(make):
    before, during, after = app(make, secret=OLD), app(make, secret=[NEW, OLD]), app(make, secret=NEW)
    if before.storage.in_process:
        during.storage = after.storage = before.storage
    first = before.double(1)
    drain(during)
    assert during.ran == [1] and during.result(first.task_id, preserve=True) == 2
    assert after.result(first.task_id) == 2, 'what the one in between signs, the new one verifies'
    before.double(3)
    assert 'none of ours' in fallen(after)[0]


def test_the_environment_may_say_it(make, monkeypatch):
    monkeypatch.setenv('GEVENTHUEY_SECRET', f'{NEW}, {OLD}')
    huey, plain = app(make), app(make, secret=())
    assert huey.envelope.signs and not plain.envelope.signs
    body = app(make, secret=OLD).envelope.dumps(b'task', 1)
    assert huey.envelope.loads(b'task', body) == 1
    assert app(make, secret=NEW).envelope.loads(b'task', huey.envelope.dumps(b'task', 2)) == 2


def test_a_secret_of_the_environment_that_is_too_short_is_refused(make, monkeypatch):
    monkeypatch.setenv('GEVENTHUEY_SECRET', 'hunter2')
    with pytest.raises(ConfigurationError, match='too short') as info:
        make()
    assert 'hunter2' not in str(info.value)


@pytest.mark.parametrize('said', ['', ' ', ', '])
def test_an_environment_that_says_a_secret_and_has_none_is_refused(make, monkeypatch, said):
    monkeypatch.setenv('GEVENTHUEY_SECRET', said)
    with pytest.raises(ConfigurationError, match='unset it when nothing is to be signed'):
        make()
    assert not make(secret=()).envelope.signs


def test_the_reprs_show_no_secret(make):
    huey = app(make, secret=NEW)
    assert NEW not in f'{huey!r} {huey.envelope!r} {huey.registry!r} {huey.storage!r} {huey.double!r} {huey.double(1)!r}'


# -- pickle-any ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(('url', 'settings', 'warned'), [
    ('redis://10.0.0.1:6379', {}, True), ('redis://redis.example:6379', {}, True), ('redis://10.0.0.1', {'secret': NEW}, False),
    ('redis://localhost', {}, False), ('redis://127.0.0.1', {}, False), ('unix:///tmp/redis.sock', {}, False)])
def test_pickle_any_without_a_secret_is_warned_of_where_others_can_write(url, settings, warned):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        RedisHuey('app', url=url, serializer='pickle-any', **settings)
        MemoryHuey('app', serializer='pickle-any')
    assert [str(warning.message).partition(':')[0] for warning in caught] == ["serializer='pickle-any' without a secret"] * warned
    assert all(warning.filename == __file__ for warning in caught)


# -- lost with the server -----------------------------------------------------------------------------------------

def test_a_loss_is_told_by_the_storage_and_needs_no_signature(make):
    huey = app(make, secret=NEW)
    result = huey.double(1)
    huey.storage.put_result(result.task_id, b'Lits consumer died', None)
    with pytest.raises(TaskLost):
        result.get(blocking=True, timeout=5)
