"""`front.json`: what came of several bounds that were searched for at once (documented in docs/interfaces.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.core.budget import Bound
from edgeprune.core.errors import BudgetError
from edgeprune.core.measurement import Measurement
from edgeprune.core.schema import FRONT_SCHEMA
from edgeprune.core.trial import Trial
from edgeprune.core.version import VERSION
from edgeprune.pipeline.bounds import read_bounds
from edgeprune.pipeline.choose import Reference
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.result import EXIT_CODES, Status
from edgeprune.pipeline.search import Searched
from edgeprune.tasks.metrics import Yardstick


@dataclass(frozen=True, slots=True)
class FrontResult:
    """A finished front: its folder and what `front.json` says."""

    folder: Path
    front: Mapping[str, Any]

    @property
    def met(self) -> bool:
        """Whether every bound is known to be met by its file."""
        return all(point["answer"] == "met" for point in self.front["points"])

    @property
    def exit_code(self) -> int:
        """0 unless a bound is missed or cannot be met, or kept by a file that is slower and larger: 3."""
        return EXIT_CODES[self.front["status"]]


#: What came of a bound: its result, as in `result.json`, or why no network can keep it.
Outcome = Mapping[str, Any] | BudgetError


def assemble_front(
    config: RunConfig,
    prepared: Prepared,
    searched: Searched,
    outcomes: Mapping[str, Outcome],
    seconds: float,
) -> dict[str, Any]:
    """The whole front of a run; `outcomes` by the bounds' names, the loosest first. `searched` has all trials."""
    assert config.front is not None
    asked = {each.name: each for each in read_bounds(config.front, getattr(config, config.front))}
    reference, shown = searched.possible.reference, prepared.yardstick
    whole = {"max_latency": reference.latency, "max_memory": reference.memory, "max_bytes": reference.bytes}
    points = []
    for name, outcome in outcomes.items():
        bound = asked[name].value
        limit = bound.limit(whole[config.front]) / whole[config.front] if isinstance(bound, Bound) else bound
        what = {"name": name, "asked": asked[name].text, "limit": limit}
        points.append({**what, **_came_of(name, outcome, prepared)})
    reached = [outcome for outcome in outcomes.values() if not isinstance(outcome, BudgetError)]
    return {
        "schema": FRONT_SCHEMA,
        "edgeprune": VERSION,
        "status": _together([point["status"] for point in points]),
        "model": config.model,
        "data": config.data,
        "task": prepared.task.name,
        "metric": prepared.task.metric.name,
        "bound": config.front,
        "device": {key: reached[0]["device"][key] for key in ("name", "kind", "emulated", "unit")},
        "unpruned": {
            **_quality(reached[0]["baseline"], prepared),
            "latency": reference.latency,
            "peak_bytes": reference.memory,
            "bytes": reference.bytes,
        },
        "points": points,
        "trials": [_tried(trial, reference, shown) for trial in sorted(searched.trials, key=lambda trial: trial.index)],
        "seconds": round(seconds, 2),
    }


def _together(each: Sequence[Status]) -> Status:
    if any(status in ("budget-not-met", "impossible") for status in each):
        return "budget-not-met"
    return "worse" if "worse" in each else "done"


def _came_of(name: str, outcome: Outcome, prepared: Prepared) -> dict[str, Any]:
    if isinstance(outcome, BudgetError):
        return {"status": "impossible", "answer": "not met", "error": str(outcome), "path": None}
    budget, compressed = outcome["budget"], outcome["compressed"]
    file = next(item for item in outcome["artifacts"] if item["path"] == budget["artifact"])
    speedup = file["speedup"]
    return {
        "status": outcome["status"],
        "answer": budget["answer"],
        "missed": [check["bound"] for check in budget["checks"] if check["answer"] == "not met"],
        "recommended": budget["recommended"],
        "path": name,
        "file": f"{name}/{file['path']}",
        "trial": outcome["search"]["best_trial"],
        **_quality(compressed, prepared),
        "drop": compressed["lost"],
        "latency": file["latency"]["median"],
        "latency_share": {
            "value": 1 / speedup["value"],
            "low": 1 / speedup["ci_high"],
            "high": 1 / speedup["ci_low"],
        },
        "peak_bytes": file["peak_bytes"],
        "memory_share": file["peak_bytes"] / max(file["baseline_peak_bytes"], 1),
        "bytes": file["bytes"],
        "bytes_share": file["bytes"] / file["baseline_bytes"],
        "ncr": compressed["ncr"],
    }


def _quality(side: Mapping[str, Any], prepared: Prepared) -> dict[str, Any]:
    """What the metric says of the test set, and where the true value lies with 95 % confidence."""
    low, high = side["interval"]
    return {"quality": {"value": side["scores"][prepared.task.metric.name], "low": low, "high": high}}


def _tried(trial: Trial, reference: Reference, shown: Yardstick) -> dict[str, Any]:
    """A trial as a point of the picture: its score before fine-tuning, and what it cost, null where that failed."""
    measured = trial.candidate.cost if isinstance(trial.candidate.cost, Measurement) else None
    return {
        "trial": trial.index,
        "score": shown.value(trial.candidate.accuracy),
        "latency_share": measured and measured.quotient,
        "memory_share": measured and measured.memory_quotient,
        "bytes_share": trial.candidate.bytes / reference.bytes if measured else None,
        "ncr": trial.candidate.ncr,
    }
