"""What the files of a run say while it goes on, looked at again and again; nothing is written or locked. No torch."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from edgeprune.core.errors import BudgetError, EdgepruneError
from edgeprune.core.measurement import Measurement
from edgeprune.core.runtimes import RUNTIMES
from edgeprune.core.schema import STATUS_SCHEMA, read_record
from edgeprune.core.store import BACKENDS, STATUS, RunFolder, TrialStore
from edgeprune.core.trial import Trial
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.records.listed import Listed
from edgeprune.pipeline.records.search import Reference
from edgeprune.pipeline.records.status import RunStatus
from edgeprune.pipeline.runs import stand
from edgeprune.pipeline.stored import stored_config

#: The stages of a run, in order; the first only where it chooses a runtime or threads.
STAGES = ("choose", "prepare", "search", "fine-tune", "export", "validate")


@dataclass(frozen=True, slots=True)
class Best:
    """The best trial so far by score, of those that keep what is asked for."""

    #: The bounds as they were written; "" where none was, and the reward alone decides.
    asked: str
    #: None where no trial keeps them.
    trial: Trial | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at a run."""

    run: Listed
    #: What status.json says; None where it cannot be read.
    status: RunStatus | None
    #: The stages that it goes through, in order.
    stages: tuple[str, ...]
    #: Trials so far, and how many of them could not be measured.
    trials: int
    failed: int
    #: One entry; of a front one a bound; empty before the first trial.
    best: tuple[Best, ...]

    @property
    def left_s(self) -> float | None:
        """Seconds that the step it is at will take, at its pace until now; None where that cannot be told."""
        step = None if self.status is None else self.status.step
        if step is None or step.total is None or step.done <= 0:
            return None
        return max(0.0, step.total - step.done) * step.seconds / step.done

    @property
    def exit_code(self) -> int:
        """What `edgeprune run` exited with; of a run that did not say so, what its state stands for."""
        if self.status is not None and self.status.exit_code is not None and self.run.state != "killed":
            return self.status.exit_code
        if self.run.state in ("budget-not-met", "worse", "impossible"):
            return BudgetError.exit_code
        return {"done": 0, "interrupted": 130}.get(self.run.state, EdgepruneError.exit_code)


class Follower:
    """Looks at one run; what was read of its trials is not read again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._config: RunConfig | None = None
        self._store: TrialStore | None = None
        self._trials: list[Trial] = []

    def look(self) -> Look:
        """What the files say now. What is just being written, or is damaged, is looked at again the next time."""
        run = stand(self.folder)
        status = None
        with contextlib.suppress(EdgepruneError):
            status = read_record(RunFolder(self.folder).source(STATUS), RunStatus, STATUS_SCHEMA, "")
        with contextlib.suppress(EdgepruneError):
            self._read_trials()
        failed = sum(not isinstance(trial.candidate.cost, Measurement) for trial in self._trials)
        chooses = run.stage == STAGES[0] or (self.folder / BACKENDS).exists()
        return Look(
            run=run,
            status=status,
            stages=STAGES if chooses else STAGES[1:],
            trials=len(self._trials),
            failed=failed,
            best=self._best(),
        )

    def close(self) -> None:
        """Close the file of trials."""
        if self._store is not None:
            self._store.close()

    def _read_trials(self) -> None:
        path = self.folder / "trials.sqlite"
        if self._store is None:
            if not path.is_file():
                return
            self._store = TrialStore(path, read_only=True)
        if self._store.count() < len(self._trials):
            # Its continuation needed fewer than the session before it had made.
            self._trials.clear()
        first = self._trials[-1].index + 1 if self._trials else 0
        self._trials += self._store.trials(first)

    def _best(self) -> tuple[Best, ...]:
        if not self._trials:
            return ()
        try:
            if self._config is None:
                self._config = stored_config(RunFolder(self.folder))
            config = self._config
            if not config.bounded:
                return (Best("", max(self._trials, key=lambda trial: trial.reward)),)
            return tuple(self._within(each) for each in config.singles().values() or (config,))
        except EdgepruneError:
            return ()

    def _within(self, config: RunConfig) -> Best:
        # It takes a second to load, which the first look should not wait for.
        from edgeprune.pipeline.choose import excess, rank  # noqa: PLC0415

        budget, reference = config.budget(), self._reference(config)
        options = ("max_latency", "max_memory", "max_bytes", "expect_ncr")
        asked = ", ".join(
            f"--{name.replace('_', '-')} {value}" for name in options if (value := getattr(config, name)) is not None
        )
        if reference is None:
            return Best(asked, None)
        first = rank(self._trials, budget, reference)[0]
        return Best(asked, first if excess(first, budget, reference) == 0.0 else None)

    def _reference(self, config: RunConfig) -> Reference | None:
        """The unpruned network, as it was measured beside the newest trial; None where none was."""
        costs = [trial.candidate.cost for trial in reversed(self._trials)]
        cost = next((cost for cost in costs if isinstance(cost, Measurement)), None)
        file = self.folder / f"baseline.{RUNTIMES[config.measured.runtime].format.name}"
        if cost is None or not file.is_file():
            return None
        found = Reference(cost.against_median, cost.against_peak_bytes, file.stat().st_size)
        # Shares of nothing cannot be told: the file is only just being written, or a heap was not read.
        return found if min(found.latency, found.memory, found.bytes) > 0 else None
