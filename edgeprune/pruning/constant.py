"""What is left of layers that nothing reaches any more: constants. A residual block without its inside is none."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch import Tensor, nn


#: What a constant may take the place of.
Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


class Constant(nn.Module):
    """In the place of a linear layer or a convolution: it answers with its bias, or zeros, whatever comes in.

    | tensor | shape | |
    |---|---|---|
    | `bias` | (out,) | that of the layer, which may be trained; None where it had none |
    """

    bias: nn.Parameter | None

    def __init__(self, layer: Layer, *, silent: bool) -> None:
        """In the place of `layer`; `silent`: nobody listens, so it answers with zeros."""
        super().__init__()
        self.out, self.silent = int(layer.weight.shape[0]), silent
        bias = None if silent else layer.bias
        self.register_parameter("bias", bias)
        self._geometry: tuple[tuple[int, int, int], ...] = ()
        if not isinstance(layer, nn.Linear):
            # What a convolution makes of a size: (size + added - span) // step + 1.
            pads = [_added(layer, axis) for axis in range(len(layer.kernel_size))]
            spans = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
            self._geometry = tuple(zip(pads, spans, layer.stride, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """(N, out, ...) of images or sequences x (N, C, ...), or (..., out) of x (..., C)."""
        if not self._geometry:
            return self.value(x).expand(*x.shape[:-1], self.out)
        sizes = [
            (size + added - span) // step + 1
            for size, (added, span, step) in zip(x.shape[2:], self._geometry, strict=True)
        ]
        return self.value(x).expand(x.shape[0], self.out, *sizes)

    def value(self, x: Tensor) -> Tensor:
        """The answer without repeating it: (1, out, 1, ...), or (1, ..., out), as many axes as x has."""
        bias = x.new_zeros(self.out) if self.bias is None else self.bias
        trailing = len(self._geometry)
        return bias.view(1, -1, *[1] * trailing) if trailing else bias.view(*[1] * (x.ndim - 1), -1)


class Alone(nn.Module):
    """A `Constant` for files: what adds it to something repeats it."""

    def __init__(self, constant: Constant) -> None:
        super().__init__()
        self.constant = constant

    def forward(self, x: Tensor) -> Tensor:
        """See `Constant.value`."""
        return self.constant.value(x)


def _added(layer: nn.Module, axis: int) -> int:
    padding = layer.padding
    if padding == "same":
        return layer.dilation[axis] * (layer.kernel_size[axis] - 1)  # type: ignore[index, operator, no-any-return]
    return 0 if padding == "valid" else 2 * padding[axis]  # type: ignore[index, no-any-return]


def still(network: nn.Module, makers: Collection[str], readers: Iterable[str]) -> None:
    """Put constants in the place of layers, in place: `makers`, whose answers nobody reads, and `readers` of these."""
    modules = dict(network.named_modules(remove_duplicate=False))
    for name in (*makers, *readers):
        layer = modules[name]
        if isinstance(layer, Layer):
            _put(network, name, Constant(layer, silent=name in makers))


def unrepeated(network: nn.Module) -> None:
    """Let constants be added as they are, in place: a file then holds a number for each channel, and nothing else."""
    for name, module in [*network.named_modules()]:
        if isinstance(module, Constant):
            _put(network, name, Alone(module))


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, module.train(network.training))


