"""The probe's requests as methods; its answers are checked (see `replies`)."""

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
from edgeprune.profilers.replies import (
    MAX_FACTS,
    Operator,
    Race,
    Single,
    Throughput,
    read_facts,
    read_number,
    read_numbers,
    read_opened,
    read_tensors,
)
from edgeprune.profilers.retry import PATIENCE_S, Patience, persist
from edgeprune.profilers.versions import advice

T = TypeVar("T")

#: One example after the other into the first input, out of the first output.
_FIRST = Feeding()
#: Of what the probe says of a failure, and of its advice, which may name all inputs of a model.
_MAX_MESSAGE, _MAX_HINT = 500, 4000

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
    #: The file's, for messages: on the device it has another one.
    name: str = ""

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
        facts = read_facts(answer.get("facts"))
        unit = facts.get("unit", "s")
        if unit != self.unit:
            said = f"the probe measures in {unit!r:.40}, this device in {self.unit!r}"
            raise ChannelError("garbled", said, retryable=False)
        ops = answer.get("ops")
        self.ops = frozenset(str(op) for op in ops[:MAX_FACTS]) if isinstance(ops, list) else frozenset()
        return MappingProxyType(facts)

    def load(self, name: str, model: Pushed, deadline: Deadline) -> tuple[TensorSpec, ...]:
        """Open a model under `name`, and run it once; what it takes."""
        return read_tensors(self._ask({"op": "load", "id": name, **model.request}, deadline).get("inputs", []))

    def memory(self, model: Pushed, deadline: Deadline) -> tuple[int, str]:
        """Heap bytes the model holds while it runs, and how they were read."""
        answer = self._ask({"op": "memory", **model.request}, deadline)
        return int(read_number(answer, "bytes")), str(answer.get("method", ""))[:20]

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
        samples, warmups = (read_numbers(answer, key) for key in ("samples_a", "warmups_a"))
        against = samples if baseline is None else read_numbers(answer, "samples_b")
        # Slow models get fewer rounds; counts are the same each time, so one is enough.
        least = 1 if self.unit == "instructions" else min(LEAST_ROUNDS, settings.rounds)
        right = least <= len(samples) == len(against) <= settings.rounds
        if not right or min((*samples, *against)) <= 0:
            raise ChannelError("garbled", "the probe gave samples that cannot be")
        load_s = first_s = against_load_s = None
        if self.unit != "instructions":
            load_s, first_s = (statistics.median(read_numbers(answer, key)) for key in ("load_s_a", "first_s_a"))
            if answer.get("load_s_b"):
                against_load_s = statistics.median(read_numbers(answer, "load_s_b"))
        opened = read_opened(answer.get("opened_a"))
        beside = against if baseline else ()
        return Race(samples, beside, warmups, load_s, first_s, self._states(answer), opened, against_load_s)

    def state(self, deadline: Deadline) -> Mapping[str, Any]:
        """What may disturb a measurement, now (see `_state` of the probe)."""
        return MappingProxyType(read_facts(self._ask({"op": "state"}, deadline).get("state")))

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
        samples, warmups = (read_numbers(answer, key) for key in ("runs_s", "warmups_s"))
        if min(samples) <= 0:
            raise ChannelError("garbled", "the probe gave samples that cannot be")
        count, load_s, first_s = (read_number(answer, key) for key in ("count", "load_s", "first_s"))
        opened = read_opened(answer.get("opened"))
        return Single(samples, int(count), warmups, load_s, first_s, self._states(answer), opened)

    def throughput(self, model: Pushed, streams: int, seconds: float, deadline: Deadline) -> Throughput:
        """Inferences of `streams` copies of the model, each in a thread of its own, in about so many seconds."""
        answer = self._ask({"op": "throughput", **model.request, "streams": streams, "seconds": seconds}, deadline)
        spent = read_number(answer, "seconds")
        if spent <= 0:
            raise ChannelError("garbled", "the probe gave a throughput in no time")
        each = tuple(int(count) for count in read_numbers(answer, "per_stream"))
        return Throughput(int(read_number(answer, "inferences")), spent, each)

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
            Operator(str(each.get("name", ""))[:200], str(each.get("type", ""))[:80], read_number(each, "seconds"))
            for each in told
        ), ""

    def open(self, name: str, model: Pushed, deadline: Deadline) -> Ports:
        """Open a model under `name` without running it; what it takes and gives."""
        message = {"op": "load", "id": name, "run": False, **model.request}
        answer = self._ask(message, deadline)
        fed = read_opened(answer.get("opened")).inputs
        return replace(
            read_ports(answer.get("ports")), given=frozenset(each.name for each in fed if each.how == "given")
        )

    def outputs(self, name: str, inputs: str, feeding: Feeding, deadline: Deadline) -> tuple[tuple[Output, ...], float]:
        """Run the first batch of a .npy on the device; what each output is, and the seconds it took."""
        message = {"op": "outputs", "id": name, "inputs": inputs, **asdict(replace(feeding, output=""))}
        answer = self._ask(message, deadline)
        return read_outputs(answer.get("outputs")), read_number(answer, "seconds")

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
        return int(read_number(self._ask({**message, "start": part[0], "stop": part[1]}, deadline), "count"))

    def close(self) -> None:
        """End the process."""
        self._channel.close()

    def _states(self, answer: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
        """The device's states before and after; none of an emulated processor, which would be its host's."""
        states = answer.get("states", [])
        if not isinstance(states, list) or len(states) not in (0, 2):
            raise ChannelError("garbled", f"the probe's states are none: {states!r:.80}")
        return () if self.unit == "instructions" else tuple(read_facts(state) for state in states)

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
    pushed = replace(_alone(session, file), beside=beside, name=file.name)
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
    return persist(lambda _: push(session, file, given), Patience(PATIENCE_S, PATIENCE_S), again=lambda _: None)


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

    return persist(once, Patience(timeout_s, PATIENCE_S), again=lambda _: None)
