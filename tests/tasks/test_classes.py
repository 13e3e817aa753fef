"""How answers are judged, and from which score on they are told from guessing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from edgeprune.tasks.classes import chance_level, majority, recall_of, score_of

RNG = np.random.default_rng(0)


def rare(images: int, positives: int) -> np.ndarray:
    return (np.arange(images) < positives).astype(np.int64)


def test_accuracy_and_recall_by_hand() -> None:
    labels, answers = np.array([0, 0, 0, 1, 3]), np.array([0, 0, 1, 1, 0])
    assert score_of("accuracy", labels, answers) == 3 / 5
    assert recall_of(labels, answers, 4) == (2 / 3, 1.0, None, 0.0)
    assert score_of("balanced-accuracy", labels, answers) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_balanced_accuracy_is_the_usual_one() -> None:
    labels = RNG.integers(0, 5, 300)
    answers = np.where(RNG.random(300) < 0.6, labels, RNG.integers(0, 5, 300))
    assert score_of("balanced-accuracy", labels, answers) == pytest.approx(balanced_accuracy_score(labels, answers))


def test_an_answer_that_no_image_is_of_is_wrong_and_nothing_else() -> None:
    # With warnings as errors: scikit-learn's own function would warn of it.
    assert score_of("balanced-accuracy", np.array([0, 0, 1]), np.array([0, 2, 1])) == 0.75


def test_the_most_frequent_class() -> None:
    assert majority(rare(100, 2)) == (0, 0.98)


@pytest.mark.parametrize(("images", "most", "level"), [(144, 15, 0.15), (1000, 100, 0.145), (5000, 500, 0.145)])
def test_ten_equal_classes(images: int, most: int, level: float) -> None:
    labels = np.arange(images) % 10
    assert majority(labels)[1] == most / images
    for metric in ("accuracy", "balanced-accuracy"):
        assert chance_level(metric, labels) == pytest.approx(level, abs=0.01)


@pytest.mark.parametrize("metric", ["accuracy", "balanced-accuracy"])
def test_who_guesses_is_rarely_above_the_level(metric) -> None:
    labels = RNG.permutation(np.arange(200) % 4)
    above = [score_of(metric, labels, g) > chance_level(metric, labels, g) for g in RNG.integers(0, 4, (60, 200))]
    assert np.mean(above) < 0.15
    knows = np.where(RNG.random(200) < 0.3, labels, RNG.integers(0, 4, 200))
    assert score_of(metric, labels, knows) > chance_level(metric, labels, knows)


def test_no_to_all_is_guessing_by_either_metric() -> None:
    labels, answers = rare(1000, 20), np.zeros(1000, np.int64)
    assert score_of("accuracy", labels, answers) == 0.98 < chance_level("accuracy", labels, answers) == 0.987
    assert score_of("balanced-accuracy", labels, answers) == 0.5 < chance_level("balanced-accuracy", labels, answers)


def test_half_of_the_rare_class_found_is_not() -> None:
    labels, answers = rare(1000, 20), rare(1000, 10)
    assert score_of("accuracy", labels, answers) == 0.99 > chance_level("accuracy", labels, answers)
    answers[500:540] = 1
    # Forty false alarms: worse than the answer "no" by accuracy, but ten of twenty are found.
    assert score_of("accuracy", labels, answers) < chance_level("accuracy", labels, answers)
    assert score_of("balanced-accuracy", labels, answers) > chance_level("balanced-accuracy", labels, answers)


def test_a_hit_among_many_alarms_is_luck_where_the_class_has_two_images() -> None:
    labels, answers = rare(110, 2), np.zeros(110, np.int64)
    answers[[0, 50, 51, 52, 53]] = 1
    assert score_of("balanced-accuracy", labels, answers) <= chance_level("balanced-accuracy", labels, answers)
    answers[50:] = 0
    assert score_of("balanced-accuracy", labels, answers) > chance_level("balanced-accuracy", labels, answers)


@pytest.mark.parametrize("images", [2, 4, 110])
def test_where_no_number_of_right_answers_can_tell_all_right_still_counts(images: int) -> None:
    labels = rare(images, max(1, images // 55))
    assert chance_level("accuracy", labels, labels) < 1
    assert majority(labels)[1] < chance_level("accuracy", labels)
