"""What hangs on whether a network convolves: how candidates are tuned, and the fine-tuning at the end."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from some_facts import FACTS, settled
from torch import nn

from edgeprune.core.progress import Silent
from edgeprune.data.dataset import Dataset, Preprocessing, Split
from edgeprune.models.zoo import build
from edgeprune.pipeline import workshop
from edgeprune.pipeline.found import facts_of
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.settings import Schedule
from edgeprune.pruning.criteria import Ranking
from edgeprune.pruning.groups import discover
from edgeprune.search.states import Losses
from edgeprune.tasks.task import CLASSIFICATION
from edgeprune.training.batches import Batches
from edgeprune.training.place import PLAIN
from edgeprune.training.problem import Problem


def dataset(shape: tuple[int, ...], images: int = 6000) -> Dataset:
    preprocessing = Preprocessing(1.0, (0.0,) * shape[0], (1.0,) * shape[0])

    def split(count: int) -> Split:
        return Split(np.zeros((count, *shape), np.float32), np.arange(count) % 10)

    return Dataset(
        "toy", split(images), split(5000), split(20), tuple(map(str, range(10))), preprocessing, "", mirrors=False
    )


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """With what candidates' tunings were made."""
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(workshop, "BriefTuning", lambda *_, **how: made.append(how))
    return made


def scoring(name: str, shape: tuple[int, ...], **options: Any) -> Any:
    network: nn.Module = build(name, shape, 10).eval()
    data = dataset(shape)
    structure = discover(network, shape, runtime="onnxruntime")
    train_set = Batches(data.train, data.preprocessing)
    prepared = SimpleNamespace(
        train=train_set, problem=Problem(train_set, train_set), network=network, place=PLAIN,
        settled=settled(facts_of(data, network, structure, "onnxruntime"), **options), structure=structure,
        task=CLASSIFICATION,
    )  # fmt: skip
    return workshop._scoring(cast(Prepared, prepared), cast(Any, None))


@pytest.mark.parametrize(
    ("name", "shape", "steps", "rate", "images"),
    [
        ("lenet-300-100", (1, 28, 28), 150, 1e-2, 5000),
        # Few steps at a high rate tell nothing of what convolves (docs/search.md).
        ("ds-cnn", (1, 28, 28), 20, 2e-3, 4000),
        ("resnet20", (3, 32, 32), 7, 2e-3, 1333),
    ],
)
def test_candidates_are_tuned_as_their_kind_of_network_needs(
    tuned: list[dict[str, Any]], name: str, shape: tuple[int, ...], steps: int, rate: float, images: int
) -> None:
    found = scoring(name, shape)
    (how,) = tuned
    assert (how["steps"], how["learning_rate"], found.images) == (steps, pytest.approx(rate), images)


def test_as_many_steps_and_images_as_are_asked_for(tuned: list[dict[str, Any]]) -> None:
    found = scoring("ds-cnn", (1, 28, 28), search_steps=3, search_images=50)
    assert (tuned[0]["steps"], found.images) == (3, 50)
    scoring("ds-cnn", (1, 28, 28), search_steps=0)
    assert len(tuned) == 1


def schedule(convolves: bool, images: int, **options: Any) -> Schedule:
    return settled(replace(FACTS, convolves=convolves, images=images), **options).schedule


@pytest.mark.parametrize(
    ("convolves", "images", "epochs", "rounds", "share"),
    [
        (False, 1500, 60, None, 1 / 5),
        (False, 54_000, 30, None, 1 / 5),
        # A slow teacher is asked less.
        (True, 54_000, 8, 4, 1 / 16),
        (True, 1_200_000, 8, 4, 1 / 16),
        # Few images want more epochs.
        (True, 9000, 40, 4, 1 / 16),
        (True, 1500, 60, 4, 1 / 16),
    ],
)
def test_fine_tuning_sees_as_many_images_as_its_kind_of_network_can_be_shown(
    convolves: bool, images: int, epochs: int, rounds: int | None, share: float
) -> None:
    found = schedule(convolves, images)
    assert (found.finetune_epochs, found.rounds, found.finalist_share) == (epochs, rounds, share)


@pytest.mark.parametrize("convolves", [False, True])
@pytest.mark.parametrize("epochs", [0, 1, 20])
def test_epochs_that_are_asked_for_hold(convolves: bool, epochs: int) -> None:
    found = schedule(convolves, 6000, finetune_epochs=epochs)
    # Where one epoch's images came back at once, a finalist that goes on would see the first of them again.
    assert (found.finetune_epochs, found.rounds) == (epochs, 4 if convolves else None)


def test_there_are_epochs_for_as_many_iterations_as_are_allowed() -> None:
    """It would be refused after the search."""
    assert schedule(True, 200_000, iterations=10).finetune_epochs == 10


@pytest.mark.parametrize(("name", "images"), [("lenet-300-100", None), ("ds-cnn", 300), ("resnet20", 100)])
def test_a_search_sees_what_the_answers_lose_where_networks_convolve(
    name: str, images: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(workshop, "divergences", lambda *given: asked.append(given[-2]))
    shape = (3, 32, 32) if name == "resnet20" else (1, 28, 28)
    network = build(name, shape, 10).eval()
    structure = discover(network, shape, runtime="onnxruntime")
    prepared: Any = SimpleNamespace(
        network=network, structure=structure, train=None, place=PLAIN, task=CLASSIFICATION,
        settled=settled(facts_of(dataset(shape), network, structure, "onnxruntime")),
    )  # fmt: skip
    criterion: Any = SimpleNamespace(ranking=Ranking({}, {"fc1": (1.0, 0.25, 0.0)}))
    found = workshop._losses(prepared, criterion, Silent())
    assert asked == ([] if images is None else [images])
    assert found.additive == (images is not None)
    if images is None:
        # What is lost there is energy, errors add up.
        assert found == Losses({"fc1": (1.0, 0.5, 0.0)})
