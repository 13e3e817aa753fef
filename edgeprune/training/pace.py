"""How fast a network trains in several places, and whether it can be trained there at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeprune.core.text import shorten
from edgeprune.models.inputs import Inputs, ask
from edgeprune.tasks.objectives import objective_of
from edgeprune.tasks.task import CLASSIFICATION, Task
from edgeprune.training.fit import adamw
from edgeprune.training.frozen import train_mode
from edgeprune.training.place import DeviceName, Place
from edgeprune.training.regime import DECAY

#: Largest difference of a place's float32 answers from the plain ones, relative to their scale.
NEAR = 1e-3
#: Rounds that are timed, at least and at most, and the seconds after which none begins that need not be.
LEAST, MOST, SECONDS = 3, 20, 5.0
#: What /proc/cpuinfo calls instructions for products of bfloat16, on x86 and on ARM.
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


def available(device: DeviceName) -> bool:
    """Whether torch can train on `device` here."""
    if device == "cuda":
        return torch.cuda.is_available()
    return device == "cpu" or torch.backends.mps.is_available()


def has_bfloat16(device: DeviceName) -> bool:
    """Whether `device` multiplies bfloat16 itself; where it does not torch emulates it, which is slower than float32.

    Of processors only Linux tells.
    """
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    info = Path("/proc/cpuinfo")
    return device == "cpu" and info.exists() and not _BFLOAT16.isdisjoint(info.read_text(errors="replace").split())


def fault(network: nn.Module, x: Inputs, targets: Tensor, place: Place, task: Task = CLASSIFICATION) -> str | None:
    """Why `network` cannot be trained in `place`, on one line; None where it can.

    It is tried on a few inputs (N, ...), forward and backward; its float32 answers must be the plain ones. They are
    asked for without TF32: its rounding, with which a GPU may train, is no fault of the network, and would hide one.
    """
    tf32 = torch.backends.cudnn.allow_tf32
    try:
        there = place.copy(network)
        train_mode(there)
        with torch.random.fork_rng():
            loss = objective_of(task).loss(place.forward(there, place.inputs(x)), place.moved(targets))
            loss.backward()  # type: ignore[no-untyped-call]
        torch.backends.cudnn.allow_tf32 = False
        with torch.no_grad():
            wanted = ask(deepcopy(network).eval(), x)
            found = ask(place.copy(network).eval(), place.inputs(x)).cpu()
        place.back(there)
    except Exception as error:  # noqa: BLE001 - a user's forward that was not written for the place may raise anything
        return shorten((str(error).strip() or type(error).__name__).splitlines()[0], 120)
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
    off = float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1.0))
    return None if off <= NEAR else f"its answers differ by {off:.1e}"


def step_seconds(
    network: nn.Module,
    x: Inputs,
    targets: Tensor,
    places: Sequence[Place],
    least: int = LEAST,
    clock: Callable[[], float] = time.perf_counter,
    task: Task = CLASSIFICATION,
) -> Mapping[Place, tuple[float, ...]]:
    """Seconds of steps that `network` takes on one batch (N, ...) as in `train`, in each of `places`, round by round.

    The network itself stays as it is. A round takes a step in every place, and the first one is not counted; `least`
    rounds are, and more where they are quick.
    """
    steps = [_stepper(network, x, targets, place, task) for place in places]
    seconds: list[list[float]] = [[] for _ in places]
    began = clock()
    with torch.random.fork_rng():
        for number in range(1 + max(least, MOST)):
            if number > least and clock() - began > SECONDS:
                break
            for step, taken in zip(steps, seconds, strict=True):
                start = clock()
                step()
                taken.append(clock() - start)
    return {place: tuple(taken[1:]) for place, taken in zip(places, seconds, strict=True)}


def _stepper(network: nn.Module, x: Inputs, targets: Tensor, place: Place, task: Task) -> Callable[[], None]:
    there = place.copy(network)
    train_mode(there)
    # So slow that the network stays what it is while it is timed.
    optimizer = adamw(there, 1e-9, DECAY)
    inputs, wanted = place.inputs(x), place.moved(targets)

    def step() -> None:
        loss = objective_of(task).loss(place.forward(there, inputs), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        place.wait()

    return step
