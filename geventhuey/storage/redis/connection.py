"""Connections to Redis: redis-py makes them (``address.py``), and after that the bytes are ours.

``Link`` is one connection with one owner at a time.  ``SharedLink`` lets any number of threads or greenlets use one: who finds it
busy hands in the commands, and they travel with the next ones, in one write and one read.  What redis-py or the server say of an
error is translated here and nowhere else.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import hiredis

from geventhuey import native
from geventhuey.exceptions import (
    StorageError,
    StorageOutcomeUnknown,
    StorageRefused,
    StorageUnavailable,
)

Command = tuple[Any, ...]

#: Seconds to wait for an answer of a command that does not block.
ANSWER_TIMEOUT = 5.0
#: Seconds without use after which a connection is looked at before it is written to: a server that went away in between would
#: otherwise make the outcome of the next command unknown.
IDLE = 0.1
#: Bytes that are sent with one time limit.
PIECE = 64 * 1024
#: Bytes per second that a connection carries at least: what has been sent may be on its way for so long.
SLOWEST = 100_000
#: Seconds that an answer is looked for without a pause: about what it takes to be put to sleep and woken.
SPIN = 50e-6
#: Turns of one caller until others are let in, and turns without spinning after others have come.
MAX_ALONE = 32
#: After so many spins in vain, 1 turn in 1024 spins.
MAX_FAILED = 10
#: Commands that travel in one write at most.
MAX_BATCH = 512

_NOT_ENOUGH = object()
#: First words of answers that say "not now": nothing was done, and the same may work later.
_NOT_NOW = ('LOADING', 'BUSY', 'MASTERDOWN', 'CLUSTERDOWN', 'TRYAGAIN', 'READONLY', 'NOREPLICAS', 'MISCONF', 'OOM', 'UNKILLABLE',
            'MOVED', 'ASK', 'UNBLOCKED')
_REFUSED = ('NOAUTH', 'WRONGPASS', 'NOPERM', 'DENIED')
_REFUSALS = ('invalid password', 'invalid username', "the user executing the script can't", 'acl failure in script')
#: Those that say that another server may be the right one by now.
_ELSEWHERE = ('MOVED', 'ASK', 'READONLY', 'MASTERDOWN', 'CLUSTERDOWN', 'NOREPLICAS', 'UNBLOCKED')


class Moved(StorageUnavailable):
    """The keys are on another server, which a new connection finds; nothing was done."""


def translated(text: str, where: str = '') -> StorageError:
    """The error for what the server said."""
    text, word = _first_word(text)
    at = f' at {where}' if where else ''
    if word == 'OOM':
        return StorageUnavailable(f'Redis{at} is out of memory (maxmemory): {text}')
    if word in _REFUSED or any(part in text.lower() for part in _REFUSALS):
        return StorageRefused(f'Redis{at} refuses: {text}')
    if word == 'MOVED':
        return Moved(f'Redis{at} does not serve this slot of the cluster (redis+cluster:// finds who does): {text}')
    if 'attempted to access a non local key' in text:       # by the first line of a script for clusters: nothing was done
        return StorageUnavailable(f'Redis{at}: the slot is on its way to another node of the cluster, trying again: {text}')
    if word in _NOT_NOW or 'max number of clients' in text or 'while the cluster is down' in text:
        return StorageUnavailable(f'Redis{at} cannot serve now: {text}')
    return StorageError(f'Redis{at}: {text}')


def is_elsewhere(text: str) -> bool:
    """True when the server said that another one may be the right one by now: a new connection finds it."""
    return _first_word(text)[1] in _ELSEWHERE


def _first_word(text: str) -> tuple[str, str]:
    """What the server said, and its first word, which says what kind of error it is."""
    if text.startswith('ERR Error running script'):         # Redis 6 quotes what it said to the script
        text = text.rpartition(': -')[2]
    return text, text.removeprefix('ERR ').split(' ', 1)[0].removesuffix(':')


def packed(command: Command) -> bytes:
    """The command's bytes. Numbers are made text here: hiredis crashes when a signal handler raises while it does that."""
    parts: tuple[Any, ...] = tuple([str(part) if type(part) in (int, float) else part for part in command])
    data: bytes = hiredis.pack_command(parts)
    return data


