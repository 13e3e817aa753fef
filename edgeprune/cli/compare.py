"""`edgeprune compare`: is B worse than A, told from noise? For continuous integration."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from edgeprune.cli.inputs import input_option, shape_option, signature_option
from edgeprune.cli.screen import watching
from edgeprune.core.errors import UsageError
from edgeprune.core.files import write_bytes
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.plain import to_json
from edgeprune.devices import find_device, open_session
from edgeprune.profilers.compared import Compared
from edgeprune.profilers.gate import DEFAULT_GATE, Gate, default_gate, read_gate
from edgeprune.profilers.inputs import given_for
from edgeprune.profilers.recognition import runtime_of
from edgeprune.report.compare import compare_table, verdict_lines

#: Fresh processes, where the cost varies and where an emulated processor counts it.
_PROCESSES, _PROCESSES_COUNTED = 7, 1
_COLUMNS = 80


@click.command(
    "compare",
    epilog="Exit codes: 0 no regression, 1 failed here, 2 usage or not measured alike, 3 regression, 4 device trouble, "
    "130 interrupted.",
)
@click.argument("a", required=False, type=click.Path(path_type=Path), metavar="A")
@click.argument("b", required=False, type=click.Path(path_type=Path), metavar="B")
@click.option(
    "--profile",
    "gate_file",
    type=click.Path(path_type=Path),
    metavar="GATE.toml",
    help="how much worse each figure may be [the default gate, see --write-gate]",
)
@click.option(
    "--write-gate",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="write the default gate, every key explained, and do nothing else",
)
@click.option("--device", metavar="NAME", help="of model files: where they are raced [local]")
@click.option("--threads", type=click.IntRange(1, 256), metavar="N", help="threads of the runtime [the device's, or 1]")
@click.option(
    "--processes",
    type=click.IntRange(1, 1000),
    metavar="N",
    help=f"fresh processes that race them [{_PROCESSES}; emulated: {_PROCESSES_COUNTED}]; 2 or more tell noise",
)
@shape_option
@input_option
@signature_option
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="the longest that one inference may take [60, on an emulated board 600]",
)
@click.option("--json", "as_json", is_flag=True, help="print everything as JSON instead of the table")
@click.option("--quiet", is_flag=True, help="no progress; only the outcome")
def compare_command(
    a: Path | None,
    b: Path | None,
    gate_file: Path | None,
    write_gate: Path | None,
    device: str | None,
    threads: int | None,
    processes: int | None,
    shapes: tuple[str, ...],
    inputs: tuple[str, ...],
    signatures: tuple[str, ...],
    timeout: float | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Whether B is worse than A: two model files, raced with a copy of A; or two stored profiles, or two runs.

    A profile is what `edgeprune profile FILE --json` printed, a run is its folder; these are compared as recorded.
    """
    if write_gate is not None:
        _write_gate(write_gate, a)
        return 0
    if a is None or b is None:
        raise UsageError("compare takes two of a kind, A and B", "type: edgeprune compare old.onnx new.onnx")
    gate = default_gate() if gate_file is None else read_gate(gate_file)
    # The metrics of runs bring scikit-learn, which takes a second that --help should not.
    from edgeprune.pipeline.compare import compare_records, kind_of  # noqa: PLC0415

    kind = kind_of(a, b)
    if kind == "files":
        found = _raced(
            (a, b), gate, device or "local", threads, processes, (shapes, inputs, signatures), timeout,
            quiet=quiet or as_json,
        )  # fmt: skip
    else:
        _refuse(
            device=device, threads=threads, processes=processes, timeout=timeout,
            shape=shapes, input=inputs, signature=signatures,
        )  # fmt: skip
        found = compare_records(a, b, kind, gate)
    show(found, as_json=as_json)
    return 3 if found.answer == "regression" else 0


def show(found: Compared, *, as_json: bool) -> None:
    """Print a comparison."""
    if as_json:
        click.echo(json.dumps(to_json(found), indent=1, allow_nan=False))
        return
    # A table cut off where there is no terminal would lose figures.
    console = Console(highlight=False, markup=False, width=max(Console().width, _COLUMNS))
    console.print(compare_table(found))
    for line in verdict_lines(found):
        console.print(line, soft_wrap=True)


def _raced(
    files: tuple[Path, Path],
    gate: Gate,
    device: str,
    threads: int | None,
    processes: int | None,
    options: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]],
    timeout: float | None,
    *,
    quiet: bool,
) -> Compared:
    from edgeprune.pipeline.compare import compare_files  # noqa: PLC0415 - as above

    runtimes = [runtime_of(file) for file in files]
    if runtimes[0] != runtimes[1]:
        raise UsageError(
            f"{files[0].name} and {files[1].name} need different runtimes and cannot be raced",
            f"compare {files[1].name} with a {files[1].suffix} file",
        )
    given = given_for(files, *options)
    spec = find_device(device)
    settings = MeasureSettings(
        runtime=runtimes[0],
        threads=threads or spec.threads or 1,
        processes=processes or (_PROCESSES_COUNTED if spec.emulated else _PROCESSES),
    )
    with open_session(spec) as session:
        return compare_files(session, files, settings, gate, given, watching(quiet=quiet), longest_s=timeout)


def _refuse(**given: object) -> None:
    """Raises UsageError for an option of races, which would do nothing to what was measured before."""
    for name, value in given.items():
        if value:
            raise UsageError(f"--{name} is for model files, and these were measured before", "leave it out")


def _write_gate(file: Path, also: Path | None) -> None:
    if also is not None:
        raise UsageError("--write-gate writes a gate and compares nothing", f"leave out {also}, then use --profile")
    if file.exists():
        raise UsageError(f"{file} is there already", "name a new file, or remove that one")
    if not file.parent.is_dir():
        raise UsageError(f"cannot write {file}: there is no folder {file.parent}", "name a file in one that is there")
    write_bytes(file, DEFAULT_GATE.encode())
    click.echo(f"wrote {file}")
