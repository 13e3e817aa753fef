"""What is lost by cutting one group, as the answers show it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.core.progress import Silent
from edgeprune.data.dataset import Preprocessing, Split
from edgeprune.pipeline import workshop
from edgeprune.pipeline.criterion import make_criterion
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.sensitivity import divergences
from edgeprune.pruning.criteria import Ranked
from edgeprune.pruning.groups import discover
from edgeprune.training.batches import Batches
from edgeprune.training.narrow import narrow
from edgeprune.training.place import PLAIN, Place

SHAPE = (1, 6, 6)


class Net(nn.Module):
    """Its middle layer hardly sways the answer, which goes past it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.middle, self.back = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.last = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = x + self.back(torch.relu(self.middle(x)))
        return self.last(x.mean((2, 3)))  # type: ignore[no-any-return]


def made(sway: float = 1e-3) -> tuple[Prepared, Ranked]:
    torch.manual_seed(0)
    network, noise = Net(), np.random.default_rng(0)
    with torch.no_grad():
        network.back.weight.mul_(sway)
        network.last.weight.mul_(20)
    data = Batches(
        Split(noise.normal(size=(64, *SHAPE)).astype(np.float32), np.arange(64) % 3), Preprocessing(1.0, (0.0,), (1.0,))
    )
    structure = discover(network.eval(), SHAPE, runtime="onnxruntime", multiple_of=1)
    criterion = make_criterion(
        "reconstruction", repair=True, network=network, structure=structure, train_set=data, validation=data, images=64,
        seed=0, progress=Silent(),
    )  # fmt: skip
    prepared = SimpleNamespace(network=network, structure=structure, train=data, place=PLAIN)
    return cast(Prepared, prepared), criterion


def test_what_sways_the_answers_loses_more() -> None:
    prepared, criterion = made()
    losses = divergences(prepared, criterion, Silent())
    groups = {group.name: group for group in prepared.structure.groups}
    assert losses.keys() == groups.keys() >= {"middle"}
    for name, found in losses.items():
        # A figure for every width; the wider the less is lost, and nothing by cutting nothing.
        assert len(found) == groups[name].channels + 1
        assert list(found) == sorted(found, reverse=True)
        assert found[-1] == 0.0
        assert found[0] == found[groups[name].floor]
    others = [losses[name] for name in losses if name != "middle"]
    # The shares that the criterion gives are 1 for any group that is gone, whatever it does.
    assert max(each[0] for each in others) == 1.0
    assert losses["middle"][0] < 1e-3
    assert criterion.ranking.lost["middle"][0] == 1.0


def test_it_is_the_divergence_of_the_answers() -> None:
    """Worked out by hand; where less is lost by cutting deeper, what is lost before counts."""
    prepared, criterion = made(sway=1.0)
    losses = divergences(prepared, criterion, Silent())
    x = prepared.train.inputs(slice(0, 64))

    def divergence(name: str) -> float:
        group = next(each for each in prepared.structure.groups if each.name == name)
        widths = {each.name: each.channels for each in prepared.structure.groups}

        def answers(width: int) -> torch.Tensor:
            plan = criterion.plan({**widths, name: width})
            network = narrow(criterion, prepared.structure, plan, prepared.train, images=64)
            with torch.no_grad():
                return network(x).log_softmax(1)  # type: ignore[no-any-return]

        p = answers(group.channels)
        cuts = [answers(width) for width in (group.floor, 2, 4, 6)]
        return max(float((p.exp() * (p - q)).sum(1).mean()) for q in cuts)

    one, other = "middle", next(name for name in losses if name != "middle")
    assert losses[one][0] / losses[other][0] == pytest.approx(divergence(one) / divergence(other), rel=1e-3)


def test_it_is_the_same_wherever_a_run_trains() -> None:
    prepared, criterion = made()
    plain = divergences(prepared, criterion, Silent())
    prepared.place = Place(memory_format="channels_last", precision="bfloat16")  # type: ignore[misc]
    there = divergences(prepared, criterion, Silent())
    for name, found in plain.items():
        assert there[name] == pytest.approx(found, abs=1e-4)


@pytest.mark.parametrize("convolves", [True, False])
def test_a_search_looks_at_answers_where_networks_convolve(convolves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(workshop, "divergences", lambda *given: asked.append(given[-1]) or {})
    prepared, criterion = made()
    if not convolves:
        prepared.network = nn.Linear(2, 2)  # type: ignore[misc]
    found: Any = workshop._losses(prepared, criterion, Silent())
    assert asked == ([300] if convolves else [])
    assert found == ({} if convolves else criterion.ranking.errors())
