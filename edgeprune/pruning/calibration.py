"""What reconstruction knows of the data: what layers receive (Gram matrices), what of it matters (Fisher matrices)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.models.inputs import Inputs, ask
from edgeprune.tasks.objectives import objective_of
from edgeprune.tasks.task import CLASSIFICATION, Task

#: Rows (images times positions) beyond this add nothing to a Gram matrix but time.
ROWS = 40_000
#: Numbers that are unrolled at once (float32: a quarter of a gigabyte).
UNROLLED = 64_000_000


def gram_matrices(
    network: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Inputs],
    images: int,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Tensor]:
    """Gram matrix X'X / rows, float64, of the unrolled input of each layer.

    | layer | X | columns |
    |---|---|---|
    | Linear (out, D) | (N, D + 1) | features, then a constant 1 where the layer has a bias |
    | Conv1d, Conv2d (out, C, ...) | (N * positions, C * taps [+ 1]) | `weight.flatten(1)`, then the constant |

    `batches` give network inputs (N, ...), `images` in all; positions of a convolution are thinned evenly so that
    about `ROWS` rows are used.
    """
    grams: dict[str, Tensor] = {}
    rows: dict[str, int] = dict.fromkeys(layers, 0)
    hooks = []
    for name in layers:
        module = network.get_submodule(name)

        def collect(module: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
            for part in torch.split(args[0], _chunk(module, args[0])):
                x = _unroll(module, part, images).double()
                if module.bias is not None:
                    x = torch.cat([x, x.new_ones(len(x), 1)], 1)
                if name not in grams:
                    grams[name] = x.new_zeros(x.shape[1], x.shape[1])
                grams[name].addmm_(x.T, x)
                rows[name] += len(x)

        hooks.append(module.register_forward_pre_hook(collect))
    try:
        network.eval()
        with torch.no_grad():
            for batch in batches:
                ask(network, batch)
                advance(len(batch))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: gram / rows[name] for name, gram in grams.items()}


def fisher_matrices(
    network: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Inputs],
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
    task: Task = CLASSIFICATION,
) -> dict[str, Tensor]:
    """How much each layer's outputs sway the network's answer: E[g g'], float64 (out, out).

    g is the gradient of the log-likelihood of the network's own answer (a class drawn from its softmax, or as the
    `task` says) by the output of the layer: the second factor of K-FAC (Martens & Grosse 2015, section 3; for
    convolutions Grosse & Martens 2016, summed over positions). To second order, an error e of the output changes the
    answers by e' E[g g'] e / 2 in KL divergence.

    `batches` give network inputs (N, ...); the answers are drawn from `seed`.
    """
    if not layers:
        return {}
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}
    probes: list[tuple[str, Tensor]] = []
    hooks = []
    images = 0
    for name in layers:

        def add(_: nn.Module, args: tuple[Tensor, ...], output: Tensor, name: str = name) -> Tensor:  # noqa: ARG001
            probes.append((name, torch.zeros_like(output, requires_grad=True)))
            return output + probes[-1][1]

        hooks.append(network.get_submodule(name).register_forward_hook(add))
    try:
        network.eval()
        for batch in batches:
            probes.clear()
            with torch.enable_grad():
                likelihood = objective_of(task).drawn(ask(network, batch), generator)
            # A layer whose output is dropped sways nothing.
            slopes = torch.autograd.grad(likelihood, [probe for _, probe in probes], materialize_grads=True)
            for (name, _), slope in zip(probes, slopes, strict=True):
                linear = isinstance(network.get_submodule(name), nn.Linear)
                rows = (slope if linear else slope.movedim(1, -1)).flatten(0, -2).double()
                if name not in found:
                    found[name] = rows.new_zeros(rows.shape[1], rows.shape[1])
                found[name].addmm_(rows.T, rows)
            images += len(batch)
            advance(len(batch))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total / images for name, total in found.items()}


def _chunk(module: nn.Module, x: Tensor) -> int:
    """How many images are unrolled at once: an unrolled convolution input may be many times its input."""
    if isinstance(module, nn.Linear):
        return len(x)
    taps = module.weight[0, 0].numel()  # type: ignore[index]
    return max(1, UNROLLED // (x[0].numel() * taps))


def _unroll(module: nn.Module, x: Tensor, images: int) -> Tensor:
    if isinstance(module, nn.Linear):
        return x.reshape(-1, x.shape[-1])
    assert isinstance(module, nn.Conv1d | nn.Conv2d)
    kernel, stride, dilation = module.kernel_size, module.stride, module.dilation
    # The convolution's own: "same" may be uneven, and what is put there need not be zeros.
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = F.pad(x, module._reversed_padding_repeated_twice, mode)
    if isinstance(module, nn.Conv1d):
        # A sequence is an image of one row.
        x, kernel, stride, dilation = x[:, :, None], (1, *kernel), (1, *stride), (1, *dilation)
    columns = F.unfold(x, kernel, dilation=dilation, stride=stride)
    positions = columns.shape[2]
    keep = max(1, min(positions, ROWS // max(images, 1)))
    if keep < positions:
        columns = columns[:, :, torch.linspace(0, positions - 1, keep).long()]
    return columns.transpose(1, 2).reshape(-1, columns.shape[1])
