"""From raw samples to a quotient with an interval, and to percentiles. Pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.budget import Answer
from edgeprune.core.distributions import NORMAL, student_quantile

Array = NDArray[np.float64]

#: A process this improbable, given the others, is left out (see `quotient_interval`).
_OUTLIER_P = 0.001
#: With fewer processes there is too little to call one an outlier, and resampling cannot reach beyond their range.
_ENOUGH = 5
_RESAMPLES = 4000
#: Resampled medians per process, from which each resample takes its own.
_MEDIANS = 500
_SEED = 20_150
#: A percentile needs this many samples beyond it.
_BEYOND = 10


@dataclass(frozen=True, slots=True)
class Interval:
    """A quotient candidate / baseline and where the true one lies with 95 % confidence: `low <= value <= high`."""

    value: float
    low: float
    high: float
    #: Fresh processes it rests on, and how many outliers (0 or 1) were left out of them.
    processes: int = 1
    left_out: int = 0

    @property
    def half_width(self) -> float:
        """Half the interval's width, as a share of the value."""
        return (self.high - self.low) / 2 / self.value

    def answer(self, limit: float, clear: float = 1.0) -> Answer:
        """Whether the true quotient is at most `limit`; "open" where the interval holds `limit`.

        The interval is taken `clear` times as wide to either side.
        """
        if self.value + clear * (self.high - self.value) <= limit:
            return "met"
        return "not met" if self.value - clear * (self.value - self.low) > limit else "open"

    def inverse(self) -> Interval:
        """The quotient the other way round: cost 0.25 (0.2 to 0.5) is a speed-up of 4 (2 to 5)."""
        return Interval(1 / self.value, 1 / self.high, 1 / self.low, self.processes, self.left_out)


def quotient_interval(samples: Sequence[float], against: Sequence[float], process: Sequence[int] = ()) -> Interval:
    """The candidate's cost as a share of the baseline's, with a 95 % interval.

    samples  (rounds,)  candidate, seconds (or instructions) per inference, > 0
    against  (rounds,)  baseline, of the same rounds
    process  (rounds,)  the fresh process of each round; empty: all of one process

    Rounds of one process share its memory layout, so a process counts once, with the median of its rounds' log
    quotients x_p; the value is exp(mean x_p), a geometric mean. The interval is a bootstrap in two levels: processes
    are drawn with replacement, then the rounds within each; a percentile interval at the levels that Hesterberg (What
    Teachers Should Know About the Bootstrap, The American Statistician 69, 2015) widens for few processes,

        alpha' / 2 = Phi(-sqrt(n / (n - 1)) t_{alpha/2, n-1})

    From 5 processes on at most one is left out: the farthest from the median, when a new draw of the others lies that
    far with a probability below 0.001. Below 5 the resamples' range is too narrow for any level, and the interval is
    Student's t on the x_p. Simulated coverage with 5 to 10 processes: 93-97 % for normal and heavy-tailed (t_3) x_p,
    also with one wild process, which without the rule makes the interval 2 to 4 times as wide. With one process the
    rounds take the place of the processes, and the interval knows nothing of how fresh processes differ.

    Raises ValueError with fewer than two rounds, unequal lengths, or a sample that is not above 0.
    """
    if not len(samples) == len(against) == (len(process) or len(samples)):
        raise ValueError("samples, against and process must be of one length")
    if len(samples) < 2:
        raise ValueError("an interval needs at least two rounds")
    if not all(math.isfinite(value) and value > 0 for value in (*samples, *against)):
        raise ValueError("samples must be finite and above 0")
    logs = np.log(np.asarray(samples, float)) - np.log(np.asarray(against, float))
    owners = np.asarray(process) if len(set(process)) > 1 else np.arange(len(logs))
    groups = [logs[owners == owner] for owner in np.unique(owners)]
    points = np.array([np.median(group) for group in groups])
    kept = _without_outlier(points)
    middle = float(points[kept].mean())
    if len(kept) < _ENOUGH:
        low, high = _student(points[kept])
    else:
        low, high = _bootstrap([groups[index] for index in kept])
    return Interval(
        value=math.exp(middle),
        # Medians of resampled rounds may, where these are very skewed, all lie to one side of the value.
        low=math.exp(min(low, middle)),
        high=math.exp(max(high, middle)),
        processes=max(1, len(set(process))),
        left_out=len(points) - len(kept),
    )


