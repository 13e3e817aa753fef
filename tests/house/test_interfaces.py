"""The tables of docs/interfaces.md have a row for every field of the records, and none for anything else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest

from edgeprune.core import schema
from edgeprune.core.measurement import MeasureSettings
from edgeprune.deploy.release import Release
from edgeprune.papers import records as paper
from edgeprune.papers.conv import records as conv
from edgeprune.papers.shapley_record import ShapleyResult
from edgeprune.pipeline.export import PlanFile
from edgeprune.pipeline.inspect import Inspection
from edgeprune.pipeline.records.exported import Exports
from edgeprune.pipeline.records.front import Front
from edgeprune.pipeline.records.listed import RunsList
from edgeprune.pipeline.records.result import EndedEarly, FrontHeader, Result
from edgeprune.pipeline.records.status import RunStatus
from edgeprune.pipeline.tuned import TunedNote
from edgeprune.profilers.compared import Compared
from edgeprune.profilers.records import Accuracy, Profiles, Scores

PAGE = (Path(__file__).parents[2] / "docs" / "interfaces.md").read_text(encoding="utf-8")
#: The heading of each table, and what has these fields.
TABLES: Mapping[str, Any] = {
    f"## `result.json`, schema {schema.RESULT_SCHEMA}": Result | EndedEarly | FrontHeader,
    "## Settings of a measurement": MeasureSettings,
    f"## `status.json`, schema {schema.STATUS_SCHEMA}": RunStatus,
    f"## A front: `front.json`, schema {schema.FRONT_SCHEMA}": Front,
    f"## `plan.json`, schema {schema.PLAN_SCHEMA}": PlanFile,
    f"## `tuned/KEY-ROLE.json`, schema {schema.TUNED_SCHEMA}": TunedNote,
    "## A folder that `edgeprune deploy` keeps": Release,
    f"## `edgeprune runs list --json`, schema {schema.RUNS_SCHEMA}": RunsList,
    f"## `edgeprune inspect --json`, schema {schema.INSPECT_SCHEMA}": Inspection,
    f"## `edgeprune profile --json`, schema {schema.PROFILE_SCHEMA}": Profiles,
    f"## `edgeprune compare --json`, schema {schema.COMPARE_SCHEMA}": Compared,
    f"## `edgeprune validate --json`, schema {schema.VALIDATE_SCHEMA}": Accuracy | Scores,
    f"## An export: `export.json`, schema {schema.EXPORT_SCHEMA}": Exports,
    "### `bench.json`": paper.BenchHeader,
    "### `baseline-S.json`": paper.Baseline,
    "### `cells/ROW-S.json`": paper.Cell,
    "### `evals/N/METHOD-S.json`": paper.Compared,
    "### `evals.json`": paper.Evaluations,
    "### `sparsity.json`": paper.SparsityTrial,
    "### `beta.json`": paper.BetaSweep,
    "### `bench.json` of `bench conv`": conv.ConvHeader,
    "### `cells/NETWORK@BOUND-METHOD-S.json`": conv.Cell,
    "### `finished/NETWORK-KEY-S.json`": conv.Finished,
    "### `families/NETWORK.json`": conv.Family,
    "### `networks/NETWORK-S/test.json`": conv.Tested,
    "### `networks/NETWORK-S/seconds.json`": conv.Seconds,
    f"## `shapley.json`, schema {schema.SHAPLEY_SCHEMA}": ShapleyResult,
}


def held(kind: Any, path: str = "") -> Iterator[str]:
    """The paths of all figures inside a type: `a.b`, `a[].b`, `a.*.b`; of a record with a table of its own, its own."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        yield from held(inside[0], path)
    elif origin in (Union, UnionType):
        found = {each for one in inside if one is not type(None) for each in held(one, path)}
        # Of several kinds one may be no record.
        yield from found - {path} if any(each != path for each in found) else found
    elif is_dataclass(kind) and not (path and kind in TABLES.values()):
        hints = get_type_hints(kind, include_extras=True)
        for field in fields(kind):
            yield from held(hints[field.name], f"{path}.{field.name}".lstrip("."))
    elif origin is tuple and inside[-1] is Ellipsis and _has_records(inside[0]):
        yield from held(inside[0], f"{path}[]")
    elif isinstance(origin, type) and issubclass(origin, Mapping) and _has_records(inside[1]):
        yield from held(inside[1], f"{path}.*")
    else:
        yield path


