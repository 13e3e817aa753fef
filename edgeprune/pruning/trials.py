"""Trials: which groups may be cut, each one proven by removing channels from a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn

from edgeprune.core.design import INPUTS, Group, PruningPlan
from edgeprune.core.errors import SurgeryError
from edgeprune.core.inputs import Shape
from edgeprune.core.runtimes import RUNTIMES, RuntimeName
from edgeprune.core.text import first_line
from edgeprune.models.inputs import ask, made
from edgeprune.pruning.axes.tracker import OUTPUT
from edgeprune.pruning.branches import heard, inside_branches
from edgeprune.pruning.channels import Graph
from edgeprune.pruning.constant import unrepeated
from edgeprune.pruning.cost import Work, count_parameters, neurons_of, tensor_of, weighted, work
from edgeprune.pruning.graph import Found
from edgeprune.pruning.held import Held
from edgeprune.pruning.removal import remove
from edgeprune.pruning.stays import Stay, obstacle
from edgeprune.pruning.structure import Consumer, Coupling, Places
from edgeprune.pruning.surgery import check_equal, cut, mask, twin


@dataclass(frozen=True, slots=True)
class Rules:
    """What every group keeps to (see `discover`)."""

    runtime: RuntimeName
    multiple_of: int | None
    max_sparsity: float
    max_columns: int | None
    branches: bool

    def step(self, group: Group) -> int:
        """What widths are multiples of, where the group is wide enough for it."""
        return self.multiple_of or (RUNTIMES[self.runtime].block if group.kind == "channels" else 1)

    def floor(self, channels: int, step: int) -> int:
        """The smallest allowed width: at least a share 1 - max_sparsity, rounded up to a multiple of `step`."""
        least = max(1, round(channels * (1 - self.max_sparsity)))
        return min(channels, -(-least // step) * step)


class Trials:
    """Tries the groups of `network`, which does the work `done` for an input of `shape`, and answers two of them with
    numbers of the shape `answer` (see `output_shape`).
    """

    def __init__(
        self,
        network: nn.Module,
        shape: Shape,
        graph: Graph,
        done: Work,
        held: Held,
        rules: Rules,
        answer: tuple[int, ...],
    ) -> None:
        self._network, self._shape, self._graph, self._done = network, shape, graph, done
        self._held, self._rules, self._answer = held, rules, answer
        #: Groups that stood their trial, in the order they were tried; those that did not.
        self.found: list[Coupling] = []
        self.staying: list[Stay] = []
        #: Layers that make what the network answers.
        self.outputs: list[str] = []

    def run(self, every: Iterable[Found]) -> None:
        """Try groups: all of them at once, and one by one where that fails."""
        eligible: list[Coupling] = []
        for each in every:
            coupling = self._refitted(each.coupling)
            why = (
                self._held.why(each.cut) or self._given(coupling) or each.held or _unread(each) or self._unfit(coupling)
            )
            if each.held == OUTPUT:
                self.outputs.extend(coupling.makers)
            elif why is not None:
                self.staying.append(Stay(coupling, why))
            else:
                eligible.append(coupling)
        sized = [replace(coupling, group=self._sized(coupling)) for coupling in eligible]
        alone = len(sized) == 1 or self._failure(sized) is not None
        for coupling in sized:
            stood = self._stood(coupling) if alone else coupling
            if isinstance(stood, str):
                self.staying.append(Stay(coupling, stood))
            else:
                self.found.append(replace(stood, group=self._costed(stood)))
        if alone:
            self._together()
        if self._rules.branches:
            self._let_go()

    def add_inputs(self, layer: str) -> None:
        """The input features that `layer` reads, as the first of the groups; they need no trial."""
        inputs = self._refitted(self._input_coupling(layer))
        held, most = self._held.why({f"{layer}.weight"}), self._rules.max_columns
        if most is not None and inputs.group.channels > most:
            held = f"{inputs.group.channels} features are more than {most}"
        if held is None:
            self.found.insert(0, inputs)
        else:
            self.staying.append(Stay(inputs, held))

    def choices(self) -> list[Coupling]:
        """Those found that leave a choice."""
        return [coupling for coupling in self.found if coupling.group.floor < coupling.group.channels]

    def narrowest(self, found: Sequence[Coupling]) -> Work | None:
        """What the network does once these groups are as narrow as may be; None where there are none."""
        plan = PruningPlan({each.group.name: tuple(range(each.group.least)) for each in found})
        return work(self._cut(plan), self._shape) if found else None

    def _stood(self, coupling: Coupling) -> Coupling | str:
        """The group with a floor at which the network still works; else why it stays."""
        why = self._failure([coupling])
        if why is None or self._failure([coupling], _HALVES) is not None:
            return why or coupling
        # Half of the channels may go: a network that works out the width of its heads must not come to nothing.
        group = coupling.group
        most = group.channels // 2 // group.multiple_of * group.multiple_of
        while why is not None and group.floor < most:
            group = replace(group, floor=min(2 * group.floor, most))
            coupling = replace(coupling, group=group)
            why = self._failure([coupling])
        return why or coupling

    def _together(self) -> None:
        """Leave out groups that cannot be narrowed together: each stood its own trial, all do not."""
        if self._failure(self.found) is None:
            return
        kept: list[Coupling] = []
        for coupling in self.found:
            why = self._failure([*kept, coupling])
            if why is None:
                kept.append(coupling)
            else:
                self.staying.append(Stay(coupling, f"narrowed together with the groups before it: {why}"))
        self.found = kept

    @cached_property
    def _heard(self) -> frozenset[tuple[str, str]]:
        return heard(self._network, self._shape)

    def _let_go(self) -> None:
        """Let whole groups go that are the inside of a branch, where the network then still equals the masked one.

        All of them together, or those that can go one after the other; and with all other groups at their floors.
        """
        order = {name: index for index, name in enumerate(self._done.macs)}
        may = [each.group.name for each in inside_branches(self._network, self._graph, self.found, order)]
        names: set[str] = {*may}

        def narrowest(group: Group) -> Sequence[int]:
            return () if group.name in names else range(group.floor)

        if may and self._failure([each for each in self.found if each.group.name in names], (_none,)) is not None:
            names = set()
            for name in may:
                names.add(name)
                if self._failure([each for each in self.found if each.group.name in names], (_none,)) is not None:
                    names.remove(name)
        if names and self._failure(self.found, (narrowest,)) is not None:
            names = set()
        self.found = [
            replace(each, group=replace(each.group, removable=each.group.name in names)) for each in self.found
        ]

    def _failure(self, couplings: Sequence[Coupling], patterns: Sequence[_Pattern] | None = None) -> str | None:
        """Why groups cannot be narrowed together, or None.

        Channels are removed from a copy by each of the `patterns`: by default half of them, twice, and as many as ever
        may be.
        """
        network, shape = self._network, self._shape
        for pattern in patterns or (*_HALVES, lambda group: range(group.floor)):
            plan = PruningPlan({each.group.name: tuple(pattern(each.group)) for each in couplings})
            try:
                trial = self._cut(plan)
                try:
                    after = output_shape(trial, shape)
                except Exception as error:  # noqa: BLE001 - the user's forward may raise anything
                    return obstacle(trial, shape, error)
                if after != self._answer:
                    return "its removal changes the network's output"
                masked = twin(mask(network, tuple(couplings), plan), self._graph, plan)
                if all(plan.kept.values()):
                    check_equal(masked, trial, shape)
                    continue
                # Constants as files will have them: repeated they are what layers of zeros answer.
                with unrepeated(trial):
                    check_equal(masked, trial, shape)
                    left = heard(trial, shape) if pattern is _none else self._heard
                if left != self._heard:
                    return "nothing is left of what it passes on"
            except Exception as error:  # noqa: BLE001 - surgery and the user's forward may raise anything
                return error.message if isinstance(error, SurgeryError) else first_line(error)
        return None

    def _cut(self, plan: PruningPlan) -> nn.Module:
        return cut(self._network, self._shape, plan, self._graph)

    def _refitted(self, coupling: Coupling) -> Coupling:
        """The coupling, whose readers are not refitted where that would change parameters that are held, and only read
        what is left where their Gram matrices would not fit."""
        readers, columns, most = [], list(coupling.columns), self._rules.max_columns
        for consumer in coupling.consumers:
            module = weighted(self._network, consumer.layer)
            if most is not None and module.weight[0].numel() > most:
                columns.append(Places(f"{consumer.layer}.weight", 1, consumer.columns))
                continue
            own = (f"{consumer.layer}.{leaf}" for leaf, _ in module.named_parameters())
            readers.append(replace(consumer, refit=not any(name in self._held.values for name in own)))
        return replace(coupling, consumers=tuple(readers), columns=tuple(columns))

    def _given(self, coupling: Coupling) -> str | None:
        """Why channels stay that buffers alone make: nobody trains them."""
        makers = [each.tensor for each in coupling.rows]
        if any(isinstance(tensor_of(self._network, name), nn.Parameter) for name in makers):
            return None
        return f"{makers[0]} is a buffer, whose values are given and not trained" if makers else None

    def _unfit(self, coupling: Coupling) -> str | None:
        """Why a group need not be tried, or None."""
        if coupling.group.channels < 2:
            return "it has a single channel"
        for consumer in coupling.consumers:
            if len({len(columns) for columns in consumer.columns}) != 1 or not consumer.columns[0]:
                return f"its channels do not reach {consumer.layer} alike"
        return None

    def _sized(self, coupling: Coupling) -> Group:
        """The group with the widths that it may have."""
        group, channels = coupling.group, coupling.group.channels
        # A head is many rows wide already.
        own = max((len(places) for each in coupling.rows for places in each.places), default=1)
        step = max(1, self._rules.step(group) // own)
        # A step as wide as the group would leave no choice: narrow groups take a finer one.
        while step > 1 and channels < 2 * step:
            step //= 2
        return replace(group, floor=self._rules.floor(channels, step), multiple_of=step)

    def _costed(self, coupling: Coupling) -> Group:
        """The group with what its channels cost, told by a copy that lost half of them.

        The work of a layer goes with the size of its weights, so that the copy need not run; products of activations
        count whole.
        """
        network, group = self._network, coupling.group
        trial = deepcopy(network)
        remove(trial, self._graph, self._graph.gone(PruningPlan({group.name: tuple(_shuffled(group))})))
        gone = group.channels - group.channels // 2
        saved = sum(
            macs * (1 - _size(trial.get_submodule(name)) / _size(network.get_submodule(name)))
            for name, macs in self._done.macs.items()
            if macs
        )
        maker = network.get_submodule(coupling.makers[0])
        return replace(
            group,
            macs_per_channel=saved / gone,
            parameters_per_channel=(count_parameters(network) - count_parameters(trial)) / gone,
            layer_parameters=sum(p.numel() for p in maker.parameters(recurse=False)),
            neurons_per_channel=(self._neurons(network) - self._neurons(trial) + self._graph.bare_rows_gone(trial))
            // gone,
        )

    def _neurons(self, network: nn.Module) -> int:
        """Of the layers that run."""
        return sum(neurons_of(network.get_submodule(name)) or 0 for name in self._done.macs)

    def _input_coupling(self, layer: str) -> Coupling:
        linear = self._network.get_submodule(layer)
        assert isinstance(linear, nn.Linear)
        features = linear.in_features
        group = Group(
            name=INPUTS,
            channels=features,
            floor=self._rules.floor(features, 1),
            multiple_of=1,
            macs_per_channel=linear.out_features,
            parameters_per_channel=linear.out_features,
            layer_parameters=linear.weight.numel(),
            layers=(layer,),
            kind="inputs",
        )
        return Coupling(group, (), (Consumer(layer, tuple((i,) for i in range(features))),))


def _size(module: nn.Module) -> int:
    """Numbers in a layer's own weights; 1 where it has none."""
    own = [p.numel() for p in module.parameters(recurse=isinstance(module, nn.MultiheadAttention)) if p.ndim > 1]
    return sum(own) or 1


#: Which channels of a group stay.
_Pattern = Callable[[Group], Sequence[int]]


def _none(_: Group) -> Sequence[int]:
    return ()


def _every_other(group: Group) -> Sequence[int]:
    return range(0, group.channels - group.channels % 2, 2)


def _shuffled(group: Group) -> Sequence[int]:
    order = torch.randperm(group.channels, generator=torch.Generator().manual_seed(0)).tolist()
    return sorted(order[: group.channels // 2])


#: Regular patterns can hide how channels are interleaved; an irregular one shows it.
_HALVES: tuple[_Pattern, ...] = (_every_other, _shuffled)


def output_shape(network: nn.Module, shape: Shape) -> tuple[int, ...]:
    """The shape of the answers to two inputs."""
    with torch.no_grad():
        return tuple(ask(network, made(shape, 2, torch.zeros)).shape)


def _unread(found: Found) -> str | None:
    """Why nothing that reads the group could be narrowed, or None."""
    for name, why in found.obstacles.items():
        return f"{name} reads it, and {why}"
    read = found.coupling.consumers or found.coupling.columns
    return None if read else "nothing that could be narrowed reads it"
