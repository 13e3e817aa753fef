"""A simulated device without a probe: no process starts, so that hundreds of races take seconds."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeprune.core.clock import Deadline
from edgeprune.core.session import DeviceSpec
from edgeprune.devices.simulated.simulation import Simulation


class MadeUpSession:
    """A `Session`: figures are the simulation's; heap is twice the file.

    `scatter`: by how much each fresh process is off for each file it times, as where weights come to lie in memory.
    `first`: what is timed first in a race is so many times as slow.
    """

    def __init__(self, description: Path, *, scatter: float = 0.0, first: float = 1.0) -> None:
        self.simulation = Simulation(description)
        self.spec = DeviceSpec(name="made-up", kind="simulated", address=str(description))
        self._random = random.Random(description.read_text())
        self._scatter, self._first = scatter, first

    def facts(self) -> Mapping[str, Any]:
        return {"device": "made-up", **self.simulation.facts}

    def push(self, path: Path) -> str:
        return str(path)

    def pull(self, remote: str, path: Path) -> None:
        raise NotImplementedError

    def scratch(self, name: str) -> str:
        return name

    def remove(self, remote: str) -> None: ...

    def clean(self) -> int:
        return 0

    def close(self) -> None: ...

    def start(self, probe: Path) -> MadeUpSession:
        return self

    def request(self, message: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        answer: dict[str, Any] = getattr(self, f"_{message['op']}")(message)
        return {"ok": True, **answer}

    def _hello(self, message: Mapping[str, Any]) -> dict[str, Any]:
        facts = {**self.simulation.facts, "runtime": message["runtime"], "threads": message["threads"]}
        return {"facts": facts, "ops": ["race", "single"]}

    def _load(self, message: Mapping[str, Any]) -> dict[str, Any]:
        port = ["x", [1, 4], "float32", 0.0, 0]
        return {"inputs": [["x", [1, 4], "float32"]], "ports": {"inputs": [port], "outputs": [port]}}

    def _memory(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return {"bytes": 2 * Path(message["path"]).stat().st_size, "method": "mallinfo2"}

    def _race(self, message: Mapping[str, Any]) -> dict[str, Any]:
        files = {name: message[name] for name in ("a", "b") if message[name] is not None}
        answer = self.simulation.race(files, message)
        for name in files:
            off = math.exp(self._random.gauss(0, self._scatter)) * (self._first if name == "a" else 1.0)
            answer[f"samples_{name}"] = [sample * off for sample in answer[f"samples_{name}"]]
        return answer

    def _single(self, message: Mapping[str, Any]) -> dict[str, Any]:
        answer = self.simulation.single(message)
        off = math.exp(self._random.gauss(0, self._scatter))
        return {**answer, "runs_s": [run * off for run in answer["runs_s"]]}
