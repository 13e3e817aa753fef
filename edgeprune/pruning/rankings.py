"""Rankings of channels: which go first.

| ranking | a channel's score | looks at |
|---|---|---|
| `l1` | [ACNN] (1): L1 norm of the neuron's weights | weights |
| `l2` | L2 norm of the same weights (Li et al. 2017, section 3.1 compares the two) | weights |
| `taylor` | mean of abs(activation x gradient) (Molchanov et al. 2017, eq. 8) | inputs, labels |
| `activation` | sum of abs(W_ij) ||X_j||_2 over the weights that read it (Sun et al. 2024, eq. 1) | inputs |
| `reconstruction` | drop of the readers' output error, chosen greedily | Gram and Fisher matrices |

Of an input feature the weights of `l1` and `l2` are its column in the first layer; of a coupled channel, those of all
its makers. What a ranking by data looks at are training images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.models.inputs import Inputs, ask
from edgeprune.pruning.cost import tensor_of, weighted
from edgeprune.pruning.criteria import RIDGE, Ranking, augmented, blocks, cholesky
from edgeprune.pruning.structure import Consumer, Coupling, Structure
from edgeprune.tasks.objectives import objective_of
from edgeprune.tasks.task import CLASSIFICATION, Task

#: Groups up to this many columns are chosen from as a whole, which is the exact greedy choice.
_WHOLE = 512
#: Columns that the best candidates of wider groups have together.
_POOL = 256


def l1(network: nn.Module, structure: Structure) -> Ranking:
    """[ACNN] (1)-(2): neurons with the smallest L1 norm of their weights go first."""
    return _by_norm(network, structure, 1)


def l2(network: nn.Module, structure: Structure) -> Ranking:
    """Neurons with the smallest L2 norm of their weights go first (Li et al. 2017, section 3.1)."""
    return _by_norm(network, structure, 2)


def taylor(
    network: nn.Module,
    structure: Structure,
    batches: Iterable[tuple[Inputs, Tensor]],
    task: Task = CLASSIFICATION,
) -> Ranking:
    """First-order Taylor estimate of the loss change when a channel goes (Molchanov et al. 2017, eq. 8).

    Per example the products of activation and gradient are summed over what is read of the channel, by all its readers;
    the score is the sum of their absolute values. They are the gradients of gates of 1 on the readers' inputs
    (Molchanov et al. 2019, section 3.2). `batches` give inputs (N, *shape) and targets (N, ...).
    """
    gates: dict[str, list[Tensor]] = {}

    def gate(layer: str, x: Tensor) -> Tensor:
        spatial = not isinstance(network.get_submodule(layer), nn.Linear)
        shape = x.shape[:2] + (1,) * (x.ndim - 2) if spatial else x.shape[:1] + (1,) * (x.ndim - 2) + x.shape[-1:]
        gates.setdefault(layer, []).append(torch.ones(shape, dtype=x.dtype, requires_grad=True))
        return x * gates[layer][-1]

    totals = {c.group.name: torch.zeros(c.group.channels, dtype=torch.float64) for c in structure.couplings}
    with _Listening(network, structure, gate):
        for x, y in batches if any(coupling.consumers for coupling in structure.couplings) else ():
            gates.clear()
            with torch.enable_grad():
                loss = objective_of(task).loss(ask(network, x), y, "sum")
            flat = [each for own in gates.values() for each in own]
            # A reader whose output is dropped sways nothing.
            slopes = iter(torch.autograd.grad(loss, flat, materialize_grads=True))
            # (N, columns) per reader; a layer that runs twice is read twice.
            slope = {layer: torch.stack([next(slopes).flatten(1) for _ in own]).sum(0) for layer, own in gates.items()}
            for coupling in structure.couplings:
                change = [slope[r.layer][:, torch.tensor(r.columns)].sum(2) for r in coupling.consumers]
                if not change:
                    continue
                totals[coupling.group.name] += torch.stack(change).sum(0).abs().double().sum(0)
    for coupling in structure.couplings:
        if not coupling.consumers:
            totals[coupling.group.name] = _norm(network, coupling, 2)
    return by_scores(totals)


def activation(network: nn.Module, structure: Structure, batches: Iterable[Inputs]) -> Ranking:
    """Weights that read a channel, each times the L2 norm of what it receives (Sun et al. 2024, eq. 1), summed.

    `batches` give inputs (N, *shape).
    """
    energy: dict[str, Tensor] = {}

    def note(layer: str, x: Tensor) -> None:
        spatial = not isinstance(network.get_submodule(layer), nn.Linear)
        rows = x.movedim(1, -1) if spatial else x
        squares = rows.reshape(-1, rows.shape[-1]).double().square().sum(0)
        energy[layer] = energy.get(layer, 0) + squares

    with _Listening(network, structure, note), torch.no_grad():
        for x in batches:
            ask(network, x)
    totals = {}
    for coupling in structure.couplings:
        score = torch.zeros(coupling.group.channels, dtype=torch.float64)
        for reader in coupling.consumers:
            weight = weighted(network, reader.layer).weight.detach().double().abs()
            columns = weight.sum(0).flatten(1).sum(1) if weight.ndim > 2 else weight.sum(0)
            score += (columns * energy[reader.layer].sqrt())[torch.tensor(reader.columns)].sum(1)
        totals[coupling.group.name] = score if coupling.consumers else _norm(network, coupling, 2)
    return by_scores(totals)


def by_scores(scores: Mapping[str, Tensor]) -> Ranking:
    """Highest score first, ties in the order of the channels. `scores[name]` (channels,); what is negative counts 0."""
    order, lost = {}, {}
    for name, score in scores.items():
        ordered = torch.argsort(score, descending=True, stable=True)
        order[name] = tuple(ordered.tolist())
        lost[name] = _lost(score[ordered].double().clamp(min=0))
    return Ranking(order, lost)


def reconstruction(
    network: nn.Module,
    structure: Structure,
    grams: Mapping[str, Tensor],
    fishers: Mapping[str, Tensor] | None = None,
) -> Ranking:
    """Forward selection of the channels from which the readers' outputs are rebuilt best.

    By the drop of the output error e (orthogonal least squares, the multi-response form of matching pursuit), over all
    readers of a group together, each scaled by its output's energy. `grams` as `gram_matrices` gives them. With
    `fishers` of `fisher_matrices` an error counts as it sways the answer, e' F e, without them as e' e.
    """
    order, lost = {}, {}
    for coupling in structure.couplings:
        if not coupling.consumers:
            # Nothing that reads it is rebuilt: its own weights are all there is to look at.
            found = by_scores({"": _norm(network, coupling, 2)})
            order[coupling.group.name], lost[coupling.group.name] = found.order[""], found.lost[""]
            continue
        chosen, gains = _select(network, coupling, grams, fishers)
        order[coupling.group.name] = tuple(chosen)
        lost[coupling.group.name] = _lost(torch.tensor(gains, dtype=torch.float64).clamp(min=0))
    return Ranking(order, lost)


def _lost(gains: Tensor) -> tuple[float, ...]:
    """Shares that are lost at each width, from what each channel in turn adds: (channels + 1,)."""
    tail = torch.cat([gains.flip(0).cumsum(0).flip(0), gains.new_zeros(1)])
    tail = tail / tail[0] if tail[0] > 0 else torch.zeros_like(tail)
    tail[0] = 1.0
    return tuple(tail.tolist())


def _by_norm(network: nn.Module, structure: Structure, power: int) -> Ranking:
    scores = {}
    for coupling in structure.couplings:
        scores[coupling.group.name] = _norm(network, coupling, power)
    return by_scores(scores)


def _norm(network: nn.Module, coupling: Coupling, power: int) -> Tensor:
    """The norm of each channel's weights (channels,)."""
    total = torch.zeros(coupling.group.channels, dtype=torch.float64)
    for each in coupling.rows:
        values = tensor_of(network, each.tensor).detach().double().abs().pow(power).movedim(each.axis, 0).flatten(1)
        sums = values.sum(1)
        total += torch.stack([sums[list(places)].sum() for places in each.places])
    if not coupling.rows:
        total += weighted(network, coupling.consumers[0].layer).weight.detach().double().abs().pow(power).sum(0)
    return total.pow(1 / power)


