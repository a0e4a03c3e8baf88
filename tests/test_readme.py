"""README.rst: its blocks and commands are run, and what it names is there."""

from __future__ import annotations

import argparse
import ast
import builtins
import configparser
import contextlib
import inspect
import io
import os
import pkgutil
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from docutils import nodes
from docutils.core import publish_doctree, publish_string

import geventhuey
from geventhuey import events
from geventhuey.cli.consumer import build_parser
from geventhuey.consumer.options import WORKER_PROCESS
from geventhuey.function import TaskFunction
from geventhuey.storage.redis.storage import OLDEST_REDIS

CHECKOUT = Path(__file__).resolve().parents[1]
README = CHECKOUT / 'README.rst'
SETTINGS = {'report_level': 1, 'halt_level': 5, 'syntax_highlight': 'none'}

#: Which module a command is, where no script was installed.
COMMANDS = {'geventhuey-consumer': 'geventhuey.cli.consumer', 'geventhuey': 'geventhuey.cli.main'}
#: Seconds that a program may take, a consumer until it runs tasks or has stopped, and a fresh installation with its demo.
PROGRAM, CONSUMER, INSTALLATION = 30, 20, 240

#: What follows a block, by its section: the promises of its comments and of the text around it, as code.
PROMISES = {
    'Results': '''
        assert result() == 3
        assert huey.result(again.task_id) == 7
        try:
            failing.get()
        except TaskException as exc:
            assert 'TypeError' in str(exc) and exc.metadata['traceback'].startswith('Traceback')
        else:
            assert False
        try:
            add.schedule((1, 2), delay=60).get(blocking=True, timeout=0.01)
        except DataStoreTimeout:
            pass
        else:
            assert False
    ''',
    'Many at once': '''
        import time
        assert results() == [3, 7] and total % 2 == 0
        deadline = time.monotonic() + 30
        while huey.pending_count() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert huey.pending_count() == 0
    ''',
    'Scheduling and retries': '''
        soon, last = huey.scheduled()
        assert last.task_id == later.task_id and soon.get_data() == last.get_data() == ((1, 2), {})
        utc = tomorrow.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        assert abs(last.execute_time - utc) <= datetime.timedelta(microseconds=1)
        assert huey.pending() == []
        assert add.call_local(1, 2) == 3
        huey.immediate = True
        assert fetch('http://localhost/').get() is careful().get() is None
    ''',
    'Priority and expiry': '''
        assert alarm.s('fire').priority == 10 and alarm.s('fire').expires is not None
        assert huey.is_revoked(result.task) and not huey.is_revoked(sooner.task)
    ''',
    'Signals and hooks': '''
        huey.immediate = True
        try:
            poll('http://localhost/')
        except RetryTask as exc:
            assert exc.delay == 30
    ''',
    'Periodic tasks': '''
        import datetime
        assert [name.split('.')[-1] for name in huey.get_periodic_tasks()] == ['every_five_minutes', 'every_night']
        five, night = (one.task_class().validate_datetime for one in (every_five_minutes, every_night))
        assert five(datetime.datetime(2024, 1, 1, 10, 35)) and not five(datetime.datetime(2024, 1, 1, 10, 36))
        assert night(datetime.datetime(2024, 1, 1, 3, 0)) and not night(datetime.datetime(2024, 1, 6, 3, 0))
        assert crontab('1', '2')(datetime.datetime(2024, 1, 2))
        assert crontab(day_of_week='0') == crontab(day_of_week=7) == crontab(day_of_week='sun')
        every_night.revoke(revoke_once=True)
        assert every_night.is_revoked()
    ''',
    'Revoking': '''
        assert not add.is_revoked()
        assert result.restore() and not huey.is_revoked(result.task_id)
        result.revoke()
        assert huey.is_revoked(result.task_id)
    ''',
    'Signing': '''
        from geventhuey import SignatureError
        before, others = RedisHuey('app', secret=old), RedisHuey('app', secret='one that nobody else knows')
        body = before.envelope.dumps(b'task', 'x' * 5000)
        assert huey.envelope.loads(b'task', body) == 'x' * 5000
        assert len(huey.envelope.dumps(b'task', 'x' * 5000)) < 200
        try:
            others.envelope.loads(b'task', body)
        except SignatureError:
            pass
        else:
            assert False
    ''',
    'What is guaranteed': '''
        assert launch.task_class.at_most_once
        assert huey.dead() == []
        with huey.once('charge 7', ttl=60) as first:
            assert first
        assert not huey.once('charge 7', ttl=60)
    ''',
    'What may be an argument': '''
        import datetime, decimal, pathlib, uuid
        from app import add
        from geventhuey import SerializationError
        plain = [1, 2.0, 'text', b'bytes', [], {'key': (None, True)}, {1}]
        values = [datetime.datetime(2024, 1, 1), datetime.date(2024, 1, 1), decimal.Decimal('0.1'), uuid.uuid4(), pathlib.Path('a')]
        sent = [*plain, *values, Point(1, 2)]
        assert huey.serializer.loads(huey.serializer.dumps(sent)) == sent
        class Other:
            pass
        try:
            add(Other(), 1)
        except SerializationError as exc:
            assert 'huey.allow(Other)' in str(exc)
        else:
            assert False
    ''',
}


