"""`export.json`: a network's files as it is, unpruned (documented in docs/interfaces.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from edgeprune.core.schema import EXPORT_SCHEMA
from edgeprune.core.version import VERSION
from edgeprune.pipeline.records.backends import TimedBackend
from edgeprune.pipeline.records.files import Artifact, Validated
from edgeprune.pipeline.records.network import AnyBefore, Data
from edgeprune.pipeline.records.result import Device
from edgeprune.tasks.names import MetricName, TaskName

#: The record in the folder of the files.
RECORD = "export.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What a file's answers to the test set lose beside the float32 file's, and whether that is more than may be."""

    path: str
    #: In `lost_unit`.
    value: float
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Exports:
    """What an `export.json` holds."""

    schema: int = EXPORT_SCHEMA
    #: The version that wrote it.
    edgeprune: str = VERSION
    #: Every setting as given.
    config: Mapping[str, Any]
    device: Device
    data: Data
    task: TaskName
    #: What `lost` is of.
    metric: MetricName
    network: Annotated[AnyBefore, Field(discriminator="source")]
    #: Each beside the float32 file of its format.
    artifacts: tuple[Artifact, ...]
    lost: tuple[Lost, ...]
    lost_unit: str
    #: What may be lost at most.
    max_drop: float
    #: Whether every file that was asked for is there, validated, and loses no more than that.
    met: bool
    #: The fastest file of the device's runtime that loses no more.
    recommended: str
    seconds: float
    #: What runtime and threads were chosen from, where they were left to choose.
    backends: tuple[TimedBackend, ...] = ()

    def __post_init__(self) -> None:
        validated = [each.path for each in self.artifacts if isinstance(each, Validated)]
        if self.recommended not in validated:
            raise ValueError("expected the recommended file among the validated artifacts")
