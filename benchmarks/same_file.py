"""A/A and A/B: does the 95 % interval of a quotient hold what it says, and how wide is it?

python benchmarks/same_file.py A.onnx|A.tflite [--against B] [--truth 1.1] [--times 40] [--processes 7]

A/A (no --against): the file raced against itself; the truth is 1. A/B: a difference that is to be found each time; its
truth comes from one long race first, unless it is given.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.devices import find_device, open_session
from edgeprune.profilers.fresh import compare_fresh
from edgeprune.profilers.recognition import runtime_of
from edgeprune.profilers.statistics import Interval, quotient_interval

#: The long race has so many times the processes of one trial.
_LONG = 6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--truth", type=float)
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--processes", type=int, default=7)
    options = parser.parse_args()
    other = options.against or options.file
    settings = MeasureSettings(runtime=runtime_of(options.file), rounds=15, round_s=0.01, processes=options.processes)
    with open_session(find_device("local")) as session:

        def race(processes: int) -> tuple[Measurement, Interval]:
            measured = compare_fresh(session, replace(settings, processes=processes), options.file, other)
            if isinstance(measured, Failure):
                raise SystemExit(measured.message)
            return measured, quotient_interval(measured.samples, measured.against, measured.process)

        truth = options.truth or 1.0
        if options.against and not options.truth:
            _, long = race(_LONG * options.processes)
            truth = long.value
            print(f"truth, from a long race: {truth:.4f} ({long.low:.4f} to {long.high:.4f})", flush=True)
        held, found, halves, rejected, verdicts = 0, 0, [], 0, []
        for _ in range(options.times):
            measured, interval = race(options.processes)
            held += interval.low <= truth <= interval.high
            found += not interval.low <= 1.0 <= interval.high
            halves.append(interval.half_width)
            rejected += measured.rejected
            verdicts.append(measured.verdict)
            print(
                f"{interval.value:.4f} ({interval.low:.4f} to {interval.high:.4f}) {measured.verdict}, "
                f"{measured.rejected} rejected",
                flush=True,
            )
    print(f"{truth:.4f} held {held} times in {options.times}; a difference from 1 found {found} times")
    print(
        f"half-width: median {100 * statistics.median(halves):.2f} %, largest {100 * max(halves):.2f} %; "
        f"{rejected} processes rejected; verdicts "
        + ", ".join(f"{v} {verdicts.count(v)}" for v in sorted(set(verdicts)))
    )


if __name__ == "__main__":
    main()
