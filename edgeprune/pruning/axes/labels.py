"""What is known of a network's axes: each place with the number of its channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: A label of a place that never goes, and of one that follows whatever it meets (made anew at every run, or repeated).
RIGID, FREE = -1, -2
#: Numbers of channels, ascending.
Numbers = NDArray[np.int64]
#: Labels of an axis; None: all rigid.
Axis = NDArray[np.int64] | None
#: What an operation does with an axis of a parameter: its entries make channels, or read them.
Role = Literal["makes", "reads"]


def among(axis: NDArray[np.int64], numbers: Numbers) -> NDArray[np.bool_]:
    """Of every place of an axis whether its channel is one of `numbers`. np.isin takes several times as long."""
    if not len(numbers):
        return np.zeros(len(axis), np.bool_)
    found: NDArray[np.bool_] = numbers[np.minimum(np.searchsorted(numbers, axis), len(numbers) - 1)] == axis
    return found


@dataclass(frozen=True, slots=True)
class Side:
    """An axis of a parameter or buffer, which has this name in the network."""

    tensor: str
    axis: int

    @property
    def layer(self) -> str:
        """The module that it belongs to."""
        return self.tensor.rpartition(".")[0]


class Where(NamedTuple):
    """By which calls are told apart: the module and the line that make them, and how often they did so in this run.

    So calls that are made in training alone, and blocks that are left out there at random, disturb no others.
    """

    module: str
    file: str
    line: int
    function: str
    times: int


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the network's own forward that takes numbers: `reshape`, `pad`, `split` and their kind.

    `before` and `after` are the labels of the tensors' axes that it takes and makes, with channels' numbers.
    """

    where: Where
    function: str
    before: tuple[Axis, ...]
    after: tuple[tuple[Axis, ...], ...]
    #: Sizes of the first result's axes that are the same whatever goes: axis and size.
    fixed: tuple[tuple[int, int], ...] = ()
    #: How many places are put before and after the second axis, the channels, of images and sequences.
    padded: tuple[int, int] | None = None
    #: What the tensor is multiplied with or divided by, where that is a number.
    factor: float | None = None
    #: The arguments behind the tensor, by place and by name, but for tensors: numbers as they are in the whole network.
    given: tuple[tuple[Any, ...], Mapping[str, Any]] = ((), MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Labelled:
    """Every axis of every parameter and buffer, each place with its channel's number, or `RIGID`."""

    axes: Mapping[Side, NDArray[np.int64]]
    roles: Mapping[Side, frozenset[Role]]
    #: Why channels stay, by number; others may go.
    held: Mapping[int, str]
    #: The channel's number of every atom, in the order in which a tracker makes them.
    channels: NDArray[np.int64]
    #: The channels' numbers of places that no parameter makes, in the order in which they were asked for: padded ones.
    asked: tuple[NDArray[np.int64], ...]
    #: Whether anything looks at all channels of an example at once and would not with fewer: a norm, a mean.
    looks_at_all: bool
    #: Channels that two activations are summed over when they are multiplied: queries and keys of one head.
    contracted: frozenset[int]
    #: Calls with numbers in them, in the order they were made.
    calls: tuple[Call, ...]
    #: Reshapes, by how many operations came before, that split an axis into heads, which go as wholes.
    heads: frozenset[int]
