"""Training that knows of 8-bit integers: weights and inputs are rounded as the network's file will round them.

Rounding has no slope, so gradients pass it as if it were not there (the straight-through estimator, Bengio et al. 2013;
of quantised networks Jacob et al. 2018, section 3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgeprune.pruning.folding import find_batchnorm_pairs, fold_batchnorm
from edgeprune.training.batches import Batches
from edgeprune.training.fit import predict

#: What has a weight that files keep in 8 bits, and the axis of its output channels.
_AXES: dict[type[nn.Module], int] = {
    nn.Linear: 0,
    nn.Conv1d: 0,
    nn.Conv2d: 0,
    nn.Conv3d: 0,
    nn.ConvTranspose1d: 1,
    nn.ConvTranspose2d: 1,
    nn.ConvTranspose3d: 1,
}
#: Under this name a layer has what rounds its input.
_ROUNDED = "_rounded_input"


def rounding(network: nn.Module, batches: Batches, images: int) -> nn.Module:
    """A copy, batch norms folded, whose layers round weights and inputs to what 8-bit integers can hold.

    Weights have a scale for each output channel, symmetric; inputs one for all, from the least to the greatest value
    that the first `images` of `batches` give. It is trained like any other network, and `learnt` makes it a plain one.
    """
    copy = _folded(network, batches)
    layers = _layers(copy)
    for layer in layers.values():
        layer.add_module(_ROUNDED, _Input())
        layer.register_forward_pre_hook(_round)
    predict(copy, batches, images)
    for layer in layers.values():
        getattr(layer, _ROUNDED).seen = True
        parametrize.register_parametrization(layer, "weight", _Weight(_axis(layer)), unsafe=True)
    return copy


def learnt(network: nn.Module, trained: nn.Module, batches: Batches) -> nn.Module:
    """The plain network, batch norms folded, with the weights of `trained`.

    `rounding` made that of `network` and `batches`.
    """
    plain = _folded(network, batches)
    rounded = _layers(trained)
    state: dict[str, Tensor] = {}
    for name, tensor in trained.state_dict().items():
        if ".parametrizations." not in f".{name}" and f".{_ROUNDED}." not in f".{name}":
            state[name] = tensor
    for name, layer in rounded.items():
        state[f"{name}.weight"] = layer.weight.detach()
    plain.load_state_dict(state)
    return plain.eval()


class _Weight(nn.Module):
    def __init__(self, axis: int) -> None:
        super().__init__()
        self._axis = axis

    def forward(self, weight: Tensor) -> Tensor:
        sides = [side for side in range(weight.ndim) if side != self._axis]
        scale = (weight.detach().abs().amax(sides).float() / 127).clamp(min=1e-12)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, self._axis, -127, 127)


class _Input(nn.Module):
    """Looks at the values first, and rounds them once it has `seen` all."""

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.seen = False
        # 0 is always among what can be held exactly: padding is.
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if not self.seen:
            self.low.copy_(torch.minimum(self.low, x.min()))
            self.high.copy_(torch.maximum(self.high, x.max()))
            return x
        scale = ((self.high - self.low).float() / 255).clamp(min=1e-12)
        zero = (-128 - self.low / scale).round().clamp(-128, 127).to(torch.int32)
        rounded = torch.fake_quantize_per_tensor_affine(x.float(), scale.reshape(1), zero.reshape(1), -128, 127)
        return rounded.to(x.dtype)


def _round(layer: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return (getattr(layer, _ROUNDED)(given[0]), *given[1:])


def _folded(network: nn.Module, batches: Batches) -> nn.Module:
    pairs = find_batchnorm_pairs(network, batches.inputs(slice(0, 2)))
    copy = fold_batchnorm(network, pairs)
    # Folding freezes what it makes.
    for name, _ in pairs:
        frozen = not any(parameter.requires_grad for parameter in network.get_submodule(name).parameters())
        for parameter in copy.get_submodule(name).parameters():
            parameter.requires_grad_(not frozen)
    return copy


def _layers(network: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in network.named_modules() if _axis(module) >= 0}


def _axis(module: nn.Module) -> int:
    # A parametrised layer has a class of its own, derived from what it was.
    return next((axis for kind, axis in _AXES.items() if isinstance(module, kind)), -1)
