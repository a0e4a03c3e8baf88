"""README.rst beside this: every test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
NAMED = re.findall(r'``(tests/[\w/.]+)::(\w+)``', Path(__file__).with_name('README.rst').read_text(encoding='utf-8'))


def test_there_are_rows():
    assert len(NAMED) > 50


@pytest.mark.parametrize(('path', 'name'), sorted(set(NAMED)))
def test_the_test_that_shows_it_is_there(path, name):
    tree = ast.parse((CHECKOUT / path).read_text(encoding='utf-8'))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
