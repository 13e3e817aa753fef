"""How often a race that looks after every process, and stops where its interval leaves the bound, is wrong.

    python benchmarks/stopping.py

Simulated: log quotients of fresh processes are normal, with a standard deviation of 1.3 %, and lie so far above the
bound as the first column says. While more processes may follow, the interval (Student's t, as narrow as ours from 5
processes on) must be off the bound even if it were FACTOR times as wide; the last one as it is.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.stats import t as student


def answers(
    off: float, least: int, most: int, factor: float, deviation: float, races: int, random: np.random.Generator
) -> tuple[float, float, float, float]:
    """Shares of the races that end met, not met and open, and their processes on average."""
    count = np.arange(1, most + 1)
    draws = random.normal(off, deviation, (races, most))
    means = draws.cumsum(1) / count
    variance = ((draws**2).cumsum(1) - count * means**2) / np.maximum(count - 1, 1)
    half = np.full((races, most), np.inf)
    half[:, 1:] = student.ppf(0.975, count[1:] - 1) * np.sqrt(variance[:, 1:] / count[1:])
    wide = half * np.where(count < most, factor, 1.0)
    side = np.where(means + wide <= 0, 1, np.where(means - wide > 0, -1, 0))[:, least - 1 :]
    ended = (side != 0).argmax(1)
    ended[~side.any(1)] = most - least
    answer = side[np.arange(races), ended]
    return (answer == 1).mean(), (answer == -1).mean(), (answer == 0).mean(), (ended + least).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--least", type=int, default=7, help="processes at least")
    parser.add_argument("--most", type=int, default=90, help="processes until the time is up")
    parser.add_argument("--deviation", type=float, default=0.013)
    parser.add_argument("--races", type=int, default=20_000)
    given = parser.parse_args()
    random = np.random.default_rng(0)
    print(f"{'above':>7}{'factor':>8}{'met':>8}{'not met':>9}{'open':>8}{'processes':>11}")
    for off in (0.0, 0.0025, 0.005, 0.01, 0.02):
        for factor in (1.0, 1.5):
            met, missed, left, mean = answers(
                off, given.least, given.most, factor, given.deviation, given.races, random
            )
            print(f"{off:>7.2%}{factor:>8}{met:>8.1%}{missed:>9.1%}{left:>8.1%}{mean:>11.1f}")


if __name__ == "__main__":
    main()
