"""Shapley values of channels ([Shapley] section 2): what each of them adds to the network's accuracy.

    phi_i = sum over S in N without i of |S|! (|N| - |S| - 1)! / |N|! [v(S + i) - v(S)]

The game: players N are the channels of one group, v(S) is the accuracy with only the channels S active. The others are
masked where they are read, and nothing is repaired. Accuracy and not the loss, which has no bound: the few small
coalitions whose loss is huge would decide over everything.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from edgeprune.core.design import PruningPlan
from edgeprune.models.inputs import Inputs, ask, mapped, numel
from edgeprune.pruning.cost import weighted
from edgeprune.pruning.structure import Coupling
from edgeprune.pruning.surgery import mask

#: Players up to whom every coalition is looked at.
EXACT_UP_TO = 10
#: A permutation's rest is left out once the accuracy is this near to everybody's (Ghorbani & Zou 2019, algorithm 1).
TOLERANCE = 0.002
#: Numbers of one layer's outputs that are worked on at once.
_NUMBERS = 4_000_000
#: Coalitions that are looked at together, at most; truncation is decided between such batches.
_TOGETHER = 32


class Game(Protocol):
    """A characteristic function v over coalitions of `players`."""

    @property
    def players(self) -> int:
        """How many there are."""

    @property
    def together(self) -> int:
        """How many coalitions are best looked at in one call."""

    def values(self, coalitions: Tensor) -> Tensor:
        """v of each coalition: (B, players) bool -> (B,) float64."""

    def prefixes(self, order: Tensor, start: int, stop: int) -> Tensor:
        """v of the first start + 1, ..., stop players of `order` (players,): (stop - start,) float64."""


class FunctionGame:
    """A game given by any function v: (B, players) bool -> (B,)."""

    def __init__(self, players: int, function: Callable[[Tensor], Tensor], together: int = _TOGETHER) -> None:
        self.players = players
        self.together = together
        self.values = function

    def prefixes(self, order: Tensor, start: int, stop: int) -> Tensor:
        """v of the first start + 1, ..., stop players of `order`."""
        return self.values(_prefixes(order, start, stop))


@dataclass(frozen=True)
class ShapleyValues:
    """What was found: `values` and `errors` (players,) float64; `errors` are standard errors, 0 where exact.

    `permutations` None: every coalition was looked at.
    """

    values: Tensor
    errors: Tensor
    everybody: float
    nobody: float
    permutations: int | None
    evaluations: int


def evaluations(players: int, permutations: int) -> int:
    """Evaluations of v that `shapley_values` takes at most: all coalitions, or every prefix of every permutation."""
    return 2**players if players <= EXACT_UP_TO else permutations * players + 2


def seconds_per_evaluation(game: Game) -> float:
    """Measured now, on one batch of prefixes, after one that is not counted."""
    order = torch.arange(game.players)
    count = min(game.together, game.players)
    game.prefixes(order, 0, count)
    started = time.perf_counter()
    game.prefixes(order, 0, count)
    return (time.perf_counter() - started) / count


def shapley_values(
    game: Game,
    permutations: int,
    seed: int,
    *,
    tolerance: float = TOLERANCE,
    advance: Callable[[int], None] = lambda _: None,
) -> ShapleyValues:
    """Exact for up to `EXACT_UP_TO` players, sampled else. `advance` gets the evaluations that were done or saved."""
    if game.players <= EXACT_UP_TO:
        return exact(game, advance)
    return sample(game, permutations, seed, tolerance=tolerance, advance=advance)


def exact(game: Game, advance: Callable[[int], None] = lambda _: None) -> ShapleyValues:
    """Every coalition: 2^players evaluations."""
    n = game.players
    numbers = torch.arange(2**n)
    members = (numbers[:, None] >> torch.arange(n) & 1).bool()
    found = []
    for part in torch.split(members, game.together):
        found.append(game.values(part))
        advance(len(part))
    v = torch.cat(found)
    # w(s) = s! (n - s - 1)! / n! = 1 / (n * (n - 1 choose s))
    chosen = torch.tensor([1.0], dtype=torch.float64)
    for _ in range(n - 1):
        chosen = torch.cat([chosen, chosen.new_zeros(1)]) + torch.cat([chosen.new_zeros(1), chosen])
    weight = 1 / (n * chosen)
    values = torch.zeros(n, dtype=torch.float64)
    for player in range(n):
        without = numbers[~members[:, player]]
        added = v[without + (1 << player)] - v[without]
        values[player] = (weight[members[without].sum(1)] * added).sum()
    return ShapleyValues(values, torch.zeros_like(values), float(v[-1]), float(v[0]), None, len(v))


def sample(
    game: Game,
    permutations: int,
    seed: int,
    *,
    tolerance: float = TOLERANCE,
    advance: Callable[[int], None] = lambda _: None,
) -> ShapleyValues:
    """Monte-Carlo permutation sampling with truncation (Ghorbani & Zou 2019, algorithm 1; Castro et al. 2009).

    Each permutation is walked from nobody upwards; once v is within `tolerance` of v(N) after a batch of players, the
    rest of them add 0 (tolerance 0: never). Errors are standard errors of the mean over permutations, at least 2.
    """
    n = game.players
    ends = game.values(torch.stack([torch.zeros(n, dtype=torch.bool), torch.ones(n, dtype=torch.bool)]))
    nobody, everybody = float(ends[0]), float(ends[1])
    advance(2)
    done = 2
    generator = torch.Generator().manual_seed(seed)
    added = torch.zeros(permutations, n, dtype=torch.float64)
    for row in added:
        order = torch.randperm(n, generator=generator)
        before, start = torch.tensor([nobody], dtype=torch.float64), 0
        while start < n and (start == 0 or not abs(everybody - float(before)) < tolerance):
            stop = min(start + game.together, n)
            v = torch.cat([before, game.prefixes(order, start, stop)])
            row[order[start:stop]] = v.diff()
            before, done, start = v[-1:], done + stop - start, stop
        advance(n)
    errors = added.std(0) / permutations**0.5
    return ShapleyValues(added.mean(0), errors, everybody, nobody, permutations, done)


def _prefixes(order: Tensor, start: int, stop: int) -> Tensor:
    """The first start + 1, ..., stop players of `order` as coalitions: (stop - start, players) bool."""
    place = torch.argsort(order)
    return place[None, :] < torch.arange(start + 1, stop + 1)[:, None]


class NetworkGame:
    """The channels of a group play for the accuracy on `inputs` (N, *shape) with `labels` (N,).

    Only what comes after the group is worked out again: layers that ran before its first reader keep their outputs.
    Where a single linear layer reads the group, a permutation's prefixes are sums that grow by a column at a time.
    Where other weights read it (of recurrent layers, grouped convolutions, a forward's own), each coalition is a
    network of its own in which they ignore the rest.
    """

    def __init__(self, network: nn.Module, coupling: Coupling, inputs: Inputs, labels: Tensor) -> None:
        self._network = network.eval()
        self._inputs, self._labels = inputs, labels
        self.players = coupling.group.channels
        self._readers: dict[str, Tensor] = {}
        self._apart = coupling if coupling.columns else None
        if self._apart is not None:
            self.together, self._linear = 1, None
            return
        for reader in coupling.consumers:
            # Player of each input channel of the reader; `players` stands for what does not play.
            of = torch.full((weighted(network, reader.layer).weight.shape[1],), self.players)
            of[torch.tensor(reader.columns)] = torch.arange(self.players)[:, None]
            self._readers[reader.layer] = of
        self._known, self._read, widest = self._watch()
        self.together = max(1, min(_TOGETHER, _NUMBERS // widest))
        self._linear = self._single_linear()

    def values(self, coalitions: Tensor) -> Tensor:
        """Accuracy with only the channels of each coalition active: (B, players) bool -> (B,) float64."""
        if self._apart is not None:
            return torch.cat([self._of_its_own(row, self._apart) for row in coalitions])
        return torch.cat([self._masked(part) for part in torch.split(coalitions, self.together)])

    def prefixes(self, order: Tensor, start: int, stop: int) -> Tensor:
        """Accuracy with the first start + 1, ..., stop channels of `order` active."""
        if self._linear is None:
            return self.values(_prefixes(order, start, stop))
        layer, bias = self._linear
        of, x = self._readers[layer], self._read[layer][0]
        weight = weighted(self._network, layer).weight.detach()
        place = torch.cat([torch.argsort(order), torch.tensor([-1])])[of]
        parts = []
        with torch.no_grad():
            before = place < start
            reached = bias + x[:, before] @ weight[:, before].T
            for first in range(start, stop, self.together):
                last = min(first + self.together, stop)
                steps = []
                for step in range(first, last):
                    columns = (place == step).nonzero()[:, 0]
                    reached = reached.addmm(x[:, columns], weight[:, columns].T)
                    steps.append(reached)
                with self._standing(last - first), _replaced(self._network, {layer: torch.cat(steps)}):
                    parts.append(self._score(last - first))
        return torch.cat(parts)

    def _masked(self, coalitions: Tensor) -> Tensor:
        count = len(coalitions)
        active = torch.cat([coalitions, torch.ones(count, 1, dtype=torch.bool)], 1)

        def hook(layer: str) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
            columns = active[:, self._readers[layer]].repeat_interleave(len(self._labels), 0)
            linear = isinstance(self._network.get_submodule(layer), nn.Linear)

            def mask(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
                ones = (1,) * (args[0].ndim - 2)
                shape = (len(columns), *ones, columns.shape[1]) if linear else (*columns.shape, *ones)
                return (args[0] * columns.reshape(shape), *args[1:])

            return mask

        hooks = [self._network.get_submodule(name).register_forward_pre_hook(hook(name)) for name in self._readers]
        try:
            with torch.no_grad(), self._standing(count):
                return self._score(count)
        finally:
            for each in hooks:
                each.remove()

    def _of_its_own(self, members: Tensor, coupling: Coupling) -> Tensor:
        plan = PruningPlan({coupling.group.name: tuple(members.nonzero()[:, 0].tolist())})
        with torch.no_grad():
            return self._score(1, mask(self._network, (coupling,), plan))

    def _score(self, count: int, network: nn.Module | None = None) -> Tensor:
        """Accuracy of `count` coalitions side by side."""
        logits = ask(network or self._network, mapped(self._inputs, partial(_side_by_side, count=count))).reshape(
            count, len(self._labels), -1
        )
        right: Tensor = logits.argmax(2) == self._labels
        return right.double().mean(1)

    @contextmanager
    def _standing(self, count: int) -> Iterator[None]:
        with _replaced(self._network, {name: _side_by_side(each, count) for name, each in self._known.items()}):
            yield

    def _single_linear(self) -> tuple[str, Tensor] | None:
        """The reader and its bias (out,), where it is the only one, linear, and reads rows of features once."""
        layer = next(iter(self._readers))
        module = weighted(self._network, layer)
        once = len(self._read[layer]) == 1 and self._read[layer][0].ndim == 2
        if len(self._readers) > 1 or not isinstance(module, nn.Linear) or not once:
            return None
        return layer, module.weight.new_zeros(len(module.weight)) if module.bias is None else module.bias.detach()

    def _watch(self) -> tuple[dict[str, Tensor], dict[str, list[Tensor]], int]:
        """One run: outputs of the leaves that only run before the first reader, what readers read, the widest row."""
        # Copies, since what follows may work in place.
        known: dict[str, Tensor] = {}
        read: dict[str, list[Tensor]] = {}
        runs: Counter[str] = Counter()
        widest = len(self._inputs) * numel(self._inputs)
        hooks = []
        for name, module in self._network.named_modules():
            if name in self._readers:

                def listen(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                    read.setdefault(name, []).append(args[0].clone())

                hooks.append(module.register_forward_pre_hook(listen))
            if not any(True for _ in module.children()):

                def note(_m: nn.Module, _a: object, out: Any, name: str = name) -> None:
                    nonlocal widest
                    runs[name] += 1
                    if isinstance(out, Tensor):
                        widest = max(widest, out.numel())
                        if not read:
                            known[name] = out.clone()

                hooks.append(module.register_forward_hook(note))
        try:
            with torch.no_grad():
                ask(self._network, self._inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return {name: each for name, each in known.items() if runs[name] == 1}, read, widest


def _side_by_side(x: Tensor, count: int) -> Tensor:
    """(count * N, ...) of x (N, ...): all rows, then all rows again; always a copy, which may be changed in place."""
    return x.repeat(count, *(1,) * (x.ndim - 1))


@contextmanager
def _replaced(network: nn.Module, outputs: dict[str, Tensor]) -> Iterator[None]:
    """While it lasts, the modules give these outputs whatever they are asked."""
    modules = [network.get_submodule(name) for name in outputs]
    try:
        for module, output in zip(modules, outputs.values(), strict=True):
            module.__dict__["forward"] = lambda *_, output=output: output
        yield
    finally:
        for module in modules:
            module.__dict__.pop("forward", None)
