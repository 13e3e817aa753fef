from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprune.core.errors import UsageError
from edgeprune.profilers.inputs import GivenInputs, given_for

A, B = Path("a.onnx"), Path("sub/b.onnx")


def test_a_single_file_gets_everything_and_nothing_is_shared(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((0, 3)))
    (found,) = given_for([A], ["ids=1x16", "in:0=4"], ["sr=16000", f"x={tmp_path}/x.npy", "text=a=b"], ["main"])
    assert found == GivenInputs(
        {"ids": (1, 16), "in:0": (4,)}, {"sr": "16000", "x": tmp_path / "x.npy", "text": "a=b"}, "main", frozenset()
    )


def test_of_several_files_one_may_be_named() -> None:
    a, b = given_for([A, B], ["n=8", "b.onnx:ids=1x16"], ["sub/b.onnx:sr=1", "a.onnx:in:0=2"], ["a.onnx:main"])
    assert a == GivenInputs({"n": (8,)}, {"in:0": "2"}, "main", frozenset({"n"}))
    assert b == GivenInputs({"n": (8,), "ids": (1, 16)}, {"sr": "1"}, "", frozenset({"n"}))


def test_the_same_file_twice_is_one_file() -> None:
    assert [each.shared for each in given_for([A, A], ["n=8"])] == [frozenset()] * 2


@pytest.mark.parametrize(
    ("shapes", "inputs", "says"),
    [
        (["x"], [], "--shape: expected an input and its sizes, got 'x'; write it like ids=1x16"),
        (["x=0x2"], [], "--shape"),
        (["=1"], [], "--shape"),
        (["c.onnx:x=1"], [], "--shape: c.onnx is not among the files; name one of them: a.onnx"),
        ([], ["x"], "--input: expected an input and its value, got 'x'; write it like sr=16000 or ids=FILE.npy"),
        ([], ["x=none.npy"], "--input x: there is no file none.npy"),
    ],
)
def test_what_cannot_be_read_says_how_to_write_it(shapes: list[str], inputs: list[str], says: str) -> None:
    with pytest.raises(UsageError) as error:
        given_for([A], shapes, inputs)
    assert says in str(error.value)


def test_files_that_hold_no_array_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.npy"
    np.save(whole, np.ones(100))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes(whole.read_bytes()[:300])
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in ("objects", "cut", "empty"):
        with pytest.raises(UsageError, match=rf"--input x: .*{name}.npy is not an array that numpy.save wrote"):
            given_for([A], [], [f"x={tmp_path}/{name}.npy"])
    with pytest.raises(UsageError, match="both give sizes; leave out --shape x"):
        given_for([A], ["x=100"], [f"x={whole}"])
