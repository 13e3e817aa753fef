"""What each precision is worth before anything is pruned: what its file costs on the device, and what it loses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from edgeprune.artifacts import run_model
from edgeprune.core.budget import Budget
from edgeprune.core.errors import ExportError
from edgeprune.core.measurement import Measurement
from edgeprune.core.runtimes import Format, Precision
from edgeprune.core.temporary import temporary_folder
from edgeprune.exporters import EXPORTERS, export_at
from edgeprune.models.inputs import to_numpy
from edgeprune.pipeline.choose import told_apart
from edgeprune.pipeline.export import calibration
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.records.search import Weighed
from edgeprune.pipeline.workshop import Workshop
from edgeprune.profilers.statistics import Interval, quotient_interval
from edgeprune.training.fit import judged

#: A file that is smaller, or takes less memory, by less than this share is none that anybody would call smaller.
_WORTH = 0.02
#: Of what may be lost at most, the share that a precision may lose beside which float32 is not searched for.
_HARMLESS = 0.1


def quality_at(prepared: Prepared, network: nn.Module, kind: Format, precision: Precision) -> float:
    """What a network's file of this precision is worth on validation, by this machine's runtime (see `Metric.quality`).

    Raises ExportError where there is no such file.
    """
    validation = prepared.validation
    with temporary_folder() as folder:
        whole = EXPORTERS[kind].export(network, validation.inputs(slice(0, 2)), folder / f"float.{kind}", {})
        lower = export_at(whole, folder / f"lower.{kind}", precision, calibration(prepared), {})
        answers = run_model(kind, lower.path, to_numpy(validation.inputs(slice(0, len(validation)))))
    return judged(torch.from_numpy(answers), validation, prepared.task)


@dataclass(frozen=True, slots=True)
class Contender:
    """A precision that may be worth searching for: shares of the unpruned float32 file's cost, and its quality."""

    precision: Precision
    latency: Interval
    memory: float
    bytes: float
    quality: float
    #: By the run's metric: points, or percent of an error.
    lost: float


def weigh(shop: Workshop, budgets: Sequence[Budget], most_lost: float) -> tuple[list[Workshop], tuple[Weighed, ...]]:
    """The precisions that are searched for, each with what makes its candidates, and what was found out of all.

    Each is measured with the unpruned network's file (see `left_out` for what is searched for). Raises DeviceError.
    """
    prepared, metric, kind = shop.prepared, shop.prepared.task.metric, shop.files.kind
    told: dict[Precision, str] = {}
    whole = Contender("fp32", Interval(1.0, 1.0, 1.0), 1.0, 1.0, prepared.validation_accuracy, 0.0)
    found = [whole]
    for precision in prepared.shipped.lower:
        try:
            if why := prepared.shipped.without.get((kind, precision)):
                raise ExportError(why)
            found.append(_contender(shop, precision))
        except ExportError as error:
            told[precision] = str(error)
    records = [Weighed(precision=one, why=why) for one, why in told.items()]
    bounded = [name for name in ("latency", "memory", "bytes") if any(_bounds(each, name) for each in budgets)]
    told |= left_out(found, bounded, most_lost, metric.images(prepared.validation.y.numpy()), metric.unit)
    records = [*(_record(one, told.get(one.precision, "")) for one in found), *records]
    for record in records[1:]:
        shop.progress.say(_line(record, metric.unit))
    if "fp32" in told:
        shop.progress.say(f"fp32 is not searched for: {told['fp32']}")
    searched = [one for one in found if one.precision not in told]
    return [shop.at(one.precision, max(0.0, whole.quality - one.quality)) for one in searched], tuple(records)


