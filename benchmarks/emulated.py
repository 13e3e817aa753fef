"""Guest instructions on the emulated Raspberry Pi 4: the same in fresh guests? the right order? the same outputs?

python benchmarks/emulated.py [--guests 3] [--board rpi4]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgeprune.artifacts import run_model
from edgeprune.core.design import PruningPlan
from edgeprune.core.measurement import Measurement, MeasureSettings
from edgeprune.core.runtimes import Format, runtime_for
from edgeprune.core.session import DeviceSpec
from edgeprune.devices.emulator.session import EmulatedSession
from edgeprune.devices.emulator.setup import install
from edgeprune.exporters import EXPORTERS
from edgeprune.models.zoo import MLP, build
from edgeprune.profilers.loop import LoopProfiler
from edgeprune.profilers.predict import predict_on_device
from edgeprune.pruning.groups import discover
from edgeprune.pruning.surgery import cut

IMAGE = (3, 32, 32)


def networks() -> list[tuple[str, nn.Module, nn.Module]]:
    """Name, full and pruned network. MLP 784-300-100-10 against 219-81-43; ResNet-20 against half the width."""
    resnet = build("resnet20", IMAGE, 10).eval()
    structure = discover(resnet, IMAGE, runtime="onnxruntime")
    half = cut(resnet, IMAGE, PruningPlan({g.name: tuple(range(g.snap(g.channels / 2))) for g in structure.groups}))
    return [("lenet", MLP(784, (300, 100), 10), MLP(219, (81, 43), 10)), ("resnet20", resnet, half)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--guests", type=int, default=3)
    parser.add_argument("--board", choices=["rpi3", "rpi4"], default="rpi4")
    chosen = parser.parse_args()
    torch.manual_seed(0)
    install(chosen.board, print)
    spec = DeviceSpec(f"emulated-{chosen.board}", "emulated", board=chosen.board)
    with tempfile.TemporaryDirectory() as folder:
        for name, full, pruned in networks():
            for kind, row in EXPORTERS.items():
                files = []
                for role, network in (("full", full), ("pruned", pruned)):
                    shape = (network.fc1.in_features,) if isinstance(network, MLP) else IMAGE
                    files.append(Path(folder) / f"{name}-{role}.{kind}")
                    row.export(network.eval(), torch.rand(2, *shape), files[-1], {})
                show(name, spec, kind, files[0], files[1], chosen.guests)


def show(name: str, spec: DeviceSpec, kind: Format, full: Path, pruned: Path, guests: int) -> None:
    settings = MeasureSettings(runtime_for(kind).name)
    figures, seconds, opening = [], [], []
    for _ in range(guests):
        with EmulatedSession(spec) as session, LoopProfiler(session, settings, full) as profiler:
            start = time.perf_counter()
            profiler.measure(full)  # also what every later candidate is compared with
            opening.append(time.perf_counter() - start)
            start = time.perf_counter()
            found = profiler.measure(pruned)
            seconds.append(time.perf_counter() - start)
            assert isinstance(found, Measurement), found
            figures.append((found.against, found.samples, found.against_peak_bytes, found.peak_bytes))
    with EmulatedSession(spec) as session:
        apart = [parity(session, settings, kind, file) for file in (full, pruned)]
    (count,), (less,), held, lower = figures[0]
    print(
        f"{name:9} {settings.runtime:12} {count:12,.0f} -> {less:12,.0f} instructions ({less / count:.3f}), "
        f"{held:9,} -> {lower:9,} bytes; {guests} guests {'identical' if len(set(figures)) == 1 else 'DIFFER'}; "
        f"outputs within {max(apart):.1e}; guest and baseline {statistics.median(opening):.1f} s, "
        f"candidate {statistics.median(seconds):.2f} s",
        flush=True,
    )


def parity(session: EmulatedSession, settings: MeasureSettings, kind: Format, file: Path) -> float:
    """Largest difference between the outputs there and on this machine."""
    sides = {"full": {"lenet": 784}, "pruned": {"lenet": 219}}
    name, role = file.stem.split("-")
    shape = (sides[role][name],) if name in sides[role] else IMAGE
    images = np.random.default_rng(0).random((4, *shape), dtype=np.float32)
    return float(np.abs(predict_on_device(session, settings, file, images) - run_model(kind, file, images)).max())


if __name__ == "__main__":
    main()
