"""Batch-norm statistics that fit the network they stand in."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgeprune.models.inputs import Inputs, ask
from edgeprune.training.frozen import frozen_norms
from edgeprune.training.place import PLAIN, Place

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def recalibrate(network: nn.Module, batches: Iterable[Inputs], place: Place = PLAIN) -> None:
    """Compute the running statistics of all batch-norm layers anew, in place, as plain means over `batches`.

    Pruning changes what a layer passes on, and the statistics of the unpruned network no longer describe it (Li et al.
    2020, EagleEye). `batches` are inputs (N, ...), N above 1, as many in each, or their means do not weigh alike.
    Nothing else is touched, dropout is off, and the network is left in evaluation mode. Norms that the user froze keep
    their statistics (see `frozen`). Without batch-norm layers to compute `batches` is not read. The work is done in
    `place`, in float32.
    """
    network.eval()
    norms = _norms(network)
    if not norms:
        return
    if place != PLAIN:
        there = place.copy(network)
        recalibrate(there, (place.inputs(batch) for batch in batches))
        for norm, twin in zip(norms, _norms(there), strict=True):
            norm.load_state_dict(twin.state_dict())
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # A cumulative mean instead of a moving one.
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for batch in batches:
            ask(network, batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def _norms(network: nn.Module) -> list[_BatchNorm]:
    """The batch-norm layers whose statistics may be computed."""
    kept = set(frozen_norms(network))
    return [
        module
        for module in network.modules()
        if isinstance(module, _NORMS) and module.track_running_stats and module not in kept
    ]
