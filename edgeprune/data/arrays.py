"""Four arrays from anywhere (an .npz, a function, a decoder), checked and brought into one layout."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.errors import DataError
from edgeprune.core.userfile import call_user, load_function
from edgeprune.data.dataset import Preprocessing
from edgeprune.data.preprocessing import fits_float32, read_entry
from edgeprune.data.room import require_room

NAMES = ("x_train", "y_train", "x_test", "y_test")
#: What may stand beside them: how raw values become network input.
ENTRY = "preprocessing"
_SHAPES = "inputs are (N, D), (N, H, W), (N, H, W, 1 or 3) or (N, C, H, W)"
_SAVE = "write it again with numpy.savez(FILE, x_train=..., y_train=..., x_test=..., y_test=...)"
_LABELS = "labels are one integer per example, 0 to classes-1"


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """Checked arrays before the split: x uint8 or float32 (N, C, H, W) or (N, D), y int64 (N,)."""

    x_train: NDArray[Any]
    y_train: NDArray[np.int64]
    x_test: NDArray[Any]
    y_test: NDArray[np.int64]
    classes: tuple[str, ...]
    #: What raw values are multiplied with; None: 1/255 for uint8, 1 for floats.
    scale: float | None = None
    #: What the data's owner says of their scaling; None: worked out from the data.
    preprocessing: Preprocessing | None = None


def read_npz(path: Path) -> Raw:
    """The arrays of an .npz file. Raises DataError; never unpickles."""
    # Checked first: numpy.load takes anything else for an .npy file or a pickle.
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is truncated or no .npz file", _SAVE)
    found: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            # Before numpy makes room for what the headers say; a member cannot give more than this.
            size = sum(
                member.file_size for member in archive.infolist() if member.filename.removesuffix(".npy") in NAMES
            )
        require_room(size, f"the arrays of {path}", "give fewer examples, or uint8 instead of float32")
        # Opened here, since numpy leaves the file open when its directory is damaged.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            found = archive.files
            arrays = {name: archive[name] for name in (ENTRY, *NAMES) if name in found}
    except DataError:
        raise
    except Exception as error:
        # Damaged directories, members and headers, which numpy reads as Python, raise anything.
        if "allow_pickle" not in str(error):
            raise DataError(f"cannot read {path}: it is damaged", _SAVE) from error
        raise DataError(
            f"cannot read {path}: it holds Python objects, not numbers",
            f"{_SAVE}; {ENTRY} is saved as text, {ENTRY}=json.dumps({{...}})" if ENTRY in found else _SAVE,
        ) from error
    return from_arrays(_named(arrays, found, str(path)), str(path), entry=arrays.get(ENTRY))


def call_function(spec: str) -> Raw:
    """The arrays that the user's FILE.py:FUNCTION returns. Raises UsageError when it fails, DataError as below."""
    given = call_user(load_function(spec, "data"), spec)
    if isinstance(given, Mapping):
        return from_arrays(_named(given, [str(key) for key in given], spec), spec, entry=given.get(ENTRY))
    if isinstance(given, tuple | list) and len(given) == len(NAMES):
        return from_arrays(dict(zip(NAMES, given, strict=True)), spec)
    got = f"{len(given)} values" if isinstance(given, tuple | list) else f"a {type(given).__name__}"
    raise DataError(f"{spec} returned {got}", f"return a dict or a tuple of {', '.join(NAMES)}")


def _named(arrays: Mapping[Any, Any], found: list[str], what: str) -> dict[str, Any]:
    missing = [name for name in NAMES if name not in arrays]
    if missing:
        raise DataError(
            f"{what} has no {missing[0]}",
            f"it needs {', '.join(NAMES)} and holds {', '.join(sorted(found)) or 'nothing'}",
        )
    return {name: arrays[name] for name in NAMES}