def _has_records(kind: Any) -> bool:
    return set(held(kind, "x")) != {"x"}


def expanded(text: str) -> Iterator[str]:
    """The paths that a row's first column is short for: `a{b,c{d}}` is `a.b` and `a.c.d`, `a.NAME.b` is `a.*.b`."""
    whole = re.fullmatch(r"([^{}]*)\{(.*)\}", text)
    if whole is None:
        assert not set(text) & set("{},"), text
        yield ".".join("*" if part.isupper() else part for part in text.split("."))
        return
    head, rest = whole.groups()
    depth, part = 0, ""
    for letter in rest + ",":
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            yield from expanded(f"{head}.{part}")
            part = ""
        else:
            part += letter


def told(heading: str) -> list[str]:
    """The paths in the tables of fields under a heading."""
    lines = PAGE.splitlines()
    assert lines.count(heading) == 1, heading
    rest = lines[lines.index(heading) + 1 :]
    section = rest[: next((place for place, line in enumerate(rest) if line.startswith("#")), len(rest))]
    rows = [line for line in section[section.index("| field | content |") + 2 :] if line.startswith("| ")]
    return [path for row in rows for token in re.findall(r"`([^`]+)`", row.split(" | ")[0]) for path in expanded(token)]


def own(record: Any) -> Iterator[str]:
    """The paths of a record; of an export those that are told of in result.json, too, by their first part alone."""
    shared = set(held(Result)) if record is Exports else set()
    for path in held(record):
        first = re.split(r"[.\[]", path)[0]
        there = path.replace("network.", "baseline.", 1) in shared
        yield first if there and first in ("device", "data", "network", "artifacts") else path


@pytest.mark.parametrize(("heading", "record"), TABLES.items(), ids=list(TABLES))
def test_every_field_has_a_row_and_every_row_a_field(heading: str, record: Any) -> None:
    rows, known = told(heading), set(own(record))
    assert sorted(known - set(rows)) == [], "fields that no row tells of"
    assert sorted(set(rows) - known) == [], "rows of no field"
    assert len(rows) == len(set(rows)), sorted(path for path in set(rows) if rows.count(path) > 1)


def test_paths_are_found_in_records_and_in_rows() -> None:
    assert list(expanded("a[].b{c,d{e,f}}")) == ["a[].b.c", "a[].b.d.e", "a[].b.d.f"]
    assert list(expanded("a.NAME.b")) == ["a.*.b"]
    found = set(held(Result))
    assert {"schema", "settled.*.why", "compressed.layers[].kept", "artifacts[].settings", "config"} <= found
    assert not {"device", "artifacts[]", "artifacts[].settings.threads"} & found


def test_every_schema_number_is_in_one_place_and_on_the_page() -> None:
    numbers = {name: value for name, value in vars(schema).items() if name.endswith("_SCHEMA")}
    assert {"RESULT_SCHEMA", "PLAN_SCHEMA", "BENCH_SCHEMA", "TRIALS_SCHEMA", "CACHE_SCHEMA"} <= set(numbers)
    for title, name in (
        ("## A bench folder, schema ", "BENCH_SCHEMA"),
        ("## A folder of `bench conv`, schema ", "BENCH_SCHEMA"),
        ("## A gate: `gate.toml`, schema ", "GATE_SCHEMA"),
        ("## `trials.sqlite`, `PRAGMA user_version` ", "TRIALS_SCHEMA"),
        ("`runs/.cache/measurements.sqlite` (`PRAGMA user_version` ", "CACHE_SCHEMA"),
    ):
        assert f"{title}{numbers[name]}" in PAGE
