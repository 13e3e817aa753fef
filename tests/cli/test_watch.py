"""`edgeprune watch`: a run of another process is followed from its files, and never disturbed."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from fakes.made_results import made_result
from fakes.made_runs import TRIALS, add_trials, begun, ended_early, finished_front, finished_run, made_trial
from fuzzing.mutations import mutate

from edgeprune.cli import watch
from edgeprune.cli.main import main
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Silent
from edgeprune.core.store import RunFolder
from edgeprune.pipeline import telling
from edgeprune.pipeline.following import Follower
from edgeprune.pipeline.records.status import RunStatus, Step
from edgeprune.pipeline.telling import Telling

Watch = Callable[..., tuple[int, str, str]]
RUNS = Path("runs")


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Watch:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(watch, "EVERY_S", 0.02)

    def go(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["watch", *arguments])
        return int(ended.value.code or 0), *capsys.readouterr()

    return go


def write_status(folder: Path, **fields: object) -> None:
    RunFolder(folder).write_json("status.json", to_json(RunStatus(**({"stage": "search", "seconds": 9.0} | fields))))  # type: ignore[arg-type]


def test_a_run_is_followed_to_its_end(watched: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begun(RUNS, "r", max_latency="0.6x")
    (folder / "baseline.onnx").write_bytes(b"123")
    write_status(folder, step=Step(title="searching", done=1, total=4, seconds=2.0, note="reward 1"))
    lock = RunFolder(folder).own()

    def end() -> None:
        RunFolder(folder).write_json("result.json", made_result())
        write_status(folder, stage="validate", exit_code=0)

    # What the run does between one look and the next.
    steps = iter((lambda: None, lambda: add_trials(folder, *TRIALS), lambda: None, end, lock.close))
    monkeypatch.setattr(watch.time, "sleep", lambda _: next(steps)())
    code, out, err = watched("r")
    assert next(steps, None) is None
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "r: search; searching"
    # The third trial is the only one whose 0.5x is within 0.6x; the second was not measured.
    best = "best within --max-latency 0.6x: trial 2, score 0.8000, latency 0.5x, NCR 2.50"
    assert f"r: search; searching; 3 trials; {best}" in lines
    assert "met      latency 0.5x, accuracy 90.00 %, model.onnx" in lines
    assert lines[-1].endswith("edgeprune runs show runs/r prints all of it; the run's exit status is 0")
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize(
    ("stage", "chosen", "place"),
    [
        ("prepare", False, "prepare (1 of 5)"),
        ("choose", False, "choose (1 of 6)"),
        ("prepare", True, "prepare (2 of 6)"),
        ("validate", True, "validate (6 of 6)"),
    ],
)
def test_a_run_that_chooses_a_runtime_has_a_stage_more(tmp_path: Path, stage: str, chosen: bool, place: str) -> None:
    folder = begun(tmp_path, "r", stage=stage)
    write_status(folder, stage=stage)
    if chosen:
        (folder / "backends.json").write_text("{}")
    with contextlib.closing(RunFolder(folder).own()), contextlib.closing(Follower(folder)) as follower:
        assert watch._lines(follower.look())[1].startswith(f"stage    {place}, the run began")


def test_a_terminal_is_redrawn(tmp_path: Path) -> None:
    folder = begun(tmp_path, "r", max_latency="0.6x")
    write_status(folder, step=Step(title="searching", done=1, total=4, seconds=2.0, note="x" * 200))
    add_trials(folder, *TRIALS)
    lock = RunFolder(folder).own()
    command = [sys.executable, "-m", "edgeprune", "watch", str(folder)]
    outer, inner = pty.openpty()
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=inner, stderr=inner, env=environment) as process:
        os.close(inner)
        said = b""
        while b"Ctrl-C" not in said:
            said += os.read(outer, 4096)
        lock.close()
        while process.poll() is None:
            try:
                said += os.read(outer, 4096)
            except OSError:
                break
    os.close(outer)
    assert process.returncode == 1
    assert b"searching [#####...............] 1 of 4" in said
    assert b"left     0:06 of this step" in said
    assert b"best     within --max-latency 0.6x: none yet" in said
    assert b"r died in stage search" in said


@pytest.mark.parametrize(
    ("status", "told", "code"),
    [("failed", 4, 4), ("failed", None, 1), ("impossible", None, 3), ("interrupted", 130, 130)],
)
def test_the_end_tells_why_and_the_exit_status(watched: Watch, status: str, told: int | None, code: int) -> None:
    folder = ended_early(RUNS, "r", status, "no luck\x1b[0m")
    if told is not None:
        write_status(folder, stage="prepare", exit_code=told)
    said = watched("runs/r")
    again = "; continue with: edgeprune run --resume r" if status in ("failed", "interrupted") else ""
    assert said == (code, f"r: {status}: no luck?[0m{again}; the run's exit status is {code}\n", "")


def test_finished_runs_and_fronts_are_told_at_once(watched: Watch) -> None:
    finished_run(RUNS, "r", status="worse")
    assert watched("r")[0] == 3
    finished_front(RUNS, "f")
    code, out, _ = watched("f")
    assert code == 3
    assert out.splitlines()[:2] == [
        "met      0.6x: latency 0.5x, accuracy 90.00 %, 0.6x/model.onnx",
        "NOT MET  0.1x: no network keeps it",
    ]


def test_a_run_that_died_is_told_with_what_to_type(watched: Watch) -> None:
    begun(RUNS, "r", stage="fine-tune")
    code, _, err = watched("r")
    assert code == 1
    assert err == (
        "r died in stage fine-tune: the process that ran it is gone, and left no result; "
        "continue with: edgeprune run --resume r\n"
    )


def test_ctrl_c_ends_watching_alone(watched: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    lock = RunFolder(begun(RUNS, "r")).own()
    monkeypatch.setattr(watch.time, "sleep", interrupt)
    code, _, err = watched("r")
    lock.close()
    assert (code, err) == (130, "stopped watching; the run goes on\n")


def test_what_is_damaged_is_no_traceback(watched: Watch) -> None:
    folder = begun(RUNS, "r")
    for name in ("status.json", "trials.sqlite", "config.json"):
        (folder / name).write_bytes(b"\xff\x00garbage" * 100)
    look = Follower(folder).look()
    assert (look.status, look.trials, look.best) == (None, 0, ())
    (folder / "result.json").write_text("{")
    code, out, err = watched("r")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "cannot read runs/r/result.json" in err
    assert watched("none")[::2] == (2, "error: no run 'none' in runs; runs that are there: r\n")


def test_damage_anywhere_is_no_error_of_a_look(tmp_path: Path) -> None:
    folder = finished_front(tmp_path, "r")
    (folder / "baseline.onnx").write_bytes(b"123")
    write_status(folder, step=Step(title="searching", done=1, total=4, seconds=2.0, note=""))
    states = set()
    for name in ("status.json", "trials.sqlite", "config.json", "result.json", "front.json", ".owner"):
        path = folder / name
        whole = path.read_bytes() if path.exists() else b'{"host": "h", "node": "n", "pid": 1, "since": "noon"}'
        for seed in range(25):
            path.write_bytes(mutate(name, whole, Random(f"{name} {seed}")))
            follower = Follower(folder)
            look = follower.look()
            assert watch._lines(look)
            assert watch._line(look)
            states.add(look.run.state)
            follower.close()
        path.write_bytes(whole)
    assert {"damaged", "budget-not-met"} <= states


def test_watching_writes_nothing(watched: Watch) -> None:
    folder = finished_run(RUNS, "r")
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    watched("r")
    assert {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before


def test_trials_of_a_shorter_continuation_replace_the_others(tmp_path: Path) -> None:
    folder = begun(tmp_path, "r")
    add_trials(folder, *TRIALS)
    follower = Follower(folder)
    assert follower.look().trials == 3
    from edgeprune.core.store import TrialStore

    store = TrialStore(folder / "trials.sqlite")
    store.trim(1)
    assert follower.look().trials == 1
    store.add(made_trial(1, 1e-6))
    assert follower.look().trials == 2
    follower.close()
    store.close()


def test_a_run_writes_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "EVERY_S", 0.0)
    folder, stages = RunFolder(tmp_path), []
    told = Telling(Silent(), folder, stages.append)

    def status() -> RunStatus:
        return folder.read_json("status.json", RunStatus)

    told.begin()
    told.stage("search")
    assert (stages, status().stage, status().step) == (["start", "search"], "search", None)
    with told.bar("searching", 4) as bar:
        bar.advance(1, "reward 0.5")
        with told.bar("inside", 9) as inner:
            inner.advance()
            step = status().step
            assert step is not None
            assert (step.title, step.done, step.total, step.note) == ("searching", 1.0, 4.0, "reward 0.5")
    assert status().step is None
    told.end(3)
    assert status().exit_code == 3
    # A disk that is full must not end a run for the sake of who watches it.
    (tmp_path / "status.json").unlink()
    (tmp_path / "status.json").mkdir()
    told.begin()


def test_it_is_not_written_at_every_step(tmp_path: Path) -> None:
    told = Telling(Silent(), RunFolder(tmp_path), lambda _: None)
    with told.bar("training", 1000) as bar:
        before = (tmp_path / "status.json").stat().st_mtime_ns
        for _ in range(100):
            bar.advance()
        assert (tmp_path / "status.json").stat().st_mtime_ns == before
        assert json.loads((tmp_path / "status.json").read_text())["step"]["done"] == 0
