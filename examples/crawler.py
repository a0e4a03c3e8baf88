"""Many requests at the same time: fetches the Python files of the standard library from a slow server, and checks each one.

Start a consumer in one terminal, with 500 greenlets, and this program in another one::

    geventhuey-consumer examples.crawler.huey -k greenlet -w 500
    python -m examples.crawler

The program starts the server itself: it takes 0.1 s over each answer, and refuses one request in fifty with 503.
"""

import hashlib
import sys
import time
import urllib.request

from tqdm import tqdm

from geventhuey import RedisHuey
from geventhuey.cli.file_server import FileServer

huey = RedisHuey('crawler')

opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))   # the server is on this machine: no proxy


@huey.task(retries=3, retry_delay=0.5)
def fetch(url):
    """The size and the digest of what is at the URL. An HTTP error is an exception: the task is retried."""
    with opener.open(url, timeout=60) as answer:
        content = answer.read()
    return {'size': len(content), 'sha256': hashlib.sha256(content).hexdigest()}


def main(tasks=5000):
    """Fetches so many files; answers the exit code: 0 when all are right."""
    with FileServer(latency=0.1) as server:
        begun = time.monotonic()
        results = fetch.map([server.url(number, fails=number % 50 == 49) for number in range(tasks)])   # 500 by each round trip
        size = right = 0
        for number, result in enumerate(tqdm(results, unit=' files')):
            fetched = result.get(blocking=True, timeout=60)     # pushed by the consumer as soon as it is there
            size += fetched['size']
            right += fetched['sha256'] == server.sha256(number)
        seconds = time.monotonic() - begun
        print(f'{tasks} files, {size / 1e6:.1f} MB, in {seconds:.1f} s: {tasks / seconds:.0f} files/s, '
              f'up to {server.statistics()["at_once"]} requests at once; {right} of {tasks} are right')
    return 0 if right == tasks else 1


if __name__ == '__main__':
    sys.exit(main(*map(int, sys.argv[1:])))
