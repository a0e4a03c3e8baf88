"""The command patches before anything of the application is imported, where it runs greenlets, and nowhere else."""

from __future__ import annotations

import os

import pytest

from tests.cli.kit import APP
from tests.consumer.kit import wait_until

#: What the application sees while it is imported.
SEES = '''
    import sys
    import threading
    from socket import socket

    from gevent.monkey import is_module_patched

    print('sees', is_module_patched('socket'), is_module_patched('threading'), socket.__module__ != 'socket', file=sys.stderr)

    from shop import huey
'''


@pytest.mark.parametrize(('options', 'said'), [
    (('-w', '2'), ['sees True True True']),
    (('-k', 'gevent', '-w', '2'), ['sees True True True']),
    (('-p', '2', '-w', '2'), ['sees True True True'] * 2),
    (('-k', 'thread', '-w', '2'), ['sees False False False']),
    (('-k', 'thread', '-w', '2', '-p', '2'), ['sees False False False'] * 2),
    (('-k', 'process', '-w', '2'), ['sees False False False'] * 2),
], ids=' '.join)
def test_greenlets_are_patched_for_before_the_import_and_threads_are_not(site, options, said):
    site.write(app=SEES, shop=APP)
    consumer = site.start_ready('app.huey', *options, count=len(said))
    wait_until(lambda: consumer.lines('sees') == said, what=lambda: f'{said} in\n{consumer.text()}')
    assert not consumer.lines('before gevent could patch')
    assert consumer.stop() == 0


def test_a_module_that_was_imported_too_early_is_named(site):
    early = site.folder / 'early'
    early.mkdir()
    (early / 'sitecustomize.py').write_text('import sys, too_early, innocent\n'
                                            'sys.modules["nothing"] = None\n'
                                            'sys.modules["strange"] = type("Strange", (), {"__slots__": ()})()\n')
    (early / 'too_early.py').write_text('from socket import socket\n')
    # what it has is not replaced, or the module itself, which has been patched since
    (early / 'innocent.py').write_text('import socket, threading, time\nfrom queue import Queue\nfrom threading import Condition, RLock\n')
    site.write(app=APP)
    path = os.pathsep.join([str(early), site.environment['PYTHONPATH']])
    consumer = site.start_ready('app.huey', PYTHONPATH=path)
    assert [line.partition(f':{consumer.pid}:')[2] for line in consumer.lines('before gevent could patch')] == [
        'too_early was imported before gevent could patch the process and keeps socket.socket: what it does may block all tasks']
    assert consumer.stop() == 0
    threads = site.start_ready('app.huey', '-k', 'thread', PYTHONPATH=path)
    assert not threads.lines('before gevent could patch')
    assert threads.stop() == 0
