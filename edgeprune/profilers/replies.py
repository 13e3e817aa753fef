"""What a probe answers, as values: nothing a device says is believed before it is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeprune.core.artifact import TensorSpec
from edgeprune.devices.channel import ChannelError

#: What a device says of itself, and how many inputs a model has at most.
MAX_FACTS, _MAX_TENSORS = 100, 1000
#: No time, size or count of a device is as large.
_LARGEST = 1e18


@dataclass(frozen=True, slots=True)
class Fed:
    """How an input was fed: `how` is "given", or what its values were made up as."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    how: str


@dataclass(frozen=True, slots=True)
class Opened:
    """How a model was run; see `opened` of the probe."""

    inputs: tuple[Fed, ...] = ()
    signature: str = ""
    signatures: tuple[str, ...] = ()
    binding: str = ""
    #: Names given for several files that this one does not have.
    unused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Race:
    """Cost per inference, `samples[i]` and `against[i]` of the same round; of the candidate also seconds to load.

    Loading has no seconds on a device that counts instructions: None.
    """

    samples: tuple[float, ...]
    against: tuple[float, ...]
    warmups: tuple[float, ...]
    load_s: float | None
    first_s: float | None
    #: The device's state before and after.
    states: tuple[Mapping[str, Any], ...] = ()
    #: How the candidate was run.
    opened: Opened = Opened()
    #: The other file's seconds to load; None also where it raced alone.
    against_load_s: float | None = None


@dataclass(frozen=True, slots=True)
class Single:
    """Seconds of one inference after the other; of many the newest (`count` is of all)."""

    samples: tuple[float, ...]
    count: int
    warmups: tuple[float, ...]
    load_s: float | None
    first_s: float | None
    #: The device's state before and after.
    states: tuple[Mapping[str, Any], ...] = ()
    opened: Opened = Opened()


@dataclass(frozen=True, slots=True)
class Throughput:
    """Inferences of several models that run at once."""

    inferences: int
    seconds: float
    per_stream: tuple[int, ...]

    @property
    def per_second(self) -> float:
        """Inferences per second, all streams together."""
        return self.inferences / self.seconds


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of a model: its name and type in the file, and the median of its seconds per inference."""

    name: str
    type: str
    seconds: float


def read_number(answer: Mapping[str, Any], key: str) -> float:
    """A time, size or count. Raises ChannelError("garbled"), as all of these do."""
    value = answer.get(key)
    # Not math.isfinite, which cannot take an integer of a thousand digits.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _LARGEST:
        raise ChannelError("garbled", f"the probe's {key} is not a figure: {value!r:.80}")
    return float(value)


def read_numbers(answer: Mapping[str, Any], key: str) -> tuple[float, ...]:
    """One or more of them."""
    values = answer.get(key)
    if not isinstance(values, list):
        raise ChannelError("garbled", f"the probe's {key} is not a list: {values!r:.80}")
    if not values:
        raise ChannelError("garbled", f"the probe's {key} is empty")
    return tuple(read_number({key: value}, key) for value in values)


def read_tensors(told: Any) -> tuple[TensorSpec, ...]:
    """What a model takes."""
    try:
        specs = [TensorSpec(name, tuple(shape), dtype) for name, shape, dtype in told]
    except (TypeError, ValueError) as error:
        raise ChannelError("garbled", f"the probe's inputs are none: {told!r:.80}") from error
    for spec in specs:
        sides = all(isinstance(side, int) and 0 <= side < _LARGEST for side in spec.shape)
        if not (isinstance(spec.name, str) and isinstance(spec.dtype, str) and sides and len(specs) <= _MAX_TENSORS):
            raise ChannelError("garbled", f"the probe's inputs are none: {told!r:.80}")
    return tuple(specs)


def read_opened(told: Any) -> Opened:
    """What a device says of how it ran a model; a device that says nothing tells nothing."""
    if told is None:
        return Opened()
    try:
        fed = tuple(
            Fed(_word(name), tuple(_side(side) for side in shape), _word(dtype), _word(how))
            for name, shape, dtype, how in told["inputs"]
        )
        signatures = tuple(_word(name) for name in told.get("signatures", ()))
        unused = tuple(_word(name) for name in told.get("unused", ()))
        opened = Opened(fed, _word(told.get("signature", "")), signatures, _word(told.get("binding", "")), unused)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ChannelError("garbled", f"expected how the probe ran the model, got {told!r:.80}") from error
    if max(len(fed), len(signatures), len(unused)) > _MAX_TENSORS:
        raise ChannelError("garbled", f"the probe tells of more than {_MAX_TENSORS} inputs")
    return opened


def _word(told: Any) -> str:
    if not isinstance(told, str):
        raise TypeError
    return "".join(c for c in told[:200] if c.isprintable())


def _side(told: Any) -> int:
    if not isinstance(told, int) or isinstance(told, bool) or not 0 <= told < _LARGEST:
        raise TypeError
    return told


def read_facts(said: Any) -> dict[str, Any]:
    """What a device says of itself, kept to short figures and strings: it is stored and shown as it is."""
    if not isinstance(said, dict) or len(said) > MAX_FACTS:
        raise ChannelError("garbled", f"the probe's facts are none: {said!r:.80}")
    kept: dict[str, Any] = {}
    for key, value in said.items():
        if isinstance(value, str):
            kept[str(key)[:40]] = "".join(c for c in value[:200] if c.isprintable())
        elif value is None or (isinstance(value, (bool, int, float)) and abs(value) < _LARGEST):
            kept[str(key)[:40]] = value
        else:
            raise ChannelError("garbled", f"the probe's {key!r:.40} is no fact: {value!r:.80}")
    return kept
