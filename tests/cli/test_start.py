"""What a consumer says of itself when it starts, where its log goes, and what it needs of the system and of Redis."""

from __future__ import annotations

import re
import time

import gevent
import psutil
import pytest

import geventhuey
from geventhuey import MemoryHuey, crontab
from geventhuey.cli.consumer import CALM_THRESHOLD
from tests.cli.kit import APP, CONSUMER, PASSWORD, Site, errors
from tests.consumer.kit import Program, wait_until

# -- what it says of itself --------------------------------------------------------------------------------


def check_banner(consumer: Program, workers: str, pid: int, name: str, where: str) -> None:
    """Everything is said, and once."""
    for line in (
        rf'INFO:geventhuey\.consumer:{pid}:geventhuey {re.escape(geventhuey.__version__)}, gevent {re.escape(gevent.__version__)}: '
        rf'app\.huey with {workers}, PID {pid}$',
        rf"INFO:geventhuey\.consumer:{pid}:application '{name}', queue 'default', serializer pickle, tasks at {re.escape(where)}$",
        rf'INFO:geventhuey\.consumer:{pid}:storage: (Redis|Valkey) \d+\.\d+\.\d+$',
        rf'INFO:geventhuey\.consumer:{pid}:results are kept; periodic tasks are enabled, by UTC$',
        rf'INFO:geventhuey\.consumer:{pid}:tasks: add, fail$',
        rf'INFO:geventhuey\.consumer:{pid}:periodic: hourly, next at \d\d\d\d-\d\d-\d\d \d\d:00 UTC$',
        rf'INFO:geventhuey\.consumer:{pid}:periodic: by_itself, when its own function says so$',
    ):
        assert len(re.findall(line, consumer.text(), re.MULTILINE)) == 1, f'{line} in\n{consumer.text()}'


def test_the_banner_says_what_runs_where_and_keeps_the_password(site, locked_redis):
    site.write(app=APP)
    url = f'redis://:{PASSWORD}@127.0.0.1:{locked_redis.port}/0'
    consumer = site.start('app.huey', '-v', '-w', '7', WORK_URL=url)
    consumer.wait_for('periodic: by_itself')
    check_banner(consumer, '7 greenlets', consumer.pid, site.name, f'redis://:***@127.0.0.1:{locked_redis.port}/0')
    assert [line.partition(':storage: ')[2] for line in consumer.lines('WARNING')] == [
        'maxmemory-policy is allkeys-lru: when memory is full, Redis will throw tasks away; set maxmemory-policy noeviction',
        'appendonly is off: if Redis itself dies, what came after its last snapshot is lost']
    assert consumer.stop() == 0
    assert PASSWORD not in consumer.text()


def test_a_redis_that_is_set_up_well_gives_no_warning(site, own_redis):
    site.write(app=APP)
    consumer = site.start('app.huey', WORK_URL=own_redis.url)
    consumer.wait_for('periodic: by_itself')
    assert consumer.stop() == 0
    assert consumer.lines('WARNING') == errors(consumer) == []


@pytest.mark.parametrize(('options', 'workers'), [
    (('-w', '1'), '1 greenlet'), (('-k', 'thread', '-w', '2'), '2 threads'), (('-p', '2', '-w', '3'), '3 greenlets in each of 2 processes'),
    (('-k', 'process', '-w', '2'), '1 thread in each of 2 processes'), (('-k', 'thread', '-p', '2', '-w', '3'),
                                                                       '3 threads in each of 2 processes')])
def test_the_banner_says_how_many_work_in_which_way_and_is_said_once(site, options, workers):
    site.write(app=APP)
    count = 2 if '2 processes' in workers else 1
    consumer = site.start_ready('app.huey', *options, count=count)
    consumer.wait_for('periodic: by_itself')
    said = consumer.wait_for(r'geventhuey\.consumer:(\d+):geventhuey ')
    pids = consumer.children() if count > 1 else [consumer.pid]
    assert int(said[1]) in pids and len(pids) == count
    check_banner(consumer, workers, int(said[1]), site.name, site.url)
    assert len(consumer.lines('supervisor of 2 processes, PID')) == count - 1
    assert consumer.stop() == 0


