"""The probe's requests as methods, its answers checked: nothing a device says is believed before it is looked at."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args

from edgeprune.core.clock import Deadline
from edgeprune.core.devices import Channel, Session
from edgeprune.core.errors import DeviceError
from edgeprune.core.files import sha256_file
from edgeprune.core.types import FailureKind, MeasureSettings
from edgeprune.devices.channel import ChannelError

T = TypeVar("T")

_ATTEMPTS = 2

#: The file that runs on the device.
PROBE = Path(__file__).with_name("probe.py")

#: What to install where, per runtime.
_PACKAGES = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}


@dataclass(frozen=True, slots=True)
class Pushed:
    """A model file on the device."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Race:
    """Seconds per inference, `samples[i]` and `against[i]` of the same round; of the candidate also seconds to load."""

    samples: tuple[float, ...]
    against: tuple[float, ...]
    warmups: tuple[float, ...]
    load_s: float
    first_s: float


class ProbeClient:
    """One probe process. Every method raises ChannelError: for a dead process as for a request that was refused."""

    def __init__(self, channel: Channel, settings: MeasureSettings) -> None:
        self._channel = channel
        self._settings = settings

    def hello(self, warm: Sequence[Pushed], deadline: Deadline) -> Mapping[str, Any]:
        """Import the runtime, load, run and drop the models `warm`; the device's facts.

        Raises DeviceError where the runtime is not installed.
        """
        runtime = self._settings.runtime
        models = [{"path": model.path, "sha256": model.sha256} for model in warm]
        message = {"op": "hello", "runtime": runtime, "threads": self._settings.threads, "warm": models}
        try:
            facts = self._ask(message, deadline).get("facts")
        except ChannelError as error:
            if error.kind == "refused" and "cannot be imported" in error.message:
                hint = f"install it there: python -m pip install {_PACKAGES[runtime]}"
                raise DeviceError(
                    f"the device's Python has no {runtime}: {error.message}", hint, retryable=False
                ) from error
            raise
        if not isinstance(facts, dict):
            raise ChannelError("garbled", "the probe gave no facts")
        return MappingProxyType({str(key): value for key, value in facts.items()})

    def load(self, name: str, model: Pushed, deadline: Deadline) -> None:
        """Open a model under `name`, and run it once."""
        self._ask({"op": "load", "id": name, "path": model.path, "sha256": model.sha256}, deadline)

    def memory(self, model: Pushed, deadline: Deadline) -> tuple[int, str]:
        """Heap bytes the model holds while it runs, and how they were read."""
        answer = self._ask({"op": "memory", "path": model.path, "sha256": model.sha256}, deadline)
        return int(_number(answer, "bytes")), str(answer.get("method", ""))[:20]

    def race(self, candidate: Pushed, baseline: Pushed, deadline: Deadline) -> Race:
        """Load and time two models in turns."""
        settings = self._settings
        answer = self._ask(
            {
                "op": "race",
                "a": {"path": candidate.path, "sha256": candidate.sha256},
                "b": {"path": baseline.path, "sha256": baseline.sha256},
                "rounds": settings.rounds,
                "round_s": settings.round_s,
                "min_runs": settings.min_runs,
                "warmup_runs": settings.warmup_runs,
                "warmup_s": settings.warmup_s,
            },
            deadline,
        )
        samples, against, warmups, load_s, first_s = (
            _numbers(answer, key) for key in ("samples_a", "samples_b", "warmups_a", "load_s_a", "first_s_a")
        )
        if not len(samples) == len(against) == settings.rounds or min((*samples, *against)) <= 0:
            raise ChannelError("garbled", "the probe gave samples that cannot be")
        return Race(samples, against, warmups, statistics.median(load_s), statistics.median(first_s))

    def predict(self, name: str, inputs: str, outputs: str, deadline: Deadline) -> int:
        """Run the images of one .npy on the device into another; how many there were."""
        return int(
            _number(self._ask({"op": "predict", "id": name, "inputs": inputs, "outputs": outputs}, deadline), "count")
        )

    def close(self) -> None:
        """End the process."""
        self._channel.close()

    def _ask(self, message: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        answer = self._channel.request(message, deadline)
        if answer["ok"]:
            return answer
        kind: FailureKind = "crashed"
        if answer.get("kind") in get_args(FailureKind):
            kind = answer["kind"]
        raise ChannelError(kind, str(answer.get("error", "no reason given"))[:500])


def push(session: Session, file: Path) -> Pushed:
    """Put a model on the device. Raises DeviceError."""
    return Pushed(session.push(file), sha256_file(file))


@contextmanager
def probe(session: Session, settings: MeasureSettings, file: Path = PROBE) -> Iterator[ProbeClient]:
    """A fresh probe process for the length of a `with` block."""
    client = ProbeClient(session.start(file), settings)
    try:
        yield client
    finally:
        client.close()


def in_fresh_process(
    session: Session,
    settings: MeasureSettings,
    work: Callable[[ProbeClient, Deadline], T],
    *,
    timeout_s: float,
    probe_file: Path = PROBE,
) -> T:
    """`work` in a probe process of its own, once more in another one after a failure that may pass.

    Raises the last ChannelError, and DeviceError where no probe can be started.
    """
    for left in reversed(range(_ATTEMPTS)):
        try:
            with probe(session, settings, probe_file) as client:
                return work(client, Deadline.after(timeout_s))
        except ChannelError as error:
            if not error.retryable or not left:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def _number(answer: Mapping[str, Any], key: str) -> float:
    value = answer.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ChannelError("garbled", f"the probe's {key} is not a figure: {value!r:.80}")
    return float(value)


def _numbers(answer: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = answer.get(key)
    if not isinstance(values, list):
        raise ChannelError("garbled", f"the probe's {key} is not a list: {values!r:.80}")
    if not values:
        raise ChannelError("garbled", f"the probe's {key} is empty")
    return tuple(_number({key: value}, key) for value in values)
