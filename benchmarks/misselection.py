"""How often a search on a noisy device ends with a plan that is not the best it could have had.

python benchmarks/misselection.py [--searches 100] [--noise 0.05]

The network is a formula (that of `benchmarks/search.py`), so what each plan is worth and costs is known exactly. What
the search is told of a latency are samples with log-normal noise, as a simulated device makes them: rounds of one
process while it searches, fresh processes when the best are measured again. Everything else is the product's: agent,
cost model, frontier, confirmation, choice. Each search has a seed of its own.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections.abc import Mapping
from dataclasses import replace

from benchmarks.search import GROUPS, formula, work
from edgeprune.core.budget import Bound, Budget
from edgeprune.core.measurement import Measurement, MeasureSettings
from edgeprune.core.trial import Candidate, Trial
from edgeprune.pipeline.choose import confirm
from edgeprune.pipeline.records.search import Reference
from edgeprune.pipeline.search import CONFIRMING_PROCESSES
from edgeprune.search.costs import Costs
from edgeprune.search.drive import drive
from edgeprune.search.environment import Environment
from edgeprune.search.frontier import Frontier
from edgeprune.search.methods import make_method
from edgeprune.search.reward import BoundedReward, Limits
from edgeprune.search.space import Space
from edgeprune.search.states import Losses

BOUND, EPISODES, WHOLE = 0.6, 40, 0.9
#: What one measurement of the search has, and one of fresh processes each.
ROUNDS, ROUNDS_AGAIN = MeasureSettings("onnxruntime").rounds, 15


class Noisy:
    """A device whose samples scatter; the unpruned network's do, too."""

    def __init__(self, seed: int, noise: float) -> None:
        self._random = random.Random(seed)
        self._sigma = math.sqrt(math.log1p(noise**2))

    def measured(self, share: float, processes: int = 0) -> Measurement:
        """A cost of `share` of the unpruned network's, in the loop, or in fresh processes."""
        rounds = (ROUNDS_AGAIN if processes else ROUNDS) * max(processes, 1)

        def samples(cost: float) -> tuple[float, ...]:
            return tuple(cost * math.exp(self._random.gauss(0, self._sigma)) for _ in range(rounds))

        return Measurement(
            "s", samples(share), (), samples(1.0), 1, 1, "mallinfo2", "", "", "d", {},
            MeasureSettings("onnxruntime", processes=processes), bytes=1,
            process=tuple(index // ROUNDS_AGAIN for index in range(rounds)) if processes else (0,) * rounds,
        )  # fmt: skip


def truth(candidate: Candidate) -> tuple[float, float]:
    """What a plan is really worth, and costs."""
    exact = formula(candidate.plan.widths)
    assert isinstance(exact.cost, Measurement)
    return exact.accuracy, exact.cost.quotient


def search(seed: int, noise: float) -> tuple[Candidate, list[Candidate]]:
    """What one search chooses, and all that it tried."""
    device, limits = Noisy(seed, noise), Limits(latency=BOUND)
    method = make_method("edgeprune")
    losses = {
        group.name: tuple((1 - k / group.channels) ** 2 * (1 - i / 12) for k in range(group.channels + 1))
        for i, group in enumerate(GROUPS)
    }

    def evaluate(widths: Mapping[str, int]) -> Candidate:
        exact = formula(widths)
        assert isinstance(exact.cost, Measurement)
        return replace(exact, cost=device.measured(exact.cost.quotient))

    environment = Environment(
        Space(GROUPS, sum(group.channels for group in GROUPS)), evaluate, BoundedReward(WHOLE, limits, 1), min_ncr=None,
        credit="episode", states=method.states(GROUPS, lambda: Losses(losses)),
        frontier=Frontier(Space(GROUPS, sum(group.channels for group in GROUPS)), limits, Costs(GROUPS, work, 1)),
    )  # fmt: skip
    trials: list[Trial] = []
    drive(
        method.search(environment, episodes=EPISODES, seed=seed),
        environment,
        on_episode=lambda index, episode: trials.append(Trial(index, episode.candidate, episode.reward, 0.0)),
    )
    budget = Budget(max_latency=Bound(BOUND, relative=True), max_drop=100.0)
    ordered = confirm(
        trials, 3, budget, Reference(1.0, 1.0, 1.0), 0.1, 4000.0,
        lambda trial, patiently: device.measured(
            truth(trial.candidate)[1], CONFIRMING_PROCESSES * (3 if patiently else 1)
        ),
    )  # fmt: skip
    return ordered[0].candidate, [trial.candidate for trial in trials]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=100)
    parser.add_argument("--noise", type=float, default=0.05)
    args = parser.parse_args()
    behind, over, chosen = [], [], []
    best_of_all = 0.0
    for seed in range(args.searches):
        taken, tried = search(seed, args.noise)
        quality, latency = truth(taken)
        able = [worth for worth, cost in map(truth, tried) if cost <= BOUND]
        best = max(able, default=quality)
        best_of_all = max(best_of_all, best)
        behind.append(1 - quality / best)
        over.append(latency / BOUND - 1)
        chosen.append(quality)
        print(f"seed {seed}: quality {quality:.4f}, best that was tried {best:.4f}, latency {latency:.4f}x", flush=True)
    near, nearest = (sum(each <= 0.02 for each in behind), sum(each >= 0.98 * best_of_all for each in chosen))
    above, far = (sum(each > limit for each in over) for limit in (0.0, 0.02))
    print(
        f"{args.searches} searches, noise {100 * args.noise:g} %: {near} chose a plan within 2 % of the best that was "
        f"tried, {nearest} within 2 % of the best of all searches; behind the best that was tried "
        f"{100 * statistics.median(behind):.2f} % (median), {100 * max(behind):.2f} % (most); over the bound {above}, "
        f"by more than 2 % {far}, at most {100 * max(over):.2f} %"
    )


if __name__ == "__main__":
    main()
