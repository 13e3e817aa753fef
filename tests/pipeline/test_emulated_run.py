"""The whole job on an emulated Raspberry Pi 4, whose figures are the same every time."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from needs import needs

import edgeprune
from edgeprune.core.errors import UsageError
from edgeprune.devices.emulator.setup import install

pytestmark = [needs("qemu-aarch64", "gcc"), pytest.mark.soak]

SMALL: dict[str, Any] = {
    "device": "emulated-rpi4",
    "episodes": 3,
    "train_epochs": 3,
    "finetune_epochs": 1,
    "finalists": 1,
    "calibration_images": 300,
    "max_latency": "0.95x",
}


@pytest.fixture(scope="module", autouse=True)
def _emulator() -> None:
    install("rpi4", lambda _: None)


def trials(folder: Path) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(folder / "trials.sqlite")
    columns = "trial, widths, accuracy, latency_share, memory_share, reward, json_extract(cost, '$.samples')"
    rows = database.execute(f"SELECT {columns} FROM trials ORDER BY trial").fetchall()
    database.close()
    return rows


def test_a_run_counts_instructions_and_repeats_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = edgeprune.run(edgeprune.RunConfig(runs_dir=tmp_path / "one", **SMALL))
    result = outcome.result
    assert (result["device"]["kind"], result["device"]["unit"]) == ("emulated", "instructions")
    for item in result["artifacts"]:
        assert item["latency"]["unit"] == "instructions"
        assert item["latency"]["median"] < item["baseline_latency"]["median"]
        assert item["agreement"] == 1.0
        assert item["load_s"] is None

    # Another day: nothing cached, another guest, and stopped as soon as the search is done.
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeprune.pipeline.run.fine_tune", stop)
    with pytest.raises(KeyboardInterrupt):
        # Which formats ship changes no trial.
        edgeprune.run(edgeprune.RunConfig(runs_dir=tmp_path / "two", name="again", formats="onnx", **SMALL))
    assert trials(tmp_path / "two" / "again") == trials(outcome.folder)


def test_time_is_no_bound_on_instructions(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not converted to time"):
        edgeprune.run(edgeprune.RunConfig(runs_dir=tmp_path, **{**SMALL, "max_latency": "5ms"}))
