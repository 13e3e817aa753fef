"""Channels are taken out of parameters and buffers, and layers are told their new sizes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from edgeprune.pruning.attention import narrow_attention
from edgeprune.pruning.axes.labels import Numbers, Side
from edgeprune.pruning.channels import Graph


def remove(network: nn.Module, graph: Graph, gone: Numbers) -> None:
    """Take the channels with the numbers `gone` out of every tensor of `network` that has a place for them."""
    owners = dict(network.named_modules(remove_duplicate=False))
    sliced = []
    names: dict[Tensor, str] = {}
    for name, tensor in _tensors(network):
        kept = tensor.detach()
        # A parameter with several names was labelled by its first.
        first = names.setdefault(tensor, name)
        for axis in range(tensor.ndim):
            left = graph.left(Side(first, axis), tensor.shape[axis], gone)
            if len(left) < tensor.shape[axis]:
                kept = kept.index_select(axis, torch.tensor(left))
        if kept.shape != tensor.shape:
            owner, _, leaf = name.rpartition(".")
            sliced.append((owners[owner], leaf, tensor, kept))
    before = {module: _mult(module) for module, *_ in sliced}
    fresh: dict[Tensor, Tensor] = {}
    for module, leaf, tensor, kept in sliced:
        if tensor not in fresh:
            plain = kept.contiguous()
            fresh[tensor] = nn.Parameter(plain, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else plain
        setattr(module, leaf, fresh[tensor])
    for module, mult in before.items():
        _resize(module, mult)


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters(remove_duplicate=False)
    yield from network.named_buffers(remove_duplicate=False)


def _mult(module: nn.Module) -> int:
    """Output channels that a depthwise convolution makes of each input channel; 0 of any other layer. Of a norm in
    groups the channels of a group."""
    if isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1 and module.in_channels == module.groups:
        return module.out_channels // module.groups
    return module.num_channels // module.num_groups if isinstance(module, nn.GroupNorm) else 0


def _resize(module: nn.Module, mult: int) -> None:
    """What a layer says of its size, by the shapes of what it holds now."""
    match module:
        case nn.Linear():
            module.out_features, module.in_features = module.weight.shape
        case nn.modules.conv._ConvNd():
            makes, reads = module.weight.shape[:2][:: -1 if module.transposed else 1]
            if mult:
                module.groups = makes // mult
            module.in_channels = reads * (1 if module.transposed else module.groups)
            module.out_channels = makes * (module.groups if module.transposed else 1)
        case nn.modules.batchnorm._NormBase():
            sized = module.weight if module.weight is not None else module.running_mean
            module.num_features = len(sized)
        case nn.LayerNorm() | nn.RMSNorm():
            module.normalized_shape = tuple(module.weight.shape)
        case nn.GroupNorm():
            module.num_channels = len(module.weight)
            if module.num_groups not in (1,):
                module.num_groups = module.num_channels // mult if mult > 1 else module.num_channels
        case nn.PReLU():
            module.num_parameters = len(module.weight)
        case nn.Embedding() | nn.EmbeddingBag():
            module.embedding_dim = module.weight.shape[1]
        case nn.MultiheadAttention():
            narrow_attention(module)
        case nn.RNNBase():
            state = dict(module.named_parameters())
            units = state["weight_hh_l0"].shape[1]
            if module.proj_size:
                module.proj_size, units = units, state["weight_hr_l0"].shape[1]
            module.hidden_size, module.input_size = units, state["weight_ih_l0"].shape[1]
        case nn.RNNCellBase():
            module.hidden_size, module.input_size = module.weight_hh.shape[1], module.weight_ih.shape[1]
        case _:
            pass
