"""Of `--precision auto`: which precisions are searched for, and that every one has its own figures."""

from __future__ import annotations

from typing import Any

import pytest

from edgeprune.core.errors import UsageError
from edgeprune.core.runtimes import Precision
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.precisions import Contender, left_out
from edgeprune.profilers.statistics import Interval

WHOLE = Contender("fp32", Interval(1.0, 1.0, 1.0), 1.0, 1.0, 0.9, 0.0)


def at(precision: Precision, latency: float, lost: float = 0.0, size: float = 0.27, memory: float = 0.6) -> Contender:
    share = Interval(latency, 0.97 * latency, 1.03 * latency)
    return Contender(precision, share, memory, size, 0.9 - lost / 100, lost)


def searched(*others: Contender, bounded: tuple[str, ...] = ("latency",), images: float = 5000) -> list[str]:
    told = left_out([WHOLE, *others], bounded, 1.0, images, "points")
    assert all(told.values())
    return [one.precision for one in (WHOLE, *others) if one.precision not in told]


def test_one_that_is_slower_is_not_searched_for_where_latency_is_bounded() -> None:
    assert searched(at("int8", 1.4)) == ["fp32"]
    assert searched(at("int8", 1.4), bounded=("latency", "bytes")) == ["fp32"]
    # Where only the file's size is bounded it may be slower.
    assert searched(at("int8", 1.4, lost=0.5), bounded=("bytes",)) == ["fp32", "int8"]


def test_one_that_is_not_told_to_be_faster_gains_nothing() -> None:
    assert searched(at("fp16", 0.99)) == ["fp32"]
    assert searched(at("fp16", 0.99, size=0.5), bounded=("bytes",)) == ["fp16"]
    assert searched(at("fp16", 0.99, memory=0.99), bounded=("memory",)) == ["fp32"]
    assert searched(at("fp16", 0.99, memory=1.05), bounded=("memory", "bytes")) == ["fp32"]


def test_one_that_loses_more_than_may_be_lost_is_not_searched_for_if_that_is_told() -> None:
    assert searched(at("int8", 0.4, lost=3.0)) == ["fp32"]
    # Two of 143 images are no proof.
    assert searched(at("int8", 0.4, lost=1.4), images=143) == ["fp32", "int8"]


def test_float32_is_searched_for_unless_another_costs_less_and_loses_next_to_nothing() -> None:
    assert searched(at("int8", 0.4, lost=0.05)) == ["int8"]
    assert searched(at("int8", 0.4, lost=0.3)) == ["fp32", "int8"]
    assert searched(at("int8", 0.4, lost=-0.1)) == ["int8"]


def test_of_two_that_are_alike_in_quality_the_cheaper_is_searched_for() -> None:
    assert searched(at("int8", 0.4), at("int8-dynamic", 0.5)) == ["int8"]
    assert searched(at("int8", 0.4, lost=0.8), at("int8-dynamic", 0.5, lost=0.3)) == ["fp32", "int8", "int8-dynamic"]
    assert searched(at("int8", 0.5, lost=0.8), at("int8-dynamic", 0.4, lost=0.3)) == ["fp32", "int8-dynamic"]
    # Neither is shown to be faster than the other: both are searched for.
    assert searched(at("int8", 0.4), at("int8-dynamic", 0.41)) == ["int8", "int8-dynamic"]


@pytest.mark.parametrize("asked", ["auto,int8", "int8,auto"])
def test_auto_stands_alone(asked: str) -> None:
    with pytest.raises(UsageError, match="write auto alone"):
        RunConfig(precision=asked)


def test_auto_wants_all(tmp_path: Any) -> None:
    assert RunConfig(precision="auto").precisions == ("fp32", "fp16", "int8", "int8-dynamic")
