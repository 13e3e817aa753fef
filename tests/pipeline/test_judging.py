"""Of files at several precisions the best that keeps the bounds is judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeprune.core.artifact import Artifact
from edgeprune.core.errors import DeviceError
from edgeprune.core.measurement import Measurement, MeasureSettings
from edgeprune.core.runtimes import Precision
from edgeprune.exporters.parity import Parity
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.export import Exported, NotExported
from edgeprune.pipeline.judging import judge
from edgeprune.pipeline.validate import HostScores, NotValidated, Validated
from edgeprune.profilers.statistics import Interval
from edgeprune.tasks.judging import Judged
from edgeprune.tasks.metrics import metric_named

PREPARED = SimpleNamespace(
    task=SimpleNamespace(metric=metric_named("accuracy")),
    dataset=SimpleNamespace(test=SimpleNamespace(y=np.arange(10).repeat(10))),
)


def judged_as(accuracy: float) -> Judged:
    return Judged({"accuracy": accuracy}, (accuracy - 0.01, accuracy + 0.01))


SCORES = HostScores(judged_as(0.9), judged_as(0.5), judged_as(0.89), 0.2, 0.89)
AFTER: Any = SimpleNamespace(lost=1.0, lost_unit="points", ncr=2.0)


def file(precision: Precision, accuracy: float, share: float, size: int = 500) -> Validated:
    """A file that takes `share` of the unpruned one's time."""
    ours, theirs = (
        Artifact(Path(f"{stem}-{precision}.onnx"), "onnx", kind, stem, count, (), ())
        for stem, kind, count in (("model", precision, size), ("baseline", "fp32", 1000))
    )
    measured = Measurement(
        "s", (share,) * 3, (), (1.0,) * 3, 500, 1000, "mallinfo2", "", "", "d", {}, MeasureSettings("onnxruntime"),
        process=(0, 1, 2),
    )  # fmt: skip
    speedup = Interval(1 / share, 1 / share, 1 / share)
    exported = Exported("onnx", ours, theirs, Parity(0.01, 1.0, 9, 1.0))
    return Validated(exported, "onnxruntime", judged_as(accuracy), judged_as(0.9), 1.0, measured, speedup)


def chosen(asked: str, *files: Any, **bounds: Any) -> tuple[str, list[tuple[str, str]]]:
    """The precision that is judged, and the answers to its bounds."""
    config: Any = RunConfig(precision=asked, runtime="onnxruntime", **bounds)
    found, checks = judge(config, PREPARED, replace(config.budget(), max_drop=1.5), SCORES, AFTER, files)
    return found.exported.artifact.precision, [(check.bound, check.answer) for check in checks]


FLOAT, EIGHT = file("fp32", 0.89, 0.8, 800), file("int8", 0.885, 0.5, 300)


def test_the_best_that_keeps_the_bounds_is_judged() -> None:
    # Both keep 0.9x, and the float file answers better; only the other keeps 0.6x, or a third of the bytes.
    assert chosen("fp32,int8", FLOAT, EIGHT, max_latency="0.9x")[0] == "fp32"
    assert chosen("fp32,int8", FLOAT, EIGHT, max_latency="0.6x")[0] == "int8"
    assert chosen("fp32,int8", FLOAT, EIGHT, max_bytes="0.33x")[0] == "int8"
    # Equally good: the faster one.
    assert chosen("fp32,int8", file("fp32", 0.885, 0.8), EIGHT, max_latency="0.9x")[0] == "int8"


def test_one_that_nobody_asked_for_is_not_judged() -> None:
    assert chosen("int8", FLOAT, EIGHT, max_latency="0.9x")[0] == "int8"
    assert chosen("fp32", FLOAT, EIGHT, max_latency="0.6x")[0] == "fp32"


def test_what_an_8_bit_file_loses_is_judged_by_its_own_answers() -> None:
    bad = file("int8", 0.87, 0.5)
    assert chosen("int8", FLOAT, bad, max_latency="0.6x")[1] == [
        ("max_latency", "met"), ("max_drop", "not met"), ("above_chance", "met"),
    ]  # fmt: skip
    # Where both miss one bound, the better answers count.
    assert chosen("fp32,int8", FLOAT, bad, max_latency="0.6x")[0] == "fp32"
    guessing = file("int8", 0.15, 0.5)
    assert ("above_chance", "not met") in chosen("int8", FLOAT, guessing)[1]


def test_none_that_was_asked_for_is_an_error_that_says_why() -> None:
    lost = NotExported("onnx", "no ranges for it", "int8")
    others = NotExported("tflite", "another format", "int8"), NotExported("onnx", "another precision", "fp16")
    with pytest.raises(DeviceError, match="no file of --precision int8 ships: no ranges for it"):
        chosen("int8", FLOAT, *others, lost)
    there = NotValidated(EIGHT.exported, "onnxruntime", "computes it wrongly")
    with pytest.raises(DeviceError, match="computes it wrongly"):
        chosen("int8", FLOAT, there)
