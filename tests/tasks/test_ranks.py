"""Metrics that are worked out here, held against scikit-learn's: ties, rare labels, one class of many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, recall_score, roc_auc_score

from edgeprune.tasks.classes import recall_of
from edgeprune.tasks.metrics import MacroF1, MeanAveragePrecision
from edgeprune.tasks.metrics.ranks import area_under_roc, average_precision

# Few levels: ties are what implementations differ in.
SEEDS = st.integers(0, 2**32 - 1)
COUNTS = st.integers(2, 60)
LEVELS = st.sampled_from([2, 5, 1000])


@settings(deadline=None)
@given(seed=SEEDS, count=COUNTS, levels=LEVELS)
def test_ranks_are_scikit_learns(seed: int, count: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    scores, yes = random.integers(0, levels, count) / levels, random.random(count) < 0.4
    yes[0], yes[1] = True, False
    assert average_precision(yes, scores) == pytest.approx(average_precision_score(yes, scores), abs=1e-12)
    assert area_under_roc(scores[~yes], scores[yes]) == pytest.approx(roc_auc_score(yes, scores), abs=1e-12)


@settings(deadline=None)
@given(seed=SEEDS, count=COUNTS, levels=LEVELS)
def test_labels_are_judged_as_scikit_learn_does(seed: int, count: int, levels: int) -> None:
    random = np.random.default_rng(seed)
    answers = (random.integers(0, levels, (count, 4)) / levels - 0.3).astype(np.float32)
    targets = (random.random((count, 4)) < 0.3).astype(np.float32)
    known = targets.any(0) & ~targets.all(0)
    wanted = average_precision_score(targets[:, known], answers[:, known], average="macro") if known.any() else 0.0
    assert MeanAveragePrecision().value(answers, targets) == pytest.approx(wanted, abs=1e-12)
    f1 = f1_score(targets > 0.5, answers > 0, average="macro", zero_division=0.0)
    assert MacroF1().value(answers, targets) == pytest.approx(f1, abs=1e-12)


@settings(deadline=None)
@given(seed=SEEDS, count=COUNTS)
def test_recall_is_scikit_learns(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    labels, answers = random.choice([0, 2, 3], count), random.integers(-1, 5, count)
    wanted = recall_score(labels, answers, labels=range(5), average=None, zero_division=np.nan)
    found = [np.nan if each is None else each for each in recall_of(labels, answers, 5)]
    assert found == pytest.approx(wanted.tolist(), nan_ok=True)
