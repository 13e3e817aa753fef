from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.core.errors import UsageError
from edgeprune.profilers.evidence import Ends, Evidence, decide, exactly, from_quotient
from edgeprune.profilers.gate import Threshold, default_gate, read_gate
from edgeprune.profilers.statistics import Interval, unpaired_interval


def gate(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "gate.toml"
    file.write_text(text)
    return file


def test_the_default_gate_judges_every_figure() -> None:
    figures = default_gate().figures
    assert list(figures) == ["latency", "p90", "load", "memory", "bytes", "quality"]
    assert figures["latency"] == Threshold("lower", most_percent=5, missing="fail")
    assert figures["bytes"].allowed(10_000, "B", "bytes") == 1000
    assert figures["bytes"].allowed(1_000_000, "B", "bytes") == 10_000
    assert figures["quality"].direction is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[latency]\nmost_percent = 5", "expected a version, got none; begin it with: schema = 1"),
        ("schema = 2\n[latency]", "was written by a newer edgeprune (schema 2, this version reads 1)"),
        ("schema = 'one'\n[latency]", "expected a version, got 'one'"),
        ("schema = 1", "judges no figure"),
        ("schema = 1\n[latancy]", "unknown figure 'latancy'; did you mean 'latency'?"),
        ("schema = 1\nlatency = 5", "expected a table latency, got 5; write [latency]"),
        ("schema = 1\n[latency]\nmost_procent = 5", "unknown key 'most_procent' in [latency]; did you mean"),
        ("schema = 1\n[latency]\nmost_percent = -5", "latency.most_percent: expected a number of 0 or more, got -5"),
        ("schema = 1\n[latency]\nmost_percent = nan", "expected a number of 0 or more, got nan"),
        ("schema = 1\n[latency]\nmost_percent = true", "expected a number of 0 or more, got True"),
        (
            "schema = 1\n[latency]\nmost_absolute = 5",
            "latency.most_absolute has no unit; give unit as well",
        ),
        ('schema = 1\n[latency]\nunit = "MB"', 'latency.unit: expected "s" or "ms" or "us" or "Minsn", got \'MB\''),
        ('schema = 1\n[latency]\ndirection = "higher"', 'latency.direction: expected "lower", got'),
        ('schema = 1\n[memory]\nmissing = "ignore"', 'memory.missing: expected "fail" or "warn", got \'ignore\''),
        ("schema = 1\n[latency", "it is not TOML"),
    ],
)
def test_what_is_wrong_in_a_gate_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_gate(gate(tmp_path, text))
    assert says in str(refused.value)
    assert "gate.toml" in str(refused.value)


def test_a_missing_gate_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.toml: No such file.*--write-gate"):
        read_gate(tmp_path / "no.toml")


def test_units_are_the_figures(tmp_path: Path) -> None:
    threshold = Threshold("lower", most_absolute=2, unit="ms")
    assert threshold.allowed(1.0, "s", "latency") == threshold.allowed(1.0, "simulated s", "latency") == 0.002
    with pytest.raises(UsageError, match=r"most_absolute is in ms, and .* in instructions; give it in Minsn"):
        threshold.allowed(1e6, "instructions", "latency")
    assert Threshold("lower", most_absolute=2, unit="Minsn").allowed(1e7, "instructions", "latency") == 2e6
    assert Threshold(most_absolute=1, unit="points").allowed(0.9, "share", "quality") == 0.01
    with pytest.raises(UsageError, match="give it in metric"):
        Threshold(most_absolute=1, unit="points").allowed(3.0, "metric", "quality")


def evidence(low: float, value: float, high: float, control: Interval | None = None) -> Evidence:
    return from_quotient("s", 1e-3, 1e-3, Interval(value, low, high), control)