# -- what is in it -------------------------------------------------------------------------------------------

class Block(NamedTuple):
    """A block of README: in which section, in which language, and its text."""

    section: str
    language: str
    text: str


def read() -> tuple[nodes.document, str]:
    """The document, and what docutils has to say about it."""
    said = io.StringIO()
    document = publish_doctree(README.read_text(encoding='utf-8'), settings_overrides={**SETTINGS, 'warning_stream': said})
    return document, said.getvalue()


def section_of(node: nodes.Node) -> str:
    """The title of the section around it."""
    while not isinstance(node, nodes.section | nodes.document):
        node = node.parent
    title = node.next_node(nodes.title)
    return title.astext() if title else ''


def language_of(node: nodes.Element) -> str:
    """``python`` for ``.. code-block:: python``; '' for what is no code block or does not say."""
    classes = node['classes']
    return classes[1] if isinstance(node, nodes.literal_block) and classes[:1] == ['code'] and len(classes) == 2 else ''


def blocks(document: nodes.document) -> list[Block]:
    """Everything that is set off as code, in order."""
    kinds = (nodes.literal_block, nodes.doctest_block, nodes.math_block, nodes.raw)
    return [Block(section_of(node), language_of(node), node.astext()) for node in document.findall(lambda node: isinstance(node, kinds))]


def table(head: str) -> list[list[nodes.entry]]:
    """The rows of the table whose first column is headed so."""
    for found in DOCUMENT.findall(nodes.table):
        rows = [list(row.findall(nodes.entry)) for row in found.findall(nodes.row)]
        if rows[0][0].astext() == head:
            return rows[1:]
    raise AssertionError(f'README has no table {head!r}')


def literals(node: nodes.Node) -> list[str]:
    """What is ``written so`` in it."""
    return [literal.astext() for literal in node.findall(nodes.literal)]


DOCUMENT, WARNINGS = read()
BLOCKS = blocks(DOCUMENT)
PYTHON = [block for block in BLOCKS if block.language == 'python']
PROGRAMS = [block for block in PYTHON[1:] if 'def test_' not in block.text]
TESTS = [block for block in PYTHON[1:] if 'def test_' in block.text]
LINES = [line for block in BLOCKS if block.language == 'console' for line in block.text.splitlines()]


def lines_of(pattern: str) -> list[str]:
    """The command lines that match as a whole, without their prompt."""
    return [line[2:] for line in LINES if re.fullmatch(pattern, line)]


#: Every command line is one of these, and each has its test.
CONSUMERS = lines_of(r'\$ geventhuey-consumer app\.huey( [^&|;<>]+)?')
APPLICATIONS = lines_of(r'\$ python app\.py')
INSTALLATIONS = lines_of(r'\$ python -m pip install \. && geventhuey demo')
SOAKS = lines_of(r'\$ python -m geventhuey\.testing\.soak( [^&|;<>]+)?')
CHECKS = lines_of(r'\$ python -m pip install tox && tox')


def named(block: Block) -> str:
    return block.section.lower().replace(' ', '-')


