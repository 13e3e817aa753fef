"""The files of candidates, and which run they are of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from torch import nn

from edgeprune.artifacts import describe
from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import DeviceError
from edgeprune.core.files import write_bytes
from edgeprune.core.measurement import Failure, Measurement
from edgeprune.core.progress import Progress
from edgeprune.core.runtimes import Format, Precision
from edgeprune.exporters import EXPORTERS, export_at
from edgeprune.exporters.codes import TemplateError
from edgeprune.exporters.slicing import Slicer
from edgeprune.models.inputs import to_numpy
from edgeprune.pipeline.config import LossPolicy
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pruning.structure import Criterion
from edgeprune.pruning.surgery import prune

#: Images that ranges of a candidate's 8-bit integers are taken from.
_FEW = 4


class FileMaker:
    """Candidate files: the exported template sliced in milliseconds, or a real export where that cannot be done.

    `how` says which ("sliced" or "exported"); the result carries it. Files of another precision than fp32 are made
    with ranges of a few images, which do not change the cost.
    """

    def __init__(
        self, prepared: Prepared, criterion: Criterion, kind: Format, folder: Path, progress: Progress
    ) -> None:
        self._prepared, self._criterion = prepared, criterion
        self.kind: Format = kind
        self._folder = folder
        self._example = prepared.validation.inputs(slice(0, 2))
        self._slicer: Slicer | None = None
        self._progress = progress
        self._few = to_numpy(prepared.train.inputs(slice(0, _FEW)))
        self.how: Literal["sliced", "exported"] = "sliced"
        self._made = 0
        structure = prepared.structure
        pruned = partial(prune, criterion, structure)
        try:
            self._slicer = Slicer(prepared.network, structure, self._example, kind, criterion.plan, pruned)
            if (refused := self._slicer.branches_refused) is not None:
                progress.say(f"candidates without a branch are exported, which is slower: {refused.message}")
        except TemplateError as error:
            self._give_up(error)

    def make(self, pruned: nn.Module | None, plan: PruningPlan, precision: Precision = "fp32") -> Path:
        """Write the candidate's file, under a name of its own, and return its path.

        Without its `pruned` network one is cut: what the weights are does not change the cost.
        """
        pruned = pruned or prune(self._criterion, self._prepared.structure, plan)
        self._made += 1
        path = self._folder / f"candidate-{self._made}.{self.kind}"
        self._write(path, pruned, plan)
        if precision == "fp32":
            return path
        lower = path.with_stem(f"{path.stem}-{precision}")
        export_at(describe(path), lower, precision, self._few, {})
        path.unlink()
        return lower

    def _write(self, path: Path, pruned: nn.Module, plan: PruningPlan) -> None:
        """The float32 file."""
        if self._slicer is not None and self._slicer.fits(plan):
            try:
                write_bytes(path, self._slicer.slice(pruned, plan))
                return
            except TemplateError as error:
                self._give_up(error)
        EXPORTERS[self.kind].export(pruned, self._example, path, {})

    def _give_up(self, error: TemplateError) -> None:
        self._slicer, self.how = None, "exported"
        self._progress.say(f"every candidate is exported for itself, which is slower: {error.message}")


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Which run this is, and what it does where its `device` is lost (`--on-device-loss`)."""

    name: str
    runs_dir: Path
    device: str
    on_loss: LossPolicy = "stop"


def needed(cost: Measurement | Failure, device: str) -> Measurement:
    """A cost without which nothing goes on. Raises DeviceError where it is a failure."""
    if isinstance(cost, Failure):
        advice = cost.advice or "check the device"
        raise DeviceError(f"a file could not be measured on {device}: {cost.message}", advice, retryable=cost.retryable)
    return cost