def test_what_is_switched_off_is_said(site):
    site.write(app=APP.replace("url=os.environ['WORK_URL']", "url=os.environ['WORK_URL'], result_store=False"))
    consumer = site.start('app.huey', '-n', '-o', TZ='Asia/Kolkata')
    consumer.wait_for('results are not kept; periodic tasks are disabled, by local time')
    consumer.wait_for(r'periodic: hourly, next at \d{4}-\d\d-\d\d \d\d:00 local time')
    assert consumer.stop() == 0


def test_an_application_without_tasks_is_said_to_have_none(site):
    site.write(app='from geventhuey import MemoryHuey\nhuey = MemoryHuey("shop")')
    consumer = site.start('app.huey', '-w', '2')
    consumer.wait_for('tasks: none')
    consumer.wait_for("application 'shop', .* tasks at memory://shop")
    assert consumer.stop() == 0


@pytest.mark.parametrize('own', ['', 'gc.set_threshold(1234, 5, 6)'])
def test_the_garbage_collector_is_calmed_unless_the_application_has_a_mind_of_its_own(site, own):
    site.write(app=f"""
        import gc
        from geventhuey import MemoryHuey

        {own}
        huey = MemoryHuey('shop')

        @huey.on_startup()
        def show():
            print('collector', gc.get_threshold()[0], gc.get_freeze_count() > 1000, flush=True)
    """)
    consumer = site.start('app.huey')
    consumer.wait_for(f'collector {1234 if own else CALM_THRESHOLD[0]} True')
    assert consumer.stop() == 0


@pytest.mark.parametrize('periodic', [True, False])
def test_without_periodic_tasks_there_is_no_scheduler(periodic):
    huey = MemoryHuey()
    huey.periodic_task(crontab(), name='each_minute')(lambda: None)
    with huey.consumer(periodic=periodic) as consumer:
        parts = {type(part).__name__ for part in consumer._running()._looking}
    assert parts - {'Scheduler'} == {'Reaper', 'Audit', 'Caretaker'}
    assert ('Scheduler' in parts) is periodic


@pytest.mark.parametrize('check', [True, False])
def test_without_health_checks_there_is_no_caretaker(check):
    with MemoryHuey().consumer(check_worker_health=check) as consumer:
        parts = {type(part).__name__ for part in consumer._running()._looking}
    assert ('Caretaker' in parts) is check


# -- the log -----------------------------------------------------------------------------------------------

def run_one_and_fail_one(site: Site) -> None:
    """One task has succeeded and one has failed."""
    result, failed = site.send('add', 1, 2), site.send('fail', 0, 'Boom')
    assert result.get(blocking=True, timeout=30) == 3
    with pytest.raises(geventhuey.TaskException):
        failed.get(blocking=True, timeout=30)


@pytest.mark.parametrize(('options', 'seen'), [((), {'INFO', 'WARNING', 'ERROR'}), (('-q',), {'ERROR'}),
                                               (('-v',), {'DEBUG', 'INFO', 'WARNING', 'ERROR'})], ids=['', '-q', '-v'])
def test_what_is_logged(site, options, seen):
    site.write(app=APP)
    consumer = site.start('app.huey', *options)
    run_one_and_fail_one(site)
    assert consumer.stop() == 0
    lines = [line for line in consumer.text().splitlines() if line.startswith('[')]
    assert {re.sub(r'^\[[\d ,:-]+\] ([A-Z]+):.*', r'\1', line) for line in lines} == seen
    assert bool(re.search(r'DEBUG:geventhuey\.executor:\d+:.*add.* finished in 0\.\d+ s', consumer.text())) is ('DEBUG' in seen)
    assert 'LookupError: as it should' in consumer.text()


