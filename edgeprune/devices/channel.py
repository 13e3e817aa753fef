"""One JSON object out, one JSON object back, over the pipes of a process that may hang, die or talk nonsense."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError
from edgeprune.core.measurement import Failure, FailureKind
from edgeprune.core.text import shorten

MAX_ANSWER_BYTES = 8 << 20
#: Advice for a probe that the system killed.
OUT_OF_MEMORY = "it may have run out of memory: end other programs there, or try a smaller model"
_MAX_STDERR_BYTES = 16 << 10
_STDERR_LINES = 5
_READ_BYTES = 1 << 16


class ChannelError(DeviceError):
    """Work the device did not do. `kind` as in `FailureKind`; `retryable` unless the device refused the work."""

    def __init__(self, kind: FailureKind, message: str, hint: str = "", *, retryable: bool | None = None) -> None:
        super().__init__(message, hint, retryable=kind not in ("refused", "full") if retryable is None else retryable)
        self.kind: FailureKind = kind

    def failure(self) -> Failure:
        """The error as the value that a measurement returns."""
        return Failure(self.kind, self.message, self.retryable, self.hint)


def is_away(error: DeviceError) -> bool:
    """Whether an error is of the device as a whole, and not of the file or the runtime that were tried on it."""
    return isinstance(error, ChannelError) and error.kind in ("lost", "busy", "full")


def read_answer(line: bytes, number: int) -> dict[str, Any]:
    """One line of the probe as its answer to request `number`. Raises ChannelError("garbled")."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ChannelError("garbled", f"the probe answered no JSON: {line[:80]!r}") from error
    if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
        raise ChannelError("garbled", f"the probe's answer is not an object with 'ok': {line[:80]!r}")
    if answer.get("n") != number:
        raise ChannelError("garbled", f"the probe answered request {answer.get('n')!r:.40} instead of {number}")
    return answer


