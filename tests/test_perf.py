"""The measurements run; what they measure is not looked at."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PERF = CHECKOUT / 'perf'


def run(*args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, 'PYTHONPATH': str(CHECKOUT)}
    return subprocess.run([sys.executable, *args], cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=110)


def written(path: Path, printed: str) -> list[dict[str, Any]]:
    """The figures in the file: numbers, and all were printed as well."""
    content = json.loads(path.read_text())
    assert {'machine', 'versions', 'command', 'figures'} <= set(content)
    assert all(math.isfinite(figure['value']) for figure in content['figures'])
    assert all(figure['name'] in printed for figure in content['figures'])
    found: list[dict[str, Any]] = content['figures']
    return found


def test_every_benchmark_runs():
    ended = run('-m', 'pytest', 'perf/', '--benchmark-disable', '-q', '-p', 'no:cacheprovider')
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert 'skipped' not in ended.stdout


def test_every_benchmark_is_found():
    ended = run('-m', 'pytest', 'perf/', '--collect-only', '-q', '-p', 'no:cacheprovider')
    files = {line.partition('::')[0].rpartition('/')[2] for line in ended.stdout.splitlines() if '::' in line}
    assert files == {path.name for path in PERF.glob('bench_*.py')}


def test_every_question_of_speed_is_answered(tmp_path):
    ended = run('perf/speed.py', '--tasks', '200', '--workers', '20', '--json', str(tmp_path / 'figures.json'))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    figures = written(tmp_path / 'figures.json', ended.stdout)
    assert sum(figure['target'] is not None for figure in figures) >= 4


def test_limits_are_measured_beside_what_is_ours(tmp_path):
    ended = run('perf/limit.py', '--tasks', '300', '--rounds', '1', '--json', str(tmp_path / 'figures.json'))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    figures = written(tmp_path / 'figures.json', ended.stdout)
    assert sum(figure['target'] is not None for figure in figures) == 4
    for words in ('bare batch loop', 'parked greenlets', 'lpush', 'PING', 'pickle'):
        assert any(words in figure['name'] for figure in figures)


def test_every_theme_of_scaling_is_measured(tmp_path):
    ended = run('perf/scaling.py', '--quick', '--tasks', '300', '--json', str(tmp_path / 'figures.json'))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    figures = written(tmp_path / 'figures.json', ended.stdout)
    assert {figure['theme'] for figure in figures} == {'processes', 'backlog', 'payload', 'slots'}
    assert sum(figure['target'] is not None for figure in figures) == 1       # the other one's queue is not quickly filled


def test_a_missed_target_is_an_error_when_it_is_checked():
    code = ('import sys; sys.path.insert(0, "perf"); import command; from figures import Figure, Target\n'
            'for value, check in ((1, True), (3, True), (3, False)):\n'
            '    print(command.status([Figure("it", value, "x", Target("<=", 2))], check))')
    ended = run('-c', code)
    assert ended.stdout.split() == ['0', '1', '0'], ended.stderr


@pytest.mark.parametrize(('command', 'args'), [
    ('speed', ['unheard-of']), ('speed', ['--tasks', '0']), ('speed', ['--workers', 'many']),
    ('limit', ['--tasks', '0']), ('limit', ['--rounds', 'many']),
    ('scaling', ['unheard-of']), ('scaling', ['--tasks', '0'])])
def test_a_command_refuses_what_it_does_not_know(command, args):
    ended = run(f'perf/{command}.py', *args)
    assert ended.returncode == 2 and args[-1] in ended.stderr


def test_recovery_is_measured():
    ended = run('perf/recovery.py', '--kills', '1', '--lease', '1', '--suspects', '20')
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert all(words in ended.stdout for words in ('killed on the same host', 'silent', '20 suspects'))
