"""`edgeprune validate`: accuracy of a model file on a device."""

from __future__ import annotations

import json
from pathlib import Path

import click
from pydantic import TypeAdapter, ValidationError

from edgeprune.cli.screen import ErrorConsole, Screen
from edgeprune.core.errors import ModelError
from edgeprune.core.progress import Silent
from edgeprune.core.types import MeasureSettings, to_json
from edgeprune.core.units import format_cost, format_percent
from edgeprune.core.version import VERSION
from edgeprune.data.catalog import load_data
from edgeprune.data.dataset import Dataset, Preprocessing
from edgeprune.devices import find_device, open_session
from edgeprune.profilers.accuracy import accuracy_on_device
from edgeprune.profilers.profile import runtime_of

_SCHEMA = 1


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
    type=click.Choice(["auto", "unit", "raw"]),
    default="auto",
    show_default=True,
    help="auto: the file's own, else the data's; unit: scaled to [0, 1] only; raw: pixels as stored",
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
    as_json: bool,
    quiet: bool,
) -> int:
    """Share of the test images that FILE (.onnx or .tflite) classifies right on a device."""
    runtime = runtime_of(file)
    spec = find_device(device)
    screen = Silent() if quiet or as_json else Screen(ErrorConsole())
    dataset = load_data(data, data_dir, seed=0, progress=screen)
    chosen, source = _preprocessing(file, dataset, preprocessing)
    inputs = chosen.apply(dataset.test.x[:images])
    labels = dataset.test.y[:images]
    settings = MeasureSettings(runtime=runtime, threads=threads or spec.threads or 1)
    with open_session(spec) as session:
        screen.say(f"{len(labels):,} images of {dataset.name} through {file.name} on {spec.name}")
        found = accuracy_on_device(session, settings, file, inputs, labels, len(dataset.classes))
    if as_json:
        outcome = {
            "schema": _SCHEMA,
            "edgeprune": VERSION,
            "file": str(file),
            "device": {"name": spec.name, "emulated": spec.emulated},
            "data": {"name": dataset.name, "fingerprint": dataset.fingerprint},
            "preprocessing": source,
            **to_json(found),
            "accuracy": found.share,
        }
        click.echo(json.dumps(outcome, indent=1, allow_nan=False))
        return 0
    click.echo(
        f"{file.name} on {spec.name}: {format_percent(found.share)} right, {found.correct:,} of {found.images:,} test "
        f"images (95 %: {format_percent(found.low)} to {format_percent(found.high)})"
    )
    # The time an emulator or a simulation takes is its host's.
    spent = f", {format_cost(found.seconds_per_image, 's')} an image with sending and fetching"
    click.echo(f"  layout {found.layout}, preprocessing {source}{spent if spec.unit == 's' else ''}")
    if found.low <= 1 / len(dataset.classes):
        click.echo("  no better than chance: if the file was made for other inputs, try --preprocessing raw or unit")
    return 0


def _preprocessing(file: Path, dataset: Dataset, choice: str) -> tuple[Preprocessing, str]:
    """How images become input, and in words. Raises ExportError, ModelError."""
    if choice != "auto":
        channels = dataset.input_shape[0]
        scale = dataset.preprocessing.scale if choice == "unit" else 1.0
        return Preprocessing(scale, (0.0,) * channels, (1.0,) * channels), choice
    own = _own_preprocessing(file)
    return (own, "of the file") if own else (dataset.preprocessing, "of the data")


def _own_preprocessing(file: Path) -> Preprocessing | None:
    """What a file that edgeprune made says of its inputs; None for others. Raises ExportError, ModelError."""
    # Exporters bring torch, which takes seconds that a wrong option should not.
    from edgeprune.exporters import read_metadata  # noqa: PLC0415

    told = read_metadata(file).get("preprocessing")
    if told is None:
        return None
    try:
        return TypeAdapter(Preprocessing).validate_python(told)
    except ValidationError as error:
        raise ModelError(f"{file.name} carries a preprocessing that is none", "export it again") from error
