"""Whether a file computes what the network computes: both are run on the same images, on this machine."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgeprune.artifacts.formats import as_input, run_model
from edgeprune.artifacts.running import Array, batches
from edgeprune.core.artifact import Artifact
from edgeprune.core.errors import ExportError
from edgeprune.core.runtimes import Format
from edgeprune.models.inputs import ask, from_numpy
from edgeprune.tasks.metrics import classes_of


@dataclass(frozen=True, slots=True)
class Parity:
    """Largest absolute difference of any output, and the share of answers that have the same largest number, or sign.

    `max_abs` is NaN where an output is: compare with `not max_abs <= allowed`.
    """

    max_abs: float
    agreement: float
    images: int
    #: Largest absolute output of the network, against which `max_abs` is large or small.
    scale: float


def check_parity(network: nn.Module, artifact: Artifact, inputs: Array) -> Parity:
    """Run file and network (a copy, in eval mode) on `inputs` (N, ...) float32, N >= 1.

    Raises ExportError where the file does not load, does not run, or gives outputs of another shape.
    """
    return compare(network, artifact.format, artifact.path, inputs)


def compare(network: nn.Module, format: Format, model: Path | bytes, inputs: Array) -> Parity:
    """`check_parity` for a file or its bytes."""
    if not len(inputs):
        raise ExportError("parity needs at least one image")
    actual = run_model(format, model, inputs)
    reference = deepcopy(network).cpu().float().eval()
    with torch.no_grad():
        expected = torch.cat([ask(reference, from_numpy(as_input(part))) for part in batches(inputs)]).numpy()
    if actual.shape != expected.shape:
        raise ExportError(f"the {format} file gives outputs {actual.shape}, the network {expected.shape}")
    agreement = float(np.mean(classes_of(actual) == classes_of(expected)))
    return Parity(float(np.abs(actual - expected).max()), agreement, len(inputs), float(np.abs(expected).max()))
