"""A/A: a file raced against itself in fresh processes. How often does the 95 % interval hold 1, and how wide is it?

python benchmarks/same_file.py FILE.onnx|FILE.tflite [--times 20] [--processes 7]
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from edgeprune.core.types import Failure, MeasureSettings
from edgeprune.devices import find_device, open_session
from edgeprune.profilers.fresh import compare_fresh
from edgeprune.profilers.statistics import quotient_interval


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--processes", type=int, default=7)
    options = parser.parse_args()
    runtime = "litert" if options.file.suffix == ".tflite" else "onnxruntime"
    settings = MeasureSettings(runtime=runtime, rounds=15, round_s=0.01, processes=options.processes)
    held, halves = 0, []
    with open_session(find_device("local")) as session:
        for _ in range(options.times):
            measured = compare_fresh(session, settings, options.file, options.file)
            if isinstance(measured, Failure):
                raise SystemExit(measured.message)
            interval = quotient_interval(measured.samples, measured.against, measured.process)
            held += interval.low <= 1.0 <= interval.high
            halves.append((interval.high - interval.low) / 2)
            print(f"{interval.value:.4f} ({interval.low:.4f} to {interval.high:.4f})", flush=True)
    print(f"1 held {held} times in {options.times}; median half-width {100 * statistics.median(halves):.2f} %")


if __name__ == "__main__":
    main()
