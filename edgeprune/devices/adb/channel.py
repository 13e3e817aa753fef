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

import hashlib
import io
import json
import math
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError, RuntimeMissing
from edgeprune.core.temporary import temporary_folder
from edgeprune.devices.adb import benchmark_model
from edgeprune.devices.adb import examples as adb_examples
from edgeprune.devices.adb.benchmark_model import Report
from edgeprune.devices.adb.client import Answer, check_room, while_heard
from edgeprune.devices.adb.examples import Batches
from edgeprune.devices.adb.inputs import Feed, feed
from edgeprune.devices.adb.state import STATE, parse_state
from edgeprune.devices.adb.tensors import Ends, Tensor, tensors
from edgeprune.devices.channel import ChannelError

_MAX_ROUNDS = 10_000
#: A race that takes too long has at least so many rounds.
_LEAST_ROUNDS = 3
#: Images per command on the phone: short enough that a deadline is noticed.
_IMAGES = 20
#: Below this a median in whole microseconds is off by up to 1 %.
_FINE_S = 100e-6
_SHORT_S = 15.0


class Phone(Protocol):
    """What the channel needs of an `AdbSession` (see there)."""

    def facts(self) -> Mapping[str, Any]:
        """What the phone is."""

    def send(self, path: Path, target: str) -> None:
        """Copy a file to a place on the phone."""

    def pull(self, remote: str, path: Path) -> None:
        """Fetch a file."""

    def scratch(self, name: str) -> str:
        """A path on the phone to write to."""

    def shell(self, command: str, deadline: Deadline) -> Answer:
        """Run a command line."""


