"""`edgeprune validate`: what a model file's answers are worth on a device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import click

from edgeprune.cli import completion
from edgeprune.cli.inputs import input_option, shape_option, signature_option
from edgeprune.cli.screen import watching
from edgeprune.core.errors import UsageError
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.plain import to_json
from edgeprune.core.session import DeviceSpec
from edgeprune.core.units import format_cost, format_percent
from edgeprune.data.dataset import EachInput
from edgeprune.devices import find_device, open_session
from edgeprune.profilers.accuracy import accuracy_on_device, word_for
from edgeprune.profilers.inputs import given_for
from edgeprune.profilers.recognition import runtime_of
from edgeprune.profilers.records import Accuracy, Scores
from edgeprune.profilers.scores import scores_on_device
from edgeprune.profilers.ways import Asked
from edgeprune.tasks.metrics import Metric, metric_named
from edgeprune.tasks.names import MetricName, check_task


@click.command("validate", epilog="Exit codes: 0 done, 1 failed here, 2 usage, 4 device trouble, 130 interrupted.")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option(
    "--data",
    required=True,
    metavar="DATA",
    shell_complete=completion.data_sets,
    help="as for run: its test images are what counts",
)
@click.option(
    "--data-dir", type=click.Path(path_type=Path), metavar="DIR", help="where the standard data sets' files are"
)
@click.option(
    "--task",
    metavar="TASK",
    help="as for run: what the file is for, or FILE.py:FUNCTION [what the file says of itself, else worked out from "
    "the targets, and said]",
)
@click.option(
    "--metric",
    type=click.Choice(get_args(MetricName)),
    metavar="NAME",
    help="what counts, as for run [the task's first]",
)
@click.option(
    "--device",
    default="local",
    show_default=True,
    metavar="NAME",
    shell_complete=completion.devices,
    help="where it is validated",
)
@click.option("--threads", type=click.IntRange(1, 256), metavar="N", help="threads of the runtime [the device's, or 1]")
@click.option("--images", type=click.IntRange(1), metavar="N", help="only the first so many test images")
@click.option(
    "--preprocessing",
    default="auto",
    show_default=True,
    metavar="HOW",
    help="auto: the file's own; of files of others what training images speak for; data: the data's own; unit: scaled "
    "to [0, 1] only; none or raw: pixels as stored; or MEAN,STD of pixels in [0, 1], one for all channels or one each",
)
@input_option
@shape_option
@signature_option
@click.option("--output", default="", metavar="NAME", help="the output that is judged, where several may be")
@click.option(
    "--label-offset",
    type=click.IntRange(0),
    metavar="N",
    help="class 0 of the data is class N of the file, which may have more: 1 behind a background class",
)
@click.option(
    "--stream",
    is_flag=True,
    help="variables of a .tflite file keep their values from image to image, in the data's order",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="the longest that one image may take [60, on an emulated board 600]",
)
@click.option("--json", "as_json", is_flag=True, help="print the outcome as JSON")
@click.option("--quiet", is_flag=True, help="no progress; only the outcome")
def validate_command(
    file: Path,
    data: str,
    data_dir: Path | None,
    task: str | None,
    metric: MetricName | None,
    device: str,
    threads: int | None,
    images: int | None,
    preprocessing: str,
    inputs: tuple[str, ...],
    shapes: tuple[str, ...],
    signatures: tuple[str, ...],
    output: str,
    label_offset: int | None,
    stream: bool,
    timeout: float | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Share of the test images that FILE (.onnx or .tflite) classifies right on a device, or its task's own figures."""
    runtime = runtime_of(file)
    given = given_for([file], shapes, inputs, signatures)[0]
    check_task(task, metric)
    spec = find_device(device)
    screen = watching(quiet=quiet or as_json)
    # Tasks and exporters bring torch, which takes seconds that a wrong option should not.
    from edgeprune.pipeline.judged import RAW, find_known  # noqa: PLC0415

    known = find_known(file, data, data_dir, task, metric, preprocessing, screen)
    dataset, wanted = known.dataset, known.wanted
    if wanted is not None and label_offset is not None:
        raise UsageError("--label-offset is of one class for each example, and this task has none", "leave it out")
    asked = Asked(
        scalings=known.scalings,
        raw_integers=preprocessing in ("auto", *RAW) or isinstance(dataset.preprocessing, EachInput),
        given=given,
        output=output,
        label_offset=label_offset,
        stream=stream,
        example_s=timeout,
    )
    settings = MeasureSettings(runtime=runtime, threads=threads or spec.threads or 1)
    word = word_for(dataset) if wanted is None else "examples"
    found: Accuracy | Scores
    with open_session(spec) as session:
        count = min(images or len(dataset.test), len(dataset.test))
        if wanted is not None:
            screen.say(known.line)
        screen.say(f"{count:,} {word} of {dataset.name} through {file.name} on {spec.name}")
        if wanted is None:
            logit = known.said.task == "binary"
            found = accuracy_on_device(
                session, settings, file, dataset, asked, screen, images,
                task=known.task, metric=known.metric, logit=logit,
            )  # fmt: skip
        else:
            found = scores_on_device(session, settings, file, dataset, asked, wanted, screen, images)
    if as_json:
        click.echo(json.dumps(to_json(found), indent=1, allow_nan=False))
        return 0
    _show(found, file.name, spec, word)
    return 0


def _show(found: Accuracy | Scores, file: str, spec: DeviceSpec, word: str) -> None:
    lines = _right(found, word) if isinstance(found, Accuracy) else _scored(found)
    click.echo(f"{file} on {spec.name}: {lines[0]}")
    # The time an emulator or a simulation takes is its host's.
    one = word.removesuffix("s")
    spent = f", {format_cost(found.seconds_per_image, 's')} an {one} with sending and fetching"
    told = f"layout {found.layout}, preprocessing {found.preprocessing}{spent if spec.unit == 's' else ''}"
    for line in (*lines[1:], told, *found.conventions, *found.advice):
        click.echo(f"  {line}")


def _right(found: Accuracy, word: str) -> list[str]:
    """How many examples got the right class; and by another metric, where that counts."""
    right = (
        f"{format_percent(found.accuracy)} right, {found.correct:,} of {found.images:,} test {word} "
        f"(95 %: {format_percent(found.low)} to {format_percent(found.high)})"
    )
    metric = metric_named(found.metric)
    return [right] if metric.name == "accuracy" else [f"{_figure(metric, found)}; {right}"]


def _scored(found: Scores) -> list[str]:
    """What the task's metric says, then its others, and what guessing gets."""
    metric = metric_named(found.metric)
    lines = [f"{_figure(metric, found)}, {found.images:,} test examples"]
    others = [metric_named(name) for name in found.scores if name != found.metric]
    if others:
        lines.append(", ".join(f"{other.title} {_shown(other, found.scores[other.name])}" for other in others))
    if found.guessing is not None:
        lines.append(f"guessing gets {metric.show(found.guessing)}")
    return lines


def _figure(metric: Metric, found: Accuracy | Scores) -> str:
    """The figure that counts, with its interval."""
    figure = f"{metric.title} {_shown(metric, found.scores[metric.name])}"
    if found.interval is None:
        return figure
    low, high = map(metric.show, found.interval)
    return f"{figure} (95 %: {low} to {high})"


def _shown(metric: Metric, value: float) -> str:
    return f"{metric.show(value)} {metric.told_in}".strip()
