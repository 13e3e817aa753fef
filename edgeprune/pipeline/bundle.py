"""A file of a finished run as a bundle: what it says of itself, what was measured, and what it answers to a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.artifacts import describe, read_metadata, run_model
from edgeprune.artifacts.running import Array
from edgeprune.core.errors import DeviceError, StorageError, UsageError
from edgeprune.core.files import sha256_file
from edgeprune.core.inputs import INPUT, InputSpec, records
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.plain import from_json
from edgeprune.core.reading import Source
from edgeprune.core.runtimes import Format, Precision
from edgeprune.core.schema import EXPORT_SCHEMA, read_record
from edgeprune.core.session import Session
from edgeprune.core.store import RunFolder
from edgeprune.data.dataset import Preprocessing
from edgeprune.deploy.bundle import EXPECTED, SAMPLE, opened, read_bundle, write_bundle
from edgeprune.deploy.card import Figures, ModelCard, Port, Sample
from edgeprune.pipeline.records.exported import RECORD, Exports
from edgeprune.pipeline.records.files import Validated
from edgeprune.pipeline.records.result import Result
from edgeprune.pipeline.stored import finished
from edgeprune.profilers.client import Pushed
from edgeprune.profilers.ports import Feeding
from edgeprune.profilers.predict import predict_on_device

#: How far another runtime may be off, as a share of the largest output.
_OFF: dict[Precision, float] = {"fp32": 1e-4, "fp16": 0.02, "int8": 0.1, "int8-dynamic": 0.1}


def bundle_run(run: Path, out: Path, format: Format | None = None, precision: Precision | None = None) -> ModelCard:
    """Write the bundle of a finished run's file to `out`, a new folder or a .zip.

    The file is the one that was judged, or the validated one of `format` and `precision`. Raises UsageError where `run`
    has no such file or `out` is there already, StorageError for what is damaged.
    """
    folder = RunFolder(run)
    result = _made(folder)
    item = _chosen(result, format, precision, run)
    file, said = folder / item.path, read_metadata(folder / item.path)
    if sha256_file(file) != item.sha256:
        raise StorageError(f"{file} is damaged: its hash is not the one in result.json", "run again")
    if not (folder / SAMPLE).is_file():
        raise UsageError(f"{run} has no {SAMPLE}: an earlier version made it", "run again with this version")
    sample = _sample(folder / SAMPLE)
    inputs = _inputs(said, sample)
    expected = run_model(item.format, file, _given(inputs, sample)).ravel()
    artifact = describe(file)
    card = ModelCard(
        file=item.path,
        format=item.format,
        precision=item.precision,
        runtime=item.runtime,
        sha256=item.sha256,
        bytes=item.bytes,
        task=result.task,
        labels=tuple(said["classes"] or ()),
        inputs=inputs,
        outputs=tuple(Port(name=port.name, shape=port.shape[1:], dtype=port.dtype) for port in artifact.outputs),
        kept_inputs=None if said["kept_inputs"] is None else tuple(said["kept_inputs"]),
        widths=said["widths"] or {},
        run=run.resolve().name,
        model=said["model"],
        data=said["data"],
        figures=Figures(
            device=result.device.name,
            emulated=result.device.emulated,
            facts=result.device.facts,
            scores=item.device_scores,
            latency=item.latency.median,
            unit=item.latency.unit,
            speedup=(item.speedup.value, item.speedup.ci_low, item.speedup.ci_high),
            heap_bytes=item.peak_bytes,
            verdict=item.verdict,
        ),
        sample=Sample(tolerance=_OFF[item.precision] * max(1.0, float(np.abs(expected).max()))),
    )
    write_bundle(out, card, file, sample, expected)
    return card


def verify_bundle(path: Path, session: Session, remote: str = "") -> tuple[ModelCard, float]:
    """A bundle whose files are as they were written and whose model answers as expected there, and how far it is off.

    With `remote` the model that is run is the one that lies in that folder on the device; else it is sent there.
    Raises UsageError where it is no bundle, StorageError where a file is missing or changed, DeviceError where the
    model does not run on the device, or answers something else.
    """
    with opened(path) as folder:
        card = read_bundle(folder)
        with Source(folder / EXPECTED, StorageError, "write the bundle again").guarded():
            expected = np.load(folder / EXPECTED, allow_pickle=False)
        given = _given(card.inputs, _sample(folder / SAMPLE))
        lies = Pushed(f"{remote}/{card.file}", card.sha256, name=card.file) if remote else folder / card.file
        settings = MeasureSettings(runtime=card.runtime, threads=session.spec.threads or 1)
        # Several outputs are fetched one after the other: "" is a file's only one.
        names = [port.name for port in card.outputs] if len(card.outputs) > 1 else [""]
        found = np.concatenate([
            predict_on_device(session, settings, lies, given, feeding=Feeding(output=name)).ravel()
            for name in names
        ])  # fmt: skip
    off = float(np.abs(found - expected).max()) if found.shape == expected.shape else float("nan")
    if not off <= card.sample.tolerance:
        raise DeviceError(
            f"{card.file} answers its sample wrongly on {session.spec.name}: off by {off:.2g}, expected at most "
            f"{card.sample.tolerance:.2g}",
            f"try another release of {card.runtime} there",
            retryable=False,
        )
    return card, off


def _made(folder: RunFolder) -> Result | Exports:
    """What is told of the folder's files: by a run, or by an export."""
    if (folder / RECORD).is_file():
        return read_record(folder.source(RECORD), Exports, EXPORT_SCHEMA, "export again")
    found = finished(folder)
    if found is None or "artifacts" not in found:
        raise UsageError(
            f"{folder.path} holds no finished run of one network", "give the folder of a run, or of one bound of it"
        )
    return from_json(Result, found)


