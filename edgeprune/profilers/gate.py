"""The gate of `edgeprune compare`: how much worse each figure may become. A TOML file of the user's, versioned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from edgeprune.core.errors import UsageError, did_you_mean
from edgeprune.core.reading import Source, short
from edgeprune.core.schema import GATE_SCHEMA, check_schema
from edgeprune.core.units import unit_scale

FigureName = Literal["latency", "p90", "load", "memory", "bytes", "quality"]
Direction = Literal["lower", "higher"]
Missing = Literal["fail", "warn"]
#: What a figure is recorded in. "metric": in the metric's own terms.
FigureUnit = Literal["s", "simulated s", "instructions", "B", "share", "metric"]

#: The gate where none is given; `edgeprune compare --write-gate FILE` writes it.
DEFAULT_GATE = """\
# A gate of `edgeprune compare A B --profile THIS-FILE`: how much worse B may be than A. Exit code 3: it is worse.
#
# A table for each figure that is judged; leave one out, and the figure is not looked at.
#   direction      "lower" or "higher" is better
#   most_percent   B may be worse by so many percent of A,
#   most_absolute  and by so much in `unit`; where both are given, only what exceeds both is a regression
#   unit           of most_absolute: s, ms, us or Minsn; B, kB, MB, KiB or MiB; points, or metric: its own
#   missing        where A or B has no such figure: "fail" (exit code 3) or "warn"
#
# B is worse only where the whole 95 % interval of the change lies beyond that, and beyond the noise floor: what a copy
# of A shows beside A.
schema = 1

[latency]  # median of an inference
direction = "lower"
most_percent = 5
missing = "fail"

[p90]  # what 90 % of the inferences do not exceed
direction = "lower"
most_percent = 10
missing = "warn"

[load]  # until the file is open
direction = "lower"
most_percent = 25
missing = "warn"

[memory]  # heap that the model holds
direction = "lower"
most_percent = 5
missing = "warn"

[bytes]  # the file
direction = "lower"
most_percent = 1
most_absolute = 1
unit = "kB"
missing = "fail"

[quality]  # of runs, by their metric: direction is the metric's
most_percent = 1
missing = "warn"
"""

_TIMES, _SIZES = ("s", "ms", "us"), ("B", "kB", "MB", "GB", "KiB", "MiB", "GiB")
#: Units of `most_absolute`, by the figure.
_UNITS: Mapping[FigureName, tuple[str, ...]] = MappingProxyType(
    {
        "latency": (*_TIMES, "Minsn"),
        "p90": (*_TIMES, "Minsn"),
        "load": _TIMES,
        "memory": _SIZES,
        "bytes": _SIZES,
        "quality": ("points", "metric"),
    }
)
_HINT = "edgeprune compare --write-gate FILE writes one with every key explained"


@dataclass(frozen=True, slots=True)
class Threshold:
    """How much worse one figure may become: more than `most_percent` of A and more than `most_absolute` is too much."""

    #: What is better; None: as the run's metric has it.
    direction: Direction | None = None
    most_percent: float | None = None
    most_absolute: float | None = None
    #: Of `most_absolute`.
    unit: str = ""
    missing: Missing = "fail"

    def allowed(self, a: float, unit: FigureUnit, figure: FigureName) -> float:
        """By how much a figure of `a` may become worse, in its `unit`. Raises UsageError for another one."""
        share = abs(a) * (self.most_percent or 0.0) / 100
        if self.most_absolute is None:
            return share
        right = _right_units(unit, figure)
        if self.unit not in right:
            raise UsageError(
                f"the gate's {figure}.most_absolute is in {self.unit}, and what was recorded is in {_spoken(unit)}",
                f"give it in {' or '.join(right)}, or give most_percent alone",
            )
        return max(share, self.most_absolute * _scale(self.unit))


@dataclass(frozen=True, slots=True)
class Gate:
    """What is judged, and how strictly; figures that it does not name are not looked at."""

    #: The file as given; "": the default.
    file: str
    figures: Mapping[FigureName, Threshold]


def default_gate() -> Gate:
    """The one that holds where none is given."""
    return _gate(Source("the default gate", UsageError, _HINT).parse_toml(DEFAULT_GATE), "the default gate", "")


def read_gate(path: Path) -> Gate:
    """A gate file. Raises UsageError, which names the key, for anything in it that is not known or cannot be."""
    return _gate(Source(path, UsageError, _HINT, "the gate").read_toml(), str(path), str(path))


def _gate(data: Mapping[str, Any], name: str, file: str) -> Gate:
    if type(data.get("schema")) is not int:
        raise UsageError(
            f"{name}: expected a version, got {'none' if 'schema' not in data else short(data['schema'])}",
            f"begin it with: schema = {GATE_SCHEMA}",
        )
    check_schema(name, data["schema"], GATE_SCHEMA, _HINT)
    known = get_args(FigureName)
    for key in data:
        if key not in known and key != "schema":
            raise UsageError(f"{name}: unknown figure {short(key)}", did_you_mean(key, known))
    figures = {figure: _threshold(data[figure], figure, name) for figure in known if figure in data}
    if not figures:
        raise UsageError(f"{name} judges no figure", "give a table for each that counts, as in [latency]")
    return Gate(file, figures)


def _threshold(table: Any, figure: FigureName, name: str) -> Threshold:
    if not isinstance(table, dict):
        raise UsageError(
            f"{name}: expected a table {figure}, got {short(table)}", f"write [{figure}] and keys below it"
        )
    keys = [each.name for each in fields(Threshold)]
    for key in table:
        if key not in keys:
            raise UsageError(f"{name}: unknown key {short(key)} in [{figure}]", did_you_mean(key, keys))
    choices: Mapping[str, tuple[str, ...]] = {
        "direction": get_args(Direction) if figure == "quality" else ("lower",),
        "unit": _UNITS[figure],
        "missing": get_args(Missing),
    }
    for key, allowed in choices.items():
        if key in table and table[key] not in allowed:
            raise _wrong(name, figure, key, " or ".join(f'"{each}"' for each in allowed), table[key])
    for key in ("most_percent", "most_absolute"):
        given = table.get(key, 0)
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < math.inf:
            raise _wrong(name, figure, key, "a number of 0 or more", given)
    if "most_absolute" in table and "unit" not in table:
        raise UsageError(
            f"{name}: {figure}.most_absolute has no unit", f"give unit as well, one of: {', '.join(_UNITS[figure])}"
        )
    natural: Mapping[str, Direction] = {} if figure == "quality" else {"direction": "lower"}
    return Threshold(**{**natural, **table})


def _wrong(name: str, figure: str, key: str, expected: str, got: Any) -> UsageError:
    return UsageError(f"{name}: {figure}.{key}: expected {expected}, got {short(got)}", _HINT)


def _right_units(unit: FigureUnit, figure: FigureName) -> tuple[str, ...]:
    """What a threshold on a figure recorded in `unit` may be given in."""
    own: Mapping[FigureUnit, tuple[str, ...]] = {
        "instructions": ("Minsn",),
        "share": ("points",),
        "metric": ("metric",),
    }
    return own.get(unit, tuple(each for each in _UNITS[figure] if each != "Minsn"))


def _spoken(unit: FigureUnit) -> str:
    return {"metric": "the metric's own unit", "share": "points", "s": "seconds"}.get(unit, unit)


def _scale(unit: str) -> float:
    return {"points": 0.01, "metric": 1.0}[unit] if unit in ("points", "metric") else unit_scale(unit)
