"""`edgeprune inspect`: layers, groups, why others stay, and what is measured of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from edgeprune.cli.main import main
from edgeprune.core.plain import from_json, to_json
from edgeprune.core.schema import INSPECT_SCHEMA
from edgeprune.pipeline.inspect import Inspection

OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.body = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3)
        self.gru, self.fc, self.head = nn.GRU(16, 12, batch_first=True), nn.Linear(12, 16), nn.Linear(16, 10)
        for parameter in self.stem.parameters():
            parameter.requires_grad = False
    def forward(self, x):
        x = self.body(self.norm(self.stem(x)).relu()).relu()
        return self.head(self.fc(self.gru(x.flatten(2).transpose(1, 2))[0][:, -1].cumsum(1)).relu())

def net(): return Net()
class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.att = nn.Linear(8, 16), nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Linear(16, 10)
    def forward(self, x):
        x = self.embed(x.squeeze(1))
        return self.head(self.att(x, x, x)[0].mean(1))
class Bare(nn.Module):
    def forward(self, x): return x.flatten(1)[:, :10]
def bare(): return Bare()
"""


def inspected(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["inspect", *map(str, arguments), "--quiet"])
    said = capsys.readouterr()
    assert ended.value.code == code, said.err
    return said.out if code == 0 else said.err


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    return file


def test_layers_groups_and_what_is_possible(capsys: pytest.CaptureFixture[str]) -> None:
    out = inspected(capsys, "lenet-300-100")
    assert "lenet-300-100: 50,610 parameters, 50,200 MACs" in out
    assert "it gives the output" in out
    assert "at best (every group at its narrowest): NCR 10.09, 1.2 % of the MACs" in out
    assert "latency is not measured: --device NAME does" in out


def test_why_layers_stay(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(inspected(capsys, f"{own}:net", "--json"))
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert list(layers) == ["stem", "norm", "body", "gru", "fc", "head"]
    assert "requires_grad" in layers["stem"]["stays"]
    assert layers["gru"]["stays"] == "a running sum over channels needs all of them (own.py:13)"
    assert layers["head"]["stays"] == "it gives the output"
    assert layers["fc"]["group"] == "fc"
    # The recurrent layer reads it.
    assert layers["body"]["group"] == "body"
    assert sum(layer["macs"] for layer in found["layers"]) == found["macs"]
    assert sum(layer["parameters"] for layer in found["layers"]) == found["parameters"]
    allowed = json.loads(inspected(capsys, f"{own}:net", "--json", "--prune-frozen"))
    assert "requires_grad" not in json.dumps(allowed["layers"])


def test_heads_say_how_many_rows_go_with_each(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = inspected(capsys, f"{own}:Heads")
    assert "att: one of its 4 is 12 rows of a weight (a head, a unit's gates, or a place in every group)" in out
    assert "embed: " not in out


def test_nothing_to_prune_is_one_line_with_the_reason(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "it has no parameters" in inspected(capsys, f"{own}:bare", code=2)
    assert "did you mean 'digits'" in inspected(capsys, "lenet-300-100", "--data", "digit", code=2)
    assert "unknown device 'nowhere'" in inspected(capsys, "lenet-300-100", "--device", "nowhere", code=2)


def test_every_group_is_measured_at_its_narrowest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Latency goes with the size of the file, and nothing else.
    (tmp_path / "device.toml").write_text("seed = 1\n[latency]\nbase_s = 0.0\ns_per_byte = 1e-9\n")
    device = f"simulated://{tmp_path / 'device.toml'}"
    found: dict[str, Any] = json.loads(inspected(capsys, "mlp-32-16", "--device", device, "--json"))
    assert (found["schema"], found["device"]["unit"]) == (INSPECT_SCHEMA, "simulated s")
    for group in found["groups"]:
        left = group["latency_left"]
        assert left["low"] <= left["value"] <= left["high"] < 1
    fc1 = next(group for group in found["groups"] if group["name"] == "fc1")
    fc2 = next(group for group in found["groups"] if group["name"] == "fc2")
    # The first layer holds most of the file.
    assert fc1["latency_left"]["value"] < fc2["latency_left"]["value"]
    best = found["best"]
    # A file that ships carries its metadata, a candidate does not.
    assert best["latency_left"]["value"] < best["bytes_left"] < fc1["latency_left"]["value"]
    assert best["latency_left"]["value"] < fc1["latency_left"]["value"]
    out = inspected(capsys, "mlp-32-16", "--device", device)
    assert "x heap, " in out
    assert to_json(from_json(Inspection, found)) == found


def test_branches_that_may_go_have_nothing_as_their_least(capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Any] = json.loads(inspected(capsys, "resnet20", "--data", "digits", "--json"))
    may = {group["name"] for group in found["groups"] if group["removable"]}
    assert may == {f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in range(3)}
    assert all(group["floor"] > 0 for group in found["groups"])
    table = inspected(capsys, "resnet20", "--data", "digits")
    assert re.search(r"layer1\.1\.conv1 +16 channels +0 +8 ", table)
