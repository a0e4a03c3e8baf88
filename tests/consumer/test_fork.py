"""A task that forks: the child gets nothing of the engine, and the parent does not notice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from geventhuey import RedisHuey

APPLICATION = '''
    import os, time
    from geventhuey import RedisHuey

    huey = RedisHuey('forking')
    journal = os.open('journal', os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @huey.task(name='note')
    def note(n):
        time.sleep(0.1)
        os.write(journal, b'%d %d\\n' % (n, os.getpid()))
        return n

    @huey.task(name='fork')
    def fork():
        pid = os.fork()
        if pid == 0:
            time.sleep(3)                   # the hub turns: whatever of the engine were left would work here
            os._exit(0)
        return os.waitpid(pid, 0)[1]
'''


def test_the_child_of_a_task_takes_nothing_from_its_parent(redis_url, tmp_path):
    Path(tmp_path, 'app.py').write_text(textwrap.dedent(APPLICATION))
    huey = RedisHuey('forking', url=redis_url)
    note = huey.task(name='note')(print)
    fork = huey.task(name='fork')(print)
    forked = fork()
    results = [note(number) for number in range(300)]
    with open(tmp_path / 'log', 'wb') as log:
        consumer = subprocess.Popen([sys.executable, '-m', 'geventhuey.cli.consumer', 'app.huey', '-w', '20'], cwd=tmp_path,
                                    env={**os.environ, 'GEVENTHUEY_URL': redis_url}, stderr=log)
    try:
        assert [result.get(blocking=True, timeout=60) for result in results] == list(range(300))
        assert forked.get(blocking=True, timeout=60) == 0
    finally:
        consumer.send_signal(signal.SIGTERM)
        assert consumer.wait(60) == 0
    lines = [line.split() for line in Path(tmp_path, 'journal').read_text().splitlines()]
    assert sorted(int(number) for number, _ in lines) == list(range(300))
    assert {pid for _, pid in lines} == {str(consumer.pid)}
    assert 'Traceback' not in Path(tmp_path, 'log').read_text()
