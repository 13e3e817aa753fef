"""What a network costs on paper: parameters, multiply-accumulates, neurons."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
Weighted = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def weighted(network: nn.Module, name: str) -> Weighted:
    """The convolution or linear layer `name`. Raises TypeError where it is something else."""
    module = network.get_submodule(name)
    if not isinstance(module, WEIGHTED):
        raise TypeError(f"{name} is a {type(module).__name__}, not a convolution or linear layer")
    return module


def layer_calls(network: nn.Module, shape: tuple[int, ...]) -> list[tuple[str, tuple[int, ...]]]:
    """Every call of a convolution or linear layer for one input, in order: name and output shape."""
    calls: list[tuple[str, tuple[int, ...]]] = []
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, WEIGHTED):

            def note(_m: nn.Module, _a: object, out: Tensor, name: str = name) -> None:
                calls.append((name, tuple(out.shape[1:])))

            hooks.append(module.register_forward_hook(note))
    try:
        with torch.no_grad():
            network(torch.zeros(2, *shape, dtype=next(network.parameters()).dtype))
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def count_parameters(network: nn.Module) -> int:
    """Parameters of a network; buffers do not count."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one input of `shape`."""
    calls = layer_calls(network, shape)
    return sum(math.prod(out) * weighted(network, name).weight[0].numel() for name, out in calls)
