"""The probe's requests as methods, its answers checked: nothing a device says is believed before it is looked at."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args

from edgeprune.core.artifact import TensorSpec
from edgeprune.core.clock import Deadline
from edgeprune.core.errors import RuntimeMissing
from edgeprune.core.files import sha256_file
from edgeprune.core.kinds import Unit
from edgeprune.core.measurement import FailureKind, MeasureSettings
from edgeprune.core.runtimes import RUNTIMES
from edgeprune.core.session import Channel, Session
from edgeprune.core.text import shorten
from edgeprune.devices.channel import ChannelError
from edgeprune.probe import PROBE
from edgeprune.profilers.external import external_files
from edgeprune.profilers.inputs import GivenInputs
from edgeprune.profilers.ports import Feeding, Output, Ports, read_outputs, read_ports
from edgeprune.profilers.retry import PATIENCE_S, persist
from edgeprune.profilers.versions import advice

T = TypeVar("T")

#: The file that runs on the device.

#: One example after the other into the first input, out of the first output.
_FIRST = Feeding()
_MAX_FACTS = 100
#: Of what the probe says of a failure.
_MAX_MESSAGE = 500
#: A model has no more inputs than this, and advice that names all of them is no longer than that.
_MAX_TENSORS, _MAX_HINT = 1000, 4000
#: No time, size or count of a device is as large.
_LARGEST = 1e18

#: Rounds that a race has at least, however slow the models are; as in the probe.
LEAST_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Pushed:
    """A model file on the device, with what lies beside it and what it is fed with."""

    path: str
    sha256: str
    #: Sizes of inputs whose axes are open, all but the first axis of each. None: every open axis is 1.
    shapes: Mapping[str, tuple[int, ...]] | None = None
    #: Values of inputs: a text that fills one, or a file on the device.
    values: Mapping[str, str | Pushed] = field(default_factory=dict)
    #: See `GivenInputs`.
    signature: str = ""
    shared: frozenset[str] = frozenset()
    #: The files that hold an ONNX model's weights, by the place beside the model where it looks for them.
    beside: Mapping[str, Pushed] = field(default_factory=dict)
    #: What stands before names in advice: "FILE:" where there are several files.
    prefix: str = ""

    @property
    def request(self) -> dict[str, Any]:
        """The file as requests name it."""
        named: dict[str, Any] = {"path": self.path, "sha256": self.sha256}
        if self.shapes is not None:
            named["shapes"] = {name: list(shape) for name, shape in self.shapes.items()}
        if self.values:
            named["values"] = {
                name: value.request if isinstance(value, Pushed) else {"text": value}
                for name, value in self.values.items()
            }
        if self.beside:
            named["beside"] = {place: there.request for place, there in self.beside.items()}
        for key, told in (("signature", self.signature), ("shared", sorted(self.shared)), ("prefix", self.prefix)):
            if told:
                named[key] = told
        return named

    @property
    def content(self) -> str:
        """SHA-256 of all that the model is: the file's own where nothing lies beside it."""
        if not self.beside:
            return self.sha256
        parts = [self.sha256, *(f"{place}\0{there.sha256}" for place, there in sorted(self.beside.items()))]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Fed:
    """How an input was fed: `how` is "given", or what its values were made up as."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    how: str


@dataclass(frozen=True, slots=True)
class Opened:
    """How a model was run; see `opened` of the probe."""

    inputs: tuple[Fed, ...] = ()
    signature: str = ""
    signatures: tuple[str, ...] = ()
    binding: str = ""
    #: Names given for several files that this one does not have.
    unused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Race:
    """Cost per inference, `samples[i]` and `against[i]` of the same round; of the candidate also seconds to load.

    Loading has no seconds on a device that counts instructions: None.
    """

    samples: tuple[float, ...]
    against: tuple[float, ...]
    warmups: tuple[float, ...]
    load_s: float | None
    first_s: float | None
    #: The device's state before and after.
    states: tuple[Mapping[str, Any], ...] = ()
    #: How the candidate was run.
    opened: Opened = Opened()


@dataclass(frozen=True, slots=True)
class Single:
    """Seconds of one inference after the other; of many the newest (`count` is of all)."""

    samples: tuple[float, ...]
    count: int
    warmups: tuple[float, ...]
    load_s: float | None
    first_s: float | None
    #: The device's state before and after.
    states: tuple[Mapping[str, Any], ...] = ()
    opened: Opened = Opened()


@dataclass(frozen=True, slots=True)
class Throughput:
    """Inferences of several models that run at once."""

    inferences: int
    seconds: float
    per_stream: tuple[int, ...]

    @property
    def per_second(self) -> float:
        """Inferences per second, all streams together."""
        return self.inferences / self.seconds


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of a model: its name and type in the file, and the median of its seconds per inference."""

    name: str
    type: str
    seconds: float


