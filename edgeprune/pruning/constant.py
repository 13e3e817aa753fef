"""What is left of layers that nothing reaches any more: constants. A residual block without its inside is none."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

#: What a constant may take the place of.
Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


class Constant(nn.Module):
    """In the place of a linear layer or a convolution: it answers with its bias, or zeros, whatever comes in.

    | tensor | shape | |
    |---|---|---|
    | `bias` | (out,) | that of the layer; None where it had none |

    The bias is not trained: a batch norm behind it would divide its steps by a deviation of zero. The norm's shift is.
    """

    bias: nn.Parameter | None

    def __init__(self, layer: Layer, *, silent: bool) -> None:
        """In the place of `layer`; `silent`: nobody listens, so it answers with zeros."""
        super().__init__()
        self.out, self.silent = int(layer.weight.shape[0]), silent
        bias = None if silent else layer.bias
        self.bias = bias if isinstance(bias, nn.Parameter) else None
        self._geometry: tuple[tuple[int, int, int], ...] = ()
        if not isinstance(layer, nn.Linear):
            # What a convolution makes of a size: (size + added - span) // step + 1.
            pads = [_added(layer, axis) for axis in range(len(layer.kernel_size))]
            spans = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
            self._geometry = tuple(zip(pads, spans, layer.stride, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """(N, out, ...) of images or sequences x (N, C, ...), or (..., out) of x (..., C)."""
        if not self._geometry:
            return self.value(x).expand(*x.shape[:-1], self.out).clone()
        sizes = [
            (size + added - span) // step + 1
            for size, (added, span, step) in zip(x.shape[2:], self._geometry, strict=True)
        ]
        # A copy: what comes next may write into it.
        return self.value(x).expand(x.shape[0], self.out, *sizes).clone()

    def value(self, x: Tensor) -> Tensor:
        """The answer without repeating it: (1, out, 1, ...), or (1, ..., out), as many axes as x has."""
        bias = x.new_zeros(self.out) if self.bias is None else self.bias.detach()
        trailing = len(self._geometry)
        return bias.view(1, -1, *[1] * trailing) if trailing else bias.view(*[1] * (x.ndim - 1), -1)


class Alone(nn.Module):
    """A `Constant` for files: what adds it to something repeats it."""

    def __init__(self, constant: Constant) -> None:
        super().__init__()
        self.constant = constant

    def forward(self, x: Tensor) -> Tensor:
        """See `Constant.value`."""
        return self.constant.value(x).clone()


def _added(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, axis: int) -> int:
    """Places that a convolution puts around an axis, on both sides together."""
    if layer.padding == "same":
        return int(layer.dilation[axis] * (layer.kernel_size[axis] - 1))
    return 0 if isinstance(layer.padding, str) else 2 * int(layer.padding[axis])


def still(network: nn.Module, makers: Collection[str], readers: Iterable[str]) -> None:
    """Put constants in the place of layers, in place: `makers`, whose answers nobody reads, and `readers` of these."""
    modules = dict(network.named_modules(remove_duplicate=False))
    for name in (*makers, *readers):
        layer = modules[name]
        if isinstance(layer, Layer):
            _put(network, name, Constant(layer, silent=name in makers))


@contextmanager
def unrepeated(network: nn.Module) -> Iterator[None]:
    """Let constants of `network` be added as they are: a file then holds a number for each channel, and nothing else.

    The network stays so; in the block it can be asked, whatever adds to a constant in place.
    """
    found = [name for name, module in network.named_modules() if isinstance(module, Constant)]
    for name in found:
        _put(network, name, Alone(network.get_submodule(name)))  # type: ignore[arg-type]
    if not found:
        yield
        return
    with _Repeating():
        yield


class _Repeating(TorchFunctionMode):
    """`x += y` gives x + y where x is too small to hold it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plain = _IN_PLACE.get(func)
        if plain is None or not isinstance(args[1], Tensor) or args[1].shape == args[0].shape:
            return func(*args, **(kwargs or {}))
        return plain(*args, **(kwargs or {}))


#: How `+=` and its kind arrive.
_IN_PLACE: dict[Any, Any] = {
    Tensor.add_: torch.add,
    Tensor.sub_: torch.sub,
    Tensor.mul_: torch.mul,
    Tensor.div_: torch.div,
}


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    """In the place of a module, under every name that it has."""
    old = network.get_submodule(name)
    module.train(old.training)
    for each in [n for n, m in network.named_modules(remove_duplicate=False) if m is old]:
        parent, _, leaf = each.rpartition(".")
        setattr(network.get_submodule(parent), leaf, module)
