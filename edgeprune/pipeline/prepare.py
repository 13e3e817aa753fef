"""Stage one: data, network, baseline, and what of it may be pruned."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from edgeprune.core.errors import ModelError, StorageError, UsageError
from edgeprune.core.files import sha256_file
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Progress
from edgeprune.core.reading import Source
from edgeprune.core.runtimes import RuntimeName
from edgeprune.core.store import RunFolder
from edgeprune.core.userfile import is_user_function
from edgeprune.data.catalog import load_data
from edgeprune.data.dataset import Dataset
from edgeprune.data.split import as_given, channels_first, preprocessed
from edgeprune.models.plain import check_steady, is_waiting, make_plain
from edgeprune.models.source import answered, load_weights, make_model
from edgeprune.models.weights import save_weights
from edgeprune.models.zoo import ZOO, is_finite
from edgeprune.pipeline.bounds import read_drop
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.guessing import check_baseline
from edgeprune.pipeline.placing import UNSETTLED, Training, first_place, settle_precision, settle_training, train_device
from edgeprune.pipeline.rehearse import Shipped
from edgeprune.pipeline.scaling import WHY, Scaling, settle_scaling
from edgeprune.pipeline.seen import how_familiar
from edgeprune.pipeline.settings import Facts, Schedule, Settled, settle
from edgeprune.pipeline.staying import tell_frozen, tell_stays
from edgeprune.pruning.groups import discover
from edgeprune.pruning.held import frozen_parameters
from edgeprune.pruning.kinds import convolutional
from edgeprune.pruning.structure import INPUTS, Structure
from edgeprune.tasks.metrics import Yardstick
from edgeprune.tasks.resolve import check_fits, settle_task
from edgeprune.tasks.task import CLASSIFICATION, Task
from edgeprune.training.batches import Batches
from edgeprune.training.fit import Taken, train
from edgeprune.training.heap import keep_freed_memory
from edgeprune.training.place import PLAIN, Place

#: Values a layer may read and still be refitted: its Gram matrix then takes half a gigabyte.
MAX_COLUMNS = 8192


@dataclass(frozen=True, slots=True)
class _Note:
    """What is read of a baseline.json."""

    key: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that is fixed before the search begins."""

    dataset: Dataset
    train: Batches
    validation: Batches
    network: nn.Module
    structure: Structure
    facts: Facts
    settled: Settled
    task: Task
    #: A zoo network, or FILE.py:FUNCTION.
    model: str
    #: The unpruned network's quality on validation, by the task's metric.
    validation_accuracy: float
    #: How the baseline came about: {"source": "weights" | "model" | "trained" | "cached", ...}.
    baseline: dict[str, Any]
    #: How inputs are scaled, and why so; `dataset` has it already.
    scaling: Scaling
    #: The formats that are exported.
    shipped: Shipped
    #: Where networks are trained and scored.
    training: Training = UNSETTLED
    #: Which epoch of fine-tuning is taken: the last where the weights came trained, perhaps on validation images too.
    taken: Taken = "best"

    @property
    def schedule(self) -> Schedule:
        """How the baseline is trained and the pruned network tuned."""
        return self.settled.schedule

    @property
    def yardstick(self) -> Yardstick:
        """What qualities on validation are in the metric's own terms."""
        return Yardstick.on(self.task.metric, self.validation.y.numpy())

    @property
    def place(self) -> Place:
        """Where networks are trained and scored."""
        return self.training.place


@dataclass(frozen=True, slots=True)
class Content:
    """What content.json holds: a hash of data, weights and code that trials were made with, and what was settled.

    `scaling` is None in the folders of older versions, which trained in the plain place.
    """

    content: str
    scaling: Scaling | None = None
    training: Training = UNSETTLED


