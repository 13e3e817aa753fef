"""Before anything long: every format is exported once and run on the device, with the network as it is untrained.

What can be exported, and which file a runtime opens, depends on the network's operations and not on its weights. A
format that fails here would fail after hours of training and search as well.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.core.artifact import Artifact
from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError, EdgepruneError, ExportError, ModelError
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.progress import Progress
from edgeprune.core.runtimes import FORMATS, RUNTIMES, Format, Precision, runtime_for
from edgeprune.core.session import Session
from edgeprune.core.store import CANDIDATES, RunFolder
from edgeprune.devices.channel import ChannelError
from edgeprune.exporters import EXPORTERS, Parity, check_parity, export_at
from edgeprune.models.inputs import Inputs, ask, outputs_of, tensors_of, to_numpy
from edgeprune.profilers.client import ProbeClient, in_fresh_process, push_patiently
from edgeprune.profilers.versions import needed
from edgeprune.training.batches import Batches

#: How formats are written for people.
#: Largest difference from PyTorch that an exported file may show, relative to the outputs' scale.
PARITY = 1e-4
_IMAGES, _TIMEOUT_S = 16, 300.0


@dataclass(frozen=True, slots=True)
class Shipped:
    """The formats that a run exports, and why it does not export the others that were asked for."""

    formats: tuple[Format, ...]
    left_out: Mapping[Format, str] = field(default_factory=dict)
    #: What files are wanted at; the first is what candidates are measured at. Files of fp32 ship in any case.
    precisions: tuple[Precision, ...] = ("fp32",)
    #: Whether the search chooses one of them, and no other ships beside fp32.
    choose: bool = False
    #: Why a format has no file of a precision.
    without: Mapping[tuple[Format, Precision], str] = field(default_factory=dict)

    def chosen(self, precision: Precision) -> Shipped:
        """What ships once the search has chosen a precision."""
        return replace(self, precisions=(precision,)) if self.choose else self

    @property
    def lower(self) -> tuple[Precision, ...]:
        """Those that files are made at beside fp32."""
        return tuple(one for one in self.precisions if one != "fp32")


def rehearse(
    exported: Sequence[Format],
    network: nn.Module,
    validation: Batches,
    folder: RunFolder,
    session: Session,
    settings: MeasureSettings,
    progress: Progress,
    precisions: tuple[Precision, ...] = ("fp32",),
    *,
    choose: bool = False,
) -> Shipped:
    """Export `network` in every format of `exported`, compare the files with PyTorch, open and run them on the device.

    So are files of its other `precisions`, but for the comparison; one that cannot be made, or is not opened, is left
    out, and that is said, unless it is the first of them, which is searched at: ModelError.

    A format that is not measured while searching may fail: it is left out where it cannot be exported, and ships
    without being validated where the device cannot run it; either is said. Raises ModelError where the measured format
    cannot be exported, DeviceError where the device does not run it, with what to type; and where the device is gone.
    """
    measured = RUNTIMES[settings.runtime].format.name
    check_training(network, validation.inputs(slice(0, 2)))
    faults: dict[Format, EdgepruneError] = {}
    without: dict[tuple[Format, Precision], str] = {}
    work = folder / CANDIDATES
    work.mkdir(exist_ok=True)
    try:
        # Exporters draw random numbers; the training that follows must not depend on which formats there are.
        with torch.random.fork_rng(), progress.bar("trying every format first", len(exported)) as bar:
            for kind in exported:
                try:
                    alike = replace(settings, runtime=runtime_for(kind).name)
                    artifact = _try(kind, network, validation, work, session, alike)
                    for precision in precisions:
                        if precision == "fp32":
                            continue
                        if why := _try_at(precision, artifact, validation, session, alike):
                            without[kind, precision] = why
                except ExportError as error:
                    faults[kind] = error
                except DeviceError as error:
                    if _gone(error):
                        raise
                    faults[kind] = error
                bar.advance(1, FORMATS[kind].title)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    titles = {kind: FORMATS[kind].title for kind in exported}
    good = [kind for kind in exported if kind not in faults]
    if measured in faults:
        raise _refusal(measured, faults, good, session)
    if (measured, precisions[0]) in without:
        why = without[measured, precisions[0]]
        raise ModelError(
            f"no {precisions[0]} {titles[measured]} file: {why}", "give another --precision, or fp32 with it"
        )
    left_out = {kind: str(error) for kind, error in faults.items() if isinstance(error, ExportError)}
    for kind, why in left_out.items():
        progress.say(f"{why}; the run goes on with {titles[measured]} (--formats {measured} leaves {titles[kind]} out)")
    for kind, fault in faults.items():
        if kind not in left_out:
            progress.say(f"{titles[kind]} is exported but not validated: {fault} (--formats {measured} leaves it out)")
    # Of those that the search may choose it tells what each is worth.
    for (kind, precision), why in () if choose else without.items():
        progress.say(f"{titles[kind]} ships without {precision}: {why}")
    tried = ", ".join(titles[kind] for kind in good)
    progress.say(f"{tried}: the untrained network is exported, equals PyTorch and runs on {session.spec.name}")
    shipped = tuple(kind for kind in exported if kind not in left_out)
    return Shipped(shipped, left_out, precisions, choose, without)


def check_training(network: nn.Module, inputs: Inputs) -> None:
    """Raises ModelError unless the network answers `inputs` (N, ...) in training mode as it does in evaluation mode."""
    trial = deepcopy(network)
    with torch.random.fork_rng(), torch.no_grad():
        wanted = tuple(ask(trial.eval(), inputs).shape)
        several = len(outputs_of(trial(*tensors_of(inputs)))) > 1
        answer = trial.train()(*tensors_of(inputs))
        if several and len(outputs_of(answer)) > 1:
            answer = ask(trial, inputs)
    if not isinstance(answer, Tensor) or tuple(answer.shape) != wanted:
        raise ModelError(
            f"while training, the model gives {_kind(answer)}; expected one tensor of shape {wanted}, as in evaluation",
            "let forward return the logits alone, or give a FILE.py:FUNCTION that wraps the model so",
        )


def check_file(source: nn.Module, artifact: Any, inputs: Any) -> Parity:
    """Parity of a file with its network on `inputs` (N, ...). Raises ExportError where they are not the same."""
    parity = check_parity(source, artifact, inputs)
    if not parity.max_abs <= PARITY * max(1.0, parity.scale):
        raise ExportError(f"{artifact.path.name} differs from PyTorch by {parity.max_abs:.1e} on real inputs")
    return parity


def _try(
    kind: Format, network: nn.Module, validation: Batches, work: Path, session: Session, settings: MeasureSettings
) -> Artifact:
    inputs = validation.inputs(slice(0, _IMAGES))
    artifact = EXPORTERS[kind].export(network, inputs[:2], work / f"untrained.{kind}", {})
    check_file(network.eval(), artifact, to_numpy(inputs))
    _open(artifact.path, session, settings)
    return artifact


def _try_at(
    precision: Precision, source: Artifact, validation: Batches, session: Session, settings: MeasureSettings
) -> str:
    """Why a file cannot be had at this precision, or is not opened there; "" where it can."""
    examples = to_numpy(validation.inputs(slice(0, _IMAGES)))
    try:
        path = source.path.with_stem(f"{source.path.stem}-{precision}")
        _open(export_at(source, path, precision, examples, {}).path, session, settings)
    except ExportError as error:
        return str(error)
    except DeviceError as error:
        if _gone(error):
            raise
        return str(error)
    return ""


def _open(path: Path, session: Session, settings: MeasureSettings) -> None:
    pushed = push_patiently(session, path)

    def load(client: ProbeClient, deadline: Deadline) -> None:
        client.hello([], deadline)
        client.load("untrained", pushed, deadline)

    try:
        in_fresh_process(session, settings, load, timeout_s=_TIMEOUT_S)
    finally:
        with suppress(DeviceError):
            session.remove(pushed.path)


def _gone(error: DeviceError) -> bool:
    return error.kind in ("lost", "busy") if isinstance(error, ChannelError) else error.retryable


def _refusal(
    measured: Format, faults: Mapping[Format, EdgepruneError], good: list[Format], session: Session
) -> EdgepruneError:
    """Why the search cannot even begin, and what to type instead."""
    error = faults[measured]
    newer = needed(error.message)
    hint = f"install {newer} there" if newer else error.hint
    way_out = [hint] if hint else []
    way_out += [f"type --runtime {runtime_for(kind).name}, for which {FORMATS[kind].title} works" for kind in good]
    if isinstance(error, DeviceError):
        message = f"{session.spec.name} does not run this network's {FORMATS[measured].title} file: {error.message}"
        return DeviceError(message, ", or ".join(way_out), retryable=False)
    others = "".join(f"; {faults[kind].message}" for kind in faults if kind != measured)
    return ModelError(f"{error.message}{others}", ", or ".join(way_out) or "let forward do without that operation")


def _kind(answer: object) -> str:
    if isinstance(answer, Tensor):
        return f"a tensor of shape {tuple(answer.shape)}"
    size = f" of {len(answer)}" if isinstance(answer, tuple | list | dict) else ""
    return f"a {type(answer).__name__}{size}"
