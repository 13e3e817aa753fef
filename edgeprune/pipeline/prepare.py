"""Stage one: data, network, baseline, and what of it may be pruned."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from edgeprune.core.errors import ModelError, StorageError, UsageError
from edgeprune.core.files import sha256_file
from edgeprune.core.progress import Progress
from edgeprune.core.reading import Source
from edgeprune.core.store import RunFolder
from edgeprune.core.types import RuntimeName
from edgeprune.data.catalog import load_data
from edgeprune.data.dataset import Dataset
from edgeprune.models.source import load_weights, make_model
from edgeprune.models.weights import save_weights
from edgeprune.models.zoo import ZOO, is_finite
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.staying import tell_frozen, tell_stays
from edgeprune.pruning.groups import discover
from edgeprune.pruning.held import frozen_parameters
from edgeprune.pruning.structure import Structure
from edgeprune.training.augmentation import Augmentation
from edgeprune.training.batches import Batches
from edgeprune.training.fit import score, train

#: Values a layer may read and still be refitted: its Gram matrix then takes half a gigabyte.
MAX_COLUMNS = 8192


@dataclass(frozen=True, slots=True)
class _Note:
    """What is read of a baseline.json."""

    key: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Schedule:
    """What the options leave open, settled for this network and this data."""

    train_epochs: int
    finetune_epochs: int
    batch_size: int
    learning_rate: float
    #: Of distillation.
    temperature: float
    #: How training images are changed, of the baseline and of the pruned network alike.
    augmentation: Augmentation | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that is fixed before the search begins."""

    dataset: Dataset
    train: Batches
    validation: Batches
    network: nn.Module
    structure: Structure
    schedule: Schedule
    #: Share of the validation images the unpruned network classifies right.
    validation_accuracy: float
    #: How the baseline came about: {"source": "weights" | "trained" | "cached", ...}.
    baseline: dict[str, Any]


def prepare(config: RunConfig, folder: RunFolder, progress: Progress, runtime: RuntimeName) -> Prepared:
    """Load or train everything; `runtime` is the one that widths are snapped for.

    Raises UsageError and its children for what cannot be used.
    """
    dataset = load_data(
        config.data, config.data_dir, seed=config.seed, validation_share=config.validation_share, progress=progress
    )
    progress.say(
        f"data {dataset.name}: {len(dataset.train)} train, {len(dataset.validation)} validation, "
        f"{len(dataset.test)} test, "
        f"inputs {'x'.join(map(str, dataset.input_shape))}, {len(dataset.classes)} classes"
    )
    torch.manual_seed(config.seed)
    network = make_model(config.model, dataset.input_shape, len(dataset.classes))
    train_set = Batches(dataset.train, dataset.preprocessing)
    validation = Batches(dataset.validation, dataset.preprocessing)
    tell_frozen(network, config.prune_frozen, progress)
    # Groups are found before anything is trained: a model with nothing to prune should not cost an hour first.
    structure = discover(
        network,
        dataset.input_shape,
        runtime=runtime,
        prune_inputs=config.prune_inputs,
        multiple_of=config.multiple_of,
        max_sparsity=config.max_sparsity,
        max_columns=MAX_COLUMNS if config.repairs or config.criterion == "reconstruction" else None,
        prune_frozen=config.prune_frozen,
    )
    schedule = _schedule(config, dataset, convolutional(network))
    baseline = _baseline(config, folder, network, train_set, validation, schedule, dataset, progress)
    network.eval()
    tell_stays(structure, progress, folder.log)
    accuracy = score(network, validation)
    progress.say(
        f"unpruned network: validation accuracy {100 * accuracy:.2f} %, {len(structure.groups)} groups to prune"
    )
    if accuracy <= 1.0 / len(dataset.classes):
        raise ModelError(
            f"the unpruned network is no better than guessing ({100 * accuracy:.1f} % on validation)",
            "give trained --weights, train longer (--train-epochs), or check the order of the classes",
        )
    _same_content(folder, dataset, network)
    return Prepared(dataset, train_set, validation, network, structure, schedule, accuracy, baseline)


def convolutional(network: nn.Module) -> bool:
    """Whether the network convolves: images cost more then, and defaults differ."""
    return any(isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) for module in network.modules())


