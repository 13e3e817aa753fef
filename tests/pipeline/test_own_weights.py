"""Weights that came trained: the scaling they fit is found, said, kept on resume; what only guesses is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.core.errors import ModelError, StorageError, UsageError
from edgeprune.core.progress import Silent
from edgeprune.core.store import RunFolder
from edgeprune.data.arrays import from_arrays
from edgeprune.data.catalog import load_data
from edgeprune.data.dataset import Dataset, Preprocessing, Split
from edgeprune.data.preprocessing import resolve
from edgeprune.data.split import make_dataset
from edgeprune.models.weights import save_weights
from edgeprune.models.zoo import build
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.finetune import tuner_of
from edgeprune.pipeline.guessing import check_baseline
from edgeprune.pipeline.prepare import Prepared, prepare
from edgeprune.pipeline.scaling import Compared, better, scalings
from edgeprune.pipeline.seen import how_familiar
from edgeprune.tasks.metrics import metric_named
from edgeprune.tasks.task import Binary, Classification
from edgeprune.training.batches import Batches
from edgeprune.training.fit import Fit, train
from edgeprune.training.problem import Problem
from edgeprune.training.regime import Regime

#: The owner's own: pixels of 0 to 16 come to 3 to 4, far from zero mean and unit variance.
OWNER = Preprocessing(1.0, (-48.0,), (16.0,))


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def line(self, start: str) -> str:
        return next(line for line in self.lines if line.startswith(start))


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """weights.safetensors fits scaled.npz as it is stored; the same pictures raw are in raw.npz."""
    folder = tmp_path_factory.mktemp("owned")
    digits = load_data("digits", None, seed=0, progress=Silent())
    train_set, validation = (Batches(part, digits.preprocessing) for part in (digits.train, digits.validation))
    torch.manual_seed(0)
    network, regime = build("mlp-32-16", (1, 8, 8), 10), Regime(epochs=8, learning_rate=5e-3, batch_size=32, seed=0)
    fit = train(network, Problem(train_set, validation), regime, progress=Silent(), title="")
    assert fit.accuracy > 0.9, fit.history
    # Where its inputs are the owner's: x / 16 is their value less 3.
    layer, mean, std = fit.network.get_submodule("fc1"), digits.preprocessing.mean[0], digits.preprocessing.std[0]
    with torch.no_grad():
        layer.bias -= layer.weight.sum(1) * (3 + mean) / std
        layer.weight /= std
    save_weights(folder / "weights.safetensors", fit.network)
    x_train, x_test = (part.x.astype(np.float32) for part in (digits.train, digits.test))
    labels = {"y_train": digits.train.y, "y_test": digits.test.y}
    np.savez(folder / "raw.npz", x_train=x_train, x_test=x_test, **labels)
    np.savez(folder / "scaled.npz", x_train=OWNER.apply(x_train), x_test=OWNER.apply(x_test), **labels)
    (folder / "net.py").write_text(
        "from safetensors.torch import load_file\n"
        "from edgeprune.models.zoo import build\n"
        "def fresh(): return build('mlp-32-16', (1, 8, 8), 10)\n"
        "def trained():\n"
        "    network = fresh()\n"
        f"    network.load_state_dict(load_file({str(folder / 'weights.safetensors')!r}))\n"
        "    return network\n"
    )
    return folder


@pytest.fixture
def config(owned: Path, tmp_path: Path) -> RunConfig:
    return RunConfig(
        data=str(owned / "scaled.npz"), model="mlp-32-16", weights=owned / "weights.safetensors", runs_dir=tmp_path
    )


def prepared(config: RunConfig, folder: RunFolder | None = None) -> tuple[Prepared, Heard]:
    heard = Heard()
    folder = folder or RunFolder.create(config.runs_dir, None, "run")
    return prepare(config, folder, heard, "onnxruntime"), heard


def test_data_that_their_owner_scaled_are_not_scaled_again(config: RunConfig) -> None:
    found, heard = prepared(config)
    assert found.scaling.source == "weights"
    assert found.dataset.preprocessing == Preprocessing(1.0, (0.0,), (1.0,))
    tried = {one.name: one.score for one in found.scaling.tried}
    assert tried["none"] > 0.9 > tried["data"] + 0.1
    line = heard.line("input scaling tried on")
    assert f"data {100 * tried['data']:.2f} %, none {100 * tried['none']:.2f} %" in line
    assert "the weights fit none" in line
    assert "taken instead of the data's own" in line
    assert heard.line("inputs: ") == "inputs: none (values as stored), which the weights fit"
    assert found.validation_accuracy > 0.9
    # The network learns, and is scored, on the same inputs.
    assert torch.equal(found.train.inputs(slice(0, 3)), torch.from_numpy(found.dataset.train.x[:3]))


def test_the_word_of_the_user_goes_before_what_fits(config: RunConfig) -> None:
    own, heard = prepared(replace(config, preprocessing="data"))
    assert (own.scaling.source, own.scaling.tried) == ("data", ())
    said = heard.line("--preprocessing none would give the unpruned network 9")
    assert f"instead of {100 * own.validation_accuracy:.1f} %" in said
    none, heard = prepared(replace(config, preprocessing="none"))
    assert none.scaling.source == "option"
    assert heard.line("inputs: ") == "inputs: none (values as stored), as --preprocessing says"
    assert none.validation_accuracy > 0.9


def test_numbers_give_what_the_owner_did(config: RunConfig, owned: Path) -> None:
    found, _ = prepared(replace(config, data=str(owned / "raw.npz"), preprocessing="-48,16"))
    assert found.dataset.preprocessing == OWNER
    assert found.validation_accuracy > 0.9


def test_an_entry_beside_the_data_is_the_data_s_own(config: RunConfig, owned: Path, tmp_path: Path) -> None:
    arrays = dict(np.load(owned / "raw.npz"))
    np.savez(tmp_path / "said.npz", **arrays, preprocessing=json.dumps({"scale": 1, "mean": -48, "std": 16}))
    found, heard = prepared(replace(config, data=str(tmp_path / "said.npz")))
    assert (found.dataset.preprocessing, found.scaling.source) == (OWNER, "entry")
    assert "the weights fit the data's own" in heard.line("input scaling tried on")


def test_a_resumed_run_keeps_what_it_began_with(config: RunConfig) -> None:
    folder = RunFolder.create(config.runs_dir, None, "run")
    first, _ = prepared(config, folder)
    again, heard = prepared(config, folder)
    assert again.scaling == first.scaling
    assert again.dataset.fingerprint == first.dataset.fingerprint
    assert not [line for line in heard.lines if line.startswith("input scaling tried")]
    content = json.loads((folder / "content.json").read_text())
    content["scaling"]["preprocessing"]["std"] = [2.0]
    folder.write_json("content.json", content)
    with pytest.raises(UsageError, match="data, weights, model or task changed since"):
        prepared(config, folder)
    content["scaling"]["preprocessing"]["std"] = [0.0]
    folder.write_json("content.json", content)
    with pytest.raises((StorageError, UsageError), match="above 0"):
        prepared(config, folder)


def test_a_function_that_returns_a_trained_network_is_taken_at_its_word(config: RunConfig, owned: Path) -> None:
    given = replace(config, weights=None, model=f"{owned / 'net.py'}:trained")
    found, heard = prepared(given)
    assert found.baseline == {"source": "model", "file": given.model}
    assert found.scaling.source == "weights"
    assert "taken as it is; --train-epochs N trains it further" in heard.line(given.model)
    on, heard = prepared(replace(given, train_epochs=1))
    assert on.baseline["source"] == "trained"
    assert "training goes on from its weights" in heard.line(given.model)
    fresh, heard = prepared(replace(given, model=f"{owned / 'net.py'}:fresh", train_epochs=1))
    assert (fresh.baseline["source"], fresh.scaling.source) == ("trained", "data")
    assert not [line for line in heard.lines if line.startswith("input scaling tried")]


def owner(data: Dataset, images: Split, epochs: int) -> nn.Module:
    """What an owner has: a network that was trained on these images until it knows them by heart."""
    torch.manual_seed(1)
    known = Batches(images, data.preprocessing)
    network = build("mlp-32-16", data.input_shape, len(data.classes))
    regime = Regime(epochs=epochs, learning_rate=1e-2, batch_size=32, seed=0)
    return train(network, Problem(known, known), regime, progress=Silent(), title="").network


@pytest.mark.parametrize("seen", [True, False], ids=["all images", "split as here"])
def test_validation_images_that_the_weights_saw_choose_no_epoch(config: RunConfig, tmp_path: Path, seen: bool) -> None:
    data = load_data("digits", None, seed=0, progress=Silent())
    images = data.train
    if seen:
        both = (data.train, data.validation)
        images = Split(np.concatenate([part.x for part in both]), np.concatenate([part.y for part in both]))
    save_weights(tmp_path / "owner.safetensors", owner(data, images, 40))
    mine = replace(config, data="digits", model="mlp-32-16", weights=tmp_path / "owner.safetensors")
    found, heard = prepared(mine)
    assert found.taken == ("last" if seen else "best")
    said = [line for line in heard.lines if "fine-tuning's last epoch is taken" in line]
    assert len(said) == seen
    assert tuner_of(found, heard).regime.taken == found.taken


def test_what_is_trained_here_has_not_seen_them(config: RunConfig) -> None:
    found, heard = prepared(replace(config, weights=None, train_epochs=1))
    assert found.taken == "best"
    assert not [line for line in heard.lines if "last epoch" in line]


def test_training_that_goes_on_from_such_weights_ends_with_its_last_epoch(
    config: RunConfig, owned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def watch(network: nn.Module, problem: Problem, regime: Regime, **options: Any) -> Fit:
        taken.append(regime.taken)
        return train(network, problem, regime, **options)

    monkeypatch.setattr("edgeprune.pipeline.baseline.train", watch)
    found, _ = prepared(replace(config, weights=None, model=f"{owned / 'net.py'}:trained", train_epochs=1))
    assert taken == [found.taken] == ["last"]


def dataset(x: np.ndarray, y: np.ndarray, **more: Any) -> Dataset:
    raw = from_arrays({"x_train": x, "y_train": y, "x_test": x, "y_test": y}, "here", **more)
    return make_dataset("here", raw, seed=0, validation_share=0.5)


def colours(count: int = 300) -> Dataset:
    """Pictures of three classes, of which channel 0, 1 or 2 is bright."""
    rng = np.random.default_rng(0)
    y = np.arange(count) % 3
    x = rng.integers(0, 100, (count, 3, 2, 2))
    x[np.arange(count), y] += 100
    return dataset(x.astype(np.uint8), y)


class Brightest(nn.Module):
    """Answers which channel is brightest, in an `order` of classes, where the mean of its input is about `expected`."""

    def __init__(self, order: tuple[int, ...] = (0, 1, 2), expected: float | None = None) -> None:
        super().__init__()
        self.order, self.expected = list(order), expected

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x.flatten(2).mean(2)[:, self.order]
        if self.expected is not None and abs(float(x.mean()) - self.expected) > 0.3 * abs(self.expected):
            return torch.zeros_like(out)
        return out


def judged(network: nn.Module, data: Dataset, scaling: Preprocessing | None = None, **more: Any) -> tuple[float, Heard]:
    heard = Heard()
    now = scaling or data.preprocessing
    options: dict[str, Any] = {"metric": "accuracy", "foreign": True} | more
    task = Classification(metric_named(options.pop("metric")))
    problem = Problem(Batches(data.train, now), Batches(data.validation, now), task)
    score = check_baseline(network, problem, data, now, heard, **options)
    return score, heard


def test_what_does_not_guess_is_not_refused() -> None:
    score, heard = judged(Brightest(), colours(), resolve("unit", colours()))
    assert score == 1.0
    assert heard.lines == []


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (
            Brightest((1, 2, 0)),
            r"the unpruned network guesses: 0.0 % of 150 validation images right, always answering '\d' gives 33.3 % .*"
            r"; the weights know the classes in another order, which gives 100.0 %: their outputs 0, 1, ... are 1, 2",
        ),
        (Brightest(expected=110.0), "100 % of its answers are '0'; --preprocessing none gives 100.0 %$"),
        (
            Brightest(expected=1e9),
            r"likely causes, in order: 1 input scaling \(tried unit 33.3 %, data 33.3 %, none 33.3 %.*, 2 order of the "
            r"classes \(.*, 3 order of the colours \(reversed 33.3 %\), 4 weights that are not trained$",
        ),
    ],
)
def test_what_guesses_is_refused_with_what_helps(network: nn.Module, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        judged(network, colours(), resolve("unit", colours()))


def test_colours_the_other_way_round_are_found() -> None:
    class Reddest(nn.Module):
        """Knows only whether the first channel is brighter than the last."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean = x.flatten(2).mean(2)
            return torch.stack([mean[:, 0] - mean[:, 2], mean[:, 2] - mean[:, 0]], 1)

    data = colours()
    y = (np.arange(300) % 2) * 2
    x = np.random.default_rng(1).integers(0, 100, (300, 3, 2, 2))
    x[np.arange(300), y] += 100
    right, wrong = dataset(x.astype(np.uint8), y // 2), dataset(x[:, ::-1].astype(np.uint8), y // 2)
    assert judged(Reddest(), right, resolve("unit", data))[0] == 1.0
    # Two classes in another order look the same; it is named first since it comes first.
    with pytest.raises(ModelError, match=r"the weights know the classes in another order, which gives 100.0 %"):
        judged(Reddest(), wrong, resolve("unit", data))


def test_a_network_that_does_much_better_with_other_colours_says_so() -> None:
    class Reader(nn.Module):
        """Tells two classes by which corner is bright, and where none is by whether red is brighter than blue."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            red, _, blue = x.flatten(2).mean(2).unbind(1)
            corner = (x[:, :, 0, 0] - x[:, :, 1, 1]).mean(1)
            return torch.stack([-4 * corner - red + blue, 4 * corner + red - blue], 1)

    y = np.arange(400) % 2
    x = np.random.default_rng(1).integers(0, 60, (400, 3, 2, 2))
    x[np.arange(400), :, 1 - y, 1 - y] += 150
    odd = np.arange(400) % 8 < 2
    x[odd] = np.random.default_rng(2).integers(100, 101, (odd.sum(), 3, 2, 2))
    x[odd, 2 - 2 * y[odd]] += 100
    for colours, told in ((x, False), (x[:, ::-1], True)):
        data = dataset(colours.astype(np.uint8), y)
        score, heard = judged(Reader(), data, resolve("unit", data))
        assert score == pytest.approx(0.75, abs=0.05) if told else score == 1.0
        said = [line for line in heard.lines if "with reversed colours (BGR for RGB)" in line]
        assert len(said) == told
        assert not told or "gets 100.0 % instead of" in said[0] or "it gets 100.0 %" in said[0]


def imbalanced(count: int = 1000, positives: int = 40) -> Dataset:
    x = np.zeros((count, 2), np.float32)
    x[:positives, 0] = 1.0
    x[:, 1] = np.arange(count)
    return dataset(x, (np.arange(count) < positives).astype(np.int64), entry="none")


class Answers(nn.Module):
    def __init__(self, answer: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(self.answer(x).long(), 2).float()


@pytest.mark.parametrize("metric", ["accuracy", "balanced-accuracy"])
def test_no_to_all_is_no_answer_by_either_metric(metric: str) -> None:
    score = "96.0 % of 500 validation images right" if metric == "accuracy" else "balanced accuracy 50.0 % on 500"
    with pytest.raises(
        ModelError, match=f"{score}.*; 100 % of its answers are '0'; likely causes, in order: trained too"
    ):
        judged(Answers(lambda x: x[:, 0] * 0), imbalanced(), metric=metric, foreign=False)


def test_a_rare_class_that_is_found_counts_and_is_spoken_of() -> None:
    score, heard = judged(Answers(lambda x: x[:, 0]), imbalanced(), foreign=False)
    assert score == 1.0
    assert heard.lines[0].startswith(
        "96.0 % of the validation images are of class '0': accuracy says little of the others"
    )
    # Every tenth negative is a false alarm: worse than the answer "no" by accuracy.
    alarms = Answers(lambda x: (x[:, 0] > 0) | (x[:, 1] % 10 == 0))
    with pytest.raises(ModelError, match=r"by --metric balanced-accuracy it does not guess: 9\d\.\d %"):
        judged(alarms, imbalanced(), foreign=False)
    assert judged(alarms, imbalanced(), metric="balanced-accuracy", foreign=False)[0] > 0.9


def test_better_is_more_than_luck() -> None:
    def answers(right: int) -> Compared:
        merits = (np.arange(100) < right).astype(np.float64)
        return Compared("", right / 100, merits.astype(np.float32), merits, guesses=False)

    for right, told in ((5, False), (9, False), (12, True)):
        assert better(answers(right), answers(0)) is told
    assert not better(answers(0), answers(0))


def test_what_is_tried_is_what_people_use() -> None:
    x = np.random.default_rng(0).integers(0, 256, (60, 3, 4, 4)).astype(np.uint8)
    x[0, 0, 0, 0], y = 255, np.arange(60) % 2
    photos = scalings(dataset(x, y))
    assert list(photos)[:4] == ["data", "none", "unit", "0.5,0.5"]
    assert len(next(reversed(photos)).split(",")) == 6
    floats = scalings(dataset(x.astype(np.float32), y))
    assert {"0,255", "127.5,127.5", "123.7,116.3,103.5,58.4,57.12,57.38"} <= set(floats)
    unit = scalings(dataset((x / 255).astype(np.float32), y))
    assert {"none", "0.5,0.5", "0.485,0.456,0.406,0.229,0.224,0.225"} <= set(unit)
    table = scalings(dataset(np.random.default_rng(0).normal(size=(60, 5)), y))
    assert list(table)[:2] == ["data", "none"]
    for made in (photos, floats, unit, table):
        values = [given.apply(np.full((1, len(given.mean)), 3.0)).tobytes() for given in made.values()]
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("metric", ["accuracy", "balanced-accuracy"])
def test_images_that_were_trained_on_are_told_by_either_metric(metric: str) -> None:
    """Seven in ten of the validation images are right, all of the training images, which are four times as many."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 2500)
    answers = labels.copy()
    answers[:150] = 1 - answers[:150]
    x = (2.0 * answers - 1).astype(np.float32)[:, None]
    none = Preprocessing(1.0, (0.0,), (1.0,))
    parts = [Batches(Split(x[part], labels[part]), none) for part in (slice(0, 500), slice(500, None))]
    found = how_familiar(nn.Identity(), Problem(parts[1], parts[0], Binary(metric_named(metric))))
    assert found.told_apart
    assert found.said == "70.00 % of validation and 100.00 % of training images are right"