class Link:
    """One connection: commands go out, answers come in, in order. One owner at a time.

    ``receive`` of a greenlet may be interrupted (it is killed, a timeout of the user's) and resumed: no byte is lost by that.
    """

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._reader = hiredis.Reader(notEnoughData=_NOT_ENOUGH)
        self._timeout: float | None = -1.0
        self._is_plain = not hasattr(sock, 'cipher')        # TLS keeps bytes of its own
        #: Who waits here is interrupted while he waits, and at no other moment (gevent). Others are by signal handlers, at any moment.
        self.is_resumable = hasattr(sock, 'hub')

    def send(self, data: bytes) -> None:
        """The bytes are on their way; each piece has its own time, so that a slow connection is no broken one."""
        self._set_timeout(ANSWER_TIMEOUT)
        sent = self._sock.send(data)        # all of it, as a rule; gevent's sendall asks the system for the buffer's size first
        if sent == len(data):
            return
        view = memoryview(data)
        for start in range(sent, len(data), PIECE):
            self._sock.sendall(view[start:start + PIECE])

    def receive(self, timeout: float | None) -> Any:
        """The next answer; an error's is a ``hiredis.ReplyError``, not raised. Raises OSError, TimeoutError among them."""
        answer = self._reader.gets()
        while answer is _NOT_ENOUGH:
            self._set_timeout(timeout)
            data = self._sock.recv(65536)
            if not data:
                raise ConnectionError('the server closed the connection')
            self._reader.feed(data)
            answer = self._reader.gets()
        return answer

    def spin(self, seconds: float) -> bool:
        """True when something has come within so many seconds; the CPU is not given up meanwhile, and no other greenlet runs."""
        if not self._is_plain:
            return False
        give_up = time.perf_counter() + seconds
        while True:
            try:
                data = os.read(self._sock.fileno(), 65536)
            except BlockingIOError:
                if time.perf_counter() > give_up:
                    return False
                continue
            if not data:
                raise ConnectionError('the server closed the connection')
            self._reader.feed(data)
            return True

    def _set_timeout(self, timeout: float | None) -> None:
        if timeout != self._timeout:
            self._sock.settimeout(timeout)
            self._timeout = timeout

    def is_quiet(self) -> bool:
        """True when nothing has come that nobody asked for: not even the end of the connection."""
        poll = native.original('select', 'poll')()
        poll.register(self._sock.fileno(), select.POLLIN)
        return not poll.poll(0)

    def shut_down(self) -> None:
        """Both sides find the end of the connection; from any thread."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        self._sock.close()


class TwoWay:
    """A socket on which one native thread reads for as long as it takes, while others write: one at a time, as OpenSSL wants it.

    Who reads waits outside, and has no time limit; who writes has the usual one.
    """

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._lock = native.lock()
        self.fileno, self.close = sock.fileno, sock.close

    def shutdown(self, how: int) -> None:
        """Both sides find the end; from any thread, so without a word to OpenSSL."""
        socket.socket.shutdown(self._sock, how)

    def settimeout(self, timeout: float | None) -> None:
        """Each way has its own."""

    def recv(self, size: int) -> bytes:
        """What comes next, as soon as it comes; nothing at the end."""
        poll = native.original('select', 'poll')()
        poll.register(self._sock.fileno(), select.POLLIN)
        while True:
            with self._lock:
                self._sock.settimeout(0.0)
                try:
                    data: bytes = self._sock.recv(size)
                    return data
                except (BlockingIOError, ssl.SSLWantReadError):
                    pass
            poll.poll()

    def send(self, data: bytes) -> int:
        """So many bytes are on their way."""
        with self._lock:
            self._sock.settimeout(ANSWER_TIMEOUT)
            sent: int = self._sock.send(data)
            return sent

    def sendall(self, data: bytes | memoryview) -> None:
        """The data are on their way."""
        with self._lock:
            self._sock.settimeout(ANSWER_TIMEOUT)
            self._sock.sendall(data)


class _Request:
    """Commands of one caller, on their way together."""

    __slots__ = ('answers', 'caller', 'commands', 'data', 'done', 'error', 'gate', 'is_given_up')

    def __init__(self, commands: Sequence[Command], caller: int, pack: Callable[[Command], bytes]) -> None:
        self.caller = caller
        self.commands = len(commands)
        self.data = b''.join([pack(command) for command in commands])
        self.answers: list[Any] = []
        self.done = False
        self.error: StorageError | None = None
        #: A lock at which its caller waits, if it does: open when it is done, or when the next turn is its caller's.
        self.gate: Any = None
        #: Its caller was interrupted: its answers are read, and nobody takes them.
        self.is_given_up = False

    def end(self, error: StorageError | None = None) -> None:
        """It is done, and its caller goes on."""
        self.error = error
        self.done = True
        self.open()

    def open(self) -> None:
        """Its caller goes on."""
        if self.gate is not None:
            try:
                self.gate.release()
            except RuntimeError:        # it has been opened before
                pass


class _Turns:
    """What the last turns say of the next one: whether to spin for its answer, and whether to let others come along first.

    To be put to sleep and woken takes longer than a Redis on the same host takes to answer, so one who is alone spins.  Where that does
    not help, because Redis is farther away, it is tried less and less often; and not while several callers share a turn.  One who is
    served without ever waiting keeps all other greenlets from running: now and then he lets them.
    """

    def __init__(self) -> None:
        self._alone = 0
        self._failed = 0
        self._without = 0       # so many turns do not spin

    def are_for_others_too(self) -> bool:
        """True when it is time for other greenlets to run, which may come along."""
        return self._alone >= MAX_ALONE

    def begins(self, callers: int) -> bool:
        """A turn begins, of so many; true when it ought to spin."""
        if callers > 1:
            self._alone, self._without = 0, MAX_ALONE
        else:
            self._alone = self._alone % MAX_ALONE + 1
        if self._without:
            self._without -= 1
            return False
        return True

    def has_spun(self, has_come: bool) -> None:
        """This turn has spun, and an answer has come or not."""
        self._failed = 0 if has_come else min(self._failed + 1, MAX_FAILED)
        self._without = 0 if has_come else 1 << self._failed


class SharedLink:
    """A connection that any number of callers share, in turns; who has to wait rides along with the next turn.

    The caller whose turn it is writes what everybody has handed in and reads all the answers.  If it is interrupted while it
    reads, the next one goes on where it stopped: nobody else's answer is lost.
    """

    def __init__(self, connect: Callable[[], Any], lock: Callable[[], Any] | None = None) -> None:
        self._connect = connect
        self._new_lock = lock or threading.Lock     # looked up now: gevent may have patched it since the import
        self._is_shared = lock is None      # with users' code, which has signal handlers; an engine's part has none
        self._pack: Callable[[Command], bytes] = packed if self._is_shared else hiredis.pack_command
        self._reset()
        native.on_fork(self.forked)

    def forked(self) -> None:
        """This is a child now: the connection, and the callers that wait for it, are the parent's."""
        waiting = [*self._sent, *self._waiting]
        self.close()
        self._reset()
        for request in waiting:         # of greenlets that have come along, if any
            request.end(StorageOutcomeUnknown('this process has been forked meanwhile'))

    def _reset(self) -> None:
        #: Whose turn it is, under 0. One step of the interpreter takes the turn and says who has it: a signal handler finds no gap.
        self._turn: dict[int, _Request] = {}
        self._link: Link | None = None
        self._used = 0.0
        self._on_the_way = 0.0
        self._is_elsewhere = False
        self._waiting: deque[_Request] = deque()
        self._sent: deque[_Request] = deque()
        self._turns = _Turns()

    def call(self, commands: Sequence[Command], timeout: float | None = ANSWER_TIMEOUT) -> list[Any]:
        """The answers to the commands. Raises StorageUnavailable when none was sent, StorageOutcomeUnknown when they may have been."""
        me = threading.get_ident()          # of the greenlet, where gevent has patched it
        holder = self._turn.get(0)
        if self._is_shared and holder is not None and holder.caller == me:      # a signal handler, on top of a call of ours
            return self._alone(commands, timeout)
        request = _Request(commands, me, self._pack)
        try:
            self._waiting.append(request)
            if self._has_turn(request):
                while not request.done:
                    self._carry(timeout)
        finally:
            try:
                self._leave(request)
            except BaseException:       # out of a signal handler, just now
                self._leave(request)
                self._pass_on(request)
                raise
        if request.error is not None:
            raise request.error
        return request.answers

    def _has_turn(self, request: _Request) -> bool:
        """True when it is the caller's turn, False when the request has been carried by another one's."""
        if self._turn.setdefault(0, request) is request:
            return True
        request.gate = self._new_lock()
        request.gate.acquire()
        while not request.done:             # looked at after the gate is there, so that nobody misses it
            if self._turn.setdefault(0, request) is request:
                return True
            request.gate.acquire()
        return False

    def _leave(self, request: _Request) -> None:
        """The caller goes: what has not been sent yet is not to be sent any more, and another one has the turn."""
        mine = self._turn.get(0) is request
        if not request.done:                # it was interrupted
            link = self._link
            if mine and link is not None and not link.is_resumable:     # bytes may be lost
                self._fail(StorageOutcomeUnknown('whoever read the answers was interrupted'), self._sent)
            try:
                self._waiting.remove(request)
            except (ValueError, RuntimeError):      # it has been sent, or is being sent at this moment
                pass
            request.is_given_up = True
        elif not mine:                      # another one has carried it, and passes the turn on
            return
        if mine or 0 not in self._turn:
            self._pass_on(request)

    def _pass_on(self, request: _Request) -> None:
        """The turn is over, and the next one is that of somebody who waits. Who comes later sees that nobody's turn it is."""
        while True:
            heir = next((sent for sent in list(self._sent) if not sent.is_given_up), None)
            if self._turn.get(0) is request:
                self._turn.pop(0)
            if heir is None:
                try:
                    heir = self._waiting[0]
                except IndexError:
                    return
            heir.open()
            if not heir.is_given_up:        # otherwise it may have gone when the turn was still ours
                return

    def _alone(self, commands: Sequence[Command], timeout: float | None) -> list[Any]:
        """The answers, over a connection for these commands alone."""
        line = SharedLink(self._connect, self._new_lock)
        try:
            return line.call(commands, timeout)
        finally:
            line.close()

    def _carry(self, timeout: float | None) -> None:
        """Everything that waits has been sent, and everything that was sent has been answered or has failed."""
        try:
            if not self._sent:
                link = self._connected()
                if self._is_shared and self._turns.are_for_others_too():
                    time.sleep(0)
                batch = self._sent
                try:
                    self._take(batch)
                    data = b''.join([request.data for request in batch])
                    self._on_the_way = len(data) / SLOWEST
                    link.send(data)
                except BaseException:       # part of it may be out: no way to go on from there
                    self._fail(StorageOutcomeUnknown('the connection to Redis was cut while sending'), self._sent)
                    raise
                if self._is_shared and self._turns.begins(len(batch)):
                    self._turns.has_spun(link.spin(SPIN))
            self._receive(timeout)
        except StorageError as exc:
            self._fail(exc, self._waiting)
        except OSError as exc:
            error = StorageOutcomeUnknown(f'the connection to Redis was lost before the answer came: {exc or type(exc).__name__}')
            error.__cause__ = exc
            self._fail(error, self._sent)
        except hiredis.HiredisError as exc:
            self._fail(StorageOutcomeUnknown(f'what came back is not the Redis protocol: {exc}'), self._sent)

    def _take(self, batch: deque[_Request]) -> None:
        """Those who wait are in the batch; without a step in between, in which a signal handler could lose one."""
        try:
            batch.extend(islice(iter(self._waiting.popleft, None), MAX_BATCH))
        except IndexError:                  # that was all
            pass

    def _receive(self, timeout: float | None) -> None:
        link = self._link
        if link is None:
            raise ConnectionError('the connection was closed')
        while self._sent:
            request = self._sent[0]
            while len(request.answers) < request.commands:
                answer = link.receive(None if timeout is None else timeout + self._on_the_way)
                request.answers.append(answer)
                if isinstance(answer, hiredis.ReplyError) and is_elsewhere(str(answer)):
                    self._is_elsewhere = True
            self._sent.popleft()
            request.end()
        self._used = time.monotonic()
        if self._is_elsewhere:              # everybody has the answer; the next call finds out where
            self.close()

    def _connected(self) -> Link:
        if self._link is not None and time.monotonic() - self._used > IDLE and not self._link.is_quiet():
            self.close()
        if self._link is None:
            self._link = Link(self._connect())
        return self._link

    def _fail(self, error: StorageError, requests: deque[_Request]) -> None:
        """The connection is closed; each of the requests has failed with the error."""
        self.close()
        while requests:
            requests.popleft().end(error)

    def close(self) -> None:
        """The connection is closed; the next call opens a new one."""
        link, self._link = self._link, None
        self._is_elsewhere = False
        if link is not None:
            link.close()
