"""The table and the picture of a front, made from what `front.json` holds."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from fakes.made_results import made_front
from PIL import Image
from rich.console import Console

from edgeprune.report.front import front_lines, front_table, unpruned_line
from edgeprune.report.front_figure import draw_front, front_figure


def front(**changes: Any) -> dict[str, Any]:
    made = made_front()
    made["points"][0] |= changes
    return made


def shown(made: dict[str, Any]) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(front_table(made))
    return console.export_text()


def test_a_row_a_bound_in_eighty_columns() -> None:
    rows = shown(front()).splitlines()
    assert any(
        row.split() == ["0.6x", "met", "90.00", "%", "0.10", "0.5x", "0.49", "to", "0.51", "0.5x", "0.5x", "2.00"]
        for row in rows
    )
    whole = ["0.6x met 90.00 % 0.10 0.5x 0.49 to 0.51 0.5x 0.5x 2.00", "0.1x NOT MET none"]
    assert [line for line in (" ".join(row.split()) for row in rows) if line in whole] == whole
    assert "20 µs, 20 B heap, 20 B file" in unpruned_line(front())


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, ["NOT MET  0.1x: no"]),
        ({"answer": "open"}, ["OPEN     0.6x: latency cannot be told apart from the bound", "NOT MET  0.1x: no"]),
        (
            {"answer": "not met", "missed": ["max_drop"], "recommended": False},
            ["NOT MET  0.6x: misses --max-drop; the nearest network is kept", "NOT MET  0.1x: no"],
        ),
        (
            {"recommended": False},
            ["BUT      0.6x: 0.6x/model.onnx is not better in every figure: see 0.6x/result.json", "NOT MET  0.1x: no"],
        ),
    ],
)
def test_what_speaks_against_a_network_is_said(changes: dict[str, Any], lines: list[str]) -> None:
    assert front_lines(front(**changes)) == lines


@pytest.mark.parametrize("bound", ["max_latency", "max_memory", "max_bytes", "expect_ncr"])
def test_a_picture_is_drawn(bound: str, tmp_path: Path) -> None:
    made = front() | {"bound": bound}
    made["trials"] += [{**made["trials"][0], "score": 0.1, "latency_share": None}]
    draw_front(made, tmp_path / "front.png")
    with Image.open(tmp_path / "front.png") as picture:
        assert picture.size > (600, 400)
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 5


@pytest.mark.parametrize("score", [0.2, 0.7, 0.89, 0.95])
def test_what_was_finished_is_inside_the_picture(score: float) -> None:
    made = front()
    made["trials"] = [{**trial, "score": score} for trial in made["trials"]]
    (axes,) = front_figure(made).axes
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    point = made["points"][0]
    assert low < 100 * point["quality"]["low"]
    assert 100 * max(point["quality"]["high"], made["unpruned"]["quality"]["value"]) < high
    assert left < point["latency_share"]["low"] < point["latency_share"]["high"] < right


def test_the_legend_covers_nothing_and_is_whole() -> None:
    made = front()
    answers = ("met", "not met", "open")
    made["points"] = [{**made["points"][0], "answer": answer, "asked": answer} for answer in answers]
    figure = front_figure(made)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_legend() is None
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert not box.overlaps(axes.get_tightbbox())
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert len(legend.get_texts()) == 2 + len(answers)
