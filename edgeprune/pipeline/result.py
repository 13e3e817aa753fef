"""`result.json`: what came out, in one versioned file (documented in docs/interfaces.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from edgeprune.core.measurement import Measurement
from edgeprune.core.session import DeviceSpec
from edgeprune.data.dataset import EachInput
from edgeprune.data.preprocessing import describe
from edgeprune.pipeline.config import RunConfig, to_plain
from edgeprune.pipeline.export import Exported, NotExported
from edgeprune.pipeline.finetune import Tuned
from edgeprune.pipeline.judging import conclude, judge
from edgeprune.pipeline.outcome import drawbacks
from edgeprune.pipeline.placing import Training
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.records import files as filed
from edgeprune.pipeline.records import network as told
from edgeprune.pipeline.records.result import (
    Device,
    Header,
    Judged,
    Result,
    Status,
    TimedStep,
    Trained,
)
from edgeprune.pipeline.scaling import Scaling
from edgeprune.pipeline.search import Searched
from edgeprune.pipeline.staying import staying
from edgeprune.pipeline.validate import HostScores, NotValidated, Validated
from edgeprune.pruning.cost import count_macs, count_parameters
from edgeprune.report.checks import ANSWERS, budget_lines
from edgeprune.report.table import drawback_lines, faster, precisions_table, summary_table
from edgeprune.report.table import judged as judged_file
from edgeprune.report.text import as_html, as_text
from edgeprune.tasks.metrics import metric_named

EXIT_CODES: Mapping[Status, int] = {"done": 0, "budget-not-met": 3, "worse": 3, "impossible": 3, "interrupted": 130}


@dataclass(frozen=True, slots=True, repr=False)
class RunResult:
    """A finished run: its folder and what `result.json` says."""

    folder: Path
    result: Mapping[str, Any]

    @property
    def met(self) -> bool:
        """Whether every bound is known to be met by the file that was validated; one that is open is not."""
        return bool(self.result["budget"]["met"])

    @property
    def recommended(self) -> bool:
        """Whether no bound is missed by the file, and it is faster and smaller than the unpruned, in no more memory."""
        return bool(self.result["budget"]["recommended"])

    @property
    def exit_code(self) -> int:
        """0 unless a bound is missed, or kept by a file that is slower and larger than the unpruned one: 3."""
        return EXIT_CODES[self.result["status"]]

    def summary(self) -> str:
        """A line a bound, and what speaks against the file."""
        return "\n".join(self._lines())

    def table(self) -> str:
        """What the command shows at the end: before and after, and every file where there are several precisions."""
        return as_text(self._tables())

    def _tables(self) -> list[Table]:
        precisions = precisions_table(self.result)
        return [summary_table(self.result), *([] if precisions is None else [precisions])]

    def _lines(self) -> list[str]:
        return [*budget_lines(self.result), *drawback_lines(self.result)]

    def __repr__(self) -> str:
        item, metric = judged_file(self.result), metric_named(self.result["metric"])
        unit, speed = item["latency"]["unit"], item["speedup"]
        faster_by = faster(speed["value"], speed["ci_low"], speed["ci_high"], unit)
        quality = metric.show(item["device_scores"][metric.name])
        answer = ANSWERS[self.result["budget"]["answer"]]
        return f"RunResult({str(self.folder)!r}: {answer}, {item['path']} {faster_by}, {metric.title} {quality})"

    def _repr_html_(self) -> str:
        return as_html(self._tables(), self._lines())


def header(config: RunConfig, status: Status, stage: str) -> Header:
    """The part every result.json has, however the run ended."""
    return Header(status=status, stage=stage, config=to_plain(config))


def assemble(
    config: RunConfig,
    prepared: Prepared,
    searched: Searched,
    tuned: Tuned,
    scores: HostScores,
    files: list[Validated | NotValidated | NotExported],
    spec: DeviceSpec,
    seconds: float,
) -> Result:
    """The whole result of a run that got to its end."""
    after = _after(prepared, tuned, scores)
    primary, checks = judge(config, prepared, searched.budget, scores, after, files)
    status, answer, recommended = conclude(checks, drawbacks(primary))
    return Result(
        status=status,
        stage="done",
        config=to_plain(config),
        device=device_of(config.device, spec, primary),
        data=data_of(prepared),
        task=prepared.task.name,
        metric=prepared.task.metric.name,
        baseline=before_of(prepared, scores),
        compressed=after,
        classes=_classes(prepared, scores),
        artifacts=tuple(artifact_of(item) for item in files),
        search=replace(searched.summary, best_trial=tuned.trial.index),
        possible=searched.possible,
        settled=prepared.settled.told(),
        training=_trained(prepared.training),
        seconds=round(seconds, 2),
        budget=Judged(
            asked=config.budget(),
            artifact=primary.exported.artifact.path.name,
            checks=checks,
            answer=answer,
            met=answer == "met",
            recommended=recommended,
        ),
        backends=prepared.backend.timed if prepared.backend else (),
    )


def device_of(name: str, spec: DeviceSpec, judged: Validated) -> Device:
    """Where the judged file was measured."""
    return Device(
        name=name,
        kind=spec.kind,
        # Also an emulator that is reached like a board: the probe finds it out.
        emulated=spec.emulated or bool(judged.measurement.facts.get("emulated")),
        unit=spec.unit,
        facts=dict(judged.measurement.facts),
    )


def data_of(prepared: Prepared) -> told.Data:
    """The data set, in numbers."""
    dataset = prepared.dataset
    return told.Data(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        train=len(dataset.train),
        validation=len(dataset.validation),
        test=len(dataset.test),
        input_shape=dataset.input_shape,
        preprocessing=_preprocessing(prepared.scaling),
    )


def _preprocessing(scaling: Scaling) -> told.Scaled | told.ScaledInputs:
    """How inputs are scaled, in numbers and in words, and what was tried."""
    tried = tuple(told.TriedScaling(tried.name, tried.score) for tried in scaling.tried)
    formula = describe(scaling.preprocessing)
    if isinstance(scaling.preprocessing, EachInput):
        inputs = dict(scaling.preprocessing.inputs)
        return told.ScaledInputs(inputs=inputs, formula=formula, source=scaling.source, tried=tried)
    return told.Scaled(
        scale=scaling.preprocessing.scale,
        mean=scaling.preprocessing.mean,
        std=scaling.preprocessing.std,
        formula=formula,
        source=scaling.source,
        tried=tried,
    )


def before_of(prepared: Prepared, scores: HostScores) -> told.AnyBefore:
    """The unpruned network."""
    structure, original = prepared.structure, prepared.network
    return told.ORIGINS[prepared.baseline["source"]](
        scores=dict(scores.baseline.values),
        interval=scores.baseline.interval,
        validation_score=prepared.yardstick.value(prepared.validation_accuracy),
        neurons=structure.neurons(original),
        parameters=count_parameters(original),
        macs=count_macs(original, structure.shape),
        uncounted=dict(structure.uncounted),
        **prepared.baseline,
    )


def _after(prepared: Prepared, tuned: Tuned, scores: HostScores) -> told.After:
    structure, network, metric = prepared.structure, tuned.fit.network, prepared.task.metric
    before, after = scores.baseline.values[metric.name], scores.compressed.values[metric.name]
    left = structure.neurons(network)
    return told.After(
        scores_before_finetune=dict(scores.before_finetune.values),
        scores=dict(scores.compressed.values),
        interval=scores.compressed.interval,
        validation_score=prepared.yardstick.value(tuned.fit.accuracy),
        lost=round(metric.lost(before, after), 4),
        lost_unit=metric.unit,
        ncr=structure.neurons(prepared.network) / left,
        neurons=left,
        parameters=count_parameters(network),
        macs=count_macs(network, structure.shape),
        finetune_epochs=round(tuned.fit.epochs, 2),
        epoch_taken=prepared.taken,
        layers=tuple(
            told.Layer(name=g.name, kind=g.kind, channels=g.channels, kept=tuned.plan.widths[g.name])
            for g in structure.groups
        ),
        frozen=staying(structure),
    )


def _classes(prepared: Prepared, scores: HostScores) -> tuple[told.Recall, ...]:
    """Recall of every class on the test set, before and after; null where no test image is of it. Else nothing."""
    if not scores.compressed.recall:
        return ()
    counts = np.bincount(prepared.dataset.test.y, minlength=len(prepared.dataset.classes))
    before, after = scores.baseline.recall, scores.compressed.recall
    return tuple(
        told.Recall(name=name, images=int(count), baseline_recall=old, recall=new)
        for name, count, old, new in zip(prepared.dataset.classes, counts, before, after, strict=True)
    )


def _trained(training: Training) -> Trained:
    place = training.place
    timed = tuple(TimedStep(one.memory_format, one.precision, one.seconds, one.speedup) for one in training.timed)
    return Trained(device=place.device, memory_format=place.memory_format, precision=place.precision, timed=timed)


def artifact_of(item: Validated | NotValidated | NotExported) -> filed.Artifact:
    """A file that ships, or why it does not."""
    if isinstance(item, NotExported):
        return filed.NotExported(
            format=item.format, exported=False, precision=item.precision, path=None, validated=False, why_not=item.why
        )
    if isinstance(item, NotValidated):
        return filed.NotValidated(**_exported(item.exported), runtime=item.runtime, validated=False, why_not=item.why)
    measured = item.measurement
    return filed.Validated(
        **_exported(item.exported),
        runtime=item.runtime,
        validated=True,
        device_scores=dict(item.device.values),
        baseline_device_scores=dict(item.baseline_device.values),
        device_interval=None if item.exported.artifact.precision == "fp32" else item.device.interval,
        agreement=item.agreement,
        latency=_latency(measured.samples, measured.median, measured),
        baseline_latency=_latency(measured.against, measured.against_median, measured),
        process=measured.process,
        speedup=filed.Speedup(
            value=item.speedup.value,
            ci_low=item.speedup.low,
            ci_high=item.speedup.high,
            processes=item.speedup.processes,
            left_out=item.speedup.left_out,
        ),
        load_s=measured.load_s,
        first_s=measured.first_s,
        peak_bytes=measured.peak_bytes,
        baseline_peak_bytes=measured.against_peak_bytes,
        memory_method=measured.memory_method,
        settings=measured.settings,
        states=measured.states,
        verdict=measured.verdict,
        advice=measured.advice,
        rejected=measured.rejected,
        drawbacks=drawbacks(item),
        operators=item.operators,
        baseline_operators=item.baseline_operators,
        operators_why=item.operators_why,
    )


def _exported(item: Exported) -> dict[str, Any]:
    """Of a file what is known without a device."""
    artifact, baseline = item.artifact, item.baseline
    return {
        "format": artifact.format,
        "exported": True,
        "precision": artifact.precision,
        "path": artifact.path.name,
        "sha256": artifact.sha256,
        "bytes": artifact.bytes,
        "baseline_path": baseline.path.name,
        "baseline_sha256": baseline.sha256,
        "baseline_bytes": baseline.bytes,
        "parity_max_abs": item.parity.max_abs,
        "eight_bits": item.eight_bits,
    }


def _latency(samples: tuple[float, ...], median: float, measured: Measurement) -> filed.Latency:
    return filed.Latency(median, samples, measured.unit)
