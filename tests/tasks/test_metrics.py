"""What every metric says, by hand; and what holds for all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeprune.core.errors import UsageError
from edgeprune.tasks.metrics import AUC, WORST, Metric, Yardstick, classes_of, metric_named
from edgeprune.tasks.names import TARGETS, TASK_NAMES, TargetKind
from edgeprune.tasks.task import TASKS

RNG = np.random.default_rng(0)


def logits(*classes: int, width: int = 3) -> NDArray[np.float32]:
    return np.eye(width, dtype=np.float32)[list(classes)]


@pytest.mark.parametrize(
    ("name", "answers", "targets", "value"),
    [
        ("accuracy", logits(0, 1, 2, 2), np.array([0, 1, 1, 2]), 3 / 4),
        # One logit for two classes.
        ("accuracy", np.float32([[0.1], [-3.0], [2.0]]), np.array([1, 0, 0]), 2 / 3),
        ("accuracy", np.float32([0.1, -3.0, 2.0]), np.array([1, 0, 0]), 2 / 3),
        ("balanced-accuracy", logits(0, 1, 2, 2), np.array([0, 1, 1, 2]), (1 + 1 / 2 + 1) / 3),
        ("top-5", np.float32([np.arange(8), -np.arange(8)]), np.array([3, 5]), 1 / 2),
        ("pixel-accuracy", logits(0, 1, 2, 2).T[None], np.array([[0, 1, 1, 2]]), 3 / 4),
        # 0: 1 of 1, 1: 1 of 2, 2: 1 of 2.
        ("miou", logits(0, 1, 2, 2).T[None], np.array([[0, 1, 1, 2]]), (1 + 1 / 2 + 1 / 2) / 3),
        ("f1", np.float32([[1, -1], [1, -1], [-1, 1]]), np.float32([[1, 0], [0, 1], [0, 1]]), (2 / 3 + 2 / 3) / 2),
        ("map", np.float32([[3, 0], [2, 0], [1, 0]]), np.float32([[1, 0], [0, 0], [1, 0]]), (1 + 2 / 3) / 2),
        ("mae", np.float32([[1], [2], [6]]), np.float32([1, 4, 2]), 2.0),
        ("mse", np.float32([1, 2, 6]), np.float32([1, 4, 2]), 20 / 3),
        ("rmse", np.float32([1, 2, 6]), np.float32([1, 4, 2]), (20 / 3) ** 0.5),
        ("r2", np.float32([1, 2, 3]), np.float32([1, 2, 6]), 1 - 3 / (14 / 3)),
    ],
)
def test_by_hand(name: str, answers: NDArray[np.float32], targets: NDArray[Any], value: float) -> None:
    assert metric_named(name).value(answers, targets) == pytest.approx(value)


def test_anomalies_stand_out_by_their_errors() -> None:
    usual, odd = np.float32([[1, 1], [2, 2], [3, 3]]), np.float32([[5, 5], [6, 6]])
    # Errors of 1, 4, 9 beside 4 and 16: of six pairs the anomaly's is larger in four, and equal in one.
    metric = AUC(odd + np.float32([[2], [4]]), odd)
    assert metric.value(usual + np.float32([[1], [2], [3]]), usual) == pytest.approx(4.5 / 6)


def example(kind: TargetKind, count: int = 60) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[Any]]:
    """Perfect answers, the best that are always the same but for numbers' unit, and their targets."""
    match kind:
        case "classes":
            targets = RNG.integers(0, 7, count)
            most = int(np.bincount(targets).argmax())
            return logits(*targets, width=7), logits(*[most] * count, width=7), targets
        case "map":
            maps = RNG.integers(0, 2, (count, 4, 4)) * RNG.integers(0, 2, (count, 4, 4))
            perfect = np.eye(2, dtype=np.float32)[maps].transpose(0, 3, 1, 2)
            return perfect, np.eye(2, dtype=np.float32)[maps * 0].transpose(0, 3, 1, 2), maps
        case "labels":
            labels = RNG.integers(0, 2, (count, 4)).astype(np.float32)
            return 2 * labels - 1, np.ones_like(labels), labels
        case "numbers":
            numbers = (1000 * RNG.exponential(size=(count, 2))).astype(np.float32)
            return numbers, np.broadcast_to(np.median(numbers, 0), numbers.shape), numbers


ALL = [(task, metric) for task in TASK_NAMES for metric in TASKS[task].metrics]


@pytest.mark.parametrize(("task", "metric"), ALL)
def test_perfect_answers_are_1_and_the_same_for_all_is_chance(task: Any, metric: type[Metric]) -> None:
    judge = metric()
    perfect, constant, targets = example(TARGETS[task])
    assert judge.quality(judge.value(perfect, targets), targets) == pytest.approx(1.0)
    assert judge.chance(targets) < 1
    if metric.name not in ("top-5", "rmse", "mse", "r2"):  # of others the best constant is another one
        value = judge.value(constant, targets)
        assert value == pytest.approx(judge.constant(targets), rel=0.02)
        assert judge.quality(value, targets) <= judge.chance(targets, constant)
    if not judge.share:
        # In whatever unit the targets are.
        assert judge.quality(judge.value(constant, targets), targets) == pytest.approx(
            judge.quality(judge.value(constant / 1e3, targets / 1e3), targets / 1e3), abs=1e-5
        )


