"""The options of the command: spellings, defaults, help, and what is no value for them."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import shutil
import sys

import pytest

import geventhuey
from geventhuey import ConfigurationError, MemoryHuey
from geventhuey.cli.consumer import GROUPS, build_parser, main, options_of
from geventhuey.consumer.options import Options
from tests.cli.kit import APP, CONSUMER

#: Every option of a consumer: its spellings, its argument, and what it sets to which value.
OPTIONS = [
    (('-w', '--workers'), '7', 'workers', 7),
    (('-k', '--worker-type'), 'thread', 'worker_type', 'thread'),
    (('-p', '--processes'), '3', 'processes', 3),
    (('-n', '--no-periodic'), None, 'periodic', False),
    (('-o', '--localtime'), None, 'utc', False),
    (('-s', '--scheduler-interval'), '13', 'scheduler_interval', 13),
    (('-d', '--delay'), '0.5', 'initial_delay', 0.5),
    (('-m', '--max-delay'), '20', 'max_delay', 20.0),
    (('-b', '--backoff'), '2', 'backoff', 2.0),
    (('-C', '--disable-health-check', '--disable_health_check'), None, 'check_worker_health', False),
    (('-c', '--health-check-interval', '--health_check_interval'), '3.5', 'health_check_interval', 3.5),
    (('-t', '--shutdown-timeout'), '0', 'shutdown_timeout', 0.0),
    (('--lease',), '9.5', 'lease', 9.5),
    (('--max-deliveries',), '3', 'max_deliveries', 3),
    (('--name',), 'shop-1', 'name', 'shop-1'),
]
SPELLINGS = [pytest.param(spelling, text, field, value, id=spelling) for spellings, text, field, value in OPTIONS for spelling in spellings]

#: What is no option of a consumer but of the command.
OTHERS = {'-h', '--help', '--version', '-u', '--utc', '--url', '-l', '--logfile', '-v', '--verbose', '-q', '--quiet'}

#: Huey 1's defaults.
HUEYS_DEFAULTS = {
    'workers': 1, 'periodic': True, 'initial_delay': 0.1, 'backoff': 1.15, 'max_delay': 10.0, 'utc': True, 'scheduler_interval': 1,
    'worker_type': 'thread', 'check_worker_health': True, 'health_check_interval': 1}


def options(*args: str) -> Options:
    return options_of(build_parser().parse_args([*args, 'app.huey']))


def flags() -> set[str]:
    """Every option that the parser knows."""
    return {flag for action in build_parser()._actions for flag in action.option_strings}


# -- spellings ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize(('spelling', 'text', 'field', 'value'), SPELLINGS)
def test_an_option_reaches_its_field_and_no_other(spelling, text, field, value):
    changed = dataclasses.replace(options(), **{field: value})
    assert changed != options()
    assert options(*filter(None, [spelling, text])) == changed


def test_the_table_is_whole():
    assert {field for *_, field, _ in OPTIONS} == {field.name for field in dataclasses.fields(Options)}
    assert {spelling for spellings, *_ in OPTIONS for spelling in spellings} | OTHERS == flags()


@pytest.mark.parametrize('args', [['-w7', 'app.huey'], ['--workers=7', 'app.huey'], ['app.huey', '-w', '7'],
                                  ['-w', '3', '-w', '7', 'app.huey'], ['-w', '7', '--', 'app.huey']], ids=' '.join)
def test_an_option_may_be_written_in_any_usual_way(args):
    assert options_of(build_parser().parse_args(args)).workers == 7


@pytest.mark.parametrize(('args', 'utc'), [([], True), (['-u'], True), (['--utc'], True), (['-o'], False), (['-o', '-u'], True),
                                           (['-u', '-o'], False)])
def test_utc_is_the_default_and_the_last_one_counts(args, utc):
    assert options(*args).utc is utc


@pytest.mark.parametrize(('text', 'interval'), [('0.1', 1), ('1', 1), ('13', 13), ('60', 60), ('120', 60)])
def test_the_scheduler_interval_is_brought_into_its_bounds(text, interval):
    assert options('-s', text).scheduler_interval == interval


def test_gevent_is_another_name_for_greenlet():
    assert options('-k', 'gevent') == options('-k', 'greenlet')


@pytest.mark.parametrize(('args', 'level', 'logfile', 'url'), [
    ([], logging.INFO, None, None),
    (['-v'], logging.DEBUG, None, None),
    (['--verbose'], logging.DEBUG, None, None),
    (['-q'], logging.ERROR, None, None),
    (['--quiet'], logging.ERROR, None, None),
    (['-l', 'a.log'], logging.INFO, 'a.log', None),
    (['--logfile', 'a.log'], logging.INFO, 'a.log', None),
    (['--url', 'redis://there'], logging.INFO, None, 'redis://there'),
])
def test_the_log_and_the_storage(args, level, logfile, url):
    said = build_parser().parse_args([*args, 'app.huey'])
    assert (said.level, said.logfile, said.url, said.huey) == (level, logfile, url, 'app.huey')


# -- defaults ----------------------------------------------------------------------------------------------

def test_the_command_starts_a_hundred_greenlets_and_is_huey_in_all_else():
    assert options() == Options(worker_type='greenlet', workers=100)


def test_a_consumer_in_a_program_has_hueys_defaults():
    consumer = MemoryHuey().create_consumer()
    assert consumer.options == Options()
    assert {name: getattr(consumer.options, name) for name in HUEYS_DEFAULTS} == HUEYS_DEFAULTS


# -- help --------------------------------------------------------------------------------------------------

def test_help_is_grouped_has_examples_and_names_every_option(capsys):
    with pytest.raises(SystemExit) as ended:
        main(['--help'])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert all(f'{title}:' in lines for title in (*GROUPS.values(), 'storage', 'log', 'examples'))
    assert re.search(r'^  geventhuey-consumer app\.huey +100 greenlets', said, re.MULTILINE)
    assert all(re.search(rf'^  .*(?<![\w-]){re.escape(flag)}(?![\w-])', said, re.MULTILINE) for flag in flags())
    assert '(default: 100)' in said and '(default: greenlet)' in said
    assert max(map(len, lines)) <= 120


def test_every_example_of_the_help_can_be_parsed(capsys):
    with pytest.raises(SystemExit):
        main(['-h'])
    examples = re.findall(r'^  geventhuey-consumer (.+?)  ', capsys.readouterr().out, re.MULTILINE)
    assert len(examples) >= 4
    for example in examples:
        options_of(build_parser().parse_args(example.split()))


# -- what is no value --------------------------------------------------------------------------------------

BAD = [
    ('-w 0', 'workers=0: a whole number from 1'),
    ('-w -1', 'workers=-1: a whole number from 1'),
    ('-w x', "-w/--workers: invalid int value: 'x'"),
    ('-w 1.5', "-w/--workers: invalid int value: '1.5'"),
    ('-w', '-w/--workers: expected one argument'),
    ('-k foo', "worker_type='foo': thread, greenlet or process"),
    ('-p 0', 'processes=0: a whole number from 1'),
    ('-t -1', 'shutdown_timeout=-1.0: '),
    ('-t nan', 'shutdown_timeout=nan: '),
    ('-b 0.5', 'backoff=0.5: a number of at least 1'),
    ('-d -1', 'initial_delay=-1.0: '),
    ('-m -1', 'max_delay=-1.0: '),
    ('-s -1', 'scheduler_interval=-1.0: '),
    ('-c 0', 'health_check_interval=0.0: '),
    ('--lease 0', 'lease=0.0: seconds from 0.2'),
    ('--max-deliveries 0', 'max_deliveries=0: a whole number from 1'),
    ('--name=a\tb', "name='a\\tb': at most 100 printable characters"),
    (f'--name={"a" * 101}', 'at most 100 printable characters'),
    ('-k process -p 2', 'worker_type=process starts one process for each worker'),
    ('-k process -w 100000', 'workers=100000 processes are too many'),
    ('-k thread -w 100000', 'workers=100000 threads are too many'),
    ('-v -q', 'not allowed with argument -v/--verbose'),
    ('-l no/such/folder/log', 'the log cannot be written to no/such/folder/log: No such file or directory'),
    ('-l .', 'the log cannot be written to .: Is a directory'),
    ('--work 5', 'unrecognized arguments: --work'),
    ('--nonsense', 'unrecognized arguments: --nonsense'),
    ('other.huey', 'unrecognized arguments: '),
]


def check_one_clear_error(code: object, error: str, said: str) -> None:
    """Usage, then one line that says it."""
    assert code == 2
    assert error.startswith('usage: geventhuey-consumer')
    last = error.splitlines()[-1]
    assert last.startswith('geventhuey-consumer: error: ') and said in last
    assert error.count('error:') == 1
    assert 'Traceback' not in error


@pytest.mark.parametrize(('args', 'said'), BAD, ids=[args[:30] for args, _ in BAD])
def test_a_bad_value_is_one_clear_error(args, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(['app.huey', *args.split(' ')])
    check_one_clear_error(ended.value.code, capsys.readouterr().err, said)


def test_a_name_with_blanks_is_one_clear_error(capsys):
    with pytest.raises(SystemExit) as ended:
        main(['app.huey', '--name', 'a b'])
    check_one_clear_error(ended.value.code, capsys.readouterr().err, "name='a b': at most 100 printable characters without blanks")


def test_without_an_application_it_says_what_is_missing(capsys):
    with pytest.raises(SystemExit) as ended:
        main(['-w', '5'])
    check_one_clear_error(ended.value.code, capsys.readouterr().err, 'the following arguments are required: path.to.huey')


@pytest.mark.parametrize('args', ['app.huey -w 0', 'app.huey -k process -p 2', ''])
def test_as_a_process_too(site, args):
    ended = site.end(*args.split())
    assert ended.out == ''
    check_one_clear_error(ended.code, ended.error, '')


def test_several_processes_are_the_commands_business():
    for wrong in ({'processes': 2}, {'worker_type': 'process'}):
        with pytest.raises(ConfigurationError, match='geventhuey-consumer -k process, or -p N'):
            MemoryHuey().create_consumer(**wrong)


# -- the commands ------------------------------------------------------------------------------------------

def script(name: str) -> tuple[str, ...]:
    """The console script of the environment that runs the tests."""
    found = shutil.which(name, path=os.path.dirname(sys.executable))
    if found is None:
        pytest.skip(f'{name} is not installed here')
    return (found,)


@pytest.mark.parametrize('name', ['geventhuey-consumer', 'geventhuey', 'geventhuey.cli.consumer', 'geventhuey.cli.main'])
def test_every_command_knows_its_version(site, name):
    command = (sys.executable, '-m', name) if '.' in name else script(name)
    assert site.end('--version', command=command) == (0, f'geventhuey {geventhuey.__version__}\n', '')


@pytest.mark.parametrize('command', ['script', 'module'])
def test_the_consumer_runs_tasks_as_a_script_and_as_a_module(site, command):
    site.write(app=APP)
    consumer = site.start('app.huey', command=script('geventhuey-consumer') if command == 'script' else CONSUMER)
    assert site.send('add', 1, 2).get(blocking=True, timeout=30) == 3
    assert consumer.stop() == 0
