"""Groups of coupled channels, found with torch-pruning's dependency graph and each one proven by removing channels.

A group is offered to the search only after a trial: some of its channels are removed from a copy, which must run and
equal the copy whose consumers ignore those channels. What fails (hard-coded reshapes, zero-padded shortcuts, attention
heads, layer norms ...) stays as it is and is reported with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from edgeprune.core.errors import ModelError, NothingToPrune, SurgeryError
from edgeprune.core.text import shorten
from edgeprune.core.types import Group, PruningPlan
from edgeprune.pruning.cost import WEIGHTED, count_macs, count_parameters, layer_calls, weighted
from edgeprune.pruning.inputs import flat_input_layer
from edgeprune.pruning.structure import INPUTS, Consumer, Coupling, Structure
from edgeprune.pruning.surgery import build_graph, check_equal, cut, mask

#: Blocked convolution layouts lose at odd widths (measured: 90 % of ResNet-20's width is slower than all of it).
CONV_MULTIPLE = {"onnxruntime": 8, "litert": 4}


def discover(
    network: nn.Module,
    shape: tuple[int, ...],
    *,
    runtime: str,
    prune_inputs: bool | None = None,
    multiple_of: int | None = None,
    max_sparsity: float = 0.9,
    max_columns: int | None = None,
) -> Structure:
    """Find and prove the groups of `network` for inputs (N, *shape).

    `prune_inputs` None: input features are a group where one linear layer reads the whole flattened input.
    `multiple_of` None: 1 for neurons, the runtime's block for convolution channels.
    `max_columns`: groups whose readers are wider (inputs times kernel taps) stay: their Gram matrix would not fit.
    Raises NothingToPrune where no group stands its trial.
    """
    if not any(True for _ in network.parameters()):
        raise NothingToPrune(
            "the model has nothing to prune: it has no parameters", "give a network with hidden layers"
        )
    network = _stirred(network)
    classes_shape = _output_shape(network, shape)
    # A layer that runs twice has the place of its first run.
    runs = dict.fromkeys(name for name, _ in layer_calls(network, shape))
    order = {name: index for index, name in enumerate(runs)}
    input_layer = flat_input_layer(network, shape)
    found: list[Coupling] = []
    frozen: dict[str, str] = {}
    outputs: list[str] = []
    for coupling in _couplings(network, shape, order):
        step = multiple_of or (CONV_MULTIPLE[runtime] if coupling.group.kind == "channels" else 1)
        try:
            trial = _try(network, shape, coupling, max_columns)
            group = _costed(network, trial, shape, coupling, step, max_sparsity)
        except SurgeryError as error:
            # Removing an output channel changes what the network answers: that layer is the output, not frozen.
            if error.message == _OUTPUT_CHANGED:
                outputs.extend(coupling.makers)
            else:
                frozen[coupling.makers[0]] = error.message
            continue
        except Exception as error:  # noqa: BLE001 - third-party surgery and the user's forward may raise anything
            frozen[coupling.makers[0]] = _reason(error)
            continue
        found.append(replace(coupling, group=group))
    found.sort(key=lambda coupling: order.get(coupling.makers[0], len(order)))
    if prune_inputs and input_layer is None:
        raise ModelError(
            "no linear layer reads the model's whole input, so input features cannot be pruned",
            "leave out --prune-inputs",
        )
    if input_layer is not None and prune_inputs is not False:
        inputs = _input_coupling(network, input_layer, max_sparsity)
        if max_columns is None or inputs.group.channels <= max_columns:
            found.insert(0, inputs)
        else:
            frozen[INPUTS] = f"{inputs.group.channels} features are more than {max_columns}"
    found = [coupling for coupling in found if coupling.group.floor < coupling.group.channels]
    found = _jointly(network, shape, found, frozen)
    if not found:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(frozen.items())[:3])
        raise NothingToPrune(
            f"the model has nothing to prune{' (' + why + ')' if why else ''}",
            f"it needs a hidden Linear or Conv2d layer between input and logits {classes_shape}",
        )
    hidden = tuple(dict.fromkeys(name for name, _ in layer_calls(network, shape) if name not in outputs))
    convolves = any(not isinstance(network.get_submodule(name), nn.Linear) for name in hidden)
    features = shape[0] if convolves else math.prod(shape)
    return Structure(shape, tuple(found), frozen, tuple(outputs), hidden, features, input_layer)


def _stirred(network: nn.Module) -> nn.Module:
    """A copy with a little seeded noise on all parameters and statistics.

    An untrained network has zeros and ones in places where a trained one has not (scales of residual branches, batch
    statistics), and a mistake behind a zero does not show.
    """
    network = deepcopy(network).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and tensor.numel():
                scale = 0.1 * max(float(tensor.std(correction=0)), 0.05)
                noise = scale * torch.randn(tensor.shape, generator=generator)
                tensor.add_(noise.abs() if name.endswith("running_var") else noise)
    return network


def _reason(error: Exception) -> str:
    return shorten((str(error).strip() or type(error).__name__).splitlines()[0], 160)


def _jointly(
    network: nn.Module, shape: tuple[int, ...], found: list[Coupling], frozen: dict[str, str]
) -> list[Coupling]:
    """The groups that can be narrowed together. Each stood its own trial; that all do at once is another question."""

    def failure(couplings: list[Coupling]) -> str | None:
        plan = PruningPlan({c.group.name: tuple(range(c.group.floor)) for c in couplings})
        try:
            check_equal(mask(network, tuple(couplings), plan), cut(network, shape, plan), shape)
        except Exception as error:  # noqa: BLE001 - third-party surgery and the user's forward may raise anything
            return _reason(error)
        return None

    if not found or failure(found) is None:
        return found
    kept: list[Coupling] = []
    for coupling in found:
        why = failure([*kept, coupling])
        if why is None:
            kept.append(coupling)
        else:
            frozen[coupling.group.name] = f"narrowed together with the groups before it: {why}"
    return kept


def _costed(
    network: nn.Module, trial: nn.Module, shape: tuple[int, ...], coupling: Coupling, step: int, max_sparsity: float
) -> Group:
    """The group with what its channels cost, from the trial that lost half of them."""
    channels = coupling.group.channels
    # A step as wide as the group would leave no choice: narrow groups take a finer one.
    while step > 1 and channels < 2 * step:
        step //= 2
    gone = channels - channels // 2
    return replace(
        coupling.group,
        floor=_floor(channels, max_sparsity, step),
        multiple_of=step,
        macs_per_channel=(count_macs(network, shape) - count_macs(trial, shape)) / gone,
        parameters_per_channel=(count_parameters(network) - count_parameters(trial)) / gone,
        layer_parameters=sum(p.numel() for p in weighted(network, coupling.makers[0]).parameters()),
        neurons_per_channel=(_hidden_units(network) - _hidden_units(trial)) // gone,
    )


_OUTPUT_CHANGED = "its removal changes the network's output"


def _couplings(network: nn.Module, shape: tuple[int, ...], order: Mapping[str, int]) -> list[Coupling]:
    """Every group of the dependency graph that convolutions and linear layers make, not yet proven.

    A group bears the name of the maker that runs first (by `order`).
    """
    graph = build_graph(network, shape)
    names = {module: name for name, module in network.named_modules()}
    couplings = []
    for raw in graph.get_all_groups():
        makers: list[tuple[bool, int, str]] = []
        consumers: list[Consumer] = []
        layers: list[str] = []
        channels = len(raw[0].idxs)
        repairable = True
        for item in raw:
            module, handler = item.dep.target.module, item.dep.handler.__name__
            name = names.get(module)
            if name is None:
                continue
            layers.append(name)
            if not isinstance(module, WEIGHTED):
                continue
            three_d = isinstance(module, nn.Conv3d)
            if handler == "prune_in_channels" and (getattr(module, "groups", 1) > 1 or three_d):
                repairable = False
            elif handler == "prune_in_channels":
                columns: list[list[int]] = [[] for _ in range(channels)]
                roots = item.root_idxs if item.root_idxs is not None else range(len(item.idxs))
                for column, root in zip(item.idxs, roots, strict=True):
                    columns[root].append(column)
                consumers.append(Consumer(name, tuple(tuple(sorted(own)) for own in columns)))
            elif getattr(module, "groups", 1) == 1:
                # A maker whose channels sit elsewhere in the group (behind a concatenation) cannot give it its name.
                aligned = len(item.idxs) == channels and list(item.idxs) == list(item.root_idxs or item.idxs)
                makers.append((not aligned, order.get(name, len(order)), name))
        if makers:
            ordered = tuple(name for *_, name in sorted(makers))
            # Without readers that can be refitted the trial below freezes the group.
            consumers = consumers if repairable else []
            linear = isinstance(network.get_submodule(ordered[0]), nn.Linear)
            kind: Literal["neurons", "channels"] = "neurons" if linear else "channels"
            group = Group(ordered[0], channels, 1, 1, 0.0, 0.0, 0, tuple(dict.fromkeys(layers)), kind)
            couplings.append(Coupling(group, ordered, tuple(consumers)))
    return couplings


def _input_coupling(network: nn.Module, layer: str, max_sparsity: float) -> Coupling:
    linear = network.get_submodule(layer)
    assert isinstance(linear, nn.Linear)
    features = linear.in_features
    group = Group(
        name=INPUTS,
        channels=features,
        floor=_floor(features, max_sparsity, 1),
        multiple_of=1,
        macs_per_channel=linear.out_features,
        parameters_per_channel=linear.out_features,
        layer_parameters=linear.weight.numel(),
        layers=(layer,),
        kind="inputs",
    )
    return Coupling(group, (), (Consumer(layer, tuple((i,) for i in range(features))),))


def _floor(channels: int, max_sparsity: float, step: int) -> int:
    """The smallest allowed width: at least a share 1 - max_sparsity, rounded up to a multiple of `step`."""
    least = max(1, round(channels * (1 - max_sparsity)))
    return min(channels, -(-least // step) * step)


def _try(network: nn.Module, shape: tuple[int, ...], coupling: Coupling, max_columns: int | None) -> nn.Module:
    """Remove half of the channels from a copy, twice, and compare; returns the second.

    Raises SurgeryError with the reason where that fails.
    """
    channels = coupling.group.channels
    if channels < 2:
        raise SurgeryError("it has a single channel")
    # Regular patterns can hide how channels are interleaved; an irregular one shows it.
    shuffled = torch.randperm(channels, generator=torch.Generator().manual_seed(0)).tolist()
    before = _output_shape(network, shape)
    for kept in (range(0, channels - channels % 2, 2), sorted(shuffled[: channels // 2])):
        plan = PruningPlan({coupling.group.name: tuple(kept)})
        trial = cut(network, shape, plan)
        if _output_shape(trial, shape) != before:
            raise SurgeryError(_OUTPUT_CHANGED)
        if not coupling.consumers:
            raise SurgeryError("no layer that could be refitted reads it")
        for consumer in coupling.consumers:
            if len({len(columns) for columns in consumer.columns}) != 1 or not consumer.columns[0]:
                raise SurgeryError(f"its channels do not reach {consumer.layer} alike")
            width = weighted(network, consumer.layer).weight[0].numel()
            if max_columns is not None and width > max_columns:
                raise SurgeryError(f"{consumer.layer} reads {width} values, more than {max_columns}")
        check_equal(mask(network, (coupling,), plan), trial, shape)
    return trial


def _output_shape(network: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    with torch.no_grad():
        return tuple(network(torch.zeros(2, *shape)).shape)


def _hidden_units(network: nn.Module) -> int:
    return sum(module.weight.shape[0] for module in network.modules() if isinstance(module, WEIGHTED))
