"""Four arrays from anywhere (an .npz, a function, a decoder), checked and brought into one layout."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.errors import DataError
from edgeprune.core.inputs import INPUT, records
from edgeprune.core.joined import Joined
from edgeprune.core.mapped import changed, parts
from edgeprune.core.progress import Progress
from edgeprune.core.userfile import call_user, load_function
from edgeprune.data.dataset import Layout, Scaled
from edgeprune.data.own_targets import collated
from edgeprune.data.preprocessing import fits_float32, read_entries, read_entry
from edgeprune.data.room import require_room
from edgeprune.data.streams import PARTS, is_stream, read_streams
from edgeprune.data.targets import ReadTargets, as_array, check_finite, like_inputs, read_names, read_targets
from edgeprune.tasks.names import OwnTargets, TargetKind, TaskName

NAMES = ("x_train", "y_train", "x_test", "y_test")
#: What may stand beside them: how raw values become network input.
ENTRY = "preprocessing"
#: And what classes, or labels, are called.
CLASSES = "classes"
#: And which test examples are none of what a network learns to reconstruct.
ANOMALIES = "anomalies"
#: Names of inputs go into files, and into Python.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,60}")
#: From here on float32 does not hold every integer.
_MOST_EXACT = 1 << 24
_SHAPES = "inputs are (N, ...) as the network takes them, or images (N, H, W), (N, H, W, 1 or 3)"
#: Of inputs, that of the examples included: (N, C, T, H, W).
MOST_AXES = 5
_STREAMS = "train and test, each a Dataset or an iterable of batches"
_SAVE = "write it again with numpy.savez(FILE, x_train=..., y_train=..., x_test=..., y_test=...)"


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """Checked arrays before the split, as in `Split`."""

    x_train: NDArray[Any]
    y_train: NDArray[Any]
    x_test: NDArray[Any]
    y_test: NDArray[Any]
    classes: tuple[str, ...]
    #: What raw values are multiplied with; None: 1/255 for uint8, 1 for floats.
    scale: float | None = None
    #: What the data's owner says of their scaling; None: worked out from the data.
    preprocessing: Scaled | None = None
    targets: TargetKind = "classes"
    laid_out: Layout = "given"
    #: Names of the inputs that were integers of 32 or 64 bits.
    whole: tuple[str, ...] = ()
    #: How targets of the user's own task lie in `y_train`, where they are several.
    target_layout: Joined | None = None
    #: Which test examples are anomalies (N,); None where the data do not say.
    anomalies: NDArray[np.bool_] | None = None


def read_npz(path: Path, task: TaskName | OwnTargets | None = None) -> Raw:
    """The arrays of an .npz file. Raises DataError; never unpickles."""
    # Checked first: numpy.load takes anything else for an .npy file or a pickle.
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is truncated or no .npz file", _SAVE)
    found: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            # Before numpy makes room for what the headers say; a member cannot give more than this.
            size = sum(
                member.file_size
                for member in archive.infolist()
                if _part(member.filename.removesuffix(".npy")) in NAMES
            )
        require_room(size, f"the arrays of {path}", "give fewer examples, or uint8 instead of float32")
        # Opened here, since numpy leaves the file open when its directory is damaged.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            found = archive.files
            arrays = {name: archive[name] for name in found if _part(name) in (ENTRY, CLASSES, ANOMALIES, *NAMES)}
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
    names = read_names(arrays.pop(CLASSES, None), str(path))
    entry, odd = arrays.pop(ENTRY, None), arrays.pop(ANOMALIES, None)
    raw = from_arrays(_named(_joined(arrays), found, str(path)), str(path), classes=names, entry=entry, task=task)
    return _marked(raw, odd, str(path))


def call_function(spec: str, progress: Progress, task: TaskName | OwnTargets | None = None) -> Raw:
    """The arrays that the user's FILE.py:FUNCTION returns, or what streams give that it returns (see `read_streams`).

    Raises UsageError when it fails, DataError and StorageError as below.
    """
    function = load_function(spec, "data")
    given = call_user(function, spec)
    if isinstance(given, tuple | list) and len(given) == len(NAMES):
        given = dict(zip(NAMES, given, strict=True))
    elif isinstance(given, tuple) and len(given) == len(PARTS) and all(map(is_stream, given)):
        given = dict(zip(PARTS, given, strict=True))
    if not isinstance(given, Mapping):
        got = f"{len(given)} values" if isinstance(given, tuple | list) else f"a {type(given).__name__}"
        raise DataError(f"{spec} returned {got}", f"return a dict or a tuple of {', '.join(NAMES)}, or of {_STREAMS}")
    names = read_names(given.get(CLASSES), spec)
    if all(is_stream(given.get(part)) for part in PARTS):
        listed = isinstance(task, OwnTargets) and task.collate is not None
        arrays = read_streams(given, function, spec, progress, listed=listed)
    else:
        arrays = _named(given, [str(key) for key in given], spec)
    raw = from_arrays(arrays, spec, classes=names, entry=given.get(ENTRY), task=task)
    return _marked(raw, given.get(ANOMALIES), spec)


def _part(name: str) -> str:
    return name.partition(".")[0]


def _joined(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Several inputs lie in an .npz as `x_train.NAME`, one member each: they become a mapping by name."""
    found: dict[str, Any] = {}
    for name, array in arrays.items():
        part, dot, own = name.partition(".")
        if dot:
            found.setdefault(part, {})[own] = array
        else:
            found[name] = array
    return found


