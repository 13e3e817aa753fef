"""What is read of an earlier run's folder: its settings, `result.json`, `front.json`.

A file that lacks a field, or holds another type, is damaged, and is refused before anything is shown. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from edgeprune.core.errors import StorageError, UsageError
from edgeprune.core.reading import Source
from edgeprune.core.runtimes import AUTO
from edgeprune.core.schema import FRONT_SCHEMA, RESULT_SCHEMA, read_record, read_stamped
from edgeprune.core.store import START_ANEW, RunFolder
from edgeprune.core.text import shorten
from edgeprune.pipeline.config import DEFAULT, GIVEN, RunConfig, Setting, as_options, make_config
from edgeprune.pipeline.records.front import Front, Reached
from edgeprune.pipeline.records.result import Ended, Result

#: Why a setting has its value, where nothing was worked out, tried or measured for it.
_KNOWN = (GIVEN, DEFAULT)
#: What to do with a run of another version.
_ANOTHER = "start a new run, or continue this one with the version that began it"


@dataclass(frozen=True, slots=True)
class _Repeatable:
    """What is read of a result.json to repeat its run, however that ended."""

    config: Mapping[str, Any]
    settled: Mapping[str, Setting] = field(default_factory=dict)


def stored_config(folder: RunFolder) -> RunConfig:
    """The settings an earlier run was made with. Raises StorageError where they are damaged."""
    values = folder.read_json("config.json", dict[str, Any])
    try:
        return make_config(values, str(folder / "config.json"))
    except UsageError as error:
        raise StorageError(error.message, f"{START_ANEW}, or use the version that wrote it") from error


def repeated(path: Path, *, changed: bool = False) -> dict[str, Any]:
    """The options that repeat the run of a result.json: as they were settled, where it got that far; no name.

    Where something is to be `changed`, what was only worked out is left open again: it may hang on that.

    Raises UsageError where it is missing or damaged, or another version's.
    """
    source = Source(path, UsageError, "check --config: a file of TOML, or a run's result.json")
    said = read_record(source, _Repeatable, RESULT_SCHEMA, "repeat it with the version that wrote it")
    given = {name: value for name, value in said.config.items() if value is not None}
    settled = said.settled
    if changed:
        # What was chosen on the device stands in the settings, too; it is chosen anew.
        given |= {name: AUTO for name in ("runtime", "threads") if name in settled and settled[name].why not in _KNOWN}
        settled = {name: each for name, each in settled.items() if each.why in _KNOWN}
    values = given | as_options(settled)
    values.pop("name", None)
    make_config(values, str(path))
    return values


def finished(folder: RunFolder) -> dict[str, Any] | None:
    """`result.json` of a run that got to its end; None where there is still something to do.

    Raises StorageError where it is damaged, UsageError where it is of another schema.
    """
    if not (folder / "result.json").is_file():
        return None
    source = folder.source("result.json")
    result = read_stamped(source, RESULT_SCHEMA, _ANOTHER)
    if result.get("status") not in get_args(Ended):
        return None
    source.shaped(result, Result)
    return result


def finished_front(folder: RunFolder) -> dict[str, Any] | None:
    """`front.json` of a run with several bounds that got to its end; None where there is still something to do.

    Raises StorageError where it, or the result of a bound, is damaged, UsageError where it is of another schema.
    """
    if not (folder / "result.json").is_file():
        return None
    result = read_stamped(folder.source("result.json"), RESULT_SCHEMA, _ANOTHER)
    if result.get("status") not in get_args(Ended) or "front" not in result:
        return None
    source = folder.source("front.json")
    front = read_stamped(source, FRONT_SCHEMA, _ANOTHER)
    for point in source.shaped(front, Front).points:
        if not isinstance(point, Reached):
            continue
        try:
            there = finished(RunFolder(folder / point.path))
        except OSError as error:
            # Such as a name that no file can have.
            raise source.refusal(f"the result of {shorten(point.name, 60)}: {error.strerror}") from error
        if there is None:
            raise source.refusal(f"the result of {point.name} is missing in {folder / point.path}")
    return front
