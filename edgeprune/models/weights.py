"""Weights as files."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save
from torch import nn

from edgeprune.core.files import write_bytes


def weights_bytes(network: nn.Module) -> bytes:
    """The state of `network` as safetensors."""
    data: bytes = save({name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()})
    return data


def save_weights(path: Path, network: nn.Module) -> None:
    """Write the state of `network` as safetensors, whole or not at all. Raises StorageError."""
    write_bytes(path, weights_bytes(network))
