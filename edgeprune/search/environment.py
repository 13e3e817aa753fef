"""Pruning as a Markov decision process ([ACNN], section 1): one episode walks the groups in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgeprune.core.types import Group
from edgeprune.search.reward import Candidate, Reward, Widths

State = npt.NDArray[np.float32]
Credit = Literal["step", "episode"]


class StopSearch(Exception):  # noqa: N818 - it is no error: the search ends with what it has
    """Raised by `evaluate`: no more candidates can be evaluated. The message says why."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One walk. Rows are steps: `states` (T + 1, 4), the others (T,)."""

    states: npt.NDArray[np.float32]
    proposed: tuple[float, ...]
    #: What was really done, after clipping and rounding to allowed widths: this is what the agent learns from.
    executed: tuple[float, ...]
    rewards: tuple[float, ...]
    candidate: Candidate
    reward: float


class Environment:
    """Turns actions into widths, widths into rewards.

    State S_t = [t, n, p, l_p]: index of the group, its channels, parameters of all groups up to this one, parameters of
    this one; each divided by its largest value. Action a_t in [0, 1]: the share of the group's channels that goes.

    Actions are clipped to the groups' floors, narrowed together to what `min_ncr` asks for, and rounded to allowed
    widths.

    `credit` "step" is the paper's: r_t is the reward after pruning group t, the later ones still whole. "episode" gives
    every step the reward of the finished plan (as AMC does): one evaluation per episode, for nets of many groups.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        evaluate: Callable[[Widths], Candidate],
        reward: Reward,
        *,
        neurons: int,
        min_ncr: float | None,
        credit: Credit,
    ) -> None:
        self.groups = tuple(groups)
        self._evaluate = evaluate
        self._reward = reward
        self._neurons = neurons
        self._min_ncr = min_ncr
        self._credit = credit
        self._states = _states(self.groups)

    def state(self, step: int) -> State:
        """S_t (4,); the state after the last step is all zeros."""
        state: State = self._states[step]
        return state

    def run(self, act: Callable[[int, State], float]) -> Episode:
        """Walk all groups; `act(step, state)` proposes the sparsity of each."""
        # States hold nothing of earlier actions, so all may be proposed before the first is carried out.
        proposed = tuple(float(act(step, self._states[step])) for step in range(len(self.groups)))
        widths = self.widths(proposed)
        executed = tuple(1.0 - widths[group.name] / group.channels for group in self.groups)
        rewards: list[float] = []
        partial: dict[str, int] = {}
        candidate: Candidate | None = None
        for step, group in enumerate(self.groups):
            partial[group.name] = widths[group.name]
            if self._credit == "step" or step == len(self.groups) - 1:
                candidate = self._evaluate(dict(partial))
                rewards.append(self._reward(candidate))
        assert candidate is not None
        final = rewards[-1]
        if self._credit == "episode":
            rewards = [final] * len(self.groups)
        return Episode(self._states, proposed, executed, tuple(rewards), candidate, final)

    def widths(self, sparsities: Sequence[float]) -> dict[str, int]:
        """The allowed widths nearest to `sparsities` (groups,), all narrowed by one factor where `min_ncr` asks for it.

        Narrowing all together keeps what the actor said about the groups' proportions. Clipping one after the other
        leaves the last ones at their floors whatever it says, and it learns nothing about them (tried; it got stuck).
        """
        keep = [
            group.channels * (1.0 - min(max(a, 0.0), 1.0)) for a, group in zip(sparsities, self.groups, strict=True)
        ]
        low, high = 0.0, 1.0
        if self._fits(keep, high):
            return self._scaled(keep, high)
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if self._fits(keep, middle) else (low, middle)
        return self._scaled(keep, low)

    def _scaled(self, keep: Sequence[float], factor: float) -> dict[str, int]:
        return {group.name: group.snap(round(width * factor)) for width, group in zip(keep, self.groups, strict=True)}

    def _fits(self, keep: Sequence[float], factor: float) -> bool:
        if self._min_ncr is None:
            return True
        widths = self._scaled(keep, factor)
        gone = sum((group.channels - widths[group.name]) * group.neurons_per_channel for group in self.groups)
        return self._neurons / (self._neurons - gone) >= self._min_ncr


def _states(groups: Sequence[Group]) -> npt.NDArray[np.float32]:
    layer = np.array([group.layer_parameters for group in groups], dtype=np.float64)
    rows = np.zeros((len(groups) + 1, 4))
    rows[:-1, 0] = np.arange(1, len(groups) + 1) / len(groups)
    rows[:-1, 1] = [group.channels for group in groups] / np.max([group.channels for group in groups])
    rows[:-1, 2] = np.cumsum(layer) / layer.sum()
    rows[:-1, 3] = layer / layer.max()
    return rows.astype(np.float32)
