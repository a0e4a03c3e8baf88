"""What a stream of pickle opcodes would do to the memory, found out before it is done.

Since protocol 4 a pickler numbers what it remembers by itself (MEMOIZE).  The older PUT and LONG_BINPUT name the number, and a few
bytes with a large one make the unpickler fill gigabytes.  The walk over the opcodes of protocol 5 is done by a regular expression,
seven times as fast as ``pickletools.genops``, and only where there is a byte that could be one of the two.
"""

from __future__ import annotations

import pickletools
import re

#: What is followed by its length in one byte, and by so many bytes.
_COUNTED = b'(?:' + b'|'.join(re.escape(bytes((n,))) + (b'.{%d}' % n if n else b'') for n in range(256)) + b')'
#: Up to 500 opcodes of protocol 5 (https://docs.python.org/3/library/pickletools.html): constants, containers, the stack, the memo,
#: classes and calls, which ``find_class`` watches over; small numbers, texts and bytes.
_RUN = re.compile(
    rb'(?:[\x94NR)}\](tuesa01.\x81\x85-\x89\x8f-\x93b2]|\x8c' + _COUNTED + rb'|[Kh].|\x95.{8}|M..|[Jj].{4}|G.{8}|[C\x8a]' + _COUNTED
    + rb'|\x80.){1,500}', re.DOTALL)
#: Those whose length takes more bytes: how many.
_LONG = {ord('X'): 4, ord('B'): 4, 0x8b: 4, 0x8d: 8, 0x8e: 8, 0x96: 8}


def is_harmless(data: bytes) -> bool:
    """False for a stream that would fill the memory, or that nobody can make sense of."""
    if b'r' not in data and b'p' not in data:
        return True
    at, end = 0, len(data)
    while at < end:
        run = _RUN.match(data, at)
        if run is not None:
            at = run.end()
            continue
        width = _LONG.get(data[at])
        if width is None:
            return _remembers_little(data)
        at += 1 + width + int.from_bytes(data[at + 1:at + 1 + width], 'little')
    return at == end


def _remembers_little(data: bytes) -> bool:
    """The same for streams of older protocols: no number under which they remember something is larger than they are."""
    try:
        return all(int(argument or 0) <= len(data) for opcode, argument, _ in pickletools.genops(data)
                   if opcode.name in ('PUT', 'LONG_BINPUT'))
    except Exception:       # it stumbles over nonsense in many ways
        return False
