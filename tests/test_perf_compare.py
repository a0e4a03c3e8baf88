"""The comparison runs; what it measures is not looked at. Only our own column: the others would have to be installed first."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import docutils.core
import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


def run(*args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, 'PYTHONPATH': str(CHECKOUT)}
    return subprocess.run([sys.executable, 'perf/compare.py', *args], cwd=CHECKOUT, env=environment, capture_output=True, text=True,
                          timeout=110)


def test_every_question_is_answered(tmp_path):
    output = tmp_path / 'RESULTS.rst'
    ended = run('--tiny', '--here', '--contenders', 'geventhuey', '--output', str(output), '--json', str(tmp_path / 'figures.json'))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    figures = json.loads((tmp_path / 'figures.json').read_text())['figures']
    assert {figure['contender'] for figure in figures} == {'geventhuey'}
    missing = [figure['figure'] for figure in figures if figure['value'] == 'not offered']
    assert missing in ([], ['enqueue_bulk'])
    assert len(figures) >= 25
    assert all(math.isfinite(figure['value']) for figure in figures if figure['figure'] not in missing)
    text = output.read_text()
    assert 'failed' not in text and str(CHECKOUT) not in text
    assert 'with results: tasks/s' in text and '.. image:: RESULTS.svg' in text
    docutils.core.publish_string(text, writer='null', settings_overrides={'halt_level': 2, 'report_level': 5})
    assert output.with_suffix('.svg').read_text().rstrip().endswith('</svg>')


def test_a_contender_that_fails_leaves_the_reason_in_its_cells(tmp_path):
    """Huey is not in the tests' environment: its producer cannot be started."""
    output = tmp_path / 'RESULTS.rst'
    ended = run('--tiny', '--here', '--contenders', 'geventhuey,huey', '--questions', 'enqueue', '--output', str(output))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    text = output.read_text()
    assert 'failed (1)' in text and "No module named 'huey'" in text


@pytest.mark.parametrize('args', [['--contenders', 'geventhuey,unheard-of'], ['--questions', 'why'], ['--rounds', '0'],
                                  ['--quick', '--tiny']])
def test_what_it_does_not_know_is_refused(args):
    ended = run(*args)
    assert ended.returncode == 2 and args[-1].rpartition(',')[2] in ended.stderr
