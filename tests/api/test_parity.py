"""What else Huey 1.3 does: tasks by hand, the schedule, tasks as objects, its exceptions, the eager mode."""

from __future__ import annotations

import datetime
import uuid

import pytest

import geventhuey
from geventhuey import PeriodicQueueTask, QueueTask, TaskException, crontab, exceptions
from geventhuey.exceptions import (
    ConfigurationError,
    DataStoreGetException,
    DataStorePutException,
    QueueException,
    QueueReadException,
    QueueWriteException,
    ScheduleAddException,
    ScheduleReadException,
    StorageError,
    StorageOutcomeUnknown,
    StorageUnavailable,
)
from geventhuey.testing import drain

UTC_MOMENT = datetime.datetime(2035, 6, 1, 12, 0)


@pytest.fixture
def add(huey):
    @huey.task()
    def add(a, b):
        return a + b
    return add


# -- the application's attributes -------------------------------------------------------------------------------

def test_settings_are_attributes_and_can_be_changed(make):
    huey = make(result_store=False, events=False, store_none=True, store_errors=False, blocking=True, read_timeout=0.01)
    names = ('result_store', 'events', 'store_none', 'always_eager', 'store_errors', 'blocking')
    assert [getattr(huey, name) for name in names] == [False, False, True, False, False, True]
    for name in names:
        setattr(huey, name, not getattr(huey, name))
    assert [getattr(huey, name) for name in names] == [True, True, False, True, True, False]
    assert huey.storage.name == 'app'


def test_settings_may_be_given_by_position(make):
    from geventhuey import MemoryHuey
    huey = MemoryHuey('app', False, False, True, True, False, True)
    assert (huey.result_store, huey.events, huey.store_none, huey.always_eager, huey.store_errors, huey.blocking) == (
        False, False, True, True, False, True)


def test_result_store_can_be_changed_at_run_time(huey, add):
    huey.result_store = False
    assert add(1, 2) is None
    huey.result_store = True
    result = add(1, 2)
    drain(huey)
    assert result() == 3
    assert huey.result_count() == 0


# -- enqueue ------------------------------------------------------------------------------------------------------

def test_the_same_task_may_be_enqueued_many_times(huey):
    runs = []

    @huey.task()
    def count():
        runs.append(1)

    task = count.task_class(((), {}))
    for _ in range(3):
        huey.enqueue(task)
    assert huey.pending_count() == 3
    drain(huey)
    assert len(runs) == 3


def test_tasks_run_in_the_order_in_which_they_were_enqueued(huey):
    runs = []

    @huey.task()
    def note(number):
        runs.append(number)

    for number in range(10):
        note(number)
    drain(huey)
    assert runs == list(range(10))


def test_enqueue_looks_at_the_time_of_the_task(huey, add):
    task = add.task_class(((1, 2), {}), execute_time=datetime.datetime(2035, 1, 1))
    huey.enqueue(task)
    assert (huey.pending_count(), huey.scheduled_count()) == (0, 1)
    task = add.task_class(((1, 2), {}), execute_time=datetime.datetime(2001, 1, 1))
    huey.enqueue(task)
    assert (huey.pending_count(), huey.scheduled_count()) == (1, 1)


def test_only_tasks_can_be_enqueued(huey):
    for thing in (None, 'add', object()):
        with pytest.raises(TypeError, match='a task is needed'):
            huey.enqueue(thing)


# -- the schedule ---------------------------------------------------------------------------------------------------

def test_add_schedule_and_read_schedule(huey, add):
    task = add.task_class(((1, 2), {}), execute_time=UTC_MOMENT)
    huey.add_schedule(task)
    assert huey.read_schedule(UTC_MOMENT - datetime.timedelta(seconds=1)) == []
    assert huey.read_schedule(UTC_MOMENT) == [task]
    assert huey.read_schedule(UTC_MOMENT) == []
    assert huey.scheduled_count() == 0


def test_what_has_no_time_is_due_at_once(huey, add):
    task = add.task_class(((1, 2), {}))
    huey.add_schedule(task)
    assert huey.read_schedule() == [task]


def test_read_schedule_is_the_soonest_first(huey, add):
    tasks = [add.task_class(((n, n), {}), execute_time=UTC_MOMENT - datetime.timedelta(minutes=n)) for n in range(5)]
    for task in tasks:
        huey.add_schedule(task)
    assert huey.read_schedule(UTC_MOMENT) == tasks[::-1]


