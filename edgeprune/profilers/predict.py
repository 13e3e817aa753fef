"""Logits of a model file as the device computes them: what accuracy is proven with."""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.progress import Bar, Silent
from edgeprune.core.session import Session
from edgeprune.core.temporary import temporary_folder
from edgeprune.devices.channel import ChannelError
from edgeprune.probe import PROBE
from edgeprune.profilers.client import ProbeClient, Pushed, in_fresh_process, push_patiently
from edgeprune.profilers.ports import Feeding

#: Examples travel in parts of about this size, which is all the room they need on the device.
_PART_BYTES = 32 << 20
#: How long a device may take to open a model.
OPEN_S = 300.0
#: How long it may take for one example. An emulated processor is some tens of times slower than the real one.
EXAMPLE_S, EMULATED_EXAMPLE_S = 60.0, 600.0
#: What to do about an example that took longer.
ENDLESS = "a loop in the file may never end; where it is only slow there, give --timeout SECONDS"
#: Seconds of work asked for at once, so that progress is seen; and how many times that it may take beyond `EXAMPLE_S`.
_CHUNK_S, _SLACK = 2.0, 10.0
#: Each request is at most so many times as large as the one before: the first example is often the slowest.
_GROWTH = 8


class Examples(Protocol):
    """Examples (N, ...) that are taken a part at a time: an array, or what works them out when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> NDArray[Any]: ...


def longest_example(session: Session) -> float:
    """Seconds that one example may take on this device, unless the user says otherwise."""
    return EMULATED_EXAMPLE_S if session.spec.emulated else EXAMPLE_S


def predict_on_device(
    session: Session,
    settings: MeasureSettings,
    artifact: Path | Pushed,
    inputs: Examples,
    *,
    feeding: Feeding | None = None,
    example_s: float | None = None,
    bar: Bar | None = None,
    probe_file: Path = PROBE,
) -> NDArray[Any]:
    """Run every example through the model on the device, one at a time; its variables are reset before each.

    inputs   (examples, ...)     as the model takes them: in its layout, float32 or its own type of integers
    feeding                      which input and output, batches, and variables, where that is to be otherwise
    returns  (examples, values)  one output: float32, also of quantised integers, whose real values they are; int64 of
                                 integers without scale; or strings

    `bar` advances by examples. A probe that fails is replaced (see `retry.persist`); but an example that takes longer
    than `example_s` (none given: `longest_example`) in a fresh process ends it, since it would take as long again.

    Raises DeviceError, and ValueError without examples.
    """
    if not len(inputs):
        raise ValueError("there are no examples to predict")
    watch, how = bar or Silent.unseen, feeding or Feeding()
    try:
        pushed = push_patiently(session, artifact) if isinstance(artifact, Path) else artifact
        work = _Work(session, pushed, inputs, how, example_s or longest_example(session), watch)
        while work.done < len(inputs):
            before = work.done
            try:
                in_fresh_process(session, settings, work.go_on, timeout_s=OPEN_S, probe_file=probe_file)
            except ChannelError as error:
                # Whoever got further starts with new patience: a long test on a bad link is cut more than once.
                if not error.retryable or work.done == before or work.timeouts > 1 or how.keep:
                    raise
        return np.concatenate(work.rows)
    except ChannelError as error:
        said = f"cannot predict with {artifact.name} on {session.spec.name}: {error.message}"
        raise ChannelError(error.kind, said, error.hint, retryable=error.retryable) from error


class _Work:
    """Examples on their way. What is done stays done when a process is lost: a link that is cut costs one request."""

    def __init__(
        self, session: Session, pushed: Pushed, inputs: Examples, feeding: Feeding, example_s: float, bar: Bar
    ) -> None:
        self._session, self._pushed, self._inputs = session, pushed, inputs
        self._feeding, self._example_s, self._bar = feeding, example_s, bar
        batches = max(1, _PART_BYTES // max(1, inputs[0:1].nbytes * feeding.batch))
        self._part = batches * feeding.batch
        self.rows: list[NDArray[Any]] = []
        self.done = 0
        self.timeouts = 0

    def go_on(self, client: ProbeClient, deadline: Deadline) -> None:
        """What is left to do, in a process that has just been started."""
        if self._feeding.keep:
            # The variables are gone with the process before, so everything begins again.
            self._bar.advance(-self.done)
            self.rows, self.done = [], 0
        client.hello([], deadline)
        client.open("model", self._pushed, deadline)
        size, expected_s = self._feeding.batch, 0.0
        with temporary_folder() as folder:
            while self.done < len(self._inputs):
                first = self.done // self._part * self._part
                with self._sent(self._inputs[first : first + self._part], folder) as sent:
                    end = min(first + self._part, len(self._inputs))
                    while self.done < end:
                        span = (self.done, min(self.done + size, end))
                        start = time.monotonic()
                        self._run(client, sent, span, first, folder, expected_s)
                        each = max(1e-6, (time.monotonic() - start) / (span[1] - span[0]))
                        wanted = int(min(_CHUNK_S / each, _GROWTH * size))
                        size = max(1, wanted // self._feeding.batch) * self._feeding.batch
                        expected_s = each * size

    @contextlib.contextmanager
    def _sent(self, inputs: NDArray[Any], folder: Path) -> Any:
        """A part of the examples on the device, for as long as it is needed there."""
        here = folder / "examples.npy"
        np.save(here, inputs, allow_pickle=False)
        sent = self._session.push(here)
        try:
            yield sent
        finally:
            # A device that is gone keeps them; they go when its cache is full.
            with contextlib.suppress(DeviceError):
                self._session.remove(sent)

    def _run(
        self, client: ProbeClient, sent: str, span: tuple[int, int], first: int, folder: Path, expected_s: float
    ) -> None:
        """The examples from `span[0]` to `span[1]`, of a part that begins at `first`."""
        back, there = folder / "rows.npy", self._session.scratch("rows.npy")
        seconds = self._example_s + _SLACK * expected_s
        part = (span[0] - first, span[1] - first)
        try:
            client.predict("model", sent, there, Deadline.after(seconds), feeding=self._feeding, part=part)
            self._session.pull(there, back)
        except ChannelError as error:
            if error.kind == "timeout":
                self.timeouts += 1
                raise took_too_long(span, seconds, again=expected_s > 0 and self.timeouts < 2) from error
            raise
        finally:
            with contextlib.suppress(DeviceError):
                self._session.remove(there)
        self.rows.append(_checked(back, span[1] - span[0]))
        self.done = span[1]
        self._bar.advance(span[1] - span[0])


def took_too_long(span: tuple[int, int], seconds: float, *, again: bool) -> ChannelError:
    """The error for examples that were not done in `seconds`; `again`: another process may be faster."""
    which = "the first example" if span == (0, 1) else f"examples {span[0] + 1:,} to {span[1]:,}"
    return ChannelError("timeout", f"{which} took longer than {seconds:.0f} s", retryable=again)


def _checked(path: Path, count: int) -> NDArray[Any]:
    """The rows (count, values) of a file that came from the device."""
    try:
        rows: NDArray[Any] = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ChannelError("garbled", f"the device sent back no array: {error}") from error
    known = rows.dtype in (np.float32, np.int64) or rows.dtype.kind == "U"
    if rows.ndim != 2 or len(rows) != count or not known or math.prod(rows.shape) == 0:
        raise ChannelError("garbled", f"the device sent back {rows.dtype}{rows.shape} for {count} images")
    return rows
