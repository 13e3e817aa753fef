from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.core.errors import EdgepruneError
from edgeprune.data.idx import FILES


def idx_bytes(array: np.ndarray) -> bytes:
    """An array of bytes as an IDX file's content, not yet gzipped."""
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def idx_folder() -> Callable[[Path], Path]:
    """Writes a small MNIST-like set of four real IDX files into a folder."""

    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        for (images, labels), count in zip((FILES[:2], FILES[2:]), (60, 20), strict=True):
            x = rng.integers(0, 256, (count, 28, 28), np.uint8)
            y = (np.arange(count) % 10).astype(np.uint8)
            (folder / images).write_bytes(gzip.compress(idx_bytes(x)))
            (folder / labels).write_bytes(gzip.compress(idx_bytes(y)))
        return folder

    return write


@pytest.fixture
def arrays() -> dict[str, Any]:
    """A small usable set: 40 + 8 grey 5x6 images of 4 classes."""
    rng = np.random.default_rng(1)
    return {
        "x_train": rng.integers(0, 256, (40, 5, 6), np.uint8),
        "y_train": np.arange(40) % 4,
        "x_test": rng.integers(0, 256, (8, 5, 6), np.uint8),
        "y_test": np.arange(8) % 4,
    }


@pytest.fixture
def fails() -> Callable[..., str]:
    """`fails(error type, phrase, function, ...)`: the one-line message of the error that the call must raise."""

    def check(kind: type[EdgepruneError], phrase: str, call: Callable[..., Any], *args: Any, **options: Any) -> str:
        with pytest.raises(kind) as caught:
            call(*args, **options)
        text = str(caught.value)
        assert type(caught.value) is kind
        assert phrase in text
        assert "\n" not in text
        assert caught.value.hint, "an error ends with what to do next"
        return text

    return check
