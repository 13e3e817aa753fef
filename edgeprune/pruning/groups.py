"""Groups of coupled channels, found with torch-pruning's dependency graph and each one proven by removing channels.

A group is offered to the search only after a trial: some of its channels are removed from a copy, which must run and
equal the copy whose consumers ignore those channels. What fails (hard-coded reshapes, zero-padded shortcuts, attention
heads, layer norms ...) stays as it is and is reported with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import replace

import torch
from torch import nn

from edgeprune.core.design import Group, PruningPlan
from edgeprune.core.errors import ModelError, NothingToPrune, SurgeryError
from edgeprune.core.inputs import Shape, specs_of
from edgeprune.core.runtimes import RUNTIMES, RuntimeName
from edgeprune.core.text import first_line
from edgeprune.models.inputs import ask, made
from edgeprune.pruning.cost import count_macs, count_parameters, neurons_of, weighted, work
from edgeprune.pruning.graph import Found, couplings
from edgeprune.pruning.held import frozen_parameters, tied_parameters, why_held
from edgeprune.pruning.inputs import flat_input_layer
from edgeprune.pruning.stays import Stay, advice, costs_of, list_stays, obstacle, stays
from edgeprune.pruning.structure import INPUTS, OWN, Consumer, Coupling, Structure
from edgeprune.pruning.surgery import check_equal, cut, mask


def discover(
    network: nn.Module,
    shape: Shape,
    *,
    runtime: RuntimeName,
    prune_inputs: bool | None = None,
    multiple_of: int | None = None,
    max_sparsity: float = 0.9,
    max_columns: int | None = None,
    prune_frozen: bool = False,
) -> Structure:
    """Find and prove the groups of `network` for inputs (N, *shape).

    `prune_inputs` None: input features are a group where one linear layer reads the whole flattened input.
    `multiple_of` None: 1 for neurons, the runtime's block for convolution channels.
    `max_columns`: groups whose readers are wider (inputs times kernel taps) stay: their Gram matrix would not fit.
    `prune_frozen`: groups may also cut parameters that the user froze (requires_grad=False).
    Raises NothingToPrune where no group stands its trial.
    """
    if not any(True for _ in network.parameters()):
        raise NothingToPrune(
            "the model has nothing to prune: it has no parameters", "give a network with hidden layers"
        )
    network = _stirred(network)
    answer = _output_shape(network, shape)
    done = work(network, shape)
    tied, user_frozen = tied_parameters(network, done), frozen_parameters(network)
    untouchable = () if prune_frozen else user_frozen
    # A layer that runs twice has the place of its first run.
    order = {name: index for index, name in enumerate(done.macs)}
    found: list[Coupling] = []
    staying: list[Stay] = []
    outputs: list[str] = []
    for each in _followed(network, shape, order):
        coupling = _refitted(network, each.coupling, {*tied, *user_frozen})
        step = multiple_of or (RUNTIMES[runtime].block if coupling.group.kind == "channels" else 1)
        try:
            trial = _try(network, shape, coupling, max_columns, why_held(each.cut, tied, untouchable) or _unread(each))
            group = _costed(network, trial, shape, coupling, step, max_sparsity, done.total)
        except SurgeryError as error:
            # Removing an output channel changes what the network answers: that layer is the output, it does not stay.
            if error.message == _OUTPUT_CHANGED:
                outputs.extend(coupling.makers)
            else:
                staying.append(Stay(coupling, error.message))
            continue
        except Exception as error:  # noqa: BLE001 - third-party surgery and the user's forward may raise anything
            staying.append(Stay(coupling, first_line(error)))
            continue
        found.append(replace(coupling, group=group))
    found.sort(key=lambda coupling: order.get(coupling.makers[0], len(order)))
    input_layer = flat_input_layer(network, shape)
    if prune_inputs and input_layer is None:
        raise ModelError(
            "no linear layer reads the model's whole input, so input features cannot be pruned",
            "leave out --prune-inputs",
        )
    if input_layer is not None and prune_inputs is not False:
        inputs = _refitted(network, _input_coupling(network, input_layer, max_sparsity), {*tied, *user_frozen})
        held = why_held({f"{input_layer}.weight"}, tied, untouchable)
        if max_columns is not None and inputs.group.channels > max_columns:
            held = f"{inputs.group.channels} features are more than {max_columns}"
        if held is None:
            found.insert(0, inputs)
        else:
            staying.append(Stay(inputs, held))
    found = [coupling for coupling in found if coupling.group.floor < coupling.group.channels]
    found = _jointly(network, shape, found, staying)
    # The trials know the outputs among layers that torch-pruning can cut; another one is known by what it makes.
    if not outputs and done.output is not None and not any(done.output in coupling.makers for coupling in found):
        outputs.append(done.output)
    costs = costs_of(network, done)
    reasons = stays(network, done, costs, found, staying, outputs, untouchable)
    structure = Structure(
        shape=shape,
        couplings=tuple(found),
        frozen=reasons,
        output_layers=tuple(dict.fromkeys(outputs)),
        hidden_layers=tuple(
            name for name in order if name not in outputs and neurons_of(network.get_submodule(name)) is not None
        ),
        # A network that convolves anywhere before its answer looks at channels, others at single values.
        inputs=_inputs(shape, channels=bool(done.convolve.difference(outputs))),
        input_layer=input_layer,
        costs=costs,
        bare_neurons=sum(done.bare_neurons.values()),
        uncounted={name or OWN: operations for name, operations in done.uncounted.items()},
    )
    if not found:
        raise NothingToPrune(
            f"the model has nothing to prune{': ' + list_stays(structure) if reasons else ''}",
            advice(structure) or f"it needs a hidden Linear or Conv2d layer between input and logits {answer}",
        )
    return structure


def _followed(network: nn.Module, shape: Shape, order: Mapping[str, int]) -> list[Found]:
    try:
        return couplings(network, shape, order)
    except Exception as error:
        raise NothingToPrune(
            f"torch-pruning cannot follow the model: {type(error).__name__}: {first_line(error)}",
            "simplify its forward, or leave out what it does between the layers that shall be pruned",
        ) from error


def _refitted(network: nn.Module, coupling: Coupling, held: Collection[str]) -> Coupling:
    """The coupling, whose readers are not refitted where that would change parameters that are `held`."""
    readers = []
    for consumer in coupling.consumers:
        own = (f"{consumer.layer}.{leaf}" for leaf, _ in weighted(network, consumer.layer).named_parameters())
        readers.append(replace(consumer, refit=not any(name in held for name in own)))
    return replace(coupling, consumers=tuple(readers))


def _unread(found: Found) -> str | None:
    """Why nothing that reads the group could be narrowed, or None."""
    for name, why in found.obstacles.items():
        return f"{name} reads it, and {why}"
    return None if found.coupling.consumers else "no layer that could be refitted reads it"


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


def _jointly(network: nn.Module, shape: Shape, found: list[Coupling], staying: list[Stay]) -> list[Coupling]:
    """The groups that can be narrowed together. Each stood its own trial; that all do at once is another question."""

    def failure(couplings: list[Coupling]) -> str | None:
        plan = PruningPlan({c.group.name: tuple(range(c.group.floor)) for c in couplings})
        try:
            check_equal(mask(network, tuple(couplings), plan), cut(network, shape, plan), shape)
        except Exception as error:  # noqa: BLE001 - third-party surgery and the user's forward may raise anything
            return first_line(error)
        return None

    if not found or failure(found) is None:
        return found
    kept: list[Coupling] = []
    for coupling in found:
        why = failure([*kept, coupling])
        if why is None:
            kept.append(coupling)
        else:
            staying.append(Stay(coupling, f"narrowed together with the groups before it: {why}"))
    return kept


def _costed(
    network: nn.Module,
    trial: nn.Module,
    shape: Shape,
    coupling: Coupling,
    step: int,
    max_sparsity: float,
    macs: int,
) -> Group:
    """The group with what its channels cost, from the trial that lost half of them; `macs` are those of all."""
    channels = coupling.group.channels
    # A step as wide as the group would leave no choice: narrow groups take a finer one.
    while step > 1 and channels < 2 * step:
        step //= 2
    gone = channels - channels // 2
    return replace(
        coupling.group,
        floor=_floor(channels, max_sparsity, step),
        multiple_of=step,
        macs_per_channel=(macs - count_macs(trial, shape)) / gone,
        parameters_per_channel=(count_parameters(network) - count_parameters(trial)) / gone,
        layer_parameters=sum(p.numel() for p in weighted(network, coupling.makers[0]).parameters()),
        neurons_per_channel=(_all_neurons(network) - _all_neurons(trial)) // gone,
    )


_OUTPUT_CHANGED = "its removal changes the network's output"


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


def _try(network: nn.Module, shape: Shape, coupling: Coupling, max_columns: int | None, held: str | None) -> nn.Module:
    """Remove half of the channels from a copy, twice, and compare; returns the second.

    `held` is why the group must stay in any case: only whether it is the output is looked at then. Raises SurgeryError
    with the reason where the group stays.
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
        try:
            after = _output_shape(trial, shape)
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
            if max_columns is not None and width > max_columns:
                raise SurgeryError(f"{consumer.layer} reads {width} values, more than {max_columns}")
        check_equal(mask(network, (coupling,), plan), trial, shape)
    return trial


def _output_shape(network: nn.Module, shape: Shape) -> tuple[int, ...]:
    with torch.no_grad():
        return tuple(ask(network, made(shape, 2, torch.zeros)).shape)


def _inputs(shape: Shape, *, channels: bool) -> int:
    """What a network looks at: channels where it convolves, else single values."""
    return sum(each.shape[0] if channels and each.shape else math.prod(each.shape) for each in specs_of(shape))


def _all_neurons(network: nn.Module) -> int:
    return sum(neurons_of(module) or 0 for module in network.modules())
