"""`--runtime auto`, `--threads auto`: what runs the unpruned network fastest on the device is what is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from edgeprune.core.errors import DeviceError, EdgepruneError, ExportError, RuntimeMissing
from edgeprune.core.progress import Progress, Silent
from edgeprune.core.runtimes import AUTO, Precision, Runtime, RuntimeName, runtime_for
from edgeprune.core.session import Session
from edgeprune.core.store import BACKENDS, RunFolder
from edgeprune.core.temporary import temporary_folder
from edgeprune.core.units import format_cost
from edgeprune.data.dataset import Dataset
from edgeprune.devices.channel import ChannelError, is_away
from edgeprune.exporters import EXPORTERS, export_at
from edgeprune.models.inputs import Inputs, to_numpy
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.found import find
from edgeprune.pipeline.records.backends import Choice, ChosenBackend, TimedBackend
from edgeprune.pipeline.rehearse import check_file
from edgeprune.profilers.alternatives import Alternative, cores_of, time_alternatives
from edgeprune.training.batches import Batches

#: Within this factor of the fastest, fewer threads are the better choice: they leave cores to the application.
_SAME = 1.05
#: Examples that int8 ranges are taken from: only times matter here.
_EXAMPLES = 16


def leaves_open(config: RunConfig) -> bool:
    """Whether runtime or threads are to be chosen."""
    return AUTO in (config.runtime, config.threads)


def chosen_backend(folder: RunFolder) -> ChosenBackend | None:
    """What was chosen for a run; None where nothing was to choose, or is not yet. Raises StorageError."""
    return folder.read_json(BACKENDS, ChosenBackend) if (folder / BACKENDS).exists() else None


def as_chosen(folder: RunFolder, config: RunConfig) -> RunConfig:
    """The settings of a run, with what was chosen for it in the place of what is left open."""
    chosen = chosen_backend(folder) if leaves_open(config) else None
    return config if chosen is None else with_backend(config, chosen)


def with_backend(config: RunConfig, chosen: ChosenBackend) -> RunConfig:
    """The settings, with what was chosen in the place of what is left open; what is given stays."""
    return replace(
        config,
        runtime=chosen.runtime if config.runtime == AUTO else config.runtime,
        threads=chosen.threads if config.threads == AUTO else config.threads,
    )


def choose_backend(config: RunConfig, dataset: Dataset, session: Session, progress: Progress) -> ChosenBackend:
    """Time the network of `config`, as it comes, by every runtime and number of threads that is open, and choose.

    Times hang on the network's operations and not on its weights, so nothing is trained before. What is compared is the
    precision that candidates are measured at, or of `--precision auto` the quickest. Of those within 5 % of the fastest
    the one with the fewest threads is taken, then the faster. Threads are 1, 2, 4, ... up to the cores; an emulated
    processor counts instructions, and gets one.

    Raises UsageError and its children for what cannot be used; ExportError, DeviceError where nothing is left.
    """
    rows = [row for row in map(runtime_for, config.exported) if config.runtime in (AUTO, row.name)]
    known = find(config, Silent(), rows[0].name, dataset, prunes=False)
    network = known.network.eval()
    # As the network takes them, which need not be as they came.
    inputs = Batches(known.dataset.validation, known.dataset.preprocessing).inputs(slice(0, _EXAMPLES))
    precisions = config.precisions if config.precision == AUTO else config.precisions[:1]
    timed: list[TimedBackend] = []
    errors: list[EdgepruneError] = []
    ways: list[tuple[Precision, Alternative]] = []

    def missing(error: EdgepruneError, runtime: RuntimeName, precision: Precision, threads: int | None = None) -> None:
        errors.append(error)
        timed.append(TimedBackend(runtime=runtime, threads=threads, precision=precision, why=str(error)))

    with temporary_folder() as folder:
        for row in rows:
            try:
                threads = _threads(config.threads, session, row.name)
            except (ChannelError, RuntimeMissing) as error:
                if is_away(error):
                    raise
                missing(error, row.name, precisions[0])
                continue
            for precision, file in _files(network, inputs, row, precisions, folder):
                if isinstance(file, ExportError):
                    missing(file, row.name, precision)
                else:
                    ways += [(precision, Alternative(file, row.name, count)) for count in threads]
        found = time_alternatives(session, [one for _, one in ways], progress)
    for (precision, one), latency in zip(ways, found, strict=True):
        if isinstance(latency, DeviceError):
            missing(latency, one.runtime, precision, one.threads)
            continue
        each = TimedBackend(runtime=one.runtime, threads=one.threads, precision=precision, unit=session.spec.unit)
        timed.append(replace(each, latency=latency.value, interval=(latency.low, latency.high)))
    for each in timed:
        progress.say(_line(each))
    best = fastest(timed)
    if best is None or best.threads is None:
        raise errors[0]
    progress.say(f"measured with --runtime {best.runtime} --threads {best.threads}")
    both: tuple[Choice, ...] = ("runtime", "threads")
    asked = [name for name in both if getattr(config, name) == AUTO]
    return ChosenBackend(runtime=best.runtime, threads=best.threads, chosen=tuple(asked), timed=tuple(timed))


def _threads(asked: int | Literal["auto"] | None, session: Session, runtime: RuntimeName) -> list[int]:
    if asked != "auto":
        return [asked or 1]
    cores = 1 if session.spec.unit == "instructions" else cores_of(session, runtime)
    return sorted({*(count for count in (1, 2, 4, 8, 16) if count < cores), cores})


def _files(
    network: nn.Module, inputs: Inputs, row: Runtime, precisions: Sequence[Precision], folder: Path
) -> Iterator[tuple[Precision, Path | ExportError]]:
    """The network's file of each precision, or why there is none."""
    # Exporters draw random numbers; the training that follows must not depend on what is tried.
    with torch.random.fork_rng():
        try:
            whole = EXPORTERS[row.format.name].export(network, inputs[:2], folder / f"fp32{row.format.suffix}", {})
            check_file(network, whole, to_numpy(inputs))
        except ExportError as error:
            yield "fp32", error
            return
        for precision in precisions:
            if precision == "fp32":
                yield precision, whole.path
                continue
            path = folder / f"{precision}{row.format.suffix}"
            try:
                yield precision, export_at(whole, path, precision, to_numpy(inputs), {}).path
            except ExportError as error:
                yield precision, error


def fastest(timed: Sequence[TimedBackend]) -> TimedBackend | None:
    """The one to measure with; None where none was timed."""
    able = [(each.latency, each) for each in timed if each.latency is not None]
    least = min((latency for latency, _ in able), default=0.0)
    close = [(each.threads or 1, latency, each) for latency, each in able if latency <= _SAME * least]
    return min(close, key=lambda one: one[:2])[2] if close else None


def _line(each: TimedBackend) -> str:
    name = f"{each.runtime}, {each.precision}" + (f", {each.threads} thread(s)" if each.threads else "")
    if each.latency is None or each.interval is None:
        return f"{name}: left out: {each.why}"
    low, high = (format_cost(end, each.unit) for end in each.interval)
    return f"{name}: {format_cost(each.latency, each.unit)} ({low} to {high})"
