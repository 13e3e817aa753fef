"""What a network takes, in words and as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprune.core.inputs import INPUT, InputSpec, fields, plain_shape, records, specs_of, written

MOTION, WORDS = InputSpec("motion", (3, 8)), InputSpec("words", (5,), "int64", 40)


@pytest.mark.parametrize(
    ("shape", "words", "plain"),
    [
        ((3, 32, 32), "3x32x32", (3, 32, 32)),
        ((12,), "12", (12,)),
        ((InputSpec(INPUT, (5,), "int64", 40),), "5 (integers)", ()),
        ((MOTION, WORDS), "motion 3x8, words 5 (integers)", ()),
    ],
)
def test_shapes(shape, words: str, plain: tuple[int, ...]) -> None:
    assert written(shape) == words
    assert plain_shape(shape) == plain
    assert len(specs_of(shape)) == (2 if "motion" in words else 1)


def test_a_plain_shape_is_one_input_of_real_numbers() -> None:
    assert specs_of((3, 32, 32)) == (InputSpec(INPUT, (3, 32, 32)),)


@pytest.mark.parametrize("shape", [(), (3, 0), (-1,)])
def test_an_input_has_sides(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected sides of 1 or more"):
        InputSpec("x", shape)


def test_records_are_sliced_and_saved_as_one_array(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    motion, words = rng.normal(size=(6, 3, 8)).astype(np.float32), rng.integers(0, 40, (6, 5))
    together = records({"motion": motion, "words": words})
    assert together.shape == (6,)
    order = rng.permutation(6)
    np.save(tmp_path / "x.npy", together[order])
    back = fields(np.load(tmp_path / "x.npy", allow_pickle=False))
    np.testing.assert_array_equal(back["motion"], motion[order])
    np.testing.assert_array_equal(back["words"], words[order])
    assert list(fields(motion)) == [INPUT]