class ProbeClient:
    """One probe process. Every method raises ChannelError: for a dead process as for a request that was refused."""

    def __init__(self, channel: Channel, settings: MeasureSettings, unit: Unit = "s") -> None:
        """`unit` is what the device's latencies are given in: a probe that measures in another one is refused."""
        self._channel = channel
        self._settings = settings
        self.unit: Unit = unit
        #: What the device can be asked for; known after `hello`.
        self.ops: frozenset[str] = frozenset()

    def hello(self, warm: Sequence[Pushed], deadline: Deadline) -> Mapping[str, Any]:
        """Import the runtime, load, run and drop the models `warm`; the device's facts.

        Raises RuntimeMissing where the runtime is not installed.
        """
        runtime = self._settings.runtime
        models = [model.request for model in warm]
        message = {"op": "hello", "runtime": runtime, "threads": self._settings.threads, "warm": models}
        try:
            answer = self._ask(message, deadline)
        except ChannelError as error:
            if error.kind == "refused" and "cannot be imported" in error.message:
                package = RUNTIMES[runtime].package
                hint = f"install it there: python -m pip install {package}, or edgeprune devices setup NAME"
                raise RuntimeMissing(
                    f"the device's Python has no {runtime}: {error.message}", hint, retryable=False
                ) from error
            raise
        facts = _plain(answer.get("facts"))
        unit = facts.get("unit", "s")
        if unit != self.unit:
            said = f"the probe measures in {unit!r:.40}, this device in {self.unit!r}"
            raise ChannelError("garbled", said, retryable=False)
        ops = answer.get("ops")
        self.ops = frozenset(str(op) for op in ops[:_MAX_FACTS]) if isinstance(ops, list) else frozenset()
        return MappingProxyType(facts)

    def load(self, name: str, model: Pushed, deadline: Deadline) -> tuple[TensorSpec, ...]:
        """Open a model under `name`, and run it once; what it takes."""
        return _tensors(self._ask({"op": "load", "id": name, **model.request}, deadline).get("inputs", []))

    def memory(self, model: Pushed, deadline: Deadline) -> tuple[int, str]:
        """Heap bytes the model holds while it runs, and how they were read."""
        answer = self._ask({"op": "memory", **model.request}, deadline)
        return int(_number(answer, "bytes")), str(answer.get("method", ""))[:20]

    def race(self, candidate: Pushed, baseline: Pushed | None, deadline: Deadline) -> Race:
        """Load and time two models in turns, or one alone: then nothing is `against` it."""
        settings = self._settings
        answer = self._ask(
            {
                "op": "race",
                "a": candidate.request,
                "b": None if baseline is None else baseline.request,
                "rounds": settings.rounds,
                "round_s": settings.round_s,
                "min_runs": settings.min_runs,
                "warmup_runs": settings.warmup_runs,
                "warmup_s": settings.warmup_s,
                # What a race cannot do in this time it leaves out, rather than miss the deadline.
                "most_s": deadline.left() / 3,
            },
            deadline,
        )
        samples, warmups = (_numbers(answer, key) for key in ("samples_a", "warmups_a"))
        against = samples if baseline is None else _numbers(answer, "samples_b")
        # Slow models get fewer rounds; counts are the same each time, so one is enough.
        least = 1 if self.unit == "instructions" else min(LEAST_ROUNDS, settings.rounds)
        right = least <= len(samples) == len(against) <= settings.rounds
        if not right or min((*samples, *against)) <= 0:
            raise ChannelError("garbled", "the probe gave samples that cannot be")
        load_s = first_s = None
        if self.unit != "instructions":
            load_s, first_s = (statistics.median(_numbers(answer, key)) for key in ("load_s_a", "first_s_a"))
        opened = _opened(answer.get("opened_a"))
        return Race(samples, against if baseline else (), warmups, load_s, first_s, self._states(answer), opened)

    def state(self, deadline: Deadline) -> Mapping[str, Any]:
        """What may disturb a measurement, now (see `_state` of the probe)."""
        return MappingProxyType(_plain(self._ask({"op": "state"}, deadline).get("state")))

    def single(self, model: Pushed, longest_s: float, deadline: Deadline) -> Single:
        """Load a model and time one inference after the other, for one round, but no longer than `longest_s`."""
        settings = self._settings
        answer = self._ask(
            {
                "op": "single",
                **model.request,
                "warmup_runs": settings.warmup_runs,
                "warmup_s": settings.warmup_s,
                "min_runs": settings.min_runs,
                "min_s": settings.round_s,
                "max_s": longest_s,
            },
            deadline,
        )
        samples, warmups = (_numbers(answer, key) for key in ("runs_s", "warmups_s"))
        if min(samples) <= 0:
            raise ChannelError("garbled", "the probe gave samples that cannot be")
        count, load_s, first_s = (_number(answer, key) for key in ("count", "load_s", "first_s"))
        opened = _opened(answer.get("opened"))
        return Single(samples, int(count), warmups, load_s, first_s, self._states(answer), opened)

    def throughput(self, model: Pushed, streams: int, seconds: float, deadline: Deadline) -> Throughput:
        """Inferences of `streams` copies of the model, each in a thread of its own, in about so many seconds."""
        answer = self._ask({"op": "throughput", **model.request, "streams": streams, "seconds": seconds}, deadline)
        spent = _number(answer, "seconds")
        if spent <= 0:
            raise ChannelError("garbled", "the probe gave a throughput in no time")
        each = tuple(int(count) for count in _numbers(answer, "per_stream"))
        return Throughput(int(_number(answer, "inferences")), spent, each)

    def operators(
        self, model: Pushed, runs: int, scratch: str, deadline: Deadline
    ) -> tuple[tuple[Operator, ...] | None, str]:
        """Times of every operator, median of `runs`; or None and why the runtime does not tell them."""
        answer = self._ask({"op": "operators", **model.request, "runs": runs, "scratch": scratch}, deadline)
        told = answer.get("operators")
        if told is None:
            return None, str(answer.get("why") or "the runtime does not tell")[:200]
        if not isinstance(told, list) or not all(isinstance(each, dict) for each in told):
            raise ChannelError("garbled", f"the probe's operators are none: {told!r:.80}")
        return tuple(
            Operator(str(each.get("name", ""))[:200], str(each.get("type", ""))[:80], _number(each, "seconds"))
            for each in told
        ), ""

    def open(self, name: str, model: Pushed, deadline: Deadline) -> Ports:
        """Open a model under `name` without running it; what it takes and gives."""
        message = {"op": "load", "id": name, "run": False, **model.request}
        answer = self._ask(message, deadline)
        fed = _opened(answer.get("opened")).inputs
        return replace(
            read_ports(answer.get("ports")), given=frozenset(each.name for each in fed if each.how == "given")
        )

    def outputs(self, name: str, inputs: str, feeding: Feeding, deadline: Deadline) -> tuple[tuple[Output, ...], float]:
        """Run the first batch of a .npy on the device; what each output is, and the seconds it took."""
        message = {"op": "outputs", "id": name, "inputs": inputs, **asdict(replace(feeding, output=""))}
        answer = self._ask(message, deadline)
        return read_outputs(answer.get("outputs")), _number(answer, "seconds")

    def predict(
        self,
        name: str,
        inputs: str,
        outputs: str,
        deadline: Deadline,
        *,
        feeding: Feeding = _FIRST,
        part: tuple[int, int | None] = (0, None),
    ) -> int:
        """Run the examples from `part[0]` to `part[1]` of one .npy on the device into another; how many there were."""
        message = {"op": "predict", "id": name, "inputs": inputs, "outputs": outputs, **asdict(feeding)}
        return int(_number(self._ask({**message, "start": part[0], "stop": part[1]}, deadline), "count"))

    def close(self) -> None:
        """End the process."""
        self._channel.close()

    def _states(self, answer: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
        """The device's states before and after; none of an emulated processor, which would be its host's."""
        states = answer.get("states", [])
        if not isinstance(states, list) or len(states) not in (0, 2):
            raise ChannelError("garbled", f"the probe's states are none: {states!r:.80}")
        return () if self.unit == "instructions" else tuple(_plain(state) for state in states)

    def _ask(self, message: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        answer = self._channel.request(message, deadline)
        if answer["ok"]:
            return answer
        kind: FailureKind = "crashed"
        if answer.get("kind") in get_args(FailureKind):
            kind = answer["kind"]
        said = shorten(str(answer.get("error", "no reason given")), _MAX_MESSAGE)
        hint = str(answer.get("hint") or "")[:_MAX_HINT]
        raise ChannelError(kind, said, hint or (advice(said) if kind == "refused" else ""))


def push(session: Session, file: Path, given: GivenInputs | None = None) -> Pushed:
    """Put a model on the device, with the files that hold its weights and those `given` for its inputs.

    Without `given`, open axes of its inputs are 1. Raises DeviceError, ModelError where a file of weights is missing.
    """
    beside = {place: _alone(session, there) for place, there in external_files(file).items()}
    pushed = replace(_alone(session, file), beside=beside)
    if given is None:
        return pushed
    values = {
        name: _alone(session, value) if isinstance(value, Path) else value for name, value in given.values.items()
    }
    return replace(pushed, shapes=given.shapes, values=values, signature=given.signature, shared=given.shared)


def _alone(session: Session, file: Path) -> Pushed:
    return Pushed(session.push(file), sha256_file(file))


def push_patiently(session: Session, file: Path, given: GivenInputs | None = None) -> Pushed:
    """`push`, once more after a failure that may pass (see `retry.persist`). Raises DeviceError, ModelError.

    The files stay: a session on this machine takes them along when it ends, a board keeps them in its cache.
    """
    return persist(
        lambda _: push(session, file, given), timeout_s=PATIENCE_S, patience_s=PATIENCE_S, again=lambda _: None
    )


@contextmanager
def probe(session: Session, settings: MeasureSettings, file: Path = PROBE) -> Iterator[ProbeClient]:
    """A fresh probe process for the length of a `with` block."""
    client = ProbeClient(session.start(file), settings, session.spec.unit)
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
    """`work` in a probe process of its own, in another one after a failure that may pass (see `retry.persist`).

    Raises the last ChannelError, and DeviceError where no probe can be started.
    """

    def once(deadline: Deadline) -> T:
        with probe(session, settings, probe_file) as client:
            return work(client, deadline)

    return persist(once, timeout_s=timeout_s, patience_s=PATIENCE_S, again=lambda _: None)


def _number(answer: Mapping[str, Any], key: str) -> float:
    value = answer.get(key)
    # Not math.isfinite, which cannot take an integer of a thousand digits.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _LARGEST:
        raise ChannelError("garbled", f"the probe's {key} is not a figure: {value!r:.80}")
    return float(value)


def _numbers(answer: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = answer.get(key)
    if not isinstance(values, list):
        raise ChannelError("garbled", f"the probe's {key} is not a list: {values!r:.80}")
    if not values:
        raise ChannelError("garbled", f"the probe's {key} is empty")
    return tuple(_number({key: value}, key) for value in values)


def _tensors(told: Any) -> tuple[TensorSpec, ...]:
    try:
        specs = [TensorSpec(name, tuple(shape), dtype) for name, shape, dtype in told]
    except (TypeError, ValueError) as error:
        raise ChannelError("garbled", f"the probe's inputs are none: {told!r:.80}") from error
    for spec in specs:
        sides = all(isinstance(side, int) and 0 <= side < _LARGEST for side in spec.shape)
        if not (isinstance(spec.name, str) and isinstance(spec.dtype, str) and sides and len(specs) <= _MAX_TENSORS):
            raise ChannelError("garbled", f"the probe's inputs are none: {told!r:.80}")
    return tuple(specs)


def _opened(told: Any) -> Opened:
    """What a device says of how it ran a model; a device that says nothing tells nothing."""
    if told is None:
        return Opened()
    try:
        fed = tuple(
            Fed(_word(name), tuple(_side(side) for side in shape), _word(dtype), _word(how))
            for name, shape, dtype, how in told["inputs"]
        )
        signatures = tuple(_word(name) for name in told.get("signatures", ()))
        unused = tuple(_word(name) for name in told.get("unused", ()))
        opened = Opened(fed, _word(told.get("signature", "")), signatures, _word(told.get("binding", "")), unused)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ChannelError("garbled", f"expected how the probe ran the model, got {told!r:.80}") from error
    if max(len(fed), len(signatures), len(unused)) > _MAX_TENSORS:
        raise ChannelError("garbled", f"the probe tells of more than {_MAX_TENSORS} inputs")
    return opened


def _word(told: Any) -> str:
    if not isinstance(told, str):
        raise TypeError
    return "".join(c for c in told[:200] if c.isprintable())


def _side(told: Any) -> int:
    if not isinstance(told, int) or isinstance(told, bool) or not 0 <= told < _LARGEST:
        raise TypeError
    return told


def _plain(said: Any) -> dict[str, Any]:
    """What a device says of itself, kept to short figures and strings: it is stored and shown as it is."""
    if not isinstance(said, dict) or len(said) > _MAX_FACTS:
        raise ChannelError("garbled", f"the probe's facts are none: {said!r:.80}")
    kept: dict[str, Any] = {}
    for key, value in said.items():
        if isinstance(value, str):
            kept[str(key)[:40]] = "".join(c for c in value[:200] if c.isprintable())
        elif value is None or (isinstance(value, (bool, int, float)) and abs(value) < _LARGEST):
            kept[str(key)[:40]] = value
        else:
            raise ChannelError("garbled", f"the probe's {key!r:.40} is no fact: {value!r:.80}")
    return kept
