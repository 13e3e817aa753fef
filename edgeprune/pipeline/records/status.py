"""`status.json`: where a run is, for whoever watches it (documented in docs/interfaces.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from edgeprune.core.schema import STATUS_SCHEMA
from edgeprune.core.version import VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a run is at inside its stage."""

    title: str
    #: Steps that are done, and how many there are; None where that is not known.
    done: float
    total: float | None
    #: Seconds since it began.
    seconds: float
    #: The newest figure worth showing; may be empty.
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """What a `status.json` holds."""

    schema: int = STATUS_SCHEMA
    #: The version that wrote it.
    edgeprune: str = VERSION
    stage: str
    #: Seconds since the run, or its continuation, began.
    seconds: float
    #: None between two steps.
    step: Step | None = None
    #: That of `edgeprune run`, once the run has ended.
    exit_code: Annotated[int, Field(ge=0, le=255)] | None = None
