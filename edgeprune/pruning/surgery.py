"""Surgery: channels are removed for real, and the smaller network is known to be right before it is used."""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy
from functools import partial

import torch
from torch import nn

from edgeprune.core.design import INPUTS, PruningPlan
from edgeprune.core.errors import SurgeryError
from edgeprune.core.inputs import Shape
from edgeprune.models.inputs import Inputs, ask, cast, made
from edgeprune.pruning.axes.calls import Change, Corrections, correct
from edgeprune.pruning.axes.follow import Twin
from edgeprune.pruning.axes.labels import Numbers
from edgeprune.pruning.channels import Graph, follow
from edgeprune.pruning.constant import still
from edgeprune.pruning.cost import input_dtype, tensor_of, weighted
from edgeprune.pruning.inputs import SelectedInputs, flat_input_layer
from edgeprune.pruning.removal import remove
from edgeprune.pruning.structure import Coupling, Criterion, Structure


def prune(
    criterion: Criterion, structure: Structure, plan: PruningPlan, *, check: bool = False, inputs: Inputs | None = None
) -> nn.Module:
    """The pruned network of `plan`: readers repaired by the criterion, channels removed.

    With `check`, it is compared to the full-size masked network on `inputs` (N, *shape); raises SurgeryError where they
    differ by more than 1e-5.
    """
    masked = criterion.weights(plan)
    pruned = cut(masked, structure.shape, plan, structure.graph)
    if check:
        check_equal(twin(masked, structure.graph, plan), pruned, structure.shape, inputs)
    return pruned


def mask(network: nn.Module, couplings: tuple[Coupling, ...], plan: PruningPlan) -> nn.Module:
    """A copy whose consumers ignore the channels that `plan` removes: the full-size twin of the pruned network."""
    masked = deepcopy(network).eval()
    for coupling in couplings:
        kept = set(plan.kept.get(coupling.group.name, range(coupling.group.channels)))
        for consumer in coupling.consumers:
            module = weighted(masked, consumer.layer)
            gone = [i for c, columns in enumerate(consumer.columns) if c not in kept for i in columns]
            with torch.no_grad():
                module.weight[:, gone] = 0.0
        ignore(masked, coupling, kept)
    return masked


def ignore(network: nn.Module, coupling: Coupling, kept: Collection[int]) -> None:
    """Columns that are not refitted become zero where they read what is not `kept`."""
    for each in coupling.columns:
        gone = [place for channel, places in enumerate(each.places) if channel not in kept for place in places]
        with torch.no_grad():
            tensor_of(network, each.tensor).index_fill_(each.axis, torch.tensor(gone, dtype=torch.int64), 0.0)


def cut(network: nn.Module, shape: Shape, plan: PruningPlan, graph: Graph | None = None) -> nn.Module:
    """A copy without the channels that `plan` does not keep; the input stays full-sized.

    `graph` is that of the network, or of one with the same layers; where it is None, the network is followed.
    """
    pruned = deepcopy(network).eval()
    input_layer = flat_input_layer(pruned, shape) if INPUTS in plan.kept else None
    if any(name != INPUTS for name in plan.kept):
        graph = graph or follow(pruned, shape)
        gone = graph.gone(plan)
        remove(pruned, graph, gone)
        still(pruned, *graph.stilled(plan))
        _correct_calls(pruned, shape, graph, gone)
    if input_layer is not None:
        _select_inputs(pruned, input_layer, plan.kept[INPUTS])
    for parameter in pruned.parameters():
        parameter.grad = None
    _keep_flags(network, pruned, input_layer)
    return pruned


def _correct_calls(pruned: nn.Module, shape: Shape, graph: Graph, gone: Numbers) -> None:
    """Calls get the sizes that are left, where the network's own code has others."""
    if not graph.labelled.calls:
        return
    corrections = Corrections({call.where: Change.of(call, gone) for call in graph.labelled.calls}, pruned)
    example = cast(made(shape, 2, torch.zeros), input_dtype(pruned))
    try:
        with torch.no_grad(), corrections:
            ask(pruned, example)
    except Exception:  # noqa: BLE001 - the user's forward may raise anything; whoever asks the network will hear of it
        return
    if corrections.stale:
        correct(pruned, corrections.stale)


def twin(masked: nn.Module, graph: Graph, plan: PruningPlan) -> nn.Module:
    """`masked` as the pruned network computes: with norms, and means over channels, of what `plan` keeps."""
    return Twin(masked, graph.labelled, graph.gone(plan)) if graph.labelled.looks_at_all else masked


def _keep_flags(network: nn.Module, pruned: nn.Module, input_layer: str | None) -> None:
    """What the user froze stays frozen: surgery makes new parameters, and one may have moved into a SelectedInputs."""
    required = {name: parameter.requires_grad for name, parameter in network.named_parameters(remove_duplicate=False)}
    for name, parameter in pruned.named_parameters():
        if name not in required and input_layer is not None:
            name = name.replace(f"{input_layer}.linear.", f"{input_layer}.", 1)  # noqa: PLW2901 - one level down
        parameter.requires_grad_(required[name])


def _select_inputs(network: nn.Module, layer: str, kept: tuple[int, ...]) -> None:
    linear = network.get_submodule(layer)
    assert isinstance(linear, nn.Linear)
    gone = sorted(set(range(linear.in_features)) - set(kept))
    if not gone:
        return
    linear.weight = nn.Parameter(linear.weight.detach()[:, list(kept)].clone())
    linear.in_features = len(kept)
    selected = SelectedInputs(linear, torch.tensor(kept))
    for name, module in [*network.named_modules(remove_duplicate=False)]:
        if module is linear:
            parent, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(parent), leaf, selected)


def check_equal(masked: nn.Module, pruned: nn.Module, shape: Shape, inputs: Inputs | None = None) -> float:
    """Largest difference of the two networks' outputs, relative to the outputs' scale; in double precision where
    the network can.

    `inputs` (N, *shape), random where None. Raises SurgeryError above 1e-5.
    """
    if inputs is None:
        inputs = made(shape, 4, partial(torch.randn, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        try:
            precise = cast(inputs, torch.float64)
            one = ask(deepcopy(masked).double().eval(), precise)
            two = ask(deepcopy(pruned).double().eval(), precise)
        except RuntimeError:
            # A forward that makes float32 tensors of its own.
            one, two = ask(masked.eval(), inputs), ask(pruned.eval(), inputs)
    worst = float((one - two).abs().max() / one.abs().max().clamp(min=1.0))
    if not worst <= 1e-5:
        raise SurgeryError(f"the pruned network differs from the masked one by {worst:.1e} (allowed: 1e-5)")
    return worst