def from_arrays(
    arrays: Mapping[str, Any],
    what: str,
    *,
    classes: tuple[str, ...] | None = None,
    scale: float | None = None,
    entry: Any = None,
) -> Raw:
    """Check four arrays and bring them into one layout; `what` names their origin in messages.

    `entry` is the `preprocessing` that stands beside them, as in `read_entry`.

    | in | out |
    |---|---|
    | (N, D) | as it is |
    | (N, H, W) | (N, 1, H, W) |
    | (N, C, H, W) with C 1 or 3 | as it is, also where the last axis is 1 or 3 |
    | (N, H, W, C) with C 1 or 3 | (N, C, H, W) |
    | any other (N, C, H, W) | as it is |

    Bytes stay uint8, other numbers become float32. Without `classes` the labels must be 0..K-1, each of them in train.
    Raises DataError for anything else: empty, NaN, lengths or shapes that differ, labels out of range, one class only.
    """
    x = {part: _inputs(arrays[f"x_{part}"], f"{what}: x_{part}") for part in ("train", "test")}
    y = {part: _labels(arrays[f"y_{part}"], f"{what}: y_{part}") for part in ("train", "test")}
    for part in ("train", "test"):
        if len(x[part]) != len(y[part]):
            raise DataError(
                f"{what}: x_{part} has {len(x[part])} examples and y_{part} {len(y[part])} labels", "each needs one"
            )
    if x["train"].shape[1:] != x["test"].shape[1:]:
        raise DataError(
            f"{what}: examples of x_train are {x['train'].shape[1:]}, of x_test {x['test'].shape[1:]}", _SHAPES
        )
    if x["train"].dtype != x["test"].dtype:
        types = f"x_train is {x['train'].dtype}, x_test {x['test'].dtype}"
        raise DataError(
            f"{what}: {types} (after conversion)", "give both as uint8 or both as float32, in the same range"
        )
    names = classes if classes is not None else _count_classes(y["train"], f"{what}: y_train")
    for part, labels in y.items():
        if labels.min() < 0 or labels.max() >= len(names):
            odd = labels.min() if labels.min() < 0 else labels.max()
            beyond = f"label {odd} is outside 0..{len(names) - 1}"
            raise DataError(
                f"{what}: y_{part}: {beyond}" + (", the classes of y_train" if classes is None else ""), _LABELS
            )
    if len(np.unique(y["train"])) < 2:
        raise DataError(
            f"{what}: y_train holds one class only", "there is nothing to tell apart: give at least 2 classes"
        )
    x_train, x_test = (_channels_first(x[part]) for part in ("train", "test"))
    preprocessing = None if entry is None else read_entry(entry, x_train.shape[1], what)
    if preprocessing and not all(fits_float32(preprocessing, part) for part in (x_train, x_test)):
        raise DataError(f"{what}: {ENTRY} makes inputs too large for float32", "check scale, mean and std")
    return Raw(x_train, y["train"], x_test, y["test"], names, scale, preprocessing)


def _inputs(given: Any, what: str) -> NDArray[Any]:
    x = _array(given, what)
    if x.size == 0:
        raise DataError(f"{what} is empty: its shape is {x.shape}", _SHAPES)
    if x.ndim not in (2, 3, 4):
        raise DataError(f"{what} has shape {x.shape}", _SHAPES)
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind not in "buif":
        raise DataError(f"{what} holds {x.dtype}, not numbers", "give uint8 or float32")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise DataError(f"{what} holds {'NaN' if np.isnan(x).any() else 'infinite values'}", "clean the data first")
    if x.dtype.itemsize > 4 and np.abs(x).max() > np.finfo(np.float32).max:
        raise DataError(f"{what} holds values too large for float32", "scale the data first")
    return x.astype(np.float32)


def _labels(given: Any, what: str) -> NDArray[np.int64]:
    y = _array(given, what)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.size == 0:
        raise DataError(f"{what} is empty", _LABELS)
    if y.ndim != 1:
        raise DataError(f"{what} has shape {y.shape}", f"{_LABELS}; of one-hot rows give argmax(axis=1)")
    if y.dtype.kind not in "ui":
        raise DataError(f"{what} holds {y.dtype}, not integers", f"{_LABELS}; convert it with .astype('int64')")
    return y.astype(np.int64)


def _array(given: Any, what: str) -> NDArray[Any]:
    try:
        return np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{what} cannot become an array: {str(error).splitlines()[0]}", "give numpy arrays") from error


def _count_classes(y: NDArray[np.int64], what: str) -> tuple[str, ...]:
    present = np.unique(y)
    if present[0] >= 0 and not np.array_equal(present, np.arange(len(present))):
        gap = next(index for index, label in enumerate(present) if index != label)
        raise DataError(
            f"{what} has no example of class {gap} but labels up to {present[-1]}", f"{_LABELS}, without gaps"
        )
    return tuple(str(label) for label in range(len(present)))


def _channels_first(x: NDArray[Any]) -> NDArray[Any]:
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return x
