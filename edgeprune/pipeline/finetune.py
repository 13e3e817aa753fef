"""Stage three: the few best trials are fine-tuned and compared, the best of them for the whole schedule."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from edgeprune.core.clock import Deadline
from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import UsageError
from edgeprune.core.progress import Progress
from edgeprune.core.trial import Trial
from edgeprune.pipeline.choose import choose_finalists
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.search import Searched
from edgeprune.pipeline.tuned import Kept, Role, TunedNetworks
from edgeprune.pruning.structure import INPUTS, Criterion, Structure
from edgeprune.pruning.surgery import cut
from edgeprune.tasks.task import CLASSIFICATION, Task
from edgeprune.training.augmentation import Augmentation
from edgeprune.training.batches import Batches
from edgeprune.training.distillation import Distillation
from edgeprune.training.fit import FINETUNE_DECAY, Fit, Taken, train
from edgeprune.training.narrow import narrow
from edgeprune.training.place import PLAIN, Place

#: Ranks the channels of a network of the given structure.
MakeCriterion = Callable[[nn.Module, Structure], Criterion]

#: One part in so many of the epochs or minutes is for all steps before the last, in which what ships is tuned.
EARLY = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTune:
    """How a pruned network is tuned: for so many `epochs`, or for so many `minutes`; the rest as in `train`.

    `distillation` is the unpruned network's share in the loss, at `temperature`. Raises UsageError unless exactly one
    of `epochs` and `minutes` is given.
    """

    epochs: float | None = None
    minutes: float | None = None
    learning_rate: float = 2e-3
    batch_size: int = 128
    distillation: float = 0.5
    temperature: float = 1.0
    augmentation: Augmentation | None = None
    place: Place = PLAIN
    taken: Taken = "best"

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.minutes is None):
            raise UsageError("fine-tuning takes either epochs or minutes", "give exactly one of them")

    @property
    def amount(self) -> float:
        """Epochs or minutes, whichever is given."""
        return float(self.epochs or 0) if self.minutes is None else self.minutes

    def of(self, amount: float) -> FineTune:
        """The same for another amount of epochs, or minutes."""
        return replace(self, epochs=amount) if self.minutes is None else replace(self, minutes=amount)


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
    progress: Progress,
    teacher: Distillation | None = None,
) -> Tuned:
    """Distil the best of the trials from the unpruned network.

    The finalists (see `choose_finalists`) are pruned in one step and tuned for a part of the epochs each, as the
    schedule says; the best of them on validation goes on for the rest. Where it is not pruned in one step, since there
    are several iterations or its inputs go last, it begins again, and gets all epochs. With minutes, finalists and
    winner share them in the same proportion.

    What `networks` has is not tuned again: finalists stand as they are, and a winner that was tuned for fewer epochs
    than are asked for now goes on for those that are missing. `make_criterion` ranks the partly pruned networks. A
    `teacher` made before (see `teacher_of`) shares the answers it keeps.
    """
    schedule, settled, shown = prepared.schedule, prepared.settled, prepared.yardstick.show
    reference, chance = searched.possible.reference, searched.chance
    finalists, rescue = choose_finalists(
        searched.trials, schedule.finalists, searched.budget, reference, chance, searched.images
    )
    if rescue is not None:
        progress.say(
            f"no trial above chance meets every bound; trial {rescue.index} does but guesses before it is tuned "
            f"({shown(rescue.candidate.accuracy)}), so it is tuned as well"
        )
    settings = settings_of(prepared)
    # One for all: finalists see the same images, and it keeps what the unpruned network answers.
    teacher = teacher or teacher_of(prepared)

    def rank(network: nn.Module, structure: Structure) -> Criterion:
        return searched.criterion if network is prepared.network else make_criterion(network, structure)

    def tune(trial: Trial, role: Role, settings: FineTune, iterations: int, title: str) -> Kept:
        _, fit, plan = prune_and_tune(
            prepared.network,
            prepared.structure,
            trial.candidate.plan.widths,
            rank,
            train_set=prepared.train,
            validation=prepared.validation,
            settings=settings,
            iterations=iterations,
            seed=settled.seed,
            progress=progress,
            title=title,
            task=prepared.task,
            teacher=teacher,
        )
        kept = Kept(plan, fit, settings.amount)
        networks.put(trial.candidate.plan, role, kept)
        return kept

    best, begun = finalists[0], None
    if len(finalists) > 1 and settings.epochs not in (0, 1):
        goes_on = all(_in_one_step(prepared.structure, trial, schedule.iterations, settings) for trial in finalists)
        short, settings = _shares(settings, schedule.finalist_share, len(finalists), goes_on=goes_on)
        # Finalists are compared after the same amount, whatever a resumed run asks for now.
        short = short.of(networks.asked("finalist") or short.amount)
        tuned = []
        for number, trial in enumerate(finalists, start=1):
            title = f"finalist {number} of {len(finalists)}"
            tuned.append(networks.get(trial.candidate.plan, "finalist") or tune(trial, "finalist", short, 1, title))
            fit = tuned[-1].fit
            progress.say(
                f"trial {trial.index}: validation {shown(trial.candidate.accuracy)} -> "
                f"{shown(fit.accuracy)} in {round(fit.epochs, 2):g} epochs"
            )
        winner = max(range(len(finalists)), key=lambda index: (tuned[index].fit.accuracy, -index))
        # It meets the bounds, which the other one does not.
        if rescue is not None and tuned[-1].fit.accuracy > chance:
            winner = len(finalists) - 1
        best, begun = finalists[winner], tuned[winner] if goes_on else None
    earlier = networks.get(best.candidate.plan, "winner")
    if earlier is not None and (begun is None or earlier.asked > begun.asked):
        begun = earlier
    if begun is None:
        begun = tune(best, "winner", settings, schedule.iterations, "fine-tuning")
    elif begun.asked < settings.amount:
        fit = go_on(
            begun.fit,
            teacher,
            prepared.train,
            prepared.validation,
            settings.of(settings.amount - begun.asked),
            settled.seed,
            progress,
            task=prepared.task,
        )
        begun = Kept(begun.plan, fit, settings.amount)
        networks.put(best.candidate.plan, "winner", begun)
    progress.say(f"fine-tuned for {round(begun.fit.epochs, 2):g} epochs: validation {shown(begun.fit.accuracy)}")
    before = narrow(searched.criterion, prepared.structure, best.candidate.plan, prepared.train, place=prepared.place)
    return Tuned(best, begun.plan, before, begun.fit)


def settings_of(prepared: Prepared) -> FineTune:
    """How a run fine-tunes, for all epochs or minutes there are."""
    schedule = prepared.schedule
    return FineTune(
        epochs=schedule.finetune_epochs if schedule.finetune_minutes is None else None,
        minutes=schedule.finetune_minutes,
        learning_rate=schedule.learning_rate,
        batch_size=schedule.batch_size,
        distillation=schedule.distillation,
        temperature=schedule.temperature,
        augmentation=schedule.augmentation,
        place=prepared.place,
        taken=prepared.taken,
    )


def teacher_of(prepared: Prepared) -> Distillation:
    """The unpruned network as the teacher of a run's fine-tuning."""
    schedule = prepared.schedule
    return Distillation(prepared.network, schedule.temperature, schedule.distillation, schedule.rounds, prepared.task)


