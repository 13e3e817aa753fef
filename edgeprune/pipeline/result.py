"""`result.json`: what came out, in one versioned file (documented in docs/interfaces.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeprune.core.types import Budget, DeviceSpec, Measurement, MetricName, to_json
from edgeprune.core.version import RESULT_SCHEMA, VERSION
from edgeprune.data.preprocessing import describe
from edgeprune.pipeline.artefacts import NotExported
from edgeprune.pipeline.config import RunConfig, to_plain
from edgeprune.pipeline.finetune import Tuned
from edgeprune.pipeline.outcome import drawbacks, is_worse
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.scaling import Scaling
from edgeprune.pipeline.search import Searched
from edgeprune.pipeline.staying import staying
from edgeprune.pipeline.validate import HostAccuracy, NotValidated, Validated
from edgeprune.pruning.cost import count_macs, count_parameters

Status = Literal["running", "done", "budget-not-met", "worse", "impossible", "failed", "interrupted"]
EXIT_CODES: Mapping[Status, int] = {"done": 0, "budget-not-met": 3, "worse": 3, "impossible": 3, "interrupted": 130}


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run: its folder and what `result.json` says."""

    folder: Path
    result: Mapping[str, Any]

    @property
    def met(self) -> bool:
        """Whether every bound of the budget is met by the files that were validated on the device."""
        return bool(self.result["budget"]["met"])

    @property
    def recommended(self) -> bool:
        """Whether the budget is met by a file that is faster and smaller than the unpruned one, in no more memory."""
        return bool(self.result["budget"]["recommended"])

    @property
    def exit_code(self) -> int:
        """0 when the budget is met, 3 when it is not, or is by a file that is slower and larger than the unpruned."""
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
    accuracy: HostAccuracy,
    files: list[Validated | NotValidated | NotExported],
    spec: DeviceSpec,
    seconds: float,
) -> dict[str, Any]:
    """The whole result of a run that got to its end."""
    structure, original = prepared.structure, prepared.network
    network, metric = tuned.fit.network, config.metric
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
            "preprocessing": _preprocessing(prepared.scaling),
        },
        "metric": config.metric,
        "baseline": {
            "accuracy": accuracy.baseline.accuracy,
            "balanced_accuracy": accuracy.baseline.balanced_accuracy,
            "validation_accuracy": prepared.validation_accuracy,
            "neurons": neurons,
            "parameters": count_parameters(original),
            "macs": count_macs(original, structure.shape),
            "uncounted": {name: list(operations) for name, operations in structure.uncounted.items()},
            **prepared.baseline,
        },
        "compressed": {
            "accuracy_before_finetune": accuracy.before_finetune.accuracy,
            "balanced_accuracy_before_finetune": accuracy.before_finetune.balanced_accuracy,
            "accuracy": accuracy.compressed.accuracy,
            "balanced_accuracy": accuracy.compressed.balanced_accuracy,
            "validation_accuracy": tuned.fit.accuracy,
            "error_points": round(100 * (accuracy.baseline.score(metric) - accuracy.compressed.score(metric)), 4),
            "ncr": neurons / left,
            "neurons": left,
            "parameters": count_parameters(network),
            "macs": count_macs(network, structure.shape),
            "finetune_epochs": round(tuned.fit.epochs, 2),
            "layers": [
                {"name": g.name, "kind": g.kind, "channels": g.channels, "kept": tuned.plan.widths[g.name]}
                for g in structure.groups
            ],
            "frozen": staying(structure),
        },
        "classes": _classes(prepared, accuracy),
        "artifacts": [_artifact(item) for item in files],
        "search": {**searched.summary, "best_trial": tuned.trial.index},
        "possible": to_json(searched.possible),
        "seconds": round(seconds, 2),
    }
    asked = config.budget()
    checks = [*_checks(searched.budget, primary, result, asked), _above_chance(accuracy, metric)]
    met = all(check["met"] for check in checks)
    found = drawbacks(primary)
    result["budget"] = {
        "asked": to_json(asked),
        "artifact": primary.exported.artifact.path.name,
        "checks": checks,
        "met": met,
        "recommended": met and not found,
    }
    status: Status = "budget-not-met" if not met else "worse" if is_worse(found) else "done"
    return {**header(config, status, "done"), **result}


def _preprocessing(scaling: Scaling) -> dict[str, Any]:
    """How inputs are scaled, in numbers and in words, and what was tried."""
    return {
        **to_json(scaling.preprocessing),
        "formula": describe(scaling.preprocessing),
        "source": scaling.source,
        "tried": [to_json(tried) for tried in scaling.tried],
    }


def _classes(prepared: Prepared, accuracy: HostAccuracy) -> list[dict[str, Any]]:
    """Recall of every class on the test set, before and after; null where no test image is of it."""
    counts = np.bincount(prepared.dataset.test.y, minlength=len(prepared.dataset.classes))
    before, after = accuracy.baseline.recall, accuracy.compressed.recall
    return [
        {"name": name, "images": int(count), "baseline_recall": old, "recall": new}
        for name, count, old, new in zip(prepared.dataset.classes, counts, before, after, strict=True)
    ]


def _above_chance(accuracy: HostAccuracy, metric: MetricName) -> dict[str, Any]:
    """Whatever was asked for: a network whose answers are not told from guessing has met nothing."""
    limit, value = 100 * accuracy.chance_level, 100 * accuracy.compressed.score(metric)
    check = {"bound": "above_chance", "limit": limit, "value": value, "unit": "%", "default": True}
    return {**check, "met": value > limit}


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
        "device_accuracy": item.device.accuracy,
        "device_balanced_accuracy": item.device.balanced_accuracy,
        "baseline_device_accuracy": item.baseline_device.accuracy,
        "baseline_device_balanced_accuracy": item.baseline_device.balanced_accuracy,
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


def _checks(budget: Budget, primary: Validated, result: dict[str, Any], asked: Budget) -> list[dict[str, Any]]:
    """Each bound beside what the shipped file of the searched runtime has; relative ones by the paired quotient."""
    measured, artifact = primary.measurement, primary.exported
    checks: list[dict[str, Any]] = []

    def add(name: str, limit: float, value: float, met: bool, unit: str) -> None:
        default = getattr(asked, "min_ncr" if name == "expect_ncr" else name) is None
        checks.append({"bound": name, "limit": limit, "value": value, "unit": unit, "default": default, "met": met})

    if (bound := budget.max_latency) is not None:
        if bound.relative:
            share = primary.speedup.inverse()
            add("max_latency", bound.value, share.value, share.value <= bound.value, "share of the unpruned")
            # A bound inside the interval is met, or missed, by less than the measurement can tell.
            checks[-1]["interval"] = [share.low, share.high]
        else:
            add("max_latency", bound.value, measured.median, measured.median <= bound.value, measured.unit)
    for name, bound, value, whole in (
        ("max_memory", budget.max_memory, measured.peak_bytes, measured.against_peak_bytes),
        ("max_bytes", budget.max_bytes, artifact.artifact.bytes, artifact.baseline.bytes),
    ):
        if bound is not None:
            limit = bound.limit(whole)
            add(name, limit, value, value <= limit, "bytes")
    if budget.max_drop is not None:
        drop = result["compressed"]["error_points"]
        add("max_drop", budget.max_drop, drop, drop <= budget.max_drop + 1e-9, "points")
    if budget.min_ncr is not None:
        ncr = result["compressed"]["ncr"]
        add("expect_ncr", budget.min_ncr, ncr, ncr >= budget.min_ncr - 1e-9, "neurons/neurons")
    return checks
