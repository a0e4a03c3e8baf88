"""From an import path to a consumer that runs: whatever is wrong on the way is said in a line, with exit code 78."""

from __future__ import annotations

import os

import pytest

from tests.cli.kit import APP, Ended, Site

GOOD = 'from geventhuey import MemoryHuey\nhuey = MemoryHuey()\n'

#: The modules that there are, the path that is asked for, and what is said.
CANNOT_BE_LOADED = {
    'no module': ({}, 'shop.huey', "shop.huey: there is no module 'shop', neither in {here} nor on the path"),
    'no package': ({}, 'shop.app.huey', "shop.app.huey: there is no module 'shop', neither in"),
    'no module in a package': ({}, 'email.app.huey', "email.app.huey: there is no module 'email.app', neither in"),
    'not a package': ({'shop': GOOD}, 'shop.app.huey', "shop.app.huey: there is no module 'shop.app', neither in"),
    'no attribute': ({'shop': GOOD}, 'shop.hueey', 'shop.hueey does not exist (in {here}/shop.py); there is shop.huey'),
    'no application': ({'shop': 'queue = 1'}, 'shop.huey', 'shop.huey does not exist (in {here}/shop.py)'),
    'not a Huey': ({'shop': GOOD + 'other = 1'}, 'shop.other', 'shop.other is no Huey but int (in {here}/shop.py); there is shop.huey'),
    'a class': ({'shop': GOOD}, 'shop.MemoryHuey', 'shop.MemoryHuey is no Huey but type'),
    'no dot': ({'shop': GOOD}, 'shop', "'shop' is not the path of an application: write module.name, such as app.huey"),
    'a file': ({'shop': GOOD}, 'shop.py', 'shop.py does not exist (in {here}/shop.py); there is shop.huey'),
    'a path': ({'shop': GOOD}, './shop.huey', "'./shop.huey' is not the path of an application"),
    'a module of Python itself': ({}, 'sys.huey', 'sys.huey does not exist (in Python itself)'),
    'a folder': ({}, 'folder.huey', 'folder.huey: folder is a folder without __init__.py ({here}/folder); is {here} the right place'),
    'a module in a folder': ({}, 'folder.app.huey', "folder.app.huey: there is no module 'folder.app', neither in"),
    'nothing': ({'shop': GOOD}, '', "'' is not the path of an application"),
}
#: The module, and why it cannot be imported.
CANNOT_BE_IMPORTED = {
    'an error': ('x = 1\nraise LookupError("no such thing")', '{here}/shop.py, line 2: LookupError: no such thing'),
    'an error of several lines': ('raise LookupError("one\\ntwo")', '{here}/shop.py, line 1: LookupError: one'),
    'an exit': ('import sys\nsys.exit(5)', '{here}/shop.py, line 2: SystemExit: 5'),
    'a missing module': ('import no_such_thing.at_all', "{here}/shop.py, line 1: ModuleNotFoundError: No module named 'no_such_thing'"),
    'a missing name': ('\n\nfrom os import no_such_name', "{here}/shop.py, line 3: ImportError: cannot import name 'no_such_name'"),
    'a syntax error': ('x = 1\ndef (:', '{here}/shop.py, line 2: SyntaxError: invalid syntax'),
    'a syntax error elsewhere': ('import other', '{here}/other.py, line 1: SyntaxError: '),
    'a bad setting': ('from geventhuey import RedisHuey\n\nhuey = RedisHuey("a b")', '{here}/shop.py, line 3: '),
}


def check_hopeless(ended: Ended, said: str) -> None:
    """One line that says it, after whatever was logged before."""
    assert ended.code == 78
    assert ended.out == ''
    lines = [line for line in ended.error.splitlines() if not line.startswith('[')]
    assert len(lines) == 1, ended.error
    assert lines[0].startswith('geventhuey-consumer: ') and said in lines[0]


@pytest.mark.parametrize('case', CANNOT_BE_LOADED)
def test_a_path_that_leads_nowhere(site, case):
    modules, path, said = CANNOT_BE_LOADED[case]
    site.write(**modules)
    (site.folder / 'folder').mkdir()
    check_hopeless(site.end(path), said.format(here=site.folder))


@pytest.mark.parametrize('case', CANNOT_BE_IMPORTED)
def test_an_application_that_cannot_be_imported(site, case):
    text, said = CANNOT_BE_IMPORTED[case]
    site.write(shop=text, other='def (:')
    ended = site.end('shop.huey')
    assert ended.code == 78
    first, *way = ended.error.splitlines()
    assert first.startswith('geventhuey-consumer: shop.huey: importing it failed: ' + said.format(here=site.folder))
    # the way there begins with the application, and not with our own or Python's way to import it
    assert ended.error.count('Traceback') <= 1
    frames = [line for line in way if line.startswith('  File ')]
    assert frames and f'{site.folder}' in frames[0]
    assert 'importlib' not in ended.error and 'loading.py' not in ended.error


