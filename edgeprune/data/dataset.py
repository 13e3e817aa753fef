"""What a data set is once it is loaded: three splits, class names, and how raw values become network input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.errors import DataError
from edgeprune.core.inputs import InputSpec, Shape, fields, written
from edgeprune.core.joined import Joined
from edgeprune.tasks.names import WORDS, TargetKind

_FORMULA = "input = (raw * scale - mean) / std, one mean and one std per channel or feature"


#: How inputs came to the layout (N, C, H, W): as they were "given", by an "axis" of one channel, or "transposed".
Layout = Literal["given", "axis", "transposed"]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How raw arrays become network input: `(x * scale - mean) / std`, per channel (C,) or per feature (D,).

    Example: 8-bit grey images have scale 1/255 and one mean and one standard deviation, in units of [0, 1].

    Raises DataError, wherever the figures come from, unless each is finite, scale is not 0, every std is above 0, mean
    and std are of one length, and what is computed with them stays finite in float32.
    """

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not (_is_float32(self.scale) and np.float32(self.scale) != 0):
            raise _wrong(f"expected a finite scale other than 0, got {self.scale!r}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            for index, value in enumerate(values):
                if not _is_float32(value):
                    raise _wrong(f"expected finite numbers in {name}, got {value!r} at place {index}")
        if not self.mean or len(self.mean) != len(self.std):
            raise _wrong(f"expected as many means as stds, got {len(self.mean)} and {len(self.std)}")
        for index, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            if np.float32(std) <= 0:
                raise _wrong(f"expected every std above 0, got {std!r} at place {index}")
            if not _is_float32(max(abs(self.scale), abs(mean)) / std):
                raise _wrong(f"a std of {std!r} at place {index} makes inputs too large for float32")

    def check_fits(self, channels: int) -> None:
        """Raises DataError unless there is one mean and one std for each of the `channels` (or features)."""
        if len(self.mean) != channels:
            raise _wrong(f"expected {channels} means and stds, one per channel or feature, got {len(self.mean)}")

    def apply(self, x: NDArray[np.generic]) -> NDArray[np.float32]:
        """Network input, float32, in the shape of `x`: (N, C, H, W) or (N, D) of any numeric type."""
        trailing = (1,) * (x.ndim - 2)
        mean = np.asarray(self.mean, np.float32).reshape(1, -1, *trailing)
        std = np.asarray(self.std, np.float32).reshape(1, -1, *trailing)
        return (x.astype(np.float32) * np.float32(self.scale) - mean) / std


@dataclass(frozen=True, slots=True)
class EachInput:
    """How each of several inputs becomes network input, by name; None: integers, which stay what they are."""

    inputs: Mapping[str, Preprocessing | None]

    def of(self, name: str) -> Preprocessing | None:
        """That of one input."""
        return self.inputs[name]


#: How a network's inputs are scaled: one input of real numbers, or each of several, or of integers.
Scaled = Preprocessing | EachInput


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Raw inputs `x`, uint8 or float32, (N, C, H, W), (N, D) or as a network takes them, and targets `y` (N, ...).

    Several inputs are records (N,), see `edgeprune.core.inputs`; integers that a network takes as such are int64.
    Targets are int64 where they are classes, of an example or of every place, and float32 where they are numbers, or 0
    and 1 for labels.
    """

    x: NDArray[Any]
    y: NDArray[Any]

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A data set ready for use. The search sees train and validation; test is for the last word only."""

    name: str
    train: Split
    validation: Split
    test: Split
    #: Class names; a label is an index into them. Of several labels their names; empty where targets are numbers.
    classes: tuple[str, ...]
    preprocessing: Scaled
    #: SHA-256 over contents and split: equal means the same examples in the same order, preprocessed alike.
    fingerprint: str
    #: Whether a mirror image is still of its class: clothes and photographs are, writing is not.
    mirrors: bool = False
    #: What raw values are multiplied with so that pictures lie in [0, 1]: 1/255 for bytes, 1 for floats.
    unit: float = 1.0
    #: Whether `preprocessing` came with the data, not worked out from them.
    carried: bool = False
    targets: TargetKind = "classes"
    #: How inputs were brought into the layout of images, where they came otherwise.
    laid_out: Layout = "given"
    #: Names of the inputs that were given as integers of 32 or 64 bits, which a network may take as such.
    whole: tuple[str, ...] = ()
    #: How targets of the user's own task lie in `y`, where they are several.
    target_layout: Joined | None = None
    #: Test examples that are none of what is learnt, where the data mark them: they are not in `test`.
    anomalous: Split | None = None

    @property
    def one_scaled(self) -> Preprocessing:
        """The scaling of the one input of real numbers. Raises DataError where inputs are others."""
        if isinstance(self.preprocessing, EachInput):
            raise DataError(f"{self.name} has inputs {written(self.input_shape)}, expected one of real numbers")
        return self.preprocessing

    @property
    def outputs(self) -> int:
        """How many numbers a network answers for an example, or for a place of it."""
        own = self.targets in ("numbers", "own")
        return int(np.prod(self.train.y.shape[1:])) if own else len(self.classes)

    def check_classes(self, command: str) -> None:
        """Raises DataError unless targets are classes of one input of real numbers, which is all `command` takes."""
        if isinstance(self.preprocessing, EachInput):
            raise DataError(
                f"edgeprune {command} takes one input of real numbers, and {self.name} has {written(self.input_shape)}",
                "edgeprune run takes such data, and validates the files it makes",
            )
        if self.targets != "classes":
            raise DataError(
                f"edgeprune {command} judges classes, and {self.name} has {self.examples}",
                "edgeprune run takes such data, and validates the files it makes",
            )

    @property
    def examples(self) -> str:
        """What there is of targets, in words: "10 classes"."""
        match self.targets:
            case "classes":
                return f"{len(self.classes)} classes"
            case "map":
                return f"{len(self.classes)} classes for every place"
            case "labels":
                return f"{len(self.classes)} labels"
            case "own":
                return WORDS["own"]
            case "numbers":
                return f"{self.outputs} number{'s' if self.outputs > 1 else ''} to predict"

    @property
    def input_shape(self) -> Shape:
        """What a network takes: (C, H, W) or (D,) say, or each input where there are several, or integers."""
        x = self.train.x
        if x.dtype.names is None and x.dtype.kind != "i":
            return tuple(x.shape[1:])
        return tuple(
            InputSpec(name, each.shape[1:], *(("int64", self._values(name)) if each.dtype.kind == "i" else ()))
            for name, each in fields(x).items()
        )

    def _values(self, name: str) -> int:
        return 1 + max(int(fields(split.x)[name].max()) for split in (self.train, self.validation, self.test))


def _is_float32(value: float) -> bool:
    return math.isfinite(value) and abs(value) <= float(np.finfo(np.float32).max)


def _wrong(what: str) -> DataError:
    return DataError(f"preprocessing that cannot be: {what}", _FORMULA)
