"""`edgeprune runs`: list, show, export and remove, whatever state a folder is in."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from fakes.made_runs import TRIALS, add_trials, begun, ended_early, finished_front, finished_run, made_trial

from edgeprune.cli.main import main
from edgeprune.core.store import RunFolder
from edgeprune.pipeline.trialfiles import COLUMNS


class Said(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `edgeprune runs ARGUMENTS` in an empty folder, at 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)

    def go(*arguments: str) -> Said:
        with pytest.raises(SystemExit) as ended:
            main(["runs", *arguments])
        said = Said(int(ended.value.code or 0), *capsys.readouterr())
        assert "Traceback" not in said.err
        return said

    return go


RUNS = Path("runs")


def rows(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines()]


def test_every_state_is_listed_with_what_to_type(run: Run) -> None:
    finished_run(RUNS, "good")
    finished_front(RUNS, "front")
    begun(RUNS, "killed")
    ended_early(RUNS, "stopped", "interrupted", "stopped by the user")
    ended_early(RUNS, "broke", "failed", "Traceback\n  File x\nValueError: no\x1b[31m such thing")
    (finished_run(RUNS, "cut") / "result.json").write_text('{"schema": 5, "sta')
    finished_run(RUNS, "old", schema=4)
    (RUNS / "no run").mkdir()
    (RUNS / ".cache").mkdir()
    live = begun(RUNS, "live", stage="fine-tune")
    with closing(RunFolder(live).own()):
        said = run("list")
    assert said.code == 0
    table, remarks = said.out.split("\n\n")
    assert all(len(line) <= 80 for line in table.splitlines())
    shown = {row[0]: row for row in rows(table)}
    assert shown["good"][-4:] == ["met", "0.5x", "90.00", "%"]
    assert shown["0.6x"] == ["0.6x", "met", "0.5x", "90.00", "%"]
    assert shown["0.1x"] == ["0.1x", "NOT", "MET", "none"]
    for name, state in (("killed", "killed"), ("stopped", "interrupted"), ("broke", "failed"), ("cut", "damaged")):
        assert shown[name][-1] == state, name
    assert "no" not in shown
    line = "killed: killed in stage search: the process that ran it is gone; continue with: edgeprune run --resume kil"
    assert line in remarks
    assert "ValueError: no?[31m such thing; continue with: edgeprune run --resume broke" in remarks
    assert "cut: damaged: cannot read runs/cut/result.json: it is not JSON" in remarks
    assert "old: other version in stage done: runs/old/result.json was written by an older edgeprune" in remarks
    assert "live: goes on, in stage fine-tune (process " in remarks
    assert "--resume live" not in remarks


def test_json_holds_the_same(run: Run) -> None:
    finished_front(RUNS, "front")
    begun(RUNS, "killed")
    listed = {each["name"]: each for each in json.loads(run("list", "--json").out)["runs"]}
    assert (listed["killed"]["state"], listed["killed"]["stage"]) == ("killed", "search")
    points = listed["front"]["outcomes"]
    assert [point["latency_share"] for point in points] == [0.5, None]


def test_hostile_names_stay_in_eighty_columns(run: Run) -> None:
    folder = finished_run(RUNS, "x" * 99)
    (finished_run(RUNS, "y")).rename(RUNS / "bad\x1b[2J\nname")
    config = json.loads((folder / "config.json").read_text()) | {"model": "m\x07" * 50, "device": "[bold]d" * 30}
    result = json.loads((folder / "result.json").read_text()) | {"config": config}
    (folder / "result.json").write_text(json.dumps(result))
    said = run("list")
    assert all(len(line) <= 80 and "\x1b" not in line and "\x07" not in line for line in said.out.splitlines())
    assert "[bold" in "".join(said.out.split())
    assert said.out.count("90.00 %") == 2


def test_no_runs_is_no_error(run: Run) -> None:
    assert run("list") == Said(0, "", "there are no runs in runs; next: edgeprune run\n")
    assert json.loads(run("list", "--json").out)["runs"] == []
    Path("file").touch()
    said = run("list", "--runs-dir", "file")
    assert (said.code, said.err) == (1, "error: cannot read file: Not a directory; choose another --runs-dir\n")


def test_show_prints_what_the_run_printed(run: Run) -> None:
    finished_run(RUNS, "good")
    finished_front(RUNS, "front")
    said = run("show", "good")
    assert "lenet-300-100 on digits" in said.out
    assert "2.00x faster" in said.out
    assert "runs/good/model.onnx" in said.out
    assert said.out == run("show", "runs/good").out
    said = run("show", "front")
    assert "0.49 to 0.51" in said.out
    assert "NOT MET  0.1x: no" in said.out


def test_show_tells_what_is_there_of_an_unfinished_run(run: Run) -> None:
    add_trials(begun(RUNS, "killed"), *TRIALS)
    said = run("show", "killed")
    assert said.code == 0
    assert "3 trials; the best by its reward: trial 1, score 0.9500" in said.out
    assert "there: config.json, result.json, run.log, trials.sqlite" in said.out
    assert "== search" in said.out
    assert said.out.splitlines()[-1].endswith("continue with: edgeprune run --resume killed")


def test_show_tells_the_rest_where_there_are_no_trials_or_damaged_ones(run: Run) -> None:
    folder = begun(RUNS, "killed")
    add_trials(folder)
    assert "run 'killed' has no trials yet" in run("show", "killed").out
    (folder / "trials.sqlite").write_bytes(b"no database " * 500)
    said = run("show", "killed")
    assert (said.code, said.err) == (0, "")
    assert "cannot read runs/killed/trials.sqlite" in said.out
    assert "--resume killed" in said.out


@pytest.mark.parametrize(
    ("damage", "code", "says"),
    [
        ('{"schema": 5, "status": "done"}', 1, "cannot use runs/r/result.json"),
        ('{"schema": 4}', 2, "was written by an older edgeprune"),
        ("[" * 100000, 1, "nested too deeply"),
    ],
)
def test_show_of_a_damaged_run_is_one_line(run: Run, damage: str, code: int, says: str) -> None:
    (finished_run(RUNS, "r") / "result.json").write_text(damage)
    said = run("show", "r")
    assert (said.code, said.out, said.err.count("\n")) == (code, "", 1)
    assert says in said.err


def test_an_unknown_run_names_the_known_ones(run: Run) -> None:
    assert run("show", "r").err == "error: no run 'r' in runs; there are no runs in runs\n"
    finished_run(RUNS, "first")
    for command in ("show", "rm", "export"):
        said = run(command, "fisrt", *(["--csv", "t.csv"] if command == "export" else []))
        assert said == Said(2, "", "error: no run 'fisrt' in runs; runs that are there: first\n")


def test_rm_asks_and_removes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run(RUNS, "one")
    finished_run(RUNS, "two")
    monkeypatch.setattr("click.confirm", lambda *_, **__: False)
    assert run("rm", "one").out == ""
    assert (RUNS / "one").is_dir()
    said = run("rm", "one", "two", "--yes")
    assert said.out.count("removed runs/") == 2
    assert list(RUNS.iterdir()) == []


def test_rm_refuses_a_run_that_goes_on_and_what_is_none(run: Run) -> None:
    finished_run(RUNS, "one")
    live = begun(RUNS, "live")
    with closing(RunFolder(live).own()):
        said = run("rm", "one", "live", "--yes")
    assert said.code == 2
    assert said.err.startswith("error: run 'live' is in use by process ")
    assert (RUNS / "one").is_dir()
    mine = RUNS / "mine"
    mine.mkdir()
    (mine / "config.json").write_text('{"editor": "vi"}')
    (RUNS / "link").symlink_to(RUNS.absolute() / "one")
    for name in ("mine", "link", ".", "..", "/"):
        assert run("rm", name, "--yes").code == 2, name
    assert (mine / "config.json").is_file()
    assert (RUNS / "one" / "result.json").is_file()


def test_csv_has_every_trial_and_the_documented_columns(run: Run) -> None:
    finished_run(RUNS, "one")
    assert run("export", "one", "--csv", "t.csv").out == "t.csv: 3 trials\n"
    with Path("t.csv").open(newline="", encoding="utf-8") as stream:
        found = list(csv.DictReader(stream))
    assert list(found[0]) == [*COLUMNS, "width.fc1", "width.conv.2"]
    assert [row["latency_share"][:4] for row in found] == ["0.79", "", "0.5"]
    assert [row["failure"] for row in found] == ["", "crashed", ""]
    assert [row["width.fc1"] for row in found] == ["2", "2", "1"]
    page = (Path(__file__).parents[2] / "docs" / "interfaces.md").read_text(encoding="utf-8")
    table = page[page.index("## `edgeprune runs export --csv`") :].split("\n## ")[0]
    assert [name for name in COLUMNS if f"`{name}`" not in table] == []


def test_optuna_reads_the_study(run: Run) -> None:
    optuna = pytest.importorskip("optuna")
    finished_run(RUNS, "one")
    assert run("export", "one", "--optuna", "t.db").out.startswith("t.db: 3 trials")
    study = optuna.load_study(study_name="one", storage="sqlite:///t.db")
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert [trial.values for trial in study.trials] == [[0.9, pytest.approx(0.8)], None, [0.8, 0.5]]
    assert study.trials[2].params == {"fc1": 1, "conv.2": 1}
    # The widest of a trial is 2; the finished run tells that the unpruned layer has 6.
    assert study.trials[0].distributions["fc1"].high == 6
    assert study.trials[1].user_attrs["failure"] == "crashed: the probe ended"
    said = run("export", "one", "--optuna", "t.db")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "t.db exists" in said.err
    assert run("export", "one", "--optuna", "none/t.db").code == 2


def test_without_optuna_one_line_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run(RUNS, "one")
    monkeypatch.setitem(sys.modules, "optuna", None)
    said = run("export", "one", "--optuna", "t.db")
    assert said == Said(2, "", "error: --optuna needs the package optuna, which is not here; pip install optuna\n")


def test_export_of_what_cannot_be_read(run: Run) -> None:
    folder = begun(RUNS, "one")
    assert run("export", "one").err == "error: nothing to write; give --csv FILE, --optuna FILE.db, or both\n"
    assert "has no trials yet" in run("export", "one", "--csv", "t.csv").err
    (folder / "trials.sqlite").write_bytes(b"no database " * 500)
    assert run("export", "one", "--csv", "t.csv").code == 1
    (folder / "trials.sqlite").unlink()
    add_trials(folder, made_trial(0, 1e-6))
    assert run("export", "one", "--csv", "none/t.csv").code == 1
    assert run("export", "one", "--csv", "t.csv").code == 0


def test_nothing_here_loads_torch() -> None:
    import subprocess

    code = (
        "import sys; from edgeprune.cli.main import main\n"
        "for words in (['runs', 'list'], ['runs', 'show', 'none'], ['runs', '--help']):\n"
        "    try: main(words)\n"
        "    except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_two_runs_are_compared_by_their_names(run: Run) -> None:
    finished_run(RUNS, "a")
    finished_run(RUNS, "b")
    same = run("compare", "a", "b")
    assert (same.code, same.err) == (0, "")
    assert "latency" in same.out
    assert json.loads(run("compare", "a", "b", "--json").out)["kind"] == "runs"
    found = json.loads((RUNS / "b" / "result.json").read_text())
    for item in found["artifacts"]:
        if item["validated"]:
            item |= {"bytes": 20_000, "sha256": "another file"}  # the gate allows 1 kB
    (RUNS / "b" / "result.json").write_text(json.dumps(found))
    assert run("compare", "a", "b").code == 3
    assert run("compare", "a", "c").code == 2
