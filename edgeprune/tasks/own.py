"""A task of the user's own: `--task FILE.py:FUNCTION`, whose function returns its loss and its score."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgeprune.core.errors import UsageError
from edgeprune.core.files import sha256_file
from edgeprune.core.joined import Joined
from edgeprune.core.userfile import call_user, load_function
from edgeprune.tasks.metrics import PARTS, Answers, Error, Merits, Metric, Score, Targets
from edgeprune.tasks.names import OwnTargets, TaskName
from edgeprune.tasks.task import SAME, Task

_HINT = "see docs/guide.md, A task of your own"


class OwnMetric(Metric):
    """The user's score: a share where more is better, which then lies between 0 and 1; else an error above 0."""

    def __init__(self, spec: str, score: Callable[[Any, Any], float], *, share: bool, chance: float | None) -> None:
        self._spec, self._score, self._chance = spec, score, chance
        shown = Score if share else Error
        # Of the other metrics these are the class's.
        self.name, self.title, self.share = shown.name, shown.title, share  # type: ignore[misc]
        self.outputs: Joined | None = None
        self.targets: Joined | None = None
        #: The shape of one answer, as one tensor.
        self.width: tuple[int, ...] = ()

    def value(self, answers: Answers, targets: Targets) -> float:
        """What the user's `score` says. Raises UsageError where it fails, or says what cannot be."""
        value = self._scored(np.nan_to_num(answers), targets)
        low, high = (0.0, 1.0) if self.share else (0.0, math.inf)
        if not (math.isfinite(value) and low <= value <= high + 1e-6):
            wanted = "between 0 and 1, where higher is better" if self.share else "of 0 or more, where lower is better"
            raise UsageError(f"--task {self._spec}: score gives {value:.6g}, expected a number {wanted}", _HINT)
        return value

    def _scored(self, answers: Answers, targets: Targets) -> float:
        given = answers if self.outputs is None else self.outputs.split(answers)
        wanted = targets if self.targets is None else self.targets.split(targets)
        return float(call_user(self._score, f"--task {self._spec}: score", given, wanted))

    def merits(self, answers: Answers, targets: Targets) -> Merits:
        """The score of each example by itself; of errors negative.

        Some scores say something of many examples only (an area under a curve): then what each of `PARTS` parts adds to
        the score of all, the jackknife's pseudo-values (Tukey 1958), stands in the row of its first example.
        """
        sign, count = 1 if self.share else -1, len(targets)
        try:
            return sign * np.array([self.value(answers[i : i + 1], targets[i : i + 1]) for i in range(count)])
        except UsageError:
            parts = min(PARTS, count)
            part, merits = np.arange(count) % parts, np.zeros(count)
            whole = self.value(answers, targets)
            for each in range(parts):
                without = self.value(answers[part != each], targets[part != each])
                merits[each] = sign * (parts * whole - (parts - 1) * without) * count / parts
            return merits

    def constant(self, targets: Targets) -> float:
        """What guessing gets, as the user says; else what answering 0 to everything gets."""
        if self._chance is not None:
            return self._chance
        value = self.value(np.zeros((len(targets), *self.width), np.float32), targets)
        if not self.share and value <= 0:
            raise UsageError(
                f"--task {self._spec}: answering 0 to everything gets a score of 0, the best there is",
                "say what guessing gets: a number `chance` of the task",
            )
        return value


@dataclass(frozen=True, slots=True, eq=False)
class OwnTask(Task):
    """What a function of the user's returned. Outputs and targets are handed to it as the network and he made them."""

    spec: str = ""
    owner: Any = None
    outputs: Joined | None = field(default=None)
    targets: Joined | None = field(default=None)
    name: ClassVar[TaskName] = "own"
    metrics: ClassVar[tuple[type[Metric], ...]] = ()

    @property
    def key(self) -> tuple[str, ...]:
        """What training hangs on: the file, as it is now."""
        return (self.name, self.spec, sha256_file(Path(self.spec.rpartition(":")[0]).expanduser()))

    def agreement(self, ours: Answers, theirs: Answers) -> float:
        """Within a hundredth of the standard deviation of that answer."""
        near = SAME * np.maximum(theirs.std(0, keepdims=True), 1e-12)
        return float(np.mean(np.abs(ours - theirs) <= near))

    def misfit(self, output: tuple[int, ...], target: tuple[int, ...], classes: int) -> str | None:
        """Nobody but the user knows."""
        del output, target, classes
        return None


def load_own(spec: str) -> Any:
    """What FILE.py:FUNCTION returns: an object with `loss`, `score` and `better`. Raises UsageError for another."""
    owner = call_user(load_function(spec, "task"), spec)
    for name in ("loss", "score"):
        if not callable(getattr(owner, name, None)):
            raise UsageError(f"--task {spec} returned {type(owner).__name__} without a function '{name}'", _HINT)
    if getattr(owner, "better", None) not in ("higher", "lower"):
        raise UsageError(f"--task {spec}: expected better to be 'higher' or 'lower'", _HINT)
    chance = getattr(owner, "chance", None)
    if chance is not None and not (isinstance(chance, int | float) and math.isfinite(chance) and chance >= 0):
        raise UsageError(f"--task {spec}: expected chance to be a number of 0 or more, got {chance!r:.40}", _HINT)
    return owner


def own_targets(spec: str, owner: Any) -> OwnTargets:
    """How the targets of such a task are read."""
    collate = getattr(owner, "collate", None)
    if collate is None:
        return OwnTargets(spec)
    return OwnTargets(spec, partial(call_user, collate, f"--task {spec}: collate"))


def make_own(spec: str, owner: Any, outputs: Joined | None, targets: Joined | None, answer: tuple[int, ...]) -> OwnTask:
    """The task, for a network that answers with `outputs` (None: one tensor, of which one answer has a shape)."""
    metric = OwnMetric(
        spec,
        owner.score,
        share=owner.better == "higher",
        chance=getattr(owner, "chance", None),
    )
    metric.outputs, metric.targets, metric.width = outputs, targets, answer
    return OwnTask(metric, spec, owner, outputs, targets)
