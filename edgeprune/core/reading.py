"""What is read from disk is read through a `Source`: every fault in it becomes one of our errors.

The error names the file, says what is wrong with it, and what to do. Files are not trusted: they may be cut, damaged,
of another program, or made to be too large, too deep or out of range.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from edgeprune.core.errors import EdgepruneError
from edgeprune.core.plain import from_json

T = TypeVar("T")

#: Bytes of a file of JSON and of TOML that are read at most. The largest we write, a profile with its raw samples, has
#: some megabytes; TOML is written by hand, and its parser is slow.
MAX_JSON_BYTES, MAX_TOML_BYTES = 64 << 20, 1 << 20
#: Lists and tables inside each other. Ours have eight levels at most; beyond some hundred Python's own functions fail.
MAX_DEPTH = 40
#: Digits of a whole number: those of 2**63.
MAX_DIGITS = 19

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 2, 3, 3

#: How pydantic calls one of several types that a value may have, and how it begins what it says of each.
_TYPE = re.compile(r"int|float|bool|str|literal\[.*\]")
_WISH = "Input should be "


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or a part of one, that is read: its name in messages, the error for a fault in it, what to do then.

    Example: `Source(path, StorageError, "start a new run").read_json(dict)`. Every method raises `error`, and
    nothing else for what the file holds.
    """

    name: Path | str
    error: type[EdgepruneError]
    hint: str
    #: What kind of file it is, where its name alone does not say: "the device book".
    title: str = ""

    @property
    def shown(self) -> str:
        """How messages name it."""
        return f"{self.title} {self.name}".strip()

    def refusal(self, why: str) -> EdgepruneError:
        """The error that says why this cannot be used; to be raised by whoever finds it out."""
        return self.error(f"cannot use {self.shown}: {why}", self.hint)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turns whatever a parser raises on a damaged file into the error; our own errors pass.

        Only calls of a parser belong inside: a bug of ours would be told as damage of the file.
        """
        try:
            yield
        except EdgepruneError:
            raise
        except Exception as fault:
            # A parser that meets bytes it was not written for raises anything: IndexError, AttributeError, MemoryError.
            raise self.error(f"cannot read {self.shown}: {reason(fault)}", self.hint) from fault

    def read_bytes(self, most: int) -> bytes:
        """The whole file, of at most `most` bytes."""
        with self.guarded(), Path(self.name).open("rb") as stream:
            data = stream.read(most + 1)
        if len(data) > most:
            raise self.refusal(f"expected a file of at most {most:,} bytes, got more")
        return data

    def read_json(self, kind: type[T]) -> T:
        """The file's JSON as a value of type `kind`, see `parse_json`."""
        return self.parse_json(self.read_bytes(MAX_JSON_BYTES), kind)

    def parse_json(self, text: str | bytes, kind: type[T]) -> T:
        """`text` as a value of type `kind` (as `from_json`): finite numbers, `MAX_DIGITS`, `MAX_DEPTH`."""
        if not isinstance(text, str | bytes):
            # A damaged database holds anything where text belongs.
            raise self.refusal(f"expected text, got {type(text).__name__}")
        if len(text) > MAX_JSON_BYTES:
            raise self.refusal(f"expected at most {MAX_JSON_BYTES:,} bytes of JSON, got {len(text):,}")
        with self.guarded():
            data = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole)
        return self.shaped(data, kind)

    def read_toml(self) -> dict[str, Any]:
        """The file's TOML, UTF-8, at most `MAX_DEPTH` deep. A missing file is an error as well.

        TOML has words for NaN and infinity: whoever takes a figure checks that it is finite, and can name it.
        """
        return self.parse_toml(self.read_bytes(MAX_TOML_BYTES))

    def parse_toml(self, text: str | bytes) -> dict[str, Any]:
        """`text` as TOML, see `read_toml`."""
        with self.guarded():
            data = tomllib.loads(text.decode() if isinstance(text, bytes) else text)
        self._check_bounds(data)
        return data

    def shaped(self, data: Any, kind: type[T]) -> T:
        """Plain data as a value of type `kind`."""
        self._check_bounds(data)
        try:
            return from_json(kind, data)
        except ValidationError as error:
            raise self.refusal(first_fault(error)) from error
        except EdgepruneError as error:
            # A value that checks itself speaks to whoever typed it; here it was the file.
            raise self.refusal(error.message) from error
        except (OverflowError, RecursionError) as error:
            raise self.refusal(reason(error)) from error

    def _check_bounds(self, data: Any) -> None:
        level = [data]
        for _ in range(MAX_DEPTH):
            # TOML's hexadecimal numbers may have any length, and Python refuses to print those beyond 4,300 digits.
            if any(isinstance(one, int) and abs(one) >= 10**MAX_DIGITS for one in level):
                raise self.refusal(f"expected numbers of at most {MAX_DIGITS} digits, got a longer one")
            level = [each for one in level if isinstance(one, dict | list) for each in _inside(one)]
            if not level:
                return
        raise self.refusal(f"expected lists and tables at most {MAX_DEPTH} deep, got deeper ones")


def short(value: Any) -> str:
    """Any value for a message: `repr`, but never long and never deep."""
    text = _SHORT.repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong, and how many more there are: `latency.unit: Input should be 's' (got 3)`."""
    faults = error.errors(include_url=False)
    first = faults[0]
    where, said = first["loc"], str(first["msg"])
    # A value that may be of several types is told once for each of them, by a name of the type behind the place.
    alike = [first]
    if where and _TYPE.fullmatch(str(where[-1])):
        where = where[:-1]
        alike = [one for one in faults if one["loc"][:-1] == where and _TYPE.fullmatch(str(one["loc"][-1]))]
        wishes = (str(one["msg"]).removeprefix(_WISH).split(", ")[0] for one in alike)
        said = _WISH + " or ".join(dict.fromkeys(wishes))
    missing = first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument")
    got = "" if missing else f" (got {short(first['input'])})"
    left = len(faults) - len(alike)
    more = f", and {left} more fault{'s' if left > 1 else ''}" if left else ""
    place = ".".join(str(part)[:60] for part in where)
    return f"{place}: {said}{got}{more}" if place else f"{said}{got}{more}"


def reason(fault: BaseException) -> str:
    """What an exception says about a file, on one line and not long."""
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    if isinstance(fault, RecursionError):
        return "it is nested too deeply"
    if isinstance(fault, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(fault, UnicodeError):
        return "it is not UTF-8 text"
    if "int_max_str_digits" in str(fault):
        return "it holds a number of thousands of digits"
    if isinstance(fault, tomllib.TOMLDecodeError | json.JSONDecodeError):
        return f"it is not {'TOML' if isinstance(fault, tomllib.TOMLDecodeError) else 'JSON'}: {str(fault)[:200]}"
    said = next((line.strip() for line in str(fault).splitlines() if line.strip()), "")
    if isinstance(fault, KeyError):
        return f"it has no {said}"
    # Third parties speak of their own types; the name helps where the text does not.
    return said[:200] if len(said.split()) > 1 else f"{type(fault).__name__} {said[:200]}".strip()


def _inside(one: dict[Any, Any] | list[Any]) -> list[Any]:
    return list(one.values()) if isinstance(one, dict) else one


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"expected a finite number, got {name}")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {text[:60]}")
    return value


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"expected a number of at most {MAX_DIGITS} digits, got one of {len(text.lstrip('-')):,}")
    return int(text)
