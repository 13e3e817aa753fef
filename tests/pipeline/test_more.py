"""A run that got to its end may be given more epochs, finalists and bounds; what it has done is not done again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import edgeprune
from edgeprune.cli.main import cli
from edgeprune.core.errors import StorageError, UsageError
from edgeprune.core.files import sha256_file
from edgeprune.core.plain import from_json, to_json
from edgeprune.core.progress import Silent
from edgeprune.core.store import RunFolder
from edgeprune.pipeline.config import make_config
from edgeprune.pipeline.records.front import Front
from edgeprune.pipeline.result import RunResult
from edgeprune.pipeline.resume import searches
from edgeprune.pipeline.stored import finished

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> edgeprune.RunConfig:
    folder = tmp_path_factory.mktemp("more")
    (folder / "device.toml").write_text("seed = 1\n[latency]\nbase_s = 1e-5\ns_per_byte = 2e-9\n")
    return edgeprune.RunConfig(
        model="mlp-32-16", device=f"simulated://{folder / 'device.toml'}", formats="onnx", runs_dir=folder / "runs",
        name="more", episodes=4, train_epochs=4, finetune_epochs=2, finalists=1, processes=3, calibration_images=300,
        max_latency="0.8x", max_drop=90,
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(config: edgeprune.RunConfig) -> RunResult:
    return edgeprune.run(config)


def test_more_epochs_and_finalists(done: RunResult, config: edgeprune.RunConfig) -> None:
    more = edgeprune.run(replace(config, finetune_epochs=4, finalists=2), resume=True)
    # The new finalist's second look.
    assert more.result["search"]["measured"] <= 1
    assert done.result["compressed"]["finetune_epochs"] == 2
    assert more.result["compressed"]["finetune_epochs"] == 4
    assert more.result["config"]["finetune_epochs"] == 4
    # Now that is what it has, also for whoever leaves the options out.
    before = (done.folder / "result.json").read_bytes()
    assert json.loads((done.folder / "config.json").read_text())["finalists"] == 2
    assert edgeprune.run(replace(config, finetune_epochs=4, finalists=2), resume=True).result == more.result
    assert (done.folder / "result.json").read_bytes() == before
    for fewer, says in (
        (
            {"finetune_epochs": 3, "finalists": 2},
            "has --finetune-epochs 4, and 3 are fewer.*; type --finetune-epochs 4 or",
        ),
        ({"finetune_epochs": 4, "finalists": 1}, "has --finalists 2, and 1 are fewer"),
        ({"finetune_epochs": 5, "finalists": 2, "episodes": 5}, "was made with --episodes 4, not 5"),
    ):
        with pytest.raises(UsageError, match=says):
            edgeprune.run(replace(config, **fewer), resume=True)
    kept = {path: path.read_bytes() for path in (done.folder / "tuned").glob("*.safetensors")}
    for path, whole in kept.items():
        path.write_bytes(whole[:-1])
    with pytest.raises(StorageError, match=r"its hash is not the one in .*; remove the run's folder tuned"):
        edgeprune.run(replace(config, finetune_epochs=5, finalists=2), resume=True)
    assert (done.folder / "result.json").read_bytes() == before
    for path, whole in kept.items():
        path.write_bytes(whole)


class Halting(Silent):
    def __init__(self, at: str) -> None:
        self.at = at

    def stage(self, title: str) -> None:
        if title == self.at:
            raise KeyboardInterrupt


def test_more_bounds(done: RunResult, config: edgeprune.RunConfig) -> None:
    """A run of one bound becomes a front, is interrupted, goes on, and is given another bound."""
    folder = done.folder
    stored = json.loads((folder / "config.json").read_text())
    config = replace(config, finetune_epochs=stored["finetune_epochs"], finalists=stored["finalists"])
    for bounds, says in (
        (
            "0.6x,0.4x",
            "made with --max-latency 0.8x, and 0.6x,0.4x leaves out 0.8x; type --max-latency 0.8x,0.6x,0.4x to",
        ),
        ("0.8x,0.80x", "there twice"),
    ):
        with pytest.raises(UsageError, match=says):
            edgeprune.front(replace(config, max_latency=bounds), resume=True)
    with pytest.raises(UsageError, match="no option holds several bounds"):
        edgeprune.front(config, resume=True)
    two = replace(config, max_latency="0.001x, 0.5x,0.80x")
    with pytest.raises(KeyboardInterrupt):
        edgeprune.front(two, Halting("0.5x: export"), resume=True)
    assert json.loads((folder / "result.json").read_text())["status"] == "interrupted"
    first = (folder / "0.8x" / "result.json").read_bytes()
    assert not (folder / "model.onnx").exists()

    found = edgeprune.front(two, resume=True)
    front = found.front
    assert front == json.loads((folder / "front.json").read_text())
    assert (folder / "0.8x" / "result.json").read_bytes() == first
    assert [point["name"] for point in front["points"]] == ["0.8x", "0.5x", "0.001x"]
    loose, tight, none = front["points"]
    assert (none["status"], none["answer"], none["path"]) == ("impossible", "not met", None)
    assert "cannot be reached" in none["error"]
    assert (found.exit_code, found.met, front["status"]) == (3, False, "budget-not-met")
    assert tight["latency_share"]["value"] < loose["latency_share"]["value"]
    # The first search had all episodes; each bound that came later has as many.
    assert [trial["trial"] for trial in front["trials"]] == list(range(2 * config.episodes))
    for point in (loose, tight):
        sub = folder / point["path"]
        result = finished(RunFolder(sub))
        assert result is not None
        assert result["config"]["max_latency"] in ("0.8x", "0.5x")
        assert point["quality"]["value"] == result["compressed"]["scores"]["accuracy"]
        assert point["quality"]["low"] < point["quality"]["value"] < point["quality"]["high"]
        assert sha256_file(folder / point["file"]) == result["artifacts"][0]["sha256"]
        assert edgeprune.load(sub)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    before = (folder / "front.json").read_bytes()
    assert edgeprune.front(two, resume=True).front == front
    assert (folder / "front.json").read_bytes() == before

    three = edgeprune.front(replace(two, max_latency="0.8x,0.5x,0.001x,0.65x"), resume=True).front
    assert [point["name"] for point in three["points"]] == ["0.8x", "0.65x", "0.5x", "0.001x"]
    assert [three["points"][0], *three["points"][2:]] == [loose, tight, none]
    assert three["trials"][: len(front["trials"])] == front["trials"]
    assert len(three["trials"]) == 3 * config.episodes
    command = ["run", "--resume", config.name or "", "--runs-dir", str(config.runs_dir)]
    shown = CliRunner().invoke(cli, command, standalone_mode=False)
    assert shown.return_value == 3, shown.output
    assert (folder / "front.png").exists()
    assert "4 bounds on one search" in (folder / "report.html").read_text()
    assert f"{folder / '0.65x' / 'model.onnx'}" in shown.stdout
    printed = CliRunner().invoke(cli, [*command, "--json"], standalone_mode=False)
    assert json.loads(printed.stdout) == three
    assert to_json(from_json(Front, three)) == three
    for name in ("front.json", "0.5x/result.json"):
        whole = (folder / name).read_text()
        (folder / name).write_text(whole.replace('"scores', '"scors').replace('"quality"', '"qality"'))
        with pytest.raises(StorageError, match=r"cannot use .*; the run is damaged"):
            edgeprune.front(replace(two, max_latency="0.8x,0.5x,0.001x,0.65x"), resume=True)
        (folder / name).write_text(whole)


def test_bounds_share_the_episodes_and_new_ones_get_as_many(tmp_path: Path) -> None:
    def shares(earlier: edgeprune.RunConfig | None, **values: object) -> list[tuple[str, int]]:
        config = make_config({"episodes": 20} | values, "x")
        return [(want.name, want.episodes) for want in searches(RunFolder(tmp_path), config, earlier)]

    assert shares(None, max_latency="0.4x,0.6x,0.8x") == [("0.8x", 7), ("0.6x", 7), ("0.4x", 6)]
    # The order of a replayed search stays, wherever the new bound lies.
    later = [("0.8x", 7), ("0.6x", 7), ("0.4x", 6), ("0.7x", 7)]
    assert shares(make_config({"max_latency": "0.4x,0.6x,0.8x"}, "x"), max_latency="0.4x,0.6x,0.7x,0.8x") == later
    (tmp_path / "searches.json").unlink()
    begun = make_config({"expect_ncr": 5.0}, "x")
    assert shares(begun, expect_ncr="3,5") == [("ncr-5", 20), ("ncr-3", 20)]
    (tmp_path / "searches.json").write_text('{"ncr-5": "many"}')
    with pytest.raises(StorageError, match=r"searches\.json"):
        shares(begun, expect_ncr="3,5")
