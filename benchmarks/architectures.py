"""Which architectures are pruned, by how much, and whether what comes out is right: one row for each family.

python -m benchmarks.architectures [--out docs/architectures.md] [--only own|timm|NAME,...] [--no-export]
                                   [--rows FILE] [--limit 600]

Each family (see `families`), and each of 25 models of timm, has random weights of seed 0 and runs in a process of its
own: a crash or a hang is a row. Half of each group's channels go, an irregular choice. `--rows` keeps the rows as JSON
lines: families that are in the file already are not run again, and the table holds them all.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from safetensors.torch import load
from torch import nn

from benchmarks.families import FAMILIES, Family
from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import EdgepruneError, NothingToPrune
from edgeprune.core.files import write_bytes
from edgeprune.core.inputs import Shape
from edgeprune.core.quiet import converting
from edgeprune.core.runtimes import Format
from edgeprune.core.text import first_line, shorten
from edgeprune.exporters import EXPORTERS
from edgeprune.exporters.parity import compare
from edgeprune.exporters.slicing import Slicer
from edgeprune.models.inputs import Inputs, ask, made, tensors_of, to_numpy
from edgeprune.models.plain import make_plain
from edgeprune.models.weights import weights_bytes
from edgeprune.pipeline.found import MAX_COLUMNS
from edgeprune.pruning.cost import count_macs, work
from edgeprune.pruning.groups import discover
from edgeprune.pruning.stays import say_stays
from edgeprune.pruning.structure import Structure
from edgeprune.pruning.surgery import check_equal, cut, mask, twin
from edgeprune.pruning.trials import output_shape

#: Largest difference between a file and its network, relative to the outputs' scale.
BAR = 1e-4
#: Half of each group's channels go: a family that keeps no more than this share of its MACs is pruned throughout.
LOW = 0.45
TIMM = (
    "resnet18",
    "resnet26d",
    "mobilenetv3_small_100",
    "efficientnet_lite0",
    "ghostnet_100",
    "mnasnet_small",
    "regnetx_002",
    "regnety_002",
    "convnext_atto",
    "convnextv2_atto",
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mobilevit_xxs",
    "edgenext_xx_small",
    "poolformer_s12",
    "mixer_s32_224",
    "densenet121",
    "hardcorenas_a",
    "lcnet_050",
    "tinynet_e",
    "levit_128s",
    "repvgg_a0",
    "fbnetc_100",
    "xcit_nano_12_p16_224",
)
#: How long torch-pruning may take.
_OTHER_S = 40
FORMATS: tuple[Format, ...] = ("onnx", "tflite")


@dataclass
class Row:
    """What is known of a family. Texts are "yes", "" where it was not tried, or what went wrong."""

    name: str
    note: str = ""
    groups: int = 0
    seconds: float = 0.0
    left: float | None = None
    stays: str = ""
    #: Whether the cut network equals its masked twin.
    equal: str = ""
    #: By format: the file against its network; whether candidates are sliced.
    files: dict[str, str] = field(default_factory=dict)
    sliced: dict[str, str] = field(default_factory=dict)
    reloaded: str = ""
    #: What torch-pruning alone leaves of the MACs.
    other: str = ""
    #: What ended the process early.
    fault: str = ""
    #: What it was at last.
    step: str = ""


def study(family: Family, row: Row, files: bool, tell: Callable[[], None]) -> None:
    """Fill `row`; `tell` is called after each step."""

    @contextmanager
    def step(what: str, put: Callable[[str], None]) -> Iterator[None]:
        row.step = what
        tell()
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever a step raises is its result
            put(error.message if isinstance(error, EdgepruneError) else f"{type(error).__name__}: {first_line(error)}")

    network, shape = _made(family, seed=0), family.shape
    structure: Structure | None = None
    with step("discovery", lambda why: setattr(row, "stays", why)):
        start = time.perf_counter()
        try:
            structure = discover(network, shape, runtime="onnxruntime", max_columns=MAX_COLUMNS, prune_inputs=False)
        except NothingToPrune as error:
            row.stays = f"{error.message} ({error.hint})" if error.hint else error.message
        row.seconds = time.perf_counter() - start
    if structure is not None:
        _ours(family, network, structure, row, files, step)
    # Last, since it can hang.
    with step("torch-pruning", lambda why: setattr(row, "other", why)):
        row.other = _torch_pruning(family, structure)


def _ours(
    family: Family, network: nn.Module, structure: Structure, row: Row, files: bool, step: Callable[..., Any]
) -> None:
    shape = family.shape
    row.groups = len(structure.groups)
    row.stays = next((say_stays(structure, name) for name in structure.frozen), "")
    plan = _half(structure)
    pruned: nn.Module | None = None
    with step("surgery", lambda why: setattr(row, "equal", why)):
        pruned = cut(network, shape, plan, structure.graph)
        row.left = count_macs(pruned, shape) / count_macs(network, shape)
        check_equal(twin(mask(network, structure.couplings, plan), structure.graph, plan), pruned, shape)
        row.equal = "yes"
    if pruned is None:
        return
    with step("reloading", lambda why: setattr(row, "reloaded", why)):
        row.reloaded = _reload(family, pruned, plan)
    for kind in FORMATS if files else ():
        with step(f"{kind} file", partial(row.files.__setitem__, kind)):
            row.files[kind] = _file(pruned, shape, kind)
        if "export" in row.files[kind]:
            row.sliced[kind] = row.files[kind]
            continue
        with step(f"{kind} slicing", partial(row.sliced.__setitem__, kind)):
            _slice(network, pruned, structure, plan, kind)
            row.sliced[kind] = "yes"


def _made(family: Family, seed: int) -> nn.Module:
    """The family's network with plain weights, as if it had been trained a little: no statistic is 0 or 1."""
    torch.manual_seed(seed)
    network = family.make().eval()
    make_plain(network)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("running_mean") or (
                isinstance(tensor, torch.Tensor)
                and name in dict(network.named_parameters())
                and tensor.numel() > 1
                and float(tensor.std()) < 1e-6
            ):
                tensor.add_(0.1 * torch.randn_like(tensor))
    return network


