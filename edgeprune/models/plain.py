"""A user's network as the rest of the product needs it: plain float32 weights, the same answer to the same input."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from edgeprune.core.errors import ModelError
from edgeprune.core.inputs import Shape
from edgeprune.models.inputs import ask, made

#: Largest difference of two answers to one input that is rounding, relative to the answers' scale.
NEAR = 1e-3
_INPUTS = 4


def is_waiting(network: nn.Module) -> bool:
    """Whether it holds parameters or buffers that get their shape from the first input (lazy modules)."""
    return any(is_lazy(each) for each in (*network.parameters(), *network.buffers()))


def make_plain(network: nn.Module) -> list[str]:
    """Make weights that are worked out from others plain ones, and all of them float32, in place; a line for each kind.

    Parametrisations (weight and spectral norm, both old and new), and masks of `torch.nn.utils.prune`: what the network
    computes in evaluation mode stays the same. They can then be cut, and train without what made them.
    """
    network.eval()
    kinds: dict[str, int] = {}

    def note(kind: str) -> None:
        kinds[kind] = kinds.get(kind, 0) + 1

    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                note("parametrisations")
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                note("weight norms")
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, prune.BasePruningMethod):
                note("masks of torch.nn.utils.prune")
                prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
            elif isinstance(hook, SpectralNorm):
                note("spectral norms")
                remove_spectral_norm(module, hook.name)
    said = [
        f"{count} weights were worked out from others ({kind}): they are plain weights from here on"
        for kind, count in kinds.items()
    ]
    other = sorted({str(each.dtype).removeprefix("torch.") for each in network.parameters() if _wrong(each)})
    if other:
        network.float()
        said.append(f"the model computed in {' and '.join(other)}: it is converted to float32")
    return said


def check_steady(network: nn.Module, spec: str, shape: Shape) -> None:
    """Raises ModelError unless `network` gives an input one answer: each time, in whatever batch (N, *shape)."""
    network.eval()
    inputs = made(shape, _INPUTS, partial(torch.rand, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad(), torch.random.fork_rng():
        together, again, fewer = ask(network, inputs), ask(network, inputs), ask(network, inputs[:2])
    scale = NEAR * max(1.0, float(together.abs().max()))
    if float((together - again).abs().max()) > scale:
        raise ModelError(
            f"model {spec} gives the same input another answer each time",
            "switch off what is random in evaluation mode: nn.Dropout does that by itself, F.dropout needs "
            "training=self.training",
        )
    if float((together[:2] - fewer).abs().max()) > scale:
        raise ModelError(
            f"the answer of model {spec} to an input hangs on the others in its batch",
            "take what looks at the batch out of evaluation mode: batch norms with track_running_stats=False, means "
            "over the first axis",
        )


def _wrong(parameter: nn.Parameter) -> bool:
    return parameter.is_floating_point() and parameter.dtype != torch.float32