def left_out(
    found: Sequence[Contender], bounded: Sequence[str], most_lost: float, images: float, unit: str
) -> dict[Precision, str]:
    """Which of `found` (float32 first) are not searched for where `bounded` costs are, and why.

    One that is told, on so many `images`, to lose more than `most_lost` before anything is pruned; one that gains
    nothing of what is bounded, or is worse in any of it; and one beside which another costs less and loses no more that
    is worth mentioning.
    """
    whole, *others = found
    told: dict[Precision, str] = {}
    for one in others:
        if one.lost > most_lost and told_apart(one.quality, whole.quality, images):
            told[one.precision] = f"it loses {one.lost:.2f} {unit} before anything is pruned"
        elif worse := [name for name in bounded if _is_worse(one, name)]:
            told[one.precision] = f"it is worse in {' and '.join(worse)}"
        elif not any(_gains(one, name) for name in bounded):
            told[one.precision] = f"it gains nothing in {' or '.join(bounded)}"
    left = [one for one in found if one.precision not in told]
    for one in left:
        better = [other for other in left if _replaces(other, one, bounded, _HARMLESS * most_lost)]
        if better:
            told[one.precision] = f"{better[0].precision} costs less and loses {better[0].lost:.2f} {unit}"
    return told


def _contender(shop: Workshop, precision: Precision) -> Contender:
    prepared, metric = shop.prepared, shop.prepared.task.metric
    there = shop.at(precision, 0.0)
    plan = there.evaluator.plan({group.name: group.channels for group in prepared.structure.groups})
    cost = there.evaluator.cost(plan)
    if not isinstance(cost, Measurement):
        raise ExportError(f"it could not be measured: {cost.message}")
    quality = quality_at(prepared, prepared.network, shop.files.kind, precision)
    before, after = (prepared.yardstick.value(each) for each in (prepared.validation_accuracy, quality))
    return Contender(
        precision,
        quotient_interval(cost.samples, cost.against, cost.process),
        cost.memory_quotient,
        cost.bytes / shop.baseline_file.stat().st_size,
        quality,
        round(metric.lost(before, after), 4),
    )


def _bounds(budget: Budget, name: str) -> bool:
    return getattr(budget, f"max_{name}") is not None


def _gains(one: Contender, name: str) -> bool:
    return one.latency.high < 1.0 if name == "latency" else getattr(one, name) < 1.0 - _WORTH


def _is_worse(one: Contender, name: str) -> bool:
    return one.latency.low > 1.0 if name == "latency" else getattr(one, name) > 1.0 + _WORTH


def _replaces(one: Contender, other: Contender, bounded: Sequence[str], harmless: float) -> bool:
    """Whether there is no reason to search for `other` beside it."""
    return one.lost <= max(harmless, other.lost) and _cheaper(one, other, bounded)


def _cheaper(one: Contender, other: Contender, bounded: Sequence[str]) -> bool:
    """Whether it is dearer in nothing that is bounded, and shown to be cheaper in some of it."""
    costs = {
        "latency": (one.latency.value <= other.latency.value, one.latency.high < other.latency.low),
        "memory": (one.memory <= other.memory, one.memory < other.memory * (1 - _WORTH)),
        "bytes": (one.bytes <= other.bytes, one.bytes < other.bytes * (1 - _WORTH)),
    }
    return all(costs[name][0] for name in bounded) and any(costs[name][1] for name in bounded)


def _record(one: Contender, why: str) -> Weighed:
    return Weighed(
        precision=one.precision,
        latency_share=one.latency.value,
        interval=(one.latency.low, one.latency.high),
        memory_share=one.memory,
        bytes_share=one.bytes,
        lost=one.lost,
        why=why,
    )


def _line(record: Weighed, unit: str) -> str:
    if record.latency_share is None or record.interval is None:
        return f"{record.precision}: not searched for: {record.why}"
    low, high = record.interval
    line = (
        f"{record.precision}, unpruned: latency {record.latency_share:.2f}x ({low:.2f} to {high:.2f}), "
        f"file {record.bytes_share:.2f}x, heap {record.memory_share:.2f}x, {record.lost:.2f} {unit} lost on validation"
    )
    return f"{line}; not searched for: {record.why}" if record.why else line
