"""What it costs that threads of torch sleep while they wait, or spin: a training step, alone and beside other programs.

python benchmarks/waiting.py [--rounds 3]

Every round trains in a fresh process for each way, first alone, then beside a program that takes one processor; 128
images a step, medians. `edgeprune` chooses between the two (docs/decisions/0024-threads-that-wait.md).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack

WAYS = {"sleep": {"OMP_WAIT_POLICY": "PASSIVE"}, "spin": {}}
NETS = {"ds-cnn": (1, 28, 28), "resnet20": (3, 32, 32)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.network:
        print(step(args.network))
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors; milliseconds a step")
    for name in NETS:
        for beside in (0, 1):
            found: dict[str, list[float]] = {way: [] for way in WAYS}
            with ExitStack() as stack:
                for _ in range(beside):
                    busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
                    stack.callback(busy.kill)
                for _ in range(args.rounds):
                    for way, settings in WAYS.items():
                        found[way].append(one(name, settings))
            ratio = statistics.median(a / b for a, b in zip(found["sleep"], found["spin"], strict=True))
            told = ", ".join(f"{way} {statistics.median(values):.0f}" for way, values in found.items())
            print(f"{name}, {'beside a program' if beside else 'alone'}: {told}; spinning is {ratio:.2f} times as fast")


def one(name: str, settings: dict[str, str]) -> float:
    """The median of a fresh process, in milliseconds."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, __file__, "--network", name]
    return float(subprocess.run(command, env=environment | settings, check=True, capture_output=True, text=True).stdout)


def step(name: str) -> float:
    """Train for some steps; the median one, in milliseconds."""
    import torch  # noqa: PLC0415 - it reads the settings of its threads when it is loaded
    from torch.nn import functional as F  # noqa: PLC0415

    from edgeprune.models.zoo import build  # noqa: PLC0415
    from edgeprune.training.fit import adamw  # noqa: PLC0415
    from edgeprune.training.heap import keep_freed_memory  # noqa: PLC0415
    from edgeprune.training.place import Place  # noqa: PLC0415

    keep_freed_memory()
    place = Place(memory_format="channels_last")
    network = place.copy(build(name, NETS[name], 10)).train()
    optimizer = adamw(network, 1e-3, 0.1)
    x, y, taken = place.inputs(torch.randn(128, *NETS[name])), torch.randint(0, 10, (128,)), []
    for _ in range(25):
        started = time.perf_counter()
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken[5:])


if __name__ == "__main__":
    main()
