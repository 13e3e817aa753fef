"""Quantiles and tails that intervals and tests are made of: Student's t, and the binomial distribution.

scipy has them too, and is larger than all that a host needs which only measures; tests hold these against it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NORMAL = NormalDist()
#: Terms of the continued fraction at most; it takes some tens.
_TERMS = 1000


@lru_cache(maxsize=1024)
def student_quantile(p: float, freedom: float) -> float:
    """The value that a share `p` (0 < p < 1) of Student's t distribution lies below, at `freedom` > 0 degrees.

    By halving, on the regularised incomplete beta function I of x = freedom / (freedom + t²):
    P(T > t) = I_x(freedom / 2, 1/2) / 2 for t >= 0 (Abramowitz & Stegun 26.7.1). Raises ValueError for another p.
    """
    if not 0 < p < 1 or not freedom > 0:
        raise ValueError(f"expected 0 < p < 1 and freedom > 0, got {p} and {freedom}")
    beyond = min(p, 1 - p)

    def above(t: float) -> bool:
        """Whether less than the wanted share lies beyond t."""
        return _beta_share(freedom / 2, 0.5, freedom / (freedom + t * t), t * t / (freedom + t * t)) / 2 < beyond

    low, high = 0.0, 1.0
    while not above(high):
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (low, middle) if above(middle) else (middle, high)
    return math.copysign(high, p - 0.5) if p != 0.5 else 0.0


def binomial_tail(count: int, trials: int, p: float) -> float:
    """P(X >= count) of a binomial distribution, 0 <= p <= 1."""
    return float(min(1.0, _binomial(trials, p)[max(0, count) :].sum()))


def binomial_beyond(share: float, trials: int, p: float) -> int:
    """The smallest count that is exceeded with a probability of at most `share`."""
    # From the far end on, where the small ones are: P(X > k) of each k.
    beyond = np.append(np.cumsum(_binomial(trials, p)[::-1])[::-1][1:], 0.0)
    return int(np.argmax(beyond <= share))


def wilson_interval(count: int, trials: int) -> tuple[float, float]:
    """Where the true share lies with 95 % confidence, `count` of `trials` >= 1 being seen (Wilson 1927)."""
    z, share = NORMAL.inv_cdf(0.975), count / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    # Of none and of all the end is exact, which rounding would miss.
    return 0.0 if count == 0 else middle - half, 1.0 if count == trials else middle + half


def _binomial(trials: int, p: float) -> NDArray[np.float64]:
    """P(X = 0), ..., P(X = trials)."""
    if p in (0, 1):
        certain = np.zeros(trials + 1)
        certain[round(p * trials)] = 1.0
        return certain
    steps = np.arange(1, trials + 1)
    logs = np.append(0.0, np.cumsum(np.log((trials - steps + 1) / steps)))
    counts = np.arange(trials + 1)
    found: NDArray[np.float64] = np.exp(logs + counts * math.log(p) + (trials - counts) * math.log1p(-p))
    return found


def _beta_share(a: float, b: float, x: float, rest: float) -> float:
    """The regularised incomplete beta function I_x(a, b), with `rest` = 1 - x; by Lentz's continued fraction."""
    if x <= 0:
        return 0.0
    if rest <= 0:
        return 1.0
    # Beyond here it converges slowly, and the other side's does not.
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_share(b, a, rest, x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest))
    tiny = 1e-300
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    found = d
    for m in range(1, _TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / ((1 + term * d) or tiny)
            c = (1 + term / c) or tiny
            found *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return front * found / a
