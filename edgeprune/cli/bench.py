"""`edgeprune bench`: methods side by side, on the papers' networks and on convolutional ones."""

from __future__ import annotations

import re
from pathlib import Path

import click
from rich.console import Console

from edgeprune.cli.commands import Commands
from edgeprune.cli.screen import watching
from edgeprune.core.errors import UsageError
from edgeprune.core.files import write_bytes
from edgeprune.core.units import parse_latency


@click.group("bench", cls=Commands)
def bench_group() -> None:
    """Compare methods on the papers' networks, or on convolutional ones."""


@bench_group.command("paper")
@click.option("--data", default="mnist", metavar="DATA", help="mnist, fashion-mnist, cifar10 or a PATH  [mnist]")
@click.option("--data-dir", type=click.Path(path_type=Path), metavar="DIR", help="where the data sets' files are")
@click.option("--model", metavar="MODEL", help="another network than the paper's: of the zoo, or FILE.py:FUNCTION")
@click.option(
    "--methods", metavar="ROWS", help="rows by comma, METHOD[@NCR][+CRITERION]: acnn,edgeprune@5,random+taylor"
)
@click.option(
    "--seeds", type=int, metavar="N", help="seeds, each with its own split and network  [3; 5 with --budget-evals]"
)
@click.option(
    "--episodes", type=int, default=80, metavar="N", help="episodes of a search, of acnn 20 times as many, amc 5  [80]"
)
@click.option("--train-epochs", type=int, metavar="N", help="epochs of the unpruned networks  [30; big ones 10]")
@click.option("--finetune-epochs", type=int, metavar="N", help="epochs of fine-tuning, for all  [100; big ones 20]")
@click.option("--budget-evals", type=int, metavar="N", help="compare the searches at N evaluations each instead")
@click.option(
    "--beta/--no-beta", default=None, help="sweep beta as well: accuracy and NCR against it  [with the whole table]"
)
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="the bench's folder  [bench/DATA]")
@click.option("--quiet", is_flag=True, help="no progress; only the table")
def paper_command(
    data: str,
    data_dir: Path | None,
    model: str | None,
    methods: str | None,
    seeds: int | None,
    episodes: int,
    train_epochs: int | None,
    finetune_epochs: int | None,
    budget_evals: int | None,
    beta: bool | None,
    out: Path | None,
    quiet: bool,
) -> int:
    """Run the papers' methods on 784-300-100-10 (1024-1024 for colour images), and print one table.

    A finished cell is not run again: interrupt it, add rows or seeds, and type the command once more.
    """
    # Importing torch takes seconds, which --help should not.
    from edgeprune.papers.bench import run_bench  # noqa: PLC0415
    from edgeprune.papers.bench_config import BenchConfig  # noqa: PLC0415
    from edgeprune.papers.published import PUBLISHED  # noqa: PLC0415

    printed = PUBLISHED.get(published_name(data), {}) if model is None else {}
    targets = {name: row.ncr[0] for name, row in printed.items()}
    if targets:
        # Ours and the simple searches are held to what the paper's own method reached.
        targets[""] = targets["acnn"]
    folder = out or Path("bench") / "-".join([Path(data).name, *([] if model is None else [_file_name(model)])])
    config = BenchConfig(
        data=data,
        data_dir=data_dir,
        model=model,
        methods=None if methods is None else tuple(name.strip() for name in methods.split(",") if name.strip()),
        seeds=seeds if seeds is not None else 3 if budget_evals is None else 5,
        episodes=episodes,
        train_epochs=train_epochs,
        finetune_epochs=finetune_epochs,
        targets=targets,
        budget_evals=budget_evals,
        beta=beta,
        out=folder,
        published=published_name(data) if printed else "",
    )
    for line in run_bench(config, watching(quiet=quiet)):
        # Said before, but long ago, and not with --quiet.
        click.echo(line, err=True)
    _show_paper(folder)
    return 0


def _file_name(model: str) -> str:
    """Of `net.py:network` net-network: something that a folder may be called."""
    path, _, function = model.rpartition(":")
    return f"{Path(path).stem}-{function}" if path else function


def _show_paper(folder: Path) -> None:
    """Write the tables and figures of a bench into its folder, and print them."""
    from edgeprune.papers.figures import draw_figures  # noqa: PLC0415
    from edgeprune.papers.records import load_bench  # noqa: PLC0415
    from edgeprune.papers.table import (  # noqa: PLC0415
        evals_markdown,
        evals_table,
        paper_csv,
        paper_markdown,
        paper_table,
        sparsity_line,
        sparsity_markdown,
    )

    bench = load_bench(folder)
    texts = [paper_markdown(bench) if bench.cells else "", evals_markdown(bench), sparsity_markdown(bench)]
    write_bytes(folder / "table.md", "\n\n".join(text for text in texts if text).encode())
    write_bytes(folder / "table.csv", paper_csv(bench).encode())
    figures = draw_figures(bench, folder)
    console = Console(highlight=False, markup=False)
    if bench.cells:
        console.print(paper_table(bench))
    if (evals := evals_table(bench)) is not None:
        console.print(evals)
        console.print(sparsity_line(bench))
    for path in (folder / "table.md", folder / "table.csv", *figures):
        console.print(str(path), soft_wrap=True)


