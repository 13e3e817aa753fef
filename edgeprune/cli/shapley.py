"""`edgeprune shapley`: what each channel of a layer is worth, and the network without the least useful."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import click

from edgeprune.cli.screen import watching


@click.command("shapley", epilog="Exit codes: 0 done, 1 failed here, 2 usage, 130 interrupted.")
@click.option("--data", default="digits", show_default=True, metavar="DATA", help="as for run")
@click.option(
    "--data-dir", type=click.Path(path_type=Path), metavar="DIR", help="where the standard data sets' files are"
)
@click.option("--model", default="mlp-32-16", show_default=True, metavar="MODEL", help="as for run")
@click.option(
    "--weights", type=click.Path(path_type=Path), metavar="FILE", help="trained weights; none: a baseline is trained"
)
@click.option("--layer", metavar="GROUP", help="whose channels are valued; inputs: the input features [last hidden]")
@click.option("--keep", type=float, default=0.5, show_default=True, metavar="SHARE", help="share that stays")
@click.option(
    "--permutations",
    type=int,
    default=200,
    show_default=True,
    metavar="N",
    help="permutations of more than 10 channels",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, metavar="N", help="of everything random"
)
@click.option("--images", type=int, metavar="N", help="validation images that coalitions are scored on [all]")
@click.option("--prune-frozen", is_flag=True, help="as for run")
@click.option("--finetune-epochs", type=int, default=20, show_default=True, metavar="N", help="epochs of distillation")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="a new folder [in runs/, from model and data]"
)
@click.option("--json", "as_json", is_flag=True, help="print shapley.json instead of the summary")
@click.option("--quiet", is_flag=True, help="no progress; only the outcome")
def shapley_command(as_json: bool, quiet: bool, **values: Any) -> int:
    """Value a layer's channels, prune the least useful, fine-tune, validate, export.

    Shapley values of accuracy: sampled, with standard errors; exact for up to 10 channels. The cost is said first.
    """
    # They bring torch, which takes seconds that help and a wrong option should not.
    from edgeprune.papers.shapley import ShapleyConfig, run_shapley  # noqa: PLC0415
    from edgeprune.papers.shapley_table import draw_shapley  # noqa: PLC0415

    config = ShapleyConfig(**values)
    screen = watching(quiet=quiet or as_json)
    # The user's model and data may print: stdout is for our result alone.
    with contextlib.redirect_stdout(sys.stderr):
        outcome = run_shapley(config, screen)
        pictures = draw_shapley(outcome.result, outcome.incoming, outcome.outgoing, outcome.folder)
    if as_json:
        click.echo(json.dumps(outcome.result, indent=1))
        return 0
    result = outcome.result
    layer, accuracy = result["layer"], result["accuracy"]
    click.echo(
        f"layer {layer['name']}: {layer['channels']} -> {layer['kept']} {layer['kind']}; test accuracy "
        f"{100 * accuracy['unpruned']:.2f} % unpruned, {100 * accuracy['pruned']:.2f} % pruned, "
        f"{100 * accuracy['fine_tuned']:.2f} % fine-tuned"
    )
    for name in [*(item["path"] for item in result["artifacts"]), "shapley.json", *(path.name for path in pictures)]:
        click.echo(f"{outcome.folder / name}")
    return 0
