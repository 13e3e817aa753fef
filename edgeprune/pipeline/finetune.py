"""Stage three: the few best trials are fine-tuned and compared, the best of them for the whole schedule."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from edgeprune.core.clock import Deadline
from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import UsageError
from edgeprune.core.progress import Progress
from edgeprune.core.runtimes import Precision
from edgeprune.core.trial import Trial
from edgeprune.pipeline.choose import choose_finalists
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.search import Searched
from edgeprune.pipeline.steps import epochs_of, share_of, shares, way
from edgeprune.pipeline.tuned import Kept, Role, TunedNetworks
from edgeprune.pruning.structure import Criterion, Structure
from edgeprune.pruning.widening import widen
from edgeprune.training.distillation import Distillation
from edgeprune.training.fit import Fit, train
from edgeprune.training.narrow import narrow
from edgeprune.training.problem import Problem
from edgeprune.training.regime import Regime

#: Ranks the channels of a network of the given structure.
MakeCriterion = Callable[[nn.Module, Structure], Criterion]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuner:
    """What tunes a pruned network: from what it learns, how, and beside whose answers."""

    problem: Problem
    regime: Regime
    #: The unpruned network; whoever is tuned with the same one shares the answers it keeps.
    teacher: Distillation
    progress: Progress
    clock: Callable[[], float] = time.monotonic

    def __call__(self, network: nn.Module, title: str, *, begun: float = 0.0) -> Fit:
        """Tune a copy; `begun`: the epochs it was tuned for before."""
        return train(
            network,
            self.problem,
            self.regime,
            progress=self.progress,
            title=title,
            distillation=self.teacher,
            begun=begun,
            clock=self.clock,
        )

    def by(self, regime: Regime) -> Tuner:
        """The same by another regime."""
        return replace(self, regime=regime)


@dataclass(frozen=True, slots=True)
class Tuned:
    """The network that ships, before and after fine-tuning, what it keeps, and the trial it comes from.

    `plan` is the trial's where it is reached in one step; ranked anew on the way, other channels of the same widths.
    """

    trial: Trial
    plan: PruningPlan
    before: nn.Module
    fit: Fit


def fine_tune(
    prepared: Prepared,
    searched: Searched,
    make_criterion: MakeCriterion,
    networks: TunedNetworks,
    tuner: Tuner,
    shipped_quality: Callable[[nn.Module, Precision], float] | None = None,
) -> Tuned:
    """Distil the best of the trials from the unpruned network.

    The finalists (see `choose_finalists`) are pruned in one step and tuned for a part of the epochs each, as the
    schedule says; the best of them on validation goes on for the rest. Where it is not pruned in one step, since there
    are several iterations or its inputs go last, it begins again, and gets all epochs. With minutes, finalists and
    winner share them in the same proportion.

    What `networks` has is not tuned again: finalists stand as they are, and a winner that was tuned for fewer epochs
    than are asked for now goes on for those that are missing. `make_criterion` ranks the partly pruned networks.
    `tuner` is that of the run (see `tuner_of`): all that it tunes see the same images. `shipped_quality` tells what a
    network's file of another precision than fp32 is worth on validation, for finalists that are of one.
    """
    schedule, shown, progress = prepared.schedule, prepared.yardstick.show, tuner.progress
    reference, chance = searched.possible.reference, searched.chance
    finalists, rescue = choose_finalists(
        searched.trials, schedule.finalists, searched.budget, reference, chance, searched.images
    )
    if rescue is not None:
        progress.say(
            f"no trial above chance meets every bound; trial {rescue.index} does but guesses before it is tuned "
            f"({shown(rescue.candidate.accuracy)}), so it is tuned as well"
        )

    def rank(network: nn.Module, structure: Structure) -> Criterion:
        return searched.criterion if network is prepared.network else make_criterion(network, structure)

    stage = _Stage(prepared, rank, networks, tuner)
    best, begun = finalists[0], None
    if len(finalists) > 1 and tuner.regime.epochs not in (0, 1):
        goes_on = all(stage.in_one_step(trial) for trial in finalists)
        short, whole = shares(tuner.regime, schedule.finalist_share, len(finalists), goes_on=goes_on)
        tuned = stage.tune_finalists(finalists, short)
        worth = [each.fit.accuracy for each in tuned]
        for index, (trial, each) in enumerate(zip(finalists, tuned, strict=True)):
            precision = trial.candidate.precision
            if shipped_quality is not None and precision != "fp32":
                worth[index] = shipped_quality(each.fit.network, precision)
                progress.say(f"trial {trial.index}: validation {shown(worth[index])} as a file of {precision}")
        winner = max(range(len(finalists)), key=lambda index: (worth[index], -index))
        # It meets the bounds, which the other one does not.
        if rescue is not None and worth[-1] > chance:
            winner = len(finalists) - 1
        best, begun = finalists[winner], tuned[winner] if goes_on else None
        stage = replace(stage, tuner=tuner.by(whole))
    kept = stage.finish(best, begun)
    progress.say(f"fine-tuned for {round(kept.fit.epochs, 2):g} epochs: validation {shown(kept.fit.accuracy)}")
    before = narrow(searched.criterion, prepared.structure, best.candidate.plan, prepared.train, place=prepared.place)
    return Tuned(best, kept.plan, before, kept.fit)


def tuner_of(prepared: Prepared, progress: Progress) -> Tuner:
    """What tunes the networks of a run, for all epochs or minutes there are.

    One for all of them: they see the same images, and share the answers that the teacher keeps.
    """
    schedule = prepared.schedule
    return Tuner(
        problem=prepared.problem,
        regime=schedule.finetuning(prepared.settled.seed, prepared.place, prepared.taken),
        teacher=Distillation(
            prepared.network, schedule.temperature, schedule.distillation, schedule.rounds, prepared.task
        ),
        progress=progress,
    )


@dataclass(frozen=True, slots=True)
class _Stage:
    """What tunes trials, and keeps what came of them."""

    prepared: Prepared
    rank: MakeCriterion
    networks: TunedNetworks
    tuner: Tuner

    def in_one_step(self, trial: Trial) -> bool:
        """Whether a trial is pruned in one step."""
        iterations = self.prepared.schedule.iterations
        return len(way(self.prepared.structure, trial.candidate.plan.widths, iterations, self.tuner.regime)) == 1

    def tune_finalists(self, finalists: Sequence[Trial], short: Regime) -> list[Kept]:
        """Each of them, pruned in one step and tuned by the regime `short`; or as it was tuned before."""
        # Finalists are compared after the same amount, whatever a resumed run asks for now.
        short = short.of(self.networks.asked("finalist") or short.amount)
        shown, tuned = self.prepared.yardstick.show, []
        for number, trial in enumerate(finalists, start=1):
            title = f"finalist {number} of {len(finalists)}"
            known = self.networks.get(trial.candidate.plan, "finalist")
            tuned.append(known or self._tune(trial, "finalist", self.tuner.by(short), 1, title))
            fit = tuned[-1].fit
            self.tuner.progress.say(
                f"trial {trial.index}: validation {shown(trial.candidate.accuracy)} -> "
                f"{shown(fit.accuracy)} in {round(fit.epochs, 2):g} epochs"
            )
        return tuned

    def finish(self, best: Trial, begun: Kept | None) -> Kept:
        """The winner, tuned for all that is asked for; it goes on from what it was tuned before, which has `begun`."""
        tuner, networks = self.tuner, self.networks
        earlier = networks.get(best.candidate.plan, "winner")
        if earlier is not None and (begun is None or earlier.asked > begun.asked):
            begun = earlier
        asked = tuner.regime.amount
        if begun is None:
            return self._tune(best, "winner", tuner, self.prepared.schedule.iterations, "fine-tuning")
        if begun.asked >= asked:
            return begun
        kept = Kept(begun.plan, go_on(begun.fit, tuner.by(tuner.regime.of(asked - begun.asked))), asked)
        networks.put(best.candidate.plan, "winner", kept)
        return kept

    def _tune(self, trial: Trial, role: Role, tuner: Tuner, iterations: int, title: str) -> Kept:
        prepared, widths = self.prepared, trial.candidate.plan.widths
        _, fit, plan = prune_and_tune(
            prepared.network, prepared.structure, widths, self.rank, tuner, iterations=iterations, title=title
        )
        kept = Kept(plan, fit, tuner.regime.amount)
        self.networks.put(trial.candidate.plan, role, kept)
        return kept


def go_on(fit: Fit, tuner: Tuner) -> Fit:
    """Tune a network that was tuned before, by the tuner's regime; all of its history in one.

    The one-cycle schedule begins anew, and images come in another order.
    """
    more = tuner(fit.network, "fine-tuning", begun=fit.epochs)
    return replace(more, history=fit.history + more.history, epochs=fit.epochs + more.epochs)


def prune_and_tune(
    network: nn.Module,
    structure: Structure,
    widths: Mapping[str, int],
    make_criterion: MakeCriterion,
    tuner: Tuner,
    *,
    iterations: int = 1,
    title: str = "fine-tuning",
) -> tuple[nn.Module, Fit, PruningPlan]:
    """Prune `network` to `widths` and tune it, in `iterations` steps.

    Widths shrink by the same factor in each step (rounded to allowed ones); after each the network is tuned, and the
    next criterion is made on what came of it. Input features go in one more step at the end: which of them are worth
    keeping is asked of the few neurons that will read them (docs/decisions/0009-inputs-last.md). The last step gets
    three quarters of the epochs or minutes, the others share the rest. With as many epochs as iterations there is none
    left for that step, and inputs go with the others. After surgery batch-norm statistics are computed anew.

    Returns the network pruned in one step and not tuned; the tuned one, with the history of all steps; and what it
    keeps, in the channels of `network`: `cut(network, structure.shape, plan)` has the tuned one's shape.

    Raises UsageError where there is no step or there are fewer epochs than steps, SurgeryError where a pruned network
    is not right.
    """
    problem, regime = tuner.problem, tuner.regime
    most = max(1, iterations if regime.epochs is None else regime.epochs)
    if not 1 <= iterations <= most:
        raise UsageError(
            f"{iterations} iterations are not between 1 and {most}, the epochs there are",
            "change --iterations or raise --finetune-epochs",
        )
    deadline = None if regime.minutes is None else Deadline.after(60 * regime.minutes, tuner.clock)

    def narrowed(criterion: Criterion, plan: PruningPlan) -> nn.Module:
        example = problem.validation.inputs(slice(0, 16))
        return narrow(criterion, structure, plan, problem.train, check=example, place=regime.place)

    criterion = make_criterion(network, structure)
    before = narrowed(criterion, criterion.plan(dict(widths)))
    history: tuple[float, ...] = ()
    epochs = 0.0
    steps = way(structure, widths, iterations, regime)
    for step, narrower in enumerate(steps, start=1):
        plan = criterion.plan(narrower)
        pruned = before if len(steps) == 1 else narrowed(criterion, plan)
        part = _part(regime, deadline, step, len(steps))
        fit = tuner.by(part)(pruned, title if len(steps) == 1 else f"{title}, step {step} of {len(steps)}")
        history += fit.history
        epochs += fit.epochs
        if step < len(steps):
            criterion = make_criterion(widen(network, structure, plan, fit.network), structure)
    return before, replace(fit, history=history, epochs=epochs), plan


def _part(regime: Regime, deadline: Deadline | None, step: int, steps: int) -> Regime:
    """How one of the steps is tuned."""
    if regime.epochs is not None:
        return regime.of(epochs_of(regime.epochs, step, steps))
    assert deadline is not None
    return regime.of(deadline.left() / 60 * share_of(step, steps))
