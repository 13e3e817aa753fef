"""The whole job on real digits, with real runtimes in real processes; small, so figures are not judged here."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgeprune
from edgeprune.artifacts import read_metadata, run_model
from edgeprune.cli.outcome import show_run
from edgeprune.core.errors import BudgetError, StorageError, UsageError
from edgeprune.core.files import sha256_file
from edgeprune.core.plain import from_json, to_json
from edgeprune.core.progress import Silent
from edgeprune.core.schema import RESULT_SCHEMA
from edgeprune.core.store import RunFolder
from edgeprune.data.catalog import load_data
from edgeprune.devices import find_device, open_session
from edgeprune.pipeline.config import make_config
from edgeprune.pipeline.export import PlanFile
from edgeprune.pipeline.records.result import Result
from edgeprune.pipeline.result import RunResult
from edgeprune.pipeline.stored import finished, repeated
from edgeprune.pipeline.tuned import TunedNote

SMALL: dict[str, Any] = {
    "episodes": 8,
    "train_epochs": 6,
    "finetune_epochs": 3,
    "finalists": 2,
    "processes": 3,
    "calibration_images": 500,
}
#: Where the search is not what is looked at.
FEW = "--episodes=3"
#: Where neither the files nor the figures are: the other format and the races are most of a small run.
ONE = SMALL | {"formats": "onnx", "device": "made-up"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, made_up: str) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def done(runs: Path) -> RunResult:
    return edgeprune.run(edgeprune.RunConfig(runs_dir=runs, name="first", **SMALL))


def trials(folder: Path) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(folder / "trials.sqlite")
    found = db.execute("SELECT trial, plan, accuracy, latency_share, reward, executed FROM trials").fetchall()
    db.close()
    return found


def test_result_holds_what_the_interface_promises(done: RunResult) -> None:
    result = json.loads((done.folder / "result.json").read_text())
    assert result == json.loads(json.dumps(done.result))
    assert result["schema"] == RESULT_SCHEMA
    assert result["status"] in ("done", "budget-not-met")
    # The record, whose fields the page tells of, is the file: nothing is in one that is not in the other.
    assert to_json(from_json(Result, result)) == result
    plan = json.loads((done.folder / "plan.json").read_text())
    assert to_json(from_json(PlanFile, plan)) == plan
    for path in (done.folder / "tuned").glob("*.json"):
        note = json.loads(path.read_text())
        assert to_json(from_json(TunedNote, note)) == note
    assert {item["format"] for item in result["artifacts"]} == {"onnx", "tflite"}


def test_the_file_that_was_validated_is_the_file_that_ships(done: RunResult) -> None:
    for item in done.result["artifacts"]:
        path = done.folder / item["path"]
        assert sha256_file(path) == item["sha256"]
        assert path.stat().st_size == item["bytes"]
        assert item["agreement"] >= 0.999
        assert item["bytes"] < item["baseline_bytes"]
        assert len(item["latency"]["samples"]) == len(item["baseline_latency"]["samples"]) == len(item["process"])
        assert set(item["process"]) == {0, 1, 2}
        assert item["speedup"]["ci_low"] <= item["speedup"]["value"] <= item["speedup"]["ci_high"]


def test_what_each_operator_takes_is_told_where_the_runtime_tells(done: RunResult) -> None:
    onnx, tflite = done.result["artifacts"]
    for key in ("operators", "baseline_operators"):
        assert sum("Gemm" in each["type"] for each in onnx[key]) == 3
        assert min(each["seconds"] for each in onnx[key]) >= 0
        assert tflite[key] == []
    assert onnx["operators_why"] == ""
    assert "no times per operator" in tflite["operators_why"]


def test_the_rate_asked_for_by_default_is_reached(done: RunResult) -> None:
    checks = {check["bound"]: check for check in done.result["budget"]["checks"]}
    assert checks["expect_ncr"]["met"]
    layers = done.result["compressed"]["layers"]
    assert done.result["compressed"]["neurons"] == sum(layer["kept"] for layer in layers)
    assert all(check["default"] for check in done.result["budget"]["checks"])


def test_files_take_the_full_input_and_agree_with_the_loaded_network(done: RunResult) -> None:
    network = edgeprune.load(done.folder)
    dataset = load_data("digits", None, seed=0, progress=Silent())
    x = dataset.preprocessing.apply(dataset.test.x[:50])
    with torch.no_grad():
        expected = network(torch.from_numpy(x)).numpy()
    for item in done.result["artifacts"]:
        actual = run_model(item["format"], done.folder / item["path"], x)
        np.testing.assert_allclose(actual, expected, atol=1e-4, rtol=1e-4)
        said = read_metadata(done.folder / item["path"])
        assert said["input_shape"] == [1, 8, 8]
        assert len(said["kept_inputs"]) == said["widths"]["inputs"] < 64
        assert said["classes"] == [str(digit) for digit in range(10)]
        assert said["preprocessing"]["scale"] == pytest.approx(1 / 16)


@pytest.mark.soak
def test_one_seed_and_the_same_measurements_give_the_same_trials(done: RunResult, runs: Path) -> None:
    # Figures that were disturbed are kept for the run that took them only; here another is to have them too.
    base = sqlite3.connect(runs / ".cache" / "measurements.sqlite", isolation_level=None)
    base.execute(
        "INSERT OR IGNORE INTO measurements_1 SELECT substr(key, 1, 64), at, data FROM measurements_1 "
        "WHERE instr(key, ' ')"
    )
    base.close()
    # From its own result; on a device that is open already, as a pool of boards lends it.
    options = repeated(done.folder / "result.json") | {"name": "again", "device": "rpi4"}
    with open_session(find_device("local")) as session:
        again = edgeprune.run(make_config(options, "result.json"), session=session)
        assert Path(session.scratch("still-open")).parent.is_dir()
    assert again.result["config"]["device"] == "local"
    assert trials(again.folder) == trials(done.folder)
    assert again.result["search"]["measured"] == 0
    assert again.result["baseline"]["source"] == "cached"
    assert again.result["compressed"] == done.result["compressed"]
    first, second = done.result["settled"], again.result["settled"]
    assert {name: each["value"] for name, each in second.items()} == {
        name: each["value"] for name, each in first.items()
    }


def _places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to all that is in a tree of JSON, raw samples left out."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(inside)[:40]:
        yield (*path, key)
        if not (isinstance(value, list) and len(value) > 8):
            yield from _places(value, (*path, key))


@pytest.mark.soak
def test_a_result_that_is_damaged_anywhere_is_refused_or_shown(
    done: RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = json.loads((done.folder / "result.json").read_text())
    folder = RunFolder(tmp_path)
    refused = 0
    # The table reads nothing of what was settled: one figure stands for it.
    places = [each for each in _places(whole) if each[0] != "settled" or each[1:2] == ("episodes",)]
    values = ("gone", None, "x", -1, [], {})
    for number, (*holders, last) in enumerate(places):
        # Each place is damaged in two of the ways; neighbours in others.
        for value in (values[number % 6], values[(number + 1 + number // 6 % 5) % 6]):
            damaged = copy.deepcopy(whole)
            inside = damaged
            for key in holders:
                inside = inside[key]
            if value == "gone" and isinstance(inside, dict):
                del inside[last]
            else:
                inside[last] = value
            folder.write_json("result.json", damaged)
            try:
                found = finished(folder)
            except (StorageError, UsageError):
                # The latter of another schema.
                refused += 1
                continue
            # What was not refused, the table must be able to print: `stored.Finished` names all that it reads.
            if found is not None:
                show_run(found, tmp_path, quiet=False)
    assert refused > 100
    capsys.readouterr()
    for text in ("[1]", "{}", "{", "", '{"status": "done"}', '{"status": ["done"]}'):
        (tmp_path / "result.json").write_text(text)
        with contextlib.suppress(StorageError):
            assert finished(folder) is None


def test_a_damaged_run_is_not_loaded(done: RunResult, tmp_path: Path) -> None:
    for name in ("plan.json", "pruned.safetensors"):
        (tmp_path / name).write_bytes((done.folder / name).read_bytes())
    edgeprune.load(tmp_path)
    weights = bytearray((tmp_path / "pruned.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "pruned.safetensors").write_bytes(weights)
    with pytest.raises(StorageError, match="is damaged"):
        edgeprune.load(tmp_path)
    with pytest.raises(UsageError, match="holds no pruned network"):
        edgeprune.load(tmp_path / "none")


def test_an_impossible_budget_ends_before_the_search(done: RunResult, runs: Path) -> None:
    with pytest.raises(BudgetError, match="cannot be reached on local: the fastest of the narrow networks has"):
        edgeprune.run(edgeprune.RunConfig(runs_dir=runs, name="dream", max_latency="1ns", **SMALL))
    said = json.loads((runs / "dream" / "result.json").read_text())
    assert said["status"] == "impossible"
    assert said["stage"] == "search"
    assert trials(runs / "dream") == []


#: Options of a small run of one format.
SHORT = [f"--{key.replace('_', '-')}={value}" for key, value in ONE.items()]


def command(runs: Path, name: str, *options: object) -> subprocess.CompletedProcess[str]:
    """A whole run as its user starts it."""
    line = [sys.executable, "-m", "edgeprune", "run", "--runs-dir", runs, "--name", name, *SHORT, *options]
    return subprocess.run([str(part) for part in line], capture_output=True, text=True, check=False, timeout=600)


def test_a_budget_that_is_missed_is_said_and_the_result_kept(done: RunResult, runs: Path) -> None:
    # Nothing may be lost at nine times fewer neurons, after three epochs.
    printed = command(runs, "miss", FEW, "--expect-ncr=9", "--max-drop=0", "--json")
    assert printed.returncode == 3
    # Nothing but the result is printed.
    assert json.loads(printed.stdout) == json.loads((runs / "miss" / "result.json").read_text())
    assert printed.stderr == ""
    missed = command(runs, "miss", FEW, "--expect-ncr=9", "--max-drop=0", "--quiet", "--resume=miss")
    assert missed.returncode == 3
    assert "NOT MET  points lost at most 0.00" in missed.stdout
    assert "met      NCR at least 9.00" in missed.stdout
    assert missed.stderr == ""
    assert (runs / "miss" / "model.onnx").exists()
    assert "The budget was missed: points lost at most 0.00" in (runs / "miss" / "report.html").read_text()


def wait_for(path: Path, text: str, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists() and text in path.read_text():
            return
        time.sleep(0.05)
    pytest.fail(f"{text!r} never came up in {path}")


@pytest.mark.parametrize(
    "stage",
    [
        "prepare",
        "search",
        *(pytest.param(stage, marks=pytest.mark.soak) for stage in ("fine-tune", "export", "validate")),
    ],
)
def test_ctrl_c_keeps_a_partial_run_that_says_how_it_ended(done: RunResult, runs: Path, stage: str) -> None:
    name = f"cut-{stage}"
    options = [*SHORT]
    if stage == "prepare":
        options += ["--seed=1", "--train-epochs=500"]
    if stage == "fine-tune":
        options += ["--finetune-epochs=2000"]
    # Whoever runs the tests may have told them to ignore it, and a child would too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeprune", "run", "--runs-dir", runs, "--name", name, *options],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    signal.signal(signal.SIGINT, before)
    try:
        wait_for(runs / name / "run.log", f"== {stage}")
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1] == f"interrupted; what was done is kept: continue with --resume {name}"
    assert not (runs / name / "candidates").exists()
    said = json.loads((runs / name / "result.json").read_text())
    assert (said["status"], said["stage"]) == ("interrupted", stage)


@pytest.mark.soak
def test_an_interrupted_run_resumes_to_the_same_result(done: RunResult, runs: Path, tmp_path: Path) -> None:
    config = edgeprune.RunConfig(runs_dir=tmp_path, name="halted", **ONE)

    class Halting(Silent):
        def stage(self, title: str) -> None:
            if title == "fine-tune":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edgeprune.run(config, Halting())
    before = trials(tmp_path / "halted")
    with pytest.raises(UsageError, match="was made with --seed 0, not 9"):
        edgeprune.run(replace(config, seed=9), resume=True)
    resumed = edgeprune.run(config, resume=True)
    assert trials(tmp_path / "halted") == before
    assert resumed.result["search"]["measured"] == 0
    # Costs are measured afresh in another folder, so the trials may differ; the accuracy of a plan may not.
    same = {row[1]: row[2] for row in trials(done.folder)}
    assert all(same[row[1]] == row[2] for row in before if row[1] in same)


@pytest.mark.soak
def test_the_example_runs(runs: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "own.py"
    options = ["--data", f"{example}:data", "--model", f"{example}:network", "--max-latency", "0.95x", "--quiet", FEW]
    # Measured here, with a bound on it: the others' figures are made up.
    options += ["--device", "local"]
    ran = command(runs, "own", *options)
    assert ran.returncode in (0, 3), ran.stderr
    result = json.loads((runs / "own" / "result.json").read_text())
    # Both residual blocks' streams and insides are found.
    assert [layer["name"] for layer in result["compressed"]["layers"]] == ["0", "2.body.0", "4.body.0"]
    assert edgeprune.load(runs / "own")(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


MODELS = """
import signal
from torch import nn
import torch

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc1, self.fc2 = nn.Conv2d(1, 8, 3), nn.Linear(288, 20), nn.Linear(20, 10)
        self.norm, self.drop = nn.BatchNorm1d(20, affine=False), nn.Dropout(0.2)
    def forward(self, x):
        print("forward")
        x = torch.relu(self.conv(x))
        return self.fc2(self.drop(torch.relu(self.norm(self.fc1(x.view(x.size(0), -1))))))

