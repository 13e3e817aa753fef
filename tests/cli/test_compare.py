from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.made_results import made_result
from fakes.tiny_models import write_mlp
from fakes.tiny_tflite import write_tflite

from edgeprune.cli.main import main
from edgeprune.profilers.gate import DEFAULT_GATE, default_gate, read_gate

Runs = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runs:
    """Runs `edgeprune compare ARGUMENTS` in a folder with models and a run: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    write_mlp(tmp_path / "full.onnx", (64, 256, 128, 10))
    write_mlp(tmp_path / "half.onnx", (64, 128, 64, 10))
    keep(tmp_path / "before")

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["compare", *arguments])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return int(ended.value.code or 0), shown.out, shown.err

    return run


def keep(folder: Path, change: Callable[[dict[str, Any]], Any] = lambda _: None, share: float = 1.0) -> None:
    """A finished run whose file takes `share` of 10 µs in each of five processes, a little more or less."""
    result = copy.deepcopy(made_result())
    shipped = result["artifacts"][0]
    samples = [1e-5 * share * (1 + 0.002 * process) for process in range(5) for _ in range(3)]
    beside = [2e-5 * (1 + 0.001 * process) for process in range(5) for _ in range(3)]
    shipped["latency"] = {"median": samples[7], "samples": samples, "unit": "s"}
    shipped["baseline_latency"] = {"median": beside[7], "samples": beside, "unit": "s"}
    shipped.update(process=[process for process in range(5) for _ in range(3)], sha256=f"of {folder.name}")
    change(result)
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(result))


def worse(result: dict[str, Any]) -> None:
    result["artifacts"][0].update(device_scores={"accuracy": 0.7, "balanced-accuracy": 0.7}, bytes=10_000)
    result["artifacts"][0]["device_interval"] = [0.68, 0.72]


def test_two_files_are_raced_with_a_copy(runs: Runs) -> None:
    code, out, err = runs("half.onnx", "full.onnx", "--processes", "2", "--json")
    assert (code, err) == (3, "")
    told = json.loads(out)
    assert (told["schema"], told["kind"], told["answer"]) == (1, "raced", "regression")
    assert told["control"] == {"kind": "copy", "file": "half.onnx", "sha256": told["a"]["sha256"]}
    figures = {each["figure"]: each for each in told["figures"]}
    assert figures["bytes"]["verdict"] == figures["memory"]["verdict"] == "worse"
    assert figures["quality"]["verdict"] == "missing"
    assert {"bytes", "memory"} <= set(told["regressions"])
    latency = figures["latency"]
    assert latency["interval"]["low"] <= latency["change"] <= latency["interval"]["high"]
    assert latency["control"]["processes"] == 2
    assert latency["limit"] >= latency["floor"] > 0
    raced = told["race"]
    assert len(raced["race"]["samples"]) == len(raced["control"]["against"]) == 2 * 15
    assert len(raced["p90"]) == 2


def test_the_same_run_is_no_regression_and_fits_80_columns(runs: Runs) -> None:
    code, out, err = runs("before", "before")
    assert (code, err) == (0, "")
    table = out[: out.index("p90: ")]
    assert max(map(len, table.splitlines())) <= 80
    assert "A and B, which are the same file" in out
    assert "p90: not measured in both, so it was not judged" in out
    assert out.endswith("no regression by the default gate\n")


def test_a_worse_run_is_a_regression(runs: Runs, tmp_path: Path) -> None:
    keep(tmp_path / "after", worse, share=1.2)
    code, out, _ = runs("before", "after")
    assert code == 3
    assert out.endswith("REGRESSION by the default gate: latency, bytes, quality\n")
    assert "noise floor by baseline.onnx, which was measured in both sessions" in out
    assert "latency: worse by 2.01 µs (20.0 %), beyond what the gate allows, 0.502 µs (5.0 %)" in out
    assert "quality: worse by 20.00 pt (22.2 %)" in out
    assert "…" not in out
    code, out, _ = runs("after", "before")
    assert code == 0
    assert out.count("better") == 3
    (tmp_path / "gate.toml").write_text('schema = 1\n[latency]\nmost_percent = 30\n[p90]\nmissing = "fail"\n')
    code, out, _ = runs("before", "after/result.json", "--profile", "gate.toml")
    assert code == 3
    assert "p90: not measured in both, which the gate says fails" in out
    assert out.endswith("REGRESSION by gate.toml: p90\n")


def test_a_slower_session_is_no_regression(runs: Runs, tmp_path: Path) -> None:
    """The unpruned file, the same in both runs, has become slower by as much."""

    def warmer(result: dict[str, Any]) -> None:
        baseline = result["artifacts"][0]["baseline_latency"]
        baseline["samples"] = [1.2 * sample for sample in baseline["samples"]]

    keep(tmp_path / "after", warmer, share=1.2)
    code, out, _ = runs("before", "after", "--json")
    assert code == 0, out
    assert json.loads(out)["figures"][0]["verdict"] == "same"
    keep(tmp_path / "other", lambda result: result["artifacts"][0].update(baseline_sha256="c"), share=1.2)
    code, out, _ = runs("before", "other")
    assert code == 3
    assert "no file was measured in both sessions" in out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda result: result["data"].update(fingerprint="g"), "the data's fingerprint is f in before and g in after"),
        (lambda result: result["device"]["facts"].update(cores=4), "cores is 2 in before and 4 in after"),
        (lambda result: result["device"].update(name="rpi4"), "the device is local in before and rpi4 in after"),
        (lambda result: result["artifacts"][0]["settings"].update(threads=2), "threads is 1 in before and 2 in after"),
    ],
)
def test_runs_not_measured_alike_are_refused(
    runs: Runs, tmp_path: Path, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    keep(tmp_path / "after", change)
    code, out, err = runs("before", "after")
    assert (code, out) == (2, "")
    assert err.startswith("error: they were not measured alike: ")
    assert says in err
    assert "edgeprune compare RUN-A/model.onnx RUN-B/model.onnx" in err
    assert len(err.splitlines()) == 1


def test_without_quality_in_the_gate_data_may_differ(runs: Runs, tmp_path: Path) -> None:
    keep(tmp_path / "after", lambda result: result["data"].update(fingerprint="g"))
    (tmp_path / "gate.toml").write_text("schema = 1\n[latency]\nmost_percent = 5\n")
    assert runs("before", "after", "--profile", "gate.toml")[0] == 0


def test_the_default_gate_is_written_once(runs: Runs, tmp_path: Path) -> None:
    assert runs("--write-gate", "gate.toml")[:2] == (0, "wrote gate.toml\n")
    assert (tmp_path / "gate.toml").read_text() == DEFAULT_GATE
    assert read_gate(Path("gate.toml")).figures == default_gate().figures
    code, _, err = runs("--write-gate", "gate.toml")
    assert code == 2
    assert "gate.toml is there already" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "compare takes two of a kind, A and B; type: edgeprune compare old.onnx new.onnx"),
        (("half.onnx",), "compare takes two of a kind"),
        (("half.onnx", "none.onnx"), "none.onnx does not exist"),
        (("half.onnx", "before"), "half.onnx is a model file and before is a run: they cannot be compared"),
        (("half.onnx", "half.tflite"), "half.onnx and half.tflite need different runtimes"),
        (("half.txt", "half.onnx"), "expected a model file, a file of profile --json or a run folder, got half.txt"),
        (("half.onnx", "full.onnx", "--profile", "no.toml"), "no.toml: No such file"),
        (("half.onnx", "full.onnx", "--device", "nowhere"), "unknown device 'nowhere'"),
        (("before", "before", "--device", "local"), "--device is for model files"),
        (("before", "before", "--timeout", "3"), "--timeout is for model files"),
        (("before", "empty"), "empty is no run: it holds no result.json"),
        (("no.json", "no.json"), "cannot read the profile no.json: it is not JSON"),
        (("--write-gate", "no/gate.toml"), "there is no folder no"),
        (("half.onnx", "full.onnx", "--write-gate", "x.toml"), "--write-gate writes a gate and compares nothing"),
    ],
)
def test_wrong_usage(runs: Runs, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    (tmp_path / "half.txt").write_bytes(b"")
    (tmp_path / "no.json").write_text("no")
    (tmp_path / "empty").mkdir()
    write_tflite(tmp_path / "half.tflite")
    code, out, err = runs(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1


def test_files_that_take_other_inputs_are_refused(runs: Runs, tmp_path: Path) -> None:
    write_mlp(tmp_path / "wide.onnx", (32, 16, 10))
    code, out, err = runs("half.onnx", "wide.onnx", "--processes", "1", "--quiet")
    assert (code, out) == (2, "")
    assert "half.onnx takes 1x64 float32, and wide.onnx takes 1x32 float32: they were not measured alike" in err
