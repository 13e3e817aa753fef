"""Trials: which groups may be cut, each one proven by removing channels from a copy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from edgeprune.core.design import Group, PruningPlan
from edgeprune.core.errors import SurgeryError
from edgeprune.core.inputs import Shape
from edgeprune.core.runtimes import RUNTIMES, RuntimeName
from edgeprune.core.text import first_line
from edgeprune.models.inputs import ask, made
from edgeprune.pruning.cost import count_macs, count_parameters, neurons_of, weighted
from edgeprune.pruning.graph import Found
from edgeprune.pruning.held import Held
from edgeprune.pruning.stays import Stay, obstacle
from edgeprune.pruning.structure import INPUTS, Consumer, Coupling
from edgeprune.pruning.surgery import check_equal, cut, mask

_OUTPUT_CHANGED = "its removal changes the network's output"


@dataclass(frozen=True, slots=True)
class Rules:
    """What every group keeps to (see `discover`)."""

    runtime: RuntimeName
    multiple_of: int | None
    max_sparsity: float
    max_columns: int | None

    def step(self, group: Group) -> int:
        """What widths are multiples of, where the group is wide enough for it."""
        return self.multiple_of or (RUNTIMES[self.runtime].block if group.kind == "channels" else 1)

    def floor(self, channels: int, step: int) -> int:
        """The smallest allowed width: at least a share 1 - max_sparsity, rounded up to a multiple of `step`."""
        least = max(1, round(channels * (1 - self.max_sparsity)))
        return min(channels, -(-least // step) * step)


class Trials:
    """Tries the groups of `network`, which has `macs` multiply-accumulates for an input of `shape`."""

    def __init__(self, network: nn.Module, shape: Shape, macs: int, held: Held, rules: Rules) -> None:
        self._network, self._shape, self._macs, self._held, self._rules = network, shape, macs, held, rules
        #: Groups that stood their trial, in the order they were tried; those that did not.
        self.found: list[Coupling] = []
        self.staying: list[Stay] = []
        #: Layers that make what the network answers.
        self.outputs: list[str] = []

    def add(self, each: Found) -> None:
        """Try a group."""
        coupling = self._refitted(each.coupling)
        try:
            trial = self._tried(coupling, self._held.why(each.cut) or _unread(each))
            group = self._costed(coupling.group, coupling.makers[0], trial)
        except SurgeryError as error:
            # Removing an output channel changes what the network answers: that layer is the output, it does not stay.
            if error.message == _OUTPUT_CHANGED:
                self.outputs.extend(coupling.makers)
            else:
                self.staying.append(Stay(coupling, error.message))
        except Exception as error:  # noqa: BLE001 - third-party surgery and the user's forward may raise anything
            self.staying.append(Stay(coupling, first_line(error)))
        else:
            self.found.append(replace(coupling, group=group))

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

    def together(self) -> list[Coupling]:
        """Those found that leave a choice, and can be narrowed together.

        Each stood its own trial; that all do at once is another question.
        """
        found = [coupling for coupling in self.found if coupling.group.floor < coupling.group.channels]
        if not found or self._failure(found) is None:
            return found
        kept: list[Coupling] = []
        for coupling in found:
            why = self._failure([*kept, coupling])
            if why is None:
                kept.append(coupling)
            else:
                self.staying.append(Stay(coupling, f"narrowed together with the groups before it: {why}"))
        return kept

    def _failure(self, couplings: list[Coupling]) -> str | None:
        plan = PruningPlan({c.group.name: tuple(range(c.group.floor)) for c in couplings})
        try:
            masked = mask(self._network, tuple(couplings), plan)
            check_equal(masked, cut(self._network, self._shape, plan), self._shape)
        except Exception as error:  # noqa: BLE001 - third-party surgery and the user's forward may raise anything
            return first_line(error)
        return None

    def _refitted(self, coupling: Coupling) -> Coupling:
        """The coupling, whose readers are not refitted where that would change parameters that are held."""
        readers, held = [], self._held.values
        for consumer in coupling.consumers:
            own = (f"{consumer.layer}.{leaf}" for leaf, _ in weighted(self._network, consumer.layer).named_parameters())
            readers.append(replace(consumer, refit=not any(name in held for name in own)))
        return replace(coupling, consumers=tuple(readers))

    def _tried(self, coupling: Coupling, held: str | None) -> nn.Module:
        """Remove half of the channels from a copy, twice, and compare; returns the second.

        `held` is why the group must stay in any case: only whether it is the output is looked at then. Raises
        SurgeryError with the reason where the group stays.
        """
        network, shape, most = self._network, self._shape, self._rules.max_columns
        channels = coupling.group.channels
        if channels < 2:
            raise SurgeryError("it has a single channel")
        # Regular patterns can hide how channels are interleaved; an irregular one shows it.
        shuffled = torch.randperm(channels, generator=torch.Generator().manual_seed(0)).tolist()
        before = output_shape(network, shape)
        for kept in (range(0, channels - channels % 2, 2), sorted(shuffled[: channels // 2])):
            plan = PruningPlan({coupling.group.name: tuple(kept)})
            trial = cut(network, shape, plan)
            try:
                after = output_shape(trial, shape)
            except Exception as error:
                raise SurgeryError(held or obstacle(trial, shape, error)) from error
            if after != before:
                raise SurgeryError(_OUTPUT_CHANGED)
            if held is not None:
                raise SurgeryError(held)
            for consumer in coupling.consumers:
                if len({len(columns) for columns in consumer.columns}) != 1 or not consumer.columns[0]:
                    raise SurgeryError(f"its channels do not reach {consumer.layer} alike")
                width = weighted(network, consumer.layer).weight[0].numel()
                if most is not None and width > most:
                    raise SurgeryError(f"{consumer.layer} reads {width} values, more than {most}")
            check_equal(mask(network, (coupling,), plan), trial, shape)
        return trial

    def _costed(self, group: Group, maker: str, trial: nn.Module) -> Group:
        """The group with what its channels cost, from the trial that lost half of them."""
        network, channels, step = self._network, group.channels, self._rules.step(group)
        # A step as wide as the group would leave no choice: narrow groups take a finer one.
        while step > 1 and channels < 2 * step:
            step //= 2
        gone = channels - channels // 2
        return replace(
            group,
            floor=self._rules.floor(channels, step),
            multiple_of=step,
            macs_per_channel=(self._macs - count_macs(trial, self._shape)) / gone,
            parameters_per_channel=(count_parameters(network) - count_parameters(trial)) / gone,
            layer_parameters=sum(p.numel() for p in weighted(network, maker).parameters()),
            neurons_per_channel=(_all_neurons(network) - _all_neurons(trial)) // gone,
        )

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


def output_shape(network: nn.Module, shape: Shape) -> tuple[int, ...]:
    """The shape of the answers to two inputs."""
    with torch.no_grad():
        return tuple(ask(network, made(shape, 2, torch.zeros)).shape)


def _unread(found: Found) -> str | None:
    """Why nothing that reads the group could be narrowed, or None."""
    for name, why in found.obstacles.items():
        return f"{name} reads it, and {why}"
    return None if found.coupling.consumers else "no layer that could be refitted reads it"


def _all_neurons(network: nn.Module) -> int:
    return sum(neurons_of(module) or 0 for module in network.modules())