class Late(Net):
    def forward(self, x):
        if self.training:
            raise ValueError("only in training")
        return super().forward(x)

class Deaf(Net):
    def forward(self, x):
        try:
            if self.training and not asked:
                asked.append(True)
                signal.raise_signal(signal.SIGTERM)
        except:
            pass
        return super().forward(x)

asked = []
def deaf(): return Deaf()
def net(): return Net()
def late(): return Late()
def empty():
    class Empty(nn.Module):
        def forward(self, x): return x.flatten(1)[:, :10]
    return Empty()
"""


@pytest.mark.soak
def test_a_users_model_that_prints_views_and_drops(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(MODELS)
    name = os.path.relpath(tmp_path / "m.py", Path.cwd())
    made = [command(runs, f"views-{i}", "--model", f"./{name}:net", "--json", FEW, "--formats", "onnx") for i in (1, 2)]
    for run in made:
        assert run.returncode in (0, 3), run.stderr
        assert json.loads(run.stdout)["schema"] == RESULT_SCHEMA
    one, two = (edgeprune.load(runs / f"views-{i}").state_dict() for i in (1, 2))
    # The same seed gives the same weights, dropout or not, whether the baseline was trained or found.
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("shown", [pytest.param((), marks=pytest.mark.soak), ("--quiet",)], ids=["shown", "quiet"])
def test_a_stop_that_the_users_model_swallows_is_heard(runs: Path, tmp_path: Path, shown: tuple[str, ...]) -> None:
    (tmp_path / "m.py").write_text(MODELS)
    name = f"deaf{len(shown)}"
    stopped = command(runs, name, "--model", f"{tmp_path}/m.py:deaf", *shown)
    assert stopped.returncode == 130, stopped.stderr
    assert stopped.stderr.splitlines()[-1] == f"interrupted; what was done is kept: continue with --resume {name}"
    said = json.loads((runs / name / "result.json").read_text())
    assert (said["status"], said["stage"]) == ("interrupted", "prepare")


def test_what_the_users_model_does_wrong_is_one_line_and_logged(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(MODELS)
    late = command(runs, "late", "--model", f"{tmp_path}/m.py:late", "--quiet")
    assert late.returncode == 1
    line = late.stderr.strip().splitlines()[-1]
    assert line.startswith("error: unexpected ValueError while in stage prepare: only in training; the traceback is in")
    assert "Traceback" not in late.stderr
    assert 'raise ValueError("only in training")' in (runs / "late" / "run.log").read_text()
    empty = command(runs, "empty", "--model", f"{tmp_path}/m.py:empty", "--quiet")
    assert empty.returncode == 2
    assert "it has no parameters" in empty.stderr


def test_a_finished_run_is_not_begun_again(done: RunResult, runs: Path) -> None:
    before = (done.folder / "result.json").read_bytes()
    again = command(runs, "first", "--quiet", "--resume", "first", "--device=local", "--formats=onnx,tflite")
    assert again.returncode == done.exit_code
    assert (done.folder / "result.json").read_bytes() == before


@pytest.mark.soak
def test_a_reader_that_goes_away_does_not_stop_the_work(done: RunResult, runs: Path) -> None:
    line = [sys.executable, "-m", "edgeprune", "run", "--runs-dir", str(runs), "--name", "unread", *SHORT, FEW]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()
    assert process.wait(timeout=600) in (0, 3)
