"""What a data set is once it is loaded: three splits, class names, and how raw values become network input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How raw arrays become network input: `(x * scale - mean) / std`, per channel (C,) or per feature (D,).

    Example: 8-bit grey images have scale 1/255 and one mean and one standard deviation, in units of [0, 1].
    """

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, x: NDArray[np.generic]) -> NDArray[np.float32]:
        """Network input, float32, in the shape of `x`: (N, C, H, W) or (N, D) of any numeric type."""
        trailing = (1,) * (x.ndim - 2)
        mean = np.asarray(self.mean, np.float32).reshape(1, -1, *trailing)
        std = np.asarray(self.std, np.float32).reshape(1, -1, *trailing)
        return (x.astype(np.float32) * np.float32(self.scale) - mean) / std


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Raw inputs `x`, uint8 or float32, (N, C, H, W) or (N, D), and class indices `y`, int64 (N,)."""

    x: NDArray[np.uint8] | NDArray[np.float32]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A data set ready for use. The search sees train and validation; test is for the last word only."""

    name: str
    train: Split
    validation: Split
    test: Split
    #: Class names; a label is an index into them.
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    #: SHA-256 over contents and split: equal means the same examples in the same order, preprocessed alike.
    fingerprint: str
    #: Whether a mirror image is still of its class: clothes and photographs are, writing is not.
    mirrors: bool = False

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example: (C, H, W) or (D,)."""
        return tuple(self.train.x.shape[1:])