def _schedule(config: RunConfig, dataset: Dataset, convolves: bool) -> Schedule:
    images = len(dataset.train)
    # About a million images in all, at least 20 and at most 60 times each.
    train_epochs = min(60, max(20, round(1_000_000 / images)))
    finetune_epochs = 10 if convolves else min(60, max(30, round(1_500_000 / images)))
    return Schedule(
        train_epochs=config.train_epochs if config.train_epochs is not None else train_epochs,
        finetune_epochs=config.finetune_epochs if config.finetune_epochs is not None else finetune_epochs,
        batch_size=32 if images < 5000 else 128,
        learning_rate=2e-3,
        temperature=config.temperature or (3.0 if convolves else 1.0),
        augmentation=None
        if config.augmentation == "none"
        else Augmentation.fit(dataset.input_shape, mirrors=dataset.mirrors),
    )


def _baseline(
    config: RunConfig,
    folder: RunFolder,
    network: nn.Module,
    train_set: Batches,
    validation: Batches,
    schedule: Schedule,
    dataset: Dataset,
    progress: Progress,
) -> dict[str, Any]:
    """Fill `network` with trained weights: the user's, those of an earlier run of the same content, or fresh ones."""
    how: dict[str, Any]
    if config.weights is not None:
        load_weights(network, config.weights, progress.say)
        how = {"source": "weights", "file": str(config.weights), "sha256": sha256_file(config.weights)}
    else:
        key = _training_key(config, schedule, dataset, network)
        how = {"source": "trained", "epochs": schedule.train_epochs, "key": key}
        earlier = _earlier_baseline(config.runs_dir, key, network, progress.say)
        if earlier is not None:
            how["source"] = "cached"
            progress.say(f"baseline taken from {earlier} (same data, model, seed and epochs)")
        else:
            fit = train(
                network,
                train_set,
                validation,
                epochs=schedule.train_epochs,
                learning_rate=schedule.learning_rate,
                batch_size=schedule.batch_size,
                seed=config.seed,
                progress=progress,
                title="training the baseline",
                augmentation=schedule.augmentation,
            )
            if not is_finite(fit.network):
                raise ModelError("training the baseline diverged", "check the data, or give trained --weights")
            network.load_state_dict(fit.network.state_dict())
    path = folder / "baseline.safetensors"
    save_weights(path, network)
    if "key" in how:
        folder.write_json("baseline.json", {"key": how["key"], "sha256": sha256_file(path)})
    return how


def _training_key(config: RunConfig, schedule: Schedule, dataset: Dataset, network: nn.Module) -> str:
    digest = hashlib.sha256()
    # Of the schedule what the baseline depends on; how it is fine-tuned later is not.
    training = (schedule.train_epochs, schedule.batch_size, schedule.learning_rate, schedule.augmentation)
    digest.update(repr((config.model, training, config.seed, dataset.fingerprint)).encode())
    digest.update(_frozen(network))
    # The untrained weights stand for the user's code and the seed in one.
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def _frozen(network: nn.Module) -> bytes:
    """What the user froze, for a hash: nothing where nothing is frozen."""
    return "".join(frozen_parameters(network)).encode()


def _earlier_baseline(runs: Path, key: str, network: nn.Module, say: Callable[[str], None]) -> Path | None:
    """Load the newest whole baseline of the same key from the run folders beside this one; `say` hears of damaged ones.

    A damaged neighbour is no reason to fail: the baseline is trained again.
    """
    for note in sorted(runs.glob("*/baseline.json"), key=_written, reverse=True):
        weights = note.with_name("baseline.safetensors")
        hint = "it is passed over"
        try:
            said = Source(note, StorageError, hint).read_json(_Note)
            if said.key != key:
                continue
            with Source(weights, StorageError, hint).guarded():
                if sha256_file(weights) != said.sha256:
                    raise ValueError("its hash is not the one in baseline.json")
                network.load_state_dict(load_file(weights))
            return weights
        except StorageError as error:
            say(str(error))
    return None


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # its run, another process, has just been refused and has gone
        return 0.0


def _same_content(folder: RunFolder, dataset: Dataset, network: nn.Module) -> None:
    """Raises UsageError where a resumed run's data, weights or code are not what its trials were made with."""
    digest = hashlib.sha256((dataset.fingerprint + repr(network)).encode() + _frozen(network))
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    content = {"content": digest.hexdigest()}
    if not (folder / "content.json").exists():
        folder.write_json("content.json", content)
    elif folder.read_json("content.json", dict[str, Any]) != content:
        raise UsageError(
            f"data, weights or model changed since run '{folder.path.name}' began",
            "start a new run instead of resuming",
        )


def default_stem(config: RunConfig) -> str:
    """A run's name from its model and its data."""

    def short(spec: str) -> str:
        return spec if spec in ZOO else Path(spec.partition(":")[0]).stem

    return f"{short(config.model)}-{short(config.data)}"
