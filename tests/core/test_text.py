from __future__ import annotations

import pytest

from edgeprune.core.text import shorten


def test_the_middle_goes_and_the_numbers_at_the_end_stay() -> None:
    said = "cannot open the model: " + "very long " * 60 + "IR version: 99, max supported IR version: 11"
    short = shorten(said, 120)
    assert len(short) == 120
    assert short.startswith("cannot open the model: very")
    assert short.endswith("IR version: 99, max supported IR version: 11")


@pytest.mark.parametrize("most", [20, 21, 22, 79, 80, 81, 500])
def test_it_is_one_line_and_as_long_as_it_may_be(most: int) -> None:
    text = "a\n b\u2028" + "c" * 100
    whole = "a b " + "c" * 100
    short = shorten(text, most)
    assert len(short) == min(most, len(whole))
    assert (short == whole) == (len(whole) <= most)
