"""Where a run trains: what works there is tried, what is faster is measured, and both are said and kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeprune.core.errors import UsageError
from edgeprune.core.progress import Silent
from edgeprune.core.store import RunFolder
from edgeprune.data.dataset import Preprocessing, Split
from edgeprune.models.zoo import build
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.placing import Training, first_place, settle_precision, settle_training
from edgeprune.pipeline.prepare import Prepared, prepare
from edgeprune.training import pace
from edgeprune.training.batches import Batches
from edgeprune.training.pace import fault, step_seconds
from edgeprune.training.place import PLAIN, MemoryFormat, Place, Precision
from edgeprune.training.problem import Problem

CHANNELS_LAST = Place(memory_format="channels_last")
BFLOAT16 = Place(precision="bfloat16")
BOTH = Place(memory_format="channels_last", precision="bfloat16")


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Views(nn.Module):
    """Its forward takes for granted in which order a convolution's answers lie in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * 64, 2)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        return self.linear(out.view(len(out), -1))  # type: ignore[no-any-return]


def flat() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 2))


@pytest.fixture
def images() -> Batches:
    x = np.random.default_rng(0).normal(size=(32, 1, 8, 8)).astype(np.float32)
    return Batches(Split(x, np.arange(32, dtype=np.int64) % 2), Preprocessing(1.0, (0.0,), (1.0,)))


def paces(**speedups: float) -> Any:
    """A measurement that finds these, by place: `p`lain, `c`hannels_last, `b`float16, `cb` both."""
    names = {PLAIN: "p", CHANNELS_LAST: "c", BFLOAT16: "b", BOTH: "cb"}

    def measure(net: nn.Module, x: Tensor, y: Tensor, places: Sequence[Place]) -> Mapping[Place, Sequence[float]]:
        assert places[0] == PLAIN
        return {place: (9.0, 1 / speedups.get(names[place], 1.0), 9.0) for place in places}

    return measure


def unmeasured(*_: object) -> Mapping[Place, Sequence[float]]:
    raise AssertionError("measured")


def settled(
    images: Batches, runs: Path, network: nn.Module, measure: Any, native: bool = False, **options: Any
) -> tuple[RunConfig, Training, list[str]]:
    heard, config = Heard(), RunConfig(**{"runs_dir": runs, "train_device": "cpu", **options})
    problem = Problem(images, images)
    training = settle_training(config, None, network, problem, 16, heard, measure, lambda device: native)
    return config, training, heard.lines


def test_the_fastest_is_taken_and_said(images: Batches, tmp_path: Path) -> None:
    _, training, lines = settled(images, tmp_path, flat(), paces(c=1.5))
    assert training.place == CHANNELS_LAST
    assert lines == ["training in channels_last, float32: 1.5x faster than plain here"]


def test_what_is_hardly_faster_is_not_taken(images: Batches, tmp_path: Path) -> None:
    _, training, lines = settled(images, tmp_path, flat(), paces(c=1.04))
    assert training.place == PLAIN
    assert lines == ["training in the usual memory format, float32: nothing else is faster here"]


def test_steps_are_timed_once_for_a_network(images: Batches, tmp_path: Path) -> None:
    _, first, _ = settled(images, tmp_path, flat(), paces(c=1.5))
    assert settled(images, tmp_path, flat(), unmeasured)[1] == first
    (path,) = (tmp_path / ".cache").glob("training-*.json")
    path.write_text(path.read_text().replace("1.5", "-1.5"))
    _, again, lines = settled(images, tmp_path, flat(), paces(c=1.3))
    assert "steps are timed again" in lines[0]
    assert again.timed[1].speedup == pytest.approx(1.3)
    with pytest.raises(AssertionError, match="measured"):
        settled(images, tmp_path, nn.Sequential(*flat(), nn.Linear(2, 2)), unmeasured)


def test_a_forward_that_views_trains_in_the_usual_format_and_that_is_said_once(images: Batches, tmp_path: Path) -> None:
    config, training, lines = settled(images, tmp_path, Views(), unmeasured)
    assert training.place == PLAIN
    (line,) = lines
    assert "in channels_last, float32 the network fails (view size is not compatible" in line
    assert settle_precision(config, training, Views(), Problem(images, images), Silent()) == training


def test_dense_and_frozen_networks_are_not_measured(images: Batches, tmp_path: Path) -> None:
    dense = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    frozen = flat().requires_grad_(False)
    for network in (dense, frozen):
        assert settled(images, tmp_path, network, unmeasured, native=True)[1:] == (Training(), [])


def test_bfloat16_is_tried_only_where_the_processor_has_it(images: Batches, tmp_path: Path) -> None:
    without = settled(images, tmp_path / "without", flat(), paces(c=1.2, b=9, cb=9))[1]
    assert {one.precision for one in without.timed} == {"float32"}
    config, training, lines = settled(images, tmp_path / "with", flat(), paces(c=1.2, b=1.5, cb=2), native=True)
    # Until it is known what it costs, float32.
    assert training.place == first_place(config, training) == CHANNELS_LAST
    assert lines == ["training in channels_last, float32: 1.2x faster than plain here"]


