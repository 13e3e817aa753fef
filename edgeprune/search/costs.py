"""What plans cost on this device, learnt from those that were measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeprune.core.design import Group
from edgeprune.core.measurement import Measurement

#: Widths of a group at which its cost may step, at most: of a wide group some, evenly spread.
STEPS = 16
#: What is believed before anything is measured: a cost is a fifth fixed and goes for the rest with the work, give or
#: take as much; a group steps off that line by some per cent in all; a reading is good to 1 %.
_FIXED, _PER_WORK, _DOUBT, _STEP, _READING = 0.2, 0.8, 0.4, 0.05, 0.01
#: That more figures of the work than the first two matter is believed as little as that a group steps.
_OTHER = 0.1

Vector = npt.NDArray[np.float64]
Widths = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Fit:
    """How far a model's predictions lie off the figures it has not seen, as shares of these: median and 90th percentile
    over `measured` plans, each predicted from all the others.
    """

    measured: int
    median_error: float
    p90_error: float


class CostModel:
    """One kind of cost (latency, memory, bytes), as a share of the unpruned network's, from the widths of the groups.

    cost(w) = a + b macs(w) + c parameters(w) + d blocked(w) + sum over groups g and steps t of s_gt [w_g < t]

    The first terms know that a layer's work is a product of what it makes and reads; the steps, additive per group,
    know this device: widths at which a kernel changes. Fitted by ridge regression, which is Bayesian linear regression
    around the belief that cost goes with the work; with nothing measured it is that belief.
    """

    def __init__(self, groups: Sequence[Group], work: Callable[[Widths], Sequence[float]]) -> None:
        """`work(widths)` are shares of the unpruned network's multiply-accumulates and parameters, or other figures."""
        self._groups, self._work = tuple(groups), work
        steps = [_steps(group) for group in groups]
        self._steps = np.concatenate(steps) if steps else np.zeros(0)
        self._owner = np.repeat(np.arange(len(steps)), [len(each) for each in steps])
        count = len(work({}))
        self._mean = np.concatenate([[_FIXED, _PER_WORK], np.zeros(count - 1 + len(self._steps))])
        spread = [np.full(len(each), _STEP / max(1, len(each)) ** 0.5) for each in steps]
        doubt = [_DOUBT] * 3 + [_OTHER] * (count - 2)
        self._precision = np.concatenate([doubt[: 1 + count], *spread]) ** -2.0
        self._rows: list[Vector] = []
        self._costs: list[float] = []
        self._weights = self._mean
        # The unpruned network costs all of itself.
        self.learn({}, 1.0)

    def learn(self, widths: Widths, cost: float) -> None:
        """One more plan was measured: its cost, a share of the unpruned network's."""
        self._rows.append(self._row(widths))
        self._costs.append(cost)
        rows, costs = np.stack(self._rows), np.array(self._costs)
        # A reading is off by a share of itself.
        noise = (_READING * np.maximum(costs, 0.05)) ** -2.0
        self._hessian = (rows.T * noise) @ rows + np.diag(self._precision)
        off = costs - rows @ self._mean
        self._weights = self._mean + np.linalg.solve(self._hessian, (rows.T * noise) @ off)
        self._fit = self._fitted(rows, costs, noise)

    def __call__(self, widths: Widths) -> float:
        """The predicted cost, a share of the unpruned network's."""
        return float(self._row(widths) @ self._weights)

    def drawn(self, random: np.random.Generator) -> CostModel:
        """Another that is as likely by what was measured: weights drawn from their posterior distribution."""
        other = copy(self)
        noise = np.linalg.solve(np.linalg.cholesky(self._hessian).T, random.standard_normal(len(self._weights)))
        other._weights = self._weights + noise
        return other

    @property
    def fit(self) -> Fit:
        """How good it is: every plan measured so far predicted without it."""
        return self._fit

    def _fitted(self, rows: Vector, costs: Vector, noise: Vector) -> Fit:
        # What a plan's own figure weighs in its prediction; without it the rest is off by more.
        leverage = np.einsum("ij,ji->i", rows, np.linalg.solve(self._hessian, rows.T)) * noise
        off = np.abs((costs - rows @ self._weights) / np.maximum(1.0 - leverage, 1e-9))[1:]
        if not len(off):
            return Fit(0, float("nan"), float("nan"))
        errors = off / costs[1:]
        return Fit(len(errors), float(np.median(errors)), float(np.quantile(errors, 0.9)))

    def _row(self, widths: Widths) -> Vector:
        own = np.array([widths.get(group.name, group.channels) for group in self._groups])
        below = own[self._owner] < self._steps
        return np.concatenate([[1.0], self._work(widths), below])


def _steps(group: Group) -> Vector:
    """Widths below which a group may cost less by a step: its allowed ones but the floor, some of them if many."""
    allowed = [w for w in range(group.least + 1, group.channels + 1) if group.snap(w) == w]
    if len(allowed) > STEPS:
        allowed = [allowed[round(i)] for i in np.linspace(0, len(allowed) - 1, STEPS)]
    return np.array(allowed, dtype=np.float64)


class Costs:
    """The models of all kinds of cost that a bound may be on. Shares of the unpruned network's."""

    def __init__(self, groups: Sequence[Group], work: Callable[[Widths], Sequence[float]], bytes: int) -> None:
        """`bytes`: the unpruned file's."""
        self.latency, self.memory, self.bytes = (CostModel(groups, work) for _ in range(3))
        self._whole_bytes = bytes

    def drawn(self, random: np.random.Generator) -> Costs:
        """Others that are as likely by what was measured."""
        other = copy(self)
        other.latency, other.memory, other.bytes = (
            each.drawn(random) for each in (self.latency, self.memory, self.bytes)
        )
        return other

    def learn(self, widths: Widths, measured: Measurement) -> None:
        """A plan was measured."""
        self.latency.learn(widths, measured.quotient)
        self.memory.learn(widths, measured.memory_quotient)
        self.bytes.learn(widths, measured.bytes / self._whole_bytes)
