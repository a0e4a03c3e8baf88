"""A task that is defined in the program itself has the name under which a consumer imports it."""

from __future__ import annotations

import os

import pytest

from tests.api.kit import run_python, said, write

#: A program with all that has a name. Its first argument says what it does.
APP = '''
    import multiprocessing, sys
    from geventhuey import Huey, QueueTask

    huey = Huey.from_url('{url}', 'app')

    @huey.task()
    def add(a, b):
        return a + b

    @huey.periodic_task(lambda moment: True)
    def always():
        pass

    @huey.registry.register
    class Put(QueueTask):
        def execute(self):
            return self.data

    @huey.allow
    class Point:
        def __init__(self, x):
            self.x = x

    @huey.task()
    def move(point):
        return Point(point.x + 1)

    def show():
        print(sorted(huey.get_tasks()), add.task_class.importable, Put.importable, flush=True)

    def show_in_child(method):
        child = multiprocessing.get_context(method).Process(target=show)
        child.start()
        child.join()

    def send():
        for result in (add(1, 2), huey.enqueue(Put(7)), move(Point(4))):
            print(result.task_id)

    def read(*task_ids):
        for value in map(huey.result, task_ids):
            print(value.x if isinstance(value, Point) else value)

    if __name__ == '__main__':
        globals()[sys.argv[1]](*sys.argv[2:])
'''

#: Its other half, which can only import it.
CONSUMER = '''
    import importlib, sys
    from geventhuey.testing import drain
    print(*(task.task_name for task in drain(importlib.import_module(sys.argv[1]).huey)))
'''


def write_app(folder, file, url='memory://'):
    write(folder, file, APP.format(url=url))
    if file.startswith('pkg'):
        write(folder, 'pkg/__init__.py', '')
        write(folder, 'pkg/sub/__init__.py', '')


def names(module):
    """What ``show`` prints when every name is right."""
    return f"['{module}.Put', '{module}.add', '{module}.always', '{module}.move'] True True"


@pytest.mark.parametrize(('file', 'arguments', 'module'), [
    ('app.py', ['app.py'], 'app'),
    ('app.py', ['./app.py'], 'app'),
    ('folder/app.py', ['folder/app.py'], 'app'),
    ('app.py', ['-m', 'app'], 'app'),
    ('pkg/app.py', ['-m', 'pkg.app'], 'pkg.app'),
    ('pkg/sub/app.py', ['-m', 'pkg.sub.app'], 'pkg.sub.app'),
    ('pkg/__main__.py', ['-m', 'pkg'], 'pkg.__main__'),
])
def test_who_runs_it_and_who_imports_it_agree(tmp_path, file, arguments, module):
    write_app(tmp_path, file)
    assert said(run_python([*arguments, 'show'], tmp_path)) == names(module)
    folder = tmp_path / 'folder' if file.startswith('folder') else tmp_path
    assert said(run_python(['-c', f'import {module} as app; app.show()'], folder)) == names(module)


@pytest.mark.parametrize(('file', 'arguments', 'module'), [
    ('app.py', ['app.py'], 'app'),
    ('pkg/app.py', ['-m', 'pkg.app'], 'pkg.app'),
])
def test_what_it_sends_is_understood_by_who_imports_it(tmp_path, redis_url, file, arguments, module):
    """Tasks, classes of tasks, and objects as arguments and results; there and back."""
    write_app(tmp_path, file, redis_url)
    write(tmp_path, 'consumer.py', CONSUMER)
    task_ids = said(run_python([*arguments, 'send'], tmp_path)).split()
    assert said(run_python(['consumer.py', module], tmp_path)) == f'{module}.add {module}.Put {module}.move'
    assert said(run_python([*arguments, 'read', *task_ids], tmp_path)).split() == ['3', '7', '5']


@pytest.mark.parametrize('method', ['spawn', 'fork', 'forkserver'])
def test_a_process_that_multiprocessing_starts_agrees_too(tmp_path, method):
    write_app(tmp_path, 'app.py')
    assert said(run_python(['app.py', 'show_in_child', method], tmp_path)) == names('app')
    assert said(run_python(['-m', 'app', 'show_in_child', method], tmp_path)) == names('app')


FUNCTIONS = '''
    import functools
    from geventhuey import MemoryHuey
    huey = MemoryHuey('app')

    {decorator}

    @huey.task()
    @noisy
    def add(a, b):
        return a + b

    if __name__ == '__main__':
        print(huey.get_tasks(), add.task_class.importable)
'''

NOISY = '''
    import functools

    def noisy(func):
        @functools.wraps(func)
        def wrapper(*args):
            return func(*args)
        return wrapper
'''


@pytest.mark.parametrize('arguments', [['app.py'], ['-m', 'app'], ['-m', 'cProfile', '-o', os.devnull, 'app.py']])
def test_a_function_is_known_by_its_own_module_whoever_decorated_or_profiles_it(tmp_path, arguments):
    write(tmp_path, 'tools.py', NOISY)
    write(tmp_path, 'app.py', FUNCTIONS.format(decorator='from tools import noisy'))
    assert said(run_python(arguments, tmp_path)) == "['app.add'] True"


# -- what no consumer can import ------------------------------------------------------------------------------------

HOMELESS = '''
from geventhuey import ConfigurationError, Huey, QueueTask
from geventhuey.testing import drain

huey = Huey.from_url('{url}', 'app')

@huey.task()
def add(a, b):
    return a + b

@huey.task(name='named')
def named():
    return 'named'

@huey.registry.register
class Put(QueueTask):
    def execute(self):
        return 'put'

for call in (lambda: add(1, 2), lambda: add.schedule(args=(1, 2), delay=9), lambda: huey.enqueue(Put()), named):
    try:
        result = call()
        drain(huey)
        print(result() or 'sent')
    except ConfigurationError as exc:
        print(exc)
'''

CURE = ('is defined where no consumer can import it: put it into a module, or give it a name that both sides use: '
        '@huey.task(name="...")')


@pytest.mark.parametrize('file', [None, 'my-app.py', 'folder/__main__.py', '__main__.py'])
def test_what_no_consumer_can_import_is_refused_with_the_cure(tmp_path, redis_url, file):
    source = HOMELESS.format(url=redis_url)
    if file is not None:
        write(tmp_path, file, source)
    arguments = ['-c', source] if file is None else [file.partition('/')[0]]
    assert said(run_python(arguments, tmp_path)).splitlines() == [
        f'__main__.add {CURE}', f'__main__.add {CURE}', f'__main__.Put {CURE}', 'named']


def test_in_memory_it_does_not_matter(tmp_path):
    source = HOMELESS.format(url='memory://')
    assert said(run_python(['-c', source], tmp_path)).splitlines() == ['3', 'sent', 'put', 'named']


def test_eagerly_it_does_not_matter_either(tmp_path):
    source = '''
from geventhuey import RedisHuey
huey = RedisHuey('app', port=1, always_eager=True)

@huey.task()
def add(a, b):
    return a + b

print(add(1, 2)())
'''
    assert said(run_python(['-c', source], tmp_path)) == '3'
