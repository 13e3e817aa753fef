"""Bad input: one line on stderr, the documented exit code, no traceback, nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.cli.main import main

Fails = Callable[..., str]


@pytest.fixture
def fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Runs `edgeprune ARGUMENTS` in an empty folder; returns the one line of stderr that is the error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEPRUNE_DATA", raising=False)

    def run(code: int, *arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        shown = capsys.readouterr()
        assert ended.value.code == code, shown.err
        assert "Traceback" not in shown.err
        lines = shown.err.strip().splitlines()
        assert lines[-1].startswith("error: ")
        assert sum(line.startswith("error: ") for line in lines) == 1
        assert shown.out == ""
        return lines[-1]

    return run


def arrays(path: Path, **changes: np.ndarray) -> str:
    rng = np.random.default_rng(0)
    content = {
        "x_train": rng.random((60, 1, 8, 8), dtype=np.float32),
        "y_train": np.arange(60) % 3,
        "x_test": rng.random((12, 1, 8, 8), dtype=np.float32),
        "y_test": np.arange(12) % 3,
    }
    np.savez(path, **(content | changes))
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--device", "rpi9"], "unknown device 'rpi9'; did you mean 'rpi"),
        (["--model", "lenet"], "unknown model 'lenet'; did you mean 'lenet5'?"),
        (["--data", "minst"], "unknown data set 'minst'; did you mean 'mnist'?"),
        (["--data", "none.npz"], "none.npz does not exist"),
        (["--data", "none.py:f"], "none.py"),
        (["--episods", "3"], "No such option '--episods'. (Did you mean one of: '--episodes'"),
        (["--episodes", "x"], "Invalid value for '--episodes'"),
        (["--episodes", "0"], "--episodes must be at least 1"),
        (["--runtime", "tvm"], "Invalid value for '--runtime'"),
        (["--max-latency", "quick"], "--max-latency: 'quick' is not a bound; write it like 5ms"),
        (["--max-memory", "5"], "--max-memory: '5' is not a bound"),
        (["--max-latency", "2x"], "'2x' would allow more than the unpruned network has; for twice as fast write 0.5x"),
        (
            ["--max-drop", "1%"],
            "--max-drop is in percent, and what is lost of accuracy is told in points; write it as in --max-drop 1",
        ),
        (["--validation-share", "10%"], "'10%' has a unit; write 0.1"),
        (["--weights", "none.pt"], "none.pt does not exist"),
        (["--config", "none.toml"], "cannot read none.toml"),
        (["--resume", "nothing"], "no run 'nothing' in runs; there are no runs in runs"),
        (["--name", "../x"], "not a folder name"),
        (["--model", "resnet20", "--data", "a.npz"], "needs images of at least 8x8"),
        (["surplus"], "unexpected extra argument"),
        (["--method", "random", "--penalty", "0.1"], "--penalty means nothing to --method random; leave it out"),
        (["--method", "amc", "--agent-lr", "0.1"], "--agent-lr means nothing to --method amc"),
        (
            ["--buffer-size", "9"],
            "--buffer-size means nothing to --method edgeprune; leave it out, or give --method acnn",
        ),
    ],
)
def test_wrong_usage(fails: Fails, tmp_path: Path, arguments: list[str], says: str) -> None:
    arrays(tmp_path / "a.npz", x_train=np.zeros((60, 5), np.float32), x_test=np.zeros((12, 5), np.float32))
    assert says in fails(2, "run", *arguments)


def test_unknown_command(fails: Fails) -> None:
    assert "No such command 'rnu'" in fails(2, "rnu")


def test_a_board_that_is_not_configured_is_device_trouble(fails: Fails, tmp_path: Path) -> None:
    assert "device 'rpi4' has no address; type: edgeprune devices add rpi4 ssh://pi@" in fails(
        4, "run", "--device", "rpi4"
    )
    assert not (tmp_path / "runs").exists()


def test_unknown_toml_key(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("epsiodes = 3\n")
    assert "unknown key 'epsiodes' in c.toml; did you mean 'episodes'?" in fails(2, "run", "--config", "c.toml")


def test_data_that_cannot_be_used(fails: Fails, tmp_path: Path) -> None:
    holes = np.zeros((60, 1, 8, 8), np.float32)
    holes[3, 0, 2, 2] = np.nan
    (tmp_path / "cut.npz").write_bytes(Path(arrays(tmp_path / "whole.npz")).read_bytes()[:300])
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04 not really")
    for source, says in (
        (arrays(tmp_path / "nan.npz", x_train=holes), "NaN"),
        (arrays(tmp_path / "labels.npz", y_train=np.arange(60)), "label"),
        (arrays(tmp_path / "short.npz", y_test=np.arange(5)), "y_test"),
        ("cut.npz", "cut.npz"),
        ("cut.zip", "cut.zip"),
    ):
        assert says in fails(2, "run", "--data", source)


def test_standard_data_that_is_damaged_or_missing(fails: Fails, tmp_path: Path) -> None:
    folder = tmp_path / "mnist"
    folder.mkdir()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8bgarbage")
    for name in ("train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (folder / name).write_bytes(b"")
    assert "idx" in fails(2, "run", "--data", "mnist", "--data-dir", str(tmp_path))
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"\x1f\x8b nonsense")
    assert "cifar-10-python.tar.gz" in fails(2, "run", "--data", "cifar10", "--data-dir", str(tmp_path))


MODELS = """
from torch import nn
def raises(): raise ValueError("out of cheese")
def wrong(): return 42
def linear(): return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))
"""


def test_models_that_cannot_be_used(fails: Fails, tmp_path: Path) -> None:
    data = arrays(tmp_path / "a.npz")
    (tmp_path / "m.py").write_text(MODELS)
    for model, says in (
        ("m.py:raises", "out of cheese"),
        ("m.py:wrong", "returned int"),
        ("m.py:none", "none"),
        ("m.py:linear", "nothing to prune"),
        ("absent.py:f", "absent.py"),
    ):
        assert says in fails(2, "run", "--data", data, "--model", model)


def test_weights_that_do_not_fit_or_are_untrained(fails: Fails, tmp_path: Path) -> None:
    data = arrays(tmp_path / "a.npz")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "w.pt")
    assert "do not fit the model" in fails(2, "run", "--data", data, "--weights", "w.pt")


def test_run_folders(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    said = fails(2, "run", "--name", "taken")
    assert said == "error: run folder runs/taken exists; choose another --name, or continue it with --resume taken"
    (tmp_path / "file").write_text("")
    assert "choose another --runs-dir" in fails(1, "run", "--runs-dir", "file")


def test_a_refused_run_leaves_no_folder(fails: Fails, tmp_path: Path) -> None:
    fails(2, "run", "--data", "minst", "--name", "one")
    assert list((tmp_path / "runs").iterdir()) == []


def test_help_needs_no_torch(capsys: pytest.CaptureFixture[str]) -> None:
    import subprocess
    import sys

    code = "import sys; from edgeprune.cli.main import main\ntry: main(['run', '--help'])\nexcept SystemExit: pass\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
