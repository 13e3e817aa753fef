"""The final table: before and after, every figure from `result.json`, nothing recomputed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from edgeprune.core.inputs import InputSpec, written
from edgeprune.core.kinds import KINDS, Unit
from edgeprune.core.plain import from_json
from edgeprune.core.runtimes import FORMATS
from edgeprune.core.units import (
    format_bytes,
    format_cost,
    format_millions,
    format_percent,
    format_share,
    format_speedup,
    format_speedups,
)
from edgeprune.tasks.metrics import Metric, metric_named

Result = Mapping[str, Any]


def device_title(device: Mapping[str, Any]) -> str:
    """A device's name; what is no measurement of a real device says so wherever it is shown."""
    # A phone may turn out to be an emulated one.
    title = "emulated" if device["emulated"] else KINDS[device["kind"]].title
    return f"{device['name']} ({title})" if title else str(device["name"])


def summary_table(result: Result) -> Table:
    """Rows of before, after and change; per format the device's figures."""
    before, after, device = result["baseline"], result["compressed"], result["device"]
    where = device_title(device)
    table = Table(
        box=box.SIMPLE_HEAD,
        title=escape(f"{result['config']['model']} on {result['config']['data']}"),
        title_justify="left",
    )
    table.add_column("")
    for column in ("unpruned", "pruned", "change"):
        table.add_column(column, justify="right")
    metric = metric_named(result["metric"])
    table.add_row(f"test {metric.title}, host", *_scores(metric, before["scores"], after["scores"]))
    table.add_row("  before fine-tuning", "", metric.show(after["scores_before_finetune"][metric.name]), "")
    if (worst := worst_class(result)) is not None:
        shares = _shares(worst["baseline_recall"], worst["recall"])
        table.add_row(f"  worst class: {escape(worst['name'])}, recall", *shares)
    for other in _beside(result):
        table.add_row(f"test {other.title}, host", *_scores(other, before["scores"], after["scores"]))
    table.add_row("neurons (NCR)", f"{before['neurons']:,}", f"{after['neurons']:,}", f"NCR {after['ncr']:.2f}")
    for name, key in (("parameters", "parameters"), ("MACs", "macs")):
        share = after[key] / before[key]
        table.add_row(name, f"{before[key]:,}", f"{after[key]:,}", f"{100 * share:.1f} % left")
    for item in result["artifacts"]:
        if item["precision"] == "fp32" or item["path"] == result["budget"]["artifact"]:
            _artifact_rows(table, item, where, metric)
    return table


def precisions_table(result: Result) -> Table | None:
    """Every file beside the others, a row each; None where all are of one precision."""
    if all(item["precision"] == "fp32" for item in result["artifacts"]):
        return None
    return files_table(result)


def files_table(result: Result) -> Table:
    """Every file of a run, or of an export, beside the others, a row each."""
    metric = metric_named(result["metric"])
    table = Table(
        box=box.SIMPLE_HEAD,
        title=escape(f"files by precision on {device_title(result['device'])}; speed beside the unpruned fp32 file"),
        title_justify="left",
    )
    table.add_column("", no_wrap=True)
    for column in (metric.title, "cost", "speed", "heap", "file"):
        table.add_column(column, justify="right")
    for item in sorted(result["artifacts"], key=lambda item: list(FORMATS).index(item["format"])):
        if not item["validated"]:
            table.add_row(file_title(item), "not validated" if item["exported"] else "not exported")
            continue
        speed, latency = item["speedup"], item["latency"]
        table.add_row(
            file_title(item),
            metric.show(item["device_scores"][metric.name]),
            _cost(latency["median"], latency["unit"]),
            faster(speed["value"], speed["ci_low"], speed["ci_high"], latency["unit"]).removesuffix(" shown"),
            format_bytes(item["peak_bytes"]),
            format_bytes(item["bytes"]),
        )
    return table


def exports_lines(exports: Result) -> list[str]:
    """Of an export, the files that lose more than may be lost."""
    return [
        f"NOT MET  {each['path']}: {each['value']:.2f} {exports['lost_unit']} lost, at most {exports['max_drop']:g}"
        for each in exports["lost"]
        if not each["met"]
    ]


