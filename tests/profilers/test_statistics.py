from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.profilers.statistics import Interval, cost_interval, percentile, quotient_interval

times = st.floats(1e-6, 10.0)


def simulate(
    random: np.random.Generator, processes: int, rounds: int = 7, truth: float = 1.0, wild: float = 0.0
) -> tuple[list[float], list[float], list[int]]:
    """Fresh processes differ by 4 %, rounds by 1 %; `wild`: what one process is off."""
    shift = random.normal(0, 0.04, processes)
    shift[0] += wild
    logs = math.log(truth) + np.repeat(shift, rounds) + random.normal(0, 0.01, processes * rounds)
    against = 1e-5 * np.exp(random.normal(0, 0.1, processes * rounds))
    return list(against * np.exp(logs)), list(against), list(np.repeat(np.arange(processes), rounds))


@pytest.mark.parametrize(("processes", "wild"), [(3, 0.0), (5, 0.0), (10, 0.0), (7, 0.5), (10, 0.5)])
def test_intervals_hold_the_truth_as_often_as_they_say(processes: int, wild: float) -> None:
    random = np.random.default_rng(3)
    hits = 0
    for _ in range(600):
        interval = quotient_interval(*simulate(random, processes, wild=wild))
        hits += interval.low <= 1.0 <= interval.high
    assert 0.92 <= hits / 600 <= 0.985


def test_one_wild_process_is_left_out_and_told() -> None:
    samples = simulate(np.random.default_rng(0), 10, wild=1.0)
    interval = quotient_interval(*samples)
    assert interval.left_out == 1
    assert interval.high / interval.low < 1.15


def test_two_wild_processes_widen_the_interval() -> None:
    against = [1.0] * 10
    samples = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01, 2.0, 2.0]
    interval = quotient_interval(samples, against, range(10))
    assert interval.left_out == 0
    assert interval.high / interval.low > 1.3


def test_a_true_speed_up_is_found() -> None:
    interval = quotient_interval(*simulate(np.random.default_rng(1), 5, truth=0.5))
    assert interval.high < 0.6
    speed_up = interval.inverse()
    assert speed_up.low == pytest.approx(1 / interval.high)
    assert 1.7 < speed_up.low <= speed_up.value <= speed_up.high


def test_rounds_of_one_process_are_one_witness() -> None:
    samples, against, process = simulate(np.random.default_rng(2), 5)
    alone = quotient_interval(samples[:7], against[:7], process[:7])
    assert alone.processes == 1
    assert quotient_interval(samples, against, process).processes == 5


@given(st.lists(st.tuples(times, times, st.integers(0, 6)), min_size=2, max_size=30))
def test_order_holds_for_any_samples(rounds: list[tuple[float, float, int]]) -> None:
    interval = quotient_interval(*(list(column) for column in zip(*rounds, strict=True)))
    assert 0 <= interval.low <= interval.value * (1 + 1e-9)
    assert interval.value <= interval.high * (1 + 1e-9)


@given(st.lists(st.tuples(times, times), min_size=2, max_size=20), st.floats(0.01, 100))
def test_the_unit_does_not_matter(rounds: list[tuple[float, float]], scale: float) -> None:
    ours, theirs = (list(column) for column in zip(*rounds, strict=True))
    one = quotient_interval(ours, theirs)
    other = quotient_interval([scale * value for value in ours], [scale * value for value in theirs])
    assert other.value == pytest.approx(one.value)


@pytest.mark.parametrize(
    ("samples", "against", "process"),
    [([1.0], [1.0], []), ([1.0, 2.0], [1.0], []), ([1.0, 0.0], [1.0, 1.0], []), ([1.0, math.nan], [1.0, 1.0], [])],
)
def test_what_has_no_interval_is_refused(samples: list[float], against: list[float], process: list[int]) -> None:
    with pytest.raises(ValueError, match=r"must be|at least two"):
        quotient_interval(samples, against, process)


@pytest.mark.parametrize("tails", ["normal", "heavy"])
@pytest.mark.parametrize("within", [0.2, 1.0])
def test_a_bootstrap_of_few_processes_does_not_under_cover(tails: str, within: float) -> None:
    """Processes differ by 3 %, the median of a process's rounds by `within` of what a round of 3 % would."""
    random = np.random.default_rng(11)
    hits = tries = 0
    for processes in (5, 7, 10):
        for _ in range(300):
            shift = random.normal(0, 0.03, processes) if tails == "normal" else 0.02 * random.standard_t(3, processes)
            logs = np.repeat(shift, 11) + random.normal(0, 0.03 * within, processes * 11)
            interval = quotient_interval(np.exp(logs), np.ones(len(logs)), np.repeat(np.arange(processes), 11))
            hits += interval.low <= 1.0 <= interval.high
            tries += 1
    assert 0.93 <= hits / tries <= 0.99


def test_the_same_samples_give_the_same_interval() -> None:
    samples = simulate(np.random.default_rng(5), 7)
    assert quotient_interval(*samples) == quotient_interval(*samples)


def test_counts_that_never_vary_have_no_width() -> None:
    interval = quotient_interval([515329.0] * 6, [52822.0] * 6, [0, 0, 1, 1, 2, 2])
    assert interval.low == interval.value == interval.high
    assert interval.half_width == 0


def test_percentiles_only_where_the_count_supports_them() -> None:
    runs = [float(value) for value in range(1, 1001)]
    assert percentile(runs, 50) == 500.5
    assert percentile(runs, 99) == pytest.approx(990, abs=0.1)
    assert percentile(runs[:999], 99) is None
    assert percentile(runs[:100], 90) is not None
    assert percentile(runs[:99], 90) is None
    assert percentile(runs[:19], 50) is None


def test_an_interval_that_holds_the_limit_leaves_it_open() -> None:
    interval = Interval(0.7, 0.69, 0.72)
    answers = {limit: interval.answer(limit) for limit in (0.68, 0.69, 0.7, 0.71, 0.72, 0.73)}
    assert answers == {0.68: "not met", 0.69: "open", 0.7: "open", 0.71: "open", 0.72: "met", 0.73: "met"}
    assert [interval.answer(limit, 2.0) for limit in (0.679, 0.68, 0.739, 0.741)] == ["not met", "open", "open", "met"]
    assert Interval(0.7, 0.7, 0.7).answer(0.7) == "met"


def test_a_count_needs_no_second_round() -> None:
    assert cost_interval([30.0], [40.0]) == Interval(0.75, 0.75, 0.75)
    assert cost_interval([30.0], [40.0], relative=False) == Interval(30.0, 30.0, 30.0)
