"""Every architecture family of `benchmarks.families` is pruned, and named where much of it stays."""

from __future__ import annotations

import pytest
import torch

from benchmarks.families import FAMILIES
from edgeprune.core.design import PruningPlan
from edgeprune.models.plain import make_plain
from edgeprune.pipeline.found import MAX_COLUMNS
from edgeprune.pruning.cost import count_macs
from edgeprune.pruning.groups import discover
from edgeprune.pruning.surgery import cut

#: Shares of the multiply-accumulates that are left of those that keep more than 0.45, and why.
DEAR = {
    # Its norm looks at neighbouring channels: the first convolution stays.
    "alexnet_lrn": 0.95,
    # Its waves are a buffer.
    "mel": 0.7,
    # What makes its kernels stays: a quarter of the channels each share one.
    "involution": 0.46,
    # One group, half of which is left.
    "fasttext_mean": 0.55,
    "graphattention": 0.5,
}


@pytest.mark.soak
@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_pruned(name: str) -> None:
    family = FAMILIES[name]
    torch.manual_seed(0)
    network = family.make().eval()
    make_plain(network)
    # Discovery proves each of its groups, and that all go together.
    structure = discover(network, family.shape, runtime="onnxruntime", max_columns=MAX_COLUMNS, prune_inputs=False)
    widths = {group.name: max(group.floor, group.snap(group.channels / 2)) for group in structure.groups}
    plan = PruningPlan({name: tuple(range(width)) for name, width in widths.items()})
    left = count_macs(cut(network, family.shape, plan, structure.graph), family.shape)
    assert left <= DEAR.get(name, 0.45) * count_macs(network, family.shape)
