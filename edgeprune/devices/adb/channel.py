"""The probe's protocol (see `edgeprune.probe.probe`), answered with `benchmark_model` on a phone.

What differs from the probe, since one process of benchmark_model times one model and prints aggregates:

race        each round starts a process per model, in alternating order; a sample is the median of its runs, or their
            mean where this build prints no median or a model takes under 100 µs (medians are whole microseconds)
memory      "overall" of the footprint lines: it counts the runtime too, so it says less of a small model
single, throughput   refused, as single runs are not printed
predict, outputs   a process per batch (some 50 ms each): a thousand images take a minute. Only where every input is
            given, and for builds that know --output_filepath (those of LiteRT do). Variables are as the file has them
            at first in every process, so none can be kept
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError, RuntimeMissing
from edgeprune.devices.adb import examples as adb_examples
from edgeprune.devices.adb.benchmark_model import Report, Timing
from edgeprune.devices.adb.examples import Batches
from edgeprune.devices.adb.runner import SHORT_S, Phone, Runner
from edgeprune.devices.adb.state import STATE, parse_state
from edgeprune.devices.channel import ChannelError

_MAX_ROUNDS = 10_000
#: A race that takes too long has at least so many rounds.
_LEAST_ROUNDS = 3
#: Images per command on the phone: short enough that a deadline is noticed.
_IMAGES = 20
#: Below this a median in whole microseconds is off by up to 1 %.
_FINE_S = 100e-6


class AdbChannel:
    """A `Channel` (see `edgeprune.core.session`). A request that fails raises ChannelError with the failure's kind.

    After "lost" or "timeout" it is closed, as the phone may have been restarted: start another.
    """

    def __init__(self, phone: Phone, binary: str, binary_sha256: str) -> None:
        """`binary` is benchmark_model's path on the phone."""
        self._phone = phone
        self._sha256 = binary_sha256
        self._runner = Runner(phone, binary)
        self._models: dict[str, dict[str, Any]] = {}
        #: The examples that were fetched last, and their path there: they are run in parts.
        self._images: tuple[str, Any] = ("", None)
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it answers no more."""
        return self._closed

    def request(self, message: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """See `Channel.request`; refusals are raised too, since an answer has no room for advice."""
        if self._closed:
            raise ChannelError("lost", "the channel to the phone is closed")
        op, ops = str(message.get("op")), self._ops()
        if op in ("single", "throughput"):
            raise ChannelError("refused", "benchmark_model prints only aggregates, no single runs")
        if op not in ops:
            raise ChannelError("crashed", f"unknown op {op!r:.100}")
        if self._runner.threads == 0 and op not in ("hello", "state", "quit"):
            raise ChannelError("crashed", "no hello yet: the runtime is not chosen")
        arguments = {key: value for key, value in message.items() if key not in ("op", "n")}
        try:
            return {"ok": True, **ops[op](deadline=deadline, **arguments)}
        except ChannelError as error:
            self._closed = self._closed or error.kind in ("lost", "timeout")
            raise

    def close(self) -> None:
        """Answer no more; never raises. What a cut request left running the next `hello` ends, or the session."""
        self._closed = True

    # --------------------------------------------------------------------------------------------------- the ops

    def _ops(self) -> dict[str, Callable[..., dict[str, Any]]]:
        return {
            "hello": self._hello,
            "state": self._state,
            "load": self._load,
            "memory": self._memory,
            "race": self._race,
            "operators": self._operators,
            "predict": self._predict,
            "outputs": self._outputs,
            "unload": self._unload,
            "quit": self._quit,
        }

    def _hello(
        self, *, runtime: str, threads: int, warm: Sequence[Mapping[str, Any]], deadline: Deadline
    ) -> dict[str, Any]:
        del warm  # nothing is left of one process for the next
        if runtime != "litert":
            raise RuntimeMissing(
                f"phones run LiteRT, not {runtime!r:.40}",
                "give a .tflite file (edgeprune run: --runtime litert), or make it an ssh device with Termux: ssh://HOST:8022",
                retryable=False,
            )
        facts = dict(self._phone.facts())
        if facts.get("emulated"):
            raise DeviceError("an Android emulator's times say nothing about a phone", "use a phone", retryable=False)
        self._runner.end_leftover(_soon(deadline))
        self._runner.threads = max(1, int(threads))
        state = self._read_state(deadline)
        facts.update(
            unit="s", runtime="benchmark_model", runtime_version=self._sha256[:12], threads=self._runner.threads
        )
        facts.update(governor=state["governor"], libc="bionic")
        return {"facts": facts, "ops": sorted(self._ops())}

    def _load(
        self, *, id: str, path: str, sha256: str, deadline: Deadline, run: bool = True, **extra: Any
    ) -> dict[str, Any]:
        model = {"path": path, "sha256": sha256, **extra}
        times: dict[str, float | None] = {"load_s": None, "first_s": None}
        if run:
            report = self._runner.run(model, Timing(), deadline)
            times = {"load_s": report.init_s, "first_s": report.first_s}
        else:
            self._runner.check(path, sha256, deadline)
        inputs, outputs = self._runner.tensors(model)
        self._models[id] = model
        taken, given = ([[each.name, list(each.shape), each.dtype] for each in both] for both in (inputs, outputs))
        ports = {"inputs": [each.port for each in inputs], "outputs": [each.port for each in outputs]}
        return {**times, "inputs": taken, "outputs": given, "ports": ports, "opened": self._runner.opened(model)}

    def _unload(self, *, id: str, deadline: Deadline) -> dict[str, Any]:
        del deadline
        self._models.pop(id, None)
        return {}

    def _quit(self, *, deadline: Deadline) -> dict[str, Any]:
        del deadline
        self._closed = True
        return {}

    def _memory(self, *, deadline: Deadline, **model: Any) -> dict[str, Any]:
        held = self._runner.run(model, Timing(runs=3), deadline).overall_bytes
        if not held:
            raise ChannelError("garbled", "this benchmark_model prints no memory footprint", "get a newer one")
        return {"bytes": held, "method": "benchmark_model"}

    def _race(
        self,
        *,
        a: Mapping[str, Any],
        b: Mapping[str, Any] | None,
        rounds: int,
        most_s: float,
        deadline: Deadline,
        **timed: Any,
    ) -> dict[str, Any]:
        """After `most_s` no further round begins, but three there are; slow models get fewer runs in each."""
        limit = Deadline.after(most_s)
        # Two models with a warm-up and the timed runs each.
        timing = _timing(most_s=most_s / _LEAST_ROUNDS / 4, **timed)
        racers = {"a": a} if b is None else {"a": a, "b": b}
        reports: dict[str, list[Report]] = {name: [] for name in racers}
        before = self._read_state(deadline)
        for index in range(min(rounds, _MAX_ROUNDS)):
            if index >= _LEAST_ROUNDS and limit.left() <= 0:
                break
            for name in sorted(racers, reverse=bool(index % 2)):
                reports[name].append(self._runner.run(racers[name], timing, deadline, checked=index > 0))
        states = [before, {**self._read_state(deadline), **self._runner.warned()}]
        answer: dict[str, Any] = {"samples_b": [], "warmups_b": [], "states": states}
        medians = all(r.median_s is not None and r.median_s >= _FINE_S for each in reports.values() for r in each)
        for name, each in reports.items():
            answer[f"samples_{name}"] = [r.median_s if medians else r.mean_s for r in each]
            answer[f"warmups_{name}"] = [r.warmup_s for r in each]
            answer[f"load_s_{name}"] = [r.init_s for r in each]
            answer[f"first_s_{name}"] = [r.first_s for r in each]
            answer[f"opened_{name}"] = (
                self._runner.opened(racers[name]) if racers[name].get("shapes") is not None else None
            )
        return {**answer, "runs": {name: min(r.count for r in each) for name, each in reports.items() if each}}

    def _operators(self, *, runs: int, scratch: str = "", deadline: Deadline, **model: Any) -> dict[str, Any]:
        del scratch  # the table comes with the output
        report = self._runner.run(model, Timing(runs=runs), deadline, operators=True)
        if not report.operators:
            return {"operators": None, "why": "this benchmark_model prints no times of operators"}
        return {"operators": [{"name": o.name, "type": o.kind, "seconds": o.mean_s} for o in report.operators]}

    # --------------------------------------------------------------------------------------------------- predict

    def _predict(self, *, outputs: str, deadline: Deadline, output: str = "", **how: Any) -> dict[str, Any]:
        """Examples (N, ...) one batch at a time; writes one output (N, K) as the probe does."""
        model, given = self._examples(**how)
        gives = self._runner.tensors(model)[1]
        index, start, rows = adb_examples.named(output, gives), time.monotonic(), []
        for first in range(0, len(given.data), _IMAGES):
            for answer in self._runner.outputs(model, given, given.data[first : first + _IMAGES], deadline):
                rows.append(adb_examples.rows(gives[index], answer[index], given.size))
        out = io.BytesIO()
        made = np.concatenate(rows)[: given.count] if rows else np.zeros((0, 0), np.float32)
        np.save(out, made, allow_pickle=False)
        self._runner.store(out.getvalue(), outputs)
        return {"count": len(made), "seconds": time.monotonic() - start}

    def _outputs(self, *, deadline: Deadline, output: str = "", **how: Any) -> dict[str, Any]:
        """What each output is for the first batch, as the probe tells it."""
        del output  # all are told of
        model, given = self._examples(**how)
        start = time.monotonic()
        answer = self._runner.outputs(model, given, given.data[:1], deadline)[0]
        told = [
            adb_examples.told(*each, given.size) for each in zip(self._runner.tensors(model)[1], answer, strict=True)
        ]
        return {"outputs": told, "seconds": time.monotonic() - start}

    def _examples(
        self,
        id: str,
        inputs: str,
        input: str = "",
        start: int = 0,
        stop: int | None = None,
        batch: int = 1,
        keep: bool = False,
        reopen: bool = False,
    ) -> tuple[dict[str, Any], Batches]:
        """The model, and the examples from `start` to `stop` as it takes them."""
        del reopen  # every process opens it anew
        if id not in self._models:
            raise ChannelError("crashed", f"no model is loaded as {id!r:.80}")
        if keep:
            raise ChannelError("refused", "on a phone each example is a process of its own: no variable outlives it")
        model = self._models[id]
        takes = self._runner.tensors(model)[0]
        if self._images[0] != inputs:
            self._images = inputs, np.load(io.BytesIO(self._runner.fetch(inputs)), allow_pickle=False)
        return model, adb_examples.batches(takes, self._images[1][start:stop], max(1, batch), input)

    # --------------------------------------------------------------------------------------------------- the state

    def _state(self, *, deadline: Deadline) -> dict[str, Any]:
        return {"state": {**self._read_state(deadline), **self._runner.warned()}}

    def _read_state(self, deadline: Deadline) -> dict[str, Any]:
        return parse_state(self._phone.shell(STATE, _soon(deadline)).text)


def _timing(*, round_s: float, min_runs: int, warmup_runs: int, warmup_s: float, most_s: float) -> Timing:
    """Of each process of a race, as its request names it."""
    return Timing(runs=min_runs, least_s=round_s, warmup_runs=warmup_runs, warmup_s=warmup_s, most_s=most_s)


def _soon(deadline: Deadline) -> Deadline:
    return min(deadline, Deadline.after(SHORT_S), key=Deadline.left)
