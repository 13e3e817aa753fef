"""`bench paper` on the embedded digits: cells, resuming, the table, the comparison at equal evaluations."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from edgeprune.core.errors import UsageError
from edgeprune.core.progress import Silent
from edgeprune.core.version import VERSION
from edgeprune.papers import bench, workbench
from edgeprune.papers.bench import run_bench
from edgeprune.papers.bench_config import COMPARED, BenchConfig, Label, parse_label
from edgeprune.papers.records import load_bench

ROWS = ("unpruned", "l0", "acnn", "edgeprune", "edgeprune@4", "random+l2")


@pytest.fixture(scope="module", autouse=True)
def _few_steps() -> Iterator[None]:
    """Figures are not judged here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workbench, "BRIEF_STEPS", 10)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> BenchConfig:
    config = BenchConfig(
        data="digits",
        methods=ROWS,
        seeds=1,
        episodes=10,
        train_epochs=4,
        finetune_epochs=3,
        targets={"": 2.5, "l0": 2.0},
        out=tmp_path_factory.mktemp("bench") / "digits",
    )
    run_bench(config, Silent())
    return config


def cell(config: BenchConfig, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((config.out / "cells" / f"{name}-0.json").read_bytes())
    return found


def test_every_row_has_a_cell_that_says_what_was_done(made: BenchConfig) -> None:
    loaded = load_bench(made.out)
    assert {one.method for one in loaded.cells} == set(ROWS)
    assert loaded.net == (64, 300, 100, 10)
    for one in loaded.cells:
        assert one.finetune_epochs == 3
        assert one.error == pytest.approx(100 * (one.baseline_accuracy - one.accuracy))
        left = sum(one.widths.values())
        assert one.ncr == pytest.approx(464 / left)
        expected = (one.widths["inputs"] * one.widths["fc1"] + one.widths["fc1"] * one.widths["fc2"]
                    + one.widths["fc2"] * 10) / (64 * 300 + 300 * 100 + 100 * 10)  # fmt: skip
        assert one.macs_share == pytest.approx(expected)


def test_rows_reach_the_rate_that_is_theirs(made: BenchConfig) -> None:
    asked = {"l0": 2.0, "acnn": 2.5, "edgeprune": 2.5, "edgeprune@4": 4.0, "random+l2": 2.5}
    for name, ncr in asked.items():
        found = cell(made, name)
        assert found["ncr_target"] == ncr
        if name != "acnn":
            # The paper's agent may miss it: nothing holds it to the rate.
            assert ncr <= float(str(found["ncr"]))
        if not name.startswith(("acnn", "random")):
            # A draw may overshoot; whoever searches does not give away what nobody asked for.
            assert float(str(found["ncr"])) < 1.1 * ncr


def test_rows_are_what_their_papers_say(made: BenchConfig) -> None:
    acnn, ours, chance = (cell(made, name) for name in ("acnn", "edgeprune", "random+l2"))
    assert (acnn["criterion"], acnn["repair"]) == ("l1", False)
    assert (ours["criterion"], ours["repair"]) == ("reconstruction", True)
    assert chance["criterion"] == "l2"
    # The paper's reward comes after every group: three evaluations an episode, of up to twenty times as many.
    evaluations = int(str(acnn["evaluations"]))
    assert evaluations % 3 == 0
    assert 300 <= evaluations <= 600
    assert ours["evaluations"] == 10
    assert acnn["agent_sparsity"] is not None
    assert chance["agent_sparsity"] is None
    assert int(str(cell(made, "l0")["method_epochs"])) > 0


def test_weights_are_full_size_with_zeros_where_neurons_went(made: BenchConfig) -> None:
    before, after = (load_file(made.out / "weights" / f"{name}-0.safetensors") for name in ("baseline", "edgeprune"))
    widths = cell(made, "edgeprune")["widths"]
    assert isinstance(widths, dict)
    assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}
    assert (after["fc1.weight"].any(1)).sum() == widths["fc1"]
    assert (after["fc1.weight"].any(0)).sum() == widths["inputs"]
    assert (after["fc3.weight"].any(0)).sum() == widths["fc2"]
    assert before["fc1.weight"].any(1).all()


