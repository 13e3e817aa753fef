"""Kinds of layers: those that convolve, and those that are not pruned yet, in the user's words."""

from __future__ import annotations

from torch import nn

_KINDS: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (((nn.Bilinear,), "bilinear layers"),)


def unprunable(module: nn.Module) -> str | None:
    """Why a layer of this kind stays: "bilinear layers are not pruned yet". None for other kinds."""
    kind = next((words for types, words in _KINDS if isinstance(module, types)), None)
    return None if kind is None else f"{kind} are not pruned yet"


def convolutional(network: nn.Module) -> bool:
    """Whether the network convolves: images cost more then, and defaults differ."""
    return any(isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) for module in network.modules())
