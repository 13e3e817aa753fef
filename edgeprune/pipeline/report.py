"""`report.html`: finished runs as a page; what it shows is read here, and put into HTML in `report/page`. No torch."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from edgeprune.core.errors import StorageError, UsageError
from edgeprune.core.files import write_bytes
from edgeprune.core.plain import from_json, to_json
from edgeprune.core.store import RunFolder, TrialStore
from edgeprune.core.trial import Trial
from edgeprune.pipeline.bounds import SEARCHES
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.records.result import Result
from edgeprune.pipeline.stored import finished, finished_front
from edgeprune.profilers.statistics import percentile
from edgeprune.report.page.finished import FrontRun, Network, Run
from edgeprune.report.page.render import render

_TRIALS = "trials.sqlite"


def write_report(runs: Sequence[Path], out: Path) -> int:
    """Write the page of finished runs, a folder each, to `out`; its size in bytes.

    Raises UsageError where one is missing, unfinished or damaged, or `out` is there already; StorageError.
    """
    if out.exists():
        raise UsageError(f"{out} is there already", "name another --out, or remove it")
    page = render([_read(path) for path in runs]).encode()
    write_bytes(out, page)
    return len(page)


def _read(path: Path) -> Run:
    """A run by its folder. Raises UsageError, also for what is damaged: it was named by whoever asks."""
    folder = RunFolder(path)
    try:
        if (front := finished_front(folder)) is not None:
            return _front(folder, front)
        if (result := finished(folder)) is None:
            raise UsageError(f"{path} holds no finished run", "give one as runs/NAME; --resume NAME finishes one")
        return _network(folder, result, _name(path), _trials(path))
    except StorageError as error:
        raise UsageError(error.message, error.hint) from error


def _network(folder: RunFolder, found: dict[str, Any], name: str, trials: tuple[Trial, ...]) -> Network:
    # With every field: what has a default an earlier version may have left out.
    result: dict[str, Any] = to_json(from_json(Result, found))
    validated = [item for item in result["artifacts"] if item["validated"]]
    tails = {item["path"]: (_p90(item["latency"]), _p90(item["baseline_latency"])) for item in validated}
    return Network(name, folder.path, result, tails, _command(result["config"]), trials)


def _p90(latency: Mapping[str, Any]) -> float | None:
    return percentile(latency["samples"], 90)


def _front(folder: RunFolder, front: dict[str, Any]) -> FrontRun:
    name, networks = _name(folder.path), []
    for point in front["points"]:
        if point["path"] is not None:
            inner = RunFolder(folder / point["path"])
            result = finished(inner)
            # Reading the front has looked at each.
            assert result is not None
            networks.append(_network(inner, result, f"{name}/{point['name']}", ()))
    trials = _trials(folder.path)
    planned = folder.read_json(SEARCHES, dict[str, Annotated[int, Field(ge=1)]])
    # For a bound that no network can keep nothing is searched.
    searches = [(each, planned[each]) for each in planned if any(net.folder.name == each for net in networks)]
    # A search that ended early has fewer trials than it was given: then nobody knows where the next one began.
    told = tuple(searches) if sum(count for _, count in searches) == len(trials) else ()
    command = _command(folder.read_json("result.json", dict[str, Any])["config"])
    return FrontRun(name, folder.path, front, command, tuple(networks), trials, told)


def _name(path: Path) -> str:
    return path.resolve().name


def _trials(path: Path) -> tuple[Trial, ...]:
    """Those of a run; none of one bound of a front, whose trials are the front's."""
    if not (path / _TRIALS).is_file():
        return ()
    with closing(TrialStore(path / _TRIALS, read_only=True)) as store:
        return tuple(store.trials())


def _command(config: dict[str, Any]) -> str:
    """The command that asks for what a run's settings say, but for what is so anyway and where it was written."""
    words = ["edgeprune", "run"]
    for field in dataclasses.fields(RunConfig):
        value = config.get(field.name)
        if field.name in ("name", "runs_dir") or value is None or value == field.default:
            continue
        option = "--" + field.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(option if value else f"--no-{option[2:]}")
        else:
            words += [option, f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)
