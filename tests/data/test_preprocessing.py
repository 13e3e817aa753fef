"""Figures that inputs cannot be made with are refused, wherever they come from."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeprune.core.errors import DataError
from edgeprune.data.dataset import Preprocessing


@pytest.mark.parametrize(
    ("scale", "mean", "std", "says"),
    [
        (math.nan, (0.0,), (1.0,), "expected a finite scale other than 0, got nan"),
        (0.0, (0.0,), (1.0,), "expected a finite scale other than 0, got 0.0"),
        (1.0, (math.inf,), (1.0,), "expected finite numbers in mean, got inf at place 0"),
        (1.0, (0.0, 0.0), (1.0, math.nan), "expected finite numbers in std, got nan at place 1"),
        (1.0, (0.0,), (0.0,), "expected every std above 0, got 0.0 at place 0"),
        (1.0, (0.0,), (-1.0,), "expected every std above 0, got -1.0 at place 0"),
        (1.0, (0.0,), (1e-60,), "expected every std above 0"),
        (1.0, (0.0,), (1e-40,), "makes inputs too large for float32"),
        (1e60, (0.0,), (1.0,), "expected a finite scale"),
        (1.0, (0.0, 1.0, 2.0), (1.0, 1.0), "expected as many means as stds, got 3 and 2"),
        (1.0, (), (), "expected as many means as stds, got 0 and 0"),
    ],
)
def test_figures_that_cannot_be(scale: float, mean: tuple[float, ...], std: tuple[float, ...], says: str) -> None:
    with pytest.raises(DataError) as refused:
        Preprocessing(scale, mean, std)
    assert says in refused.value.message
    assert "(raw * scale - mean) / std" in refused.value.hint


def test_as_many_figures_as_channels() -> None:
    three = Preprocessing(1 / 255, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    three.check_fits(3)
    with pytest.raises(DataError, match="expected 1 means and stds, one per channel or feature, got 3"):
        three.check_fits(1)
    assert np.isfinite(three.apply(np.full((1, 3, 2, 2), 255, np.uint8))).all()