@pytest.mark.parametrize(
    ("low", "value", "high", "verdict"),
    [
        (1.06, 1.08, 1.1, "worse"),
        (1.04, 1.06, 1.08, "open"),
        (1.01, 1.02, 1.04, "same"),
        (0.97, 1.0, 1.03, "same"),
        (0.9, 0.92, 0.94, "better"),
        (0.93, 0.94, 0.96, "same"),
        (0.9, 1.0, 1.1, "open"),
    ],
)
def test_a_change_counts_where_the_whole_interval_lies_beyond(
    low: float, value: float, high: float, verdict: str
) -> None:
    found = decide("latency", evidence(low, value, high), Threshold("lower", most_percent=5))
    assert found.verdict == verdict
    assert found.regression == (verdict == "worse")
    assert found.percent == pytest.approx(100 * (value - 1))


def test_only_what_exceeds_both_thresholds_is_a_regression() -> None:
    change = evidence(1.06, 1.08, 1.1)
    assert decide("latency", change, Threshold("lower", most_percent=5, most_absolute=50, unit="us")).regression
    assert not decide("latency", change, Threshold("lower", most_percent=5, most_absolute=200, unit="us")).regression
    assert not decide("latency", change, Threshold("lower", most_percent=20, most_absolute=50, unit="us")).regression


def test_nothing_below_the_noise_floor_counts() -> None:
    threshold = Threshold("lower", most_percent=1)
    assert decide("latency", evidence(1.03, 1.04, 1.05), threshold).verdict == "worse"
    far = decide("latency", evidence(1.03, 1.04, 1.05, Interval(1.03, 1.0, 1.06)), threshold)
    assert (far.verdict, far.floor) == ("same", pytest.approx(6e-5))
    fast = decide("latency", evidence(1.03, 1.04, 1.05, Interval(0.97, 0.94, 1.0)), threshold)
    assert fast.verdict == "same"
    assert decide("latency", evidence(0.95, 0.96, 0.97, Interval(1.0, 0.94, 1.06)), threshold).verdict == "same"


def test_quality_goes_the_metrics_way() -> None:
    less = Evidence("share", 0.95, 0.92, -0.03, Ends(-0.035, -0.025))
    point = Threshold(most_absolute=1, unit="points")
    assert decide("quality", less, point, "higher").verdict == "worse"
    error = Evidence("metric", 4.0, 3.0, -1.0, Ends(-1.1, -0.9))
    assert decide("quality", error, Threshold(most_percent=5), "lower").verdict == "better"
    with pytest.raises(
        UsageError, match='of quality lower is better, and of this metric higher is; write direction = "h'
    ):
        decide("quality", less, Threshold("lower"), "higher")


def test_what_is_missing_fails_where_the_gate_says_so() -> None:
    assert decide("p90", None, Threshold("lower", missing="fail")).regression
    warned = decide("p90", None, Threshold("lower", missing="warn"))
    assert (warned.verdict, warned.regression, warned.a) == ("missing", False, None)


def test_sizes_are_exact() -> None:
    assert decide("bytes", exactly("B", 100, 101), Threshold("lower")).verdict == "worse"
    assert decide("bytes", exactly("B", 100, 100), Threshold("lower")).verdict == "same"
    assert decide("bytes", exactly("B", 0, 100), Threshold("lower", most_percent=5)).percent is None


def test_an_unpaired_interval_holds_what_it_says() -> None:
    import numpy as np

    random, hits = np.random.default_rng(4), 0
    for _ in range(600):
        ours, theirs = np.exp(random.normal(0, 0.03, 7)), np.exp(random.normal(0, 0.01, 5))
        interval = unpaired_interval(list(ours), list(theirs))
        hits += interval.low <= 1 <= interval.high
    assert 0.92 <= hits / 600 <= 0.985
    assert unpaired_interval([2.0, 2.0], [1.0, 1.0]) == Interval(2.0, 2.0, 2.0, 2, 0)
    with pytest.raises(ValueError, match="at least two processes"):
        unpaired_interval([1.0], [1.0, 1.0])
