"""Settings of `bench conv`, and its protocol: what each network is compared on, and for how long."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from edgeprune.core.errors import UsageError, did_you_mean
from edgeprune.papers.conv.records import Settings
from edgeprune.search.methods import METHODS, Method
from edgeprune.search.tpe import tpe

#: The row without a search: a narrower network of the same family, trained from scratch.
SCRATCH = "scratch"
#: The searches, alike in all but what they propose: the same criterion, repair, tuning and number of candidates.
SEARCHES: Mapping[str, Method] = {
    **{name: METHODS[name] for name in ("edgeprune", "amc", "greedy", "random", "uniform")},
    "tpe": replace(METHODS["random"], search=tpe),
}
ROWS = (*SEARCHES, SCRATCH)
_HELP = "see edgeprune bench conv --help"


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What one network is compared on. Options change it for all networks alike."""

    #: A data set's name, or a file in the folder of data sets; `weights` is one there, too.
    data: str
    weights: str | None = None
    #: Of one input, for the estimate.
    shape: tuple[int, int, int]
    #: Bounds on latency, shares of the unpruned network's.
    bounds: tuple[float, ...]
    seeds: int
    #: Training images; a third as many validate.
    images: int
    #: Of the unpruned network. Of one with weights: what a network that is trained from scratch gets in their place.
    train_epochs: int
    finetune_epochs: int
    #: Candidates of every search, and the steps each is tuned for.
    episodes: int
    search_steps: int
    #: The methods whose plans are fine-tuned; the others are compared by the search's score.
    finished: tuple[str, ...] = ROWS

    def settings(self) -> Settings:
        """What all cells of a network share, for bench.json; bounds, seeds and methods may be added."""
        return Settings(**{field.name: getattr(self, field.name) for field in fields(Settings)})


#: Chosen so that all of it takes about five hours on two slow cores.
NETWORKS: Mapping[str, Protocol] = {
    "ds-cnn": Protocol(
        data="fashion-mnist",
        shape=(1, 28, 28),
        bounds=(0.7, 0.5, 0.35),
        seeds=3,
        images=6000,
        train_epochs=8,
        finetune_epochs=5,
        episodes=20,
        search_steps=10,
    ),
    "mobilenetv2-small": Protocol(
        data="cifar10-jpeg.zip",
        shape=(3, 32, 32),
        bounds=(0.7, 0.5, 0.35),
        seeds=2,
        images=5000,
        train_epochs=5,
        finetune_epochs=2,
        episodes=16,
        search_steps=5,
    ),
    "resnet20": Protocol(
        data="cifar10-jpeg.zip",
        weights="resnet20-cifar10jpeg.pt",
        shape=(3, 32, 32),
        bounds=(0.8, 0.7, 0.6),
        seeds=1,
        images=9000,
        train_epochs=8,
        finetune_epochs=4,
        episodes=16,
        search_steps=5,
        finished=("edgeprune", "uniform", SCRATCH),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvConfig:
    """Settings of `bench conv`; None: as `NETWORKS` says for each network.

    Raises UsageError for names that are unknown, numbers that cannot be, and `tpe` where Optuna is not installed.
    """

    networks: tuple[str, ...] = tuple(NETWORKS)
    methods: tuple[str, ...] = ROWS
    bounds: tuple[float, ...] | None = None
    seeds: int | None = None
    images: int | None = None
    train_epochs: int | None = None
    finetune_epochs: int | None = None
    episodes: int | None = None
    finished: tuple[str, ...] | None = None
    device: str = "local"
    data_dir: Path | None = None
    out: Path = Path("bench/conv")

    def __post_init__(self) -> None:
        for name in ("seeds", "train_epochs", "finetune_epochs", "episodes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1", _HELP)
        if self.images is not None and self.images < 100:
            raise UsageError("--train-images must be at least 100", _HELP)
        for bound in self.bounds or ():
            if not 0 < bound < 1:
                raise UsageError(f"--bounds: expected shares like 0.5x, below 1x, got {bound:g}x", _HELP)
        for name, known, option in (
            *((name, tuple(NETWORKS), "--networks") for name in self.networks),
            *((name, ROWS, "--methods") for name in self.methods),
            *((name, ROWS, "--finish") for name in self.finished or ()),
        ):
            if name not in known:
                raise UsageError(f"{option}: unknown name '{name:.60}'", did_you_mean(name, known))
        if "tpe" in self.methods and importlib.util.find_spec("optuna") is None:
            raise UsageError(
                "method tpe needs Optuna, which is not installed",
                "type pip install -c constraints.txt optuna, or leave tpe out of --methods",
            )

    def protocol(self, name: str) -> Protocol:
        """What the network `name` is compared on, with these settings."""
        given = {
            field.name: value
            for field in fields(Protocol)
            if hasattr(self, field.name) and (value := getattr(self, field.name)) is not None
        }
        return replace(NETWORKS[name], **given)
