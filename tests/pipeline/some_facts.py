"""What settings are decided by, where a test has no data or network of its own to ask."""

from __future__ import annotations

from typing import Any

from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.settings import Facts, Settled, settle

FACTS = Facts(
    images=6000,
    shape=(1, 28, 28),
    moves=True,
    mirrors=False,
    validation=5000,
    convolves=False,
    macs=300_000,
    groups=3,
    inputs=True,
    runtime="onnxruntime",
)


def settled(facts: Facts = FACTS, **options: Any) -> Settled:
    """The settings of a run with these options."""
    return settle(RunConfig(**options), facts)
