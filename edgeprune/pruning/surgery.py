"""Surgery: torch-pruning removes channels for real, and the smaller network is known to be right before it is used."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import SurgeryError
from edgeprune.core.inputs import Shape
from edgeprune.models.inputs import Inputs, ask, cast, made, tensors_of
from edgeprune.pruning.cost import input_dtype, weighted
from edgeprune.pruning.inputs import SelectedInputs, flat_input_layer
from edgeprune.pruning.structure import INPUTS, Coupling, Criterion, Structure


def prune(
    criterion: Criterion, structure: Structure, plan: PruningPlan, *, check: bool = False, inputs: Inputs | None = None
) -> nn.Module:
    """The pruned network of `plan`: readers repaired by the criterion, channels removed by torch-pruning.

    With `check`, it is compared to the full-size masked network on `inputs` (N, *shape); raises SurgeryError where they
    differ by more than 1e-5.
    """
    masked = criterion.weights(plan)
    pruned = cut(masked, structure.shape, plan)
    if check:
        check_equal(masked, pruned, structure.shape, inputs)
    return pruned


def build_graph(network: nn.Module, shape: Shape) -> tp.DependencyGraph:
    """torch-pruning's dependency graph. It follows gradients, which are required of all parameters meanwhile.

    Recurrent layers are walls in it: torch-pruning does not know most of them, and gets lost in what they do inside.
    """
    required = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    example = tensors_of(cast(made(shape, 2, torch.zeros), input_dtype(network)))
    try:
        for parameter, _ in required:
            # Tables of integers have no gradients, and cannot be asked for any.
            parameter.requires_grad_(parameter.is_floating_point())
        with warnings.catch_warnings(), torch.enable_grad(), _walls(network):
            warnings.simplefilter("ignore")
            return tp.DependencyGraph().build_dependency(network, example_inputs=example, verbose=False)
    finally:
        for parameter, was in required:
            parameter.requires_grad_(was)


@contextmanager
def _walls(network: nn.Module) -> Iterator[None]:
    """While it lasts no gradient passes through recurrent layers: what they give begins anew."""

    def wall(plain: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            with torch.no_grad():
                out = plain(*args, **kwargs)
            return tree_map_only(Tensor, lambda x: x.detach().requires_grad_(x.is_floating_point()), out)

        return forward

    # A forward that somebody put on the instance itself stays: it is no longer a plain recurrent layer.
    recurrent = [
        module
        for module in network.modules()
        if isinstance(module, nn.RNNBase | nn.RNNCellBase) and "forward" not in vars(module)
    ]
    for module in recurrent:
        module.forward = wall(module.forward)
    try:
        yield
    finally:
        for module in recurrent:
            del module.forward


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
    return masked


def cut(network: nn.Module, shape: Shape, plan: PruningPlan) -> nn.Module:
    """A copy from which torch-pruning removed for real what `plan` does not keep; the input stays full-sized."""
    pruned = deepcopy(network).eval()
    graph = build_graph(pruned, shape)
    input_layer = flat_input_layer(pruned, shape) if INPUTS in plan.kept else None
    for name, kept in plan.kept.items():
        if name == INPUTS:
            continue
        module = weighted(pruned, name)
        gone = sorted(set(range(module.weight.shape[0])) - set(kept))
        if gone:
            remove = tp.prune_linear_out_channels if isinstance(module, nn.Linear) else tp.prune_conv_out_channels
            graph.get_pruning_group(module, remove, idxs=gone).prune(record_history=False)
    if input_layer is not None:
        _select_inputs(pruned, input_layer, plan.kept[INPUTS])
    for parameter in pruned.parameters():
        parameter.grad = None
    _keep_flags(network, pruned, input_layer)
    return pruned


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
    tp.prune_linear_in_channels(linear, idxs=gone)
    parent, _, leaf = layer.rpartition(".")
    setattr(network.get_submodule(parent), leaf, SelectedInputs(linear, torch.tensor(kept)))


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