class AdbChannel:
    """A `Channel` (see `edgeprune.core.session`). A request that fails raises ChannelError with the failure's kind.

    After "lost" or "timeout" it is closed, as the phone may have been restarted: start another.
    """

    def __init__(self, phone: Phone, binary: str, binary_sha256: str) -> None:
        """`binary` is benchmark_model's path on the phone."""
        self._phone = phone
        self._binary = binary
        self._sha256 = binary_sha256
        self._threads = 0
        self._models: dict[str, dict[str, Any]] = {}
        self._known: dict[tuple[str, str], Ends] = {}
        #: What files are fed with, by their requests.
        self._feeds: dict[str, Feed] = {}
        #: The examples that were fetched last, and their path there: they are run in parts.
        self._images: tuple[str, Any] = ("", None)
        self._warnings: dict[str, None] = {}
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
        if self._threads == 0 and op not in ("hello", "state", "quit"):
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
        self._end_leftover(_soon(deadline))
        self._threads = max(1, int(threads))
        state = self._read_state(deadline)
        facts.update(unit="s", runtime="benchmark_model", runtime_version=self._sha256[:12], threads=self._threads)
        facts.update(governor=state["governor"], libc="bionic")
        return {"facts": facts, "ops": sorted(self._ops())}

    def _load(
        self, *, id: str, path: str, sha256: str, deadline: Deadline, run: bool = True, **extra: Any
    ) -> dict[str, Any]:
        model = {"path": path, "sha256": sha256, **extra}
        times: dict[str, float | None] = {"load_s": None, "first_s": None}
        if run:
            report = self._run(model, deadline)
            times = {"load_s": report.init_s, "first_s": report.first_s}
        else:
            self._check(path, sha256, deadline)
        inputs, outputs = self._tensors(model)
        self._models[id] = model
        taken, given = ([[each.name, list(each.shape), each.dtype] for each in both] for both in (inputs, outputs))
        ports = {"inputs": [each.port for each in inputs], "outputs": [each.port for each in outputs]}
        return {**times, "inputs": taken, "outputs": given, "ports": ports, "opened": self._opened(model)}

    def _unload(self, *, id: str, deadline: Deadline) -> dict[str, Any]:
        del deadline
        self._models.pop(id, None)
        return {}

    def _quit(self, *, deadline: Deadline) -> dict[str, Any]:
        del deadline
        self._closed = True
        return {}

    def _memory(self, *, deadline: Deadline, **model: Any) -> dict[str, Any]:
        held = self._run(model, deadline, runs=3).overall_bytes
        if not held:
            raise ChannelError("garbled", "this benchmark_model prints no memory footprint", "get a newer one")
        return {"bytes": held, "method": "benchmark_model"}

    def _race(
        self,
        *,
        a: Mapping[str, Any],
        b: Mapping[str, Any] | None,
        rounds: int,
        round_s: float,
        min_runs: int,
        warmup_runs: int,
        warmup_s: float,
        most_s: float,
        deadline: Deadline,
    ) -> dict[str, Any]:
        """After `most_s` no further round begins, but three there are; slow models get fewer runs in each."""
        limit = Deadline.after(most_s)
        racers = {"a": a} if b is None else {"a": a, "b": b}
        reports: dict[str, list[Report]] = {name: [] for name in racers}
        before = self._read_state(deadline)
        for index in range(min(rounds, _MAX_ROUNDS)):
            if index >= _LEAST_ROUNDS and limit.left() <= 0:
                break
            for name in sorted(racers, reverse=bool(index % 2)):
                report = self._run(
                    racers[name],
                    deadline,
                    runs=min_runs,
                    least_s=round_s,
                    warmup_runs=warmup_runs,
                    warmup_s=warmup_s,
                    # Two models with a warm-up and the timed runs each.
                    most_s=most_s / _LEAST_ROUNDS / 4,
                    checked=index > 0,
                )
                reports[name].append(report)
        states = [before, {**self._read_state(deadline), **self._warned()}]
        answer: dict[str, Any] = {"samples_b": [], "warmups_b": [], "states": states}
        medians = all(r.median_s is not None and r.median_s >= _FINE_S for each in reports.values() for r in each)
        for name, each in reports.items():
            answer[f"samples_{name}"] = [r.median_s if medians else r.mean_s for r in each]
            answer[f"warmups_{name}"] = [r.warmup_s for r in each]
            answer[f"load_s_{name}"] = [r.init_s for r in each]
            answer[f"first_s_{name}"] = [r.first_s for r in each]
            answer[f"opened_{name}"] = self._opened(racers[name]) if racers[name].get("shapes") is not None else None
        return {**answer, "runs": {name: min(r.count for r in each) for name, each in reports.items() if each}}

    def _operators(self, *, runs: int, scratch: str = "", deadline: Deadline, **model: Any) -> dict[str, Any]:
        del scratch  # the table comes with the output
        report = self._run(model, deadline, runs=runs, operators=True)
        if not report.operators:
            return {"operators": None, "why": "this benchmark_model prints no times of operators"}
        return {"operators": [{"name": o.name, "type": o.kind, "seconds": o.mean_s} for o in report.operators]}

    # --------------------------------------------------------------------------------------------- running a model

    def _run(
        self,
        model: Mapping[str, Any],
        deadline: Deadline,
        *,
        runs: int = 1,
        least_s: float = 0.0,
        warmup_runs: int = 1,
        warmup_s: float = 0.0,
        most_s: float = math.inf,
        operators: bool = False,
        checked: bool = False,
    ) -> Report:
        """One process of benchmark_model; `checked`: the file's hash was looked at before."""
        path = str(model["path"])
        if not checked:
            self._check(path, str(model["sha256"]), deadline)
        # What an input takes stands in the file, which is fetched for it: candidates of a search need none of it.
        told = any(model.get(key) is not None for key in ("shapes", "values", "signature"))
        fed = self._feed_of(model) if told else Feed(None, {}, [], [])
        options = benchmark_model.arguments(
            path,
            threads=self._threads,
            runs=runs,
            least_s=least_s,
            warmup_runs=warmup_runs,
            warmup_s=warmup_s,
            most_s=max(0.1, min(most_s, deadline.left() / 2)),
            shapes=fed.shapes,
            operators=operators,
        )
        if fed.values:
            # Relative names: the option's value may hold no colon or comma.
            files = (f"input{index}:{_value_name(data)}" for index, data in fed.values.items())
            options.append(f"--input_layer_value_files={','.join(files)}")
        ends = self._ends(model) if told else None
        if ends is not None and len(ends.signatures) > 1 and ends.signature:
            options.append(f"--signature_to_run_for={ends.signature}")
        answer = self._alone(shlex.join([self._binary, *options]), deadline)
        if answer.code != 0:
            raise benchmark_model.failure(answer.code, answer.text)
        report = benchmark_model.parse(answer.text)
        if (
            ends is not None
            and not ends.first
            and any("signature_to_run_for" in warning for warning in report.warnings)
        ):
            raise ChannelError("refused", "this benchmark_model cannot choose a signature", "get one of LiteRT")
        self._warnings.update(dict.fromkeys(report.warnings))
        return report

    def _alone(self, command: str, deadline: Deadline) -> Answer:
        """Run a command whose process can be found again, should the link be cut or the deadline pass meanwhile."""
        folder, pid = (
            shlex.quote(self._phone.scratch("x").rpartition("/")[0]),
            shlex.quote(self._phone.scratch("pid")),
        )
        # `exec`, so that the number is the program's own and not a shell's.
        try:
            alone = f"exec sh -c {shlex.quote(f'echo $$ > {pid}; exec {command}')}"
            return self._phone.shell(f"cd {folder} && {{ {while_heard(alone)}; }}", deadline)
        except ChannelError as error:
            if error.kind == "timeout":
                self._end_leftover(Deadline.after(_SHORT_S))
            raise

    def _end_leftover(self, deadline: Deadline) -> None:
        """End what an earlier request left running: it would slow the next measurement down, unseen."""
        pid = self._phone.scratch("pid")
        try:
            self._phone.shell(f"{end_leftover(pid)}; rm -f {shlex.quote(pid)}", deadline)
        except ChannelError as error:
            if error.kind == "busy":
                raise

    def _check(self, path: str, sha256: str, deadline: Deadline) -> None:
        answer = self._phone.shell(f"sha256sum < {shlex.quote(path)}", deadline)
        if answer.code != 0 or not answer.text.startswith(sha256):
            raise ChannelError(
                "lost", "the file on the phone is missing or not the one that was sent (SHA-256 differs)"
            )

    def _feed_of(self, model: Mapping[str, Any]) -> Feed:
        """What a model is fed with; values are put on the phone the first time."""
        key = json.dumps({**model, "path": ""}, sort_keys=True)
        if key not in self._feeds:
            given: dict[str, Any] = {}
            for name, value in (model.get("values") or {}).items():
                given[name] = value.get("text")
                if given[name] is None:
                    given[name] = np.load(io.BytesIO(self._fetch(str(value["path"]))), allow_pickle=False)
            fed = feed(self._ends(model).inputs, model, given)
            for data in fed.values.values():
                self._store(data, self._phone.scratch(_value_name(data)))
            self._feeds[key] = fed
        return self._feeds[key]

    def _opened(self, model: Mapping[str, Any]) -> dict[str, Any]:
        fed, ends = self._feed_of(model), self._ends(model)
        return {
            "inputs": fed.inputs,
            "signature": ends.signature,
            "signatures": ends.signatures,
            "binding": "",
            "unused": fed.unused,
        }

    def _ends(self, model: Mapping[str, Any]) -> Ends:
        """Inputs and outputs of a model on the phone, of its signature where one is asked for."""
        key = str(model["sha256"]), str(model.get("signature") or "")
        if key not in self._known:
            self._known[key] = tensors(self._fetch(str(model["path"])), key[1])
        return self._known[key]

    def _tensors(self, model: Mapping[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        ends = self._ends(model)
        return ends.inputs, ends.outputs

    def _fetch(self, remote: str) -> bytes:
        with temporary_folder() as folder:
            local = folder / "file"
            self._phone.pull(remote, local)
            return local.read_bytes()

    def _store(self, data: bytes, remote: str) -> None:
        with temporary_folder() as folder:
            local = folder / "file"
            local.write_bytes(data)
            self._phone.send(local, remote)

    # --------------------------------------------------------------------------------------------------- predict

    def _predict(self, *, outputs: str, deadline: Deadline, output: str = "", **how: Any) -> dict[str, Any]:
        """Examples (N, ...) one batch at a time; writes one output (N, K) as the probe does."""
        model, given = self._examples(**how)
        gives = self._tensors(model)[1]
        index, start, rows = adb_examples.named(output, gives), time.monotonic(), []
        for first in range(0, len(given.data), _IMAGES):
            for answer in self._feed(model, given, given.data[first : first + _IMAGES], deadline):
                rows.append(adb_examples.rows(gives[index], answer[index], given.size))
        out = io.BytesIO()
        made = np.concatenate(rows)[: given.count] if rows else np.zeros((0, 0), np.float32)
        np.save(out, made, allow_pickle=False)
        self._store(out.getvalue(), outputs)
        return {"count": len(made), "seconds": time.monotonic() - start}

    def _outputs(self, *, deadline: Deadline, output: str = "", **how: Any) -> dict[str, Any]:
        """What each output is for the first batch, as the probe tells it."""
        del output  # all are told of
        model, given = self._examples(**how)
        start = time.monotonic()
        answer = self._feed(model, given, given.data[:1], deadline)[0]
        told = [adb_examples.told(*each, given.size) for each in zip(self._tensors(model)[1], answer, strict=True)]
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
        takes = self._tensors(model)[0]
        if self._images[0] != inputs:
            self._images = inputs, np.load(io.BytesIO(self._fetch(inputs)), allow_pickle=False)
        return model, adb_examples.batches(takes, self._images[1][start:stop], max(1, batch), input)

    def _feed(
        self,
        model: Mapping[str, Any],
        given: Batches,
        part: Sequence[tuple[bytes, ...]],
        deadline: Deadline,
    ) -> list[list[bytes]]:
        """All outputs of each batch of `part`, some of those `given`."""
        options = benchmark_model.arguments(
            str(model["path"]),
            threads=self._threads,
            runs=1,
            least_s=0,
            warmup_runs=1,
            warmup_s=0,
            most_s=max(0.1, deadline.left() / 2),
            shapes=given.shapes,
        )
        # Relative names: the option's value may hold no colon or comma.
        inputs = range(len(given.shapes))
        options.append(f"--input_layer_value_files={','.join(f'input{number}:one{number}' for number in inputs)}")
        options.append("--output_filepath=out")
        for number in inputs:
            self._store(b"".join(each[number] for each in part), self._phone.scratch(f"images{number}"))
        results = self._phone.scratch("results")
        one = " && ".join(
            f"dd if=images{number} of=one{number} bs={len(part[0][number])} skip=$i count=1 2>/dev/null"
            for number in inputs
        )
        loop = (
            f"rm -f results; i=0; while [ $i -lt {len(part)} ]; do rm -f out; {one} && "
            f"{shlex.join([self._binary, *options])} > log 2>&1; c=$?; [ $c = 0 ] || {{ tail -c 4000 log; exit $c; }}; "
            f"[ -f out ] || exit 90; cat out >> results || exit 92; i=$((i+1)); done"
        )
        answer = self._alone(f"sh -c {shlex.quote(loop)}", deadline)
        check_room(answer.text)
        if answer.code == 90:
            raise ChannelError("refused", "this benchmark_model writes no outputs", "get one of LiteRT")
        if answer.code != 0:
            raise benchmark_model.failure(answer.code, answer.text)
        data = self._fetch(results)
        sizes = [adb_examples.output_bytes(each, given.size) for each in self._tensors(model)[1]]
        if len(data) != sum(sizes) * len(part):
            said = f"benchmark_model wrote {len(data)} bytes for {len(part)} outputs of {sum(sizes)}"
            raise ChannelError("garbled", said)
        ends = list(accumulate(sizes, initial=0))
        return [[data[at + a : at + b] for a, b in pairwise(ends)] for at in range(0, len(data), sum(sizes))]

    # --------------------------------------------------------------------------------------------------- the state

    def _state(self, *, deadline: Deadline) -> dict[str, Any]:
        return {"state": {**self._read_state(deadline), **self._warned()}}

    def _read_state(self, deadline: Deadline) -> dict[str, Any]:
        return parse_state(self._phone.shell(STATE, _soon(deadline)).text)

    def _warned(self) -> dict[str, str]:
        """What benchmark_model warned of since `hello`: a model that a delegate left to the CPU is no secret."""
        return {"warnings": " | ".join(self._warnings)[:200]} if self._warnings else {}


def _value_name(data: bytes) -> str:
    return f"value-{hashlib.sha256(data).hexdigest()[:32]}"


def end_leftover(pid: str) -> str:
    """The command that ends the program of ours whose number the file `pid` in the session's scratch folder holds."""
    file, cache = shlex.quote(pid), shlex.quote(f"{pid.rsplit('/', 2)[0]}/cache/")
    # The number may be another program's by now; ours has a path in our cache among its words.
    return f"{{ p=$(cat {file} 2>/dev/null) && grep -qaF {cache} /proc/$p/cmdline 2>/dev/null && kill -9 $p; true; }}"


def _soon(deadline: Deadline) -> Deadline:
    return min(deadline, Deadline.after(_SHORT_S), key=Deadline.left)
