"""What the user froze: parameters with requires_grad=False, and the statistics of the norms they belong to."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def trainable(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that training may change."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def frozen_norms(network: nn.Module) -> list[nn.Module]:
    """Norms whose running statistics are frozen: a backbone whose batch norms still moved would not be the user's.

    A norm is frozen with its own scale and shift. One that has none goes with its surroundings: the nearest module
    around it that has parameters, where all of these are frozen.
    """
    frozen: list[nn.Module] = []
    for name, module in network.named_modules():
        if not isinstance(module, _NormBase):
            continue
        around, parameters = name, list(module.parameters())
        while not parameters and around:
            around = around.rpartition(".")[0]
            parameters = list(network.get_submodule(around).parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            frozen.append(module)
    return frozen


def train_mode(network: nn.Module) -> None:
    """Training mode, but for frozen norms, which go on using the statistics they have."""
    network.train()
    for norm in frozen_norms(network):
        norm.eval()