def _in_one_step(structure: Structure, trial: Trial, iterations: int, settings: FineTune) -> bool:
    return (
        len(_way(structure, trial.candidate.plan.widths, iterations, inputs_last=_inputs_last(settings, iterations)))
        == 1
    )


def go_on(
    fit: Fit,
    teacher: Distillation,
    train_set: Batches,
    validation: Batches,
    settings: FineTune,
    seed: int,
    progress: Progress,
    title: str = "fine-tuning",
    task: Task = CLASSIFICATION,
) -> Fit:
    """Tune a network that was tuned before for the epochs or minutes of `settings`; all of its history in one.

    The one-cycle schedule begins anew, and images come in another order.
    """
    more = _train(
        fit.network,
        teacher,
        train_set,
        validation,
        settings,
        seed=seed,
        progress=progress,
        title=title,
        task=task,
        begun=fit.epochs,
    )
    return replace(more, history=fit.history + more.history, epochs=fit.epochs + more.epochs)


def _shares(settings: FineTune, share: float, finalists: int, *, goes_on: bool) -> tuple[FineTune, FineTune]:
    """What each finalist gets, a `share` of what the winner gets; what that one had as a finalist is part of it.

    Epochs are the winner's own, minutes are for all: where it `goes_on`, its time as a finalist is not spent twice.
    """
    if settings.minutes is not None:
        minutes = settings.minutes / (1 + share * (finalists - goes_on))
        return settings.of(minutes * share), settings.of(minutes)
    # Whole ones, or half of one: an epoch of a convolutional network may take minutes.
    return settings.of(math.floor(settings.amount * share) or 0.5), settings


