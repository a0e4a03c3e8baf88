"""The primitives of real threads."""

from __future__ import annotations

import subprocess
import sys
import threading
import types

from geventhuey import native


def said(source):
    ended = subprocess.run([sys.executable, '-c', source], capture_output=True, text=True, timeout=60, cwd=sys.path[0] or '.',
                           env={'PYTHONPATH': ':'.join(path for path in sys.path if path)})
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_a_lock_of_real_threads():
    lock = native.lock()
    assert lock.acquire(False)
    assert not lock.acquire(False)
    lock.release()


def test_the_number_of_the_thread():
    assert native.thread_id() in sys._current_frames()
    assert native.thread_id() == threading.get_ident()


def test_a_thread_runs():
    lock, numbers = native.lock(), []
    lock.acquire()
    native.start_thread(lambda: (numbers.append(native.thread_id()), lock.release()))
    assert lock.acquire(True, 20)
    assert numbers != [native.thread_id()]


def test_this_process_is_not_patched():
    assert not native.is_patched()
    assert native.original('time', 'sleep').__module__ == 'time'


def test_importing_it_imports_no_gevent():
    assert said("from geventhuey import native; import sys; print('gevent' in sys.modules, native.is_patched())") == 'False False'


def test_in_a_patched_process_the_originals_are_found():
    assert said('''
from gevent import monkey
monkey.patch_all()
import threading, time
from geventhuey import native
print(native.is_patched(), native.original('time', 'sleep') is time.sleep, native.thread_id() == threading.get_native_id() or
      native.thread_id() != threading.get_ident(), type(native.lock()).__module__)
''') == 'True False True _thread'


def test_a_process_that_is_patched_later_is_patched():
    assert said('''
from geventhuey import native
before = native.is_patched()
from gevent import monkey
middle = native.is_patched()
monkey.patch_all()
print(before, middle, native.is_patched())
''') == 'False False True'


def test_patching_something_else_than_threads_does_not_count():
    assert said('''
from gevent import monkey
monkey.patch_socket()
from geventhuey import native
print(native.is_patched())
''') == 'False'


def test_while_another_thread_imports_gevent_it_is_not_patched_yet(monkeypatch):
    monkeypatch.setitem(sys.modules, 'gevent.monkey', types.ModuleType('gevent.monkey'))
    assert not native.is_patched()
