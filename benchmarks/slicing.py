"""How much faster a sliced candidate is than a really exported one: paired, medians.

python benchmarks/slicing.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch

from edgeprune.core.design import PruningPlan
from edgeprune.exporters import EXPORTERS, Template
from edgeprune.models.zoo import build
from edgeprune.pruning.groups import discover
from edgeprune.pruning.surgery import cut

NETS = {"lenet-300-100": (1, 28, 28), "resnet20": (3, 32, 32), "mobilenetv2-small": (3, 32, 32)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}; seconds, medians of {rounds}")
    for name, shape in NETS.items():
        network, example = build(name, shape, 10).eval(), torch.rand(2, *shape)
        structure = discover(network, shape, runtime="onnxruntime")
        plan = PruningPlan({g.name: tuple(range(g.snap(g.channels * 0.6))) for g in structure.groups})
        pruned = cut(network, shape, plan)
        for kind, row in EXPORTERS.items():
            template = Template.build(network, example, kind, input_layer=structure.input_layer)
            coded = cut(template.coded_network(), shape, plan)
            sliced, exported = [], []
            with tempfile.TemporaryDirectory() as folder:
                row.export(pruned, example, Path(folder) / f"warm.{kind}", {})
                for _ in range(rounds):
                    start = time.perf_counter()
                    template.slice(coded, pruned)
                    middle = time.perf_counter()
                    row.export(pruned, example, Path(folder) / f"model.{kind}", {})
                    sliced.append(middle - start)
                    exported.append(time.perf_counter() - middle)
            ratio = statistics.median(e / s for e, s in zip(exported, sliced, strict=True))
            print(
                f"{name:18} {kind:7} sliced {statistics.median(sliced):.4f}  exported {statistics.median(exported):.3f}"
                f"  {ratio:.0f}x"
            )


if __name__ == "__main__":
    main()
