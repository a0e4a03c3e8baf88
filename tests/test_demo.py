"""The command ``geventhuey``, its demo, and the server that the demo and the examples fetch from."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

import geventhuey
from geventhuey import ConfigurationError, DataStoreGetException, TaskException
from geventhuey.cli import main as command
from geventhuey.cli.demo import Job, percentile
from geventhuey.cli.demo_tasks import RETRIES
from geventhuey.cli.file_server import FileServer
from geventhuey.testing.redis_server import RedisServer

CHECKOUT = Path(__file__).resolve().parents[1]
#: Seconds in which anything here has ended, on a loaded machine.
BOUND = 60.0
DEMO = (sys.executable, '-m', 'geventhuey.cli.main', 'demo')
#: So many that one is refused for good and six are retried.
SMALL = ('--tasks', '300', '--workers', '50', '--latency', '0.2')


def run_demo(*options: str, before: Callable[[], object] | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO, *options], cwd=CHECKOUT, capture_output=True, text=True, timeout=BOUND, preexec_fn=before,
                          env={**os.environ, **variables})


@contextmanager
def running_demo(*options: str) -> Iterator[subprocess.Popen[str]]:
    """A demo that has begun to enqueue; none of its processes is left in the end."""
    demo = subprocess.Popen([*DEMO, *options], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    everything: list[psutil.Process] = []
    try:
        assert demo.stdout is not None
        assert 'tasks' in demo.stdout.readline(), demo.communicate()
        everything = children_of(demo)
        yield demo
        assert psutil.wait_procs(everything, BOUND)[1] == []
    finally:
        for process in everything:
            if process.is_running():
                process.kill()
        demo.kill()
        demo.communicate()


def children_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def figures(said: str) -> dict[str, list[int]]:
    """The whole numbers of each line of the report, by its title."""
    rows = re.findall(r'^  (\w[\w ]*?)  +(.*)$', said, re.MULTILINE)
    return {title: [int(number) for number in re.findall(r'(?<![\w.-])\d+(?![\w.]|\.\d)', text)] for title, text in rows}


# -- the command -------------------------------------------------------------------------------------------

def test_without_a_command_it_explains_itself(capsys):
    assert command.main([]) == 2
    said = capsys.readouterr().err
    assert 'geventhuey demo' in said and 'geventhuey-consumer app.huey' in said


def test_it_knows_its_version(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(['--version'])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f'geventhuey {geventhuey.__version__}\n'


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(['demo', '--help'])
    assert ended.value.code == 0
    assert 'geventhuey demo --url redis://' in capsys.readouterr().out


@pytest.mark.parametrize(('options', 'said'), [
    (['--tasks', 'many'], "argument --tasks: 'many': a whole number from 1 to 1000000 is needed"),
    (['--tasks', '0'], "argument --tasks: '0': a whole number"),
    (['--tasks', '1.5'], "argument --tasks: '1.5': a whole number"),
    (['--workers', '-1'], "argument --workers: '-1': a whole number from 1 to 10000 is needed"),
    (['--workers', '10001'], "argument --workers: '10001'"),
    (['--latency', 'nan'], "argument --latency: 'nan': a number from 0 to 10 is needed"),
    (['--latency', '-0.1'], "argument --latency: '-0.1'"),
    (['--folder', 'no/such/folder'], "argument --folder: 'no/such/folder' is no folder"),
    (['--task', '5'], 'unrecognized arguments: --task 5'),
    (['more'], 'unrecognized arguments: more'),
])
def test_a_bad_option_is_one_clear_error(options, said, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(['demo', *options])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error.splitlines()[-1]
    assert error.count('error:') == 1


@pytest.mark.parametrize(('options', 'code', 'said'), [
    (['--url', 'http://localhost'], 2, "a URL that begins with 'http' is not understood"),
    (['--url', 'redis://:secret@localhost:1/0'], 1, 'Redis at redis://:***@localhost:1/0 cannot be reached'),
    (['--folder', 'geventhuey/storage/redis/lua'], 2, 'there is no Python file to serve in geventhuey/storage/redis/lua'),
])
def test_what_cannot_be_done_is_one_clear_error(options, code, said):
    ended = run_demo(*options)
    assert ended.returncode == code
    assert ended.stdout == ''
    assert ended.stderr.startswith('geventhuey demo: ') and ended.stderr.count('\n') == 1
    assert said in ended.stderr
    assert 'secret' not in ended.stderr


def test_more_workers_than_files_may_be_open_is_an_error():
    ended = run_demo('--workers', '500', before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300)))
    assert ended.returncode == 2
    assert ended.stderr == ('geventhuey demo: --workers 500: a process may open 300 files here, and each worker needs one; '
                            '200 workers are possible\n')


# -- the demo ----------------------------------------------------------------------------------------------

def check_small(ended: subprocess.CompletedProcess[str]) -> None:
    """Everything about a run with SMALL is as it should be."""
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = figures(ended.stdout)
    assert report['tasks'][0] == 300
    assert 40 <= report['highest concurrency'][0] <= 50
    # retried once: 1, 101, 201; twice: 51, 151, 251; refused for good: 2
    assert report['requests'] == [300 + 3 + 6 + RETRIES, 3 + 6 + RETRIES + 1, 503]
    assert report['retries'] == [3 + 6 + RETRIES]
    assert report['failures'][0] == 1
    assert report['verified'][:2] == [300, 300]
    assert '300/300' in ended.stderr            # the progress bar
    assert 'Traceback' not in ended.stderr
    assert 'WRONG' not in ended.stdout


def test_in_memory():
    check_small(run_demo(*SMALL))


def test_through_redis_with_a_secret_in_the_environment(redis_url):
    check_small(run_demo(*SMALL, '--url', redis_url, GEVENTHUEY_SECRET='a secret of this test alone'))


def test_through_redis(redis_url, redis_server):
    ended = run_demo(*SMALL, '--url', redis_url)
    check_small(ended)
    assert redis_url in ended.stdout
    assert redis_server.command('DBSIZE') == b'0'


def test_the_smallest_one():
    ended = run_demo('--tasks', '1', '--workers', '1', '--latency', '0')
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert figures(ended.stdout)['verified'][:2] == [1, 1]


def test_a_result_that_is_not_the_file_is_found(tmp_path):
    (tmp_path / 'still.py').write_text('still = True\n')
    with changing(tmp_path / 'changing.py'):
        ended = run_demo('--folder', str(tmp_path), '--tasks', '40', '--workers', '10')
    assert ended.returncode == 1, ended.stdout + ended.stderr
    # 'changing.py' comes first: its tasks have the even numbers; number 2 fails for good, as it should
    wrong = re.findall(r'^WRONG: task (\d+) .* is not what is in the file now$', ended.stdout, re.MULTILINE)
    assert wrong == [str(number) for number in range(0, 22, 2) if number != 2]
    assert 'WRONG: 9 more' in ended.stdout
    assert figures(ended.stdout)['verified'][:2] == [21, 40]


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """The file has another content from one moment to the next, and is always whole."""
    over = threading.Event()

    def change() -> None:
        number = 0
        while not over.wait(0.001):
            number += 1
            new = path.with_suffix('.new')
            new.write_text(f'number = {number}\n')
            new.replace(path)
    path.write_text('number = 0\n')
    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('where', ['memory', 'redis'])
def test_a_signal_ends_it_and_leaves_nothing(where, number, redis_url, redis_server):
    with running_demo('--tasks', '20000', *(['--url', redis_url] if where == 'redis' else [])) as demo:
        demo.send_signal(number)
        said, error = demo.communicate(timeout=BOUND)
        assert demo.returncode == 128 + number
        assert said == ''
        assert error.endswith('geventhuey demo: interrupted\n')
        assert 'Traceback' not in error
    assert redis_server.command('DBSIZE') == b'0'


def test_kill_9_leaves_no_process(redis_url):
    with running_demo('--tasks', '20000', '--url', redis_url) as demo:
        assert len(children_of(demo)) >= 2
        demo.kill()


def test_a_consumer_that_dies_is_noticed(redis_url, redis_server):
    with running_demo('--tasks', '20000', '--url', redis_url) as demo:
        for child in children_of(demo):
            if 'geventhuey.cli.consumer' in child.cmdline():
                child.kill()
        said, error = demo.communicate(timeout=BOUND)
        assert demo.returncode == 1
        assert said == ''
        assert 'geventhuey demo: the consumer process ended with code -9' in error
    assert redis_server.command('DBSIZE') == b'0'


def test_a_redis_that_is_restarted_costs_no_result():
    options = ('--tasks', '600', '--workers', '20', '--latency', '0.05')
    with RedisServer(appendonly=True) as server, running_demo(*options, '--url', server.url) as demo:
        wait_for_progress(demo)
        server.kill()
        server.restart()
        said, error = demo.communicate(timeout=BOUND)
        assert demo.returncode == 0, said + error
        assert figures(said)['verified'][:2] == [600, 600]


def wait_for_progress(demo: subprocess.Popen[str]) -> None:
    """The first results are there, and so all tasks have been enqueued."""
    assert demo.stderr is not None
    said = ''
    while not re.search(r' [1-9]\d*/', said):
        more = demo.stderr.read(1)
        assert more, said
        said += more


# -- its judgement -----------------------------------------------------------------------------------------

REFUSED = TaskException("<HTTPError 503: 'Service Unavailable'>")


@pytest.mark.parametrize(('fails', 'value', 'error', 'wrong'), [
    (0, {'sha256': 'abc'}, None, ''),
    (RETRIES, {'sha256': 'abc'}, None, ''),
    (RETRIES + 1, None, REFUSED, ''),
    (0, {'sha256': 'abd'}, None, 'is not what is in the file now'),
    (0, None, None, 'has no result'),
    (RETRIES, None, REFUSED, 'failed: <HTTPError 503'),
    (0, None, DataStoreGetException('gone'), 'failed: gone'),
    (RETRIES + 1, {'sha256': 'abc'}, None, 'should have failed with 503'),
    (RETRIES + 1, None, None, 'has no result'),
    (RETRIES + 1, None, TaskException('ConnectionError()'), 'should have failed with 503'),
    (RETRIES + 1, None, DataStoreGetException('HTTPError 503'), 'should have failed with 503'),
])
def test_what_is_wrong_with_a_task(fails, value, error, wrong):
    job = Job(0, fails, 0.0, None, value, error)       # type: ignore[arg-type]
    said = job.what_is_wrong('abc')
    assert said.startswith(wrong) if wrong else said == ''


@pytest.mark.parametrize(('values', 'percent', 'expected'), [
    ([], 50, 0.0), ([3.0], 50, 3.0), ([3.0], 99, 3.0), ([2.0, 1.0], 50, 1.0), ([2.0, 1.0], 51, 2.0),
    (list(range(1, 101)), 99, 99), (list(range(1, 102)), 99, 100), (list(range(1, 101)), 50, 50),
])
def test_percentile(values: Sequence[float], percent, expected):
    assert percentile(values, percent) == expected


# -- the server --------------------------------------------------------------------------------------------

def get(url: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=BOUND)
    try:
        connection.request('GET', f'{parts.path}?{parts.query}')
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_it_serves_the_plain_python_files_of_a_folder_in_order(tmp_path):
    for name in ('b.py', 'a b.py', 'ä.py', 'no.txt', 'c/d.py', 'test/e.py', 'site-packages/f.py'):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    (tmp_path / 'link.py').symlink_to(tmp_path / 'b.py')
    (tmp_path / 'folder.py').mkdir()
    with FileServer(tmp_path, latency=0) as server:
        assert server.files == ['a b.py', 'b.py', 'c/d.py', 'ä.py']
        for number, name in enumerate([*server.files, *server.files]):
            status, content = get(server.url(number))
            assert (status, content.decode()) == (200, name)
            assert hashlib.sha256(content).hexdigest() == server.sha256(number)
        assert get(server.url(0).replace('a%20b', '..%2Fno'))[0] == 404
        (tmp_path / 'b.py').unlink()
        assert get(server.url(1))[0] == 404
        assert server.sha256(1) == ''


def test_it_serves_the_standard_library_by_itself():
    server = FileServer()
    assert {'abc.py', 'json/decoder.py'} < set(server.files)
    assert server.files == sorted(server.files)


def test_it_refuses_as_often_as_it_is_told_and_counts(tmp_path):
    (tmp_path / 'a.py').write_text('a')
    with FileServer(tmp_path, latency=0) as server:
        assert [get(server.url(7, fails=2))[0] for _ in range(4)] == [503, 503, 200, 200]
        assert [get(server.url(8, fails=True))[0] for _ in range(2)] == [503, 200]
        assert get(server.url(9))[0] == 200
        assert server.statistics() == {'requests': 7, 'refused': 3, 'at_once': 1}


def test_it_takes_its_time_for_many_at_once(tmp_path):
    (tmp_path / 'a.py').write_text('a')
    with FileServer(tmp_path, latency=1.0) as server:
        threads = [threading.Thread(target=get, args=(server.url(number),)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.statistics()['at_once'] == 20


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match='no Python file'):
        FileServer(tmp_path)


def test_it_ends_with_its_owner(tmp_path):
    (tmp_path / 'a.py').write_text('a')
    code = ('import sys, pathlib; from geventhuey.cli.file_server import FileServer\n'
            'with FileServer(pathlib.Path(sys.argv[1])) as server: print(server._process.pid, flush=True); input()')
    environment = {**os.environ, 'PYTHONPATH': str(CHECKOUT)}
    owner = subprocess.Popen([sys.executable, '-c', code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        assert owner.stdout is not None
        server = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
        server.wait(BOUND)
    finally:
        owner.kill()
        owner.communicate()