@pytest.mark.parametrize('options', [(), ('-p', '2')], ids=['one', 'p'])
@pytest.mark.parametrize('spelling', ['-l', '--logfile'])
def test_the_log_file_may_be_rotated(site, spelling, options):
    site.write(app=APP)
    log, old = site.folder / 'shop.log', site.folder / 'shop.log.1'
    log.write_text('it was here before\n')
    consumer = site.start_ready('app.huey', spelling, 'shop.log', '-v', *options, count=2 if options else 1)
    run_one_and_fail_one(site)
    wait_until(lambda: log.read_text().count('finished in') == 1)
    assert log.read_text().startswith('it was here before\n')
    assert 'tasks: add, fail' in log.read_text()
    log.rename(old)
    before = old.read_text()
    run_one_and_fail_one(site)
    assert wait_until(lambda: log.exists() and log.read_text().count('finished in')) == 1
    assert consumer.stop() == 0
    assert 'stopped, after' in log.read_text()
    assert old.read_text() == before
    assert consumer.text() == ''            # nothing beside the file


# -- files and connections ---------------------------------------------------------------------------------

def limited(soft: int, hard: int | str) -> tuple[str, ...]:
    """What comes before a command that may have only so many files open."""
    return ('sh', '-c', f'ulimit -Sn {soft}; ulimit -Hn {hard}; exec "$@"', 'sh')


def test_a_low_limit_of_open_files_is_raised_as_far_as_the_workers_need(site):
    site.write(app=APP)
    consumer = site.start_ready('app.huey', '-w', '500', command=(*limited(64, 2000), *CONSUMER))
    assert psutil.Process(consumer.pid).rlimit(psutil.RLIMIT_NOFILE) == (600, 2000)
    assert not consumer.lines('files may be open')
    assert consumer.stop() == 0


def test_a_limit_of_open_files_that_cannot_be_raised_is_a_warning(site):
    site.write(app=APP)
    consumer = site.start_ready('app.huey', '-w', '500', command=(*limited(64, 200), *CONSUMER))
    assert psutil.Process(consumer.pid).rlimit(psutil.RLIMIT_NOFILE) == (200, 200)
    consumer.wait_for(r'WARNING:geventhuey\.consumer:\d+:500 workers, but only 200 files may be open \(ulimit -Hn\)')
    run_one_and_fail_one(site)
    assert consumer.stop() == 0


def clients(site: Site) -> set[str]:
    """The ids of Redis's clients that belong to the application."""
    return {client['id'] for client in site.redis.client_list() if client['name'].startswith(f'geventhuey:{site.name}:')}


def test_ten_thousand_workers_share_seven_connections(site):
    for n in range(3000):
        site.send('rest', n, 0.5)
    ours = clients(site)
    consumer = site.consume('-w', '10000')
    most = 0

    def have_all_ended() -> bool:
        nonlocal most
        most = max(most, len(clients(site) - ours))
        return site.journal.count('end') == 3000
    wait_until(have_all_ended, 60)
    assert 3 <= most <= 7
    assert consumer.stop() == 0
    wait_until(lambda: clients(site) <= ours)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['greenlet', 'thread'])
def test_an_idle_consumer_leaves_redis_and_the_processor_alone(site, kind):
    site.write(app=APP)
    consumer = site.start_ready('app.huey', '-w', '100', '-k', kind)
    run_one_and_fail_one(site)
    site.huey.close()
    process = psutil.Process(consumer.pid)

    def commands() -> int:
        return sum(stats['calls'] for stats in site.redis.info('commandstats').values())
    before, used = commands(), sum(process.cpu_times()[:2])
    time.sleep(4)               # what is measured, not a wait
    per_second = (commands() - before) / 4
    assert per_second < 10
    assert (sum(process.cpu_times()[:2]) - used) / 4 < 0.2
    assert consumer.stop() == 0


@pytest.mark.parametrize('options', [('-w', '4'), ('-k', 'thread', '-w', '4')], ids=['greenlet', 'thread'])
def test_a_redis_that_is_not_there_yet_is_waited_for_and_missed_once(own_redis, tmp_path, options):
    site = Site(own_redis.url, tmp_path)
    try:
        site.write(app=APP)
        own_redis.kill()
        consumer = site.start('app.huey', *options)
        consumer.wait_for('the storage is away, trying again until it is back')
        own_redis.restart()
        consumer.wait_for('the storage is back, after')
        run_one_and_fail_one(site)
        assert consumer.stop() == 0
        assert [line for line in errors(consumer) if 'LookupError' not in line and ' fail' not in line] == \
            consumer.lines('the storage is away')
        assert len(consumer.lines('cannot be reached')) == 1
    finally:
        site.close()
