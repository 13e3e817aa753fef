"""What README and docs show of looking at files and runs is typed, as it stands there, and works."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doc_commands import shown

import edgeprune
from edgeprune.cli.main import main
from edgeprune.devices.names import book

pytestmark = pytest.mark.soak

#: These take no time and need no board. Others are only parsed (tests/house/test_doc_commands.py).
TYPED = ("validate", "compare", "report", "runs", "bundle", "watch")
#: Of those, what is shown of files that somebody else has, or of a phone.
OF_OTHERS = ("text.onnx", "voice.onnx", "runs/life/model.onnx", "runs/front", "examples/detector.py:data", "adb")
#: What a name stands for here.
MEANT = {"mnist": "digits", "rpi4": "sim"}


def commands() -> list[tuple[str, ...]]:
    found = dict.fromkeys(words[1:] for _, words, block in shown() if block and words[0] == "edgeprune")
    ours = [words for words in found if words[0] in TYPED and not set(words) & set(OF_OTHERS)]
    # It writes what others read.
    return sorted(ours, key=lambda words: "--write-gate" not in words)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory, made_up: str) -> Iterator[Path]:
    """A folder with a device, runs and files of the names that the pages give them."""
    folder = tmp_path_factory.mktemp("kitchen")
    quick: dict[str, Any] = {
        "episodes": 4,
        "train_epochs": 5,
        "finetune_epochs": 2,
        "finalists": 1,
        "processes": 3,
        "precision": "fp32,int8",
    }
    run = edgeprune.run(edgeprune.RunConfig(device=made_up, runs_dir=folder / "runs", name="NAME", **quick)).folder
    for name in ("A", "B", "OTHER", "before", "after"):
        shutil.copytree(run, folder / "runs" / name)
    for file, names in {
        "baseline.onnx": ("old.onnx", "baseline.onnx"),
        "model.onnx": ("new.onnx", "a.onnx", "model.onnx"),
        "model.tflite": ("a.tflite", "b.tflite", "model.tflite"),
        "baseline.tflite": ("other.tflite",),
    }.items():
        for name in names:
            shutil.copy(run / file, folder / name)
    (folder / "sim.toml").write_text("seed = 1\n[latency]\nbase_s = 1e-5\ns_per_byte = 2e-9\n")
    with contextlib.chdir(folder):
        for name in ("sim", "NAME"):
            book.add(name, {"address": "simulated://sim.toml"}, project=True)
        for name in ("old", "new"):
            with (folder / f"{name}.json").open("w") as out, contextlib.redirect_stdout(out):
                typed("profile", f"{name}.onnx", "--device", "sim", "--json")
        yield folder


def typed(*words: str) -> object:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    return stop.value.code


@pytest.mark.usefixtures("kitchen")
def test_each_works(capfd: pytest.CaptureFixture[str]) -> None:
    assert len(commands()) > 15
    for words in commands():
        meant = [MEANT.get(word, word) for word in words]
        if "--out" in words:
            # Several lines show the same name.
            out = Path(words[words.index("--out") + 1])
            shutil.rmtree(out, ignore_errors=True)
            out.unlink(missing_ok=True)
        code = typed(*meant)
        told = capfd.readouterr()
        # 3: what is compared may be worse.
        assert code == 0 or (code == 3 and words[0] == "compare"), f"{' '.join(words)}: {told.err}"
