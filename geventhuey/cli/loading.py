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
    if getattr(module, '__file__', None) is None:
        raise ConfigurationError(f'{path}: {module_name} is a folder without __init__.py ({list(module.__path__)[0]}); '
                                 f'is {os.getcwd()} the right place to start from?')
    what = f'is no Huey but {type(found).__name__}' if hasattr(module, name) else 'does not exist'
    raise ConfigurationError(f'{path} {what} (in {module.__file__}){hint}')


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
    *_, place = [None, *traceback.extract_tb(trace)]
    where = f'{place.filename}, line {place.lineno}: ' if place else ''
    what = ''.join(traceback.format_exception_only(type(exc), exc)).strip().splitlines()[-1]
    way = ''.join(traceback.format_exception(type(exc), exc, trace)).rstrip()
    return ConfigurationError(f'{path}: importing it failed: {where}{what}\n{way}')
