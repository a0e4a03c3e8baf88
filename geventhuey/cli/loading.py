"""From an import path to the application."""

from __future__ import annotations

import os
import sys
import traceback
from types import ModuleType
from typing import TYPE_CHECKING

from geventhuey.exceptions import ConfigurationError

if TYPE_CHECKING:
    from geventhuey.api import Huey


def load_huey(path: str) -> Huey:
    """The application at ``module.name`` (or ``module:name``); modules are looked for in the current directory first.

    Raises ConfigurationError with the real reason when there is none.
    """
    from geventhuey.api import Huey
    module_name, _, name = path.replace(':', '.').rpartition('.')
    if not module_name or not all(part.isidentifier() for part in (*module_name.split('.'), name)):
        raise ConfigurationError(f'{path!r} is not the path of an application: write module.name, such as app.huey')
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    module = _import(module_name, path)
    found = getattr(module, name, None)
    if isinstance(found, Huey):
        return found
    others = [other for other, value in vars(module).items() if isinstance(value, Huey)]
    hint = f'; there is {", ".join(f"{module_name}.{other}" for other in others)}' if others else ''
    file = getattr(module, '__file__', None)
    if file is None and hasattr(module, '__path__'):
        raise ConfigurationError(f'{path}: {module_name} is a folder without __init__.py ({next(iter(module.__path__))}); '
                                 f'is {os.getcwd()} the right place to start from?')
    what = f'is no Huey but {type(found).__name__}' if hasattr(module, name) else 'does not exist'
    raise ConfigurationError(f'{path} {what} (in {file or "Python itself"}){hint}')


def _import(module_name: str, path: str) -> ModuleType:
    try:
        __import__(module_name)         # not importlib.import_module, whose frames would be in every traceback
        return sys.modules[module_name]
    except ModuleNotFoundError as exc:
        if exc.name and (module_name == exc.name or module_name.startswith(exc.name + '.')):
            raise ConfigurationError(f'{path}: there is no module {exc.name!r}, neither in {os.getcwd()} nor on the path') from None
        raise _failed(path, exc) from exc
    except (Exception, SystemExit) as exc:
        raise _failed(path, exc) from exc


def _failed(path: str, exc: BaseException) -> ConfigurationError:
    """The error that says why the application could not be imported: at first in a line, then with the way there."""
    trace = exc.__traceback__.tb_next if exc.__traceback__ else None        # without our own frame
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(trace)]
    what = str(exc)
    if isinstance(exc, SyntaxError):
        places.append((exc.filename or '', exc.lineno))
        what = exc.msg
    # the innermost line of the application's own, if there is one
    places = [place for place in places if place[0].startswith(os.getcwd() + os.sep)] or places
    where = f'{places[-1][0]}, line {places[-1][1]}: ' if places else ''
    what = f'{type(exc).__name__}: {what}'.splitlines()[0]
    way = ''.join(traceback.format_exception(type(exc), exc, trace)).rstrip()
    return ConfigurationError(f'{path}: importing it failed: {where}{what}\n{way}')
