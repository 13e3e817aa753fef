"""How far a search ends behind the best plan there is, where kernels take channels by blocks, and where they do not.

OMP_NUM_THREADS=1 python benchmarks/blocks.py [--searches 7] [--bound 0.7] [--noise 0.03]

The groups are `resnet20`'s, with residual streams that lie side by side on one axis; what is lost with each width was
measured with its weights. What plans are worth and cost are formulas. In each search every group's true loss is another
multiple of what the search is told (log-normal, sigma 0.5), scores scatter by half a point, and latencies by `--noise`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping

import numpy as np
import torch

from edgeprune.core.design import PruningPlan
from edgeprune.core.measurement import Measurement, MeasureSettings
from edgeprune.core.trial import Candidate
from edgeprune.models.zoo import build
from edgeprune.pruning.groups import discover
from edgeprune.pruning.shares import LayerShares
from edgeprune.search.costs import Costs
from edgeprune.search.drive import drive
from edgeprune.search.environment import Environment, Episode
from edgeprune.search.frontier import Frontier
from edgeprune.search.least_loss import LeastLoss
from edgeprune.search.methods import make_method
from edgeprune.search.reward import BoundedReward, Limits
from edgeprune.search.space import Space
from edgeprune.search.states import Losses, SensitiveStates
from edgeprune.search.survey import around_the_bound, where_least_is_lost

EPISODES, WHOLE = 40, 0.91
#: KL divergence of the answers with one group alone at 8, 16, ... channels, as a search of `resnet20` found it.
LOST = {
    "conv1": (0.795, 0),
    "layer1.0.conv1": (0.009, 0),
    "layer1.1.conv1": (0.043, 0),
    "layer1.2.conv1": (0.018, 0),
    "layer2.0.conv1": (0.154, 0.027, 0.010, 0),
    "layer2.0.conv2": (0.127, 0),
    "layer2.1.conv1": (0.140, 0.043, 0.012, 0),
    "layer2.2.conv1": (0.084, 0.029, 0.013, 0),
    "layer3.0.conv1": (0.596, 0.293, 0.168, 0.078, 0.050, 0.028, 0.007, 0),
    "layer3.0.conv2": (0.265, 0.131, 0.041, 0),
    "layer3.1.conv1": (0.570, 0.285, 0.206, 0.141, 0.085, 0.043, 0.011, 0),
    "layer3.2.conv1": (1.000, 0.352, 0.190, 0.078, 0.048, 0.026, 0.007, 0),
}


class Ground:
    """The network's groups, and a device whose kernels take blocks or not."""

    def __init__(self, *, blocked: bool) -> None:
        torch.manual_seed(0)
        network = build("resnet20", (3, 32, 32), 10).eval()
        structure = discover(network, (3, 32, 32), runtime="onnxruntime", prune_inputs=False, branches=False)
        self.groups, self.shares, self._blocked = structure.groups, LayerShares(network, structure), blocked
        self.space = Space(self.groups, structure.neurons(network))
        self.lost = {
            group.name: tuple(LOST[group.name][max(0, (width + 7) // 8 - 1)] for width in range(group.channels + 1))
            for group in self.groups
        }

    def cost(self, widths: Mapping[str, int]) -> float:
        """What a plan truly costs, a share of the unpruned network's."""
        share = self.shares(widths)
        if self._blocked:
            return 0.2 + 0.15 * share.macs + 0.65 * share.blocked
        return 0.2 + 0.7 * share.macs + 0.1 * share.parameters


def behind(ground: Ground, seed: int, bound: float, noise: float) -> float:
    """By how much the best plan that a search tried is worse than one that is worked out from the truth."""
    random = np.random.default_rng([seed, 1])
    times = {group.name: float(np.exp(random.normal(0, 0.5))) for group in ground.groups}
    limits, losses = Limits(latency=bound), Losses(ground.lost, additive=True)
    states = SensitiveStates(ground.groups, losses)

    def worth(widths: Mapping[str, int]) -> float:
        return WHOLE - 0.22 * sum(times[name] * ground.lost[name][width] for name, width in widths.items()) ** 0.9

    def measured(widths: Mapping[str, int]) -> Measurement:
        cost = 1e-3 * ground.cost(widths) * float(np.exp(random.normal(0, noise)))
        return Measurement(
            "s", (cost, cost), (), (1e-3, 1e-3), 1, 1, "mallinfo2", "", "", "d", {}, MeasureSettings("onnxruntime"),
            bytes=1,
        )  # fmt: skip

    def evaluate(widths: Mapping[str, int]) -> Candidate:
        plan = PruningPlan({name: tuple(range(width)) for name, width in widths.items()})
        return Candidate(plan, worth(widths) + float(random.normal(0, 0.005)), 1.0, measured(widths), 1)

    frontier = Frontier(ground.space, limits, Costs(ground.groups, ground.shares, 1))
    for survey in (
        around_the_bound(ground.groups, frontier),
        where_least_is_lost(ground.groups, states, frontier, seed),
    ):
        for widths in survey:
            frontier.costs.learn(widths, measured(widths))
    environment = Environment(
        ground.space, evaluate, BoundedReward(WHOLE, limits, 1), min_ncr=None, credit="episode", states=states,
        frontier=frontier,
    )  # fmt: skip
    found: list[Episode] = []
    searching = make_method("edgeprune").search(environment, episodes=EPISODES, seed=seed)
    drive(searching, environment, on_episode=lambda _, episode: found.append(episode))
    tried = [episode.candidate.plan.widths for episode in found]
    # A percent over the bound is what nobody can measure here.
    kept = [worth(widths) for widths in tried if ground.cost(widths) <= 1.01 * bound]
    truth = {name: tuple(each * times[name] / 8 for each in lost) for name, lost in ground.lost.items()}
    true = Losses(truth, additive=True)
    best = LeastLoss(
        ground.groups, SensitiveStates(ground.groups, true), lambda widths: ground.cost(widths) / bound - 1.0
    ).plan()
    return worth(best) - max(kept, default=0.0)


def main() -> None:
    """Both kinds of device, and how far behind searches end on each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=7)
    parser.add_argument("--bound", type=float, default=0.7)
    parser.add_argument("--noise", type=float, default=0.03)
    options = parser.parse_args()
    for blocked in (True, False):
        ground = Ground(blocked=blocked)
        gaps = [100 * behind(ground, seed, options.bound, options.noise) for seed in range(options.searches)]
        print(
            f"{'blocks of 16' if blocked else 'no blocks'}: {statistics.fmean(gaps):.2f} points behind in the mean of "
            f"{len(gaps)} searches, {max(gaps):.2f} at most",
            flush=True,
        )


if __name__ == "__main__":
    main()