def lower_lines(result: Result) -> list[str]:
    """Why files of other precisions are missing, or were not validated, and what int8 files needed."""
    lines = []
    for item in result["artifacts"]:
        if item["precision"] != "fp32" and not item["validated"]:
            lines.append(f"{file_title(item)}: {item['why_not']}")
        how = item.get("eight_bits")
        if how and any(how.values()):
            lines.append(f"{file_title(item)}: {eight_bits_words(**how)}")
    return lines


def eight_bits_words(floats: Sequence[str], learnt: float, refused: Sequence[str] = ()) -> str:
    """How an int8 file came about: what stays in float32, or for how many epochs the network has learnt 8 bits."""
    words = []
    if learnt:
        words.append(f"trained with the rounding of 8 bits, {learnt:g} epochs")
    if floats:
        words.append(f"what these give stays in float32: {', '.join(floats)}")
    if refused:
        words.append(f"in float32 because the quantizer fails at it: {', '.join(refused)}")
    return "; ".join(words) or "all of it in 8 bits"


def _beside(result: Result) -> list[Metric]:
    """What is shown beside the metric that judges: of classes accuracy alone, which says what the others mean."""
    names = [name for name in result["baseline"]["scores"] if name != result["metric"]]
    of_classes = result["task"] in ("classification", "binary")
    return [metric_named(name) for name in names if not of_classes or name == "accuracy"]


def _shares(before: float, after: float) -> tuple[str, str, str]:
    return format_percent(before), format_percent(after), f"{100 * (after - before):+.2f} points"


def _scores(metric: Metric, before: Mapping[str, float], after: Mapping[str, float]) -> tuple[str, str, str]:
    """What a metric says before and after, and the change: in points of a share, else in percent of the error."""
    old, new = before[metric.name], after[metric.name]
    change = 100 * (new - old) if metric.share else metric.lost(old, new)
    return metric.show(old), metric.show(new), f"{change:+.2f} {metric.unit}"


def worst_class(result: Result) -> Result | None:
    """The class that lost most recall on the test set; of several the one with the least left."""
    known = [item for item in result["classes"] if item["recall"] is not None]
    return min(known, key=lambda item: (item["recall"] - item["baseline_recall"], item["recall"]), default=None)


def _artifact_rows(table: Table, item: Result, where: str, metric: Metric) -> None:
    table.add_section()
    if not item["validated"]:
        table.add_row(
            f"{file_title(item)} on {where}",
            "",
            "",
            "not validated" if item["exported"] else "not exported",
        )
        table.add_row(f"  {escape(item['why_not'])}", "", "", "")
        return
    speed, ours, theirs = item["speedup"], item["latency"], item["baseline_latency"]
    table.add_row(f"{file_title(item)} on {where}", "", "", item["runtime"])
    scores = _scores(metric, item["baseline_device_scores"], item["device_scores"])
    table.add_row(f"  {metric.title} on device", *scores)
    table.add_row("  same answers as host", "", format_percent(item["agreement"]), "")
    counted = ours["unit"] == "instructions"
    table.add_row(
        "  M instructions, emulated" if counted else "  latency, median",
        *(_cost(side["median"], side["unit"]) for side in (theirs, ours)),
        faster(speed["value"], speed["ci_low"], speed["ci_high"], ours["unit"]),
    )
    table.add_row("  95 % interval", "", "", f"{format_speedups(speed['ci_low'], speed['ci_high'])}x")
    for name, new, old in (
        ("heap", item["peak_bytes"], item["baseline_peak_bytes"]),
        ("file", item["bytes"], item["baseline_bytes"]),
    ):
        table.add_row(f"  {name}", format_bytes(old), format_bytes(new), f"{100 * new / max(old, 1):.1f} % left")
    table.add_row("  verdict", "", "", item["verdict"] or "not judged")
    if item["advice"]:
        table.add_row(f"  {escape(item['advice'])}", "", "", "")


def file_title(item: Result) -> str:
    """`ONNX`, or `ONNX int8`."""
    title = FORMATS[item["format"]].title
    return title if item["precision"] == "fp32" else f"{title} {item['precision']}"


def _cost(value: float, unit: Unit) -> str:
    return format_millions(value) if unit == "instructions" else format_cost(value, unit)


def faster(value: float, low: float, high: float, unit: Unit) -> str:
    """A speed-up in words, or that the interval does not tell."""
    return "no difference shown" if low <= 1.0 <= high else format_speedup(value, unit)