@pytest.mark.parametrize("costs", [False, True])
def test_bfloat16_is_taken_where_validation_bears_it(images: Batches, tmp_path: Path, costs: bool) -> None:
    network = flat()
    labels = images.y
    with torch.no_grad():
        answers = network.eval()(images.inputs(slice(None)))
        labels[:] = answers.argmax(1)
        if costs:
            # The same answers but for a large number that both share: bfloat16 has no room for what differs.
            network[3].bias += 1000
    config, training, _ = settled(images, tmp_path, network, paces(c=1.2, cb=2), native=True)
    heard = Heard()
    found = settle_precision(config, training, network, Problem(images, images), heard)
    assert found.place == (CHANNELS_LAST if costs else BOTH)
    assert first_place(config, found) == CHANNELS_LAST
    (line,) = heard.lines
    assert ("costs too much: validation" in line) == costs
    assert "1.7x faster" in line


def test_bfloat16_that_is_asked_for_is_emulated_and_that_is_said(images: Batches, tmp_path: Path) -> None:
    config, training, lines = settled(
        images, tmp_path, flat(), paces(b=0.2, cb=0.25), train_precision="bfloat16"
    )  # fmt: skip
    assert training.place == first_place(config, training) == BOTH
    assert lines == [
        "training in channels_last, bfloat16: 4.0x slower than plain float32 here; this processor has no bfloat16 of "
        "its own, so it is emulated"
    ]
    assert settle_precision(config, training, flat(), Problem(images, images), Silent()) == training


def test_a_device_that_is_not_there_is_one_line(images: Batches, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    config = RunConfig(runs_dir=tmp_path, train_device="cuda")
    with pytest.raises(UsageError, match=r"--train-device cuda: torch .* finds no such device here") as error:
        prepare(config, RunFolder.create(tmp_path, None, "run"), Silent(), "onnxruntime")
    assert error.value.exit_code == 2
    gone = Training(Place("cuda"))
    with pytest.raises(UsageError, match="the run trained on cuda"):
        settle_training(RunConfig(), gone, flat(), Problem(images, images), 16, Silent(), unmeasured)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_are_timed_and_change_nothing(images: Batches, layout: MemoryFormat, precision: Precision) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 2))
    place = Place("cpu", layout, precision)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    x = images.inputs(slice(0, 8))
    seeded = torch.get_rng_state()
    found = step_seconds(network, x, images.y[:8], [PLAIN, place])
    assert fault(network, x, images.y[:8], place) is None
    assert torch.equal(seeded, torch.get_rng_state())
    assert min(found[place]) > 0
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.stride() == before[name].stride()


def test_rounds_end_in_time(images: Batches) -> None:
    now = iter(range(1000))
    step_seconds(flat(), images.inputs(slice(0, 4)), images.y[:4], [PLAIN, CHANNELS_LAST], clock=lambda: next(now))
    # Every round asks four times, the bound is long over: one round that does not count, and three.
    assert next(now) == 1 + 4 * (1 + pace.LEAST) + 1


def test_rounding_of_a_graphics_card_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(nn.Flatten):
        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                seen.append(torch.backends.cudnn.allow_tf32)
            return super().forward(x)

    seen: list[bool] = []
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    network = nn.Sequential(Asked(), nn.Linear(64, 2))
    assert fault(network, torch.rand(4, 1, 8, 8), torch.arange(4) % 2, PLAIN) is None
    # Asked without it, which shows a network that answers otherwise there; training goes on as it would.
    assert (seen, torch.backends.cudnn.allow_tf32) == ([False, False], True)


@pytest.mark.skipif(not pace.available("cuda"), reason="needs a CUDA device")
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_answers_there_are_those_of_here(layout: MemoryFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "NEAR", 1e-5)
    network = build("resnet56", (3, 32, 32), 10)
    assert fault(network, torch.rand(8, 3, 32, 32), torch.arange(8), Place("cuda", layout)) is None


def test_a_run_trains_where_it_was_settled_and_a_resumed_one_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepared(measure: Any, folder: RunFolder) -> Prepared:
        monkeypatch.setattr(
            "edgeprune.pipeline.prepare.settle_training", lambda *a, **b: settle_training(*a, measure, **b)
        )
        config = RunConfig(model="lenet5", train_epochs=1, train_device="cpu", runs_dir=tmp_path)
        return prepare(config, folder, Silent(), "onnxruntime")

    folder = RunFolder.create(tmp_path, None, "run")
    first = prepared(paces(c=1.5), folder)
    assert first.place == CHANNELS_LAST
    for tensor in first.network.state_dict().values():
        assert tensor.stride() == torch.empty(tensor.shape).stride()
    kept = json.loads((folder / "content.json").read_text())["training"]
    assert kept["place"] == {"device": "cpu", "memory_format": "channels_last", "precision": "float32"}
    for path in (tmp_path / ".cache").glob("training-*.json"):
        path.unlink()
    again = prepared(unmeasured, folder)
    assert again.training == first.training
    assert again.baseline["source"] == "cached"
    # A baseline that was trained elsewhere is another one.
    elsewhere = prepared(paces(), RunFolder.create(tmp_path, None, "run"))
    assert (elsewhere.place, elsewhere.baseline["source"]) == (PLAIN, "trained")
