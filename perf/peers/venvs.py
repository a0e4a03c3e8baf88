"""Virtual environments: one for each contender, made once for its list of requirements."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from peers.contenders import Contender

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / 'perf' / '.venvs'
#: What geventhuey is built from.
SOURCES = ('geventhuey', 'setup.py', 'pyproject.toml', 'README.rst', 'LICENSE', 'MANIFEST.in')
PIP = ('-m', 'pip', '--quiet', '--disable-pip-version-check', 'install')
#: Its last step is this file, so that an environment that was left half made is made again.
READY = 'ready'


def prepare(contender: Contender) -> Path:
    """The folder with the programs of its environment. Raises RuntimeError with pip's words when it cannot be made."""
    wanted = '\n'.join([sys.version, *contender.requirements, *contender.built])
    folder = FOLDER / f'{contender.name}-{hashlib.sha256(wanted.encode()).hexdigest()[:10]}'
    programs = folder / 'bin'
    if not (folder / READY).exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run(sys.executable, '-m', 'venv', str(folder))
        built = ['--no-binary', ','.join(contender.built)] if contender.built else []
        _run(str(programs / 'python'), *PIP, '--only-binary', ':all:', *built, *contender.requirements)
        (folder / READY).touch()
    if contender.checkout:
        _install_checkout(programs)
    return programs


def _install_checkout(programs: Path) -> None:
    """What the checkout holds now, from a copy of it: a build leaves files beside its sources."""
    with tempfile.TemporaryDirectory(prefix='geventhuey-source-') as copy:
        for name in SOURCES:
            source = CHECKOUT / name
            if source.is_dir():
                shutil.copytree(source, Path(copy) / name, ignore=shutil.ignore_patterns('__pycache__'))
            else:
                shutil.copy(source, copy)
        _run(str(programs / 'python'), *PIP, '--force-reinstall', '--no-deps', copy)


def _run(*command: str) -> None:
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f'{command[0]} ended with {ended.returncode}: {(ended.stderr or ended.stdout).strip()[-1500:]}')
