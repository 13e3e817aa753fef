"""What a run may be resumed with: its own settings, and more of what it was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any

from pydantic import Field

from edgeprune.core.errors import UsageError
from edgeprune.core.store import RunFolder, TrialStore
from edgeprune.pipeline.backends import as_chosen
from edgeprune.pipeline.bounds import PARSERS, SEARCHES, read_bounds
from edgeprune.pipeline.config import RunConfig, to_plain
from edgeprune.pipeline.front import FrontResult
from edgeprune.pipeline.result import RunResult
from edgeprune.pipeline.seek import Wanted
from edgeprune.pipeline.settings import EPISODES
from edgeprune.pipeline.stored import finished, finished_front, stored_config
from edgeprune.pipeline.tuned import check_tuned

#: What may be raised, beside bounds that are added.
RAISABLE = ("finetune_epochs", "finalists")


def known_folder(config: RunConfig) -> RunFolder:
    """The folder of the run that is to be resumed. Raises UsageError."""
    if config.name is None:
        raise UsageError("nothing to resume: no name given", "type --resume NAME")
    return RunFolder.existing(config.runs_dir, config.name)


def finished_already(folder: RunFolder, config: RunConfig) -> RunResult | FrontResult | None:
    """What came of a run that got to its end, where no more is asked of it: there is nothing to continue.

    Raises UsageError where it was made with other settings, or has more than is asked; StorageError where what a
    resumed run will read is damaged.
    """
    if more_is_asked(folder, config):
        return None
    if config.front is not None:
        front = finished_front(folder)
        return None if front is None else FrontResult(folder.path, front)
    result = finished(folder)
    return None if result is None else RunResult(folder.path, result)


def more_is_asked(folder: RunFolder, config: RunConfig) -> bool:
    """Whether more is asked of a run than it was begun with: epochs of fine-tuning, finalists, or a bound.

    Raises UsageError where it was made with other settings than these, or has more than is asked.
    """
    earlier, tuned = as_chosen(folder, stored_config(folder)), check_tuned(folder)
    TrialStore.check(folder / "trials.sqlite")
    more = False
    for field in fields(RunConfig):
        # The folder may have been made under a worked-out name, or moved.
        if field.name in ("name", "runs_dir"):
            continue
        old, new = getattr(earlier, field.name), getattr(config, field.name)
        if field.name in PARSERS and old is not None and new is not None:
            more |= _bounds_added(config, field.name, old, new)
            continue
        if field.name == "finetune_epochs" and earlier.finetune_minutes is None:
            # Where they were worked out, what was tuned tells how many.
            old = tuned if old is None and new is not None else old
            if old is None and new is not None:
                more = True
                continue
        if old == new:
            continue
        option = "--" + field.name.replace("_", "-")
        if field.name not in RAISABLE or new is None:
            raise UsageError(
                f"run '{config.name}' was made with {option} {old}, not {new}",
                "start a new run, or leave the option out",
            )
        if new < old:
            raise UsageError(
                f"run '{config.name}' has {option} {old:g}, and {new} are fewer: what was done is not undone",
                f"type {option} {old:g} or more, or start a new run",
            )
        if field.name == "finalists" and earlier.finetune_minutes is not None:
            raise UsageError(
                f"run '{config.name}' has --finetune-minutes, which its {old} finalists have shared",
                "leave --finalists out, or start a new run",
            )
        more = True
    return more


def _bounds_added(config: RunConfig, field: str, old: Any, new: Any) -> bool:
    """Whether the option holds a bound that it did not hold before. Raises UsageError where one is missing."""
    before, now = ({each.name: each.text for each in read_bounds(field, given)} for given in (old, new))
    gone = [text for name, text in before.items() if name not in now]
    added = [text for name, text in now.items() if name not in before]
    if gone:
        option, typed = "--" + field.replace("_", "-"), ",".join([*before.values(), *added])
        raise UsageError(
            f"run '{config.name}' was made with {option} {old}, and {new} leaves out {', '.join(gone)}",
            f"type {option} {typed} to add to it, or start a new run",
        )
    return bool(added)


def searches(folder: RunFolder, config: RunConfig, earlier: RunConfig | None) -> list[Wanted]:
    """The searches of a run, in their order: one; of a front one a bound, the loosest first, which share the episodes.

    A resumed run searches as it did, and for each bound that was added after that, in as many episodes as the others
    had; one that was begun with a single bound had all of them. `earlier` are its settings until now. What is decided
    is kept in the folder.
    """
    if config.front is None:
        return [Wanted(config.budget(), config.episodes or EPISODES)]
    singles = config.singles()
    if (folder / SEARCHES).exists():
        known: Mapping[str, int] = folder.read_json(SEARCHES, dict[str, Annotated[int, Field(ge=1)]])
    else:
        begun = config if earlier is None else earlier
        names = [each.name for each in read_bounds(config.front, getattr(begun, config.front))]
        each, more = divmod(config.episodes or EPISODES, len(names))
        known = {name: max(1, each + (place < more)) for place, name in enumerate(names)}
    most = max(known.values())
    shares = {**known, **{name: most for name in singles if name not in known}}
    folder.write_json(SEARCHES, shares)
    return [
        Wanted(singles[name].budget(), share, name, finished_bound(folder, name, singles[name]) is not None)
        for name, share in shares.items()
        if name in singles
    ]


def finished_bound(folder: RunFolder, name: str, single: RunConfig) -> dict[str, Any] | None:
    """The result of a bound of a front that was finished with these settings; None where there is none."""
    result = finished(RunFolder(folder / name))
    return result if result is not None and result["config"] == to_plain(single) else None
