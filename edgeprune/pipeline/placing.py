"""Where a run trains, in which memory format and at which precision: tried, measured, said, and kept for a resume."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from edgeprune.core.errors import ModelError, StorageError, UsageError
from edgeprune.core.files import storing, write_json
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Progress
from edgeprune.core.reading import Source
from edgeprune.models.inputs import Inputs, tensors_of
from edgeprune.pipeline.config import RunConfig
from edgeprune.pruning.kinds import convolutional
from edgeprune.tasks.task import Task
from edgeprune.training.frozen import trainable
from edgeprune.training.pace import available, fault, has_bfloat16, step_seconds
from edgeprune.training.place import PLAIN, DeviceName, MemoryFormat, Place, Precision
from edgeprune.training.problem import Problem
from edgeprune.training.teacher import Teacher

#: How many times faster than the plain place another one must be: below, a measurement does not tell them apart.
WORTH = 1.05
#: Share of the validation score that bfloat16 may cost the unpruned network.
MAY_COST = 0.002
#: Images on which a place is tried.
_IMAGES = 8


@dataclass(frozen=True, slots=True)
class Timed:
    """The quickest training step in one place: its seconds, and how many times faster than in plain float32 it is."""

    memory_format: MemoryFormat
    precision: Precision
    seconds: Annotated[float, Field(gt=0)]
    speedup: Annotated[float, Field(gt=0)]


@dataclass(frozen=True, slots=True)
class Training:
    """Where a run trains. `content.json` keeps it, so that a resumed run trains as the undisturbed one would.

    `timed` is empty where there was nothing to choose from.
    """

    place: Place = PLAIN
    timed: tuple[Timed, ...] = ()

    def fastest(self, precisions: tuple[Precision, ...]) -> Place:
        """The fastest place of these precisions; the first one that was timed where none is faster by `WORTH`."""
        able = [one for one in self.timed if one.precision in precisions]
        if not able:
            return self.place
        best = max(able, key=lambda one: one.speedup)
        taken = best if best.speedup >= WORTH * able[0].speedup else able[0]
        return Place(self.place.device, taken.memory_format, taken.precision)

    def speedup(self, place: Place) -> float:
        """How many times faster than plain float32 `place` was."""
        wanted = place.memory_format, place.precision
        return next((one.speedup for one in self.timed if (one.memory_format, one.precision) == wanted), 1.0)


#: As runs of older versions trained.
UNSETTLED = Training()


@dataclass(frozen=True, slots=True)
class _Paces:
    """What a training-*.json in runs_dir/.cache holds."""

    timed: tuple[Timed, ...]


Measure = Callable[[nn.Module, Inputs, Tensor, Sequence[Place]], Mapping[Place, Sequence[float]]]


def train_device(config: RunConfig) -> DeviceName:
    """The device that `--train-device` means here. Raises UsageError where torch does not find the one asked for."""
    if config.train_device == "auto":
        names: tuple[DeviceName, ...] = ("cuda", "mps", "cpu")
        return next(name for name in names if available(name))
    if not available(config.train_device):
        raise UsageError(
            f"--train-device {config.train_device}: torch {torch.__version__} finds no such device here",
            "leave the option out, or give --train-device cpu",
        )
    return config.train_device


def settle_training(
    config: RunConfig,
    stored: Training | None,
    network: nn.Module,
    problem: Problem,
    batch_size: int,
    progress: Progress,
    measure: Measure | None = None,
    native: Callable[[DeviceName], bool] = has_bfloat16,
) -> Training:
    """Where the baseline is trained: the fastest place in which it can be, in bfloat16 only where that is asked for.

    What is left to choose is measured, a few steps in each place, once for this network on this machine: the figures
    stay in `runs_dir`, so that another run with the same seed gives the same. `stored` is what a resumed run began
    with. A network without convolutions trains in the plain place, and nothing is measured.

    Raises UsageError where a resumed run's device is gone, ModelError where the network does not run on the device
    that was asked for.
    """
    if stored is not None:
        if not available(stored.place.device):
            raise UsageError(
                f"the run trained on {stored.place.device}, which torch {torch.__version__} does not find here",
                "resume it where it began, or start a new run",
            )
        return stored
    x, targets, task = problem.train.inputs(slice(0, batch_size)), problem.train.y[:batch_size], problem.task
    device = _device(config, network, x[:_IMAGES], targets[:_IMAGES], task, progress)
    plain = Place(device)
    precisions = _precisions(config, network, device, native)
    others = [Place(device, layout, each) for each in precisions for layout in _layouts(network, x)]
    if others == [plain] or not trainable(network):
        return Training(plain)
    faults = {place: fault(network, x[:_IMAGES], targets[:_IMAGES], place, task) for place in others if place != plain}
    able = [place for place, why in faults.items() if why is None]
    if config.train_precision == "bfloat16" and not able:
        raise ModelError(f"the network does not train in bfloat16: {faults[others[0]]}", "leave --train-precision out")
    training = Training(plain)
    if able:
        # Plain float32 is timed beside whatever was asked for: people want to know what that costs them.
        timing = measure or partial(step_seconds, task=task)
        training = _timed(config, network, x, targets, [plain, *able], timing, progress)
        training = replace(training, place=first_place(config, training))
    progress.say(_said(training, faults, native(device)))
    return training


def first_place(config: RunConfig, training: Training) -> Place:
    """Where the baseline is trained, or was: nobody knows yet what bfloat16 costs it, so that must be asked for."""
    return training.fastest(("float32" if config.train_precision == "auto" else config.train_precision,))


def settle_precision(
    config: RunConfig, training: Training, network: nn.Module, problem: Problem, progress: Progress
) -> Training:
    """`training` in bfloat16 where that is faster, was not decided by the user, and the trained `network` bears it."""
    place = training.fastest(("float32", "bfloat16"))
    if config.train_precision != "auto" or place.precision == "float32":
        return training
    there, here = (_quality(network, problem, each) for each in (place, training.place))
    gain = f"{training.speedup(place) / training.speedup(training.place):.1f}x faster"
    shown = problem.yardstick.show
    scores = f"validation {shown(there)} instead of {shown(here)}"
    if there < here - MAY_COST:
        progress.say(f"training in {training.place}: bfloat16 would be {gain}, but costs too much: {scores}")
        return training
    progress.say(f"training in {place} from here on: {gain} than float32, {scores}")
    return replace(training, place=place)


def _device(
    config: RunConfig, network: nn.Module, x: Inputs, targets: Tensor, task: Task, progress: Progress
) -> DeviceName:
    device = train_device(config)
    why = None if device == "cpu" or not trainable(network) else fault(network, x, targets, Place(device), task)
    if why is None:
        return device
    if config.train_device != "auto":
        raise ModelError(f"the network does not train on {device}: {why}", "give --train-device cpu")
    progress.say(f"training on the CPU: on {device} the network fails ({why})")
    return "cpu"


def _precisions(
    config: RunConfig, network: nn.Module, device: DeviceName, native: Callable[[DeviceName], bool]
) -> tuple[Precision, ...]:
    if config.train_precision != "auto":
        return (config.train_precision,)
    return ("float32", "bfloat16") if convolutional(network) and native(device) else ("float32",)


def _layouts(network: nn.Module, x: Inputs) -> tuple[MemoryFormat, ...]:
    images = any(each.ndim == 4 for each in tensors_of(x)) and any(
        isinstance(module, nn.Conv2d) for module in network.modules()
    )
    return ("contiguous", "channels_last") if images else ("contiguous",)


def _timed(
    config: RunConfig,
    network: nn.Module,
    x: Inputs,
    targets: Tensor,
    places: list[Place],
    measure: Measure,
    progress: Progress,
) -> Training:
    """The steps' pace in `places`, as it was measured before for such a network, or measured now."""
    alike = (
        repr(network), *(tuple(each.shape) for each in tensors_of(x)), [to_json(place) for place in places],
        torch.__version__, platform.machine(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(),
    )  # fmt: skip
    key = hashlib.sha256(repr(alike).encode()).hexdigest()[:16]
    path = config.runs_dir / ".cache" / f"training-{key}.json"
    if (known := read_paces(path, places, progress.say)) is not None:
        return Training(places[0], known)
    # What else runs here only makes a step slower: the quickest ones tell places apart on a busy machine as well.
    quickest = {place: min(seconds) for place, seconds in measure(network, x, targets, places).items()}
    timed = tuple(
        Timed(place.memory_format, place.precision, quickest[place], quickest[places[0]] / quickest[place])
        for place in places
    )
    with storing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, to_json(_Paces(timed)))
    return Training(places[0], timed)


