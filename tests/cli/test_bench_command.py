from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeprune.cli.bench import published_name
from edgeprune.cli.main import cli, main

SMALL = ["--data", "digits", "--seeds", "1", "--episodes", "10", "--train-epochs", "3", "--finetune-epochs", "2"]


def test_a_small_bench_from_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "b"
    given = ["bench", "paper", *SMALL, "--methods", "uniform,edgeprune@4", "--out", str(out)]
    done = CliRunner().invoke(cli, [*given, "--quiet"], catch_exceptions=False)
    assert done.exit_code == 0
    for said in ("uniform", "edgeprune@4", "table.md", "rewards.png"):
        assert said in done.stdout
    assert (out / "table.csv").read_text().count("\n") == 3
    assert "edgeprune@4" in (out / "table.md").read_text()
    # Once more: nothing is left to do, and the same table.
    times = {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}
    again = CliRunner().invoke(cli, [*given, "--quiet"], catch_exceptions=False)
    assert again.stdout == done.stdout
    assert {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir()} == times


@pytest.mark.soak
def test_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["bench", "paper", *SMALL, "--model", "lenet5", "--methods", "uniform@2", "--quiet"]
    assert CliRunner().invoke(cli, given, catch_exceptions=False).exit_code == 0
    cells = [json.loads(path.read_text()) for path in Path("bench/digits-lenet5/cells").iterdir()]
    assert [cell["ncr"] >= 2 for cell in cells] == [True]
    assert json.loads(Path("bench/digits-lenet5/bench.json").read_text())["model"] == "lenet5"
    # The folder is that network's.
    with pytest.raises(SystemExit) as stop:
        main(["bench", "paper", *SMALL, "--methods", "uniform@2", "--out", "bench/digits-lenet5", "--quiet"])
    assert stop.value.code == 2
    assert "was made with model lenet5, not none given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--methods", "acn"], "error: unknown method 'acn'; did you mean 'acnn'"),
        (["--methods", "uniform+l3"], "error: 'uniform+l3': unknown criterion 'l3'"),
        (["--seeds", "0"], "error: --seeds must be at least 1"),
        (["--budget-evals", "3"], "error: --budget-evals must be at least 10"),
        (["--data", "mnits"], "error: unknown data set 'mnits'"),
        (["--sedes", "3"], "error: No such option"),
        (["--budget-evals", "20", "--beta"], "error: --budget-evals compares edgeprune, edgeprune-noprox, amc"),
    ],
)
def test_bad_input_is_one_line(
    given: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["bench", "paper", *given, "--quiet"])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(says)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("mnist", "mnist"),
        ("cifar10", "cifar10"),
        ("some/where/CIFAR10-jpeg.zip", "cifar10"),
        ("cifar100.npz", "cifar100.npz"),
        ("mycifar10.zip", "mycifar10.zip"),
    ],
)
def test_which_data_have_a_printed_table(data: str, name: str) -> None:
    assert published_name(data) == name


def test_a_rate_out_of_reach_is_told_with_quiet_too(tmp_path: Path) -> None:
    given = ["bench", "paper", *SMALL, "--methods", "unpruned,uniform@99", "--out", str(tmp_path / "b"), "--quiet"]
    done = CliRunner().invoke(cli, given, catch_exceptions=False)
    assert done.exit_code == 0
    assert "left out: uniform@99, seed 0: an NCR of 99 is out of reach" in done.stderr
