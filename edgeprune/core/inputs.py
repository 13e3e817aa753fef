"""What a network takes: one input or several, of real numbers or of integers; and examples as numpy keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.mapped import built


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One of a network's inputs: `shape` is that of one example, and has at least one axis.

    Raises ValueError where it has none, or a side below 1.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Literal["float32", "int64"] = "float32"
    #: Of integers: one more than the largest that occurs, so that 0 to values - 1 may be tried. 0 for real numbers.
    values: int = 0

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"expected sides of 1 or more, got {self.shape} of input {self.name}")


#: What a network takes. The shape of one example, (C, H, W) say, where that is all: one input of real numbers.
Shape = tuple[int, ...] | tuple[InputSpec, ...]
#: What the one input of a network is called where its owner has no name for it.
INPUT = "input"


def specs_of(shape: Shape) -> tuple[InputSpec, ...]:
    """All inputs, in the order in which the network takes them."""
    return tuple(each for each in shape if isinstance(each, InputSpec)) or (InputSpec(INPUT, plain_shape(shape)),)


def plain_shape(shape: Shape) -> tuple[int, ...]:
    """The shape of an example where there is one input of real numbers; () of anything else."""
    return tuple(each for each in shape if isinstance(each, int))


def written(shape: Shape) -> str:
    """For people: `3x32x32`, or `motion 3x128, ids 20 (integers)`."""
    if plain_shape(shape) or not shape:
        return "x".join(map(str, shape))
    specs = specs_of(shape)
    return ", ".join(
        (f"{each.name} " if len(specs) > 1 else "")
        + "x".join(map(str, each.shape))
        + (" (integers)" if each.values else "")
        for each in specs
    )


def records(arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Several inputs (N, ...) as one array (N,) with a field for each: what is sliced, shuffled and saved as one."""
    # Aligned, so that torch can read the fields where they lie.
    dtype = np.dtype([(name, each.dtype, each.shape[1:]) for name, each in arrays.items()], align=True)

    def together(part: slice) -> NDArray[Any]:
        made = np.zeros(part.stop - part.start, dtype)
        for name, each in arrays.items():
            made[name] = each[part]
        return made

    return built(len(next(iter(arrays.values()))), together, *arrays.values())


def fields(x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Each input's array (N, ...) by its name, of `records` or of the one input that `x` is."""
    return {INPUT: x} if x.dtype.names is None else {name: x[name] for name in x.dtype.names}
