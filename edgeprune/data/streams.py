"""Data sets that come example by example, or in batches: written to disk as they come, never whole in memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.errors import DataError
from edgeprune.core.mapped import mapped, new_file, write
from edgeprune.core.progress import Progress
from edgeprune.core.userfile import call_user
from edgeprune.data.targets import as_array

#: What a data function may return instead of arrays.
PARTS = ("train", "test")
_HINT = (
    "a Dataset gives (input, target), an iterable (inputs, targets) of a batch; several inputs are a dict or a tuple"
)
_ALIKE = "let every example have the same shape: resize or pad"
_END = object()


def is_stream(given: Any) -> bool:
    """Whether it gives examples, or batches of them, when it is asked: a Dataset, a DataLoader, a generator, a list."""
    return not hasattr(given, "dtype") and (isinstance(given, Iterable) or hasattr(given, "__getitem__"))


def read_streams(
    given: Mapping[str, Any], function: Callable[..., Any], what: str, progress: Progress, *, listed: bool = False
) -> dict[str, Any]:
    """The four arrays x_train, y_train, x_test, y_test of the streams `train` and `test`, each gone through once.

    | stream | what it gives |
    |---|---|
    | has `len()` and indices (a `torch.utils.data.Dataset`, a list) | (input, target) of an example |
    | `torch.utils.data.IterableDataset` | the same |
    | any other iterable (a `DataLoader`, a generator) | (inputs (B, ...), targets (B, ...)) of a batch |

    Arrays lie on disk (see `core.mapped`). Targets that are no numbers, such as dicts, become a list in memory; where
    `listed`, all do.
    `function` is the user's, which his code is told by where it fails; `what` names it in messages.

    Raises DataError for examples that are no such pair or not alike, UsageError where the user's code fails,
    StorageError where the disk is full.
    """
    arrays: dict[str, Any] = {}
    for part in PARTS:
        total = _length(given[part])
        with ExitStack() as files, progress.bar(f"reading {part}", total) as bar:
            found = _Part(f"{what}: {part}", files, listed)
            for x, y in _batches(given[part], total, function, what, part):
                found.add(x, y)
                bar.advance()
            arrays[f"x_{part}"], arrays[f"y_{part}"] = found.arrays()
    return arrays


def _length(given: Any) -> int | None:
    """How many items it says it has; None where it does not know, as a DataLoader over an IterableDataset."""
    try:
        return len(given)
    except (TypeError, NotImplementedError):
        return None


def _batches(
    given: Any, total: int | None, function: Callable[..., Any], what: str, part: str
) -> Iterator[tuple[Any, Any]]:
    """(inputs, targets) with a first axis of examples; `total` as `_length` has it."""
    iterable = _is_iterable_dataset(given)
    # A class of torch's that is gone through has indices as well, by its parent, and they lead nowhere.
    indexed = hasattr(given, "__getitem__") and total is not None and not iterable
    items: Iterator[Any]
    if indexed:
        assert total is not None
        items = (given[index] for index in range(total))
    else:
        items = call_user(function, what, of=lambda: iter(given))
    one_by_one = indexed or iterable
    number = 0
    while (item := call_user(function, what, of=lambda: next(items, _END))) is not _END:
        if not isinstance(item, tuple | list) or len(item) != 2:
            got = f"{len(item)} values" if isinstance(item, tuple | list) else f"a {type(item).__name__}"
            pair = "(input, target)" if one_by_one else "(inputs, targets)"
            raise DataError(f"{what}: expected {pair} at place {number} of {part}, got {got}", _HINT)
        x, y = item
        if one_by_one:
            x, y = _each(x, lambda each: as_array(each, f"{what}: inputs of {part}")[None]), [y]
        elif isinstance(x, list) and all(getattr(each, "shape", ())[:1] == (_length(y),) for each in x):
            # torch's loader makes lists of tuples: each input has a row for every target.
            x = tuple(x)
        yield x, y
        number += 1


def _is_iterable_dataset(given: Any) -> bool:
    # Whoever made one has loaded torch; nobody else shall wait for it.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(given, torch.utils.data.IterableDataset)


def _each(x: Any, change: Callable[[Any], Any]) -> Any:
    """The input, or each of several, changed."""
    if isinstance(x, Mapping):
        return {name: change(each) for name, each in x.items()}
    return tuple(map(change, x)) if isinstance(x, tuple) else change(x)


class _Part:
    """What one part of the data gives: `x` and `y` as `from_arrays` takes them."""

    def __init__(self, what: str, files: ExitStack, listed: bool) -> None:
        self._what, self._files, self._listed = what, files, listed
        self._x: _Kept | None = None
        self._y: _Kept | list[Any] | None = None

    def add(self, x: Any, y: Any) -> None:
        """A batch more: inputs, and as many targets."""
        if self._x is None:
            self._x = _Kept(x, f"{self._what}: inputs", self._files)
            listed = self._listed or (isinstance(y, list) and not _are_numbers(y))
            self._y = [] if listed else _Kept(y, f"{self._what}: targets", self._files)
        count = self._x.add(x)
        if isinstance(self._y, _Kept):
            have = self._y.add(y)
        else:
            assert self._y is not None
            self._y.extend(y)
            have = len(y)
        if have != count:
            raise DataError(f"{self._what}: a batch has {count} inputs and {have} targets", "each input needs one")

    def arrays(self) -> tuple[Any, Any]:
        """Raises DataError where nothing came."""
        if self._x is None or self._y is None:
            raise DataError(f"{self._what} is empty", _HINT)
        return self._x.arrays(), self._y.arrays() if isinstance(self._y, _Kept) else self._y


class _Kept:
    """Arrays that grow on disk: one, or several by name or in a tuple, as the first batch has them."""

    def __init__(self, first: Any, what: str, files: ExitStack) -> None:
        self._several = dict if isinstance(first, Mapping) else tuple if isinstance(first, tuple) else None
        self._growing = {name: _Growing(f"{what} {name}".strip(), files) for name in self._named(first)}
        self._what = what

    def add(self, batch: Any) -> int:
        """How many rows it has."""
        named = self._named(batch)
        if named.keys() != self._growing.keys():
            now, before = (", ".join(each) or "one" for each in (named, self._growing))
            raise DataError(f"{self._what} are {now}, and were {before} before", "give the same in every example")
        counts = {growing.add(named[name]) for name, growing in self._growing.items()}
        if len(counts) > 1:
            raise DataError(f"{self._what} of a batch have {sorted(counts)} examples", "give as many of each")
        return counts.pop()

    def arrays(self) -> Any:
        """They themselves, as the first batch had them: one, by name, or in a tuple."""
        found = {name: growing.array() for name, growing in self._growing.items()}
        if self._several is None:
            return found[""]
        return found if self._several is dict else tuple(found.values())

    @staticmethod
    def _named(batch: Any) -> dict[str, Any]:
        if isinstance(batch, Mapping):
            return {str(name): each for name, each in batch.items()}
        return {str(number): each for number, each in enumerate(batch)} if isinstance(batch, tuple) else {"": batch}


class _Growing:
    """One array (N, ...) that grows on disk."""

    def __init__(self, what: str, files: ExitStack) -> None:
        self._what, self._stream = what, files.enter_context(new_file())
        self._like: tuple[tuple[int, ...], np.dtype[Any]] | None = None
        self._count = 0

    def add(self, given: Any) -> int:
        rows = as_array(given, self._what)
        if rows.ndim == 0 or rows.dtype.kind not in "buif":
            raise DataError(f"{self._what} holds {rows.dtype} of shape {rows.shape}, expected numbers (N, ...)", _HINT)
        like = (rows.shape[1:], rows.dtype)
        self._like = self._like or like
        if like != self._like:
            (shape, dtype), (before, kind) = like, self._like
            raise DataError(
                f"{self._what}: example {self._count} is {shape} {dtype}, those before are {before} {kind}", _ALIKE
            )
        write(self._stream, rows)
        self._count += len(rows)
        return len(rows)

    def array(self) -> NDArray[Any]:
        if self._like is None or not self._count:
            raise DataError(f"{self._what} are none", _HINT)
        shape, dtype = self._like
        return mapped(self._stream, dtype, (self._count, *shape))


def _are_numbers(y: list[Any]) -> bool:
    try:
        return np.asarray(y).dtype.kind in "buif"
    except (ValueError, TypeError, RuntimeError):
        return False