def test_read_periodic_makes_a_task_of_each_that_is_due(huey):
    @huey.periodic_task(crontab(minute='0'))
    def hourly():
        return 'on the hour'

    @huey.periodic_task(crontab(minute='30'))
    def half_past():
        pass

    task, = huey.read_periodic(UTC_MOMENT)
    assert type(task) is hourly.task_class
    assert huey.execute(task) == 'on the hour'
    assert [type(task) for task in huey.read_periodic(UTC_MOMENT.replace(minute=30))] == [half_past.task_class]


def test_ready_to_run(make, clock):
    huey = make()

    @huey.task()
    def add(a, b):
        return a + b

    def at(seconds):
        return datetime.datetime.fromtimestamp(clock.now() + seconds, datetime.timezone.utc).replace(tzinfo=None)

    task = add.task_class(((1, 2), {}), execute_time=at(60))
    assert not huey.ready_to_run(task)
    assert not huey.ready_to_run(task, at(59))
    assert huey.ready_to_run(task, at(60))
    clock.advance(60)
    assert huey.ready_to_run(task)
    assert huey.ready_to_run(add.task_class(((1, 2), {})))


# -- tasks as objects -----------------------------------------------------------------------------------------------

def test_a_task_s_attributes():
    task = QueueTask(data='anything', task_id='my-id', execute_time=UTC_MOMENT, retries=3, retry_delay=7)
    assert (task.data, task.task_id, task.execute_time, task.retries, task.retry_delay) == ('anything', 'my-id', UTC_MOMENT, 3, 7)
    assert task.revoke_id == 'r:my-id'
    assert task.name == 'QueueTask'
    assert task.get_data() == 'anything'
    task.set_data('something else')
    assert task.get_data() == task.data == 'something else'


def test_a_task_s_defaults():
    task = QueueTask()
    assert (task.data, task.execute_time, task.retries, task.retry_delay) == (None, None, 0, 0)
    assert str(uuid.UUID(task.task_id)) == task.task_id
    assert QueueTask().task_id != task.task_id


def test_the_execute_time_of_a_task_can_be_changed():
    task = QueueTask()
    task.execute_time = UTC_MOMENT
    assert task.eta == UTC_MOMENT.replace(tzinfo=datetime.timezone.utc).timestamp()
    assert task.execute_time == UTC_MOMENT
    task.execute_time = None
    assert task.eta is None


def test_an_aware_execute_time_is_understood():
    moment = UTC_MOMENT.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    assert QueueTask(execute_time=moment).execute_time == UTC_MOMENT - datetime.timedelta(hours=2)


def test_a_plain_task_does_nothing():
    with pytest.raises(NotImplementedError):
        QueueTask().execute()
    assert PeriodicQueueTask().validate_datetime(UTC_MOMENT) is False


def test_tasks_are_equal_when_id_time_and_type_are():
    class Other(QueueTask):
        pass

    task = QueueTask(task_id='x', execute_time=UTC_MOMENT)
    assert task == QueueTask(task_id='x', execute_time=UTC_MOMENT)
    assert task != QueueTask(task_id='y', execute_time=UTC_MOMENT)
    assert task != QueueTask(task_id='x')
    assert task != Other(task_id='x', execute_time=UTC_MOMENT)
    assert task != 'x'
    assert len({task, QueueTask(task_id='x', execute_time=UTC_MOMENT)}) == 1


def test_a_task_shows_its_name_id_time_and_retries(add):
    cls = add.task_class
    assert repr(cls(task_id='x')) == f'{cls.task_name}: x'
    assert repr(cls(task_id='x', execute_time=UTC_MOMENT, retries=2)) == f'{cls.task_name}: x @2035-06-01 12:00:00 2 retries'


def test_a_class_of_ones_own(huey):
    """``data`` is whatever the class wants it to be."""
    @huey.registry.register
    class PutTask(QueueTask):
        def execute(self):
            key, value = self.get_data()
            return {key: value}

    result = huey.enqueue(PutTask(('k', 'v')))
    assert PutTask.task_name == f'{__name__}.PutTask'
    task, = huey.pending()
    assert (type(task), task.data) == (PutTask, ('k', 'v'))
    drain(huey)
    assert result() == {'k': 'v'}