def prepare(
    config: RunConfig,
    folder: RunFolder,
    progress: Progress,
    runtime: RuntimeName,
    try_formats: Callable[[nn.Module, Batches], Shipped] | None = None,
    dataset: Dataset | None = None,
) -> Prepared:
    """Load or train everything; `runtime` is the one that widths are snapped for.

    `try_formats` is asked for what ships before anything is trained, with the untrained network and the validation
    data (see `rehearse`); without it all formats of `config` do. `dataset`: that of `config`, loaded before.
    Raises UsageError and its children for what cannot be used.
    """
    # A device that is not there is told before anything is loaded.
    train_device(config)
    found = _found(config, progress, runtime, dataset)
    dataset, network, structure, task = found.dataset, found.network, found.structure, found.task
    facts, settled = found.facts, found.settled
    # So is a format that cannot be exported, or that the device does not run.
    shipped = Shipped(config.exported)
    if try_formats is not None:
        shipped = try_formats(network, Batches(dataset.validation, dataset.preprocessing))
    schedule = settled.schedule
    stored = _stored(folder)
    scaling, trained = settle_scaling(config, stored.scaling if stored else None, network, dataset, progress, task)
    as_loaded, dataset = dataset, preprocessed(dataset, scaling.preprocessing)
    train_set = Batches(dataset.train, dataset.preprocessing)
    validation = Batches(dataset.validation, dataset.preprocessing)
    if facts.convolves and train_device(config) == "cpu":
        keep_freed_memory()
    training = settle_training(
        config, stored.training if stored else None, network, train_set, schedule.batch_size, progress, task=task
    )
    place = first_place(config, training)
    familiar = how_familiar(network, train_set, validation, task) if trained else None
    taken: Taken = "best" if familiar is None or familiar.told_apart else "last"
    baseline = _baseline(
        config, folder, network, train_set, validation, schedule, place, dataset, trained, progress, taken, task
    )
    network.eval()
    tell_stays(structure, progress, folder.log)
    quality = check_baseline(task, network, as_loaded, validation, scaling.preprocessing, progress, foreign=trained)
    yardstick = Yardstick.on(task.metric, validation.y.numpy())
    progress.say(
        f"unpruned network: validation {task.metric.title} {yardstick.show(quality)}, "
        f"{len(structure.groups)} groups to prune"
    )
    if familiar is not None and taken == "last":
        progress.say(
            f"{familiar.said}: the weights may have been trained on both, so fine-tuning's last epoch is taken, and "
            "not validation's best"
        )
    if stored is None:
        training = settle_precision(config, training, network, validation, progress, task)
    _same_content(folder, stored, dataset, network, scaling, training)
    if config.train_epochs is None and baseline["source"] in ("weights", "model"):
        # Asked for, training would go on from the user's weights.
        settled = settled.without("train_epochs")
    settled = settled.found("task", task.name, "worked out from the targets and the answers")
    settled = settled.found("max_drop", _drop(task), "a network that is fast and wrong is of no use")
    settled = settled.found("metric", task.metric.name, f"usual for {task.name}")
    settled = settled.found("preprocessing", scaling.name, WHY[scaling.source])
    settled = settled.found("train_device", training.place.device, "what torch finds here, and the network bears")
    pace = (
        f"{training.speedup(training.place):.2f}x the pace of float32" if training.timed else "nothing to choose from"
    )
    settled = settled.found("train_precision", training.place.precision, pace)
    return Prepared(
        dataset,
        train_set,
        validation,
        network,
        structure,
        facts,
        settled,
        task,
        config.model,
        quality,
        baseline,
        scaling,
        shipped,
        training,
        taken,
    )