def layers_line(result: Result) -> str:
    """The widths, as `784-300-100 -> 219-81-43`; what a 0 among them means."""
    layers = result["compressed"]["layers"]
    before, after = ("-".join(str(layer[which]) for layer in layers) for which in ("channels", "kept"))
    gone = [layer["name"] for layer in layers if not layer["kept"]]
    return f"{before} -> {after}" + (f" (0: the whole branch is gone: {', '.join(gone)})" if gone else "")


def staying_lines(result: Result) -> list[str]:
    """The layers that stay with a tenth of the work or more, and why: what pruning could not reach."""
    frozen = result["compressed"]["frozen"]
    return [
        f"not pruned: {name}, {format_share(layer['macs_share'])} of the MACs: {layer['reason']}"
        for name, layer in sorted(frozen.items(), key=lambda item: -item[1]["macs_share"])
        if layer["macs_share"] >= 0.1
    ]


def input_line(result: Result) -> str:
    """What the files take: `input 1x28x28: (x / 255 - 0.5) / 0.5, x as the data hold it`."""
    data = result["data"]
    sides = data["input_shape"]
    named = [side for side in sides if isinstance(side, dict)]
    shape = written(tuple(from_json(InputSpec, side) for side in named) or tuple(sides))
    return f"input {shape}: {data['preprocessing']['formula']}, x as the data hold it"


def drawback_lines(result: Result) -> list[str]:
    """What speaks against the file that was judged, beside its bounds; nothing where it is better in every figure."""
    return [f"BUT      {drawback['text']}" for drawback in judged(result)["drawbacks"]]


def judged(result: Result) -> Result:
    """The artifact that the bounds were judged on."""
    name = result["budget"]["artifact"]
    return next(item for item in result["artifacts"] if item["path"] == name)


def next_step(result: Result, folder: Path) -> str:
    """What to do with the outcome. A file is only recommended where no figure speaks against it."""
    if result["budget"]["answer"] == "not met":
        missing = [check["bound"] for check in result["budget"]["checks"] if check["answer"] == "not met"]
        if "above_chance" in missing:
            return (
                "next: the pruned network's answers are not told from guessing, so no file is to be used; ask for "
                "less, or allow more --episodes, --search-steps or --finetune-epochs"
            )
        missed = ", ".join("--" + bound.replace("_", "-") for bound in missing)
        return f"next: the nearest result is kept; loosen {missed}, or allow more --episodes or --finetune-epochs"
    item = judged(result)
    if result["budget"]["recommended"]:
        return (
            f"next: copy {folder / item['path']} into your application; it takes the input that the "
            f"unpruned network took here: {result['data']['preprocessing']['formula']}{_to_be_sure(result)}; "
            f"edgeprune bundle {folder} --out DIR packs it with all it needs"
        )
    against = {drawback["what"] for drawback in item["drawbacks"]}
    better = [
        other for other in result["artifacts"] if other is not item and other["validated"] and not other["drawbacks"]
    ]
    if better:
        speed = format_speedup(better[0]["speedup"]["value"], better[0]["latency"]["unit"])
        return (
            f"next: {item['path']} is no gain over the unpruned file; {folder / better[0]['path']} is one ({speed}), "
            f"where your application runs {better[0]['runtime']}: --runtime {better[0]['runtime']} searches for it"
        )
    if "latency" in against and result["possible"]["latency_share"] >= 1:
        why = f"even the narrowest network allowed is no faster on {result['device']['name']}"
        return f"next: keep the unpruned file, {folder / item['baseline_path']}: {why}"
    bound = {"latency": "--max-latency 0.8x", "bytes": "--max-bytes 0.8x", "memory": "--max-memory 0.8x"}
    ask = " ".join(text for what, text in bound.items() if what in against)
    return (
        f"next: {item['path']} is no gain over the unpruned file, {folder / item['baseline_path']}; ask for one: {ask}"
    )


def _to_be_sure(result: Result) -> str:
    """How to get a latency that is told apart from its bound, where that is open."""
    if result["budget"]["answer"] != "open":
        return ""
    busy = judged(result)["verdict"] in ("busy", "throttled", "noisy")
    quiet = "measure on a quiet device, or " if busy else ""
    return f"; to be sure of its latency {quiet}ask for a little less than --max-latency"
