"""What is made of the order in which scores put examples. scikit-learn has them too; tests hold these against it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def average_precision(yes: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """Sum over thresholds of the recall gained, times the precision there.

    yes     (N,)  which examples are positive, at least one
    scores  (N,)  finite; examples of one score are taken together
    """
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(yes[order])
    # The last of each run of equal scores.
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    gained = np.diff(found[ends], prepend=0) / found[-1]
    return float((gained * found[ends] / (ends + 1)).sum())


def area_under_roc(low: NDArray[np.floating], high: NDArray[np.floating]) -> float:
    """How often a score of `high` (M,) exceeds one of `low` (N,), ties half: Mann and Whitney's U over M N."""
    order = np.sort(low)
    below, upto = (np.searchsorted(order, high, side) for side in ("left", "right"))
    return float((below + upto).sum() / (2 * len(low) * len(high)))
