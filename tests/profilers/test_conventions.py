"""Layouts, types and outputs by themselves, without a device."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.errors import ModelError
from edgeprune.devices.channel import ChannelError
from edgeprune.profilers.answers import NONE_OF_THEM, Reading, choose, other_order
from edgeprune.profilers.encoding import encode
from edgeprune.profilers.layouts import layouts
from edgeprune.profilers.ports import Output, Port, read_outputs, read_ports


@pytest.mark.parametrize(
    ("one", "declared", "shapes", "batch"),
    [
        ((3, 32, 32), (1, 3, 32, 32), [(3, 32, 32)], 1),
        ((3, 32, 32), (-1, 32, 32, 3), [(32, 32, 3)], 1),
        ((3, 32, 32), (-1, -1, -1, 3), [(32, 32, 3)], 1),
        ((3, 32, 32), (-1, -1, -1, -1), [(3, 32, 32), (32, 32, 3)], 1),
        ((3, 32, 32), (1, 3072), [(3072,), (3072,)], 1),
        ((3, 32, 32), (-1, -1), [(3072,), (3072,)], 1),
        ((3, 32, 32), (3, 32, 32), [(3, 32, 32)], 1),
        ((3, 32, 32), (32, 32, 3), [(32, 32, 3)], 1),
        ((3, 32, 32), (3072,), [(3072,), (3072,)], 1),
        ((3, 32, 32), (), [(3, 32, 32)], 1),
        ((3, 32, 32), (1, 1, 32, 32), [], 1),
        ((3, 32, 32), (1, 32, 3, 32), [], 1),
        ((1, 28, 28), (8, 784), [(784,)], 8),
        ((1, 28, 28), (1, 28, 28), [(28, 28)], 1),
        ((1, 28, 28), (28, 28), [(28, 28)], 1),
        ((1, 28, 28), (-1, 28, 28, 1), [(28, 28, 1)], 1),
        ((1, 28, 28), (1, 783), [], 1),
        ((64,), (-1, 1, 8, 8), [(1, 8, 8)], 1),
        ((64,), (4, 64), [(64,)], 4),
    ],
)
def test_layouts(one: tuple[int, ...], declared: tuple[int, ...], shapes: list[tuple[int, ...]], batch: int) -> None:
    found = layouts(one, declared)
    assert [each.shape for each in found] == shapes
    assert {each.batch for each in found} <= {batch}
    images = np.arange(2 * np.prod(one)).reshape(2, *one)
    arrays = [each.apply(images) for each in found]
    assert all(sorted(array.reshape(-1)) == list(range(images.size)) for array in arrays)
    assert len({array.tobytes() for array in arrays}) == len(arrays)


@given(st.sampled_from(["int8", "uint8", "int16"]), st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=9))
def test_integers_hold_exactly_what_they_are_given_or_nothing(dtype: str, numbers: list[float]) -> None:
    values = np.array([numbers], np.float32)
    limits = np.iinfo(dtype)
    exact = all(number == round(number) and limits.min <= number <= limits.max for number in values[0])
    try:
        made, clipped = encode(values, Port("x", (1, len(numbers)), dtype), "raw")
    except ModelError:
        assert not exact
    else:
        assert exact
        assert (clipped, made.dtype) == (0, np.dtype(dtype))
        np.testing.assert_array_equal(made, values)


def test_quantised_inputs_count_what_they_clip() -> None:
    made, clipped = encode(np.array([[0, 0.5, 1, 2]], np.float32), Port("x", (1, 4), "uint8", 1 / 255, 0), "unit")
    assert made.tolist() == [[0, 128, 255, 255]]
    assert clipped == 0.25
    with pytest.raises(ModelError, match="takes string"):
        encode(np.zeros((1, 1), np.float32), Port("x", (1,), "string"), "raw")
    with pytest.raises(ModelError, match="on or off"):
        encode(np.array([[0, 7]], np.float32), Port("x", (1, 2), "bool_"), "raw")


LABEL, SCORES, OTHER = Output("label", "i", (1,)), Output("scores", "f", (1, 10)), Output("aux", "f", (1, 10))


@pytest.mark.parametrize(
    ("given", "asked", "output", "kind"),
    [
        ([LABEL, SCORES], {}, "label", "labels"),
        ([SCORES, LABEL], {}, "scores", "scores"),
        ([LABEL, SCORES], {"name": "scores"}, "scores", "scores"),
        ([Output("boxes", "f", (1, 4)), SCORES], {}, "scores", "scores"),
        ([Output("boxes", "f", (1, 4)), LABEL], {}, "label", "labels"),
        ([Output("wide", "f", (1, 1001)), Output("n", "f", (1, 3))], {"offset": 1}, "wide", "scores"),
        ([Output("m", "map", (1, 10), tuple("0123456789"))], {}, "m", "scores"),
        ([Output("names", "U", (1,)), SCORES], {}, "names", "names"),
        ([Output("counts", "i", (1, 10))], {}, "counts", "scores"),
    ],
)
def test_the_output_that_tells_the_class(given: list[Output], asked: dict, output: str, kind: str) -> None:
    found = choose(given, 1, 10, "net.onnx", **asked)
    assert (found.output, found.kind) == (output, kind)


@pytest.mark.parametrize(
    ("given", "asked", "said"),
    [
        ([SCORES, OTHER], {}, "choose one: --output scores or --output aux"),
        ([Output("y", "f", (1, 9))], {}, "gives 9 numbers an image, the data has 10 classes$"),
        ([Output("y", "f", (1, 11))], {}, "--label-offset 1; where they come last, --label-offset 0"),
        ([Output("y", "f", (1, 11))], {"offset": 2}, "10 classes from 2 on"),
        ([Output("a", "f", (1, 3)), Output("b", "f", (1, 4))], {}, r"one value per class \(a 3, b 4 an image\)"),
        ([Output("s", "?", ())], {}, r"nothing that tells a class: s one value \(neither numbers nor strings\)"),
    ],
)
def test_outputs_that_do_not_tell_it(given: list[Output], asked: dict, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        choose(given, 1, 10, "net.onnx", **asked)
    import re

    assert re.search(said, str(caught.value))


def test_a_class_outside_the_datas_is_wrong_and_not_another_one() -> None:
    reading = Reading("y", "scores", 4, 1)
    found, _ = reading.classes(np.eye(4, dtype=np.float32), ("a", "b"))
    assert found.tolist() == [NONE_OF_THEM, 0, 1, NONE_OF_THEM]


def test_another_order() -> None:
    labels = np.arange(50) % 5
    share, order = other_order((labels + 2) % 5, labels, 5)
    assert (share, order) == (1.0, [3, 4, 0, 1, 2])


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["inputs", "outputs"]), inner),
    max_leaves=12,
)


@given(ANYTHING)
def test_what_a_device_tells_is_looked_at(told: object) -> None:
    for read in (read_ports, read_outputs):
        try:
            read(told)
        except ChannelError as error:
            assert error.kind in ("garbled", "refused")  # noqa: PT017 - either outcome is right
