"""How fast zoo networks train, are scored and answer as teachers in each memory format and precision: paired, medians.

python -m benchmarks.training [--rounds 5] [--batch 128] [--usual-heap] [NET ...]

With --usual-heap memory that is freed is not kept as a run keeps it (`training.heap`): run it with and without.
bfloat16 is left out where the processor emulates it, unless --emulated is given.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch

from edgeprune.models.zoo import CONVOLUTIONAL, build
from edgeprune.training.heap import keep_freed_memory
from edgeprune.training.pace import available, has_bfloat16, step_seconds
from edgeprune.training.place import PLAIN, Place
from edgeprune.training.teacher import Teacher

SHAPES = {"lenet5": (1, 28, 28)}


def paired(rounds: int, one: Callable[[], object], other: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of `one`, and how many times faster the `other` is, round by round."""
    taken: list[list[float]] = [[], []]
    for _ in range(1 + rounds):
        for work, seconds in zip((one, other), taken, strict=True):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
    first, second = (seconds[1:] for seconds in taken)
    return statistics.median(first), statistics.median(a / b for a, b in zip(first, second, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("nets", nargs="*", default=["lenet5", "resnet20", "mobilenetv2-small"], metavar="NET")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--emulated", action="store_true")
    parser.add_argument("--usual-heap", action="store_true")
    given = parser.parse_args()
    if unknown := set(given.nets) - set(CONVOLUTIONAL):
        parser.error(f"expected some of {', '.join(CONVOLUTIONAL)}, got {', '.join(sorted(unknown))}")
    kept = not given.usual_heap and keep_freed_memory()
    places = [PLAIN, Place(memory_format="channels_last")]
    if given.emulated or has_bfloat16("cpu"):
        places += [Place(precision="bfloat16"), Place(memory_format="channels_last", precision="bfloat16")]
    if available("cuda"):
        places.append(Place("cuda", "channels_last"))
    print(
        f"{platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, torch "
        f"{torch.__version__}, {torch.get_num_threads()} threads; batches of {given.batch}, medians of {given.rounds} "
        f"rounds or more, x: times faster than the first; freed memory is {'kept' if kept else 'not kept'}"
    )
    for name in given.nets:
        torch.manual_seed(0)
        shape = SHAPES.get(name, (3, 32, 32))
        network, x = build(name, shape, 10).eval(), torch.rand(given.batch, *shape)
        taken = step_seconds(network, x, torch.arange(given.batch) % 10, places, given.rounds)
        for place, own in taken.items():
            faster = statistics.median(first / second for first, second in zip(taken[PLAIN], own, strict=True))
            print(f"{name:18} step      {place!s:40} {1000 * statistics.median(own):7.1f} ms {faster:5.2f}x")
        for place in places:
            there, asked, inputs = place.copy(network), Teacher(network), place.inputs(x)
            with torch.no_grad():
                if place != PLAIN and place.precision == "float32":
                    seconds, faster = paired(given.rounds, lambda: network(x), lambda: there(inputs).cpu())  # noqa: B023
                    print(f"{name:18} scoring   {place!s:40} {1000 * seconds / faster:7.1f} ms {faster:5.2f}x")
                seconds, faster = paired(given.rounds, lambda: network(x), lambda: asked(inputs, place).cpu())  # noqa: B023
                print(f"{name:18} teacher   {place!s:40} {1000 * seconds / faster:7.1f} ms {faster:5.2f}x")


if __name__ == "__main__":
    main()
