"""Run folders, made up: finished ones, a front, and one at any point before its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fakes.made_results import made_front, made_result

from edgeprune.core.design import PruningPlan
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.plain import to_json
from edgeprune.core.store import RunFolder, TrialStore
from edgeprune.core.trial import Candidate, Trial
from edgeprune.pipeline.config import RunConfig, to_plain
from edgeprune.pipeline.records.result import EndedEarly, FrontHeader, Header


def made_trial(index: int, latency: float | None, score: float = 0.9, width: int = 2) -> Trial:
    """A trial of `latency` seconds, or of a measurement that failed, beside an unpruned network of 10 µs."""
    cost: Measurement | Failure = Failure("crashed", "the probe ended", True)
    if latency is not None:
        cost = Measurement(
            "s", (latency, latency), (), (1e-5, 1e-5), 10, 40, "mallinfo2", "a", "b", "d", {}, MeasureSettings("litert")
        )
    plan = PruningPlan({"fc1": tuple(range(width)), "conv.2": (0,)})
    return Trial(index, Candidate(plan, score, 2.5, cost, 123), score, 0.2, (0.1, 0.2), (0.2, 0.3))


#: Three trials; the second could not be measured.
TRIALS = (made_trial(0, 8e-6), made_trial(1, None, 0.95), made_trial(2, 5e-6, 0.8, 1))


def add_trials(folder: Path, *trials: Trial) -> None:
    """Append trials to a run's."""
    store = TrialStore(folder / "trials.sqlite")
    for trial in trials:
        store.add(trial)
    store.remember("k", 0.5, 3.0)
    store.close()


def begun(runs: Path, name: str, stage: str = "search", **config: Any) -> Path:
    """A run whose process is gone."""
    folder = runs / name
    folder.mkdir(parents=True)
    settings = to_plain(RunConfig(**config))
    (folder / ".lock").touch()
    (folder / "config.json").write_text(json.dumps(settings))
    RunFolder(folder).write_json("result.json", to_json(Header(status="running", stage=stage, config=settings)))
    (folder / "run.log").write_text("      0.0 s  run folder\n      1.0 s  == search\n")
    return folder


def ended_early(runs: Path, name: str, status: Any, why: str) -> Path:
    """A run without a result."""
    folder = begun(runs, name)
    ended = EndedEarly(status=status, stage="prepare", config=to_plain(RunConfig()), error=why)
    RunFolder(folder).write_json("result.json", to_json(ended))
    return folder


def finished_run(runs: Path, name: str, **changes: Any) -> Path:
    """A run with a result, and `TRIALS`."""
    folder = begun(runs, name)
    RunFolder(folder).write_json("result.json", made_result() | changes)
    add_trials(folder, *TRIALS)
    return folder


def finished_front(runs: Path, name: str) -> Path:
    """A front of 0.6x, which is met, and 0.1x, which is impossible."""
    folder = begun(runs, name, max_latency="0.6x,0.1x")
    RunFolder(folder).write_json("front.json", made_front())
    config = to_plain(RunConfig(max_latency="0.6x,0.1x"))
    header = FrontHeader(status="budget-not-met", stage="done", config=config, settled={}, front="front.json")
    RunFolder(folder).write_json("result.json", to_json(header))
    (folder / "0.6x").mkdir()
    RunFolder(folder / "0.6x").write_json("result.json", made_result())
    add_trials(folder, *TRIALS)
    return folder
