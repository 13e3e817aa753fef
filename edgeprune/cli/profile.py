"""`edgeprune profile`: what any model file costs on a device."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import click
from rich.console import Console

from edgeprune.cli import completion
from edgeprune.cli.inputs import input_option, shape_option, signature_option
from edgeprune.cli.screen import watching
from edgeprune.core.errors import DeviceError, StorageError, UsageError
from edgeprune.core.measurement import Failure, MeasureSettings
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Progress
from edgeprune.core.session import Session
from edgeprune.devices import find_device, open_session
from edgeprune.profilers.inputs import GivenInputs, given_for
from edgeprune.profilers.profile import Wanted, compare_file, profile_files
from edgeprune.profilers.recognition import runtime_of
from edgeprune.profilers.records import Comparison, NotProfiled, Profile, ProfiledOn, Profiles
from edgeprune.report.profile import (
    comparison_lines,
    fed_lines,
    names_of,
    operator_table,
    profile_table,
    verdict_line,
    what_kind,
)

#: Fresh processes, where the cost varies and where an emulated processor counts it.
_PROCESSES, _PROCESSES_COUNTED = 5, 1
_MAX_SECONDS = 120.0
_LEAST_RUNS = 20
_TABLE_COLUMNS = 110


@click.command("profile", epilog="Exit codes: 0 done, 1 failed here, 2 usage, 4 device trouble, 130 interrupted.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "--device",
    default="local",
    show_default=True,
    metavar="NAME",
    shell_complete=completion.devices,
    help="where it is measured",
)
@click.option("--against", type=click.Path(path_type=Path), metavar="FILE", help="race every file with this one, too")
@shape_option
@input_option
@signature_option
@click.option("--threads", type=click.IntRange(1, 256), metavar="N", help="threads of the runtime [the device's, or 1]")
@click.option(
    "--processes",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="fresh processes that time it [5; emulated: 1]; as many more read memory, at least 5",
)
@click.option(
    "--min-seconds",
    type=click.FloatRange(0, 30),
    default=0.5,
    show_default=True,
    metavar="S",
    help="time each process at least so long",
)
@click.option("--half-width", metavar="SHARE", help="go on until the 95 % interval is as narrow to either side: 2%")
@click.option(
    "--max-seconds", type=click.FloatRange(0), metavar="S", help=f"but no longer than this [{_MAX_SECONDS:.0f}]"
)
@click.option("--cool-below", type=float, metavar="C", help="before each process wait for this many degrees Celsius")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="the longest that one inference may take [60, on an emulated board 600]",
)
@click.option("--per-operator", is_flag=True, help="also the time of every operator (onnxruntime)")
@click.option("--throughput", is_flag=True, help="also inferences per second, a thread of one process per core")
@click.option("--json", "as_json", is_flag=True, help="print everything as JSON instead of the table")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), metavar="FILE", help="write the raw samples")
@click.option("--histogram", type=click.Path(path_type=Path), metavar="FILE.png", help="draw the raw samples")
@click.option("--quiet", is_flag=True, help="no progress; only the outcome")
def profile_command(
    files: tuple[Path, ...],
    device: str,
    against: Path | None,
    shapes: tuple[str, ...],
    inputs: tuple[str, ...],
    signatures: tuple[str, ...],
    threads: int | None,
    processes: int | None,
    min_seconds: float,
    half_width: str | None,
    max_seconds: float | None,
    cool_below: float | None,
    timeout: float | None,
    per_operator: bool,
    throughput: bool,
    as_json: bool,
    csv_file: Path | None,
    histogram: Path | None,
    quiet: bool,
) -> int:
    """Measure .onnx, .ort and .tflite files: latency, memory, loading; a verdict says how far to trust the figures."""
    targets = [*files, *([against] if against else [])]
    given = given_for(targets, shapes, inputs, signatures)
    _check_files(targets, against)
    _check_outputs(csv_file, histogram)
    spec = find_device(device)
    if spec.emulated and (histogram or per_operator or throughput):
        flag = "--histogram" if histogram else "--per-operator" if per_operator else "--throughput"
        raise UsageError(f"device '{spec.name}' counts instructions and has no times", f"leave out {flag}")
    if max_seconds is not None and half_width is None:
        raise UsageError("--max-seconds bounds the search for a narrow interval", "give --half-width too, like 2%")
    narrow = _share(half_width) if half_width else 0.0
    settings = MeasureSettings(
        runtime="onnxruntime",  # each file's own takes its place
        threads=threads or spec.threads or 1,
        rounds=1,
        round_s=min_seconds,
        min_runs=_LEAST_RUNS,
        processes=processes or (_PROCESSES_COUNTED if spec.emulated else _PROCESSES),
        half_width=0.0 if against else narrow,
        max_s=_MAX_SECONDS if max_seconds is None else max_seconds,
        cool_below_c=cool_below,
    )
    screen = watching(quiet=quiet or as_json)
    wanted = Wanted(throughput=throughput, operators=per_operator)
    compared: list[Comparison] = []
    trouble: DeviceError | None = None
    with open_session(spec) as session:
        found = profile_files(session, targets, settings, given, wanted, screen, longest_s=timeout)
        _check_found(targets, found, spec.name)
        if against:
            compared, trouble = _compare(
                session, dataclasses.replace(settings, half_width=narrow), found, given, screen
            )
    profiles = [each for each in found if isinstance(each, Profile)]
    if as_json:
        click.echo(
            json.dumps(to_json(_outcome(targets, found, compared, spec.name, against)), indent=1, allow_nan=False)
        )
    else:
        _show(targets, found, compared, spec.name)
    if csv_file:
        _write(csv_file, lambda: _write_csv(csv_file, profiles))
    if histogram:
        _write(histogram, lambda: _draw(histogram, profiles, spec.name))
    if trouble:
        raise trouble
    return 4 if len(profiles) < len(found) else 0


def _check_files(targets: Sequence[Path], against: Path | None) -> None:
    runtimes = {file: runtime_of(file) for file in targets}
    if against:
        other = next((file for file in targets if runtimes[file] != runtimes[against]), None)
        if other is not None:
            raise UsageError(
                f"{other.name} and {against.name} need different runtimes and cannot be raced",
                f"compare {other.name} with a {other.suffix} file",
            )


def _check_outputs(*paths: Path | None) -> None:
    """Raises UsageError now, rather than when everything has been measured."""
    for path in paths:
        if path is not None and (path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK)):
            raise UsageError(f"cannot write {path}", "name a file in a folder that is there and may be written")
    histogram = paths[-1]
    if histogram is None:
        return
    if histogram.suffix.lower() != ".png":
        raise UsageError(f"--histogram: {histogram.name} is no .png", "give a name that ends in .png")
    # What draws takes half a second to import, which only this option should pay, and may not be installed.
    import_module("edgeprune.report.histogram")


def _compare(
    session: Session,
    settings: MeasureSettings,
    found: Sequence[Profile | Failure],
    given: Sequence[GivenInputs],
    screen: Progress,
) -> tuple[list[Comparison], DeviceError | None]:
    """Every good file raced with the last; and what ended that, where something did: the rest is shown all the same."""
    last, compared = found[-1], list[Comparison]()
    if isinstance(last, Profile):
        try:
            for each, known in zip(found[:-1], given[:-1], strict=True):
                if isinstance(each, Profile):
                    compared.append(compare_file(session, each, last, settings, known, given[-1], screen))
        except DeviceError as error:
            return compared, error
    return compared, None


def _check_found(targets: Sequence[Path], found: Sequence[Profile | Failure], device: str) -> None:
    """A single file that cannot be profiled is an error; among several it is a line of the outcome."""
    failures = [each for each in found if isinstance(each, Failure)]
    if len(failures) == len(found):
        first = failures[0]
        raise DeviceError(
            f"{targets[0].name} cannot be profiled on {device}: {first.message}",
            first.advice,
            retryable=first.retryable,
        )


def _share(text: str) -> float:
    """`"2%"` or `"0.02"` -> 0.02. Raises UsageError."""
    try:
        share = float(text.rstrip("% ")) / (100 if text.rstrip().endswith("%") else 1)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise UsageError(f"--half-width: '{text}' is no share", "write it like 2%")
    return share


def _outcome(
    targets: Sequence[Path],
    found: Sequence[Profile | Failure],
    compared: Sequence[Comparison],
    device: str,
    against: Path | None,
) -> Profiles:
    facts = next((dict(each.facts) for each in found if isinstance(each, Profile)), {})
    return Profiles(
        device=ProfiledOn(device, bool(facts.get("emulated")), facts),
        profiles=tuple(
            each if isinstance(each, Profile) else NotProfiled(str(file), each)
            for file, each in zip(targets, found, strict=True)
        ),
        against=str(against) if against else None,
        comparisons=tuple(compared),
    )


def _write(path: Path, work: Callable[[], None]) -> None:
    try:
        work()
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}", "choose another file") from error


def _write_csv(path: Path, profiles: Sequence[Profile]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(("file", "process", "cost", "unit"))
        for each in profiles:
            for process, cost in zip(each.process, each.samples, strict=True):
                rows.writerow((each.file, process, repr(cost), each.unit))


def _draw(path: Path, profiles: Sequence[Profile], device: str) -> None:
    from edgeprune.report.histogram import Panel, draw_histogram  # noqa: PLC0415 - see _check_outputs

    # Where a device gives only medians of many runs, there is nothing to draw.
    names = names_of([Path(each.file) for each in profiles])
    panels = [Panel(names[each.file], each.median, each.samples) for each in profiles if each.single_runs]
    if not panels:
        raise UsageError(f"device '{device}' tells no single runs", "leave out --histogram")
    draw_histogram(panels, path, f"{device}{what_kind(profiles[0])}")


def _show(
    targets: Sequence[Path], found: Sequence[Profile | Failure], compared: Sequence[Comparison], device: str
) -> None:
    # A table cut off at 80 columns, as where there is no terminal, would lose figures.
    console = Console(highlight=False, markup=False, width=max(Console().width, _TABLE_COLUMNS))
    profiles = [each for each in found if isinstance(each, Profile)]
    names = names_of(targets)
    console.print(profile_table(profiles, device, names))
    for file, each in zip(targets, found, strict=True):
        name = names[str(file)]
        line = verdict_line(each, name) if isinstance(each, Profile) else f"{name}: {each.kind}; {each.message}"
        console.print(line, soft_wrap=True)
        if isinstance(each, Profile):
            for said in fed_lines(each, name, f"{file.name}:" * (len(names) > 1)):
                console.print(said, soft_wrap=True)
    for each in profiles:
        if each.operators:
            console.print(operator_table(each, names[each.file]))
        elif each.operators_why:
            console.print(f"{names[each.file]}: no times per operator: {each.operators_why}", soft_wrap=True)
    for comparison in compared:
        for line in comparison_lines(comparison, names):
            console.print(line, soft_wrap=True)
