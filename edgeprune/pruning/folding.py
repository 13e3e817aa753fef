"""Batch normalisation folded into the layer before it, as every export does first."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def find_batchnorm_pairs(network: nn.Module) -> list[tuple[str, str]]:
    """Names of (layer, batch normalisation) modules that may become one layer, in call order.

    Only where the layer's output goes to that normalisation alone and both are called once. Empty where torch.fx
    cannot trace the network: then nothing is folded, which is slower but right.
    """
    try:
        graph = fx.symbolic_trace(deepcopy(network).eval()).graph
    except Exception:  # noqa: BLE001 - tracing runs the user's forward on proxies, which may raise anything
        return []
    modules = dict(network.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    pairs = []
    for node in graph.nodes:
        if node.op != "call_module" or calls[node.target] != 1:
            continue
        norm = modules.get(str(node.target))
        source = node.args[0] if node.args else None
        if not isinstance(norm, _NORMS) or norm.running_mean is None or not isinstance(source, fx.Node):
            continue
        if source.op != "call_module" or calls[source.target] != 1 or set(source.users) != {node}:
            continue
        layer = modules.get(str(source.target))
        fits = isinstance(layer, _CONVS) or (
            isinstance(layer, nn.Linear)
            and isinstance(norm, nn.BatchNorm1d)
            and layer.out_features == norm.num_features
        )
        if fits:
            pairs.append((str(source.target), str(node.target)))
    return pairs


def fold_batchnorm(network: nn.Module, pairs: list[tuple[str, str]]) -> nn.Module:
    """A copy in eval mode whose `pairs` are one layer each; the normalisation's place is taken by nn.Identity."""
    folded = deepcopy(network).eval()
    for name, norm_name in pairs:
        name, layer = _layer(folded, name)  # noqa: PLW2901 - the layer may sit inside a SelectedInputs
        weight, bias = _fuse(layer, folded.get_submodule(norm_name))
        layer.weight = nn.Parameter(weight, requires_grad=False)
        layer.bias = nn.Parameter(bias, requires_grad=False)
        parent, _, leaf = norm_name.rpartition(".")
        setattr(folded.get_submodule(parent), leaf, nn.Identity())
    return folded


def folded_state(network: nn.Module, pairs: list[tuple[str, str]]) -> dict[str, Tensor]:
    """`fold_batchnorm(network, pairs).state_dict()` without the copy of the modules: what a template slices, fast."""
    state = {name: value.detach() for name, value in network.state_dict().items()}
    for name, norm_name in pairs:
        full, layer = _layer(network, name)
        state[f"{full}.weight"], state[f"{full}.bias"] = _fuse(layer, network.get_submodule(norm_name))
        for key in [key for key in state if key.startswith(f"{norm_name}.")]:
            del state[key]
    return state


def _layer(network: nn.Module, name: str) -> tuple[str, nn.Module]:
    """The weighted layer `name`, also where surgery has meanwhile wrapped it into a SelectedInputs."""
    module = network.get_submodule(name)
    if isinstance(module, (nn.Linear, *_CONVS)):
        return name, module
    return f"{name}.linear", network.get_submodule(f"{name}.linear")


def _fuse(layer: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of `layer` with `norm`, at its running statistics, behind it."""
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    with torch.no_grad():
        plain = torch.ones_like(norm.running_mean)  # type: ignore[arg-type]
        # A batch norm without weights of its own (affine=False) scales by 1 and shifts by 0.
        scale = plain if norm.weight is None else norm.weight
        shift = torch.zeros_like(plain) if norm.bias is None else norm.bias
        weight, bias = fuse(
            layer.weight,  # type: ignore[arg-type]
            layer.bias,  # type: ignore[arg-type]
            norm.running_mean,  # type: ignore[arg-type]
            norm.running_var,  # type: ignore[arg-type]
            norm.eps,  # type: ignore[arg-type]
            scale,  # type: ignore[arg-type]
            shift,  # type: ignore[arg-type]
        )
    return weight.detach(), bias.detach()
