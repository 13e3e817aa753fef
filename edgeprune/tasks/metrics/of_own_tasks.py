"""How the score of a task of the user's own is shown."""

from __future__ import annotations

from edgeprune.tasks.metrics.metric import Answers, Merits, Metric, Targets


class _Own(Metric):
    """The user's own: how it is shown. What it is only his task knows (`tasks.own`)."""

    def value(self, answers: Answers, targets: Targets) -> float:
        """Not known here."""
        raise NotImplementedError

    def merits(self, answers: Answers, targets: Targets) -> Merits:
        """Not known here."""
        raise NotImplementedError

    def constant(self, targets: Targets) -> float:
        """Not known here."""
        raise NotImplementedError


class Score(_Own):
    """What his task scores by, a share."""

    name, title = "score", "score"


class Error(_Own):
    """What his task scores by, where lower is better."""

    name, title, share = "error", "error", False