def _half(structure: Structure) -> PruningPlan:
    """About half of each group's channels, without a pattern."""
    halves = {group.name: max(group.floor, group.snap(group.channels / 2)) for group in structure.groups}
    return _chosen(halves, structure)


def _chosen(widths: dict[str, int], structure: Structure) -> PruningPlan:
    """Channels without a pattern."""
    generator = torch.Generator().manual_seed(1)
    kept = {}
    for group in structure.groups:
        order = torch.randperm(group.channels, generator=generator)
        kept[group.name] = tuple(sorted(order[: widths[group.name]].tolist()))
    return PruningPlan(kept)


def _inputs(shape: Shape, count: int) -> Inputs:
    return made(shape, count, partial(torch.randn, generator=torch.Generator().manual_seed(3)))


def _file(pruned: nn.Module, shape: Shape, kind: Format) -> str:
    """Export and run in its runtime."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model.{kind}"
        EXPORTERS[kind].export(pruned, _inputs(shape, 2), path, {})
        parity = compare(pruned, kind, path, to_numpy(_inputs(shape, 4)))
    worst = parity.max_abs / max(1.0, parity.scale)
    return "yes" if worst <= BAR else f"differs by {worst:.1e}"


def _slice(network: nn.Module, pruned: nn.Module, structure: Structure, plan: PruningPlan, kind: Format) -> None:
    """As `edgeprune run` makes the files of candidates. Raises TemplateError, ExportError."""
    example = _inputs(structure.shape, 2)
    choose, prune = partial(_chosen, structure=structure), partial(_pruned, network, structure)
    Slicer(network, structure, example, kind, choose, prune).slice(pruned, plan, example)


def _pruned(network: nn.Module, structure: Structure, plan: PruningPlan) -> nn.Module:
    return cut(network, structure.shape, plan, structure.graph)


def _reload(family: Family, pruned: nn.Module, plan: PruningPlan) -> str:
    """Weights alone, into a fresh network that is cut by the same plan."""
    fresh = cut(_made(family, seed=7), family.shape, plan)
    fresh.load_state_dict(load(weights_bytes(pruned)))
    inputs = _inputs(family.shape, 4)
    with torch.no_grad():
        one, two = ask(pruned.eval(), inputs), ask(fresh.eval(), inputs)
    return "yes" if torch.equal(one, two) else f"differs by {float((one - two).abs().max()):.1e}"


def _torch_pruning(family: Family, structure: Structure | None) -> str:
    """Share of the MACs that torch-pruning leaves at a ratio of a half; or why none."""
    network, shape = _made(family, seed=0), family.shape
    before, answer = count_macs(network, shape), output_shape(network, shape)
    outputs = structure.output_layers if structure is not None else (work(network, shape).output,)
    ignored = [network.get_submodule(name) for name in outputs if name]
    example = tensors_of(_inputs(shape, 2))
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(_OTHER_S)
    try:
        torch_pruning.pruner.MetaPruner(
            network,
            example if len(example) > 1 else example[0],
            importance=torch_pruning.importance.MagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=ignored,
            global_pruning=False,
        ).step()
    except Exception as error:  # noqa: BLE001 - whatever it raises is the result
        return f"{type(error).__name__}: {first_line(error)}"
    finally:
        signal.alarm(0)
    try:
        after = output_shape(network, shape)
    except Exception as error:  # noqa: BLE001 - as above
        return f"wrong: {first_line(error)}"
    if after != answer:
        return f"wrong: it answers {after}, before {answer}"
    return f"{100 * count_macs(network, shape) / before:.0f} %"


def _late(*_: object) -> None:
    raise TimeoutError(f"not done after {_OTHER_S} s")


def _child(pipe: Connection, name: str, family: Family, files: bool) -> None:
    warnings.simplefilter("ignore")
    row = Row(name, family.note)
    try:
        study(family, row, files, lambda: pipe.send(asdict(row)))
        row.step = ""
    except Exception as error:  # noqa: BLE001 - it is a row
        row.fault = f"{row.step or 'start'}: {type(error).__name__}: {first_line(error)}"
    pipe.send(asdict(row))
    pipe.close()


def in_process(name: str, family: Family, files: bool, limit_s: float) -> Row:
    """`study` in a process of its own, which inherits what was imported."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, name, family, files))
    process.start()
    theirs.close()
    row, end = Row(name, family.note, step="start"), time.monotonic() + limit_s
    fault = ""
    while True:
        if not ours.poll(max(0.0, end - time.monotonic())):
            fault = f"not done after {limit_s:.0f} s ({row.step})"
            process.kill()
            break
        try:
            row = Row(**ours.recv())
        except EOFError:
            break
    process.join()
    if not fault and process.exitcode:
        fault = f"the process ended with {process.exitcode} ({row.step})"
    row.fault = row.fault or fault
    return row


