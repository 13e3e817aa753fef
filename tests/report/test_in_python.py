"""What Python and a notebook show of a result."""

from __future__ import annotations

from pathlib import Path

from fakes.made_results import made_front, made_result

import edgeprune
from edgeprune.pipeline.front import FrontResult
from edgeprune.pipeline.result import RunResult


def test_a_result_is_one_short_line() -> None:
    found = repr(RunResult(Path("runs/it"), made_result()))
    assert found.startswith("RunResult('runs/it': met, model.onnx ")
    assert found.endswith("accuracy 90.00 %)")
    assert len(found) < 100


def test_summary_and_table_say_what_the_command_says() -> None:
    result = RunResult(Path("runs/it"), made_result())
    assert result.summary().startswith("met ")
    assert "parameters" in result.table()
    assert "\x1b" not in result.table()
    assert max(map(len, result.table().splitlines())) <= 100


def test_a_front_has_a_row_a_bound() -> None:
    front = FrontResult(Path("runs/front"), made_front())
    for point in made_front()["points"]:
        assert point["asked"] in repr(front)
        assert point["asked"] in front.table()
    assert "NOT MET" in front.summary()


def test_a_notebook_shows_names_as_they_are() -> None:
    made = made_result()
    made["config"] = {**made["config"], "model": "<script>alert(1)</script>"}
    shown = RunResult(Path("runs/it"), made)._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "<pre" in FrontResult(Path("runs/front"), made_front())._repr_html_()


def test_what_shows_progress_is_importable() -> None:
    screen = edgeprune.watching()
    with screen.bar("working", 2) as bar:
        bar.advance()