def _chosen(result: Result | Exports, format: Format | None, precision: Precision | None, run: Path) -> Validated:
    good = [each for each in result.artifacts if isinstance(each, Validated)]
    taken = result.budget.artifact if isinstance(result, Result) else result.recommended
    judged = next(each for each in good if each.path == taken)
    if format is None and precision is None:
        return judged
    wanted = (format or judged.format, precision or judged.precision)
    for each in good:
        if (each.format, each.precision) == wanted:
            return each
    there = ", ".join(f"--format {each.format} --precision {each.precision}" for each in good)
    raise UsageError(f"{run} has no validated {' '.join(reversed(wanted))} file", f"it has {there}")


def _sample(path: Path) -> dict[str, Array]:
    with Source(path, StorageError, "run again").guarded(), np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _inputs(said: dict[str, Any], sample: dict[str, Array]) -> tuple[Port, ...]:
    """The model's inputs; how each is scaled stands in the file."""
    sides, how = said["input_shape"], said["preprocessing"]
    named = [from_json(InputSpec, side) for side in sides if isinstance(side, dict)]
    specs = named or [InputSpec(INPUT, tuple(sides))]
    each = how["inputs"] if "inputs" in how else {specs[0].name: how}
    return tuple(
        Port(
            name=spec.name,
            shape=spec.shape,
            dtype=spec.dtype,
            preprocessing=None if each[spec.name] is None else from_json(Preprocessing, each[spec.name]),
            bytes=sample[spec.name].dtype == np.uint8,
        )
        for spec in specs
    )


def _given(inputs: tuple[Port, ...], sample: dict[str, Array]) -> Array:
    """The sample as the model takes it: (1, ...), or records (1,) of several inputs or of integers."""
    given = {}
    for port in inputs:
        x = sample[port.name][None]
        x = x if port.preprocessing is None else port.preprocessing.apply(x)
        given[port.name] = np.ascontiguousarray(x, port.dtype)
    first = next(iter(given.values()))
    return first if len(given) == 1 and first.dtype == np.float32 else records(given)
