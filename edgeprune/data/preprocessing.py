"""Input scaling as people write it: on the command line, or beside the arrays of a data set."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.errors import DataError, UsageError, did_you_mean
from edgeprune.core.inputs import fields, plain_shape, written
from edgeprune.data.dataset import Dataset, EachInput, Preprocessing, Scaled

#: What --preprocessing takes beside numbers.
WORDS: Final = ("auto", "data", "none", "unit")
_KEYS = ("scale", "mean", "std")
_ENTRY = 'write "none" or {"scale": S, "mean": M, "std": D}: inputs become (x * scale - mean) / std'
_NUMBERS = "write MEAN,STD, or every channel's mean and then every channel's standard deviation, separated by commas"


def unscaled(features: int) -> Preprocessing:
    """Inputs as they are stored, of so many channels or features."""
    return Preprocessing(1.0, (0.0,) * features, (1.0,) * features)


def parse_numbers(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(means, standard deviations) of `--preprocessing` where it is no word.

    Example: `"0.5,0.25"` -> `((0.5,), (0.25,))`; six numbers are the means of three channels and then their standard
    deviations. Raises UsageError for anything else.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--preprocessing: expected {', '.join(WORDS)} or MEAN,STD, got '{text}'",
            did_you_mean(text, WORDS) if text.isalpha() else _NUMBERS,
        ) from None
    half = len(numbers) // 2
    if len(numbers) % 2 or not half:
        raise UsageError(f"--preprocessing: expected as many means as standard deviations, got '{text}'", _NUMBERS)
    means, stds = tuple(numbers[:half]), tuple(numbers[half:])
    try:
        Preprocessing(1.0, means, stds)
    except DataError as error:
        raise UsageError(f"--preprocessing '{text}': {error.message}", _NUMBERS) from None
    return means, stds


def write_numbers(preprocessing: Preprocessing, unit: float) -> str:
    """What to give to --preprocessing for it, to four digits, where raw values are multiplied with `unit` first."""
    share = unit / preprocessing.scale
    parts = [tuple(value * share for value in values) for values in (preprocessing.mean, preprocessing.std)]
    alike = [part[:1] if len(set(part)) == 1 else part for part in parts]
    chosen = alike if len(alike[0]) == len(alike[1]) else parts
    return ",".join(f"{value:.4g}" for part in chosen for value in part)


def resolve(text: str, dataset: Dataset) -> Scaled:
    """What `--preprocessing` means for a data set: `auto` and `data` are its own. Raises UsageError."""
    if isinstance(dataset.preprocessing, EachInput):
        return _resolve_each(text, dataset.preprocessing, dataset)
    features = plain_shape(dataset.input_shape)[0]
    match text:
        case "auto" | "data":
            return dataset.preprocessing
        case "none":
            return unscaled(features)
        case "unit":
            return Preprocessing(dataset.unit, (0.0,) * features, (1.0,) * features)
    means, stds = parse_numbers(text)
    if len(means) not in (1, features):
        raise UsageError(
            f"--preprocessing: expected 1 or {features} means, one for each of the data's channels or features, got "
            f"{len(means)} in '{text}'",
            _NUMBERS,
        )
    preprocessing = Preprocessing(dataset.unit, _spread(means, features), _spread(stds, features))
    if not fits_float32(preprocessing, dataset.train.x):
        raise UsageError(f"--preprocessing: '{text}' makes inputs too large for float32", _NUMBERS)
    return preprocessing


def _resolve_each(text: str, own: EachInput, dataset: Dataset) -> EachInput:
    if text in ("auto", "data"):
        return own
    if text == "none":
        arrays = fields(dataset.train.x)
        return EachInput({name: each and unscaled(arrays[name].shape[1]) for name, each in own.inputs.items()})
    raise UsageError(
        f"--preprocessing {text} is of one input of real numbers, and the data have {written(dataset.input_shape)}",
        "give auto, data or none, or let the data carry a preprocessing entry for each input",
    )


def read_entries(entry: Any, inputs: Mapping[str, NDArray[Any]], what: str) -> EachInput:
    """As `read_entry`, of data with several inputs: "none", or a mapping of names to what one input's entry is.

    An input that is not named stays as it is stored.
    """
    if isinstance(entry, np.ndarray) and entry.ndim == 0:
        entry = entry.item()
    if isinstance(entry, str) and entry != "none":
        try:
            entry = json.loads(entry)
        except (ValueError, RecursionError):
            raise DataError(f"{what}: preprocessing: expected 'none' or JSON, got '{entry[:60]}'", _ENTRY) from None
    if entry == "none":
        entry = {}
    if not isinstance(entry, Mapping) or not set(entry) <= set(inputs):
        named = ", ".join(map(str, entry)) if isinstance(entry, Mapping) else type(entry).__name__
        raise DataError(
            f"{what}: preprocessing: expected entries for {', '.join(inputs)}, got {named[:80]}", f"of each: {_ENTRY}"
        )
    found: dict[str, Preprocessing | None] = {}
    for name, array in inputs.items():
        found[name] = read_entry(entry.get(name, "none"), array.shape[1], f"{what}: {name}")
        one = found[name]
        if one is not None and not fits_float32(one, array):
            raise DataError(f"{what}: preprocessing makes {name} too large for float32", "check scale, mean and std")
    return EachInput(found)


def read_entry(entry: Any, features: int, what: str) -> Preprocessing:
    """The `preprocessing` that data carry, for so many channels or features; `what` names the data in messages.

    `entry` is "none", a mapping with exactly `scale`, `mean` and `std` (numbers, or lists of one number a channel), or
    the JSON text of either (an .npz holds it as a string). Raises DataError for anything else, and for values that
    cannot be: NaN, a standard deviation of 0, a list of another length.
    """
    said = f"{what}: preprocessing"
    if isinstance(entry, np.ndarray) and entry.dtype.kind == "U":
        # numpy makes strings of whatever a damaged file holds, and the first use of such a one fails.
        codes = np.frombuffer(entry.astype(entry.dtype.newbyteorder("=")).tobytes(), np.uint32)
        if codes.size and codes.max() > sys.maxunicode:
            raise DataError(f"{said}: expected text, got characters that do not exist", _ENTRY)
    if isinstance(entry, np.ndarray) and entry.ndim == 0:
        entry = entry.item()
    if isinstance(entry, bytes):
        entry = entry.decode("utf-8", "replace")
    if isinstance(entry, str) and entry != "none":
        try:
            entry = json.loads(entry)
        except (ValueError, RecursionError):
            raise DataError(f"{said}: expected 'none' or JSON, got '{entry[:60]}'", _ENTRY) from None
    if entry == "none":
        return unscaled(features)
    if not isinstance(entry, Mapping):
        raise DataError(f"{said}: expected 'none' or a mapping, got {type(entry).__name__}", _ENTRY)
    unknown, missing = [key for key in entry if key not in _KEYS], [key for key in _KEYS if key not in entry]
    if unknown or missing:
        problem = f"unknown key '{unknown[0]}'" if unknown else f"no '{missing[0]}'"
        raise DataError(f"{said}: expected the keys {', '.join(_KEYS)}, got {problem}", _ENTRY)
    scale, means, stds = (_floats(entry[key], f"{said}: {key}") for key in _KEYS)
    if len(scale) != 1:
        raise DataError(f"{said}: expected one scale, got {len(scale)}", _ENTRY)
    for key, values in (("mean", means), ("std", stds)):
        if len(values) not in (1, features):
            raise DataError(
                f"{said}: expected 1 or {features} values in {key}, one for each channel or feature, got {len(values)}",
                _ENTRY,
            )
    try:
        return Preprocessing(scale[0], _spread(means, features), _spread(stds, features))
    except DataError as error:
        raise DataError(f"{said}: {error.message}", _ENTRY) from None


def fits_float32(preprocessing: Preprocessing, x: NDArray[Any]) -> bool:
    """Whether every input stays finite."""
    ends = np.array([x.min(), x.max()], np.float32)[:, None].repeat(len(preprocessing.mean), 1)
    with np.errstate(all="ignore"):
        return bool(np.isfinite(preprocessing.apply(ends)).all())


def describe(preprocessing: Scaled) -> str:
    """In words, short: `none`, `x / 255`, `(x / 255 - 0.5) / 0.25`, with at most three numbers of a kind."""
    if isinstance(preprocessing, EachInput):
        words = {name: describe(one) if one else "integers as stored" for name, one in preprocessing.inputs.items()}
        return "; ".join(f"{name}: {how}" if len(words) > 1 else how for name, how in words.items())
    scale, mean, std = preprocessing.scale, preprocessing.mean, preprocessing.std
    inverse = 1 / scale
    raw = "x" if scale == 1 else f"x / {inverse:.6g}" if inverse >= 1 else f"x * {scale:.6g}"
    if not any(mean) and set(std) == {1.0}:
        return "none (values as stored)" if scale == 1 else raw
    return f"({raw} - {_some(mean)}) / {_some(std)}"


def _some(values: tuple[float, ...]) -> str:
    alike = values[:1] if len(set(values)) == 1 else values
    if len(alike) == 1:
        return f"{alike[0]:.4g}"
    return f"[{', '.join(f'{value:.4g}' for value in alike[:3])}{', ...' if len(alike) > 3 else ''}]"


def _floats(given: Any, what: str) -> tuple[float, ...]:
    if isinstance(given, bool) or (isinstance(given, np.ndarray) and given.dtype.kind not in "uif"):
        raise DataError(f"{what}: expected numbers, got {type(given).__name__}", _ENTRY)
    values = given if isinstance(given, list | tuple) else np.asarray(given, object).reshape(-1).tolist()
    if any(isinstance(value, bool) or not isinstance(value, int | float | np.number) for value in values):
        raise DataError(f"{what}: expected a number or a flat list of numbers, got {given!r:.60}", _ENTRY)
    try:
        return tuple(float(value) for value in values)
    except OverflowError:
        raise DataError(f"{what}: a number is too large", _ENTRY) from None


def _spread(values: tuple[float, ...], features: int) -> tuple[float, ...]:
    return values * features if len(values) == 1 else values