def cost_interval(
    samples: Sequence[float], against: Sequence[float], process: Sequence[int] = (), *, relative: bool = True
) -> Interval:
    """What a bound on latency is judged by: the quotient, or (not `relative`) the candidate's own cost.

    As `quotient_interval`, but a single round is enough: it is a count of instructions, which does not vary.
    """
    others = against if relative else (1.0,) * len(samples)
    if len(samples) == len(others) == 1:
        share = samples[0] / others[0]
        return Interval(share, share, share)
    return quotient_interval(samples, others, process)


def unpaired_interval(points: Sequence[float], against: Sequence[float]) -> Interval:
    """The quotient of two figures that were not raced, with its 95 % interval (Welch's, of the logarithms).

    points   (processes,)        the candidate's, one a fresh process, > 0
    against  (other processes,)  the baseline's

    Of either at most one process is left out, as in `quotient_interval`. What two sessions differ by, beyond their
    processes, it cannot know. Raises ValueError with fewer than two processes, or a figure that is not above 0.
    """
    if min(len(points), len(against)) < 2:
        raise ValueError("an interval needs at least two processes of either")
    if not all(math.isfinite(value) and value > 0 for value in (*points, *against)):
        raise ValueError("figures must be finite and above 0")
    logs = [np.log(np.asarray(each, float)) for each in (points, against)]
    kept = [each[_without_outlier(each)] for each in logs]
    middle = float(kept[0].mean() - kept[1].mean())
    shares = [float(each.var(ddof=1)) / len(each) for each in kept]
    half, error = 0.0, sum(shares)
    if error > 0:
        freedom = error**2 / sum(share**2 / (len(each) - 1) for share, each in zip(shares, kept, strict=True))
        half = student_quantile(0.975, freedom) * math.sqrt(error)
    return Interval(
        value=math.exp(middle),
        low=math.exp(middle - half),
        high=math.exp(middle + half),
        processes=min(len(points), len(against)),
        left_out=sum(len(all_) - len(some) for all_, some in zip(logs, kept, strict=True)),
    )


def percentile(samples: Sequence[float], percent: int) -> float | None:
    """The value that `percent` % of the samples do not exceed; None unless 10 samples lie beyond it.

    Example: p99 needs 1,000 samples, p90 100, p50 20.
    """
    if len(samples) * (100 - percent) < _BEYOND * 100:
        return None
    return float(np.percentile(np.asarray(samples, float), percent))


def _student(points: Array) -> tuple[float, float]:
    count = len(points)
    half = student_quantile(0.975, count - 1) * float(points.std(ddof=1)) / math.sqrt(count)
    return float(points.mean()) - half, float(points.mean()) + half


def _bootstrap(groups: Sequence[Array]) -> tuple[float, float]:
    """The expanded percentile interval of the mean of the groups' medians; the same each time for the same samples."""
    random, count = np.random.default_rng(_SEED), len(groups)
    medians = np.stack(
        [np.median(group[random.integers(0, len(group), (_MEDIANS, len(group)))], axis=1) for group in groups]
    )
    drawn = random.integers(0, count, (_RESAMPLES, count))
    means = medians[drawn, random.integers(0, _MEDIANS, (_RESAMPLES, count))].mean(1)
    level = NORMAL.cdf(math.sqrt(count / (count - 1)) * student_quantile(0.025, count - 1))
    low, high = np.quantile(means, (level, 1 - level))
    return float(low), float(high)


def _without_outlier(points: Array) -> list[int]:
    """Indices of `points` without the one that the others make all but impossible, if there is one."""
    everyone = list(range(len(points)))
    if len(points) < _ENOUGH:
        return everyone
    farthest = int(np.argmax(np.abs(points - statistics.median(points))))
    others = np.delete(points, farthest)
    # The prediction interval of one more draw from the distribution of the others.
    reach = student_quantile(1 - _OUTLIER_P / 2, len(others) - 1) * float(others.std(ddof=1))
    reach *= math.sqrt(1 + 1 / len(others))
    far = abs(float(points[farthest] - others.mean())) > reach
    return [index for index in everyone if index != farthest] if far else everyone
