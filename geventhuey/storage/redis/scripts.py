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


#: The end of the name of a key that never exists.
NEVER = 'never'
#: The first line of a script for a cluster: it looks at a key that never exists.  While a slot moves to another node, a script that
#: looks at a key which is not there (any more) fails in the middle, after what it has written already (the keys that it names are
#: looked at before it runs, those that it makes out of a prefix are not).  With this line it fails before it has written anything.
GUARD = f"redis.call('EXISTS', string.match(KEYS[1], '^gh:{{.-}}:') .. '{NEVER}')\n"


@functools.cache
def script(name: str, for_cluster: bool = False) -> Script:
    """The script in ``lua/{name}.lua``, with what it includes in front of it."""
    text = _source(name)
    if '--@include place\n' in text:
        text = _source('place') + text
    if for_cluster:
        text = GUARD + text
    return Script(text, hashlib.sha1(text.encode()).hexdigest())


def _source(name: str) -> str:
    return importlib.resources.files(__package__).joinpath('lua').joinpath(name + '.lua').read_text('utf-8')
