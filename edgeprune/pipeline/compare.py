"""`edgeprune compare`: B beside A, two files raced now, or two stored profiles or runs as recorded. No torch."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from edgeprune.core.errors import UsageError
from edgeprune.core.kinds import Unit
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.plain import from_json, to_json
from edgeprune.core.progress import Progress
from edgeprune.core.runtimes import RUNTIMES
from edgeprune.core.session import Session
from edgeprune.core.store import RunFolder
from edgeprune.pipeline.records.files import Validated
from edgeprune.pipeline.records.result import Result
from edgeprune.pipeline.stored import finished, finished_front
from edgeprune.profilers import controlled, recorded
from edgeprune.profilers.compared import Compared, Control, RawRace, Side, answer_of, raw_race
from edgeprune.profilers.evidence import Ends, Evidence, Figure, decide, exactly
from edgeprune.profilers.gate import Direction, FigureName, FigureUnit, Gate
from edgeprune.profilers.inputs import GivenInputs
from edgeprune.profilers.recorded import (
    Record,
    Recorded,
    by_process,
    check_alike,
    control_of,
    facts_of,
    quotients,
)
from edgeprune.profilers.records import ProfiledOn
from edgeprune.tasks.metrics import metric_named

Kind = Literal["files", "profiles", "runs"]
_KINDS: Mapping[Kind, str] = {"files": "a model file", "profiles": "a stored profile", "runs": "a run"}
_ALIKE: Mapping[Kind, str] = {
    "profiles": "profile both alike, with --json > FILE.json, or race the files: edgeprune compare A.onnx B.onnx",
    "runs": "run both alike, or race their files: edgeprune compare RUN-A/model.onnx RUN-B/model.onnx",
}
#: Verdicts on a record that are worth a line.
_DOUBTFUL = ("noisy", "throttled", "busy")


def kind_of(a: Path, b: Path) -> Kind:
    """What both are. Raises UsageError where one is nothing that can be compared, or they are of two kinds."""
    kinds = [_kind(path) for path in (a, b)]
    if kinds[0] != kinds[1]:
        raise UsageError(
            f"{a} is {_KINDS[kinds[0]]} and {b} is {_KINDS[kinds[1]]}: they cannot be compared",
            "give two model files, two files of profile --json, or two run folders",
        )
    return kinds[0]


def compare_files(
    session: Session,
    files: tuple[Path, Path],
    settings: MeasureSettings,
    gate: Gate,
    given: list[GivenInputs],
    progress: Progress | None = None,
    *,
    longest_s: float | None = None,
) -> Compared:
    """Race B with A and a copy of A (see `race_controlled`). Raises UsageError, DeviceError."""
    raced = controlled.race_controlled(session, settings, files, given, gate.figures, progress, longest_s=longest_s)
    sides = [
        Side(str(file), str(file), sha256, size)
        for file, sha256, size in zip(files, raced.sha256, raced.bytes, strict=True)
    ]
    spec = session.spec
    return _compared(
        "raced",
        (sides[0], sides[1]),
        ProfiledOn(spec.name, spec.emulated, raced.facts),
        raced.unit,
        gate,
        controlled.evidence_of(raced),
        control=Control("copy", str(files[0]), raced.sha256[0]),
        race=raw_race(raced),
    )


def compare_records(a: Path, b: Path, kind: Kind, gate: Gate) -> Compared:
    """Two profiles or two runs as they were recorded. Raises UsageError where they were not measured alike."""
    if kind == "runs":
        return compare_runs(a, b, gate)
    ours, theirs = recorded.read_profile(a), recorded.read_profile(b)
    check_alike(ours, theirs, _ALIKE[kind])
    return _of_records("profiles", ours, theirs, gate, recorded.evidence_of(ours, theirs))


def compare_runs(a: Path, b: Path, gate: Gate) -> Compared:
    """Two finished runs, by the file that each was judged by. Raises UsageError where they were not measured alike."""
    results = [_result(path) for path in (a, b)]
    ours, theirs = (
        _of_run(path, result, quality="quality" in gate.figures) for path, result in zip((a, b), results, strict=True)
    )
    check_alike(ours, theirs, _ALIKE["runs"])
    told = recorded.evidence_of(ours, theirs) | {"quality": _quality(results[0], results[1])}
    metric = metric_named(results[0].metric)
    better: Direction = "higher" if metric.share else "lower"
    return _of_records("runs", ours, theirs, gate, told, metric.name, better)


def _kind(path: Path) -> Kind:
    if path.is_dir():
        return "runs"
    if not path.is_file():
        raise UsageError(f"{path} does not exist", "give a model file, a file of profile --json, or a run folder")
    if path.name == "result.json":
        return "runs"
    if path.suffix.lower() == ".json":
        return "profiles"
    if path.suffix.lower() in {suffix for row in RUNTIMES.values() for suffix in row.suffixes}:
        return "files"
    raise UsageError(
        f"expected a model file, a file of profile --json or a run folder, got {path}",
        "give .onnx or .tflite files, .json files, or folders",
    )


def _of_records(
    kind: Literal["profiles", "runs"],
    a: Record,
    b: Record,
    gate: Gate,
    told: Mapping[FigureName, Evidence],
    metric: str | None = None,
    better: Direction = "higher",
) -> Compared:
    shared = control_of(a, b)
    same = a.subject.sha256 == b.subject.sha256
    notes = [f"{each.given} was measured {each.verdict}: {each.advice}" for each in (a, b) if each.verdict in _DOUBTFUL]
    if shared is None:
        notes.append(
            "no file was measured in both sessions, so nothing tells what these differ by themselves: "
            + ("profile both with --against the same file, or race the files" if kind == "profiles" else _ALIKE["runs"])
        )
    return _compared(
        kind,
        (_side(a), _side(b)),
        ProfiledOn(a.device, a.emulated, a.facts),
        a.subject.unit,
        gate,
        told,
        control=shared and Control("same" if same else "shared", shared[0].file, shared[0].sha256),
        notes=notes,
        metric=metric,
        better=better,
    )


def _compared(
    kind: Literal["raced", "profiles", "runs"],
    sides: tuple[Side, Side],
    device: ProfiledOn,
    unit: Unit,
    gate: Gate,
    told: Mapping[FigureName, Evidence],
    *,
    control: Control | None,
    notes: list[str] | None = None,
    metric: str | None = None,
    better: Direction = "higher",
    race: RawRace | None = None,
) -> Compared:
    figures: tuple[Figure, ...] = tuple(
        decide(name, told.get(name), threshold, better if name == "quality" else "lower")
        for name, threshold in gate.figures.items()
    )
    same = sides[0].sha256 == sides[1].sha256
    return Compared(
        kind=kind,
        a=sides[0],
        b=sides[1],
        device=device,
        unit=unit,
        metric=metric,
        gate=gate,
        control=control,
        figures=figures,
        answer=answer_of(figures),
        regressions=tuple(each.figure for each in figures if each.regression),
        notes=(*(notes or ()), *(("A and B are the same file: what differs is noise",) if same and race else ())),
        race=race,
    )


def _side(record: Record) -> Side:
    return Side(record.given, record.subject.file, record.subject.sha256, record.subject.bytes)


def _result(path: Path) -> Result:
    """The result of a finished run of one network. Raises UsageError, StorageError."""
    folder = RunFolder(path.parent if path.name == "result.json" else path)
    if not (folder / "result.json").is_file():
        raise UsageError(f"{path} is no run: it holds no result.json", "give the folder of a run, as in runs/NAME")
    if finished_front(folder) is not None:
        raise UsageError(f"{path} holds a run with several bounds", f"give the folder of one of them, below {path}")
    found = finished(folder)
    if found is None:
        raise UsageError(f"the run {path} did not get to its end", f"type: edgeprune run --resume {folder.path.name}")
    return from_json(Result, found)


def _judged(result: Result) -> Validated:
    return next(
        each for each in result.artifacts if isinstance(each, Validated) and each.path == result.budget.artifact
    )


def _of_run(path: Path, result: Result, *, quality: bool) -> Record:
    file = _judged(result)
    data = {
        "the task": result.task,
        "the metric": result.metric,
        "the data's fingerprint": result.data.fingerprint,
        "the number of test examples": result.data.test,
    }
    subject = Recorded(
        file=file.path,
        sha256=file.sha256,
        bytes=file.bytes,
        unit=file.latency.unit,
        latency=_medians(file.latency.samples, file.process),
        p90=(),
        load_s=file.load_s,
        memory=(file.peak_bytes,),
        raced_with=file.baseline_sha256,
        quotients=quotients(file.latency.samples, file.baseline_latency.samples, file.process),
    )
    baseline = Recorded(
        file=file.baseline_path,
        sha256=file.baseline_sha256,
        bytes=file.baseline_bytes,
        unit=file.baseline_latency.unit,
        latency=_medians(file.baseline_latency.samples, file.process),
        p90=(),
        load_s=None,
        memory=(file.baseline_peak_bytes,),
    )
    return Record(
        given=str(path),
        subject=subject,
        others={baseline.sha256: baseline},
        device=result.device.name,
        emulated=result.device.emulated,
        facts=result.device.facts,
        conditions={
            "the device": result.device.name,
            "the unit": file.latency.unit,
            "the runtime": file.runtime,
            "threads": file.settings.threads,
            **facts_of(result.device.facts),
            "the input": json.dumps(to_json(result.data)["input_shape"]),
            "--cool-below": file.settings.cool_below_c,
            "how memory was read": file.memory_method,
            **(data if quality else {}),
        },
        verdict=file.verdict,
        advice=file.advice,
    )


def _medians(samples: tuple[float, ...], process: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(statistics.median(each) for each in by_process(samples, process))


def _quality(a: Result, b: Result) -> Evidence:
    """Test scores by the run's metric, through the files on the device.

    The ends of the difference are Newcombe's (Statistics in Medicine 17, 1998, method 10) of the scores' own intervals,
    as of independent examples: answers to the same ones, example by example, were not kept. One file has one score.
    """
    values, intervals = [], []
    for result in (a, b):
        file = _judged(result)
        values.append(file.device_scores[result.metric])
        intervals.append(file.device_interval or result.compressed.interval)
    unit: FigureUnit = "share" if metric_named(a.metric).share else "metric"
    change = values[1] - values[0]
    if _judged(a).sha256 == _judged(b).sha256:
        return exactly(unit, values[0], values[1])
    (a_low, a_high), (b_low, b_high) = intervals
    ends = Ends(
        change - math.hypot(values[1] - b_low, a_high - values[0]),
        change + math.hypot(b_high - values[1], values[0] - a_low),
    )
    return Evidence(unit, values[0], values[1], change, ends)