def test_searches_of_ours_come_to_their_widths_as_runs_do(
    made: BenchConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "digits"
    shutil.copytree(made.out, out)
    for name in ("unpruned", "random+l2"):
        (out / "cells" / f"{name}-0.json").unlink()
    seen: list[dict[str, int]] = []
    real = bench.prune_and_tune

    def noted(network: Any, structure: Any, widths: dict[str, int], *rest: Any, **settings: Any) -> Any:
        seen.append(widths)
        return real(network, structure, widths, *rest, **settings)

    monkeypatch.setattr(bench, "prune_and_tune", noted)
    run_bench(replace(made, methods=(*ROWS, "amc"), out=out), Silent())
    assert (out / "cells" / "amc-0.json").exists()
    # Not the papers' own methods, and not the control.
    assert seen == [cell(made, "random+l2")["widths"]]


def test_finished_cells_are_not_run_again(made: BenchConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "digits"
    shutil.copytree(made.out, out)
    (out / "cells" / "edgeprune-0.json").unlink()
    ran = []
    whole = bench._finish

    def noted(config: BenchConfig, label: Label, *rest: Any) -> None:
        ran.append(label.text)
        whole(config, label, *rest)

    monkeypatch.setattr(bench, "_finish", noted)
    monkeypatch.setattr(workbench, "train", _never)
    run_bench(replace(made, out=out), Silent())
    assert ran == ["edgeprune"]
    again = json.loads((out / "cells" / "edgeprune-0.json").read_bytes())
    first = cell(made, "edgeprune")
    for key in ("widths", "accuracy", "rewards", "losses", "agent_sparsity"):
        assert again[key] == first[key], key


def _never(*_: object, **__: object) -> None:
    pytest.fail("the unpruned network was trained again")


def test_a_rate_out_of_reach_leaves_only_its_own_row_out(made: BenchConfig, tmp_path: Path) -> None:
    shutil.copytree(made.out, tmp_path / "copy")
    left_out = run_bench(replace(made, methods=("l0@100", "uniform@100", *ROWS), out=tmp_path / "copy"), Silent())
    assert [line.partition(" is out of reach")[0] for line in left_out] == [
        "left out: l0@100, seed 0: an NCR of 100",
        "left out: uniform@100, seed 0: an NCR of 100",
    ]
    assert {one.method for one in load_bench(tmp_path / "copy").cells} == set(ROWS)


def test_other_settings_need_another_folder(made: BenchConfig) -> None:
    with pytest.raises(UsageError, match="was made with finetune epochs 3, not 5"):
        run_bench(replace(made, finetune_epochs=5, methods=("uniform",)), Silent())
    assert not (made.out / "cells" / "uniform-0.json").exists()


def test_other_settings_are_heard_where_nothing_is_left_to_do(made: BenchConfig) -> None:
    with pytest.raises(UsageError, match="was made with episodes 10, not 20"):
        run_bench(replace(made, episodes=20), Silent())
    # What is not given is what the folder has.
    run_bench(replace(made, finetune_epochs=None), Silent())


def test_cells_say_what_made_them(made: BenchConfig) -> None:
    assert {(one.edgeprune, one.machine) for one in load_bench(made.out).cells} == {(VERSION, workbench.machine())}


def test_other_data_need_another_folder(made: BenchConfig, tmp_path: Path) -> None:
    out = tmp_path / "digits"
    shutil.copytree(made.out, out)
    note = out / "baseline-0.json"
    note.write_text(json.dumps({**json.loads(note.read_bytes()), "data": "another"}))
    with pytest.raises(UsageError, match="digits was made with other data than digits now holds"):
        run_bench(replace(made, out=out, methods=("uniform",)), Silent())


@pytest.mark.soak
def test_equal_evaluations(made: BenchConfig, tmp_path: Path) -> None:
    out = tmp_path / "digits"
    shutil.copytree(made.out, out)
    before = load_bench(out)
    run_bench(replace(made, out=out, budget_evals=12, methods=None, seeds=2), Silent())
    # Fewer seeds take none away.
    run_bench(replace(made, out=out, budget_evals=12, methods=None), Silent())
    loaded = load_bench(out)
    assert (loaded.methods, loaded.seeds) == (before.methods, before.seeds)
    evals = loaded.evals
    assert evals is not None
    assert set(evals.methods) == set(COMPARED)
    assert evals.budget == 12
    assert evals.seeds == (0, 1)
    for name, each in evals.methods.items():
        for curve in each.curves:
            # A walk over three groups takes whole rounds.
            assert len(curve) == 12 or (name == "greedy" and 10 <= len(curve) <= 12)
            assert list(curve) == sorted(curve)
        assert each.final == tuple(curve[-1] for curve in each.curves)
    sparsity = load_bench(out).sparsity
    assert sparsity is not None
    assert sparsity.none.sparsity[0] < 0.01


def test_beta_moves_the_balance(made: BenchConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BETAS", (0.01, 10.0))
    out = tmp_path / "digits"
    shutil.copytree(made.out, out)
    run_bench(replace(made, out=out, beta=True), Silent())
    sweep = load_bench(out).beta
    assert sweep is not None
    few, many = sweep.points
    assert few.ncr < many.ncr
    assert few.accuracy >= many.accuracy


def test_beta_is_swept_with_the_whole_table() -> None:
    assert BenchConfig().sweeps
    assert not BenchConfig(beta=False).sweeps
    assert not BenchConfig(methods=("amc",)).sweeps
    assert BenchConfig(methods=("amc",), beta=True).sweeps


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("edgepune", "unknown method 'edgepune'"),
        ("edgeprune@x", "'x' is no neuron compression rate"),
        ("edgeprune@0.5", "'0.5' is no neuron compression rate"),
        ("random+l3", "unknown criterion 'l3'"),
        ("cges+l2", "cges has no criterion"),
        ("unpruned@5", "unpruned is not pruned"),
        ("edgeprune@", "'' is no neuron compression rate"),
        ("random+", "unknown criterion ''"),
    ],
)
def test_rows_that_make_no_sense(text: str, wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong):
        parse_label(text)
    with pytest.raises(UsageError):
        BenchConfig(methods=(text,))


@pytest.mark.parametrize(("settings", "option"), [({"beta": True}, "--beta"), ({"methods": ("amc",)}, "--methods")])
def test_equal_evaluations_take_no_rows(settings: dict[str, Any], option: str) -> None:
    with pytest.raises(UsageError, match="--budget-evals compares edgeprune, ") as caught:
        BenchConfig(budget_evals=20, **settings)
    assert caught.value.hint == f"leave out {option}"


def test_row_names() -> None:
    label = parse_label("random@3.5+taylor")
    assert (label.method, label.ncr, label.criterion) == ("random", 3.5, "taylor")
