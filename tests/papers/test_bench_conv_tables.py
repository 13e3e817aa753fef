"""The tables of `bench conv`, from made-up cells."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.core.errors import StorageError, UsageError
from edgeprune.papers.conv.figure import draw_conv
from edgeprune.papers.conv.records import ConvBench, compare, load_conv, standings
from edgeprune.papers.conv.table import conv_csv, conv_markdown, conv_tables

IMAGES = 1000
SETTINGS = {"data": "d",
    "weights": None, "images": 600, "train_epochs": 4, "finetune_epochs": 2, "episodes": 3,
    "search_steps": 2,
}  # fmt: skip


def write(folder: Path, name: str, data: dict[str, Any]) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema": 1, **data}))


def cell(
    folder: Path, method: str, seed: int, wrong: range | None, *, bound: float = 0.5, latency: float = 0.48,
    key: str = "", score: float | None = 0.8, network: str = "net",
) -> None:  # fmt: skip
    """A cell; where `wrong` names the test images that it gets wrong, it is finished. The unpruned one gets 900."""
    key = key or f"{method}{bound:g}"
    made = {"edgeprune": "1", "machine": "a machine"}
    spent = {"host": 10.0, "device": 5.0, "agent": 1.0}
    write(
        folder, f"cells/{network}@{bound:g}-{method}-{seed}.json",
        {**made, "network": network, "bound": bound, "method": method, "seed": seed, "family_width": None, "key": key,
         "widths": {"a": 8}, "score": score, "latency": None, "keeps": True, "evaluations": 3, "seconds": spent,
         "tried": [[0.8, 0.5]]},
    )  # fmt: skip
    if wrong is None:
        return
    right = np.ones(IMAGES, bool)
    right[list(wrong)] = False
    write(
        folder, f"finished/{network}-{key}-{seed}.json",
        {**made, "network": network, "seed": seed, "key": key, "widths": {"a": 8}, "epochs": 2.0,
         "validation": 0.9, "accuracy": right.mean(), "baseline_accuracy": 0.9,
         "right": base64.b64encode(np.packbits(right).tobytes()).decode(), "images": IMAGES,
         "latency": {"value": latency, "low": latency - 0.01, "high": latency + 0.01}, "unit": "s",
         "verdict": "stable", "macs_share": 0.5, "seconds": 7.0},
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "bench.json", {"kind": "conv", "device": "local", "networks": {"net": SETTINGS, "other": SETTINGS}})
    for seed in range(3):
        cell(tmp_path, "edgeprune", seed, range(100 + seed), score=0.85)
        cell(tmp_path, "uniform", seed, range(150), score=0.80)
        # Nobody can tell 3 images from chance.
        cell(tmp_path, "tpe", seed, range(98 + seed))
        cell(tmp_path, "amc", seed, None)
        # It loses less, and is too slow.
        cell(tmp_path, "random", seed, range(50), latency=0.53)
    cell(tmp_path, "edgeprune", 0, range(200), bound=0.3, latency=0.299)
    cell(tmp_path, "uniform", 0, range(100), bound=0.3, latency=0.28)
    return tmp_path


@pytest.fixture
def bench(folder: Path) -> ConvBench:
    return load_conv(folder)


def test_points_lost_are_paired_by_seed_and_bound(bench: ConvBench) -> None:
    found = {each.method: each for each in compare(bench, "net")}
    uniform = found["uniform"]
    assert uniform.lost_pairs == 4
    assert uniform.lost is not None
    assert uniform.lost.value == pytest.approx((-5 - 4.9 - 4.8 + 10) / 4)
    assert uniform.lost.interval is not None
    assert found["amc"].lost is None
    assert found["amc"].score_pairs == 3
    assert found["amc"].score is not None
    assert found["amc"].score.value == pytest.approx(5.0)
    # What breaks the bound is no rival.
    assert found["random"].lost is None
    assert {each.method: each.lost for each in compare(bench)} == {name: each.lost for name, each in found.items()}


def test_edgeprune_stands_where_the_test_images_cannot_tell_it_from_the_best(bench: ConvBench) -> None:
    first, second = standings(bench)
    assert (first.bound, first.rival) == (0.5, "tpe")
    assert first.difference.value == pytest.approx(0.2)
    # Two images in a thousand that only the other gets right, three seeds: 1.96 sqrt(0.002 / 1000 / 3).
    assert first.difference.interval is not None
    assert first.difference.interval[1] - 0.2 == pytest.approx(196 * (0.001996 / 1000 / 3) ** 0.5, rel=0.01)
    assert first.holds is (first.difference.interval[0] <= 0)
    assert set(first.others) == {"uniform", "tpe"}
    assert (second.bound, second.rival, second.holds) == (0.3, "uniform", False)
    assert second.difference.value == pytest.approx(10.0)


def test_tables_say_what_was_found(bench: ConvBench) -> None:
    text = conv_markdown(bench)
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    ours = next(row for row in rows if row[:2] == ["| 0.5x", "edgeprune"])
    assert ours[2:] == ["0.10", "0.00, 0.10, 0.20", "85.00", "0.480", "50", "10", "5 |"]
    amc = next(row for row in rows if row[1] == "amc")
    assert amc[2:6] == ["–", "", "80.00", "–"]
    assert next(row for row in rows if row[1] == "random")[5] == "0.530*"
    # 0.299 with an interval of a hundredth.
    assert next(row for row in rows if row[0] == "| 0.3x")[5] == "0.299~"
    for said in (
        "a file that breaks the bound",
        "cannot be told apart from the bound",
        "600 training images; unpruned network 4 epochs, fine-tuning 2, from scratch 4 + 2; 3 candidates a search",
        "Behind uniform on net at 0.3x: +10.00 points",
        "loses less than uniform in 1 of 2 cells.",
    ):
        assert said in text
    assert "### other" not in text
    assert len(conv_tables(bench)) == 3


def test_the_sheet_has_a_row_per_cell(bench: ConvBench) -> None:
    rows = list(csv.DictReader(io.StringIO(conv_csv(bench))))
    assert len(rows) == len(bench.cells)
    amc = next(row for row in rows if row["method"] == "amc")
    assert (amc["points_lost"], amc["latency"], amc["host_s"]) == ("", "", "10.0")
    assert {row["answer"] for row in rows} == {"", "met", "open", "not met"}


def test_equal_plans_are_one_and_neither_better_nor_worse(tmp_path: Path) -> None:
    write(tmp_path, "bench.json", {"kind": "conv", "device": "local", "networks": {"net": SETTINGS}})
    cell(tmp_path, "edgeprune", 0, range(100), key="same")
    cell(tmp_path, "greedy", 0, None, key="same")
    bench = load_conv(tmp_path)
    assert len(bench.finished) == 1
    only = standings(bench)[0]
    assert (only.others, only.holds) == ({"greedy": 0.0}, True)
    assert "loses less than greedy in 0 of 1 cells, and as much in 1." in conv_markdown(bench)


def test_nothing_finished_is_said_and_not_drawn(tmp_path: Path) -> None:
    write(tmp_path, "bench.json", {"kind": "conv", "device": "local", "networks": {"net": SETTINGS}})
    cell(tmp_path, "edgeprune", 0, None)
    bench = load_conv(tmp_path)
    assert "No cell has both edgeprune and another method finished yet." in conv_markdown(bench)
    assert not draw_conv(bench, tmp_path / "front.png")
    assert not (tmp_path / "front.png").exists()


def test_it_is_drawn(bench: ConvBench, tmp_path: Path) -> None:
    assert draw_conv(bench, tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")


def test_a_damaged_or_foreign_file_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no bench folder"):
        load_conv(tmp_path / "nowhere")
    path = folder / "cells" / "net@0.5-amc-0.json"
    whole = path.read_text()
    path.write_text(whole.replace('"amc"', '"tpe"'))
    with pytest.raises(StorageError, match="it holds net, tpe"):
        load_conv(folder)
    path.write_text(whole.replace('"schema": 1', '"schema": 9'))
    with pytest.raises(UsageError, match="newer edgeprune"):
        load_conv(folder)
    path.write_text(whole)
    path = folder / "finished" / "net-uniform0.5-0.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "right": data["right"][:8]}))
    with pytest.raises(StorageError, match="not a bit per image"):
        standings(load_conv(folder))
