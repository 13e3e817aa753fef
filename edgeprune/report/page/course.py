"""How the search went: the reward of each trial, and the losses of its agent."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from edgeprune.core.trial import Trial
from edgeprune.report.page.views import Chart, Key
from edgeprune.report.table import Result


def reward_chart(trials: Sequence[Trial], id: str, parts: Sequence[tuple[str, int]] | None = None) -> Chart | None:
    """Reward trial by trial, and the best so far. None where there are no trials.

    `parts` are searches that followed each other, and their lengths, where there were several. Each has a reward of its
    own, so the best so far begins anew with each; where their lengths are not known (an empty one) it is not drawn.
    """
    if not trials:
        return None
    rewards = [trial.reward for trial in trials]
    lines: list[dict[str, Any]] = []
    series: list[dict[str, Any]] = [{"style": "dots", "colour": "tried", "y": [round(value, 5) for value in rewards]}]
    start = 0
    for name, count in [("", len(rewards))] if parts is None else parts:
        lines += [{"x": start, "text": name}] if name else []
        best = [round(value, 5) for value in accumulate(rewards[start : start + count], max)]
        after = len(rewards) - start - count
        series.append({"style": "line", "colour": "chosen", "y": [*[None] * start, *best, *[None] * after]})
        start += count
    keys = (Key("dot", "reward of a trial"), *((Key("line solid chosen", "best so far"),) if len(series) > 1 else ()))
    place = max(range(len(rewards)), key=rewards.__getitem__)
    alt = (
        f"Reward of {len(rewards)} trials: from {min(rewards):.3f} to {max(rewards):.3f}, the highest in trial "
        f"{trials[place].index}; the first is {rewards[0]:.3f}, the last {rewards[-1]:.3f}."
    )
    notes = ("Each bound has a search and a reward of its own: rewards of different bounds mean different things.",)
    return Chart(
        id=id,
        title="Reward",
        alt=alt,
        data={
            "kind": "course", "x": [trial.index for trial in trials], "xTitle": "trial", "yTitle": "reward",
            "lines": lines,
            "series": series,
        },
        keys=keys,
        notes=() if parts is None else notes,
    )  # fmt: skip


def loss_charts(result: Result, id: str) -> tuple[Chart, ...]:
    """Losses of critic and actor; nothing of a search without an agent, or one that never learnt."""
    losses = result["search"]["losses"]
    if not losses:
        return ()
    return tuple(
        Chart(
            id=f"{id}-{name}",
            title=f"Loss of the {name}",
            alt=(
                f"Loss of the {name} over {len(losses)} times of learning: first {losses[0][place]:.4g}, "
                f"last {losses[-1][place]:.4g}, from {min(each[place] for each in losses):.4g} to "
                f"{max(each[place] for each in losses):.4g}."
            ),
            data={
                "kind": "course", "x": list(range(len(losses))), "xTitle": "time of learning", "yTitle": "loss",
                "lines": [], "series": [{"style": "line", "colour": name, "y": [each[place] for each in losses]}],
            },
        )
        for place, name in enumerate(("critic", "actor"))
    )  # fmt: skip