def prune_and_tune(
    network: nn.Module,
    structure: Structure,
    widths: Mapping[str, int],
    make_criterion: MakeCriterion,
    *,
    train_set: Batches,
    validation: Batches,
    settings: FineTune,
    iterations: int = 1,
    seed: int,
    progress: Progress,
    title: str = "fine-tuning",
    task: Task = CLASSIFICATION,
    clock: Callable[[], float] = time.monotonic,
    teacher: Distillation | None = None,
) -> tuple[nn.Module, Fit, PruningPlan]:
    """Prune `network` to `widths` and tune it, in `iterations` steps, with `network` as the teacher.

    A `teacher` made before, of the same network and settings, shares the answers it keeps.

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
    most = max(1, iterations if settings.epochs is None else settings.epochs)
    if not 1 <= iterations <= most:
        raise UsageError(
            f"{iterations} iterations are not between 1 and {most}, the epochs there are",
            "change --iterations or raise --finetune-epochs",
        )
    deadline = None if settings.minutes is None else Deadline.after(60 * settings.minutes, clock)
    teacher = teacher or Distillation(network, settings.temperature, settings.distillation, task=task)

    def narrowed(criterion: Criterion, plan: PruningPlan) -> nn.Module:
        example = validation.inputs(slice(0, 16))
        return narrow(criterion, structure, plan, train_set, check=example, place=settings.place)

    criterion = make_criterion(network, structure)
    before = narrowed(criterion, criterion.plan(dict(widths)))
    history: tuple[float, ...] = ()
    epochs = 0.0
    way = _way(structure, widths, iterations, inputs_last=_inputs_last(settings, iterations))
    steps = len(way)
    for step, narrower in enumerate(way, start=1):
        last = step == steps
        plan = criterion.plan(narrower)
        pruned = before if steps == 1 else narrowed(criterion, plan)
        fit = _train(
            pruned,
            teacher,
            train_set,
            validation,
            replace(
                settings,
                epochs=None if settings.epochs is None else _step_epochs(settings.epochs, step, steps),
                minutes=None if deadline is None else deadline.left() / 60 * _step_share(step, steps),
            ),
            seed=seed,
            progress=progress,
            title=title if steps == 1 else f"{title}, step {step} of {steps}",
            task=task,
            clock=clock,
        )
        history += fit.history
        epochs += fit.epochs
        if not last:
            criterion = make_criterion(widen(network, structure, plan, fit.network), structure)
    return before, replace(fit, history=history, epochs=epochs), plan


def _train(
    network: nn.Module,
    teacher: Distillation,
    train_set: Batches,
    validation: Batches,
    settings: FineTune,
    *,
    seed: int,
    progress: Progress,
    title: str,
    task: Task,
    clock: Callable[[], float] = time.monotonic,
    begun: float = 0.0,
) -> Fit:
    return train(
        network,
        train_set,
        validation,
        epochs=settings.epochs,
        minutes=settings.minutes,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        seed=seed,
        progress=progress,
        title=title,
        distillation=teacher,
        augmentation=settings.augmentation,
        weight_decay=FINETUNE_DECAY,
        task=task,
        clock=clock,
        place=settings.place,
        begun=begun,
        taken=settings.taken,
    )


def _inputs_last(settings: FineTune, iterations: int) -> bool:
    return settings.epochs is None or settings.epochs > iterations


def _way(
    structure: Structure, widths: Mapping[str, int], iterations: int, *, inputs_last: bool
) -> list[dict[str, int]]:
    """The widths after every step; the last are `widths`."""
    others = {name: width for name, width in widths.items() if name != INPUTS}
    apart = inputs_last and bool(others) and widths.get(INPUTS, structure.inputs) < structure.inputs
    way = [_step_widths(structure, others if apart else widths, step / iterations) for step in range(1, iterations + 1)]
    return [*way, dict(widths)] if apart else way


def _step_widths(structure: Structure, widths: Mapping[str, int], share: float) -> dict[str, int]:
    """Allowed widths when a `share` of the way is gone; the way is the same factor in each step."""
    between = {}
    for group in structure.groups:
        if group.name in widths:
            target = widths[group.name]
            width = group.channels * (target / group.channels) ** share
            between[group.name] = target if share == 1 else max(target, group.snap(width))
    return between


def _step_epochs(epochs: float, step: int, steps: int) -> float:
    """Epochs of one step, whole ones of all but the last; all steps together have `epochs`."""
    early = max(1, epochs // (EARLY * (steps - 1))) if steps > 1 else 0
    return epochs - early * (steps - 1) if step == steps else early


def _step_share(step: int, steps: int) -> float:
    """The share of the time still left that `step` may take; all but the last have one part in `EARLY` together."""
    early = 1 / EARLY / (steps - 1) if steps > 1 else 0.0
    return 1.0 if step == steps else early / (1 - early * (step - 1))


def widen(network: nn.Module, structure: Structure, plan: PruningPlan, pruned: nn.Module) -> nn.Module:
    """The weights of `pruned`, which is `network` cut by `plan`, in the shape of `network`: what was cut away is zero.

    It computes what `pruned` does, and speaks of channels as `network` does.
    """
    rows = _indices(network, structure, plan, 0)
    columns = _indices(network, structure, plan, 1)
    wide = deepcopy(network).eval()
    state = wide.state_dict()
    # A network whose inputs were selected has the layer that reads them one level down.
    inner = f"{structure.input_layer}.linear."
    with torch.no_grad():
        for name, narrow in pruned.state_dict().items():
            if name == f"{structure.input_layer}.kept":
                continue
            own = name.replace(inner, f"{structure.input_layer}.") if name.startswith(inner) else name
            if name not in rows:
                state[own].copy_(narrow)
                continue
            state[own].zero_()
            place: tuple[Tensor, ...] = (rows[name],)
            if name in columns:
                place = (rows[name][:, None], columns[name])
            state[own][place] = narrow
    return wide


def _indices(network: nn.Module, structure: Structure, plan: PruningPlan, axis: int) -> dict[str, Tensor]:
    """Which rows (axis 0) or columns (axis 1) of each floating tensor `plan` keeps, by the tensor's name when cut.

    Surgery itself is asked: it cuts a copy in which every number is the index of its own place.
    """
    numbered = deepcopy(network)
    with torch.no_grad():
        for tensor in numbered.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim > axis:
                shape = [1] * tensor.ndim
                shape[axis] = -1
                tensor.copy_(torch.arange(tensor.shape[axis]).reshape(shape).expand_as(tensor))
    kept = {}
    for name, tensor in cut(numbered, structure.shape, plan).state_dict().items():
        if tensor.is_floating_point() and tensor.ndim > axis:
            kept[name] = tensor.movedim(axis, 0).flatten(1)[:, 0].long() if tensor.ndim > 1 else tensor.long()
    return kept
