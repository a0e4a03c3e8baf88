"""The Lua scripts: one file for each verb that touches two keys."""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
from typing import NamedTuple


class Script(NamedTuple):
    """A script and the name under which Redis keeps it."""

    text: str
    sha: str


@functools.cache
def script(name: str) -> Script:
    """The script in ``lua/{name}.lua``, with what it includes in front of it."""
    text = _source(name)
    if '--@include place\n' in text:
        text = _source('place') + text
    return Script(text, hashlib.sha1(text.encode()).hexdigest())


def _source(name: str) -> str:
    return importlib.resources.files(__package__).joinpath('lua').joinpath(name + '.lua').read_text('utf-8')
