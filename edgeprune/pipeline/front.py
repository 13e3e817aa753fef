"""`front.json`: what came of several bounds that were searched for at once (documented in docs/interfaces.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edgeprune.core.budget import Bound
from edgeprune.core.errors import BudgetError
from edgeprune.core.measurement import Measurement
from edgeprune.core.trial import Trial
from edgeprune.pipeline.bounds import Asked, read_bounds
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.records.front import (
    Between,
    Front,
    FrontDevice,
    Impossible,
    Reached,
    Tried,
    Unpruned,
)
from edgeprune.pipeline.records.result import Ended, Status
from edgeprune.pipeline.records.search import Reference
from edgeprune.pipeline.result import EXIT_CODES
from edgeprune.pipeline.search import Searched
from edgeprune.report.checks import ANSWERS
from edgeprune.report.front import front_lines, front_table, unpruned_line
from edgeprune.report.text import as_html, as_text
from edgeprune.tasks.metrics import Yardstick


@dataclass(frozen=True, slots=True, repr=False)
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

    def summary(self) -> str:
        """Of every bound what it misses, what speaks against its file, or why no network can keep it."""
        return "\n".join(front_lines(self.front))

    def table(self) -> str:
        """A row a bound, and what the shares are of."""
        return as_text([front_table(self.front)], [unpruned_line(self.front)])

    def __repr__(self) -> str:
        points = ", ".join(f"{each['asked']} {ANSWERS[each['answer']]}" for each in self.front["points"])
        return f"FrontResult({str(self.folder)!r}: {points})"

    def _repr_html_(self) -> str:
        return as_html([front_table(self.front)], [unpruned_line(self.front), *front_lines(self.front)])


#: What came of a bound: its result, as in `result.json`, or why no network can keep it.
Outcome = Mapping[str, Any] | BudgetError


def assemble_front(
    config: RunConfig,
    prepared: Prepared,
    searched: Searched,
    outcomes: Mapping[str, Outcome],
    seconds: float,
) -> Front:
    """The whole front of a run; `outcomes` by the bounds' names, the loosest first. `searched` has all trials."""
    assert config.front is not None
    asked = {each.name: each for each in read_bounds(config.front, getattr(config, config.front))}
    reference, shown = searched.possible.reference, prepared.yardstick
    whole = {"max_latency": reference.latency, "max_memory": reference.memory, "max_bytes": reference.bytes}
    points: list[Reached | Impossible] = []
    for name, outcome in outcomes.items():
        bound = asked[name].value
        limit = bound.limit(whole[config.front]) / whole[config.front] if isinstance(bound, Bound) else bound
        if isinstance(outcome, BudgetError):
            points.append(
                Impossible(
                    name=name,
                    asked=asked[name].text,
                    limit=limit,
                    status="impossible",
                    answer="not met",
                    error=str(outcome),
                    path=None,
                )
            )
        else:
            points.append(_reached(asked[name], limit, outcome, prepared))
    reached = [outcome for outcome in outcomes.values() if not isinstance(outcome, BudgetError)]
    device = reached[0]["device"]
    return Front(
        status=_together([point.status for point in points]),
        model=config.model,
        data=config.data,
        task=prepared.task.name,
        metric=prepared.task.metric.name,
        bound=config.front,
        device=FrontDevice(**{each.name: device[each.name] for each in fields(FrontDevice)}),
        unpruned=Unpruned(
            quality=_quality(reached[0]["baseline"], prepared),
            latency=reference.latency,
            peak_bytes=int(reference.memory),
            bytes=int(reference.bytes),
        ),
        points=tuple(points),
        trials=tuple(_tried(each, reference, shown) for each in sorted(searched.trials, key=lambda each: each.index)),
        seconds=round(seconds, 2),
    )


def _together(each: Sequence[Status]) -> Ended:
    if any(status in ("budget-not-met", "impossible") for status in each):
        return "budget-not-met"
    return "worse" if "worse" in each else "done"


def _reached(asked: Asked, limit: float, outcome: Mapping[str, Any], prepared: Prepared) -> Reached:
    budget, compressed = outcome["budget"], outcome["compressed"]
    file = next(item for item in outcome["artifacts"] if item["path"] == budget["artifact"])
    speedup, metric = file["speedup"], prepared.task.metric
    quality, drop = _quality(compressed, prepared), compressed["lost"]
    if file["precision"] != "fp32":
        # Other numbers answer otherwise than the network on the host does.
        before, after = (file[side][metric.name] for side in ("baseline_device_scores", "device_scores"))
        low, high = file["device_interval"]
        quality, drop = Between(value=after, low=low, high=high), round(metric.lost(before, after), 4)
    return Reached(
        name=asked.name,
        asked=asked.text,
        limit=limit,
        status=outcome["status"],
        answer=budget["answer"],
        missed=tuple(check["bound"] for check in budget["checks"] if check["answer"] == "not met"),
        recommended=budget["recommended"],
        path=asked.name,
        file=f"{asked.name}/{file['path']}",
        trial=outcome["search"]["best_trial"],
        quality=quality,
        drop=drop,
        latency=file["latency"]["median"],
        latency_share=Between(value=1 / speedup["value"], low=1 / speedup["ci_high"], high=1 / speedup["ci_low"]),
        peak_bytes=file["peak_bytes"],
        memory_share=file["peak_bytes"] / max(file["baseline_peak_bytes"], 1),
        bytes=file["bytes"],
        bytes_share=file["bytes"] / file["baseline_bytes"],
        ncr=compressed["ncr"],
    )


def _quality(side: Mapping[str, Any], prepared: Prepared) -> Between:
    """What the metric says of the test set, and where the true value lies with 95 % confidence."""
    low, high = side["interval"]
    return Between(value=side["scores"][prepared.task.metric.name], low=low, high=high)


def _tried(trial: Trial, reference: Reference, shown: Yardstick) -> Tried:
    """A trial as a point of the picture: its score before fine-tuning, and what it cost, null where that failed."""
    measured = trial.candidate.cost if isinstance(trial.candidate.cost, Measurement) else None
    return Tried(
        trial=trial.index,
        score=shown.value(trial.candidate.accuracy),
        latency_share=measured.quotient if measured else None,
        memory_share=measured.memory_quotient if measured else None,
        bytes_share=trial.candidate.bytes / reference.bytes if measured else None,
        ncr=trial.candidate.ncr,
    )
