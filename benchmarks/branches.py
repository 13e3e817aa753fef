"""Which residual branches of each family may go as a whole, and whether files without them are right.

python -m benchmarks.branches [--only NAME,NAME] [--files]

One line for each family that has such groups: how many, what is left of its multiply-accumulates without them. With
`--files` both formats are exported without them and with half of everything else, compared with PyTorch (largest
difference as a share of the answers), and it is told whether candidates are sliced. Random weights; nothing is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import torch
from torch import nn

from benchmarks.families import FAMILIES
from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import ExportError, NothingToPrune
from edgeprune.core.runtimes import Format
from edgeprune.exporters import EXPORTERS
from edgeprune.exporters.parity import compare
from edgeprune.exporters.slicing import Slicer
from edgeprune.models.inputs import made, to_numpy
from edgeprune.models.plain import make_plain
from edgeprune.pipeline.found import MAX_COLUMNS
from edgeprune.pruning.cost import count_macs
from edgeprune.pruning.criteria import Ranked
from edgeprune.pruning.groups import discover
from edgeprune.pruning.rankings import l1
from edgeprune.pruning.structure import Structure
from edgeprune.pruning.surgery import cut, prune


def files(network: nn.Module, structure: Structure) -> Iterator[str]:
    """What came of each format."""
    criterion = Ranked(network, structure, l1(network, structure), None)
    draw = partial(torch.rand, generator=torch.Generator().manual_seed(0))
    inputs = made(structure.shape, 2, draw)
    widths = {g.name: 0 if g.removable else max(g.floor, g.snap(g.channels / 2)) for g in structure.groups}
    plan = criterion.plan(widths)
    pruned = prune(criterion, structure, plan)
    with TemporaryDirectory() as folder:
        for format in get_args(Format):
            path = Path(folder) / f"model.{format}"
            EXPORTERS[format].export(pruned, inputs, path, {})
            parity = compare(pruned, format, path.read_bytes(), to_numpy(inputs))
            off = parity.max_abs / max(1.0, parity.scale)
            try:
                slicer = Slicer(
                    network, structure, inputs, format, criterion.plan, partial(prune, criterion, structure)
                )
                refused = slicer.branches_refused
            except ExportError as error:
                refused = error
            how = "sliced" if refused is None else f"exported: {refused}"
            yield f"{format} differs by {off:.1e}, {how}"


def main() -> None:
    """All families, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(FAMILIES))
    parser.add_argument("--files", action="store_true")
    options = parser.parse_args()
    found = 0
    for name in options.only.split(","):
        torch.manual_seed(0)
        network, shape = FAMILIES[name].make().eval(), FAMILIES[name].shape
        make_plain(network)
        try:
            structure = discover(network, shape, runtime="onnxruntime", max_columns=MAX_COLUMNS, prune_inputs=False)
        except NothingToPrune:
            continue
        gone = [group.name for group in structure.groups if group.removable]
        if not gone:
            continue
        found += 1
        less = cut(network, shape, PruningPlan(dict.fromkeys(gone, ())), structure.graph)
        left = count_macs(less, shape) / count_macs(network, shape)
        print(f"{name}: {len(gone)} of {len(structure.groups)} groups, {left:.2f} of the MACs left", flush=True)
        for line in files(network, structure) if options.files else ():
            print(f"  {line}", flush=True)
    print(f"{found} families of {len(options.only.split(','))}")


if __name__ == "__main__":
    main()