def test_every_block_is_run():
    assert [block for block in BLOCKS if block.language not in ('python', 'console')] == []
    known = [f'$ {line}' for line in (*CONSUMERS, *APPLICATIONS, *INSTALLATIONS, *SOAKS, *CHECKS)]
    assert [line for line in LINES if line not in known] == []
    assert all((CONSUMERS, APPLICATIONS, INSTALLATIONS, SOAKS, CHECKS, PROGRAMS, TESTS))


def test_every_promise_has_its_block():
    assert sorted(PROMISES) == sorted(block.section for block in PROGRAMS)


@pytest.mark.parametrize('text', [
    '::\n\n  x = 1', '>>> 1 + 1\n2', '.. code-block::\n\n  x', '.. code-block:: bash\n\n  true', '.. code:: json\n\n  1',
])
def test_another_kind_of_block_would_be_noticed(text):
    document = publish_doctree(f'{text}\n', settings_overrides=SETTINGS)
    assert [block.language in ('python', 'console') for block in blocks(document)] == [False]


# -- running -------------------------------------------------------------------------------------------------

def environment(**more: str) -> dict[str, str]:
    """Ours without what would lead a program elsewhere, and with this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith('GEVENTHUEY_')}
    return {**kept, 'PYTHONPATH': str(CHECKOUT), **more}


def words_of(line: str) -> list[str]:
    """The words of a command line; its command is the one of this interpreter."""
    name, *rest = shlex.split(line)
    if name == 'python':
        return [sys.executable, *rest]
    script = Path(sysconfig.get_path('scripts'), name)
    return [str(script), *rest] if script.exists() else [sys.executable, '-m', COMMANDS[name], *rest]


def run(words: Sequence[str], directory: Path, seconds: float = PROGRAM, **variables: str) -> str:
    """What the program printed; it has ended well and without a word on stderr."""
    ended = subprocess.run(words, cwd=directory, env=environment(**variables), capture_output=True, text=True, timeout=seconds)
    assert (ended.returncode, ended.stderr) == (0, ''), f'{ended.stdout}\n{ended.stderr}'
    return ended.stdout


def wait_until(condition: Callable[[], bool], otherwise: Callable[[], str], seconds: float = CONSUMER) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.01)


@contextlib.contextmanager
def running(line: str, directory: Path, url: str) -> Iterator[None]:
    """While the block runs, so do all processes of this consumer; a SIGTERM has ended it well afterwards."""
    flags = build_parser().parse_args(shlex.split(line)[1:])
    processes = flags.workers if flags.worker_type == WORKER_PROCESS else flags.processes
    storage = geventhuey.RedisHuey('app', url=url).storage
    log = directory / 'consumer.log'
    with log.open('w') as output:
        process = subprocess.Popen(words_of(line), cwd=directory, env=environment(GEVENTHUEY_URL=url), stdout=output, stderr=output)

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        return 'tasks: app.add' in log.read_text() and len(storage.consumers()) == processes
    try:
        wait_until(is_ready, log.read_text)
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(CONSUMER) == 0, log.read_text()
        assert log.read_text().count('stopped, after') == processes
        assert storage.consumers() == {}
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        storage.close()


def comments(source: str) -> Iterator[tuple[str, str, str]]:
    """The lines ``expression  # value``: indentation, expression, value."""
    for line in source.splitlines():
        found = re.fullmatch(r'( *)([\w.]+\(.*\)) +# (True|False|None|-?\d+|\'[^\']*\')', line)
        if found:
            yield found[1], found[2], found[3]


def checked(source: str) -> str:
    """The source, in which every expression with its value in a comment must have this value."""
    lines = source.splitlines()
    for indentation, expression, value in comments(source):
        if not expression.startswith('print('):
            lines = [f'{indentation}assert ({expression}) == {value}' if line.startswith(indentation + expression) else line
                     for line in lines]
    return '\n'.join(lines) + '\n'


def printed(source: str) -> str:
    """What the source prints, as the comments say."""
    return ''.join(f'{ast.literal_eval(value)}\n' for _, expression, value in comments(source) if expression.startswith('print('))


