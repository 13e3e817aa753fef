"""Surgery: torch-pruning removes channels for real, and the smaller network is known to be right before it is used."""

from __future__ import annotations

import warnings
from copy import deepcopy

import torch
import torch_pruning as tp
from torch import Tensor, nn

from edgeprune.core.errors import SurgeryError
from edgeprune.core.types import PruningPlan
from edgeprune.pruning.cost import weighted
from edgeprune.pruning.inputs import SelectedInputs, flat_input_layer
from edgeprune.pruning.structure import INPUTS, Coupling, Criterion, Structure


def prune(
    criterion: Criterion, structure: Structure, plan: PruningPlan, *, check: bool = False, inputs: Tensor | None = None
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


def build_graph(network: nn.Module, shape: tuple[int, ...]) -> tp.DependencyGraph:
    """torch-pruning's dependency graph; needs parameters that require gradients, which it switches on."""
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    example = torch.zeros(2, *shape, dtype=next(network.parameters()).dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tp.DependencyGraph().build_dependency(network, example_inputs=example, verbose=False)


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


def cut(network: nn.Module, shape: tuple[int, ...], plan: PruningPlan) -> nn.Module:
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
    return pruned


def _select_inputs(network: nn.Module, layer: str, kept: tuple[int, ...]) -> None:
    linear = network.get_submodule(layer)
    assert isinstance(linear, nn.Linear)
    gone = sorted(set(range(linear.in_features)) - set(kept))
    if not gone:
        return
    tp.prune_linear_in_channels(linear, idxs=gone)
    parent, _, leaf = layer.rpartition(".")
    setattr(network.get_submodule(parent), leaf, SelectedInputs(linear, torch.tensor(kept)))


def check_equal(masked: nn.Module, pruned: nn.Module, shape: tuple[int, ...], inputs: Tensor | None = None) -> float:
    """Largest difference of the two networks' outputs, relative to the outputs' scale; in double precision where
    the network can.

    `inputs` (N, *shape), random where None. Raises SurgeryError above 1e-5.
    """
    if inputs is None:
        inputs = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        try:
            one = deepcopy(masked).double().eval()(inputs.double())
            two = deepcopy(pruned).double().eval()(inputs.double())
        except RuntimeError:
            # A forward that makes float32 tensors of its own.
            one, two = masked.eval()(inputs), pruned.eval()(inputs)
    worst = float((one - two).abs().max() / one.abs().max().clamp(min=1.0))
    if not worst <= 1e-5:
        raise SurgeryError(f"the pruned network differs from the masked one by {worst:.1e} (allowed: 1e-5)")
    return worst
