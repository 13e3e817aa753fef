"""What a run does when its device goes away, with a device that is made up so that it goes when it should."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import edgeprune
from edgeprune.core.errors import DeviceError
from edgeprune.core.measurement import Measurement
from edgeprune.core.trial import Trial
from edgeprune.pipeline.choose import confirmed
from edgeprune.pipeline.search import Searched
from edgeprune.profilers.loop import LoopProfiler
from edgeprune.profilers.retry import Patience

SMALL: dict[str, Any] = {
    "episodes": 6,
    # An evaluation per group: enough of them for the device to go in between.
    "method": "acnn",
    "credit": "step",
    "train_epochs": 3,
    "finetune_epochs": 1,
    "finalists": 1,
    "processes": 3,
    "calibration_images": 300,
    "max_drop": 90.0,
    "formats": "onnx",
}
#: Operations until the device goes: hello, pushes, the baseline's memory and a few candidates come before.
WHILE_SEARCHING = 40

pytestmark = pytest.mark.soak


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LoopProfiler.__init__.__kwdefaults__ or {}, "patience", Patience(300.0, 0.5))
    monkeypatch.setattr("edgeprune.profilers.client.PATIENCE_S", 0.5)


def device(folder: Path, *faults: str, noise: float = 0.0) -> str:
    path = folder / "device.toml"
    path.write_text(
        f"seed = 1\n[latency]\nbase_s = 1e-4\ns_per_byte = 2e-10\nnoise = {noise}\n"
        f"[faults]\nat = {json.dumps(list(faults))}\n"
    )
    return f"simulated://{path}"


def run(folder: Path, *faults: str, resume: bool = False, noise: float = 0.0, **settings: Any) -> Any:
    config = edgeprune.RunConfig(
        device=device(folder, *faults, noise=noise), runs_dir=folder / "runs", name="lossy", **{**SMALL, **settings}
    )
    return edgeprune.run(config, resume=resume)


def trials(folder: Path) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(folder / "runs" / "lossy" / "trials.sqlite")
    rows = database.execute("SELECT trial, widths, latency_share, failure FROM trials ORDER BY trial").fetchall()
    database.close()
    return rows


def test_stop_keeps_the_trials_and_resume_goes_on(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="--resume lossy") as caught:
        run(tmp_path, f"{WHILE_SEARCHING}-: lost")
    assert caught.value.exit_code == 4
    kept = trials(tmp_path)
    assert 0 < len(kept) < SMALL["episodes"]
    assert all(failure is None for *_, failure in kept)
    assert json.loads((tmp_path / "runs/lossy/result.json").read_text())["status"] == "failed"
    outcome = run(tmp_path, resume=True)
    assert outcome.result["status"] in ("done", "budget-not-met")
    assert trials(tmp_path)[: len(kept)] == kept


def test_wait_goes_on_when_it_is_back_and_loses_nothing(tmp_path: Path) -> None:
    outcome = run(tmp_path, f"{WHILE_SEARCHING}-{WHILE_SEARCHING + 30}: lost", on_device_loss="wait")
    rows = trials(tmp_path)
    assert len(rows) == SMALL["episodes"]
    assert all(failure is None for *_, failure in rows)
    assert outcome.result["search"]["stopped"] == ""


def test_continue_goes_on_with_the_trials_there_are(tmp_path: Path) -> None:
    # It is back when the shipped files are validated: without the device nothing is proven.
    away = f"{WHILE_SEARCHING}-{WHILE_SEARCHING + 4}: lost"
    outcome = run(tmp_path, away, on_device_loss="continue")
    assert 0 < len(trials(tmp_path)) < SMALL["episodes"]
    assert "lost" in outcome.result["search"]["stopped"]
    assert outcome.result["artifacts"][0]["validated"]


def test_a_device_that_goes_for_good_is_an_error_whatever_is_asked(tmp_path: Path) -> None:
    with pytest.raises(DeviceError):
        run(tmp_path, "1-: lost", on_device_loss="continue")


def test_a_bound_in_another_unit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(edgeprune.core.errors.UsageError, match="not instructions"):
        run(tmp_path, max_latency="12Minsn")


def test_the_best_are_raced_again_in_fresh_processes_and_a_resume_comes_to_the_same_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[list[Trial]] = []

    def gone(*given: Any) -> Any:
        chosen.append(next(each.trials for each in given if isinstance(each, Searched)))
        raise DeviceError("gone", "put it back")

    monkeypatch.setattr("edgeprune.pipeline.run.fine_tune", gone)
    # Noise that another measurement would not have again.
    for resume in (False, True):
        with pytest.raises(DeviceError, match="gone"):
            run(tmp_path, noise=0.001, max_latency="0.95x", resume=resume, episodes=2)
    first, second = chosen
    assert [each.candidate.plan.key for each in first] == [each.candidate.plan.key for each in second]
    assert confirmed(first[0])
    assert first[0].candidate.cost == second[0].candidate.cost
    # What the search saw stays what it was.
    stored = {index: share for index, _, share, _ in trials(tmp_path)}
    assert isinstance(first[0].candidate.cost, Measurement)
    assert first[0].candidate.cost.quotient != stored[first[0].index]
