"""What is left of a `bench conv`, and about how long it will take: a few timed steps tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from edgeprune.models.zoo import build
from edgeprune.papers.conv.config import SCRATCH, ConvConfig, Protocol
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.placing import train_device
from edgeprune.training.pace import has_bfloat16, step_seconds
from edgeprune.training.place import Place, Precision

BATCH_SIZE = 128
#: Training images for batch-norm statistics of a candidate; a forward pass is about a third of a step.
_FORWARD_IMAGES, _FORWARD = 500, 1 / 3
#: Seconds for a candidate on the device, and for what each part needs besides: confirming, exporting, racing.
_DEVICE_S, _PART_S, _NETWORK_S = 0.8, 12.0, 90.0


@dataclass(frozen=True, slots=True)
class Part:
    """One thing to do: a search, or to finish what it found (of the row without a search: to find and train it)."""

    network: str
    seed: int
    bound: float
    method: str
    what: Literal["search", "finish"]

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.network} at {self.bound:g}x, {self.method}, seed {self.seed}"


def parts_of(config: ConvConfig, name: str, seed: int) -> Iterator[Part]:
    """All parts of one unpruned network, in order: bound by bound, what was found is finished before the next."""
    protocol = config.protocol(name)
    for bound in protocol.bounds:
        for method in config.methods:
            yield Part(name, seed, bound, method, "search")
        for method in config.methods:
            if method in protocol.finished:
                yield Part(name, seed, bound, method, "finish")


class Pace:
    """Estimates seconds of parts, and learns from those that were done how far off it is."""

    def __init__(self, config: ConvConfig, parts: Sequence[Part], step: Callable[[str, Protocol], float]) -> None:
        """`step(name, protocol)`: seconds of a training step of the unpruned network."""
        self._config = config
        self.steps: Mapping[str, float] = {
            name: step(name, config.protocol(name)) for name in dict.fromkeys(part.network for part in parts)
        }
        self._left = {part: self._seconds(part) for part in parts}
        self._networks = {(part.network, part.seed): self._common(part.network) for part in parts}
        self._spent = self._expected = 0.0

    def network(self, name: str) -> float:
        """Seconds that are left for one network, all its seeds."""
        own = sum(seconds for part, seconds in self._left.items() if part.network == name)
        return own + sum(seconds for (network, _), seconds in self._networks.items() if network == name)

    def begun(self, name: str, seed: int, seconds: float) -> None:
        """An unpruned network is ready, after so many seconds."""
        self._learn(self._networks.pop((name, seed), 0.0), seconds)

    def done(self, part: Part, seconds: float) -> None:
        """A part was finished in so many seconds."""
        self._learn(self._left.pop(part, 0.0), seconds)

    @property
    def parts(self) -> int:
        """How many are left."""
        return len(self._left)

    @property
    def left(self) -> float:
        """Seconds that are left, corrected by how far off the estimates were so far."""
        off = self._spent / self._expected if self._expected > 0 else 1.0
        return off * (sum(self._left.values()) + sum(self._networks.values()))

    def _learn(self, expected: float, spent: float) -> None:
        self._expected += expected
        self._spent += spent

    def _common(self, name: str) -> float:
        """Of the unpruned network: its training, the criterion, and the teacher's answers, which all share."""
        protocol, step = self._config.protocol(name), self.steps[name]
        epoch = protocol.images / BATCH_SIZE * step
        trained = 0 if protocol.weights else protocol.train_epochs
        return trained * epoch + _FORWARD * protocol.finetune_epochs * epoch + _NETWORK_S

    def _seconds(self, part: Part) -> float:
        """A pruned network's steps take about the bound's share of the unpruned one's."""
        protocol, step = self._config.protocol(part.network), part.bound * self.steps[part.network]
        # Its validation included.
        epoch = (1 + _FORWARD / 3) * protocol.images / BATCH_SIZE * step
        if part.what == "finish":
            scratch = part.method == SCRATCH
            return (protocol.finetune_epochs + (protocol.train_epochs if scratch else 0)) * epoch + _PART_S
        if part.method == SCRATCH:
            return 2 * _PART_S
        forward = (_FORWARD_IMAGES + protocol.images / 3) / BATCH_SIZE * _FORWARD
        candidate = (protocol.search_steps + forward) * step + _DEVICE_S
        return protocol.episodes * candidate + _PART_S


def step_of(name: str, protocol: Protocol) -> float:
    """Seconds of a training step of 128 images, where it is quickest: in bfloat16 if the processor has it."""
    device = train_device(RunConfig())
    precisions: tuple[Precision, ...] = ("float32", "bfloat16") if has_bfloat16(device) else ("float32",)
    places = [Place(device, "channels_last", precision) for precision in precisions]
    x, labels = torch.rand(BATCH_SIZE, *protocol.shape), torch.arange(BATCH_SIZE) % 10
    return min(min(taken) for taken in step_seconds(build(name, protocol.shape, 10), x, labels, places, 2).values())


def format_hours(seconds: float) -> str:
    """`4 h 05 min`, or minutes alone."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{max(1, minutes)} min"
