"""Stage three: the few best trials are fine-tuned and compared, the best of them for the whole schedule."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from edgeprune.core.progress import Progress
from edgeprune.core.types import Budget, Trial
from edgeprune.pipeline.choose import Reference, excess
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pruning.structure import Criterion
from edgeprune.pruning.surgery import prune
from edgeprune.training.fit import Fit, train


@dataclass(frozen=True, slots=True)
class Tuned:
    """The network that ships, before and after fine-tuning, and the trial it comes from."""

    trial: Trial
    before: nn.Module
    fit: Fit
    epochs: int


def fine_tune(
    config: RunConfig,
    prepared: Prepared,
    criterion: Criterion,
    trials: list[Trial],
    budget: Budget,
    reference: Reference,
    progress: Progress,
) -> Tuned:
    """Distil the best of `trials` (best first) from the unpruned network.

    The first `config.finalists` that meet the bounds get a fifth of the epochs each; the best on validation then gets
    them all, from its reconstructed weights. Where no trial meets the bounds only the nearest is tuned.
    """
    epochs = prepared.schedule.finetune_epochs
    finalists = [trial for trial in trials[: config.finalists] if excess(trial, budget, reference) == 0.0] or trials[:1]

    def tune(trial: Trial, count: int, title: str) -> tuple[nn.Module, Fit]:
        inputs = prepared.validation.inputs(slice(0, 16))
        pruned = prune(criterion, prepared.structure, trial.plan, check=True, inputs=inputs)
        fit = train(
            pruned,
            prepared.train,
            prepared.validation,
            epochs=count,
            learning_rate=prepared.schedule.learning_rate,
            batch_size=prepared.schedule.batch_size,
            seed=config.seed,
            progress=progress,
            title=title,
            teacher=prepared.network,
        )
        return pruned, fit

    best = finalists[0]
    if len(finalists) > 1 and epochs > 1:
        short = max(1, epochs // 5)
        scores = []
        for number, trial in enumerate(finalists, start=1):
            _, fit = tune(trial, short, f"finalist {number} of {len(finalists)}")
            scores.append(fit.accuracy)
            progress.say(
                f"trial {trial.index}: validation {100 * trial.accuracy:.2f} % -> "
                f"{100 * fit.accuracy:.2f} % in {short} epochs"
            )
        best = finalists[max(range(len(finalists)), key=lambda index: (scores[index], -index))]
    before, fit = tune(best, epochs, "fine-tuning")
    return Tuned(best, before, fit, epochs)
