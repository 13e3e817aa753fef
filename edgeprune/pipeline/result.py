"""`result.json`: what came out, in one versioned file (documented in docs/interfaces.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeprune.core.budget import Answer, Budget
from edgeprune.core.measurement import Measurement
from edgeprune.core.plain import to_json
from edgeprune.core.schema import RESULT_SCHEMA
from edgeprune.core.session import DeviceSpec
from edgeprune.core.version import VERSION
from edgeprune.data.preprocessing import describe
from edgeprune.pipeline.config import RunConfig, to_plain
from edgeprune.pipeline.export import NotExported
from edgeprune.pipeline.finetune import Tuned
from edgeprune.pipeline.outcome import Drawback, drawbacks, is_worse
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.scaling import Scaling
from edgeprune.pipeline.search import Searched
from edgeprune.pipeline.staying import staying
from edgeprune.pipeline.validate import HostScores, NotValidated, Validated
from edgeprune.profilers.statistics import cost_interval
from edgeprune.pruning.cost import count_macs, count_parameters
from edgeprune.tasks.metrics import Yardstick

Status = Literal["running", "done", "budget-not-met", "worse", "impossible", "failed", "interrupted"]
EXIT_CODES: Mapping[Status, int] = {"done": 0, "budget-not-met": 3, "worse": 3, "impossible": 3, "interrupted": 130}


@dataclass(frozen=True, slots=True)
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


def header(config: RunConfig, status: Status, stage: str) -> dict[str, Any]:
    """The part every result.json has, however the run ended."""
    return {
        "schema": RESULT_SCHEMA,
        "edgeprune": VERSION,
        "status": status,
        "stage": stage,
        "config": to_plain(config),
    }


def assemble(
    config: RunConfig,
    prepared: Prepared,
    searched: Searched,
    tuned: Tuned,
    scores: HostScores,
    files: list[Validated | NotValidated | NotExported],
    spec: DeviceSpec,
    seconds: float,
) -> dict[str, Any]:
    """The whole result of a run that got to its end."""
    structure, original = prepared.structure, prepared.network
    network, metric, shown = tuned.fit.network, prepared.task.metric, prepared.yardstick
    before, after = scores.baseline.values[metric.name], scores.compressed.values[metric.name]
    neurons, left = structure.neurons(original), structure.neurons(network)
    primary = next(item for item in files if isinstance(item, Validated) and item.runtime == config.runtime)
    result = {
        "device": {
            "name": config.device,
            "kind": spec.kind,
            # Also an emulator that is reached like a board: the probe finds it out.
            "emulated": spec.emulated or bool(primary.measurement.facts.get("emulated")),
            "unit": spec.unit,
            "facts": dict(primary.measurement.facts),
        },
        "data": {
            "name": prepared.dataset.name,
            "fingerprint": prepared.dataset.fingerprint,
            "train": len(prepared.dataset.train),
            "validation": len(prepared.dataset.validation),
            "test": len(prepared.dataset.test),
            "input_shape": to_json(prepared.dataset.input_shape),
            "preprocessing": _preprocessing(prepared.scaling),
        },
        "task": prepared.task.name,
        "metric": metric.name,
        "baseline": {
            "scores": dict(scores.baseline.values),
            "interval": list(scores.baseline.interval),
            "validation_score": shown.value(prepared.validation_accuracy),
            "neurons": neurons,
            "parameters": count_parameters(original),
            "macs": count_macs(original, structure.shape),
            "uncounted": {name: list(operations) for name, operations in structure.uncounted.items()},
            **prepared.baseline,
        },
        "compressed": {
            "scores_before_finetune": dict(scores.before_finetune.values),
            "scores": dict(scores.compressed.values),
            "interval": list(scores.compressed.interval),
            "validation_score": shown.value(tuned.fit.accuracy),
            "lost": round(metric.lost(before, after), 4),
            "lost_unit": metric.unit,
            "ncr": neurons / left,
            "neurons": left,
            "parameters": count_parameters(network),
            "macs": count_macs(network, structure.shape),
            "finetune_epochs": round(tuned.fit.epochs, 2),
            "epoch_taken": prepared.taken,
            "layers": [
                {"name": g.name, "kind": g.kind, "channels": g.channels, "kept": tuned.plan.widths[g.name]}
                for g in structure.groups
            ],
            "frozen": staying(structure),
        },
        "classes": _classes(prepared, scores),
        "artifacts": [_artifact(item) for item in files],
        "search": {**searched.summary, "best_trial": tuned.trial.index},
        "possible": to_json(searched.possible),
        "settled": prepared.settled.told(),
        "training": {**to_json(prepared.training.place), "timed": to_json(prepared.training)["timed"]},
        "seconds": round(seconds, 2),
    }
    asked = config.budget()
    checks = [*check_bounds(searched.budget, primary, result, asked), _above_chance(scores, prepared)]
    status, concluded = conclude(checks, drawbacks(primary))
    result["budget"] = {
        "asked": to_json(asked),
        "artifact": primary.exported.artifact.path.name,
        "checks": checks,
        **concluded,
    }
    return {**header(config, status, "done"), **result}


def conclude(checks: Sequence[Mapping[str, Any]], found: Sequence[Drawback]) -> tuple[Status, dict[str, Any]]:
    """How a run ends whose file has these `drawbacks`, and what its result says of all checks together.

    A bound that is open does not fail the run: what there is may well keep it. It is not called met either.
    """
    answers = {check["answer"] for check in checks}
    answer: Answer = "not met" if "not met" in answers else "open" if "open" in answers else "met"
    missed = answer == "not met"
    status: Status = "budget-not-met" if missed else "worse" if is_worse(found) else "done"
    return status, {"answer": answer, "met": answer == "met", "recommended": not missed and not found}


def _preprocessing(scaling: Scaling) -> dict[str, Any]:
    """How inputs are scaled, in numbers and in words, and what was tried."""
    return {
        **to_json(scaling.preprocessing),
        "formula": describe(scaling.preprocessing),
        "source": scaling.source,
        "tried": [to_json(tried) for tried in scaling.tried],
    }


def _classes(prepared: Prepared, scores: HostScores) -> list[dict[str, Any]]:
    """Recall of every class on the test set, before and after; null where no test image is of it. Else nothing."""
    if not scores.compressed.recall:
        return []
    counts = np.bincount(prepared.dataset.test.y, minlength=len(prepared.dataset.classes))
    before, after = scores.baseline.recall, scores.compressed.recall
    return [
        {"name": name, "images": int(count), "baseline_recall": old, "recall": new}
        for name, count, old, new in zip(prepared.dataset.classes, counts, before, after, strict=True)
    ]


def _above_chance(scores: HostScores, prepared: Prepared) -> dict[str, Any]:
    """Whatever was asked for: a network whose answers are not told from guessing has met nothing."""
    metric = prepared.task.metric
    whole, unit = (100, "%") if metric.share else (1, "")
    limit = whole * Yardstick.on(metric, prepared.dataset.test.y).value(scores.chance)
    value = whole * scores.compressed.values[metric.name]
    answer: Answer = "met" if scores.quality > scores.chance else "not met"
    return _check("above_chance", limit, value, unit, answer, default=True)


def _check(name: str, limit: float, value: float, unit: str, answer: Answer, *, default: bool) -> dict[str, Any]:
    """One bound; it is `met` where it is known to be."""
    check = {"bound": name, "limit": limit, "value": value, "unit": unit, "default": default}
    return {**check, "answer": answer, "met": answer == "met"}


def _artifact(item: Validated | NotValidated | NotExported) -> dict[str, Any]:
    if isinstance(item, NotExported):
        return {"format": item.format, "exported": False, "path": None, "validated": False, "why_not": item.why}
    artifact = item.exported.artifact
    exported = {
        "format": artifact.format,
        "exported": True,
        "precision": artifact.precision,
        "path": artifact.path.name,
        "sha256": artifact.sha256,
        "bytes": artifact.bytes,
        "baseline_path": item.exported.baseline.path.name,
        "baseline_sha256": item.exported.baseline.sha256,
        "baseline_bytes": item.exported.baseline.bytes,
        "parity_max_abs": item.exported.parity.max_abs,
        "runtime": item.runtime,
        "validated": isinstance(item, Validated),
    }
    if isinstance(item, NotValidated):
        return {**exported, "why_not": item.why}
    measured = item.measurement
    return {
        **exported,
        "device_scores": dict(item.device.values),
        "baseline_device_scores": dict(item.baseline_device.values),
        "agreement": item.agreement,
        "latency": _latency(measured.samples, measured.median, measured),
        "baseline_latency": _latency(measured.against, measured.against_median, measured),
        "process": list(measured.process),
        "speedup": {
            "value": item.speedup.value,
            "ci_low": item.speedup.low,
            "ci_high": item.speedup.high,
            "processes": item.speedup.processes,
            "left_out": item.speedup.left_out,
        },
        "load_s": measured.load_s,
        "first_s": measured.first_s,
        "peak_bytes": measured.peak_bytes,
        "baseline_peak_bytes": measured.against_peak_bytes,
        "memory_method": measured.memory_method,
        "settings": to_json(measured.settings),
        "states": [dict(state) for state in measured.states],
        "verdict": measured.verdict,
        "advice": measured.advice,
        "rejected": measured.rejected,
        "drawbacks": [to_json(drawback) for drawback in drawbacks(item)],
    }


def _latency(samples: tuple[float, ...], median: float, measured: Measurement) -> dict[str, Any]:
    return {"median": median, "samples": list(samples), "unit": measured.unit}


def check_bounds(budget: Budget, primary: Validated, result: Mapping[str, Any], asked: Budget) -> list[dict[str, Any]]:
    """Each bound beside what the shipped file of the searched runtime has.

    A latency is judged by its interval, and so may be open: a relative one by the paired quotient's, an absolute one by
    the file's own.
    """
    measured, artifact = primary.measurement, primary.exported
    checks: list[dict[str, Any]] = []

    def add(name: str, limit: float, value: float, answer: Answer | bool, unit: str) -> None:
        default = getattr(asked, "min_ncr" if name == "expect_ncr" else name) is None
        if isinstance(answer, bool):
            answer = "met" if answer else "not met"
        checks.append(_check(name, limit, value, unit, answer, default=default))

    if (bound := budget.max_latency) is not None:
        latency = cost_interval(measured.samples, measured.against, measured.process, relative=bound.relative)
        unit = "share of the unpruned" if bound.relative else measured.unit
        add("max_latency", bound.value, latency.value, latency.answer(bound.value), unit)
        checks[-1]["interval"] = [latency.low, latency.high]
    for name, bound, value, whole in (
        ("max_memory", budget.max_memory, measured.peak_bytes, measured.against_peak_bytes),
        ("max_bytes", budget.max_bytes, artifact.artifact.bytes, artifact.baseline.bytes),
    ):
        if bound is not None:
            limit = bound.limit(whole)
            add(name, limit, value, value <= limit, "bytes")
    if budget.max_drop is not None:
        drop = result["compressed"]["lost"]
        add("max_drop", budget.max_drop, drop, drop <= budget.max_drop + 1e-9, result["compressed"]["lost_unit"])
    if budget.min_ncr is not None:
        ncr = result["compressed"]["ncr"]
        add("expect_ncr", budget.min_ncr, ncr, ncr >= budget.min_ncr - 1e-9, "neurons/neurons")
    return checks
