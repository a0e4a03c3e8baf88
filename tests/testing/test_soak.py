"""The soak: each kind of fault in a small run, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import redis

from geventhuey.testing.history import History
from geventhuey.testing.soak import APPLICATION_VARIABLE
from geventhuey.testing.soak import __main__ as command

CHECKOUT = Path(__file__).resolve().parents[2]
#: Seconds in which a small run has ended, on a loaded machine.
BOUND = 120.0
SOAK = (sys.executable, '-m', 'geventhuey.testing.soak')
#: So many that faults have something to hit.
SMALL = ('--consumers', '2', '--workers', '50', '--lease', '1', '--seed', '1')

pytestmark = pytest.mark.timeout(BOUND + 30)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, 'PYTHONPATH': os.pathsep.join([str(CHECKOUT), os.environ.get('PYTHONPATH', '')]), **more}


def run_soak(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SOAK, *SMALL, *options], env=environment(**variables), capture_output=True, text=True, timeout=BOUND)


@pytest.mark.parametrize('faults', [
    ('--kill', '3'), ('--stop', '3'), ('--client-kill', '20'), ('--cut', '20'), ('--redis-kill', '1'),
    ('--kill', '1', '--stop', '1', '--client-kill', '5', '--cut', '5', '--redis-kill', '1'),
], ids=lambda faults: '-'.join(faults[::2]).replace('---', '-').strip('-'))
def test_nothing_is_lost_and_every_second_run_is_explained(faults, tmp_path):
    ended = run_soak('--tasks', '1500', *faults, '--json', str(tmp_path / 'report'))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads((tmp_path / 'report').read_text())
    assert report['tasks'] == 1500 and report['seed'] == 1
    assert report['right'] and report['problems'] == {}
    assert report['faults'] == {kind[2:]: int(count) for kind, count in zip(faults[::2], faults[1::2], strict=True)}
    assert report['results'] > 200
    if not {'--kill', '--stop', '--redis-kill'} & set(faults):
        assert report['second_runs'] == 0
    assert 'Traceback' not in ended.stderr


def test_it_uses_the_redis_that_it_is_told_and_nothing_but_its_own_keys_there(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        client.set('gh:{other}:counters', 'untouched')
        ended = run_soak('--tasks', '1000', '--url', redis_url, '--kill', '1', '--cut', '5', GEVENTHUEY_SECRET='a secret of this test')
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert redis_url in ended.stdout
        assert client.keys() == [b'gh:{other}:counters']


def test_a_task_that_is_swallowed_is_named_as_lost(tmp_path):
    (tmp_path / 'swallowing.py').write_text(textwrap.dedent('''
        from geventhuey.testing.soak.app import huey, work

        run = work.task_class.execute

        def execute(self):
            (number, seconds), _ = self.get_data()
            return run(self) if number % 400 else 0

        work.task_class.execute = execute
    '''))
    variables = {APPLICATION_VARIABLE: 'swallowing.huey', 'PYTHONPATH': os.pathsep.join([str(CHECKOUT), str(tmp_path)])}
    ended = run_soak('--tasks', '1000', '--client-kill', '1', '--json', str(tmp_path / 'report'), **variables)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert json.loads((tmp_path / 'report').read_text())['problems']['lost'] == ['task 0', 'task 400', 'task 800']
    assert 'LOST: task 400' in ended.stdout


def test_a_task_that_runs_twice_without_a_reason_is_named(tmp_path):
    (tmp_path / 'repeating.py').write_text(textwrap.dedent('''
        from geventhuey.testing.soak.app import huey, work

        run = work.task_class.execute

        def execute(self):
            if self.task_id == '700' and not self.retries:
                run(self)
            return run(self)

        work.task_class.execute = execute
    '''))
    variables = {APPLICATION_VARIABLE: 'repeating.huey', 'PYTHONPATH': os.pathsep.join([str(CHECKOUT), str(tmp_path)])}
    ended = run_soak('--tasks', '1000', '--client-kill', '5', '--json', str(tmp_path / 'report'), **variables)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    report = json.loads((tmp_path / 'report').read_text())
    assert list(report['problems']) == ['unexplained'] and len(report['problems']['unexplained']) == 1
    assert 'UNEXPLAINED: 700/0 was run by ' in ended.stdout


def test_a_result_that_is_wrong_is_named(tmp_path):
    (tmp_path / 'lying.py').write_text(textwrap.dedent('''
        from geventhuey.testing.soak.app import huey, work

        run = work.task_class.execute
        work.task_class.execute = lambda self: run(self) + 1
    '''))
    variables = {APPLICATION_VARIABLE: 'lying.huey', 'PYTHONPATH': os.pathsep.join([str(CHECKOUT), str(tmp_path)])}
    ended = run_soak('--tasks', '100', '--client-kill', '1', **variables)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert 'WRONG: ' in ended.stdout and ' instead of ' in ended.stdout


def test_consumers_that_cannot_run_are_an_error():
    ended = run_soak('--tasks', '100', '--kill', '1', **{APPLICATION_VARIABLE: 'no_such_module.huey'})
    assert ended.returncode == 1
    assert 'no_such_module' in ended.stderr


@contextmanager
def running(*options: str) -> Iterator[psutil.Popen]:
    """A soak whose consumers run tasks; none of its processes is left in the end."""
    soak = psutil.Popen([*SOAK, *SMALL, *options], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    everything: list[psutil.Process] = []
    try:
        while b' kill' not in (said := soak.stderr.read1()):        # of the progress bar
            assert said, soak.wait(BOUND)
        everything = soak.children(recursive=True)
        yield soak
    finally:
        for process in (*everything, soak):
            if process.is_running():
                process.kill()
        soak.communicate()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_process_and_no_key(number, redis_url):
    with redis.Redis.from_url(redis_url) as client, running('--tasks', '100000', '--kill', '500', '--url', redis_url) as soak:
        assert client.dbsize()
        children = soak.children(recursive=True)
        assert len(children) >= 2
        soak.send_signal(number)
        assert soak.wait(BOUND) == 128 + number
        assert psutil.wait_procs(children, BOUND)[1] == []
        assert client.keys() == []


@pytest.mark.parametrize(('options', 'said'), [
    (['--tasks', '0'], "argument --tasks: '0': a whole number from 1 to 10000000 is needed"),
    (['--kill', '-1'], "argument --kill: '-1': a whole number"),
    (['--lease', 'nan'], "argument --lease: 'nan': a number from 0.5 to 60 is needed"),
    (['--task', '5'], 'unrecognized arguments: --task 5'),
    (['--url', 'redis://localhost', '--redis-kill', '1'], '--redis-kill: only a server of its own is killed'),
    (['--url', 'rediss://localhost', '--cut', '1'], '--cut: the proxy understands redis:// only'),
    (['--keep', 'tests'], "argument --keep: 'tests': a new or an empty folder is needed"),
    (['--json', 'no/such/folder/report'], "argument --json: 'no/such/folder/report' cannot be written"),
])
def test_a_bad_option_is_one_clear_error(options, said, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(options)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error.splitlines()[-1] and error.count('error:') == 1


@pytest.mark.parametrize(('url', 'code', 'said'), [
    ('http://localhost', 2, 'a URL that is no Redis URL'),
    ('redis://:secret@localhost:1/0', 1, 'Redis at redis://:***@localhost:1/0 cannot be reached'),
])
def test_what_cannot_be_done_is_one_clear_error(url, code, said):
    ended = run_soak('--url', url, '--kill', '1')
    assert (ended.returncode, ended.stdout) == (code, '')
    assert ended.stderr.startswith('soak: ') and ended.stderr.count('\n') == 1
    assert said in ended.stderr and 'secret' not in ended.stderr


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(['--help'])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert 'python -m geventhuey.testing.soak --tasks 200000 --kill 20 --stop 20' in said and '--redis-kill' in said


def test_what_a_stopped_process_begins_late_is_explained_by_what_stopped_it(tmp_path):
    history = History(tmp_path / 'journal')
    history.journal.write_text('start 1 1 11 100.5\nstart 1 2 12 101.0\nstart 1 0 10 103.2\nstart 1 3 13 104.0\nend 1 3 13 104.1\n'
                               'end 1 2 12 105.0\nend 1 0 10 105.1\n')
    history.sent('1')
    history.fault('kill', 11, 100.6, in_flight=['1'])
    history.fault('stop', 10, 90.0, 103.0, in_flight=['1'])         # fetched before it, begun after it
    assert list(history.check().unexplained) == ['1']
    history.fault('stop', 12, 101.2, 105.0, in_flight=['1'])
    report = history.check()
    assert report.is_right and report.explained == {'stop': 2, 'kill': 1}
