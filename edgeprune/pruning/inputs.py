"""Pruned input features: the network still takes the full input and gathers the features it needs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeprune.core.inputs import Shape, plain_shape


class SelectedInputs(nn.Module):
    """A linear layer that reads only some of its input features.

    | tensor | shape | |
    |---|---|---|
    | `kept` | (k,) int64 | indices of the features that are read |
    | `linear.weight` | (out, k) | one column per kept feature, in the order of `kept` |
    """

    kept: Tensor

    def __init__(self, linear: nn.Linear, kept: Tensor) -> None:
        super().__init__()
        self.linear = linear
        self.register_buffer("kept", kept.to(torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """(N, out) of x (N, D), D all features."""
        return self.linear(torch.index_select(x, 1, self.kept))  # type: ignore[no-any-return]


def flat_input_layer(network: nn.Module, shape: Shape) -> str | None:
    """Name of the one linear layer that reads the network's whole flattened input, or None where there is none, or
    more than one input.

    Found by running a batch of two random inputs and comparing what each linear layer receives, so that it does not
    matter how the network flattens.
    """
    if not plain_shape(shape):
        return None
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, *plain_shape(shape), generator=generator)
    found: list[str] = []
    hooks = []
    for name, module in network.named_modules():
        # A layer that reads a sequence step by step has fewer inputs: it does not see the whole at once.
        if isinstance(module, nn.Linear) and module.in_features == x[0].numel():

            def look(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                if args[0].numel() == x.numel() and torch.equal(args[0].flatten(), x.flatten()):
                    found.append(name)

            hooks.append(module.register_forward_pre_hook(look))
    try:
        network.eval()
        with torch.no_grad():
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if len(found) == 1 else None
