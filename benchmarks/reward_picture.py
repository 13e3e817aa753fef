"""Two pictures of the reward, drawn from search/reward.py.

python benchmarks/reward_picture.py [docs/images/reward.png]
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

from edgeprune.core.design import PruningPlan
from edgeprune.core.measurement import Measurement, MeasureSettings
from edgeprune.core.trial import Candidate
from edgeprune.search.reward import BoundedReward, Limits, Reward

mpl.use("Agg")
from matplotlib import pyplot as plt

BOUND, UNPRUNED = 0.5, 0.9


def candidate(latency: float, accuracy: float) -> Candidate:
    settings = MeasureSettings("onnxruntime")
    # Memory and the rate go with latency here, as they mostly do.
    memory, ncr = round(1000 * latency), 1.0 / latency
    cost = Measurement("s", (latency,), (), (1.0,), memory, 1000, "mallinfo2", "", "", "", {}, settings)
    return Candidate(PruningPlan({}), accuracy, ncr, cost, 1)


def main() -> None:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/reward.png")
    shares = np.linspace(0.15, 1.0, 171)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    rewards = (
        ("a bound: r = q/q0 - 2 max(0, x/x* - 1)", BoundedReward(UNPRUNED, Limits(latency=BOUND), 1)),
        ("nothing bounded: equation (3) and measured terms", Reward(UNPRUNED, 3.0, BOUND, 0.5)),
    )
    for axis, (title, reward) in zip(axes, rewards, strict=True):
        for accuracy, shade in ((0.9, "#08519c"), (0.88, "#3182bd"), (0.8, "#9ecae1")):
            axis.plot(
                shares, [reward(candidate(x, accuracy)) for x in shares], color=shade, label=f"quality {accuracy}"
            )
        axis.axvline(BOUND, color="0.4", linestyle="--", linewidth=1, label=f"{BOUND}x")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("latency, share of the unpruned network's")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(f"reward (unpruned quality {UNPRUNED})")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    print(path)


if __name__ == "__main__":
    main()
