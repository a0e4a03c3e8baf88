"""Every file in examples/, run as its docstring says: real consumers, a real Redis."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar('T')

CHECKOUT = Path(__file__).resolve().parents[1]
EXAMPLES = CHECKOUT / 'examples'
#: Seconds in which anything here has ended, on a loaded machine.
BOUND = 60.0


def environment(redis_url: str | None = None) -> dict[str, str]:
    """That of a user's terminal, with Redis where it is, or nowhere."""
    return {**os.environ, 'GEVENTHUEY_URL': redis_url or 'redis://localhost:1', 'PYTHONUNBUFFERED': '1'}


def run_python(*args: str, redis_url: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, in the root of the checkout, has ended."""
    return subprocess.run([sys.executable, *args], cwd=CHECKOUT, env=environment(redis_url) | variables, capture_output=True, text=True,
                          timeout=BOUND)


@contextmanager
def program(*args: str, log: Path, redis_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Python with these arguments runs meanwhile, and says what it says to a file; it must end well when it is told to."""
    with open(log, 'wb') as file:
        process = subprocess.Popen([sys.executable, *args], cwd=CHECKOUT, env=environment(redis_url), stdout=file, stderr=file)
    try:
        yield process
        assert process.poll() is None, log.read_text()
        process.terminate()
        process.wait(BOUND)
    finally:
        process.kill()
        process.wait()


@contextmanager
def consumer(example: str, *options: str, log: Path, redis_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A ``geventhuey-consumer`` of an example runs meanwhile."""
    with program('-m', 'geventhuey.cli.consumer', f'examples.{example}.huey', *options, log=log, redis_url=redis_url) as process:
        yield process
    assert process.returncode == 0, log.read_text()


def wait_until(look: Callable[[], T], what: Callable[[], str]) -> T:
    """What ``look`` answers, as soon as that is true."""
    deadline = time.monotonic() + BOUND
    while not (found := look()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)
    return found


# -- crawler -----------------------------------------------------------------------------------------------

def check_crawler(ended: subprocess.CompletedProcess[str], files: int, at_least: int, at_most: int) -> None:
    """It has fetched so many files, all are right, and so many requests ran at the same time."""
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = re.search(r'up to (\d+) requests at once; (\d+) of (\d+) are right', ended.stdout)
    assert found is not None, ended.stdout
    at_once, right, of = map(int, found.groups())
    assert (right, of) == (files, files)
    assert at_least <= at_once <= at_most
    assert f'{files}/{files}' in ended.stderr           # the progress bar


# With 500 greenlets the first answer may be there before the last request is: on a loaded machine, long before.
@pytest.mark.slow
@pytest.mark.parametrize(('options', 'files', 'at_least', 'at_most'), [
    ('-k greenlet -w 500', 3000, 200, 500),
    ('-k thread -w 16', 300, 16, 16),
    ('-k process -w 2', 40, 2, 2),
    ('-p 2 -k greenlet -w 500', 3000, 200, 1000),
])
def test_crawler(options, files, at_least, at_most, redis_url, tmp_path):
    with consumer('crawler', *options.split(), log=tmp_path / 'log', redis_url=redis_url):
        check_crawler(run_python('-m', 'examples.crawler', str(files), redis_url=redis_url), files, at_least, at_most)
    retried = re.findall(r'<HTTPError 503.*it is tried again in 0\.5 s', (tmp_path / 'log').read_text())
    assert len(retried) == files // 50


EMBEDDED = """
import sys
from examples import crawler
crawler.huey.use_url('memory://')
with crawler.huey.consumer(worker_type=sys.argv[1], workers=int(sys.argv[2])):
    sys.exit(crawler.main(int(sys.argv[3])))
"""


def test_crawler_in_memory_of_a_patched_process():
    code = 'from gevent import monkey; monkey.patch_all()' + EMBEDDED
    check_crawler(run_python('-c', code, 'greenlet', '500', '2000'), 2000, 200, 500)


def test_crawler_in_memory_of_an_unpatched_process():
    check_crawler(run_python('-c', EMBEDDED, 'thread', '50', '500'), 500, 40, 50)


def test_crawler_says_that_redis_is_away():
    ended = run_python('-m', 'examples.crawler', '10')
    assert ended.returncode == 1
    assert 'Redis at redis://localhost:1/0 cannot be reached' in ended.stderr.splitlines()[-1]


# -- results -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize('options', ['-k greenlet', '-k thread -w 4', '-p 2'])
def test_results(options, redis_url, tmp_path):
    with consumer('results', *options.split(), log=tmp_path / 'log', redis_url=redis_url):
        ended = run_python('-m', 'examples.results', redis_url=redis_url)
    assert ended.returncode == 0, ended.stderr
    assert re.sub(r' \(\d+\.\d s\)', '', ended.stdout).splitlines() == [
        'waited for: 3',
        'by its id: 7',
        'waited for 0.1 s: nothing yet',
        'waited on: done',
        'retried: at last',
        "failed: ValueError('never')",
        'half a second later: 11',
        'at a time: 15',
        'revoked: it was not run',
        'restored: 23',
    ]


# -- periodic ----------------------------------------------------------------------------------------------

def test_periodic_is_announced_by_the_consumer(redis_url, tmp_path):
    log = tmp_path / 'log'
    with consumer('periodic', log=log, redis_url=redis_url):
        lines = wait_until(lambda: re.findall(r'periodic: (.*)', log.read_text())[1:] and log.read_text(), log.read_text)
    assert re.search(r'periodic: examples\.periodic\.every_minute, next at \d+-\d+-\d+ \d+:\d+ UTC', lines)
    assert re.search(r'periodic: examples\.periodic\.in_office_hours, next at \d+-\d+-\d+ (08|10|12|14|16|18):00 UTC', lines)
    assert 'tasks: examples.periodic.send_report' in lines


TICKING = """
import pathlib, tempfile, time
from examples import periodic
sign = pathlib.Path(tempfile.gettempdir(), 'geventhuey-is-alive')
with periodic.huey.consumer(worker_type='thread', tick=0.5):
    while not sign.exists():
        time.sleep(0.02)
"""


def test_periodic_on_redis_with_shorter_minutes(redis_url, tmp_path):
    ended = run_python('-c', TICKING, redis_url=redis_url, TMPDIR=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / 'geventhuey-is-alive').exists()


TURNED = """
import datetime, pathlib, tempfile, time
from examples import periodic
from geventhuey import ManualClock

def wait(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()

monday = datetime.datetime(2024, 1, 1, 7, 30, 30, tzinfo=datetime.timezone.utc).timestamp()
sign = pathlib.Path(tempfile.gettempdir(), 'geventhuey-is-alive')
huey = periodic.huey
clock = huey.clock = ManualClock(monday)
huey.use_url('memory://')
with huey.consumer(worker_type='thread'):
    while not wait(sign.exists, 1):
        clock.advance(60)                   # the minute in which a consumer starts is not served
    assert huey.all_results() == {}
    clock.advance(monday + 30 * 60 - clock.now())
    wait(lambda: huey.result_count() == 2, 30)
print(sorted(huey.serializer.loads(value) for value in huey.all_results().values()))
"""


def test_periodic_in_memory_with_a_clock_to_turn(tmp_path):
    ended = run_python('-c', TURNED, TMPDIR=str(tmp_path))
    assert (ended.returncode, ended.stdout) == (0, "['sent to ann', 'sent to bob']\n"), ended.stderr


# -- flask -------------------------------------------------------------------------------------------------

def ask(url: str, data: bytes | None = None) -> tuple[int, dict[str, object]]:
    """The status and the content of an answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, data, timeout=BOUND) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as exc:
        return exc.code, json.load(exc)


def test_flask(redis_url, tmp_path):
    pytest.importorskip('flask')
    log = tmp_path / 'flask'
    with program('-m', 'flask', '--app', 'examples.flask_app', 'run', '--port', '0', log=log, redis_url=redis_url):
        found = wait_until(lambda: re.search(r'Running on (http://127\.0\.0\.1:\d+)', log.read_text()), log.read_text)
        status, content = ask(f'{found[1]}/counts', b'text=to+be+or+not+to+be')
        assert status == 202
        result = f'{found[1]}{content["result"]}'
        assert ask(result) == (202, {'state': 'not ready'})         # there is no consumer yet
        with consumer('flask_app', log=tmp_path / 'consumer', redis_url=redis_url):
            wait_until(lambda: ask(result)[0] == 200, lambda: str(ask(result)))
            ready = {'state': 'ready', 'words': {'to': 2, 'be': 2, 'or': 1, 'not': 1}}
            assert ask(result) == (200, ready)
            assert ask(result) == (200, ready)
    assert process_was_light()


def process_was_light() -> bool:
    """What the example says of web processes: they need no gevent."""
    ended = run_python('-c', 'import sys, examples.flask_app; print("gevent" in sys.modules)')
    assert ended.returncode == 0, ended.stderr
    return ended.stdout == 'False\n'


# -- tests in memory ---------------------------------------------------------------------------------------

def test_tests_with_memory():
    ended = run_python('-m', 'pytest', '-p', 'no:cacheprovider', 'examples/test_with_memory.py')
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r'=== 5 passed in .* ===', ended.stdout), ended.stdout


# -- all of them -------------------------------------------------------------------------------------------

def modules() -> Sequence[str]:
    return sorted(path.stem for path in EXAMPLES.glob('*.py'))


def test_every_example_is_run_here():
    assert modules() == ['crawler', 'flask_app', 'periodic', 'results', 'test_with_memory']


@pytest.mark.parametrize('name', modules())
def test_an_example_is_short_says_how_to_run_it_and_is_in_the_table(name):
    source = (EXAMPLES / f'{name}.py').read_text()
    assert len(source.splitlines()) <= 100
    docstring = source.split('"""')[1]
    assert f'examples.{name}' in docstring or f'examples/{name}.py' in docstring
    assert f'`<{name}.py>`_' in (EXAMPLES / 'README.rst').read_text()
