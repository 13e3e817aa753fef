"""What the base install does without the parts of `compress`, which are not to be found here."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from fakes.made_bundles import made_bundle
from fakes.made_runs import finished_run
from fakes.tiny_models import write_mlp
from fakes.tiny_tflite import write_tflite

from edgeprune.core.parts import COMPRESS

_WITHOUT = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {set(COMPRESS)}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Absent())
from edgeprune.cli.main import main
main(sys.argv[1:])
"""


def light(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of both formats, data of two kinds, a finished run, and a bundle."""
    folder = tmp_path_factory.mktemp("light")
    write_mlp(folder / "a.onnx")
    write_mlp(folder / "b.onnx", widths=(16, 12, 12, 4))
    write_tflite(folder / "a.tflite")
    random = np.random.default_rng(0)
    x = random.standard_normal((60, 16)).astype(np.float32)
    labels, several = random.integers(0, 4, 60), random.integers(0, 2, (60, 4)).astype(np.float32)
    np.savez(folder / "classes.npz", x_train=x, y_train=labels, x_test=x, y_test=labels)
    np.savez(folder / "labels.npz", x_train=x, y_train=several, x_test=x, y_test=several)
    np.savez(folder / "numbers.npz", x_train=x, y_train=x[:, :4] * 3, x_test=x, y_test=x[:, :4] * 3)
    finished_run(folder / "runs", "done")
    made_bundle(folder / "app")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "profile a.onnx a.tflite --per-operator --processes 1 --min-seconds 0",
        "compare a.onnx b.onnx --processes 1 --json",
        "validate a.onnx --data classes.npz --metric balanced-accuracy",
        "validate a.tflite --data labels.npz --task multi-label",
        "validate a.onnx --data numbers.npz",
        "devices list",
        "devices check local",
        "bundle verify app",
        "deploy app --device local --to there",
        "report runs/done --out page.html",
        "runs list",
        "runs show done",
        "runs export done --csv trials.csv",
        "watch done",
        "init --yes",
    ],
)
def test_measuring_validating_and_shipping_need_no_more(place: Path, command: str) -> None:
    done = light(*command.split(), cwd=place)
    assert done.returncode in ((0, 3) if command.startswith(("compare", "runs show")) else (0,)), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("run", "torch"),
        ("export lenet-300-100 --data classes.npz --out files", "torch"),
        ("inspect lenet-300-100", "torch"),
        ("shapley", "torch"),
        ("validate a.onnx --data digits", "scikit-learn"),
        ("profile a.onnx --histogram h.png", "matplotlib"),
    ],
)
def test_what_needs_more_says_what_to_type(place: Path, command: str, part: str) -> None:
    done = light(*command.split(), cwd=place)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: this needs {part}, which is not installed here: ")
    assert "type pip install 'edgeprune[compress]'" in done.stderr
    assert not done.stdout
    assert sorted(each.name for each in (place / "runs").iterdir()) == ["done"]


def test_the_table_of_parts_is_the_extra(place: Path) -> None:
    del place
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    names = {each.partition(">")[0] for each in project["optional-dependencies"]["compress"]}
    assert names == set(COMPRESS.values())
    assert not names & {each.partition(">")[0] for each in project["dependencies"]}


def test_another_missing_module_is_a_fault_of_ours(tmp_path: Path) -> None:
    gone = _WITHOUT.replace(str(set(COMPRESS)), "{'rich'}")
    done = subprocess.run(
        [sys.executable, "-c", gone, "runs", "list"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "ModuleNotFoundError: No module named 'rich'" in done.stderr
    assert done.returncode == 1
