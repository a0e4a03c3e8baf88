"""A task that forks: the child gets nothing of the engine, and the parent does not notice."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

PROGRAM = '''
    from gevent import monkey
    monkey.patch_all()
    import os, sys, time
    from geventhuey import RedisHuey

    huey = RedisHuey('forking')
    journal = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @huey.task(name='note')
    def note(n):
        time.sleep(0.05)
        os.write(journal, b'%d %d\\n' % (n, os.getpid()))
        return n

    @huey.task(name='fork')
    def fork():
        pid = os.fork()
        if pid == 0:
            time.sleep(3)                   # the hub turns: whatever of the engine were left would work here
            os._exit(0)
        time.sleep(2)
        return os.waitpid(pid, 0)[1]

    with huey.consumer(worker_type='greenlet', workers=20):
        forked = fork()
        results = [note(n) for n in range(200)]
        assert [result.get(blocking=True, timeout=30) for result in results] == list(range(200))
        assert forked.get(blocking=True, timeout=30) == 0
    print(os.getpid())
'''


def test_a_child_of_a_task_takes_nothing_from_its_parent(redis_url, tmp_path):
    Path(tmp_path, 'program.py').write_text(textwrap.dedent(PROGRAM))
    ran = subprocess.run([sys.executable, 'program.py', 'journal'], cwd=tmp_path, capture_output=True, text=True, timeout=90,
                         env={**os.environ, 'GEVENTHUEY_URL': redis_url}, check=False)
    assert ran.returncode == 0, ran.stderr
    lines = [line.split() for line in Path(tmp_path, 'journal').read_text().splitlines()]
    assert sorted(int(number) for number, _ in lines) == list(range(200))
    assert {pid for _, pid in lines} == {ran.stdout.strip()}
    assert 'Traceback' not in ran.stderr