@pytest.mark.parametrize('options', [('-k', 'process', '-w', '2'), ('-p', '2')], ids=['process', 'p'])
def test_processes_cannot_share_the_memory_of_one(site, options):
    site.write(shop=GOOD)
    check_hopeless(site.end('shop.huey', *options),
                   'shop.huey keeps its tasks in the memory of one process; several processes cannot share it')


def test_an_application_that_runs_tasks_at_the_call_has_nothing_for_a_consumer(site):
    site.write(shop='from geventhuey import MemoryHuey\nhuey = MemoryHuey(always_eager=True)')
    check_hopeless(site.end('shop.huey'), 'always_eager (immediate) is on: switch it off')


# -- the storage -------------------------------------------------------------------------------------------

@pytest.mark.parametrize('options', [(), ('-k', 'thread'), ('-p', '2')], ids=['greenlet', 'thread', 'p'])
@pytest.mark.parametrize('given', ['wrong:secret', ''], ids=['wrong', 'none'])
def test_a_wrong_password_is_said_in_a_line_and_not_repeated(site, locked_redis, given, options):
    site.write(app=APP)
    ended = site.end('app.huey', *options, WORK_URL=f'redis://:{given}@127.0.0.1:{locked_redis.port}/0')
    check_hopeless(ended, f'@127.0.0.1:{locked_redis.port}/0 refuses the user or the password' if given else
                   f'Redis at redis://127.0.0.1:{locked_redis.port}/0 refuses the user or the password')
    assert 'secret' not in ended.error


@pytest.mark.parametrize(('url', 'said'), [
    ('http://there', "a URL that begins with 'http' is not understood: use redis://"),
    ('localhost:6379', 'a URL without :// is not understood: use redis://'),
    ('redis://:secret@127.0.0.1:x', 'a URL that is no Redis URL (redis://...)'),
    ('{url}99', 'DB index is out of range'),
])
def test_a_url_that_cannot_work_is_said_in_a_line(site, url, said):
    site.write(app=APP)
    ended = site.end('app.huey', '--url', url.format(url=site.url))
    check_hopeless(ended, said)
    assert 'secret' not in ended.error


# -- what works --------------------------------------------------------------------------------------------

def check_runs(site: Site, path: str, *options: str, **environment: str) -> str:
    """A task of the application runs; the log."""
    consumer = site.start(path, *options, **environment)
    assert site.send('add', 1, 2).get(blocking=True, timeout=30) == 3
    assert consumer.stop() == 0
    return consumer.text()


@pytest.mark.parametrize('path', ['shop.huey', 'shop:huey', 'store.back.huey', 'store.back:huey'])
def test_paths_of_an_application(site, path):
    site.write(shop=APP)
    (site.folder / 'store').mkdir()
    (site.folder / 'store' / '__init__.py').touch()
    (site.folder / 'store' / 'back.py').write_text('from shop import huey')
    check_runs(site, path)


def test_the_current_folder_comes_before_the_python_path(site):
    site.write(shop=APP)
    away = site.folder / 'away'
    away.mkdir()
    (away / 'shop.py').write_text('raise LookupError')
    check_runs(site, 'shop.huey', PYTHONPATH=os.pathsep.join([str(away), site.environment['PYTHONPATH']]))


def test_the_url_of_the_command_line_overrides_what_the_application_says(site):
    site.write(app=APP)
    log = check_runs(site, 'app.huey', '--url', site.url, WORK_URL='redis://127.0.0.1:1/0')
    assert f'tasks at {site.url}' in log


def test_an_application_in_memory_can_be_moved_to_redis(site):
    site.write(app=APP.replace("RedisHuey(os.environ['WORK_NAME'], url=os.environ['WORK_URL'])", "MemoryHuey(os.environ['WORK_NAME'])")
               .replace('RedisHuey, ', 'MemoryHuey, '))
    check_runs(site, 'app.huey', '-p', '2', '--url', site.url)


def test_an_application_that_says_no_url_uses_that_of_the_environment(site):
    site.write(app=APP.replace(", url=os.environ['WORK_URL']", ''))
    log = check_runs(site, 'app.huey', GEVENTHUEY_URL=site.url)
    assert f'tasks at {site.url}' in log


def test_an_application_that_says_a_url_does_not_look_at_the_environment(site):
    site.write(app=APP)
    log = check_runs(site, 'app.huey', GEVENTHUEY_URL='redis://127.0.0.1:1/0')
    assert f'tasks at {site.url}' in log
