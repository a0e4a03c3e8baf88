"""What does it cost to turn a message into bytes and back?"""

from __future__ import annotations

import pickle
import time
import uuid

from geventhuey.message import WANTS_RESULT, Message

MESSAGE = Message(str(uuid.uuid4()), 'app.tasks.add', pickle.dumps((((1, 2), {}), {}), 5), flags=WANTS_RESULT, created=time.time())


def bench_encode(benchmark):
    benchmark(MESSAGE.encode)


def bench_decode(benchmark):
    raw = MESSAGE.encode()
    decoded = benchmark(Message.decode, raw)
    assert decoded.payload == MESSAGE.payload