@pytest.mark.parametrize(("task", "metric"), ALL)
def test_better_answers_have_more_merit_and_quality_and_the_interval_holds_the_value(
    task: Any, metric: type[Metric]
) -> None:
    judge = metric()
    perfect, constant, targets = example(TARGETS[task], 300)
    mixed = np.where((np.arange(300) % 3 == 0).reshape(-1, *[1] * (perfect.ndim - 1)), constant, perfect)
    few = np.where((np.arange(300) % 9 == 0).reshape(-1, *[1] * (perfect.ndim - 1)), constant, perfect)
    values = [judge.value(answers, targets) for answers in (perfect, few, mixed)]
    qualities = [judge.quality(value, targets) for value in values]
    merits = [judge.merits(answers, targets) for answers in (perfect, few, mixed)]
    assert all(each.shape == (300,) for each in merits)
    if metric.name != "top-5":
        assert qualities[0] > qualities[1] > qualities[2]
        assert merits[0].mean() > merits[1].mean() > merits[2].mean()
    low, high = judge.interval(mixed, targets)
    assert low <= values[2] <= high
    assert low < high
    yardstick = Yardstick.on(judge, targets)
    assert [yardstick.value(quality) for quality in qualities] == pytest.approx(values, abs=1e-6)


def test_a_share_is_told_in_percent_and_an_error_in_its_own_unit() -> None:
    accuracy, mae = metric_named("accuracy"), metric_named("mae")
    assert (accuracy.show(0.93456), mae.show(12.345678)) == ("93.46 %", "12.35")
    assert (accuracy.lost(0.93, 0.92), accuracy.unit) == (pytest.approx(1.0), "points")
    assert (mae.lost(20.0, 21.0), mae.unit) == (pytest.approx(5.0), "%")
    assert (accuracy.usual_drop, mae.usual_drop) == (1.0, 5.0)


def test_a_drop_is_asked_for_in_the_metrics_own_terms() -> None:
    metric_named("accuracy").check_drop(relative=False)
    metric_named("mae").check_drop(relative=True)
    with pytest.raises(UsageError, match=r"in percent, .* accuracy is told in points; write it as in --max-drop 1$"):
        metric_named("accuracy").check_drop(relative=True)
    with pytest.raises(UsageError, match=r"in points, .* error is told in percent; write it as in --max-drop 5%$"):
        metric_named("mae").check_drop(relative=False)


def test_a_label_that_nobody_has_says_nothing() -> None:
    answers, targets = np.float32([[1, 1], [-1, 1]]), np.float32([[1, 1], [0, 1]])
    assert metric_named("map").value(answers, targets) == 1.0
    assert metric_named("map").value(answers[:, 1:], targets[:, 1:]) == 0.0


def test_classes_of_maps() -> None:
    assert classes_of(logits(0, 2).T[None]).tolist() == [[0, 2]]
    assert classes_of(np.float32([[[[-1, 2]]]])).tolist() == [[[0, 1]]]


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["mae", "mse", "rmse", "r2", "map", "f1"])
def test_answers_that_are_no_numbers_are_the_worst_and_never_stop_anything(name: str, odd: float) -> None:
    judge = metric_named(name)
    perfect, _, targets = example("labels" if name in ("map", "f1") else "numbers")
    broken = perfect.copy()
    broken[::2] = odd
    value = judge.value(broken, targets)
    assert np.isfinite(value)
    assert WORST <= judge.quality(value, targets) < judge.quality(judge.value(perfect, targets), targets)
    assert np.isfinite(judge.merits(broken, targets)).all()
    if name not in ("map", "f1"):
        # Not taken for zeros, which may be good answers.
        assert judge.quality(value, targets) == WORST


def test_one_logit_in_whatever_shape() -> None:
    targets = RNG.integers(0, 2, 50)
    for shape in ((50,), (50, 1), (50, 1, 1, 1)):
        answers = (2.0 * targets - 1).astype(np.float32).reshape(shape)
        assert metric_named("accuracy").value(answers, targets) == 1.0


def test_the_interval_is_about_as_wide_as_that_of_a_mean() -> None:
    targets = RNG.normal(size=2000).astype(np.float32)
    answers = targets + RNG.normal(size=2000).astype(np.float32)
    low, high = metric_named("mae").interval(answers, targets)
    wanted = 2 * 1.96 * np.abs(answers - targets).std() / 2000**0.5
    assert high - low == pytest.approx(wanted, rel=0.5)
