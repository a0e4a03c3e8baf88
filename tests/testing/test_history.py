"""History: what is right is called right, and what is wrong in any one way is found and named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from geventhuey.testing.history import ENDED, FAILED, STARTED, History, note


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / 'journal')


def wrote(history: History, *lines: str) -> None:
    """Lines of the journal: word, task, deliveries, pid, time."""
    with open(history.journal, 'a') as journal:
        journal.writelines(line + '\n' for line in lines)


def test_a_task_that_was_sent_and_has_run_once_is_right(history):
    history.sent('a')
    note(history.journal, STARTED, 'a')
    note(history.journal, ENDED, 'a')
    report = history.check()
    report.raise_if_wrong()
    assert (report.tasks, report.runs, history.ended_count()) == (1, 1, 1)
    [run] = history.runs()['a']
    assert (run.pid, run.how) == (os.getpid(), ENDED) and run.started <= run.ended


@pytest.mark.parametrize('lines', [
    [], ['start a 0 1 10.0'], ['start a 0 1 10.0', 'interrupted a 0 1 11.0'], ['start a 0 1 10.0', 'end a 0 1 1']])
def test_a_task_that_has_not_ended_is_lost(history, lines):
    history.sent('a')
    wrote(history, *lines[:-1])
    if lines:
        with open(history.journal, 'a') as journal:
            journal.write(lines[-1] if lines[-1].startswith('end') else lines[-1] + '\n')      # the last line is cut short
    report = history.check()
    assert report.lost == ['a'] and not report.is_right
    with pytest.raises(AssertionError, match=r'lost +1: a'):
        report.raise_if_wrong()


def test_a_task_that_may_have_been_sent_may_have_run_or_not(history):
    history.sent('a', certain=False)
    history.sent('b', certain=False)
    wrote(history, 'start a 0 1 10.0', 'end a 0 1 11.0')
    history.check().raise_if_wrong()


def test_a_task_that_nobody_has_sent_is_named(history):
    wrote(history, 'start ghost 0 1 10.0', 'end ghost 0 1 11.0')
    with pytest.raises(AssertionError, match=r'never sent +1: ghost'):
        history.check().raise_if_wrong()


TWICE = ['start a 0 1 10.0', 'start a 1 2 13.0', 'end a 1 2 14.0']


def test_a_second_run_that_nothing_explains_is_shown_with_its_runs(history):
    history.sent('a')
    wrote(history, *TWICE)
    report = history.check()
    assert list(report.unexplained) == ['a']
    assert 'a: by 1 at 10.000, never ended; by 2 at 13.000, end at 14.000' in str(report)


def test_a_death_explains_what_it_hit_and_says_how_long_it_took(history):
    history.sent('a')
    wrote(history, *TWICE)
    history.fault('kill', 1, 11.0, in_flight={'a', 'b'})
    report = history.check()
    report.raise_if_wrong()
    assert report.explained == {'kill': 1} and report.recoveries == [2.0]
    assert 'run twice      1 (1 by kill)' in str(report)


@pytest.mark.parametrize('fault', [
    ('kill', 1, 11.0, 11.0, {'b'}), ('kill', 2, 11.0, 11.0, {'a'}), ('kill', 1, 14.0, 14.0, {'a'}), ('kill', 1, 5.0, 6.0, None),
    ('kill', 2, 11.0, 11.0, None)], ids=['hit another', 'another process', 'too late', 'too early', 'another process, whatever it held'])
def test_a_fault_that_did_not_hit_this_run_explains_nothing(history, fault):
    history.sent('a')
    wrote(history, *TWICE)
    history.fault(*fault)
    assert list(history.check().unexplained) == ['a']


def test_each_further_run_needs_a_reason_of_its_own(history):
    history.sent('a')
    wrote(history, 'start a 0 1 10.0', 'start a 1 1 12.0', 'start a 2 1 14.0', 'end a 2 1 15.0')
    history.fault('stop', 1, 11.0, 11.5, {'a'})
    assert list(history.check().unexplained) == ['a']
    history.fault('stop', 1, 13.0, 13.5, {'a'})
    assert history.check().is_right


def test_a_run_that_failed_is_followed_by_one_that_the_task_asked_for(history):
    history.sent('a')
    wrote(history, 'start a 0 1 10.0', f'{FAILED} a 0 1 10.5', 'start a 0 2 11.0', 'end a 0 2 12.0')
    report = history.check()
    report.raise_if_wrong()
    assert report.retried == 1 and not report.explained


def test_a_start_before_its_time_is_named(history):
    history.sent('a', due=20.0)
    wrote(history, 'start a 0 1 19.0', 'end a 0 1 21.0')
    report = history.check()
    assert report.early == {'a': 1.0}
    with pytest.raises(AssertionError, match=r'too early +1: a'):
        report.raise_if_wrong()


def test_a_retry_that_never_came_is_a_loss(history):
    history.sent('a', tries=2)
    wrote(history, 'start a 0 1 10.0', f'{FAILED} a 0 1 10.5')
    assert history.check().lost == ['a']
    wrote(history, 'start a 0 1 11.0', f'{FAILED} a 0 1 11.5')
    assert history.check().is_right


def test_a_failure_is_no_reason_for_more_runs_than_there_are_tries(history):
    history.sent('a', tries=1)
    wrote(history, 'start a 0 1 10.0', f'{FAILED} a 0 1 10.5', 'start a 0 1 11.0', 'end a 0 1 11.5')
    assert list(history.check().unexplained) == ['a']


def test_a_fault_that_nobody_knows_the_victims_of_did_not_hit_what_had_ended(history):
    history.sent('a')
    wrote(history, 'start a 0 1 10.0', 'end a 0 1 11.0', 'start a 0 1 14.0', 'end a 0 1 15.0')
    history.fault('outage', None, 13.0, 20.0)
    assert list(history.check().unexplained) == ['a']


def test_an_id_may_be_any_text(history):
    for task_id in ('two words', 'ü/1:2%20', '100 %'):
        history.sent(task_id)
        note(history.journal, STARTED, task_id)
        note(history.journal, ENDED, task_id)
    history.check().raise_if_wrong()