def test_a_class_of_ones_own_that_is_not_registered(huey):
    class PutTask(QueueTask):
        pass

    with pytest.raises(ConfigurationError, match=r'huey.registry.register\(PutTask\)'):
        huey.enqueue(PutTask())


def test_the_registry(huey, add):
    cls = add.task_class
    assert cls.task_name in huey.registry
    assert list(huey.registry) == [cls]
    assert len(huey.registry) == 1
    assert huey.registry.register(cls) is cls
    assert huey.registry.unregister(cls) is True
    assert cls.task_name not in huey.registry
    assert huey.registry.unregister(cls) is False


def test_unregistering_one_class_leaves_another_of_its_name(huey, add):
    class Impostor(QueueTask):
        task_name = add.task_class.task_name

    assert huey.registry.unregister(Impostor) is False
    assert add.task_class.task_name in huey.registry


# -- exceptions -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', [
    'QueueWriteException', 'QueueReadException', 'QueueRemoveException', 'DataStoreGetException', 'DataStorePutException',
    'DataStoreTimeout', 'ScheduleAddException', 'ScheduleReadException', 'ConfigurationError'])
def test_the_exceptions_have_their_names_and_their_root(name):
    assert issubclass(getattr(exceptions, name), QueueException)
    assert getattr(geventhuey, name) is getattr(exceptions, name)


def test_every_exception_of_the_package_has_one_root():
    classes = [cls for cls in vars(exceptions).values() if isinstance(cls, type) and issubclass(cls, BaseException)]
    assert {cls for cls in classes if not issubclass(cls, QueueException)} == {exceptions.TaskInterrupted}
    assert issubclass(QueueException, Exception)
    assert not issubclass(exceptions.TaskInterrupted, Exception)


def test_a_task_exception_survives_pickle():
    import pickle
    error = pickle.loads(pickle.dumps(TaskException('text', {'error': 'x'})))
    assert (type(error), str(error), error.metadata) == (TaskException, 'text', {'error': 'x'})


class Broken:
    """A storage whose every verb fails."""

    in_process = True

    def __init__(self, error):
        self.error = error

    def __getattr__(self, name):
        def fail(*args, **kwargs):
            raise self.error
        return fail


def operations(huey, add):
    """Every operation on the storage, and the exception that stands for its failure."""
    task = add.task_class(((1, 2), {}))
    return {
        'enqueue': (lambda: huey.enqueue(task), QueueWriteException),
        'call': (lambda: add(1, 2), QueueWriteException),
        'schedule': (lambda: add.schedule(args=(1, 2), delay=60), ScheduleAddException),
        'add_schedule': (lambda: huey.add_schedule(task), ScheduleAddException),
        'dequeue': (huey.dequeue, QueueReadException),
        'execute': (lambda: huey.execute(task), DataStorePutException),
        'read_schedule': (lambda: huey.read_schedule(UTC_MOMENT), ScheduleReadException),
        'pending': (huey.pending, QueueReadException),
        'pending_count': (huey.pending_count, QueueReadException),
        'len': (lambda: len(huey), QueueReadException),
        'scheduled': (huey.scheduled, ScheduleReadException),
        'scheduled_count': (huey.scheduled_count, ScheduleReadException),
        'all_results': (huey.all_results, DataStoreGetException),
        'result_count': (huey.result_count, DataStoreGetException),
        'errors': (huey.errors, DataStoreGetException),
        'result': (lambda: huey.result('x'), DataStoreGetException),
        'revoke': (lambda: huey.revoke(task), DataStorePutException),
        'revoke_by_id': (lambda: huey.revoke_by_id('x'), DataStorePutException),
        'restore': (lambda: huey.restore(task), DataStoreGetException),
        'restore_by_id': (lambda: huey.restore_by_id('x'), DataStoreGetException),
        'is_revoked': (lambda: huey.is_revoked(task), DataStoreGetException),
        'function.revoke': (add.revoke, DataStorePutException),
        'function.restore': (add.restore, DataStoreGetException),
        'function.is_revoked': (add.is_revoked, DataStoreGetException),
        'flush': (huey.flush, QueueException),
    }


OPERATIONS = [
    'enqueue', 'call', 'schedule', 'add_schedule', 'dequeue', 'execute', 'read_schedule', 'pending', 'pending_count', 'len',
    'scheduled', 'scheduled_count', 'all_results', 'result_count', 'errors', 'result', 'revoke', 'revoke_by_id', 'restore',
    'restore_by_id', 'is_revoked', 'function.revoke', 'function.restore', 'function.is_revoked', 'flush']


