"""An unpruned network that guesses is not compressed: how that is found out, and why it may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from torch import nn

from edgeprune.core.errors import ModelError
from edgeprune.core.inputs import plain_shape
from edgeprune.core.progress import Progress
from edgeprune.data.dataset import Dataset, Scaled
from edgeprune.pipeline.scaling import IMAGES, Compared, better, compare, equals, halfway, scalings
from edgeprune.tasks.classes import Classes, ClassMetric, chance_level, majority, score_of
from edgeprune.tasks.metrics import Accuracy, Yardstick, classes_of
from edgeprune.tasks.task import Task
from edgeprune.training.fit import predict
from edgeprune.training.problem import Problem

#: Share that another scaling or order of colours must gain before it is named for a network that does not guess.
_WORTH_SAYING = 0.02
#: Share of one class among the images from which accuracy alone says little.
_LOPSIDED = 0.8


@dataclass(frozen=True, slots=True)
class _Causes:
    """What was tried in place of what the run has: in words each, and what to type where one of them helps."""

    words: tuple[str, ...]
    remedy: str


@dataclass(frozen=True, slots=True)
class _Suspect:
    """The unpruned network as a run has it: on the data as they were loaded, its inputs scaled as `now` says.

    `foreign`: its weights came trained, so that scaling, order of classes or colours may be another's.
    """

    network: nn.Module
    dataset: Dataset
    task: Task
    now: Scaled
    foreign: bool

    def under(self, names: Mapping[str, Scaled], *, reverse: bool = False) -> list[Compared]:
        """See `compare`."""
        return compare(self.network, self.dataset, names, self.task, reverse=reverse)


def check_baseline(
    network: nn.Module, problem: Problem, dataset: Dataset, now: Scaled, progress: Progress, *, foreign: bool
) -> float:
    """The unpruned network's quality on validation, by the task's metric.

    What the `problem` has is preprocessed as the run settled it, which `now` says; `dataset` has the data's own.
    `foreign`: the weights came trained, so that scaling, order of classes or colours may be another's.

    Raises ModelError where it is not told from guessing, with the likely causes in order and what trying them gave.
    """
    metric, targets = problem.task.metric, dataset.validation.y
    answers = predict(network, problem.validation).numpy()
    value = metric.value(answers, targets)
    quality, level = metric.quality(value, targets), metric.chance(targets, answers)
    suspect = _Suspect(network, dataset, problem.task, now, foreign)
    if metric.of_classes:
        _check_classes(suspect, classes_of(answers), quality, level, progress)
        return quality
    said = f"{metric.title} {metric.show(value)} on {len(targets):,} validation examples"
    best, tried = _scalings_tried(suspect) if foreign else ("", "")
    if quality <= level:
        causes = [f"input scaling (tried {tried})", "weights that are not trained"] if foreign else []
        causes = causes or ["trained too briefly (--train-epochs)", "targets that do not belong to the inputs"]
        raise ModelError(
            f"the unpruned network guesses: {said}, the best answer that is always the same gives "
            f"{metric.show(metric.constant(targets))} (up to {problem.yardstick.show(level)} is not told from that)",
            best or f"likely causes, in order: {', '.join(f'{n} {cause}' for n, cause in enumerate(causes, start=1))}",
        )
    if best:
        progress.say(f"{said}: {best}")
    return quality


def _scalings_tried(suspect: _Suspect) -> tuple[str, str]:
    """What to type where another scaling is much better than the present one, and what all of them give."""
    names, targets, task = scalings(suspect.dataset), suspect.dataset.validation.y[:IMAGES], suspect.task
    unchanged, *scaled = suspect.under({"now": suspect.now, **names})
    shown = Yardstick.on(task.metric, targets).show
    best = equals([unchanged, *scaled], targets, task)[0]
    much = best.score > unchanged.score + _WORTH_SAYING and better(best, unchanged)
    remedy = f"--preprocessing {best.name} gives {shown(best.score)}" if much and best is not unchanged else ""
    return remedy, ", ".join(f"{one.name} {shown(one.score)}" for one in scaled)


def _check_classes(suspect: _Suspect, answers: Classes, score: float, level: float, progress: Progress) -> None:
    """As `check_baseline`, where answers name a class: then its order, and how often it is there, say more."""
    dataset, foreign = suspect.dataset, suspect.foreign
    labels = dataset.validation.y
    metric = _metric(suspect.task)
    most, share = majority(labels)
    if score <= level:
        causes = _causes(suspect) if foreign else _Causes((), "")
        raise ModelError(
            f"the unpruned network guesses: {_said(metric, score, len(labels))}, {_guess(metric, dataset, labels)} "
            f"(up to {100 * level:.1f} % is not told from that){_lopsided(answers, dataset)}",
            _advice(metric, causes, labels, answers, foreign),
        )
    if share >= _LOPSIDED and metric == "accuracy":
        balanced = score_of("balanced-accuracy", labels, answers)
        progress.say(
            f"{100 * share:.1f} % of the validation images are of class '{dataset.classes[most]}': accuracy says "
            f"little of the others; --metric balanced-accuracy counts all classes alike (now {100 * balanced:.1f} %)"
        )
    if foreign and score < halfway(suspect.task, labels):
        causes = _causes(suspect)
        progress.say(
            f"the unpruned network is weak: {_said(metric, score, len(labels))}; "
            + (f"{causes.remedy}" if causes.remedy else f"tried without success: {', '.join(causes.words)}")
        )
    elif foreign:
        _better_still(suspect, progress)


def _metric(task: Task) -> ClassMetric:
    return "accuracy" if isinstance(task.metric, Accuracy) else "balanced-accuracy"


def _said(metric: ClassMetric, score: float, images: int) -> str:
    if metric == "accuracy":
        return f"{100 * score:.1f} % of {images:,} validation images right"
    return f"balanced accuracy {100 * score:.1f} % on {images:,} validation images"


def _guess(metric: ClassMetric, dataset: Dataset, labels: Classes) -> str:
    most, share = majority(labels)
    if metric == "accuracy":
        return f"always answering '{dataset.classes[most]}' gives {100 * share:.1f} %"
    return f"always answering one class gives {100 / len(np.unique(labels)):.1f} %"


def _lopsided(answers: Classes, dataset: Dataset) -> str:
    """Where nearly all answers are the same."""
    most, share = majority(answers)
    return f"; {100 * share:.0f} % of its answers are '{dataset.classes[most]}'" if share >= 0.9 else ""


def _advice(metric: ClassMetric, causes: _Causes, labels: Classes, answers: Classes, foreign: bool) -> str:
    other: ClassMetric = "balanced-accuracy" if metric == "accuracy" else "accuracy"
    found = score_of(other, labels, answers)
    # Accuracy may not tell a useful network from the answer "no" to everything.
    balanced = ""
    if metric == "accuracy" and found > chance_level(other, labels, answers):
        balanced = f"by --metric {other} it does not guess: {100 * found:.1f} %"
    if causes.remedy:
        return causes.remedy
    if not foreign:
        rare = int(np.unique(labels, return_counts=True)[1].min())
        few = (
            "a rare class (--metric balanced-accuracy)"
            if metric == "accuracy"
            else f"too few images of a class to tell (the rarest has {rare} there: --validation-share)"
        )
        return balanced or (
            f"likely causes, in order: trained too briefly (--train-epochs), {few}, "
            "labels that do not belong to the inputs"
        )
    listed = ", ".join(f"{number} {words}" for number, words in enumerate(causes.words, start=1))
    return f"likely causes, in order: {listed}" + (f"; {balanced}" if balanced else "")


def _causes(suspect: _Suspect) -> _Causes:
    """Scaling, order of the classes, order of the colours, each tried on some validation images."""
    dataset, task, now = suspect.dataset, suspect.task, suspect.now
    labels, metric = dataset.validation.y[:IMAGES], _metric(task)
    # What the run has comes first, so that nothing else is named that does no better.
    names = dict(sorted(scalings(dataset).items(), key=lambda known: known[1] != now))
    unchanged, *_ = suspect.under({"now": now})
    scaled = suspect.under(names)
    best = equals([unchanged, *scaled], labels, task)[0]
    enough = halfway(task, labels)
    words, remedies = [], []

    def under(name: str) -> str:
        return "" if name == "now" or names[name] == now else f" with --preprocessing {name}"

    figures = ", ".join(f"{one.name} {100 * one.score:.1f} %" for one in scaled)
    words.append(f"input scaling (tried {figures}; --preprocessing MEAN,STD gives another)")
    if best.score >= enough and best is not unchanged:
        remedies.append(f"--preprocessing {best.name} gives {100 * best.score:.1f} %")

    likely = {"now": now} | {name: given for name, given in names.items() if name == best.name}
    reversed_ = suspect.under(likely, reverse=True) if _coloured(dataset) else []
    ordered = [
        (score_of(metric, labels, order[answers]), one.name, order)
        for one in scaled
        for answers in [classes_of(one.answers)]
        for order in [_best_order(labels, answers, len(dataset.classes))]
    ]
    value, name, order = max(ordered, key=lambda found: found[0])
    words.append(f"order of the classes (the best of all orders gives {100 * value:.1f} %)")
    if value >= enough and not remedies and order.tolist() != list(range(len(order))):
        wanted = ", ".join(dataset.classes[label] for label in order[:10])
        remedies.append(
            f"the weights know the classes in another order, which gives {100 * value:.1f} %{under(name)}: their "
            f"outputs 0, 1, ... are {wanted}{', ...' if len(order) > 10 else ''}; number the labels of the data so"
        )
    if reversed_:
        back = max(reversed_, key=lambda one: one.score)
        words.append(f"order of the colours (reversed {100 * back.score:.1f} %)")
        if back.score >= enough and not remedies:
            remedies.append(
                f"with reversed colours (BGR for RGB) it gets {100 * back.score:.1f} %{under(back.name)}: reverse "
                "the channels of the data"
            )
    words.append("weights that are not trained")
    return _Causes(tuple(words), "; ".join(remedies))


def _best_order(labels: Classes, answers: Classes, classes: int) -> Classes:
    """Which class each output stands for if the outputs' order is another's: (classes,)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (answers, labels), 1)
    _, order = linear_sum_assignment(counts, maximize=True)
    return np.asarray(order, np.int64)


def _better_still(suspect: _Suspect, progress: Progress) -> None:
    """Says where a network that does not guess does much better with another scaling, or with its colours reversed."""
    dataset, now = suspect.dataset, {"now": suspect.now}
    unchanged, *scaled = suspect.under(now | scalings(dataset))
    best = equals([unchanged, *scaled], dataset.validation.y[:IMAGES], suspect.task)[0]
    if _worth_saying(best, unchanged):
        progress.say(
            f"--preprocessing {best.name} would give the unpruned network {100 * best.score:.1f} % instead of "
            f"{100 * unchanged.score:.1f} %"
        )
    if not _coloured(dataset):
        return
    back = suspect.under(now, reverse=True)[0]
    if _worth_saying(back, unchanged):
        progress.say(
            f"with reversed colours (BGR for RGB) the unpruned network gets {100 * back.score:.1f} % instead of "
            f"{100 * unchanged.score:.1f} %: the weights know another order, so reverse the channels of the data"
        )


def _coloured(dataset: Dataset) -> bool:
    sides = plain_shape(dataset.input_shape)
    return len(sides) == 3 and sides[0] == 3


def _worth_saying(one: Compared, other: Compared) -> bool:
    return one.score > other.score + _WORTH_SAYING and better(one, other)
