"""What a metric is, and the yardstick that one is on a set of targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.errors import UsageError
from edgeprune.tasks.classes import WORTH
from edgeprune.tasks.names import MetricName

Answers = NDArray[np.float32]
Targets = NDArray[Any]
Merits = NDArray[np.float64]

#: Parts of the examples, each left out once, for the interval of a figure that has no formula.
PARTS = 20
#: What stands for an answer that is no number.
NONSENSE = 1e18
#: The worst quality that is told from others: of an error twice that of the best constant answer.
WORST = -1.0


class Metric(ABC):
    """One way to judge answers.

    Its `value` is in its own terms; what is maximised is the `quality`: 1 for perfect answers, and for a metric of
    errors 0 for the best answer that is always the same (so of squared errors it is R²). A `share` is told in percent,
    and what is lost of it in points; of another metric in percent of itself.
    """

    name: ClassVar[MetricName]
    title: ClassVar[str]
    share: ClassVar[bool] = True
    #: Whether each answer names a class that is right or wrong, and nothing else counts.
    of_classes: ClassVar[bool] = False
    #: What a figure that is no share is told in.
    told_in: ClassVar[str] = ""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    @abstractmethod
    def value(self, answers: Answers, targets: Targets) -> float:
        """The figure, of all answers together."""

    @abstractmethod
    def merits(self, answers: Answers, targets: Targets) -> Merits:
        """How good each answer is (N,), more is better: what two networks are compared by, example by example."""

    @abstractmethod
    def constant(self, targets: Targets) -> float:
        """What the best answer that is always the same gets."""

    def quality(self, value: float, targets: Targets) -> float:
        """What the search maximises, of a `value` on these targets."""
        return max(WORST, value if self.share else 1.0 - value / max(self.constant(targets), 1e-12))

    def chance(self, targets: Targets, answers: Answers | None = None) -> float:
        """The quality up to which answers are not told from guessing."""
        del answers
        least = self.quality(self.constant(targets), targets)
        return least + WORTH * (1 - least)

    def images(self, targets: Targets) -> float:
        """How many independent right or wrong answers a quality on these targets is worth (see `telling_images`)."""
        return float(len(targets))

    def interval(self, answers: Answers, targets: Targets) -> tuple[float, float]:
        """Where the true value lies with 95 % confidence, by the jackknife: each part of the examples is left out once.

        The standard error is sqrt((g - 1) / g sum (v_i - mean v)^2) for g parts (Tukey 1958).
        """
        parts = min(PARTS, len(targets))
        part = np.random.default_rng(0).permutation(len(targets)) % parts
        left = np.array([self.value(answers[part != each], targets[part != each]) for each in range(parts)])
        error = float(np.sqrt((parts - 1) / parts * ((left - left.mean()) ** 2).sum()))
        value = self.value(answers, targets)
        low, high = value - 1.96 * error, value + 1.96 * error
        return (low, min(high, 1.0)) if self.share else (max(low, 0.0), high)

    def show(self, value: float) -> str:
        """The figure for people."""
        return f"{100 * value:.2f} %" if self.share else f"{value:.4g}"

    def lost(self, before: float, after: float) -> float:
        """What is lost from `before` to `after`: points of a share, else by how many percent the errors grew."""
        return 100 * (before - after) if self.share else 100 * (after - before) / max(abs(before), 1e-12)

    @property
    def unit(self) -> Literal["points", "%"]:
        """Of what is `lost`."""
        return "points" if self.share else "%"

    @property
    def usual_drop(self) -> float:
        """What may be lost where nobody said, in that unit: a network that is fast and wrong is of no use."""
        return 1.0 if self.share else 5.0

    def check_drop(self, relative: bool) -> None:
        """Raises UsageError where --max-drop is `relative` for a share, or in points for an error."""
        if relative == self.share:
            given, told, write = ("percent", "points", "1") if relative else ("points", "percent", "5%")
            raise UsageError(
                f"--max-drop is in {given}, and what is lost of {self.title} is told in {told}",
                f"write it as in --max-drop {write}",
            )


@dataclass(frozen=True, slots=True)
class Yardstick:
    """A metric on one set of targets: qualities back to its own terms, for people."""

    metric: Metric
    constant: float

    @classmethod
    def on(cls, metric: Metric, targets: Targets) -> Yardstick:
        """For these targets."""
        return cls(metric, metric.constant(targets))

    def value(self, quality: float) -> float:
        """What the metric says of answers of this quality."""
        return quality if self.metric.share else (1.0 - quality) * self.constant

    def show(self, quality: float) -> str:
        """The metric's figure, for people."""
        return self.metric.show(self.value(quality))