class ProcessChannel:
    """A `Channel` (see `edgeprune.core.session`) over the pipes of a local process. Not for several threads at once.

    After a ChannelError of the transport (not an answer with `ok: false`) the process is gone and every further request
    raises ChannelError("lost"). The process has its own session, so Ctrl-C in the terminal reaches us and not it.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        marker: str = "",
    ) -> None:
        """Start `command` (an argument list). Raises DeviceError where it cannot be started.

        With a `marker`, what stdout holds up to the line that ends in it is not the probe's: a login shell may greet.
        """
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceError(f"cannot start {command[0]}: {error.strerror or error}", retryable=False) from error
        process = self._process
        # Popen was asked for pipes, so these are there; the types do not say so.
        self._stdin: IO[bytes] = process.stdin  # type: ignore[assignment]
        self._stdout: IO[bytes] = process.stdout  # type: ignore[assignment]
        self._stderr: IO[bytes] = process.stderr  # type: ignore[assignment]
        for pipe in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(pipe.fileno(), False)
        self._marker = f"{marker}\n".encode() if marker else b""
        self._greeting = bytearray()
        self._read = bytearray()
        self._errors = bytearray()
        self._number = 0
        self._closed = False

    @property
    def pid(self) -> int:
        """Process id, which is also its process group."""
        return self._process.pid

    @property
    def closed(self) -> bool:
        """Whether the process is gone."""
        return self._closed

    def request(self, message: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """See `Channel.request`."""
        if self._closed:
            raise ChannelError("lost", "the probe has ended")
        self._number += 1
        line = json.dumps({**message, "n": self._number}).encode() + b"\n"
        try:
            return read_answer(self._exchange(line, deadline), self._number)
        except BaseException:  # also Ctrl-C: an answer that comes later would be taken for the next request's
            self.kill()
            raise

    def close(self) -> None:
        """End the process: it is asked first (end of stdin), then killed. Never raises."""
        if self._closed:
            return
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._stdin.close()
            self._process.wait(timeout=1.0)
        self.kill()

    def kill(self) -> None:
        """End the process at once. Never raises."""
        # The group first, while its leader is not reaped and the number can belong to nobody else. Its children may
        # outlive a leader that ended by itself and was reaped just now: a number that a group still bears is not given
        # to another process, and one that is free comes round again only after all the others.
        if not self._closed:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._closed = True
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._process.wait(timeout=5.0)
        for pipe in (self._stdin, self._stdout, self._stderr):
            with contextlib.suppress(OSError):
                pipe.close()

    def _exchange(self, line: bytes, deadline: Deadline) -> bytes:
        """Send `line`, return the next line of stdout, emptying stderr on the way so that it cannot block the probe."""
        unsent = memoryview(line)
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdin, selectors.EVENT_WRITE)
            selector.register(self._stdout, selectors.EVENT_READ)
            selector.register(self._stderr, selectors.EVENT_READ)
            while b"\n" not in self._read:
                for key, _ in selector.select(deadline.left()):
                    if key.fileobj is self._stdin:
                        unsent = self._send(unsent)
                        if not unsent:
                            selector.unregister(self._stdin)
                    elif key.fileobj is self._stderr:
                        if not self._drain_stderr():
                            selector.unregister(self._stderr)
                    else:
                        self._receive()
                # Asked after reading and not of select: a probe that floods stderr is always ready.
                if deadline.left() <= 0 and b"\n" not in self._read:
                    raise ChannelError("timeout", f"the probe did not answer in time{self._last_words()}")
        answer, _, rest = bytes(self._read).partition(b"\n")
        if rest:
            raise ChannelError("garbled", f"the probe said more than one line: {rest[:80]!r}")
        self._read.clear()
        return answer

    def _send(self, unsent: memoryview) -> memoryview:
        try:
            return unsent[os.write(self._stdin.fileno(), unsent) :]
        except BlockingIOError:
            return unsent
        except OSError as error:
            raise self._death() from error

    def _receive(self) -> None:
        try:
            chunk = os.read(self._stdout.fileno(), _READ_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            raise self._death()
        self._read += self._after_marker(chunk) if self._marker else chunk
        if len(self._read) > MAX_ANSWER_BYTES:
            raise ChannelError("garbled", f"the probe's answer is longer than {MAX_ANSWER_BYTES} bytes")

    def _after_marker(self, chunk: bytes) -> bytes:
        """What `chunk` holds behind the marker; of a greeting that does not end only the last bytes are kept."""
        self._greeting += chunk
        before, found, rest = bytes(self._greeting).partition(self._marker)
        self._greeting = bytearray(b"" if found else before[-len(self._marker) :])
        if found:
            self._marker = b""
        return rest

    def _drain_stderr(self) -> bool:
        """Keep the last of what stderr says; False at its end."""
        try:
            chunk = os.read(self._stderr.fileno(), _READ_BYTES)
        except BlockingIOError:
            return True
        self._errors += chunk
        del self._errors[:-_MAX_STDERR_BYTES]
        return bool(chunk)

    def _death(self) -> ChannelError:
        """What a closed pipe means: the process ended, with which code, and what it said last."""
        try:
            code = self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            return ChannelError("crashed", f"the probe closed its output without an answer{self._last_words()}")
        return self._ended(code)

    def _ended(self, code: int) -> ChannelError:
        """What it means that the process ended with `code` (a signal's number is negative) before it answered."""
        how = f"exit code {code}" if code >= 0 else f"signal {_signal_name(-code)}"
        if code == -signal.SIGKILL:
            return ChannelError("killed", f"the probe was killed{self._last_words()}", OUT_OF_MEMORY)
        return ChannelError("crashed", f"the probe ended ({how}){self._last_words()}")

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._said().splitlines() if line.strip()]
        text = " | ".join(shorten(line, 200) for line in lines[-_STDERR_LINES:])
        return f": {text}" if text else ""

    def _said(self) -> str:
        """The last of what stderr said."""
        for _ in range(64):  # bounded: a process that never stops talking must not hold us here
            before = bytes(self._errors)
            if self._stderr.closed or not self._drain_stderr() or before == self._errors:
                break
        return self._errors.decode(errors="replace")


def last_line(said: str) -> str:
    """The last line that says something, printable and short."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return shorten("".join(char if char.isprintable() else " " for char in lines[-1]), 200) if lines else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
