"""What stands on the page of a run, and which runs have none."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.made_pages import GROUPS, made_front_run, made_run, made_trials, whole_result
from fakes.made_results import made_result

from edgeprune.cli.main import main
from edgeprune.core.measurement import Measurement
from edgeprune.pipeline.report import write_report


class _Text(HTMLParser):
    """What is to be read on a page, and its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.links: list[str] = []
        self._hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._hidden = tag in ("script", "style")
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


def read(page: Path) -> _Text:
    parser = _Text()
    parser.feed(page.read_text())
    return parser


def text_of(*runs: Path) -> str:
    """What is to be read on the page of these runs."""
    out = runs[0].parent / "page.html"
    write_report(runs, out)
    return " ".join(" ".join(read(out).words).split())


def charts_of(page: Path) -> dict[str, Any]:
    found = re.findall(r'<script type="application/json" id="([^"]+)-data">(.*?)</script>', page.read_text(), re.DOTALL)
    return {name: json.loads(data) for name, data in found}


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a refused report says."""
    with pytest.raises(SystemExit) as stop:
        main(["report", *map(str, arguments)])
    told = capsys.readouterr()
    assert stop.value.code == 2
    assert told.out == ""
    (line,) = told.err.splitlines()
    return line


def test_the_command_writes_a_page_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = made_run(tmp_path / "first"), tmp_path / "page.html"
    with pytest.raises(SystemExit) as stop:
        main(["report", str(run), "--out", str(out)])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"{out}: 1 run, ")
    assert "first" in " ".join(read(out).words)


def test_a_page_that_is_there_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = made_run(tmp_path / "first"), tmp_path / "page.html"
    out.write_text("mine")
    assert refused(capsys, run, "--out", out).endswith("is there already; name another --out, or remove it")
    assert out.read_text() == "mine"


def test_what_is_no_finished_run_is_refused_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    assert "holds no finished run" in refused(capsys, tmp_path / "none", "--out", out)
    unfinished = made_result() | {"status": "running"}
    assert "holds no finished run" in refused(capsys, made_run(tmp_path / "on", result=unfinished), "--out", out)
    cut = made_run(tmp_path / "cut")
    (cut / "result.json").write_text((cut / "result.json").read_text()[:500])
    assert "cannot read" in refused(capsys, cut, "--out", out)
    torn = made_run(tmp_path / "torn")
    (torn / "trials.sqlite").write_bytes(b"SQLite format 3\0" + bytes(4000))
    assert "trials.sqlite" in refused(capsys, torn, "--out", out)
    older = made_run(tmp_path / "older", result=made_result() | {"schema": 1})
    assert "older edgeprune" in refused(capsys, older, "--out", out)
    # A good one beside it does not save it.
    assert "holds no finished run" in refused(capsys, made_run(tmp_path / "good"), tmp_path / "none", "--out", out)
    assert not out.exists()


def test_before_and_after_with_intervals_and_verdicts(tmp_path: Path) -> None:
    text = text_of(made_run(tmp_path / "first"))
    assert "met Every bound is met, and the file is better than the unpruned one" in text
    assert "2.00x faster (95 %: 1.90 to 2.10 times)" in text
    assert "90.00 % (80.00 % to 95.00 %)" in text
    assert "2.00x faster (1.90 to 2.10) stable" in text
    assert "points lost at most 1.00 0.50 met" in text
    assert "TFLite not exported no such operator" in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"status": "budget-not-met", "answer": "not met", "value": 2.5},
            "NOT MET The budget was missed: points lost at most 1.00, got 2.50.",
        ),
        (
            {"status": "done", "answer": "open", "value": 0.9},
            "OPEN No bound is missed, but latency cannot be told",
        ),
        ({"status": "worse", "answer": "met", "value": 0.9}, "worse Every bound is kept, but by a file that is slower"),
    ],
)
def test_a_budget_that_is_not_met_is_said_first(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    made = whole_result()
    made["status"] = changes["status"]
    made["budget"] |= {"answer": changes["answer"], "met": changes["answer"] == "met", "recommended": False}
    made["budget"]["checks"][0] |= {"answer": changes["answer"], "met": False, "value": changes["value"]}
    text = text_of(made_run(tmp_path / "first", result=made))
    assert told in text
    assert "is better than the unpruned" not in text


def test_times_per_operator_stand_by_name_or_of_other_names_by_type(tmp_path: Path) -> None:
    def timed(*each: tuple[str, str, float]) -> list[dict[str, Any]]:
        return [{"name": name, "type": kind, "seconds": seconds} for name, kind, seconds in each]

    made = whole_result()
    file = made["artifacts"][0]
    assert "Time per operator" not in text_of(made_run(tmp_path / "none" / "run", result=made))
    file["baseline_operators"] = timed(("one", "Conv", 3e-3), ("two", "Conv", 1e-3), ("head", "Gemm", 1e-4))
    file["operators"] = timed(("two", "Conv", 5e-4), ("one", "Conv", 1e-3), ("new", "Gather", 2e-4))
    text = text_of(made_run(tmp_path / "named" / "run", result=made))
    assert "4.1 ms in all before, 1.7 ms after" in text
    # The dearest first; what only one of them has is a dash in the other.
    assert "one Conv 3 ms 1 ms two Conv 1 ms 500 µs head Gemm 100 µs - new Gather - 200 µs" in text
    file["operators"] = timed(("one_q", "QLinearConv", 1e-3), ("two_q", "QLinearConv", 2e-3), ("head", "Gemm", 1e-4))
    text = text_of(made_run(tmp_path / "typed" / "run", result=made))
    assert "Conv 4 ms - Gemm 100 µs 100 µs QLinearConv - 3 ms" in text


def test_what_runtime_and_threads_were_chosen_from_stands_the_fastest_first(tmp_path: Path) -> None:
    made = whole_result()
    assert "Runtimes and threads" not in text_of(made_run(tmp_path / "none" / "run", result=made))
    usual = {"precision": "fp32", "unit": "s", "why": ""}
    made["backends"] = [
        usual
        | {"runtime": "onnxruntime", "threads": None, "latency": None, "interval": None, "why": "it is not there"},
        usual | {"runtime": "litert", "threads": 1, "latency": 2e-3, "interval": [1.9e-3, 2.1e-3]},
        usual | {"runtime": "litert", "threads": 2, "latency": 1e-3, "interval": [0.9e-3, 1.1e-3]},
    ]
    text = text_of(made_run(tmp_path / "first", result=made))
    assert (
        "litert 2 fp32 1 ms 900 µs to 1.1 ms litert 1 fp32 2 ms 1.9 ms to 2.1 ms onnxruntime fp32 it is not there"
        in text
    )


def test_a_drawback_stands_beside_the_outcome(tmp_path: Path) -> None:
    made = whole_result()
    made["budget"]["recommended"] = False
    made["artifacts"][0]["drawbacks"] = [{"what": "bytes", "worse": True, "text": "model.onnx is larger"}]
    text = text_of(made_run(tmp_path / "first", result=made))
    assert "BUT model.onnx is larger" in text
    assert "but the file is not better than the unpruned one in every figure" in text


def test_instructions_of_an_emulator_stay_instructions(tmp_path: Path) -> None:
    text = text_of(made_run(tmp_path / "first", result=whole_result("instructions")))
    assert "emulated-rpi4 (emulated)" in text
    assert "10.000 M instructions (emulated)" in text
    assert "2.00x fewer instructions" in text
    assert "An emulated processor, not a board" in text
    assert not re.search(r"\d (µs|ms|s)\b", text)
    assert "faster" not in text.replace("no faster", "")
    assert "Raspberry" not in text


def test_hostile_names_are_text(tmp_path: Path) -> None:
    nasty = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    made = whole_result()
    made["config"] |= {"model": nasty, "data": nasty}
    made["classes"][0]["name"] = made["compressed"]["layers"][0]["name"] = nasty
    made["compressed"]["frozen"] = {nasty: {"reason": nasty, "macs": 9, "macs_share": 0.5, "parameters": 1}}
    made["device"]["facts"] = {nasty: nasty}
    plain, out = tmp_path / "plain.html", tmp_path / "page.html"
    write_report([made_run(tmp_path / "plain")], plain)
    write_report([made_run(tmp_path / "first", result=made)], out)
    assert read(out).tags.count("script") == read(plain).tags.count("script")
    assert "img" not in read(out).tags
    assert nasty in " ".join(read(out).words)


def test_the_page_asks_the_network_for_nothing(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    write_report([made_run(tmp_path / "first")], out)
    page = out.read_text()
    assert {link[:1] for link in read(out).links if link != "data:,"} <= {"#"}
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_trials_are_drawn_with_front_choice_and_widths(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    write_report([made_run(tmp_path / "first", trials=80)], out)
    data = charts_of(out)["r0-trials"]
    trials = [trial for trial in made_trials(80) if isinstance(trial.candidate.cost, Measurement)]
    assert len(data["x"]) == len(data["y"]) == len(trials) == 78
    assert data["groups"] == list(GROUPS)
    assert data["widths"][5] == list(trials[5].candidate.plan.widths.values())
    assert data["marks"][5] == 2
    beaten = [
        any(x <= a and y >= b and (x, y) != (a, b) for x, y in zip(data["x"], data["y"], strict=True))
        for a, b in zip(data["x"], data["y"], strict=True)
    ]
    assert [mark == 1 or place == 5 for place, mark in enumerate(data["marks"])] == [
        not each or place == 5 for place, each in enumerate(beaten)
    ]
    low, high = data["yRange"]
    assert low < data["y"][5] < high
    assert "2 could not be measured and have no place here." in " ".join(read(out).words)
    rewards = charts_of(out)["r0-reward"]["series"]
    assert rewards[1]["y"] == np.maximum.accumulate(rewards[0]["y"]).tolist()


def test_an_error_is_not_called_a_share(tmp_path: Path) -> None:
    made = whole_result()
    made |= {"task": "regression", "metric": "mae", "classes": []}
    for scores in (
        made["baseline"]["scores"], made["compressed"]["scores"], made["compressed"]["scores_before_finetune"],
        made["artifacts"][0]["device_scores"], made["artifacts"][0]["baseline_device_scores"],
    ):  # fmt: skip
        scores.clear()
        scores["mae"] = 4.125
    for side in ("baseline", "compressed"):
        made[side]["interval"] = [4.0, 4.25]
    run = made_run(tmp_path / "first", result=made)
    assert "Mean absolute error on 9 test examples: 4.125 (95 %: 4 to 4.25)" in text_of(run)
    data = charts_of(tmp_path / "page.html")["r0-trials"]
    assert not data["percent"]
    assert data["yTitle"] == "score of the search, 1 is no error"


def test_a_percentile_needs_samples_beyond_it(tmp_path: Path) -> None:
    made = whole_result()
    assert "p90" in text_of(made_run(tmp_path / "many", result=made))
    for side in ("latency", "baseline_latency"):
        made["artifacts"][0][side]["samples"] = made["artifacts"][0][side]["samples"][:99]
    (tmp_path / "page.html").unlink()
    text = text_of(made_run(tmp_path / "few", result=made))
    assert "p90 is told where at least ten samples lie beyond it." in text
    assert not re.search(r"p90 \d", text)


def test_several_runs_stand_side_by_side(tmp_path: Path) -> None:
    alike = text_of(made_run(tmp_path / "one"), made_run(tmp_path / "two"))
    assert "Side by side" in alike
    assert "These runs have different" not in alike
    other = whole_result("instructions")
    other["data"]["fingerprint"] = "g"
    (tmp_path / "page.html").unlink()
    unlike = text_of(tmp_path / "one", made_run(tmp_path / "three", result=other))
    assert "These runs have different units of cost: none is converted into another." in unlike
    assert "These runs have different devices: do not compare their latencies and heaps." in unlike
    assert "These runs have different data: do not compare their quality." in unlike


def test_a_front_is_a_table_a_picture_and_its_networks(tmp_path: Path) -> None:
    text = text_of(made_front_run(tmp_path / "front"))
    assert "NOT MET 2 bounds on one search; met: 0.6x; missed: 0.1x." in text
    assert "0.6x met 90.00 % 0.10 0.5x (0.49 to 0.51)" in text
    assert "NOT MET 0.1x: no" in text
    assert "front/0.6x Bound 0.6x: lenet-300-100 on digits, local" in text
    charts = charts_of(tmp_path / "page.html")
    assert [each["text"] for each in charts["r0-trials"]["finished"]] == ["0.6x"]
    assert [each["text"] for each in charts["r0-trials"]["lines"]] == ["0.6x", "0.1x"]
    assert charts["r0-reward"]["lines"] == [{"x": 0, "text": "0.6x"}]
    assert "r0-0-loss-critic" in charts
    assert "edgeprune run --max-latency 0.6x,0.1x" in text


def test_how_to_repeat_it_can_be_typed(tmp_path: Path) -> None:
    made = whole_result()
    made["config"] |= {"data": "my data.npz", "max_latency": "0.6x", "prune_frozen": True, "seed": 3}
    text = text_of(made_run(tmp_path / "first", result=made))
    assert "edgeprune run --data 'my data.npz' --seed 3 --max-latency 0.6x --prune-frozen" in text
    assert f"edgeprune run --config {tmp_path / 'first' / 'result.json'}" in text
    for item in made["artifacts"]:
        assert item.get("sha256", "") in text


def test_a_thousand_trials_are_under_three_megabytes(long_run: Path, tmp_path: Path) -> None:
    assert write_report([long_run], tmp_path / "page.html") < 3_000_000


def test_the_same_run_is_the_same_page(tmp_path: Path) -> None:
    run = made_run(tmp_path / "first")
    pages = [tmp_path / "one.html", tmp_path / "two.html"]
    for page in pages:
        write_report([run], page)
    assert pages[0].read_bytes() == pages[1].read_bytes()
