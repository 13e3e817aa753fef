"""A network's files as it is, unpruned: at the precisions that are asked for, and proven like those of a run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgeprune.core.files import folder_beside, storing
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Progress
from edgeprune.core.runtimes import RUNTIMES
from edgeprune.core.session import Session
from edgeprune.core.store import RunFolder
from edgeprune.core.temporary import temporary_folder
from edgeprune.pipeline.backends import choose_backend, leaves_open, with_backend
from edgeprune.pipeline.config import RunConfig, to_plain
from edgeprune.pipeline.export import NotExported, export_all, save_sample
from edgeprune.pipeline.found import data_as_given
from edgeprune.pipeline.prepare import Prepared, prepare
from edgeprune.pipeline.quantizing import at_precisions, most_lost
from edgeprune.pipeline.records.exported import RECORD, Exports, Lost
from edgeprune.pipeline.rehearse import rehearse
from edgeprune.pipeline.result import artifact_of, before_of, data_of, device_of
from edgeprune.pipeline.validate import HostScores, NotValidated, Validated, as_at_the_end, validate


def export(config: RunConfig, out: Path, session: Session, progress: Progress) -> Exports:
    """Export the network of `config` as it is to `out`, a new folder, and prove every file on an open device.

    Each file answers the whole test set there and is raced beside the float32 file of its format. The folder is there
    whole or not at all. Raises UsageError and its children for what cannot be used or `out` is there already,
    ExportError, DeviceError.
    """
    started = time.monotonic()
    with folder_beside(out) as path, temporary_folder() as work:
        folder = RunFolder(path)
        dataset, backend = None, None
        if leaves_open(config):
            progress.stage("choose")
            dataset = data_as_given(config, progress)
            backend = choose_backend(config, dataset, session, progress)
            config = with_backend(config, backend)
        settings = config.measured
        progress.stage("prepare")
        prepared = prepare(
            config,
            RunFolder(work),
            progress,
            settings.runtime,
            lambda network, images: rehearse(
                config.exported, network, images, RunFolder(work), session, settings, progress, config.precisions
            ),
            dataset,
            prunes=False,
        )
        prepared = replace(prepared, backend=backend)
        progress.stage("export")
        network, measured = prepared.network, RUNTIMES[settings.runtime].format.name
        exported, missing = export_all(prepared, folder, network, None, progress, measured)
        most = most_lost(config.budget(), prepared.task.metric)
        lower, without = at_precisions(prepared, folder, network, None, exported, most, progress)
        exported, missing = [*exported, *lower], [*missing, *without]
        save_sample(prepared, folder)
        progress.stage("validate")
        final = as_at_the_end(settings, session.spec.unit, config.processes)
        scores, found = validate(prepared, network, network, exported, session, final, progress)
        record = _record(config, prepared, session, settings, scores, [*found, *missing], time.monotonic() - started)
        folder.write_json(RECORD, to_json(record))
        with storing(out.parent):
            path.rename(out)
    return record


def _record(
    config: RunConfig,
    prepared: Prepared,
    session: Session,
    settings: MeasureSettings,
    scores: HostScores,
    files: Sequence[Validated | NotValidated | NotExported],
    seconds: float,
) -> Exports:
    metric = prepared.task.metric
    most = most_lost(config.budget(), metric)
    good = [each for each in files if isinstance(each, Validated)]
    lost = []
    for each in good:
        before, after = (side.values[metric.name] for side in (each.baseline_device, each.device))
        value = round(metric.lost(before, after), 4)
        lost.append(Lost(path=each.exported.artifact.path.name, value=value, met=value <= most + 1e-9))
    # Its float32 file is always one of them: without it there is no export.
    able = [each for each, told in zip(good, lost, strict=True) if each.runtime == settings.runtime and told.met]
    best = max(able, key=lambda each: each.speedup.value)
    return Exports(
        config=to_plain(config),
        device=device_of(session.spec.name, session.spec, best),
        data=data_of(prepared),
        task=prepared.task.name,
        metric=metric.name,
        network=before_of(prepared, scores),
        artifacts=tuple(artifact_of(each) for each in files),
        lost=tuple(lost),
        lost_unit=metric.unit,
        max_drop=most,
        met=len(good) == len(files) and all(each.met for each in lost),
        recommended=best.exported.artifact.path.name,
        backends=prepared.backend.timed if prepared.backend else (),
        seconds=round(seconds, 2),
    )
