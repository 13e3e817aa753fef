"""Means over seeds, and how far they can be trusted. Pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import t as student


class Spread(NamedTuple):
    """Mean and sample standard deviation (n - 1) of `size` values; `std` is None for a single one."""

    mean: float
    std: float | None
    size: int


class Range(NamedTuple):
    """A mean, or a difference of means, and its 95 % interval; the interval is None where there are too few values."""

    value: float
    interval: tuple[float, float] | None


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and spread; None where there are no values."""
    if not values:
        return None
    std = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), std, len(values))


def mean_range(values: Sequence[float]) -> Range:
    """Mean with Student's t interval, mean ± t(0.975, n - 1) s / √n. Raises ValueError without values."""
    found = spread(values)
    if found is None:
        raise ValueError("a mean needs values")
    if found.std is None:
        return Range(found.mean, None)
    half = float(student.ppf(0.975, found.size - 1)) * found.std / math.sqrt(found.size)
    return Range(found.mean, (found.mean - half, found.mean + half))


def paired_range(first: Sequence[float], second: Sequence[float]) -> Range:
    """Mean of first - second, pair by pair (a pair per seed). Raises ValueError for unequal lengths or none."""
    return mean_range([a - b for a, b in zip(first, second, strict=True)])


def welch_range(first: Sequence[float], second: Sequence[float]) -> Range:
    """Difference of means first - second of independent samples with unequal variances.

    Degrees of freedom after Welch and Satterthwaite (Welch, Biometrika 34, 1947). Raises ValueError without values.
    """
    ours, theirs = spread(first), spread(second)
    if ours is None or theirs is None:
        raise ValueError("a difference needs values on both sides")
    difference = ours.mean - theirs.mean
    if ours.std is None or theirs.std is None:
        return Range(difference, None)
    a, b = ours.std**2 / ours.size, theirs.std**2 / theirs.size
    if a + b == 0:
        return Range(difference, (difference, difference))
    freedom = (a + b) ** 2 / (a**2 / (ours.size - 1) + b**2 / (theirs.size - 1))
    half = float(student.ppf(0.975, freedom)) * math.sqrt(a + b)
    return Range(difference, (difference - half, difference + half))