def _named(arrays: Mapping[Any, Any], found: list[str], what: str) -> dict[str, Any]:
    missing = [name for name in NAMES if name not in arrays]
    if missing:
        raise DataError(
            f"{what} has no {missing[0]}",
            f"it needs {', '.join(NAMES)} (a function may return {_STREAMS} instead) and holds "
            f"{', '.join(sorted(found)) or 'nothing'}",
        )
    return {name: arrays[name] for name in NAMES}


def from_arrays(
    arrays: Mapping[str, Any],
    what: str,
    *,
    classes: tuple[str, ...] | None = None,
    scale: float | None = None,
    entry: Any = None,
    task: TaskName | OwnTargets | None = None,
) -> Raw:
    """Check four arrays and bring them into one layout; `what` names their origin in messages.

    `entry` is the `preprocessing` that stands beside them, as in `read_entry`.

    | in | out |
    |---|---|
    | (N, D) | as it is |
    | (N, H, W) | (N, 1, H, W) |
    | (N, C, H, W) with C 1 or 3 | as it is, also where the last axis is 1 or 3 |
    | (N, H, W, C) with C 1 or 3 | (N, C, H, W) |
    | any other | as it is |
    | a mapping of several inputs by name, or a tuple of them | records (see `edgeprune.core.inputs`), each as it is |

    Bytes stay uint8, other numbers become float32. Targets as in `read_targets`; without `classes` classes must be
    0..K-1, each of them in train.

    Raises DataError for anything else: empty, NaN, lengths or shapes that differ, classes out of range, one class only.
    """
    several = {part: _several(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")}
    if several["train"] or several["test"]:
        return _from_several(several, arrays, what, classes, entry, task)
    x = {part: _inputs(arrays[f"x_{part}"], f"{what}: x_{part}") for part in ("train", "test")}
    whole = (INPUT,) if _is_whole(arrays["x_train"]) and _is_whole(arrays["x_test"]) else ()
    targets = _targets(arrays, x["train"], what, classes, task)
    kind, y = targets.kind, targets.arrays
    for part in ("train", "test"):
        if len(x[part]) != len(y[part]):
            have = f"{len(y[part])} {'labels' if kind == 'classes' else 'targets'}"
            raise DataError(f"{what}: x_{part} has {len(x[part])} examples and y_{part} {have}", "each needs one")
    if x["train"].shape[1:] != x["test"].shape[1:]:
        raise DataError(
            f"{what}: examples of x_train are {x['train'].shape[1:]}, of x_test {x['test'].shape[1:]}", _SHAPES
        )
    if x["train"].dtype != x["test"].dtype:
        types = f"x_train is {x['train'].dtype}, x_test {x['test'].dtype}"
        raise DataError(
            f"{what}: {types} (after conversion)", "give both as uint8 or both as float32, in the same range"
        )
    laid_out = _layout(x["train"])
    # Pictures that are to be answered with pictures keep their places.
    if kind == "numbers" and laid_out == "transposed" and like_inputs(y["train"], x["train"]):
        y = {part: changed(each, _last_axis_first) for part, each in y.items()}
    x_train, x_test = (_channels_first(x[part]) for part in ("train", "test"))
    preprocessing = None if entry is None else read_entry(entry, x_train.shape[1], what)
    if preprocessing and not all(fits_float32(preprocessing, part) for part in (x_train, x_test)):
        raise DataError(f"{what}: {ENTRY} makes inputs too large for float32", "check scale, mean and std")
    return Raw(
        x_train, y["train"], x_test, y["test"], targets.classes, scale, preprocessing, kind, laid_out, whole,
        targets.layout,
    )  # fmt: skip


def _targets(
    arrays: Mapping[str, Any],
    x: NDArray[Any],
    what: str,
    classes: tuple[str, ...] | None,
    task: TaskName | OwnTargets | None,
) -> ReadTargets:
    if isinstance(task, OwnTargets):
        return collated(arrays, what, task)
    return read_targets(arrays, x, what, classes, task)


def _several(given: Any, targets: Any) -> dict[str, Any]:
    """Several inputs by name; {} where `given` is one. A tuple with a member for each target is one input's rows."""
    if isinstance(given, Mapping):
        return {str(name): each for name, each in given.items()}
    if isinstance(given, tuple) and given and len(given) != len(targets):
        return {f"{INPUT}{number}": each for number, each in enumerate(given)}
    return {}


def _from_several(
    several: Mapping[str, Mapping[str, Any]],
    arrays: Mapping[str, Any],
    what: str,
    classes: tuple[str, ...] | None,
    entry: Any,
    task: TaskName | OwnTargets | None,
) -> Raw:
    names = {part: ", ".join(each) or "one input" for part, each in several.items()}
    if set(several["train"]) != set(several["test"]):
        raise DataError(f"{what}: inputs of x_train are {names['train']}, of x_test {names['test']}", "give both alike")
    for name in several["train"]:
        if not _NAME.fullmatch(name):
            raise DataError(f"{what}: an input is called '{name[:60]}'", "give names of letters, digits and _")
    x = {
        part: {name: _inputs(given[name], f"{what}: {name} of x_{part}") for name in several["train"]}
        for part, given in several.items()
    }
    targets = _targets(arrays, next(iter(x["train"].values())), what, classes, task)
    y = targets.arrays
    for part, each in x.items():
        for name, array in each.items():
            if len(array) != len(y[part]):
                raise DataError(
                    f"{what}: {name} of x_{part} has {len(array)} examples and y_{part} {len(y[part])}",
                    "each needs one",
                )
    for name, array in x["train"].items():
        other = x["test"][name]
        if array.shape[1:] != other.shape[1:] or array.dtype != other.dtype:
            raise DataError(
                f"{what}: examples of {name} are {array.shape[1:]} {array.dtype} in x_train, {other.shape[1:]} "
                f"{other.dtype} in x_test",
                "give both alike",
            )
    whole = tuple(name for name in x["train"] if _is_whole(several["train"][name]) and _is_whole(several["test"][name]))
    preprocessing = None if entry is None else read_entries(entry, x["train"], what)
    return Raw(
        records(x["train"]), y["train"], records(x["test"]), y["test"], targets.classes,
        preprocessing=preprocessing, targets=targets.kind, whole=whole, target_layout=targets.layout,
    )  # fmt: skip


def _marked(raw: Raw, given: Any, what: str) -> Raw:
    """With its anomalies, 0 or 1 for each test example. Raises DataError where they cannot be."""
    if given is None:
        return raw
    odd = as_array(given, f"{what}: {ANOMALIES}")
    if odd.shape != (len(raw.y_test),) or not np.isin(odd, (0, 1)).all():
        raise DataError(
            f"{what}: expected 0 or 1 in {ANOMALIES} for each of {len(raw.y_test)} test examples, got {odd.dtype} of "
            f"shape {odd.shape}",
            "y_test stays what x_test is: the examples themselves",
        )
    if raw.targets != "numbers":
        raise DataError(f"{what}: {ANOMALIES} are told by errors of reconstruction", "leave them out")
    if len(np.unique(odd)) < 2:
        raise DataError(f"{what}: {ANOMALIES} marks {'every' if odd[0] else 'no'} test example", "leave it out")
    return replace(raw, anomalies=odd.astype(bool))


def _is_whole(given: Any) -> bool:
    """Whether it holds what may be indices: integers of 32 or 64 bits, none below 0."""
    x = np.asarray(given)
    return x.dtype.kind in "iu" and x.dtype.itemsize >= 4 and x.size > 0 and int(x.min()) >= 0 and x.max() < _MOST_EXACT


def _inputs(given: Any, what: str) -> NDArray[Any]:
    x = as_array(given, what)
    if x.size == 0:
        raise DataError(f"{what} is empty: its shape is {x.shape}", _SHAPES)
    if not 2 <= x.ndim <= MOST_AXES:
        raise DataError(f"{what} has shape {x.shape}", _SHAPES)
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind not in "buif":
        raise DataError(f"{what} holds {x.dtype}, not numbers", "give uint8 or float32")
    check_finite(x, what)
    for part in map(x.__getitem__, parts(x)):
        if x.dtype.itemsize > 4 and np.abs(part).max() > np.finfo(np.float32).max:
            raise DataError(f"{what} holds values too large for float32", "scale the data first")
    return x if x.dtype == np.float32 else changed(x, lambda part: part.astype(np.float32))


def _layout(x: NDArray[Any]) -> Layout:
    if x.ndim == 3:
        return "axis"
    return "transposed" if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3) else "given"


def _channels_first(x: NDArray[Any]) -> NDArray[Any]:
    match _layout(x):
        case "axis":
            return x[:, None]
        case "transposed":
            return changed(x, _last_axis_first)
        case _:
            return x


def _last_axis_first(x: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
