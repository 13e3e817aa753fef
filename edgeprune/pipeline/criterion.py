"""A criterion by its name: a ranking, with or without the repair, for whoever prunes."""

from __future__ import annotations

import math
from typing import get_args

from torch import nn

from edgeprune.core.errors import UsageError, did_you_mean
from edgeprune.core.inputs import specs_of
from edgeprune.core.progress import Progress
from edgeprune.core.units import format_cost
from edgeprune.pipeline.config import CriterionName
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pruning import rankings
from edgeprune.pruning.calibration import fisher_matrices, gram_matrices
from edgeprune.pruning.criteria import Ranked, Ranking
from edgeprune.pruning.kinds import convolutional
from edgeprune.pruning.shapley import Game, NetworkGame, evaluations, seconds_per_evaluation, shapley_values
from edgeprune.pruning.structure import Structure
from edgeprune.training.batches import Batches
from edgeprune.training.problem import Problem

#: Names of all criteria.
CRITERIA: tuple[str, ...] = get_args(CriterionName)
#: Of the images that criteria look at, how many tell which outputs sway the answer: that takes a backward pass each. An
#: image counts at every position of a convolution, so fewer do there.
FISHER_IMAGES, FISHER_IMAGES_CONVOLVED = 4000, 500
#: Input numbers of the images that go backwards together: their activations are all kept meanwhile.
FISHER_NUMBERS = 400_000
#: For the criterion `shapley`: permutations per group, and validation images at most.
SHAPLEY_PERMUTATIONS, SHAPLEY_IMAGES = 20, 1000


def criterion_of(prepared: Prepared, network: nn.Module, structure: Structure, progress: Progress) -> Ranked:
    """The criterion that a run asks for, of its network or one on the way to it."""
    settings = prepared.settled.ranking
    return make_criterion(
        settings.criterion,
        repair=settings.repair,
        network=network,
        structure=structure,
        problem=prepared.problem,
        images=settings.images,
        seed=prepared.settled.seed,
        progress=progress,
    )


def make_criterion(
    name: str,
    *,
    repair: bool,
    network: nn.Module,
    structure: Structure,
    problem: Problem,
    images: int,
    seed: int,
    progress: Progress,
) -> Ranked:
    """Rank the channels of every group by the criterion `name`; with `repair` readers are refitted by least squares.

    Rankings and repair look at the first `images` training images. Only `shapley` looks at those for validation,
    which its characteristic function is defined on ([Shapley] section 2); `seed` is that of its permutations, and of
    the classes that `reconstruction` draws. Nothing sees test data. Raises UsageError for an unknown name.
    """
    if name not in CRITERIA:
        raise UsageError(f"unknown criterion '{name}'", did_you_mean(name, CRITERIA))
    train_set, task = problem.train, problem.task
    count = min(images, len(train_set))
    layers = sorted({consumer.layer for coupling in structure.couplings for consumer in coupling.consumers})
    grams = None
    if repair or name == "reconstruction":
        with progress.bar("calibrating", count) as bar:
            grams = gram_matrices(network, layers, (x for x, _ in train_set.ordered(limit=count)), count, bar.advance)
    match name:
        case "l1":
            ranking = rankings.l1(network, structure)
        case "l2":
            ranking = rankings.l2(network, structure)
        case "taylor":
            ranking = rankings.taylor(network, structure, train_set.ordered(limit=count), task)
        case "activation":
            ranking = rankings.activation(network, structure, (x for x, _ in train_set.ordered(limit=count)))
        case "reconstruction":
            assert grams is not None
            some = min(count, FISHER_IMAGES_CONVOLVED if convolutional(network) else FISHER_IMAGES)
            size = max(1, min(500, FISHER_NUMBERS // sum(math.prod(each.shape) for each in specs_of(structure.shape))))
            inputs = (x for x, _ in train_set.ordered(size, some))
            with progress.bar("weighing outputs", some) as bar:
                fishers = fisher_matrices(network, layers, inputs, seed, bar.advance, task)
            ranking = rankings.reconstruction(network, structure, grams, fishers)
        case _:
            if task.name != "classification":
                raise UsageError(
                    f"the criterion shapley values channels by right answers, and {task.name} has none",
                    "give another --criterion",
                )
            ranking = _shapley(network, structure, problem.validation, min(images, SHAPLEY_IMAGES), seed, progress)
    return Ranked(network, structure, ranking, grams if repair else None)


def _shapley(
    network: nn.Module, structure: Structure, validation: Batches, images: int, seed: int, progress: Progress
) -> Ranking:
    scores = {}
    inputs, labels = validation.inputs(slice(0, images)), validation.y[:images]
    for coupling in structure.couplings:
        name = coupling.group.name
        game = NetworkGame(network, coupling, inputs, labels)
        progress.say(f"Shapley values of {name}: {announce(game, SHAPLEY_PERMUTATIONS)}")
        with progress.bar(f"Shapley values of {name}", evaluations(game.players, SHAPLEY_PERMUTATIONS)) as bar:
            scores[name] = shapley_values(game, SHAPLEY_PERMUTATIONS, seed, advance=bar.advance).values
    return rankings.by_scores(scores)


def announce(game: Game, permutations: int) -> str:
    """What the values will cost, one evaluation measured: "5002 evaluations of about 0.4 ms: 2 s at most"."""
    count, seconds = evaluations(game.players, permutations), seconds_per_evaluation(game)
    return f"{count} evaluations of about {format_cost(seconds, 's')}: {max(1, round(count * seconds))} s at most"