@pytest.mark.parametrize('operation', OPERATIONS)
@pytest.mark.parametrize('error', [StorageUnavailable, StorageError])
def test_what_goes_wrong_with_the_storage_is_named_by_what_was_asked(memory_huey, operation, error):
    huey = memory_huey

    @huey.task()
    def add(a, b):
        return a + b

    huey._use(Broken(error('the text')))
    run, expected = operations(huey, add)[operation]
    with pytest.raises(expected, match=f'{error.__name__}: the text') as raised:
        run()
    assert type(raised.value) is expected
    assert isinstance(raised.value.__cause__, error)


@pytest.mark.parametrize('operation', ['enqueue', 'call', 'schedule', 'add_schedule'])
def test_an_unknown_outcome_of_an_enqueue_is_told_apart(memory_huey, operation):
    huey = memory_huey

    @huey.task()
    def add(a, b):
        return a + b

    huey._use(Broken(StorageOutcomeUnknown('the text')))
    with pytest.raises(exceptions.EnqueueOutcomeUnknown, match='the text') as raised:
        operations(huey, add)[operation][0]()
    assert isinstance(raised.value, QueueWriteException)
    assert raised.value.task_id in str(raised.value)


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize('operation', OPERATIONS)
def test_other_errors_pass_as_they_are(memory_huey, operation, error):
    huey = memory_huey

    @huey.task()
    def add(a, b):
        return a + b

    huey._use(Broken(error('as it is')))
    with pytest.raises(error, match='as it is') as raised:
        operations(huey, add)[operation][0]()
    assert type(raised.value) is error


# -- eager mode -----------------------------------------------------------------------------------------------------

@pytest.fixture
def eager(make):
    return make(always_eager=True)


def test_eager_runs_a_scheduled_task_at_once(eager):
    ran = []

    @eager.task()
    def note(value):
        ran.append(value)
        return value

    assert note.schedule(args=(1,), delay=3600)() == 1
    assert note.schedule(kwargs={'value': 2}, eta=datetime.datetime.now() + datetime.timedelta(days=1))() == 2
    assert ran == [1, 2]
    assert eager.scheduled_count() == 0


def test_eager_runs_what_is_enqueued_by_hand(eager):
    @eager.task()
    def add(a, b):
        return a + b

    assert eager.enqueue(add.task_class(((1, 2), {})))() == 3
    assert eager.add_schedule(add.task_class(((1, 2), {})))() == 3


def test_eager_lets_exceptions_out_and_retries_nothing(eager):
    runs = []

    @eager.task(retries=3)
    def fail():
        runs.append(1)
        raise ValueError('as it is')

    with pytest.raises(ValueError, match='as it is'):
        fail()
    assert len(runs) == 1
    assert eager.errors() == []


def test_eager_stores_nothing(eager):
    @eager.task()
    def add(a, b):
        return a + b

    add(1, 2)
    assert (eager.pending_count(), eager.result_count(), eager.errors()) == (0, 0, [])


def test_eager_does_not_ask_about_revocations(eager):
    @eager.task()
    def add(a, b):
        return a + b

    add.revoke()
    assert add(1, 2)() == 3


def test_eager_passes_the_task_and_the_retries(eager):
    @eager.task(retries=2, include_task=True, retries_as_argument=True)
    def look(task=None, retries=None):
        return [task.task_id, retries]

    result = look()
    assert result() == [result.task_id, 2]


def test_eager_can_be_switched(huey, add):
    huey.always_eager = True
    assert add(1, 2)() == 3
    huey.always_eager = False
    result = add(1, 2)
    assert result() is None
    assert huey.pending_count() == 1


def test_immediate_is_another_name(make):
    huey = make(immediate=True)
    assert huey.always_eager and huey.immediate
    huey.immediate = False
    assert not huey.always_eager


def test_results_is_another_name(make):
    huey = make(results=False)
    assert not huey.result_store and not huey.results
    huey.results = True
    assert huey.result_store


def test_eager_leaves_periodic_functions_alone(eager):
    @eager.periodic_task(crontab())
    def always():
        return 'called'

    assert always() == 'called'


def test_eager_makes_no_connection():
    from geventhuey import RedisHuey
    huey = RedisHuey('app', port=1, always_eager=True)

    @huey.task()
    def add(a, b):
        return a + b

    assert add(1, 2)() == 3
