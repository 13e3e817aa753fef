"""Where and how the host trains: on which device, in which memory format, at which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn

from edgeprune.models.inputs import Inputs, ask, mapped

DeviceName = Literal["cpu", "cuda", "mps"]
MemoryFormat = Literal["contiguous", "channels_last"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where networks are trained, and how. Weights are float32 everywhere: bfloat16 is torch's autocast.

    Networks come to a place as copies and leave it by `back`: outside of training everything is on the CPU in the usual
    memory format, so that what is saved, counted, exported or hashed does not depend on the place.

    Example: `place = Place(memory_format="channels_last")`, `there = place.copy(network)`, `there(place.inputs(x))`,
    `place.back(there)`.
    """

    device: DeviceName = "cpu"
    memory_format: MemoryFormat = "contiguous"
    precision: Precision = "float32"

    def copy(self, network: nn.Module) -> nn.Module:
        """A copy of `network` in this place, in the same mode."""
        there = deepcopy(network)
        if self.device != "cpu":
            there = there.to(self.device)
        if self.memory_format == "channels_last":
            for tensor in chain(there.parameters(), there.buffers()):
                if tensor.ndim == 4:
                    # Not contiguous(): it leaves 1x1 and depthwise kernels, which are so either way, with the usual
                    # strides, and convolutions then take the usual way.
                    tensor.data = tensor.data.to(memory_format=torch.channels_last)
        return there

    def back(self, network: nn.Module) -> nn.Module:
        """`network` itself, brought back: on the CPU, every tensor in the usual memory format, without gradients."""
        if self != PLAIN:
            for tensor in chain(network.to("cpu").parameters(), network.buffers()):
                tensor.grad = None
                tensor.data = _usual(tensor.data)
        return network

    def inputs(self, x: Inputs) -> Inputs:
        """Inputs (N, ...) in this place; only images (N, C, H, W) have another memory format."""
        return mapped(x, self._input)

    def _input(self, x: Tensor) -> Tensor:
        if self.memory_format == "channels_last" and x.ndim == 4:
            return x.to(self.device, memory_format=torch.channels_last)
        return x.to(self.device)

    def moved(self, x: Tensor) -> Tensor:
        """Labels, or anything else without a memory format, on this place's device."""
        return x.to(self.device)

    def forward(self, network: nn.Module, x: Inputs) -> Tensor:
        """Logits (N, classes) float32 of a network and inputs that are in this place, at its precision."""
        if self.precision == "float32":
            return ask(network, x)  # type: ignore[no-any-return]
        with self._autocast():
            logits: Tensor = ask(network, x)
        return logits.float()

    def wait(self) -> None:
        """Return when the device has done what it was given, so that seconds can be taken."""
        if self.device != "cpu":
            getattr(torch, self.device).synchronize()

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device, dtype=torch.bfloat16)

    def __str__(self) -> str:
        """For people: "channels_last, float32", with the device where it is not the CPU."""
        layout = "channels_last" if self.memory_format == "channels_last" else "the usual memory format"
        return f"{layout}, {self.precision}" + ("" if self.device == "cpu" else f", on {self.device}")


#: As torch trains unless told otherwise.
PLAIN = Place()


def _usual(tensor: Tensor) -> Tensor:
    """The same numbers with the usual strides, also on axes of length 1, which `contiguous()` leaves as they are."""
    usual = torch.empty(tensor.shape, dtype=tensor.dtype)
    return tensor if tensor.stride() == usual.stride() else usual.copy_(tensor)