def timm_families() -> dict[str, Family]:
    """Models of timm."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        # Built for another torch, one with CUDA, it loads no kernels, and is not imported unless somebody names these
        # two. No network here runs them.
        for kernel in ("nms", "qnms"):
            torch.library.define(f"torchvision::{kernel}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
    import timm  # noqa: PLC0415 - for these rows alone, and slow

    return {
        f"timm:{name}": Family(
            partial(timm.create_model, name, num_classes=10), (3, 224, 224), f"timm {timm.__version__}"
        )
        for name in TIMM
    }


# ---- the table


def _cell(text: str, most: int = 70) -> str:
    return shorten(text, most).replace("|", "\\|") if text else "-"


def _both(of: Mapping[str, str]) -> str:
    """The answers for both formats, one where they are the same."""
    if not of:
        return "-"
    if set(of.values()) == {"yes"} and len(of) == len(FORMATS):
        return "yes"
    return "; ".join(f"{kind}: {_cell(text)}" for kind, text in of.items())


def _line(row: Row) -> str:
    left = "-" if row.left is None else f"{100 * row.left:.0f} %"
    cells = [
        row.name,
        row.note,
        str(row.groups),
        f"{row.seconds:.1f}",
        left,
        _cell(row.fault or row.stays, 120),
        _cell(row.equal),
        _both(row.files),
        _both(row.sliced),
        _cell(row.reloaded),
        _cell(row.other),
    ]
    return f"| {' | '.join(cells)} |"


def _all_yes(of: Mapping[str, str]) -> bool:
    return len(of) == len(FORMATS) and set(of.values()) == {"yes"}


def _is_timms(row: Row) -> bool:
    return row.name.startswith("timm:")


def _of_those_tried(formats: Iterable[Mapping[str, str]]) -> str:
    """How many are right in both formats; families whose files were not made do not count."""
    tried = [each for each in formats if each]
    return f"{sum(map(_all_yes, tried))} of {len(tried)} that were tried" if tried else "not tried"


def _counted(holds: Callable[[Row], bool]) -> Callable[[list[Row]], str]:
    return lambda rows: str(sum(map(holds, rows)))


def _low(share: float | None) -> bool:
    return share is not None and share <= LOW


#: What is counted over the rows of a kind.
_COUNTS: Mapping[str, Callable[[list[Row]], str]] = {
    "pruned": _counted(lambda row: row.left is not None and row.left < 1),
    f"with {LOW:.0%} of their MACs or less": _counted(lambda row: _low(row.left)),
    "equal to the masked twin": _counted(lambda row: row.equal == "yes"),
    "exported and equal in both runtimes": lambda rows: _of_those_tried(row.files for row in rows),
    "candidates sliced in both formats": lambda rows: _of_those_tried(row.sliced for row in rows),
    "reloaded from weights alone": _counted(lambda row: row.reloaded == "yes"),
    "crashed or hung": _counted(lambda row: bool(row.fault)),
    f"with {LOW:.0%} of their MACs or less by torch-pruning alone": _counted(
        lambda row: row.other.endswith(" %") and _low(float(row.other[:-2]) / 100)
    ),
}


def table(rows: list[Row], command: str) -> str:
    """All of it as Markdown."""
    own, others = ([row for row in rows if _is_timms(row) == theirs] for theirs in (False, True))
    kinds = [(name, each) for name, each in (("own definitions", own), ("timm", others)) if each]
    heads = [
        "family",
        "variant",
        "groups",
        "seconds",
        "MACs left",
        "what stays, the dearest",
        "equal",
        "files equal",
        "sliced",
        "reloaded",
        "torch-pruning alone",
    ]
    return "\n".join(
        [
            "# Architectures",
            "",
            f"`{command}`, {datetime.now(UTC).date()}, torch {torch.__version__}, "
            f"torch-pruning {torch_pruning.__version__}",
            "",
            "Random weights, seed 0; half of each group's channels removed, an irregular choice. Seconds are those of "
            "discovery, on one core. MACs left are a share of the unpruned network's. Equal: the cut network against "
            "its masked twin. Files: ONNX in onnxruntime and TFLite in LiteRT against PyTorch, largest difference "
            f"{BAR:g} relative to max(1, scale).",
            "",
            f"| {' | '.join(['', *(f'{len(each)} of {name}' for name, each in kinds)])} |",
            f"|{'---|' * (len(kinds) + 1)}",
            *(f"| {what} | {' | '.join(count(each) for _, each in kinds)} |" for what, count in _COUNTS.items()),
            "",
            f"| {' | '.join(heads)} |",
            f"|{'---|' * len(heads)}",
            *map(_line, rows),
            "",
        ]
    )


def _warm(files: bool) -> None:
    """Import and run what every family needs, so that their processes inherit it."""
    network, example = nn.Sequential(nn.Conv1d(2, 4, 1), nn.ReLU(), nn.Conv1d(4, 2, 1)).eval(), torch.rand(2, 2, 4)
    discover(network, (2, 4), runtime="onnxruntime", prune_inputs=False)
    if files:
        with tempfile.TemporaryDirectory() as folder:
            EXPORTERS["onnx"].export(network, example, Path(folder) / "warm.onnx", {})
        # It is imported and not used: the threads of its compiler, for which a child would wait, do not survive a fork.
        with converting("litert_torch cannot be imported"):
            importlib.import_module("litert_torch")


def _read(path: Path | None) -> dict[str, Row]:
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    rows = (Row(**json.loads(line)) for line in lines)
    return {row.name: row for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", help="own, timm, or names, separated by commas")
    parser.add_argument("--no-export", action="store_true", help="leave out files and slicing")
    parser.add_argument("--rows", type=Path, help="JSON lines: rows that are there, and those that come")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for one family")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    asked = options.only or "own,timm"
    families: Mapping[str, Family] = FAMILIES | (timm_families() if "timm" in asked else {})
    kinds = {"own": list(FAMILIES), "timm": [name for name in families if name not in FAMILIES]}
    names = [name for each in asked.split(",") for name in kinds.get(each, [each])]
    if unknown := [name for name in names if name not in families]:
        parser.error(f"unknown: {', '.join(unknown)}")
    done = _read(options.rows)
    if any(name not in done for name in names):
        _warm(files=not options.no_export)
    for name in names:
        if name not in done:
            done[name] = _run(name, families[name], options)
    text = table([done[name] for name in names], _command())
    if options.out is None:
        print(text)
    else:
        write_bytes(options.out, text.encode())


def _command() -> str:
    return " ".join(["python -m benchmarks.architectures", *sys.argv[1:]])


def _run(name: str, family: Family, options: argparse.Namespace) -> Row:
    start = time.monotonic()
    row = in_process(name, family, not options.no_export, options.limit)
    print(f"{time.monotonic() - start:4.0f} s {_line(row)}", file=sys.stderr, flush=True)
    if options.rows is not None:
        with options.rows.open("a") as file:
            entry: dict[str, Any] = asdict(row)
            file.write(json.dumps(entry) + "\n")
    return row


if __name__ == "__main__":
    main()
