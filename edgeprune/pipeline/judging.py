"""Which file is judged, how it keeps each bound, and what that makes of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from edgeprune.core.budget import Answer, Bound, Budget
from edgeprune.core.errors import DeviceError
from edgeprune.core.runtimes import runtime_for
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.export import NotExported
from edgeprune.pipeline.outcome import is_worse
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.records import files as filed
from edgeprune.pipeline.records import network as told
from edgeprune.pipeline.records.result import AnyCheck, Check, Ended, LatencyCheck
from edgeprune.pipeline.validate import HostScores, NotValidated, Validated
from edgeprune.profilers.statistics import cost_interval
from edgeprune.tasks.metrics import Metric, Yardstick

_Bound = Literal["max_memory", "max_bytes", "max_drop", "expect_ncr"]


def judge(
    config: RunConfig,
    prepared: Prepared,
    budget: Budget,
    scores: HostScores,
    after: told.After,
    files: Sequence[Validated | NotValidated | NotExported],
) -> tuple[Validated, tuple[AnyCheck, ...]]:
    """The file that bounds are judged on, and how it keeps them: of the precisions asked for, where there are several.

    The one that misses fewest bounds; of these the best on the device, then the fastest. Raises DeviceError where none
    of them was validated.
    """
    metric = prepared.task.metric
    mine = [each for each in files if isinstance(each, Validated) and each.runtime == config.runtime]
    judged: list[tuple[Validated, tuple[AnyCheck, ...]]] = []
    for each in mine:
        if each.exported.artifact.precision in config.precisions:
            checks = check_bounds(budget, each, after, _lost(each, after, metric), config.budget())
            judged.append((each, (*checks, _above_chance(each, scores, prepared))))
    if not judged:
        # Files of the other format, or of precisions that nobody judges, may be missing for other reasons.
        missing = [each for each in files if not isinstance(each, Validated) and _is_asked_for(each, config)]
        why = missing[0].why if missing else "no file of it was made"
        raise DeviceError(
            f"no file of --precision {config.precision} ships: {why}",
            "run again with --precision fp32",
            retryable=False,
        )

    def rank(one: tuple[Validated, tuple[AnyCheck, ...]]) -> tuple[float, ...]:
        item, checks = one
        value = item.device.values[metric.name]
        missed = sum(check.answer == "not met" for check in checks)
        return missed, -metric.quality(value, prepared.dataset.test.y), -item.speedup.value

    return min(judged, key=rank)


def _is_asked_for(item: NotValidated | NotExported, config: RunConfig) -> bool:
    precision = item.precision if isinstance(item, NotExported) else item.exported.artifact.precision
    format = item.format if isinstance(item, NotExported) else item.exported.format
    return precision in config.precisions and runtime_for(format).name == config.runtime


def _lost(item: Validated, after: told.After, metric: Metric) -> float:
    """What is lost: of float32 files on the host, whose answers are theirs; of others, by their own answers."""
    if item.exported.artifact.precision == "fp32":
        return after.lost
    return round(metric.lost(item.baseline_device.values[metric.name], item.device.values[metric.name]), 4)


def check_bounds(budget: Budget, primary: Validated, after: told.After, lost: float, asked: Budget) -> list[AnyCheck]:
    """Each bound beside what the shipped file of the searched runtime has.

    A latency is judged by its interval, and so may be open: a relative one by the paired quotient's, an absolute one by
    the file's own.
    """
    measured, artifact = primary.measurement, primary.exported
    checks: list[AnyCheck] = []

    def add(name: _Bound, limit: float, value: float, keeps: bool, unit: str) -> None:
        default = getattr(asked, "min_ncr" if name == "expect_ncr" else name) is None
        answer: Answer = "met" if keeps else "not met"
        checks.append(Check(bound=name, limit=limit, value=value, unit=unit, default=default, answer=answer, met=keeps))

    if (bound := budget.max_latency) is not None:
        latency = cost_interval(measured.samples, measured.against, measured.process, relative=bound.relative)
        answer = latency.answer(bound.value)
        checks.append(
            LatencyCheck(
                bound="max_latency",
                limit=bound.value,
                value=latency.value,
                unit="share of the unpruned" if bound.relative else measured.unit,
                default=asked.max_latency is None,
                answer=answer,
                met=answer == "met",
                interval=(latency.low, latency.high),
            )
        )
    sizes: tuple[tuple[_Bound, Bound | None, int, int], ...] = (
        ("max_memory", budget.max_memory, measured.peak_bytes, measured.against_peak_bytes),
        ("max_bytes", budget.max_bytes, artifact.artifact.bytes, artifact.baseline.bytes),
    )
    for name, size, value, whole in sizes:
        if size is not None:
            limit = size.limit(whole)
            add(name, limit, value, value <= limit, "bytes")
    if budget.max_drop is not None:
        add("max_drop", budget.max_drop, lost, lost <= budget.max_drop + 1e-9, after.lost_unit)
    if budget.min_ncr is not None:
        add("expect_ncr", budget.min_ncr, after.ncr, after.ncr >= budget.min_ncr - 1e-9, "neurons/neurons")
    return checks


def _above_chance(item: Validated, scores: HostScores, prepared: Prepared) -> Check:
    """Whatever was asked for: a network whose answers are not told from guessing has met nothing."""
    metric = prepared.task.metric
    whole, unit = (100, "%") if metric.share else (1, "")
    value, quality = scores.compressed.values[metric.name], scores.quality
    if item.exported.artifact.precision != "fp32":
        value = item.device.values[metric.name]
        quality = metric.quality(value, prepared.dataset.test.y)
    answer: Answer = "met" if quality > scores.chance else "not met"
    return Check(
        bound="above_chance",
        limit=whole * Yardstick.on(metric, prepared.dataset.test.y).value(scores.chance),
        value=whole * value,
        unit=unit,
        default=True,
        answer=answer,
        met=answer == "met",
    )


def conclude(checks: Sequence[AnyCheck], found: Sequence[filed.Drawback]) -> tuple[Ended, Answer, bool]:
    """How a run ends whose file has these drawbacks, the answer of all checks together, whether it is recommended.

    A bound that is open does not fail the run: what there is may well keep it. It is not called met either.
    """
    answers = {check.answer for check in checks}
    answer: Answer = "not met" if "not met" in answers else "open" if "open" in answers else "met"
    missed = answer == "not met"
    status: Ended = "budget-not-met" if missed else "worse" if is_worse(found) else "done"
    return status, answer, not missed and not found
