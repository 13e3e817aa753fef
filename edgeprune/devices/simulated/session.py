"""A device that is made up, see `simulation` for its description: for tests, of users and ours.

What it answers has a unit of its own and is never called a measurement. Models are really run, by a probe on this
machine: which of them run, accuracy and memory are real.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeprune.core.clock import Deadline
from edgeprune.core.session import Channel, DeviceSpec
from edgeprune.devices.channel import ChannelError
from edgeprune.devices.local import LocalSession
from edgeprune.devices.simulated.simulation import Simulation

#: The keys of a request that name a model file and how it is fed; see `probe.probe`.
_FILE = ("path", "sha256", "shapes", "values", "shared", "signature", "beside", "prefix")


class SimulatedSession:
    """A `Session` (see `edgeprune.core.session`); also a context manager."""

    def __init__(self, spec: DeviceSpec) -> None:
        """Read the description. Raises UsageError where it is none, DeviceError as `LocalSession`."""
        self._simulation = Simulation(Path(spec.address))
        self._local = LocalSession(spec)

    @property
    def spec(self) -> DeviceSpec:
        """What was opened."""
        return self._local.spec

    def facts(self) -> Mapping[str, Any]:
        """What it is: `kind` says that it is simulated, `cpu` from which description."""
        return {**self._local.facts(), **self._simulation.facts}

    def push(self, path: Path) -> str:
        """See `LocalSession.push`; may fail as described."""
        self._simulation.operate("push")
        return self._local.push(path)

    def pull(self, remote: str, path: Path) -> None:
        """See `LocalSession.pull`."""
        self._local.pull(remote, path)

    def scratch(self, name: str) -> str:
        """See `LocalSession.scratch`."""
        return self._local.scratch(name)

    def remove(self, remote: str) -> None:
        """See `LocalSession.remove`."""
        self._local.remove(remote)

    def start(self, probe: Path) -> Channel:
        """A channel that makes up what a probe would measure, and asks a real one for the rest; may fail."""
        self._simulation.operate("start")
        return _SimulatedChannel(self._local.start(probe), self._simulation)

    def clean(self) -> int:
        """Nothing outlives a session here."""
        return 0

    def close(self) -> None:
        """End the probes and remove the work folder; never raises."""
        self._local.close()

    def __enter__(self) -> SimulatedSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _SimulatedChannel:
    """A `Channel` between the client and a real probe on this machine."""

    #: What a real probe would answer with this machine's seconds, which are not this device's.
    _UNKNOWN = ("throughput", "operators")

    def __init__(self, probe: Channel, simulation: Simulation) -> None:
        self._probe = probe
        self._simulation = simulation
        self._broken = False

    def request(self, message: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """See `Channel.request`."""
        if self._broken:
            raise ChannelError("lost", "the probe has ended")
        try:
            self._simulation.operate("request", deadline)
        except ChannelError:
            self._broken = True
            self.close()
            raise
        made_up = {"state": self._state, "race": self._race, "single": self._single}
        op = message.get("op")
        if op in self._UNKNOWN:
            return {"ok": False, "kind": "refused", "error": f"a simulated device has no {op}"}
        if op in made_up:
            return made_up[op](message, deadline)
        answer = self._probe.request(message, deadline)
        if op == "hello" and answer["ok"]:
            answer["facts"] = {**answer["facts"], **self._simulation.facts}
            answer["ops"] = [name for name in answer.get("ops", ()) if name not in self._UNKNOWN]
        return answer

    def close(self) -> None:
        """End the probe; never raises."""
        self._probe.close()

    def _state(self, message: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:  # noqa: ARG002
        return {"ok": True, "state": self._simulation.asked_state()}

    def _race(self, message: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        files = {name: message[name] for name in ("a", "b") if message[name] is not None}
        refusal, opened = self._try(files, deadline)
        told = {f"opened_{name}": each for name, each in opened.items()}
        return refusal or {**self._simulation.race(files, message), **told}

    def _single(self, message: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        refusal, opened = self._try({"": message}, deadline)
        return refusal or {**self._simulation.single(message), "opened": opened[""]}

    def _try(
        self, files: Mapping[str, Mapping[str, Any]], deadline: Deadline
    ) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Really open and run each file once: how, by the key of `files`.

        The first item is what the real probe says of a file that it cannot run, or this device of one it knows no
        latency of.
        """
        opened: dict[str, Any] = {}
        for name, file in files.items():
            named = {key: file[key] for key in _FILE if key in file}
            answer = self._probe.request({"op": "load", "id": "simulated", **named}, deadline)
            if not answer["ok"]:
                return answer, {}
            opened[name] = answer.get("opened")
            self._probe.request({"op": "unload", "id": "simulated"}, deadline)
            if not self._simulation.costs(file):
                why = f"the simulated device knows no latency of the file with SHA-256 {file['sha256']}"
                return {"ok": False, "kind": "refused", "error": why}, {}
        return None, opened
