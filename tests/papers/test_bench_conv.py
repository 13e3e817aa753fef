"""`bench conv` on the embedded digits and a made-up device: cells, resuming, what methods share, widths of a family."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgeprune.cli.main import cli
from edgeprune.core.clock import Laps
from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import UsageError
from edgeprune.core.progress import Silent
from edgeprune.models.zoo import FAMILIES
from edgeprune.papers.conv import bench as bench_conv
from edgeprune.papers.conv import config as bench_conv_config
from edgeprune.papers.conv.bench import Ledger, distinct_widths, widest
from edgeprune.papers.conv.config import NETWORKS, ROWS, ConvConfig
from edgeprune.papers.conv.pace import Pace, Part, format_hours, parts_of
from edgeprune.papers.conv.records import ConvBench, load_conv
from edgeprune.papers.conv.run import run_conv

pytestmark = pytest.mark.soak

METHODS = ("edgeprune", "random", "uniform", "tpe", "scratch")
TINY = replace(
    NETWORKS["ds-cnn"], data="digits", shape=(1, 8, 8), bounds=(0.6,), seeds=1, images=600, train_epochs=4,
    finetune_epochs=1, episodes=3, search_steps=1,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _tiny_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_conv_config, "NETWORKS", {"ds-cnn": TINY})
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ConvConfig:
    folder = tmp_path_factory.mktemp("conv")
    device = folder / "device.toml"
    # Latency goes with the size of the file.
    device.write_text("seed = 1\n[latency]\nbase_s = 1e-4\ns_per_byte = 2e-8\nnoise = 0.005\n")
    return ConvConfig(
        networks=("ds-cnn",), methods=METHODS, device=f"simulated://{device}", out=folder / "out",
        # The others by score.
        finished=("edgeprune", "uniform", "scratch"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(config: ConvConfig) -> ConvBench:
    assert run_conv(config, Silent()) == []
    return load_conv(config.out)


def cell(folder: Path, method: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "cells" / f"ds-cnn@0.6-{method}-0.json").read_bytes())
    return found


def test_every_search_tries_as_many_plans_and_chooses_one_that_keeps_the_bound(
    made: ConvBench, config: ConvConfig
) -> None:
    assert {each.method for each in made.cells} == set(METHODS)
    for method in METHODS[:-1]:
        found = cell(config.out, method)
        assert found["evaluations"] == len(found["tried"]) == 3
        assert found["keeps"]
        assert found["latency"]["high"] <= 0.6
        assert found["score"] in [score for score, _ in found["tried"]]
        # Whoever came first: each is charged for what it asked for.
        assert found["seconds"]["host"] > 0
        assert found["seconds"]["device"] > 0


def test_what_goes_to_the_end_is_judged_and_raced(made: ConvBench, config: ConvConfig) -> None:
    finished = {each.method: made.end(each) for each in made.cells}
    assert {name for name, end in finished.items() if end} >= {"edgeprune", "uniform", "scratch"}
    for end in made.finished.values():
        assert end.images == 359
        assert end.accuracy == pytest.approx(end.answers.mean())
        assert end.lost == pytest.approx(100 * (end.baseline_accuracy - end.accuracy))
        assert 0 < end.macs_share < 1
        assert end.latency.low <= end.latency.value <= end.latency.high < 0.7
    assert json.loads((config.out / "finished" / f"ds-cnn-{cell(config.out, 'scratch')['key']}-0.json").read_bytes())[
        "epochs"
    ] == (TINY.train_epochs + TINY.finetune_epochs)


def test_a_plan_is_tuned_once_whoever_chose_it(made: ConvBench) -> None:
    keys = {(each.network, each.key, each.seed) for each in made.cells}
    assert made.finished.keys() <= keys


def test_only_what_is_missing_is_done_again(
    made: ConvBench, config: ConvConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(config.out, out)
    (out / "cells" / "ds-cnn@0.6-uniform-0.json").unlink()
    key = cell(config.out, "edgeprune")["key"]
    (out / "finished" / f"ds-cnn-{key}-0.json").unlink()
    searched: list[Any] = []
    tuned: list[Any] = []
    seek, prune_and_tune = bench_conv.seek, bench_conv.prune_and_tune

    def noted(shop: Any, narrowest: Any, searcher: Any, *rest: Any, **settings: Any) -> Any:
        searched.append(searcher.method.search)
        return seek(shop, narrowest, searcher, *rest, **settings)

    def also_noted(network: Any, structure: Any, widths: Any, *rest: Any, **settings: Any) -> Any:
        tuned.append(dict(widths))
        return prune_and_tune(network, structure, widths, *rest, **settings)

    monkeypatch.setattr(bench_conv, "seek", noted)
    monkeypatch.setattr(bench_conv, "prune_and_tune", also_noted)
    monkeypatch.setattr("edgeprune.pipeline.baseline.train", _never)
    monkeypatch.setattr("edgeprune.training.brief.BriefTuning.__call__", _never)
    run_conv(replace(config, out=out), Silent())
    assert searched == [bench_conv_config.SEARCHES["uniform"].search]
    assert tuned == [cell(config.out, "edgeprune")["widths"]]
    again, first = cell(out, "uniform"), cell(config.out, "uniform")
    for name in ("key", "widths", "score", "tried", "evaluations"):
        assert again[name] == first[name], name
    # What it took was kept as well.
    assert again["seconds"]["host"] == pytest.approx(first["seconds"]["host"], abs=0.05)


def _never(*_: object, **__: object) -> None:
    pytest.fail("what was done is done again")


def test_other_settings_need_another_folder(made: ConvBench, config: ConvConfig) -> None:
    with pytest.raises(UsageError, match="was made with episodes 3 for ds-cnn, not 5"):
        run_conv(replace(config, episodes=5), Silent())
    with pytest.raises(UsageError, match="was made with device simulated://"):
        run_conv(replace(config, device="local"), Silent())


def test_a_bound_that_nothing_keeps_leaves_its_cells_out(made: ConvBench, config: ConvConfig, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(config.out, out)
    lines = run_conv(replace(config, out=out, bounds=(0.01,), methods=("uniform", "scratch")), Silent())
    assert len(lines) == 2
    assert lines[0].startswith("left out: ds-cnn at 0.01x, uniform, seed 0: latency of ")
    assert lines[1] == "left out: ds-cnn at 0.01x, scratch, seed 0: no width from 0.90625 to 0.15625 keeps the bound"
    assert len(load_conv(out).cells) == len(made.cells)


def test_the_command_prints_the_tables_of_what_is_there(made: ConvBench, config: ConvConfig) -> None:
    given = ["bench", "conv", "--networks", "ds-cnn", "--methods", ",".join(METHODS), "--device", config.device,
             "--finish", "edgeprune,uniform,scratch", "--out", str(config.out), "--quiet"]  # fmt: skip
    done = CliRunner().invoke(cli, given, catch_exceptions=False)
    assert done.exit_code == 0
    for said in ("ds-cnn", "scratch", "all networks", "table.md", "table.csv", "front.png"):
        assert said in done.stdout
    assert (config.out / "table.csv").read_text().count("\n") == 1 + len(made.cells)
    assert (config.out / "front.png").stat().st_size > 1000


def test_the_widest_that_keeps_the_bound_is_found_though_narrower_ones_break_it() -> None:
    widths = [width / 8 for width in range(7, 0, -1)]
    # Layers whose channels are no whole blocks are slower than wider ones.
    assert widest(widths, lambda width: width in (0.75, 0.25)) == 0.75
    assert widest(widths, lambda width: width <= 0.3) == 0.25
    assert widest(widths, lambda _: False) is None


def test_widths_of_a_family_are_different_networks() -> None:
    widths = distinct_widths(lambda width: FAMILIES["ds-cnn"]((1, 8, 8), 10, width))
    sizes = [sum(p.numel() for p in FAMILIES["ds-cnn"]((1, 8, 8), 10, width).parameters()) for width in widths]
    assert sizes == sorted(set(sizes), reverse=True)
    # 56 channels, 48, ... 8, and not the whole one.
    assert len(widths) == 7


def test_seconds_are_charged_to_everybody_who_asks_and_outlive_the_process(tmp_path: Path) -> None:
    plans = [PruningPlan({"a": tuple(range(count))}) for count in (1, 2)]
    spent = {plan.key: Laps() for plan in plans}
    for laps in spent.values():
        laps._seconds = {"scoring": 2.0, "device": 0.5}
    Ledger(tmp_path / "seconds.json", spent).note(plans)
    again = Ledger(tmp_path / "seconds.json", {})
    again.note(plans)
    for _ in range(2):
        assert again.charge([*plans, plans[0]], "scoring", "device") == 5.0
        assert again.charge(plans[:1], "device") == 0.5


def test_what_is_left_follows_what_parts_really_took() -> None:
    config = ConvConfig(networks=("ds-cnn",), methods=("uniform", "scratch"))
    parts = list(parts_of(config, "ds-cnn", 0))
    assert [(part.method, part.what) for part in parts] == [
        ("uniform", "search"), ("scratch", "search"), ("uniform", "finish"), ("scratch", "finish"),
    ]  # fmt: skip
    pace = Pace(config, parts, lambda *_: 0.1)
    whole = pace.left
    assert whole == pytest.approx(pace.network("ds-cnn"))
    pace.begun("ds-cnn", 0, 1e-9)
    pace.done(parts[0], 1e-9)
    assert pace.parts == 3
    assert pace.left < 1e-3 * whole
    slow = Pace(config, parts, lambda *_: 0.2)
    assert slow.left > whole
    assert Part("ds-cnn", 0, 0.6, "uniform", "search") == parts[0]
    assert format_hours(3 * 3600 + 299) == "3 h 05 min"
    assert format_hours(20) == "1 min"


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"networks": ("ds-cn",)}, "--networks: unknown name 'ds-cn'"),
        ({"methods": ("acnn",)}, "--methods: unknown name 'acnn'"),
        ({"finished": ("unform",)}, "--finish: unknown name 'unform'"),
        ({"bounds": (1.5,)}, "--bounds: expected shares like 0.5x, below 1x, got 1.5x"),
        ({"episodes": 0}, "--episodes must be at least 1"),
        ({"images": 5}, "--train-images must be at least 100"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong):
        ConvConfig(**{"networks": ("ds-cnn",), **given})


def test_without_optuna_the_row_that_needs_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else real(name))
    with pytest.raises(UsageError, match="tpe needs Optuna, which is not installed") as caught:
        ConvConfig(networks=("ds-cnn",))
    assert caught.value.hint == "type pip install -c constraints.txt optuna, or leave tpe out of --methods"
    ConvConfig(networks=("ds-cnn",), methods=tuple(name for name in ROWS if name != "tpe"))
