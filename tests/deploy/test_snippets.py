"""The C++ that a bundle holds compiles, and gives a runtime the values that `predict.py` gives it."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from needs import needs

from edgeprune.data.dataset import Preprocessing
from edgeprune.deploy.card import Port
from edgeprune.deploy.snippets import CPP, KOTLIN, snippets

FAKES = Path(__file__).parents[1] / "fakes"
COLOURS = Port(
    name="image",
    shape=(3, 2, 2),
    dtype="float32",
    preprocessing=Preprocessing(1 / 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.1)),
)
WORDS = Port(name='odd "name" $x', shape=(3,), dtype="int64")


def card(*inputs: Port, labels: tuple[str, ...] = (), format: str = "tflite") -> Any:
    return SimpleNamespace(format=format, file="model.tflite", inputs=inputs, labels=labels)


def built(folder: Path, made: Any, *tensors: tuple[str, str, int]) -> Path:
    """The program, with a runtime that answers what it is given; `tensors`: name, type and values of each input."""
    (folder / CPP).write_text(snippets(made)[CPP], encoding="utf-8")
    (folder / made.file).touch()
    listed = ",".join(f"{{{name}, kTfLite{kind}, {size}, {{}}}}" for name, kind, size in tensors)
    subprocess.run(
        ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-DINPUTS={listed}", "-I", str(FAKES), CPP,
         str(FAKES / "fake_c_api.cc"), "-o", "use"],
        cwd=folder, check=True,
    )  # fmt: skip
    return folder / "use"


def answers(program: Path, *given: list[float]) -> tuple[int, list[str], str]:
    files = []
    for number, values in enumerate(given):
        files.append(f"{number}.bin")
        (program.parent / files[-1]).write_bytes(struct.pack(f"<{len(values)}f", *values))
    done = subprocess.run([program, *files], cwd=program.parent, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines(), done.stderr


@needs("g++")
def test_a_picture_is_scaled_channel_by_channel_and_labels_are_shown(tmp_path: Path) -> None:
    program = built(tmp_path, card(COLOURS, labels=('a "b" \\', "ü$x")), ('"serving_default_args_0:0"', "Float32", 12))
    raw = np.arange(12, dtype=np.float32) * 20
    code, lines, _ = answers(program, raw.tolist())
    assert code == 0
    assert COLOURS.preprocessing is not None
    wanted = COLOURS.preprocessing.apply(raw.reshape(1, 3, 2, 2)).ravel()
    assert [float(line.split("\t")[-1]) for line in lines] == pytest.approx(wanted.tolist(), rel=1e-5)
    assert [line.split("\t")[0] for line in lines[:2]] == ['a "b" \\', "ü$x"]
    assert "\t" not in lines[2]


@needs("g++")
def test_several_inputs_are_given_by_their_names_and_integers_stay(tmp_path: Path) -> None:
    each = Port(name="x", shape=(2,), dtype="float32", preprocessing=Preprocessing(1.0, (1.0, 2.0), (2.0, 4.0)))
    program = built(tmp_path, card(each, WORDS), (r'"odd \"name\" $x"', "Int64", 3), ('"x"', "Float32", 2))
    code, lines, _ = answers(program, [3.0, 10.0], [7.0, 0.0, 5000.0])
    assert (code, [float(line) for line in lines]) == (0, [7.0, 0.0, 5000.0, 1.0, 2.0])


@needs("g++")
def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    program = built(tmp_path, card(COLOURS), ('"image"', "Float32", 12))
    assert answers(program)[::2] == (1, "error: expected a file for each input: image.bin\n")
    assert answers(program, [1.0])[::2] == (1, "error: cannot read 0.bin\n")
    (tmp_path / "model.tflite").unlink()
    assert answers(program, [1.0] * 12)[::2] == (1, "error: cannot open model.tflite\n")


def test_there_are_none_for_other_formats_and_open_sizes() -> None:
    assert snippets(card(COLOURS, format="onnx")) == {}
    assert snippets(card(Port(name="x", shape=(None, 3), dtype="float32"))) == {}


def test_kotlin_has_the_same_numbers() -> None:
    text = snippets(card(COLOURS, WORDS, labels=("a$b",)))[KOTLIN]
    assert f"{1 / 255!r}f, floatArrayOf(0.5f, 0.4f, 0.3f), floatArrayOf(0.2f, 0.3f, 0.1f)" in text
    assert r'Input("odd \"name\" \$x", 3, false, 1.0f, floatArrayOf(0.0f), floatArrayOf(1.0f))' in text
    assert r'listOf<String>("a\$b")' in text
    assert text.count("{") == text.count("}")
