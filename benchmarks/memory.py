"""Memory: how well does it repeat, and does it tell the dense LeNet-300-100 from one pruned by half?

python benchmarks/memory.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fakes.tiny_models import write_mlp

from edgeprune.core.measurement import MeasureSettings
from edgeprune.devices import find_device, open_session
from edgeprune.profilers.client import in_fresh_process, push

DENSE, HALF = (784, 300, 100, 10), (784, 150, 50, 10)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("files", nargs="*", type=Path, help="other files to read, beside the two LeNets (.onnx)")
    options = parser.parse_args()
    settings = MeasureSettings("onnxruntime")
    with tempfile.TemporaryDirectory() as folder, open_session(find_device("local")) as session:
        files = [
            write_mlp(Path(folder) / "dense.onnx", DENSE),
            write_mlp(Path(folder) / "half.onnx", HALF),
            *options.files,
        ]
        medians = []
        for file in files:
            pushed = push(session, file)
            medians_of = []
            for _ in range(options.repeats):
                # As `profile` does it: the median of five processes, each of which reads once.
                readings = [
                    in_fresh_process(
                        session,
                        settings,
                        lambda client, deadline, pushed=pushed: (
                            client.hello([pushed], deadline),
                            client.memory(pushed, deadline)[0],
                        )[1],
                        timeout_s=60,
                    )
                    for _ in range(5)
                ]
                medians_of.append(statistics.median(readings))
            spread = (max(medians_of) - min(medians_of)) / statistics.median(medians_of)
            medians.append(medians_of)
            middle = statistics.median(medians_of)
            print(f"{file.name}: {middle:,.0f} B, spread of {options.repeats} repeats {100 * spread:.3f} %", flush=True)
    print("separated" if min(medians[0]) > max(medians[1]) else "NOT separated")


if __name__ == "__main__":
    main()
