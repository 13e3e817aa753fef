"""What a model on a phone is fed with: sizes, and values as the bytes that `benchmark_model` reads. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.devices.adb.tensors import Tensor
from edgeprune.devices.channel import ChannelError

#: What benchmark_model fills an input with whose values are not given.
_OWN = {"f": "random", "i": "random, of benchmark_model's own", "u": "random, of benchmark_model's own", "b": "false"}


@dataclass(frozen=True, slots=True)
class Feed:
    """`shapes` of all inputs in the file's order (None: as the file has them), and `values` by the input's index."""

    shapes: Mapping[str, tuple[int, ...]] | None
    values: Mapping[int, bytes]
    #: `inputs` and `unused` of the probe's `opened`.
    inputs: list[list[Any]]
    unused: list[str]


def feed(inputs: Sequence[Tensor], file: Mapping[str, Any], given: Mapping[str, str | NDArray[Any]]) -> Feed:
    """What a request's FILE (see `probe.probe`) says of the inputs, with its values read.

    Raises ChannelError("refused") where sizes or values do not fit, or an input is unknown that no other file may have.
    """
    names = {each.name for each in inputs}
    shapes = {name: tuple(size) for name, size in (file.get("shapes") or {}).items()}
    unused = sorted((shapes.keys() | given.keys()) - names)
    unknown = [name for name in unused if name not in file.get("shared", ())]
    if unknown:
        known = ", ".join(each.name for each in inputs)
        raise ChannelError("refused", f"the model has no input {unknown[0]!r:.80}; it has {known[:200]}")
    shapes.update({name: value.shape for name, value in given.items() if not isinstance(value, str)})
    sized = file.get("shapes") is not None or bool(given)
    sizes = {each.name: each.sized(shapes.get(each.name)) if sized else each.shape for each in inputs}
    values, told = {}, []
    for index, each in enumerate(inputs):
        how = _OWN[np.dtype(each.dtype).kind]
        if each.name in given:
            values[index], how = _bytes(each, given[each.name], sizes[each.name]), "given"
        elif np.dtype(each.dtype).kind in "iu" and np.dtype(each.dtype).itemsize >= 4:
            # They may be indices, as the probe takes them: benchmark_model's own may lie beyond a table's end.
            values[index], how = _bytes(each, "0", sizes[each.name]), "zeros"
        told.append([each.name, list(sizes[each.name]), each.dtype, how])
    return Feed(sizes if sized else None, values, told, unused)


def _bytes(take: Tensor, value: str | NDArray[Any], shape: tuple[int, ...]) -> bytes:
    kind = np.dtype(take.dtype)
    if not isinstance(value, str):
        with np.errstate(invalid="ignore", over="ignore"):
            made = value.astype(kind) if value.dtype.kind in "fiub" else np.zeros(0, kind)
        if (
            kind.kind != "f" and not (value.dtype.kind != "f" and np.array_equal(made, value))
        ) or made.size != value.size:
            raise ChannelError("refused", f"input {take.name} takes {take.dtype}, the file holds {value.dtype}")
        return made.tobytes()
    try:
        if kind.kind == "b":
            one: Any = {"true": True, "1": True, "false": False, "0": False}[value.lower()]
        else:
            one = float(value) if kind.kind == "f" else int(value)
        return np.full(shape, one, kind).tobytes()
    except (ValueError, KeyError, OverflowError) as error:
        wanted = {"f": "a number", "b": "true or false"}.get(kind.kind, "a whole number")
        said = f"input {take.name} takes {wanted} ({take.dtype}), got {value[:80]}"
        raise ChannelError("refused", said) from error