def test_a_value_in_a_comment_is_checked():
    source = 'if x:\n    f(1)  # True\nprint(g(2))   # 3\nh()  # None while there is none\n'
    assert checked(source) == 'if x:\n    assert (f(1)) == True\nprint(g(2))   # 3\nh()  # None while there is none\n'
    assert printed(source) == '3\n'


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where app.py is."""
    (tmp_path / 'app.py').write_text(PYTHON[0].text + '\n', encoding='utf-8')
    return tmp_path


@pytest.mark.parametrize('line', CONSUMERS)
def test_a_consumer_runs_the_application(line, directory, redis_url):
    with running(line, directory, redis_url):
        for application in APPLICATIONS:
            assert run(words_of(application), directory, GEVENTHUEY_URL=redis_url) == printed(PYTHON[0].text) == '3\n'


@pytest.mark.parametrize('block', PROGRAMS, ids=named)
def test_a_block_does_what_it_says(block, directory, redis_url):
    program = directory / 'block.py'
    program.write_text(checked(block.text) + inspect.cleandoc(PROMISES.get(block.section, '')), encoding='utf-8')
    with running(CONSUMERS[0], directory, redis_url):
        assert run([sys.executable, program.name], directory, GEVENTHUEY_URL=redis_url).startswith(printed(block.text))


@pytest.mark.parametrize('block', TESTS, ids=named)
def test_a_block_of_tests_passes(block, directory):
    (directory / 'test_block.py').write_text(block.text + '\n', encoding='utf-8')
    (directory / 'pytest.ini').write_text('[pytest]\n', encoding='utf-8')
    output = run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', 'test_block.py'], directory)
    assert f'{block.text.count("def test_")} passed' in output


def copy_checkout(target: Path) -> None:
    """What a fresh checkout would hold: no caches, nothing that git ignores."""
    if (CHECKOUT / '.git').exists() and shutil.which('git'):
        listed = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=CHECKOUT, check=True,
                                capture_output=True, text=True, timeout=PROGRAM).stdout
        for name in filter(None, listed.split('\0')):
            if (CHECKOUT / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(CHECKOUT / name, target / name)
    else:
        ignored = shutil.ignore_patterns('.git', '.tox', '.*_cache', '.venv', 'venv', 'build', 'dist', '__pycache__', '*.egg-info')
        shutil.copytree(CHECKOUT, target, dirs_exist_ok=True, ignore=ignored)


@pytest.mark.slow
@pytest.mark.timeout(INSTALLATION + 60)
@pytest.mark.parametrize('line', INSTALLATIONS)
def test_it_can_be_installed_and_demonstrated(line, tmp_path):
    checkout, virtual = tmp_path / 'checkout', tmp_path / 'virtual'
    checkout.mkdir()
    copy_checkout(checkout)
    subprocess.run([sys.executable, '-m', 'venv', virtual], check=True, timeout=PROGRAM * 2)
    variables = {name: value for name, value in environment().items() if name not in ('PYTHONPATH', 'PYTHONHOME')}
    variables |= {'PATH': f'{virtual / "bin"}{os.pathsep}{os.environ["PATH"]}', 'VIRTUAL_ENV': str(virtual)}
    log = tmp_path / 'log'
    with log.open('w') as output:
        process = subprocess.Popen(['bash', '-c', line], cwd=checkout, env=variables, stdout=output, stderr=output, start_new_session=True)
    try:
        assert process.wait(INSTALLATION) == 0, log.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    said = log.read_text()
    assert 'Successfully installed' in said and 'Traceback' not in said
    assert '5000 tasks, 500 greenlets' in said and re.search(r'verified +5000 of 5000\b', said), said


@pytest.mark.slow
@pytest.mark.parametrize('line', SOAKS)
def test_a_soak_finds_every_task(line, tmp_path):
    words = [*words_of(line), '--tasks', '2000']
    ended = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, f'{ended.stdout}\n{ended.stderr}'
    assert re.search(r'lost +0\n', ended.stdout)


def test_the_test_command_is_the_one_that_runs():
    (line,) = CHECKS
    ci = (CHECKOUT / '.ci' / 'run').read_text(encoding='utf-8').splitlines()
    assert len([one for one in ci if one.startswith(f"bash -c '{line}' ")]) == 1
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(CHECKOUT / 'tox.ini', encoding='utf-8')
    environments = re.split(r'[,\s]+', tox['tox']['envlist'].strip())
    commands = {section: tox[section]['commands'].strip().splitlines() for section in ('testenv', 'testenv:lint', 'testenv:types')}
    pytest_alone = re.compile(r'(\w+): pytest(?: -n \d+ --dist \w+)? {posargs}')
    whole = [found[1] for found in map(pytest_alone.fullmatch, commands['testenv']) if found]
    assert {'lint', 'types', *whole} <= set(environments) and whole
    assert commands['testenv:lint'][0].startswith('ruff check .') and commands['testenv:types'][0].startswith('mypy geventhuey')


# -- what it says --------------------------------------------------------------------------------------------

def test_it_renders():
    assert WARNINGS == ''
    said = io.StringIO()
    publish_string(README.read_text(encoding='utf-8'), writer='html5',
                   settings_overrides={**SETTINGS, 'warning_stream': said, 'raw_enabled': False, 'file_insertion_enabled': False})
    assert said.getvalue() == ''


def test_files_that_it_points_to_exist():
    links = [link['refuri'] for link in DOCUMENT.findall(nodes.reference) if '://' not in link.get('refuri', '://')]
    assert links
    assert [link for link in links if not (CHECKOUT / link).exists()] == []
    others = ('app.py', 'huey_consumer.py')         # the reader's, and Huey's
    modules = [name for name in literals(DOCUMENT) if name.endswith('.py') and name not in others]
    assert [name for name in modules if not (CHECKOUT / 'geventhuey' / name).exists()] == []


def test_versions_are_those_of_the_package():
    text = README.read_text(encoding='utf-8')
    setup = (CHECKOUT / 'setup.py').read_text(encoding='utf-8')
    python = re.search(r'Python ([\d.]+) or later', text)[1]
    assert f"python_requires='>={python}'" in setup
    assert 'Redis {}.{} or later'.format(*OLDEST_REDIS) in text


@pytest.mark.parametrize('name', geventhuey.__all__)
def test_a_public_name_is_documented(name):
    thing = getattr(geventhuey, name)
    text = (vars(thing) if isinstance(thing, type) else {'__doc__': thing.__doc__}).get('__doc__') or ''
    assert re.match(r'[A-Z`].*[.:]$', text.strip().splitlines()[0] if text.strip() else ''), f'{name}: {text[:100]!r}'


# -- the options ---------------------------------------------------------------------------------------------

ACTIONS = {flag: action for action in build_parser()._actions for flag in action.option_strings}
ROWS = table('option')
#: A default as README has it, where the parser's own would say nothing to the reader.
IN_WORDS = {'utc': 'UTC', 'logfile': 'stderr', 'level': ''}


def test_every_option_is_in_the_table():
    flags = [flag for row in ROWS for cell in row[:2] for flag in literals(cell) if flag.startswith('-')]
    assert [flag for flag in flags if flag not in ACTIONS] == []
    assert len(flags) == len(set(flags)), 'an option is there twice'
    missing = [action.option_strings for action in ACTIONS.values() if not set(action.option_strings) & set(flags)]
    assert missing == []


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row[0].astext())
def test_a_default_in_the_table_is_the_parsers(row):
    flags, said = literals(row[0]), row[2].astext()
    for flag in flags:
        action = ACTIONS[flag]
        if said == '' and 'accepted for Huey' in action.help:
            continue
        default = action.default
        if default is argparse.SUPPRESS or isinstance(default, bool | None):
            default = ''
        shown = default if isinstance(default, str) else f'{default:g}'
        assert said == IN_WORDS.get(action.dest, shown)


def test_help_explains_every_option(tmp_path):
    (line,) = {text for text in literals(DOCUMENT) if text.startswith('geventhuey-consumer ')}
    output = run(words_of(line), tmp_path)
    assert [flag for flag in ACTIONS if not re.search(rf'(?<![\w-]){re.escape(flag)}(?![\w-])', output)] == []
    assert [action.option_strings for action in ACTIONS.values() if not action.help] == []


# -- coming from Huey ----------------------------------------------------------------------------------------

#: What is written like code and names nothing.
NOTATION = {'n', 'a-b/n', 'A-Z a-z 0-9 _ . : -'}
HUEY = geventhuey.MemoryHuey('names')
TASK = HUEY.task()(test_it_renders)
#: What names in README's code stand for.
OBJECTS: dict[str, Any] = {'huey': HUEY, 'task': geventhuey.QueueTask(), 'geventhuey': geventhuey}
#: Where a bare name may be at home, and whose parameters are named without their function.
HOMES = (geventhuey, builtins, HUEY, geventhuey.TaskResultWrapper)
CALLABLES = (geventhuey.Huey, geventhuey.Huey.task, TaskFunction.schedule, geventhuey.TaskResultWrapper.get, geventhuey.Huey.pending)


def parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def look_up(node: ast.expr) -> Any:
    """What this name, attribute or call's function is. Raises AttributeError, ImportError or AssertionError when there is none."""
    if isinstance(node, ast.Call):
        function = look_up(node.func)
        assert {keyword.arg for keyword in node.keywords} <= parameters(function)
        return None
    if isinstance(node, ast.Attribute):
        text = ast.unparse(node)
        return pkgutil.resolve_name(text) if text.startswith('geventhuey.') else getattr(look_up(node.value), node.attr)
    if isinstance(node, ast.Constant):
        return node.value
    assert isinstance(node, ast.Name), ast.dump(node)
    if node.id in OBJECTS:
        return OBJECTS[node.id]
    home = next((home for home in HOMES if hasattr(home, node.id)), HUEY)
    return getattr(home, node.id)


