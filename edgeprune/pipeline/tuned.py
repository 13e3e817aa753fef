"""Tuned networks of a run, kept in `tuned/` of its folder: what was tuned is not tuned again, it only goes on.

KEY-finalist.json, KEY-winner.json   one network each, by its trial's plan; it names its weights and their hash
KEY-ROLE-HASH.safetensors            the weights

The note is written after the weights, and in place of an older one: a process that is killed leaves a whole network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from safetensors.torch import load_file
from torch import nn

from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import StorageError
from edgeprune.core.files import sha256_file, storing, write_bytes, write_json
from edgeprune.core.inputs import Shape
from edgeprune.core.plain import to_json
from edgeprune.core.reading import Source
from edgeprune.core.schema import TUNED_SCHEMA, read_record
from edgeprune.core.store import RunFolder
from edgeprune.core.version import VERSION
from edgeprune.models.weights import weights_bytes
from edgeprune.pipeline.records.weights import WeightsFile
from edgeprune.pruning.surgery import cut
from edgeprune.training.fit import Fit

#: A finalist was tuned for a part of the epochs, a winner for all.
Role = Literal["finalist", "winner"]
_FOLDER = "tuned"
_HINT = f"remove the run's folder {_FOLDER}, and what is in it is tuned again"
_Share = Annotated[float, Field(ge=0, le=1)]
_Amount = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedNote:
    """What a `tuned/KEY-ROLE.json` holds."""

    schema: int = TUNED_SCHEMA
    #: The version that wrote it.
    edgeprune: str = VERSION
    #: What the network keeps of the unpruned one.
    plan: PruningPlan
    #: Epochs that were asked for; minutes with `--finetune-minutes`.
    asked: _Amount
    #: On validation images, a share; and after each epoch.
    accuracy: _Share
    history: tuple[_Share, ...]
    #: Gone through; a fraction where the time was over in the middle of one.
    epochs: _Amount
    weights: WeightsFile


@dataclass(frozen=True, slots=True)
class Kept:
    """A tuned network: what it keeps of the unpruned one, and the epochs (or minutes) that were asked for."""

    plan: PruningPlan
    fit: Fit
    asked: float


class TunedNetworks:
    """The tuned networks of one run; `network` is the unpruned one, of inputs (N, *shape).

    Raises UsageError for a file of another schema, StorageError where one is damaged or cannot be written.
    """

    def __init__(self, folder: RunFolder, network: nn.Module, shape: Shape) -> None:
        self._folder = folder / _FOLDER
        self._network = network
        self._shape = shape

    def get(self, trial: PruningPlan, role: Role) -> Kept | None:
        """What came of a trial's plan; None where it was not tuned yet."""
        path = self._folder / f"{trial.key}-{role}.json"
        if not path.exists():
            return None
        note = _read(path)
        weights = self._folder / note.weights.file
        with Source(weights, StorageError, _HINT).guarded():
            network = cut(self._network, self._shape, note.plan)
            network.load_state_dict(load_file(weights))
        return Kept(note.plan, Fit(network.eval(), note.accuracy, note.history, note.epochs), note.asked)

    def put(self, trial: PruningPlan, role: Role, kept: Kept) -> None:
        """Keep what came of a trial's plan, in place of what was kept of it before in that role."""
        name = f"{trial.key}-{role}"
        with storing(self._folder):
            self._folder.mkdir(exist_ok=True)
        data = weights_bytes(kept.fit.network)
        sha256 = hashlib.sha256(data).hexdigest()
        weights = self._folder / f"{name}-{sha256[:16]}.safetensors"
        write_bytes(weights, data)
        note = TunedNote(
            plan=kept.plan,
            asked=kept.asked,
            accuracy=kept.fit.accuracy,
            history=kept.fit.history,
            epochs=kept.fit.epochs,
            weights=WeightsFile(weights.name, sha256),
        )
        write_json(self._folder / f"{name}.json", to_json(note))
        with storing(self._folder):
            for old in self._folder.glob(f"{name}-*.safetensors"):
                if old != weights:
                    old.unlink(missing_ok=True)

    def asked(self, role: Role) -> float | None:
        """The most epochs (or minutes) that any network of this role was tuned for; None where there is none."""
        return _most(self._folder, role)


def check_tuned(folder: RunFolder) -> float | None:
    """The most epochs (or minutes) that any network of a run was tuned for; None where none was.

    Reads all that a resumed run will read of `tuned/`, before anything long. Raises as `TunedNetworks`.
    """
    for path in _notes(folder / _FOLDER):
        weights = _read(path).weights
        file = folder / _FOLDER / weights.file
        source = Source(file, StorageError, _HINT)
        with source.guarded():
            found = sha256_file(file)
        if found != weights.sha256:
            raise source.refusal(f"its hash is not the one in {path.name}")
    return _most(folder / _FOLDER)


def _notes(folder: Path, role: Role | Literal["*"] = "*") -> Iterator[Path]:
    yield from sorted(folder.glob(f"*-{role}.json"))


def _most(folder: Path, role: Role | Literal["*"] = "*") -> float | None:
    return max((_read(path).asked for path in _notes(folder, role)), default=None)


def _read(path: Path) -> TunedNote:
    source = Source(path, StorageError, _HINT)
    note = read_record(source, TunedNote, TUNED_SCHEMA, _HINT)
    if Path(note.weights.file).name != note.weights.file:
        raise source.refusal("its weights are not in the same folder")
    return note
