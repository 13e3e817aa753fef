"""Targets of a task of the user's own: whatever he has, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.errors import DataError
from edgeprune.core.joined import Joined
from edgeprune.tasks.names import OwnTargets

_HINT = "give arrays (N, ...), or let the task's collate make such of what you have"


@dataclass(frozen=True, slots=True)
class Collated:
    """Both parts' targets (N, ...); of several arrays (N, K), and how they lie in it."""

    arrays: dict[str, NDArray[Any]]
    layout: Joined | None


def collated(given: Mapping[str, Any], task: OwnTargets, what: str) -> Collated:
    """What `task` makes of y_train and y_test; `what` names the origin in messages.

    `collate` is called once for each part, with a list of all its targets; without it arrays are taken as they are,
    alone or by name. Raises DataError for what are no arrays of numbers, or of another shape in the other part.
    """
    found = {part: _arrays(each, task, f"{what}: y_{part}") for part, each in given.items()}
    layouts = {part: _layout(each) for part, each in found.items()}
    shapes = {part: {name: x.shape[1:] for name, x in _named(each).items()} for part, each in found.items()}
    if shapes["train"] != shapes["test"]:
        raise DataError(
            f"{what}: targets of y_train are {shapes['train']}, of y_test {shapes['test']}", "pad both alike"
        )
    return Collated({part: _joined(each) for part, each in found.items()}, layouts["train"])


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
    if set(lengths.values()) != {len(given)} and task.collate is not None:
        raise DataError(f"{what}: collate makes {lengths} of {len(given)} targets", "each needs a row")
    return found


def _array(given: Any, what: str) -> NDArray[Any]:
    try:
        x = np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{what} cannot become an array: {str(error).splitlines()[0]}", _HINT) from error
    if x.dtype.kind not in "buif" or x.ndim == 0 or x.size == 0:
        raise DataError(f"{what} holds {x.dtype} of shape {x.shape}, expected numbers (N, ...)", _HINT)
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise DataError(f"{what} holds {'NaN' if np.isnan(x).any() else 'infinite values'}", "clean the data first")
    return x.astype(np.float32 if x.dtype.kind == "f" else np.int64)


def _named(found: Any) -> dict[str, NDArray[Any]]:
    if isinstance(found, Mapping):
        return dict(found)
    return {str(i): each for i, each in enumerate(found)} if isinstance(found, tuple) else {"targets": found}


def _layout(found: Any) -> Joined | None:
    return Joined.of(found, "target") if isinstance(found, Mapping | tuple) else None


def _joined(found: Any) -> NDArray[Any]:
    if not isinstance(found, Mapping | tuple):
        return np.asarray(found)
    parts = [each.reshape(len(each), -1).astype(np.float32) for each in _named(found).values()]
    return np.concatenate(parts, axis=1)