class _Listening:
    """While it lasts, `hear(layer, x)` gets what each reader receives, and what it returns (if anything) is read."""

    def __init__(self, network: nn.Module, structure: Structure, hear: Callable[[str, Tensor], Tensor | None]) -> None:
        self._network = network
        self._layers = {reader.layer for coupling in structure.couplings for reader in coupling.consumers}
        self._hear = hear
        self._hooks: list[Any] = []

    def __enter__(self) -> None:
        self._network.eval()
        for layer in sorted(self._layers):

            def hook(_: nn.Module, args: tuple[Tensor, ...], layer: str = layer) -> tuple[Tensor, ...] | None:
                heard = self._hear(layer, args[0])
                return None if heard is None else (heard, *args[1:])

            self._hooks.append(self._network.get_submodule(layer).register_forward_pre_hook(hook))

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()


def _select(
    network: nn.Module, coupling: Coupling, grams: Mapping[str, Tensor], fishers: Mapping[str, Tensor] | None
) -> tuple[list[int], list[float]]:
    """Channels from most to least useful, and what share of the outputs' energy each in turn explains."""
    readers = [
        _Reader(network, consumer, grams[consumer.layer], None if fishers is None else fishers[consumer.layer])
        for consumer in coupling.consumers
    ]
    taps = max(reader.taps for reader in readers)
    size = max(8, _POOL // taps)
    left = torch.arange(coupling.group.channels)
    order: list[int] = []
    gains: list[float] = []
    while len(left):
        pool, least, rest = left, len(left), 0.0
        if len(left) * taps > _WHOLE and len(left) > size:
            # A step over the whole matrix costs a pass over all of it, so several channels are taken per pass: greedily
            # among the best candidates, as long as these are better than any other was at the pass (Minoux 1978).
            gain = torch.stack([reader.gains()[left] for reader in readers]).sum(0)
            best = torch.argsort(gain, descending=True, stable=True)
            pool, least, rest = left[best[:size]], 1 + min(len(order) // 16, size // 4), float(gain[best[size]])
        found, explained = _greedy([reader.part(pool) for reader in readers], least, rest)
        chosen = pool[found]
        order.extend(chosen.tolist())
        gains.extend(explained)
        left = left[~torch.isin(left, chosen)]
        if len(left):
            for reader in readers:
                reader.take(chosen)
    return order, gains


class _Reader:
    """What forward selection knows of one reader, given what has been taken: R, the Gram matrix, and M = W R.

    Where errors count by a Fisher matrix F = L L', W stands for L' W.

    Neither is updated as a whole: R = R0 - L L' and M = M0 - Z L' are worked out where they are looked at, and for
    every channel c only R_cc and M_c' M_c are kept, from which gains follow.

    | tensor | shape (n columns in all, s of them taken) |
    |---|---|
    | `_residual` R0, `_cross` M0 | (n, n), (m, n) |
    | `_factor` L, `_seen` Z | (n, s), (m, s) |
    | `_inner` R_cc, `_outer` M_c' M_c | (channels, taps, taps) |
    """

    def __init__(self, network: nn.Module, consumer: Consumer, gram: Tensor, fisher: Tensor | None) -> None:
        weight, own = augmented(network, consumer.layer), blocks(network, consumer)
        if fisher is not None:
            weight = cholesky(fisher.clone()).T @ weight
        channels, self.taps = own.shape
        ridge = RIDGE * gram.diagonal().mean()
        residual = gram.clone()
        residual.diagonal().add_(ridge)
        cross = weight @ gram
        energy = (cross * weight).sum().clamp(min=1e-30)
        cross.add_(weight, alpha=float(ridge))
        others = torch.ones(len(gram), dtype=torch.bool)
        others[own.flatten()] = False
        if others.any():
            # The constant, and what comes from other groups, is kept in any case: take it out first.
            _eliminate(residual, cross, others.nonzero()[:, 0])
        self._residual = residual[own.flatten()][:, own.flatten()]
        self._cross = _triangular(cross[:, own.flatten()] / energy.sqrt())
        self._taken = 0
        self._all_factor, self._all_seen = gram.new_empty(self._residual.shape), gram.new_empty(self._cross.shape)
        parts = self._cross.T.reshape(channels, self.taps, -1)
        self._outer = parts @ parts.mT
        shaped = self._residual.reshape(channels, self.taps, channels, self.taps)
        self._inner = shaped.diagonal(dim1=0, dim2=2).permute(2, 0, 1).clone()

    @property
    def _factor(self) -> Tensor:
        return self._all_factor[:, : self._taken]

    @property
    def _seen(self) -> Tensor:
        return self._all_seen[:, : self._taken]

    def gains(self) -> Tensor:
        """Drop of the output error for taking each channel next: trace(R_cc^-1 M_c' M_c). (channels,)"""
        return _traces(self._inner, self._outer)

    def part(self, pool: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """R and M of the channels `pool`, and each one's columns in them: (p, p), (m, p), (len(pool), taps)."""
        columns = self._columns(pool)
        factor = self._factor[columns]
        residual = self._residual[columns][:, columns].addmm_(factor, factor.T, alpha=-1)
        cross = self._cross[:, columns].addmm_(self._seen, factor.T, alpha=-1)
        return residual, _triangular(cross), torch.arange(len(columns)).reshape(len(pool), self.taps)

    def take(self, chosen: Tensor) -> None:
        """Condition on the channels `chosen`: one pass over L and one over M0."""
        columns = self._columns(chosen)
        factor = self._factor[columns]
        block = self._residual[columns][:, columns].addmm_(factor, factor.T, alpha=-1)
        root = cholesky(block)
        cross = self._cross[:, columns].addmm_(self._seen, factor.T, alpha=-1)
        seen = _divided(cross, root)
        passed = self._factor @ torch.cat([factor.T, self._seen.T @ seen], 1)
        new = _divided(self._residual[:, columns] - passed[:, : len(columns)], root)
        both = self._cross.T @ seen - passed[:, len(columns) :]
        shape = (-1, self.taps, len(columns))
        new_parts, both_parts = new.reshape(shape), both.reshape(shape)
        self._inner -= new_parts @ new_parts.mT
        mixed = both_parts @ new_parts.mT
        self._outer += new_parts @ (seen.T @ seen) @ new_parts.mT - mixed - mixed.mT
        taken = slice(self._taken, self._taken + len(columns))
        self._all_factor[:, taken], self._all_seen[:, taken] = new, seen
        self._taken = taken.stop

    def _columns(self, channels: Tensor) -> Tensor:
        return (channels[:, None] * self.taps + torch.arange(self.taps)).flatten()


def _greedy(parts: list[tuple[Tensor, Tensor, Tensor]], least: int, rest: float) -> tuple[list[int], list[float]]:
    """The exact greedy choice among the channels of `parts` (R, M, columns), and each one's gain.

    At least `least` are taken, and more as long as they gain more than `rest`.
    """
    left = torch.ones(len(parts[0][2]), dtype=torch.bool)
    order: list[int] = []
    gains: list[float] = []
    while left.any():
        gain = torch.stack([_gains(residual, cross, own, left) for residual, cross, own in parts]).sum(0)
        gain[~left] = -torch.inf
        best = int(gain.argmax())
        if len(order) >= least and gain[best] <= rest:
            break
        for residual, cross, own in parts:
            _eliminate(residual, cross, own[best])
        left[best] = False
        order.append(best)
        gains.append(float(gain[best]))
    return order, gains


def _gains(residual: Tensor, cross: Tensor, own: Tensor, left: Tensor) -> Tensor:
    """Drop of the squared error for taking each channel next: trace(M_b R_bb^-1 M_b'), M = W R. (channels,)"""
    if own.shape[1] == 1:
        return _traces(residual.diagonal()[own, None], cross.square().sum(0)[own, None])
    gains = torch.zeros(len(own), dtype=torch.float64)
    todo = own[left]
    parts = cross[:, todo.flatten()].reshape(len(cross), len(todo), -1).permute(1, 2, 0)
    gains[left] = _traces(residual[todo[:, :, None], todo[:, None, :]], parts @ parts.mT)
    return gains


def _traces(inner: Tensor, outer: Tensor) -> Tensor:
    """trace(inner^-1 outer) of each pair: (channels, taps, taps) twice -> (channels,)."""
    if inner.shape[1] == 1:
        return (outer / inner.clamp(min=1e-30))[:, 0, 0]
    ridge = RIDGE * inner.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-30)
    inner = inner + ridge[:, None, None] * torch.eye(inner.shape[1], dtype=inner.dtype)
    solved: Tensor = torch.linalg.solve(inner, outer)
    return solved.diagonal(dim1=1, dim2=2).sum(1)


def _eliminate(residual: Tensor, cross: Tensor, columns: Tensor) -> None:
    """Condition on `columns`, in place: R -= R[:, b] R[b, b]^-1 R[b, :] and M = W R likewise."""
    root = cholesky(residual[columns][:, columns])
    new, seen = _divided(residual[:, columns], root), _divided(cross[:, columns], root)
    cross.addmm_(seen, new.T, alpha=-1)
    residual.addmm_(new, new.T, alpha=-1)


def _divided(rows: Tensor, root: Tensor) -> Tensor:
    """`rows` @ root^-T: (n, b)."""
    return torch.linalg.solve_triangular(root.T, rows, upper=True, left=False)  # type: ignore[no-any-return]


def _triangular(cross: Tensor) -> Tensor:
    """A matrix of fewer rows with the same `cross.T @ cross`, where there is one."""
    if cross.shape[0] <= cross.shape[1]:
        return cross
    return torch.linalg.qr(cross, mode="r").R  # type: ignore[no-any-return]
