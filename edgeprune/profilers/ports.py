"""What a model file takes and gives, as the device's runtime tells it, and how examples are fed to it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgeprune.devices.channel import ChannelError

#: No model has as many inputs, axes or keys, and no side is as long.
_MOST, _LONGEST = 1000, 1 << 40


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output as the file declares it. `shape` is -1 where an axis is open."""

    name: str
    shape: tuple[int, ...]
    #: numpy's name of the type; other types keep the runtime's own name.
    dtype: str
    #: Of quantised integers: real value = (integer - zero) * scale. 0: the integers have no scale.
    scale: float = 0.0
    zero: int = 0

    def __str__(self) -> str:
        """As messages name it: `image ?x28x28 (float32)`."""
        return f"{self.name} {written(self.shape)} ({self.dtype})"


@dataclass(frozen=True, slots=True)
class Ports:
    """All inputs and outputs, in the file's order."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    #: Names of the inputs that the user gave values to.
    given: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Output:
    """One output as it came out of a run of one batch.

    `kind` is "f" (real numbers), "i" (integers, booleans), "U" (strings), "map" (of classes to numbers), or "?".
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    #: The classes of a map, in its order.
    keys: tuple[str, ...] = ()

    def width(self, batch: int) -> int:
        """Values per example of a batch of so many."""
        return math.prod(self.shape) // batch

    def __str__(self) -> str:
        """As messages name it: `label 1 (integers)`."""
        kinds = {"f": "numbers", "i": "integers", "U": "strings", "map": "a map of classes"}
        return f"{self.name} {written(self.shape)} ({kinds.get(self.kind, 'neither numbers nor strings')})"


@dataclass(frozen=True, slots=True)
class Feeding:
    """How examples are run: names of input and output (empty: the first), examples per run, what becomes of variables.

    `keep`: variables stay as the example before left them; otherwise they are reset before each run. `reopen`: the
    model is opened anew for each run, for variables that the runtime does not reset.
    """

    input: str = ""
    output: str = ""
    batch: int = 1
    keep: bool = False
    reopen: bool = False


def read_ports(told: Any) -> Ports:
    """The `ports` of a probe's answer. Raises ChannelError("garbled")."""
    try:
        inputs, outputs = ([_port(*each) for each in told[key]] for key in ("inputs", "outputs"))
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise ChannelError(
            "garbled", f"the probe told of inputs and outputs in an unknown form: {told!r:.80}"
        ) from error
    if not inputs or not outputs or max(len(inputs), len(outputs)) > _MOST:
        raise ChannelError("refused", f"expected inputs and outputs, got {len(inputs)} and {len(outputs)}")
    return Ports(tuple(inputs), tuple(outputs))


def read_outputs(told: Any) -> tuple[Output, ...]:
    """The `outputs` of a probe's answer. Raises ChannelError("garbled")."""
    try:
        given = [
            Output(
                _text(name), {"u": "i", "b": "i"}.get(kind, kind), _shape(shape, 0), tuple(_text(key) for key in keys)
            )
            for name, kind, shape, keys in told
        ]
    except (TypeError, ValueError) as error:
        raise ChannelError("garbled", f"the probe told of outputs in an unknown form: {told!r:.80}") from error
    if not given or len(given) > _MOST:
        raise ChannelError("garbled", f"the probe told of {len(given)} outputs")
    return tuple(given)


def written(shape: Iterable[int]) -> str:
    """A shape for messages: `1x?x28`."""
    return "x".join(str(side) if side >= 0 else "?" for side in shape) or "one value"


def _port(name: Any, shape: Any, dtype: Any, scale: Any, zero: Any) -> Port:
    if not isinstance(scale, (int, float)) or not math.isfinite(scale) or scale < 0 or not isinstance(zero, int):
        raise ValueError(scale)
    return Port(_text(name), tuple(side if side > 0 else -1 for side in _shape(shape, -1)), _text(dtype), scale, zero)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value[:500]


def _shape(value: Any, least: int) -> tuple[int, ...]:
    sides = tuple(value)
    if len(sides) > _MOST or not all(isinstance(side, int) and least <= side < _LONGEST for side in sides):
        raise ValueError(value)
    return sides
