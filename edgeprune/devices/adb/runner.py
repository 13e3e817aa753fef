"""Processes of `benchmark_model` on a phone, one model each, and the files they read and write there."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgeprune.core.clock import Deadline
from edgeprune.core.session import Answer
from edgeprune.core.temporary import temporary_folder
from edgeprune.devices.adb import benchmark_model
from edgeprune.devices.adb import examples as adb_examples
from edgeprune.devices.adb.benchmark_model import Report, Timing
from edgeprune.devices.adb.client import check_room, while_heard
from edgeprune.devices.adb.examples import Batches
from edgeprune.devices.adb.inputs import Feed, feed
from edgeprune.devices.adb.tensors import Ends, Tensor, tensors
from edgeprune.devices.channel import ChannelError

#: For what takes a phone no time.
SHORT_S = 15.0


class Phone(Protocol):
    """What is needed of an `AdbSession` (see there)."""

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


class Runner:
    """Runs models, as requests name them (path, SHA-256, how they are fed), with a phone's `benchmark_model`.

    What fails raises ChannelError with the failure's kind.
    """

    def __init__(self, phone: Phone, binary: str) -> None:
        """`binary` is benchmark_model's path on the phone."""
        self._phone = phone
        self._binary = binary
        #: 0 until `hello` chooses them.
        self.threads = 0
        self._known: dict[tuple[str, str], Ends] = {}
        #: What files are fed with, by their requests.
        self._feeds: dict[str, Feed] = {}
        self._warnings: dict[str, None] = {}

    def run(
        self,
        model: Mapping[str, Any],
        timing: Timing,
        deadline: Deadline,
        *,
        operators: bool = False,
        checked: bool = False,
    ) -> Report:
        """One process of benchmark_model; `checked`: the file's hash was looked at before."""
        path = str(model["path"])
        if not checked:
            self.check(path, str(model["sha256"]), deadline)
        # What an input takes stands in the file, which is fetched for it: candidates of a search need none of it.
        told = any(model.get(key) is not None for key in ("shapes", "values", "signature"))
        fed = self._feed_of(model) if told else Feed(None, {}, [], [])
        options = benchmark_model.arguments(
            path,
            replace(timing, most_s=max(0.1, min(timing.most_s, deadline.left() / 2))),
            threads=self.threads,
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
                self.end_leftover(Deadline.after(SHORT_S))
            raise

    def end_leftover(self, deadline: Deadline) -> None:
        """End what an earlier request left running: it would slow the next measurement down, unseen."""
        pid = self._phone.scratch("pid")
        try:
            self._phone.shell(f"{end_leftover(pid)}; rm -f {shlex.quote(pid)}", deadline)
        except ChannelError as error:
            if error.kind == "busy":
                raise

    def check(self, path: str, sha256: str, deadline: Deadline) -> None:
        """Raises ChannelError("lost") unless the file on the phone is the one that was sent."""
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
                    given[name] = np.load(io.BytesIO(self.fetch(str(value["path"]))), allow_pickle=False)
            fed = feed(self._ends(model).inputs, model, given)
            for data in fed.values.values():
                self.store(data, self._phone.scratch(_value_name(data)))
            self._feeds[key] = fed
        return self._feeds[key]

    def opened(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """How a model is run, as the probe tells it."""
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
            self._known[key] = tensors(self.fetch(str(model["path"])), key[1])
        return self._known[key]

    def tensors(self, model: Mapping[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        """Inputs and outputs of a model."""
        ends = self._ends(model)
        return ends.inputs, ends.outputs

    def fetch(self, remote: str) -> bytes:
        """What a file on the phone holds."""
        with temporary_folder() as folder:
            local = folder / "file"
            self._phone.pull(remote, local)
            return local.read_bytes()

    def store(self, data: bytes, remote: str) -> None:
        """Write a file on the phone."""
        with temporary_folder() as folder:
            local = folder / "file"
            local.write_bytes(data)
            self._phone.send(local, remote)

    def outputs(
        self,
        model: Mapping[str, Any],
        given: Batches,
        part: Sequence[tuple[bytes, ...]],
        deadline: Deadline,
    ) -> list[list[bytes]]:
        """All outputs of each batch of `part`, some of those `given`."""
        options = benchmark_model.arguments(
            str(model["path"]),
            Timing(most_s=max(0.1, deadline.left() / 2)),
            threads=self.threads,
            shapes=given.shapes,
        )
        # Relative names: the option's value may hold no colon or comma.
        inputs = range(len(given.shapes))
        options.append(f"--input_layer_value_files={','.join(f'input{number}:one{number}' for number in inputs)}")
        options.append("--output_filepath=out")
        for number in inputs:
            self.store(b"".join(each[number] for each in part), self._phone.scratch(f"images{number}"))
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
        data = self.fetch(results)
        sizes = [adb_examples.output_bytes(each, given.size) for each in self.tensors(model)[1]]
        if len(data) != sum(sizes) * len(part):
            said = f"benchmark_model wrote {len(data)} bytes for {len(part)} outputs of {sum(sizes)}"
            raise ChannelError("garbled", said)
        ends = list(accumulate(sizes, initial=0))
        return [[data[at + a : at + b] for a, b in pairwise(ends)] for at in range(0, len(data), sum(sizes))]

    def warned(self) -> dict[str, str]:
        """What benchmark_model warned of since `hello`: a model that a delegate left to the CPU is no secret."""
        return {"warnings": " | ".join(self._warnings)[:200]} if self._warnings else {}


def _value_name(data: bytes) -> str:
    return f"value-{hashlib.sha256(data).hexdigest()[:32]}"


def end_leftover(pid: str) -> str:
    """The command that ends the program of ours whose number the file `pid` in the session's scratch folder holds."""
    file, cache = shlex.quote(pid), shlex.quote(f"{pid.rsplit('/', 2)[0]}/cache/")
    # The number may be another program's by now; ours has a path in our cache among its words.
    return f"{{ p=$(cat {file} 2>/dev/null) && grep -qaF {cache} /proc/$p/cmdline 2>/dev/null && kill -9 $p; true; }}"
