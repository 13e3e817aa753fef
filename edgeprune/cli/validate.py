"""`edgeprune validate`: accuracy of a model file on a device."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgeprune.cli.inputs import input_option, shape_option, signature_option
from edgeprune.cli.screen import watching
from edgeprune.core.errors import DataError, ModelError
from edgeprune.core.inputs import plain_shape
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.plain import from_json, to_json
from edgeprune.core.units import format_cost, format_percent
from edgeprune.data.catalog import load_data
from edgeprune.data.dataset import Dataset, Preprocessing
from edgeprune.data.preprocessing import resolve
from edgeprune.devices import find_device, open_session
from edgeprune.profilers.accuracy import accuracy_on_device
from edgeprune.profilers.foreign import Asked, Scaling
from edgeprune.profilers.inputs import given_for
from edgeprune.profilers.recognition import runtime_of

#: Two words for pixels as stored: what `run` calls it, and what this command always did.
_RAW = ("none", "raw")


@click.command("validate", epilog="Exit codes: 0 done, 1 failed here, 2 usage, 4 device trouble, 130 interrupted.")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--data", required=True, metavar="DATA", help="as for run: its test images are what counts")
@click.option(
    "--data-dir", type=click.Path(path_type=Path), metavar="DIR", help="where the standard data sets' files are"
)
@click.option("--device", default="local", show_default=True, metavar="NAME", help="where it is validated")
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
@click.option("--output", default="", metavar="NAME", help="the output that tells the class, where several may")
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
    """Share of the test images that FILE (.onnx or .tflite) classifies right on a device."""
    runtime = runtime_of(file)
    given = given_for([file], shapes, inputs, signatures)[0]
    spec = find_device(device)
    screen = watching(quiet=quiet or as_json)
    dataset = load_data(data, data_dir, seed=0, progress=screen)
    dataset.check_classes("validate")
    asked = Asked(
        scalings=_scalings(file, dataset, preprocessing),
        raw_integers=preprocessing in ("auto", *_RAW),
        given=given,
        output=output,
        label_offset=label_offset,
        stream=stream,
        example_s=timeout,
    )
    settings = MeasureSettings(runtime=runtime, threads=threads or spec.threads or 1)
    with open_session(spec) as session:
        count = min(images or len(dataset.test), len(dataset.test))
        screen.say(f"{count:,} images of {dataset.name} through {file.name} on {spec.name}")
        found = accuracy_on_device(session, settings, file, dataset, asked, screen, images)
    if as_json:
        click.echo(json.dumps(to_json(found), indent=1, allow_nan=False))
        return 0
    click.echo(
        f"{file.name} on {spec.name}: {format_percent(found.accuracy)} right, {found.correct:,} of {found.images:,} "
        f"test images (95 %: {format_percent(found.low)} to {format_percent(found.high)})"
    )
    # The time an emulator or a simulation takes is its host's.
    spent = f", {format_cost(found.seconds_per_image, 's')} an image with sending and fetching"
    click.echo(f"  layout {found.layout}, preprocessing {found.preprocessing}{spent if spec.unit == 's' else ''}")
    for line in (*found.conventions, *found.advice):
        click.echo(f"  {line}")
    return 0


def _scalings(file: Path, dataset: Dataset, choice: str) -> tuple[Scaling, ...]:
    """The ways in which pixels may become input. Raises ExportError, ModelError, UsageError."""
    if choice != "auto":
        names = {"data": "of the data", **dict.fromkeys(_RAW, "raw")}
        return (Scaling(names.get(choice, choice), _resolve("none" if choice in _RAW else choice, dataset)),)
    # A file in ONNX Runtime's own format carries nothing of ours.
    if file.suffix.lower() != ".ort" and (own := _own_preprocessing(file, plain_shape(dataset.input_shape)[0])):
        return (Scaling("of the file", own),)
    found = {dataset.one_scaled: "of the data"}
    for name in ("unit", "raw", "0.5,0.5"):
        found.setdefault(_resolve("none" if name == "raw" else name, dataset), name)
    return tuple(Scaling(name, preprocessing) for preprocessing, name in found.items())


def _resolve(choice: str, dataset: Dataset) -> Preprocessing:
    resolved = resolve(choice, dataset)
    assert isinstance(resolved, Preprocessing)  # the data were checked
    return resolved


def _own_preprocessing(file: Path, channels: int) -> Preprocessing | None:
    """What a file that edgeprune made says of its inputs; None for others. Raises ExportError, ModelError."""
    # Exporters bring torch, which takes seconds that a wrong option should not.
    from edgeprune.exporters import read_metadata  # noqa: PLC0415

    told = read_metadata(file).get("preprocessing")
    if told is None:
        return None
    own = from_json(Preprocessing, told)
    try:
        own.check_fits(channels)
    except DataError as error:
        raise ModelError(f"{file.name} carries a {error.message}", "give --preprocessing, or other --data") from error
    return own
