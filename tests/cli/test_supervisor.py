"""Several processes as one: crashed ones are started again, hopeless ones stop all, and nobody is left behind."""

from __future__ import annotations

import os
import re
import signal

import pytest

from geventhuey import TaskException
from geventhuey.cli import supervisor
from geventhuey.consumer.options import Options
from tests.cli.kit import APP, errors, variable_of
from tests.consumer.kit import Program, is_alive, wait_until

#: An application that can be imported so often, and fails then.
FAILS_LATER = '''
    import os
    from pathlib import Path

    # one line for each process that has imported it
    with open('imported', 'a') as file:
        file.write(f'{os.getpid()}\\n')
    if len(Path('imported').read_text().splitlines()) > 2:
        raise LookupError('the third time')

    from shop import huey
'''


def child(program: Program, number: int) -> int:
    """The child with this number, of two."""
    def found() -> list[int]:
        return [pid for pid in program.children() if variable_of(pid, supervisor.PLACE_VARIABLE) == f'{number}/2']
    return int(wait_until(found)[0])


def pauses(program: Program, number: int) -> list[str]:
    """How the child has ended so far, and the seconds until it was started again."""
    return [f'{how} {pause}' for how, pause in re.findall(
        rf'process {number} ended with ([\w ]+), it is started again in ([\d.]+) s', program.text())]


# -- crashes -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize('options', [('-p', '2', '-w', '3'), ('-k', 'process', '-w', '2'), ('-p', '2', '-k', 'thread', '-w', '3')],
                         ids=['greenlet', 'process', 'thread'])
def test_a_crashed_child_is_started_again_a_little_later_each_time(site, options):
    site.write(app=APP)
    program = site.start_ready('app.huey', *options, count=2)
    other = child(program, 1)
    for kill in (signal.SIGKILL, 40):        # one that has a name and one that has none
        victim = child(program, 2)
        os.kill(victim, kill)
        wait_until(lambda gone=victim: len(set(program.children()) - {gone}) == 2)
    assert pauses(program, 2) == ['SIGKILL 0.2', 'signal 40 0.4']
    assert child(program, 1) == other
    assert site.send('add', 1, 2).get(blocking=True, timeout=30) == 3
    children = program.children()
    assert program.stop() == 0
    assert not any(map(is_alive, children))
    assert len(errors(program)) == 2


def test_a_task_that_ends_its_process_is_outlived(site):
    program = site.consume('-p', '2', '-w', '3', '--max-deliveries', '2')
    died = site.send('die', 1)
    with pytest.raises(TaskException, match='its consumer died while it ran, 2 times'):
        died.get(blocking=True, timeout=30)
    assert site.journal.count('start') == 2
    wait_until(lambda: len([*pauses(program, 1), *pauses(program, 2)]) == 2)
    assert 'code 9 0.2' in [*pauses(program, 1), *pauses(program, 2)]
    assert site.send('add', 1, 2).get(blocking=True, timeout=30) == 3
    assert program.stop() == 0


def test_an_application_that_crashes_at_once_is_tried_more_and_more_slowly(site):
    site.write(app='import os\nos._exit(3)')
    program = site.start('app.huey', '-p', '2')
    wait_until(lambda: len(pauses(program, 1)) >= 3 and len(pauses(program, 2)) >= 3, what=program.text)
    for number in (1, 2):
        assert pauses(program, number)[:3] == ['code 3 0.2', 'code 3 0.4', 'code 3 0.8']
    assert program.stop() in (0, 3)             # 3: one ended while all were being stopped
    assert program.children() == []


# -- no hope -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize('options', [('-p', '3'), ('-k', 'process', '-w', '3')], ids=['p', 'process'])
def test_what_no_child_can_do_is_said_once_and_stops_all(site, options):
    site.write(app='raise LookupError("never")')
    ended = site.end('app.huey', *options)
    assert ended.code == 78
    assert ended.error.count('importing it failed: ') == 1
    assert ended.error.count('LookupError: never') == 2         # in the first line, and at the end of the traceback
    assert 'started again' not in ended.error


