"""The measurements run; what they measure is not looked at."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PERF = CHECKOUT / 'perf'


def run(*args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, 'PYTHONPATH': str(CHECKOUT)}
    return subprocess.run([sys.executable, *args], cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=110)


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
    written = json.loads((tmp_path / 'figures.json').read_text())
    assert {'machine', 'versions', 'command', 'figures'} <= set(written)
    assert all(math.isfinite(figure['value']) for figure in written['figures'])
    assert all(figure['name'] in ended.stdout for figure in written['figures'])
    assert sum(figure['target'] is not None for figure in written['figures']) >= 4


@pytest.mark.parametrize('args', [['unheard-of'], ['--tasks', '0'], ['--workers', 'many']])
def test_speed_refuses_what_it_does_not_know(args):
    ended = run('perf/speed.py', *args)
    assert ended.returncode == 2 and args[-1] in ended.stderr


def test_recovery_is_measured():
    ended = run('perf/recovery.py', '--kills', '1', '--lease', '1', '--suspects', '20')
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert all(words in ended.stdout for words in ('killed on the same host', 'silent', '20 suspects'))