@bench_group.command("conv")
@click.option("--networks", metavar="NAMES", help="by comma  [ds-cnn,mobilenetv2-small,resnet20]")
@click.option("--methods", metavar="NAMES", help="by comma  [edgeprune,amc,greedy,random,uniform,tpe,scratch]")
@click.option("--bounds", metavar="BOUNDS", help="on latency  [0.7x,0.5x,0.35x; resnet20 0.8x,0.7x,0.6x]")
@click.option(
    "--seeds",
    type=int,
    metavar="N",
    help="seeds, each with its own split and network  [ds-cnn 3, mobilenetv2-small 2, resnet20 1]",
)
@click.option("--episodes", type=int, metavar="N", help="candidates of every search  [by network]")
@click.option("--train-images", type=int, metavar="N", help="training images; a third as many validate  [by network]")
@click.option("--train-epochs", type=int, metavar="N", help="epochs of the unpruned networks  [by network]")
@click.option("--finetune-epochs", type=int, metavar="N", help="epochs of fine-tuning, for all  [by network]")
@click.option(
    "--finish", metavar="NAMES", help="methods that are fine-tuned  [all; resnet20 edgeprune,uniform,scratch]"
)
@click.option("--device", default="local", metavar="NAME", help="where latency is measured  [local]")
@click.option("--data-dir", type=click.Path(path_type=Path), metavar="DIR", help="where data sets and weights are")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("bench/conv"), metavar="DIR", help="the folder  [bench/conv]"
)
@click.option("--quiet", is_flag=True, help="no progress; only the tables")
def conv_command(
    networks: str | None,
    methods: str | None,
    bounds: str | None,
    seeds: int | None,
    episodes: int | None,
    train_images: int | None,
    train_epochs: int | None,
    finetune_epochs: int | None,
    finish: str | None,
    device: str,
    data_dir: Path | None,
    out: Path,
    quiet: bool,
) -> int:
    """Compare searches on convolutional networks at bounds on measured latency, and print a table per network.

    All searches try as many candidates; beside them stands a narrower network trained from scratch. A finished part is
    not done again: interrupt it, and type the command once more.
    """
    # Importing torch takes seconds, which --help should not.
    from edgeprune.papers.conv.config import NETWORKS, ROWS, ConvConfig  # noqa: PLC0415
    from edgeprune.papers.conv.run import run_conv  # noqa: PLC0415

    config = ConvConfig(
        networks=_names(networks) or tuple(NETWORKS),
        methods=_names(methods) or ROWS,
        bounds=None if bounds is None else tuple(_share(text) for text in _names(bounds)),
        seeds=seeds,
        episodes=episodes,
        images=train_images,
        train_epochs=train_epochs,
        finetune_epochs=finetune_epochs,
        finished=None if finish is None else _names(finish),
        device=device,
        data_dir=data_dir,
        out=out,
    )
    for line in run_conv(config, watching(quiet=quiet)):
        # Said before, but long ago, and not with --quiet.
        click.echo(line, err=True)
    _show_conv(out)
    return 0


def _show_conv(out: Path) -> None:
    """Write the tables and the figure of a bench into its folder, and print them."""
    from edgeprune.papers.conv.figure import draw_conv  # noqa: PLC0415
    from edgeprune.papers.conv.records import load_conv  # noqa: PLC0415
    from edgeprune.papers.conv.table import conv_csv, conv_markdown, conv_tables  # noqa: PLC0415

    bench = load_conv(out)
    write_bytes(out / "table.md", conv_markdown(bench).encode())
    write_bytes(out / "table.csv", conv_csv(bench).encode())
    written = [out / "table.md", out / "table.csv"]
    if draw_conv(bench, out / "front.png"):
        written.append(out / "front.png")
    console = Console(highlight=False, markup=False)
    for table in conv_tables(bench):
        console.print(table)
        console.print()
    for path in written:
        console.print(str(path), soft_wrap=True)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))


def _share(text: str) -> float:
    bound = parse_latency(text, "--bounds")
    if not bound.relative:
        raise UsageError(f"--bounds: expected shares like 0.5x, got {text:.60}", "see edgeprune bench conv --help")
    return bound.value


def published_name(data: str) -> str:
    """The paper's data set that `data` is: CIFAR-10's JPEG archive counts as CIFAR-10."""
    return "cifar10" if re.match(r"cifar10(?!\d)", Path(data).name.lower()) else data
