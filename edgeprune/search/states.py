"""What an agent sees of a network: one row of numbers per group, each about in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgeprune.core.design import Group
from edgeprune.core.errors import UsageError

State = npt.NDArray[np.float32]
Rows = npt.NDArray[np.float32]


class States(Protocol):
    """Makes states from what was done so far."""

    size: int

    def row(self, step: int, done: Sequence[float]) -> State:
        """State before group `step`, (size,), after the sparsities `done` of the groups before it."""

    def rows(self, done: Sequence[float]) -> Rows:
        """States of a whole walk, (T + 1, size); the one after the last step is all zeros."""


class PaperStates:
    """[ACNN]: S_t = [t, n, p, l_p]: index of the group, its channels, parameters of all groups up to this one,
    parameters of this one; each divided by its largest value. Nothing of what was done is in it.
    """

    size = 4

    def __init__(self, groups: Sequence[Group]) -> None:
        layer = np.array([group.layer_parameters for group in groups], dtype=np.float64)
        rows = np.zeros((len(groups) + 1, 4))
        rows[:-1, 0] = np.arange(1, len(groups) + 1) / len(groups)
        rows[:-1, 1] = [group.channels for group in groups] / np.max([group.channels for group in groups])
        rows[:-1, 2] = np.cumsum(layer) / layer.sum()
        rows[:-1, 3] = layer / layer.max()
        self._rows = rows.astype(np.float32)

    def row(self, step: int, done: Sequence[float]) -> State:  # noqa: ARG002
        """S_t (4,), whatever was done."""
        state: State = self._rows[step]
        return state

    def rows(self, done: Sequence[float]) -> Rows:  # noqa: ARG002
        """All states, (T + 1, 4)."""
        return self._rows


class AmcStates:
    """AMC's state (He et al. 2018, section 3.1): index, layer type, shapes, cost of the layer, cost reduced and rest,
    previous action; (11,) there, (8,) here.

    Of its shapes (n, c, h, w, stride, k) a group has its channels and the parameters of the layer that makes it; cost
    is in neurons, since NCR is what the methods are compared at.
    """

    size = 8

    def __init__(self, groups: Sequence[Group]) -> None:
        self._neurons = np.array([group.channels * group.neurons_per_channel for group in groups], dtype=np.float64)
        fixed = PaperStates(groups).rows(())[:-1]
        kinds = {"inputs": 0.0, "neurons": 0.5, "channels": 1.0}
        macs = np.array([group.macs_per_channel * group.channels for group in groups])
        self._fixed = np.column_stack(
            [fixed[:, 0], [kinds[group.kind] for group in groups], fixed[:, 1], fixed[:, 3], macs / macs.max()]
        )

    def row(self, step: int, done: Sequence[float]) -> State:
        """[t, type, n, l_p, MACs, neurons reduced so far, neurons of the groups behind, previous action]."""
        total = self._neurons.sum()
        before = float(np.dot(self._neurons[:step], done[:step])) / total
        rest = float(self._neurons[step + 1 :].sum()) / total
        last = done[step - 1] if step else 0.0
        return np.array([*self._fixed[step], before, rest, last], dtype=np.float32)

    def rows(self, done: Sequence[float]) -> Rows:
        """All states of a walk, (T + 1, 8)."""
        rows = [self.row(step, done) for step in range(len(self._neurons))]
        return np.stack([*rows, np.zeros(self.size, dtype=np.float32)])


#: Sparsities at which `SensitiveStates` says what is lost; closer together where networks are cut.
KNOTS = (0.0, 0.25, 0.5, 0.625, 0.75, 0.8125, 0.875, 0.9375, 1.0)
_KNOTS = torch.tensor(KNOTS)


@dataclass(frozen=True, slots=True)
class Losses:
    """What is lost with each width of each group, as far as is known before any plan was tried.

    `curves[group][w]`, (channels + 1,), is about in [0, 1] and falls with the width w.
    """

    curves: Mapping[str, Sequence[float]]
    #: Whether it is known to add up over groups, nearly: then plans can be compared by the sum.
    additive: bool = False


class SensitiveStates:
    """[ACNN]'s state, the cost and the sensitivity of the group, and what was done so far.

    | columns | |
    |---|---|
    | 0-3 | the paper's [t, n, p, l_p] |
    | 4 | share of the network's multiply-accumulates that the group's channels cost |
    | 5-13 | what is lost at each of `KNOTS` (`Losses`, measured on data) |
    | 14 | neurons gone so far, over those that the whole network has |
    | 15 | these of what was done so far, summed |
    | 16, 17 | the two previous actions |

    Raises UsageError where losses are not finite.
    """

    size = 9 + len(KNOTS)
    _first, _so_far = 5, 6 + len(KNOTS)

    def __init__(self, groups: Sequence[Group], losses: Losses) -> None:
        self.additive = losses.additive
        self._groups = tuple(groups)
        self._curves = [np.asarray(losses.curves[group.name], dtype=np.float64) for group in groups]
        neurons = np.array([group.channels * group.neurons_per_channel for group in groups], dtype=np.float64)
        self._share = neurons / neurons.sum()
        macs = np.array([group.macs_per_channel * group.channels for group in groups])
        at = [[self._of(step, sparsity) for sparsity in KNOTS] for step in range(len(self._groups))]
        self._fixed = np.column_stack([PaperStates(groups).rows(())[:-1], macs / macs.sum(), at])
        for group, row in zip(self._groups, self._fixed, strict=True):
            if not np.isfinite(row).all():
                raise UsageError(
                    f"what the search sees of group '{group.name}' is not finite",
                    "the network's activations are too large: check how inputs are scaled (--preprocessing), or give "
                    "another --criterion",
                )

    def lost(self, step: int, width: int) -> float:
        """What is lost by cutting group `step` to a width."""
        return float(self._curves[step][width])

    def _of(self, step: int, sparsity: float) -> float:
        channels = len(self._curves[step]) - 1
        return self.lost(step, round((1.0 - min(max(sparsity, 0.0), 1.0)) * channels))

    def row(self, step: int, done: Sequence[float]) -> State:
        """The state (size,) before group `step`."""
        gone = float(np.dot(self._share[:step], done[:step]))
        lost = sum(self._of(index, done[index]) for index in range(step))
        last = done[step - 1] if step else 0.0
        earlier = done[step - 2] if step > 1 else 0.0
        return np.array([*self._fixed[step], gone, lost, last, earlier], dtype=np.float32)

    def rows(self, done: Sequence[float]) -> Rows:
        """All states of a walk, (T + 1, size)."""
        rows = [self.row(step, done) for step in range(len(self._groups))]
        return np.stack([*rows, np.zeros(self.size, dtype=np.float32)])

    @classmethod
    def prices(cls, states: Tensor, actions: Tensor) -> Tensor:
        """What actions (B, 1) in states (B, size) lose, alone and with all before: (B, 2), by linear interpolation.

        Differentiable in the actions, so that an actor can follow a critic that looks at it.
        """
        values = states[:, cls._first : cls._first + len(KNOTS)]
        right = torch.bucketize(actions.detach(), _KNOTS).clamp(1, len(KNOTS) - 1)
        low, high = values.gather(1, right - 1), values.gather(1, right)
        share = (actions - _KNOTS[right - 1]) / (_KNOTS[right] - _KNOTS[right - 1])
        price = low + share * (high - low)
        return torch.cat([price, states[:, cls._so_far : cls._so_far + 1] + price], 1)