def read_paces(path: Path, places: Sequence[Place], say: Callable[[str], None]) -> tuple[Timed, ...] | None:
    """What an earlier run measured in just these places; None where nothing is known, or it is damaged (then said)."""
    if not path.exists():
        return None
    try:
        found = Source(path, StorageError, "steps are timed again").read_json(_Paces).timed
    except StorageError as error:
        say(str(error))
        return None
    wanted = [(place.memory_format, place.precision) for place in places]
    return found if [(one.memory_format, one.precision) for one in found] == wanted else None


def _said(training: Training, faults: Mapping[Place, str | None], native: bool) -> str:
    """One line about what was decided, and why."""
    place, speedup = training.place, training.speedup(training.place)
    if place == Place(place.device):
        text = f"training in {place}" + ("" if any(faults.values()) else ": nothing else is faster here")
    elif speedup >= 1:
        text = f"training in {place}: {speedup:.1f}x faster than plain here"
    else:
        text = f"training in {place}: {1 / speedup:.1f}x slower than plain float32 here"
    if place.precision == "bfloat16" and not native:
        text += "; this processor has no bfloat16 of its own, so it is emulated"
    failed = next((f"; in {where} the network fails ({why})" for where, why in faults.items() if why is not None), "")
    return text + failed


def _quality(network: nn.Module, problem: Problem, place: Place) -> float:
    """Of the network's answers to the validation images at the place's precision."""
    answers, targets = Teacher(network).known(problem.validation, place).cpu().float().numpy(), problem.validation.y
    metric = problem.task.metric
    return metric.quality(metric.value(answers, targets.numpy()), targets.numpy())
