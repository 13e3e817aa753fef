"""scikit-learn's digits: 1,797 images of 8x8, values 0 to 16, inside the package, so no file is needed."""

from __future__ import annotations

import numpy as np

from edgeprune.data.arrays import Raw, from_arrays
from edgeprune.data.split import TEST_SEED, stratified

TEST_SHARE = 0.2


def load_digits() -> Raw:
    """Arrays (N, 1, 8, 8) uint8; the test set is a fixed stratified fifth, whatever the user's seed."""
    # scikit-learn takes a second to import, which every other data set would pay.
    from sklearn.datasets import load_digits as load  # noqa: PLC0415

    bunch = load()
    x, y = bunch.images.astype(np.uint8), bunch.target.astype(np.int64)
    train, test = stratified(y, TEST_SHARE, TEST_SEED)
    arrays = {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}
    return from_arrays(arrays, "digits", classes=tuple("0123456789"), scale=1 / 16)
