"""Targets of a task of the user's own: whatever he has, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.errors import DataError
from edgeprune.core.joined import Joined
from edgeprune.data.targets import ReadTargets, as_array
from edgeprune.tasks.names import OwnTargets

_HINT = "give arrays (N, ...), or let the task's collate make such of what you have"
#: From here on float32, in which several arrays lie side by side, does not hold every integer.
_MOST_EXACT = 1 << 24


def collated(arrays: Mapping[str, Any], what: str, task: OwnTargets) -> ReadTargets:
    """What `task` makes of y_train and y_test, each (N, ...); several arrays lie side by side in one, (N, K) float32.

    `collate` is called once for each part, with a list of all its targets; without it arrays are taken as they are,
    alone or by name. `what` names the origin in messages.

    Raises DataError for what are no arrays of numbers, for numbers too large for float32, and where the parts differ.
    """
    found = {part: _arrays(arrays[f"y_{part}"], task, f"{what}: y_{part}") for part in ("train", "test")}
    shapes = {part: {name: x.shape[1:] for name, x in _named(each).items()} for part, each in found.items()}
    if shapes["train"] != shapes["test"]:
        raise DataError(
            f"{what}: targets of y_train are {shapes['train']}, of y_test {shapes['test']}", "pad both alike"
        )
    several = isinstance(found["train"], Mapping | tuple)
    stored = {part: _joined(each, f"{what}: y_{part}") if several else each for part, each in found.items()}
    return ReadTargets("own", stored, (), Joined.of(found["train"], "target") if several else None)


def _arrays(given: Any, task: OwnTargets, what: str) -> Any:
    """An array, or a mapping or tuple of arrays, as long as there are targets."""
    made = given if task.collate is None else task.collate(list(given))
    if isinstance(made, list) and made and isinstance(made[0], Mapping):
        # Examples of equal shape need no collate.
        made = {name: [each[name] for each in made] for name in made[0]}
    if isinstance(made, Mapping):
        found: Any = {str(name): _array(each, f"{what}: {name}") for name, each in made.items()}
    elif isinstance(made, tuple):
        found = tuple(_array(each, f"{what}: {number}") for number, each in enumerate(made))
    else:
        found = _array(made, what)
    lengths = {name: len(each) for name, each in _named(found).items()}
    if task.collate is not None and set(lengths.values()) != {len(given)}:
        raise DataError(f"{what}: collate makes {lengths} of {len(given)} targets", "each needs a row")
    if len(set(lengths.values())) > 1:
        raise DataError(f"{what}: targets are {lengths}", "give all alike")
    return found


def _array(given: Any, what: str) -> NDArray[Any]:
    x = as_array(given, what)
    if x.dtype.kind not in "buif" or x.ndim == 0 or x.size == 0:
        raise DataError(f"{what} holds {x.dtype} of shape {x.shape}, expected numbers (N, ...)", _HINT)
    if x.dtype.kind != "f":
        return x.astype(np.int64)
    if np.isnan(x).any():
        raise DataError(f"{what} holds NaN", "clean the data first")
    with np.errstate(over="ignore"):
        single = x.astype(np.float32)
    if not np.isfinite(single).all():
        raise DataError(f"{what} holds infinite values, or such that are too large for float32", "clean the data first")
    return single


def _named(found: Any) -> dict[str, NDArray[Any]]:
    if isinstance(found, Mapping):
        return dict(found)
    return {str(i): each for i, each in enumerate(found)} if isinstance(found, tuple) else {"targets": found}


def _joined(found: Any, what: str) -> NDArray[Any]:
    parts = []
    for name, each in _named(found).items():
        if each.dtype.kind == "i" and np.abs(each).max() > _MOST_EXACT:
            raise DataError(f"{what}: {name} holds integers beyond {_MOST_EXACT:,}", "number them from 0")
        parts.append(each.reshape(len(each), -1).astype(np.float32))
    return np.concatenate(parts, axis=1)
