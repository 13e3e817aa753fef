"""All trials of a run for other programs: a table of comma-separated values, or a study of Optuna's. No torch."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from edgeprune.core.errors import StorageError, UsageError
from edgeprune.core.files import storing, write_bytes
from edgeprune.core.measurement import Failure, Measurement
from edgeprune.core.store import TrialStore
from edgeprune.core.text import first_line
from edgeprune.core.trial import Trial

#: What the table has of every trial (documented in docs/interfaces.md); a column `width.GROUP` for each group follows.
COLUMNS = (
    "trial",
    "precision",
    "score",
    "ncr",
    "latency_share",
    "latency",
    "unit",
    "memory_share",
    "memory",
    "bytes",
    "reward",
    "seconds",
    "failure",
    "message",
)
_ELSEWHERE = "choose another file"


def read_trials(folder: Path) -> list[Trial]:
    """The trials of a run, finished or not, without writing there.

    Raises UsageError where it has none yet, or they are of another schema; StorageError where they are damaged.
    """
    path = folder / "trials.sqlite"
    if not path.is_file():
        raise UsageError(f"run '{folder.name}' has no trials yet", "wait for its search to begin")
    with closing(TrialStore(path, read_only=True)) as store:
        found = store.trials()
    if not found:
        raise UsageError(f"run '{folder.name}' has no trials yet", "wait for its search to begin")
    return found


def write_csv(trials: list[Trial], path: Path) -> None:
    """Write one row a trial, in order. Raises StorageError."""
    groups = _groups(trials)
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow((*COLUMNS, *(f"width.{name}" for name in groups)))
    for trial in trials:
        candidate, cost = trial.candidate, trial.candidate.cost
        measured = cost if isinstance(cost, Measurement) else None
        failed = cost if isinstance(cost, Failure) else None
        widths = candidate.plan.widths
        rows.writerow(
            (
                trial.index,
                candidate.precision,
                candidate.accuracy,
                candidate.ncr,
                *((measured.quotient, measured.median, measured.unit) if measured else ("", "", "")),
                *((measured.memory_quotient, measured.peak_bytes) if measured else ("", "")),
                candidate.bytes,
                trial.reward,
                trial.seconds,
                *((failed.kind, failed.message) if failed else ("", "")),
                *(widths.get(name, "") for name in groups),
            )
        )
    with storing(path, elsewhere=_ELSEWHERE):
        write_bytes(path, text.getvalue().encode())


def write_study(trials: list[Trial], path: Path, name: str, channels: Mapping[str, int]) -> None:
    """Write an Optuna study `name` into a new SQLite file, which Optuna's dashboard opens.

    A trial's parameters are the widths of the groups (of `channels`, as far as they are known); its values are the
    score, which is maximised, and the latency as a share of the unpruned network's, which is minimised. A trial that
    could not be measured is a failed one, and says why (`failure`).

    Raises UsageError where Optuna is not installed or the file exists, StorageError where it cannot be written.
    """
    try:
        import optuna  # noqa: PLC0415 - it is only needed here, and not installed for most
    except ImportError as error:
        raise UsageError("--optuna needs the package optuna, which is not here", "pip install optuna") from error
    if path.exists():
        raise UsageError(f"{path} exists, and a study is only written into a new file", _ELSEWHERE)
    if not path.absolute().parent.is_dir():
        raise UsageError(f"the folder of {path} does not exist", _ELSEWHERE)
    found = {group: [t.candidate.plan.widths.get(group, 1) for t in trials] for group in _groups(trials)}
    ranges = {
        group: optuna.distributions.IntDistribution(min(1, *widths), max(*widths, channels.get(group, 1)))
        for group, widths in found.items()
    }
    said, optuna_says = optuna.logging.get_verbosity(), optuna.logging.set_verbosity
    optuna_says(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study(
                storage=f"sqlite:///{path.absolute()}", study_name=name, directions=["maximize", "minimize"]
            )
            study.set_metric_names(["score", "latency_share"])
            study.add_trials([_frozen(optuna, trial, ranges) for trial in trials])
    except Exception as error:
        path.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {first_line(error)}", _ELSEWHERE) from error
    finally:
        optuna_says(said)


def _frozen(optuna: Any, trial: Trial, ranges: Mapping[str, Any]) -> Any:
    candidate, cost = trial.candidate, trial.candidate.cost
    widths = {group: width for group, width in candidate.plan.widths.items() if group in ranges}
    told: dict[str, Any] = {
        "trial": trial.index,
        "precision": candidate.precision,
        "ncr": candidate.ncr,
        "bytes": candidate.bytes,
        "reward": trial.reward,
        "seconds": trial.seconds,
    }
    measured = isinstance(cost, Measurement)
    if isinstance(cost, Measurement):
        told |= {"latency": cost.median, "unit": cost.unit, "memory_share": cost.memory_quotient}
    elif cost is not None:
        told |= {"score": candidate.accuracy, "failure": f"{cost.kind}: {cost.message}"}
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE if measured else optuna.trial.TrialState.FAIL,
        values=[candidate.accuracy, cost.quotient] if isinstance(cost, Measurement) else None,
        params=widths,
        distributions={group: ranges[group] for group in widths},
        user_attrs=told,
    )


def _groups(trials: list[Trial]) -> list[str]:
    """The groups of all plans, in the order in which they come."""
    return list(dict.fromkeys(group for trial in trials for group in trial.candidate.plan.kept))