def exists(text: str) -> bool:
    """True when what the text names is ours: a name, a call with its keywords, or a parameter such as ``name=``."""
    setting = re.fullmatch(r'(\w+)=(.*)', text)
    if setting:
        return any(setting[1] in parameters(function) for function in CALLABLES)
    try:
        look_up(ast.parse(text, mode='eval').body)
    except (AttributeError, ImportError, AssertionError, SyntaxError):
        return any(text in parameters(function) for function in CALLABLES)
    return True


def is_ours(text: str) -> bool:
    return text in NOTATION or text.startswith('-') or exists(text)


@pytest.mark.parametrize('head', ['Huey 1', 'Huey 2, 3'])
def test_what_the_table_for_users_of_huey_names_is_there(head):
    names = [text for row in table(head) for text in literals(row[1])]
    if head == 'Huey 1':        # whose names are ours
        names += [text for row in table(head) for text in literals(row[0])]
    names += [text for row in table(head) if row[1].astext() == 'the same' for text in literals(row[0])]
    assert names
    assert [text for text in names if not is_ours(text)] == []


def test_what_is_said_not_to_be_here_is_not():
    absent = [text for row in table('Huey 2, 3') if row[1].astext().startswith('not here') for text in literals(row[0])]
    assert absent and [text for text in absent if exists(text)] == []
    for row in table('Huey 2, 3') + table('Huey 1'):
        assert all(cell.astext().strip() for cell in row), row[0].astext()


def test_names_of_later_hueys_are_understood():
    (sentence,) = [node for node in DOCUMENT.findall(nodes.paragraph) if 'From Huey 2 and 3' in node.astext()]
    names = literals(sentence)
    assert len(names) >= 5 and [text for text in names if not exists(text)] == []


@pytest.mark.parametrize('text', [
    'SqliteHuey', 'huey.nothing', 'crontab(second=1)', 'geventhuey.storage.base.Nothing', 'nothing=1', 'task.id',
])
def test_a_name_that_is_not_there_would_be_noticed(text):
    assert not exists(text)


def test_the_events_that_it_names_are_announced():
    (section,) = [node for node in DOCUMENT.findall(nodes.section) if node.next_node(nodes.title).astext() == 'Looking inside']
    named_so = [text for text in literals(section) if re.fullmatch('[a-z-]+', text)]
    announced = {value for name, value in vars(events).items() if name.startswith('EVENT_')}
    assert named_so and [text for text in named_so if text not in announced] == []
