"""The unpruned network's weights: the user's, an earlier run's, or trained here; and which run they are of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from edgeprune.core.errors import ModelError, StorageError
from edgeprune.core.files import sha256_file
from edgeprune.core.progress import Progress
from edgeprune.core.reading import Source
from edgeprune.core.store import RunFolder
from edgeprune.data.dataset import Dataset
from edgeprune.models.weights import save_weights
from edgeprune.models.zoo import is_finite
from edgeprune.pipeline.config import RunConfig
from edgeprune.pruning.held import frozen_parameters
from edgeprune.tasks.task import CLASSIFICATION, Task
from edgeprune.training.fit import train
from edgeprune.training.place import PLAIN
from edgeprune.training.problem import Problem
from edgeprune.training.regime import Regime


@dataclass(frozen=True, slots=True)
class _Note:
    """What is read of a baseline.json."""

    key: str
    sha256: str


def make_baseline(
    config: RunConfig,
    folder: RunFolder,
    network: nn.Module,
    problem: Problem,
    regime: Regime,
    dataset: Dataset,
    progress: Progress,
    *,
    trained: bool,
) -> dict[str, Any]:
    """Fill `network` with trained weights: those of an earlier run of the same content, or fresh ones by the `regime`.

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
        key = _training_key(config, regime, dataset, network, problem.task)
        how = {"source": "trained", "epochs": regime.epochs, "key": key}
        earlier = earlier_baseline(config.runs_dir, key, network, progress.say)
        if earlier is not None:
            how["source"] = "cached"
            progress.say(f"baseline taken from {earlier} (same data, model, seed and epochs)")
        else:
            fit = train(network, problem, regime, progress=progress, title="training the baseline")
            if not is_finite(fit.network):
                raise ModelError("training the baseline diverged", "check the data, or give trained --weights")
            network.load_state_dict(fit.network.state_dict())
    path = folder / "baseline.safetensors"
    save_weights(path, network)
    if "key" in how:
        folder.write_json("baseline.json", {"key": how["key"], "sha256": sha256_file(path)})
    return how


def _training_key(config: RunConfig, regime: Regime, dataset: Dataset, network: nn.Module, task: Task) -> str:
    digest = hashlib.sha256()
    training = (regime.epochs, regime.batch_size, regime.learning_rate, regime.augmentation)
    # What is learnt hangs on the task, and which epoch is kept on the metric.
    judged = () if task == CLASSIFICATION else task.key
    where = () if regime.place == PLAIN else (regime.place,)
    digest.update(repr((config.model, training, regime.seed, dataset.fingerprint, *judged, *where)).encode())
    digest.update(frozen_names(network))
    # The untrained weights stand for the user's code and the seed in one.
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def frozen_names(network: nn.Module) -> bytes:
    """What the user froze, for a hash: nothing where nothing is frozen."""
    return "".join(frozen_parameters(network)).encode()


def earlier_baseline(runs: Path, key: str, network: nn.Module, say: Callable[[str], None]) -> Path | None:
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