def untrained(config: RunConfig, progress: Progress, runtime: RuntimeName) -> Prepared:
    """As `prepare`, with the weights that the network comes with, and nothing tried: for what does not hang on them."""
    found = _found(config, progress, runtime, None)
    preprocessing = found.dataset.preprocessing
    return Prepared(
        found.dataset,
        Batches(found.dataset.train, preprocessing),
        Batches(found.dataset.validation, preprocessing),
        found.network.eval(),
        found.structure,
        found.facts,
        found.settled,
        found.task,
        config.model,
        1.0,
        {"source": "untrained"},
        Scaling(preprocessing, "data"),
        Shipped(config.exported),
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known before anything is trained."""

    dataset: Dataset
    network: nn.Module
    structure: Structure
    task: Task
    facts: Facts
    settled: Settled


def _found(config: RunConfig, progress: Progress, runtime: RuntimeName, dataset: Dataset | None) -> _Found:
    dataset = dataset or load_data(
        config.data,
        config.data_dir,
        seed=config.seed,
        validation_share=config.validation_share,
        progress=progress,
        task=config.task,
    )
    progress.say(
        f"data {dataset.name}: {len(dataset.train)} train, {len(dataset.validation)} validation, "
        f"{len(dataset.test)} test, "
        f"inputs {'x'.join(map(str, dataset.input_shape))}, {dataset.examples}"
    )
    torch.manual_seed(config.seed)
    network, dataset, task = _network(config, dataset, progress)
    if config.max_drop is not None:
        task.metric.check_drop(read_drop(config.max_drop)[1])
    # As they were saved, which may be before they are plain.
    if config.weights is not None:
        load_weights(network, config.weights, progress.say)
    for line in make_plain(network):
        progress.say(line)
    check_steady(network, config.model, dataset.input_shape)
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
    facts = facts_of(dataset, network, structure, runtime, task)
    return _Found(dataset, network, structure, task, facts, settle(config, facts))


def _network(config: RunConfig, dataset: Dataset, progress: Progress) -> tuple[nn.Module, Dataset, Task]:
    """The untrained network, the data in the layout that it takes, and the task.

    The user's own takes inputs as images (N, C, H, W), or, where it does not, as they were given; one of the zoo takes
    images. Raises ModelError where none of these is taken, or the answers do not fit the targets.
    """
    network = make_model(config.model, dataset.input_shape, dataset.outputs)
    lazy = is_waiting(network)
    ways = (dataset, as_given(dataset), channels_first(dataset)) if is_user_function(config.model) else (dataset,)
    errors: dict[Dataset, ModelError] = {}
    for way in ways:
        if way is None:
            continue
        train = way.train
        if lazy:
            # A try that fails may have given its layers shapes.
            network = make_model(config.model, way.input_shape, way.outputs)
        try:
            output = answered(network, config.model, way.input_shape)
            task = settle_task(
                config.task, config.metric, way.targets, train.y, way.classes, output,
                same=train.x.size == train.y.size and np.array_equal(train.x.ravel(), train.y.ravel()),
            )  # fmt: skip
            check_fits(task, config.model, output, train.y, way.classes, way.examples)
        except ModelError as misfit:
            errors[way] = misfit
            continue
        how = "" if config.task else ", worked out from the targets"
        progress.say(f"task: {task.name}{how}; judged by {task.metric.title}")
        if way is not dataset:
            how = "as they are given" if way.laid_out == "given" else "with their last axis as the first"
            progress.say(f"inputs are taken {how}: {'x'.join(map(str, way.input_shape))}")
        return network, way, task
    raise errors[dataset]


def _drop(task: Task) -> float | str:
    drop = task.metric.usual_drop
    return drop if task.metric.share else f"{drop:g}%"


def facts_of(
    dataset: Dataset, network: nn.Module, structure: Structure, runtime: RuntimeName, task: Task = CLASSIFICATION
) -> Facts:
    """What settings are decided by; `runtime` is the one that is measured."""
    return Facts(
        images=len(dataset.train),
        shape=dataset.input_shape,
        moves=task.moves,
        mirrors=dataset.mirrors,
        validation=len(dataset.validation),
        convolves=convolutional(network),
        macs=sum(cost.macs for cost in structure.costs.values()),
        groups=len(structure.groups),
        inputs=None if structure.input_layer is None else any(group.name == INPUTS for group in structure.groups),
        runtime=runtime,
    )


def _baseline(
    config: RunConfig,
    folder: RunFolder,
    network: nn.Module,
    train_set: Batches,
    validation: Batches,
    schedule: Schedule,
    place: Place,
    dataset: Dataset,
    trained: bool,
    progress: Progress,
    taken: Taken,
    task: Task,
) -> dict[str, Any]:
    """Fill `network` with trained weights: those of an earlier run of the same content, or fresh ones.

    The user's own, from a file or from the function that made the network, stay as they are. Training goes on from the
    latter where epochs are asked for.
    """
    how: dict[str, Any]
    if config.weights is not None:
        how = {"source": "weights", "file": str(config.weights), "sha256": sha256_file(config.weights)}
    elif trained and not config.train_epochs:
        how = {"source": "model", "file": config.model}
        progress.say(
            f"{config.model} returns a trained network, which is taken as it is; --train-epochs N trains it further"
        )
    else:
        if trained:
            progress.say(f"{config.model} returns a trained network; training goes on from its weights")
        key = _training_key(config, schedule, place, dataset, network, task)
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
                task=task,
                place=place,
                taken=taken,
            )
            if not is_finite(fit.network):
                raise ModelError("training the baseline diverged", "check the data, or give trained --weights")
            network.load_state_dict(fit.network.state_dict())
    path = folder / "baseline.safetensors"
    save_weights(path, network)
    if "key" in how:
        folder.write_json("baseline.json", {"key": how["key"], "sha256": sha256_file(path)})
    return how


def _training_key(
    config: RunConfig, schedule: Schedule, place: Place, dataset: Dataset, network: nn.Module, task: Task
) -> str:
    digest = hashlib.sha256()
    # Of the schedule what the baseline depends on; how it is fine-tuned later is not.
    training = (schedule.train_epochs, schedule.batch_size, schedule.learning_rate, schedule.augmentation)
    # What is learnt hangs on the task, and which epoch is kept on the metric.
    judged = () if task == CLASSIFICATION else (task.name, task.metric.name)
    where = () if place == PLAIN else (place,)
    digest.update(repr((config.model, training, config.seed, dataset.fingerprint, *judged, *where)).encode())
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


def _stored(folder: RunFolder) -> Content | None:
    """What the run that is resumed began with; None for a new one. Raises StorageError where it is damaged."""
    return folder.read_json("content.json", Content) if (folder / "content.json").exists() else None


def _same_content(
    folder: RunFolder,
    stored: Content | None,
    dataset: Dataset,
    network: nn.Module,
    scaling: Scaling,
    training: Training,
) -> None:
    """Raises UsageError where a resumed run's data, weights or code are not what its trials were made with."""
    digest = hashlib.sha256((dataset.fingerprint + repr(network)).encode() + _frozen(network))
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    if stored is None:
        folder.write_json("content.json", to_json(Content(digest.hexdigest(), scaling, training)))
    elif stored.content != digest.hexdigest():
        raise UsageError(
            f"data, weights or model changed since run '{folder.path.name}' began",
            "start a new run instead of resuming",
        )


def default_stem(config: RunConfig) -> str:
    """A run's name from its model and its data."""

    def short(spec: str) -> str:
        return spec if spec in ZOO else Path(spec.partition(":")[0]).stem

    return f"{short(config.model)}-{short(config.data)}"
