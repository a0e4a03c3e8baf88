"""What errors say, as text that may be kept, logged and shown: bounded, and whatever the error does when it is asked."""

from __future__ import annotations

import traceback

#: Characters of an error's text and of a traceback at most.
MAX_TEXT, MAX_TRACEBACK = 2000, 10_000


def plain_text(text: str) -> str:
    """One line of the text that any log, terminal or encoding takes, not too long."""
    return ''.join([letter if letter.isprintable() else '?' for letter in text[:MAX_TEXT]])


def error_text(error: BaseException) -> str:
    """The error's repr, whatever its __repr__ does."""
    try:
        return repr(error)[:MAX_TEXT]
    except BaseException:
        return f'{type(error).__name__} (whose repr cannot be shown)'


def reason_text(error: BaseException) -> str:
    """What the error says of itself, or what it is called when it says nothing."""
    try:
        return plain_text(str(error)) or type(error).__name__
    except BaseException:
        return type(error).__name__


def traceback_text(error: BaseException) -> str:
    """The error's traceback, its end if it is long, whatever the error does when it is shown."""
    try:
        return ''.join(traceback.format_exception(error))[-MAX_TRACEBACK:]
    except BaseException:                   # a __str__ that raises, or no memory left to format it
        return f'{type(error).__name__} (whose traceback cannot be shown)'