@pytest.mark.parametrize('number', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_child_that_cannot_be_started_again_stops_all(site, number):
    site.write(app=FAILS_LATER, shop=APP)
    program = site.start_ready('app.huey', '-p', '2', '-w', '2', count=2)
    other = child(program, 3 - number)
    os.kill(child(program, number), signal.SIGKILL)
    assert program.wait() == 78
    assert not is_alive(other)
    assert pauses(program, number) == ['SIGKILL 0.2']
    assert len(program.lines('geventhuey-consumer: app.huey: importing it failed')) == 1
    assert len(program.lines('stopped, after')) == 1            # the other one did not crash, it was told


# -- signals -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT], ids=['SIGTERM', 'SIGINT'])
def test_a_signal_is_passed_on_and_running_tasks_end(site, number):
    program = site.consume('-p', '2', '-w', '5', '-t', '20')
    wait_until(lambda: len(site.consumers()) == 2)
    results = [site.send('rest', n, 0.7) for n in range(10)]
    site.journal.wait_for('start', 10)
    children = program.children()
    program.signal(number)
    assert program.wait() == 0
    assert not any(map(is_alive, children))
    assert [result.get() for result in results] == [n * 10 for n in range(10)]
    assert len(program.lines('stopped, after')) == 2
    assert site.consumers() == {}


def test_a_second_signal_is_passed_on_too(site):
    program = site.consume('-p', '2', '-w', '1', '-t', '300')
    wait_until(lambda: len(site.consumers()) == 2)
    for n in range(2):
        site.send('rest', n, 300)
    site.journal.wait_for('start', 2)
    program.signal()
    program.wait_for('shutting down', count=2)
    program.signal()
    assert program.wait() == 0
    assert site.journal.count('interrupted') == 2
    assert sorted(site.pending()) == ['0', '1']


def test_children_end_when_their_supervisor_is_killed(site):
    program = site.consume('-p', '2', '-w', '1', '-t', '0.3')
    wait_until(lambda: len(site.consumers()) == 2)
    for n in range(2):
        site.send('rest', n, 300)
    site.journal.wait_for('start', 2)
    children = program.children()
    assert len(children) == 2
    program.kill()
    wait_until(lambda: not any(map(is_alive, children)), what=program.text)
    assert len(program.lines('stopped, after')) == 2            # as by SIGTERM, and not by accident
    assert sorted(site.pending()) == ['0', '1']
    assert {task.deliveries for task in site.huey.pending()} == {0}
    assert site.consumers() == {}


# -- what children are told --------------------------------------------------------------------------------

def test_a_command_line_with_two_dashes_is_understood_by_children_too(site):
    site.write(app=APP)
    program = site.start_ready('-p', '2', '-w', '3', '--', 'app.huey', count=2)
    assert site.send('add', 1, 2).get(blocking=True, timeout=30) == 3
    assert program.stop() == 0


def test_what_a_child_starts_itself_is_no_child(site):
    site.write(app='import os, sys\nprint("sees", sorted(name for name in os.environ if name.startswith("GEVENTHUEY_")), file=sys.stderr)\n'
               'from shop import huey', shop=APP)
    program = site.start_ready('app.huey', '-p', '2', count=2, GEVENTHUEY_MINE='1')
    assert program.lines('sees') == ["sees ['GEVENTHUEY_MINE']"] * 2
    assert program.stop() == 0


@pytest.mark.parametrize(('of_all', 'of_each'), [
    (Options(processes=3, worker_type='greenlet', workers=50, lease=5), Options(worker_type='greenlet', workers=50, lease=5)),
    (Options(worker_type='process', workers=4, name='shop'), Options(worker_type='thread', workers=1, name='shop')),
])
def test_what_each_of_several_processes_does(of_all, of_each):
    assert supervisor.is_needed(of_all) and not supervisor.is_needed(of_each)
    assert supervisor.options_of_child(of_all) == of_each


def test_a_process_has_its_place_once(monkeypatch):
    monkeypatch.setenv(supervisor.PLACE_VARIABLE, '2/3')
    place = supervisor.take_place()
    assert (place, place.is_child, place.is_first) == ((2, 3), True, False)
    place = supervisor.take_place()
    assert (place, place.is_child, place.is_first) == ((0, 0), False, True)
