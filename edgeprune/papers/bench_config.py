"""Settings of `bench paper`, and the names of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprune.core.errors import UsageError, did_you_mean
from edgeprune.papers import methods as baselines
from edgeprune.pipeline.criterion import CRITERIA
from edgeprune.search.methods import METHODS

#: The control: the unpruned network, given the fine-tuning that every method gets.
UNPRUNED = "unpruned"
#: Every row that can be asked for, and those of the table.
KNOWN = (UNPRUNED, *baselines.METHODS, *METHODS)
TABLE = tuple(name for name in KNOWN if name != "edgeprune-noprox")
#: Methods that are compared at equal evaluations.
COMPARED = ("edgeprune", "edgeprune-noprox", "amc", "greedy", "random", "uniform")
#: NCR to reach where no published row says one.
NCR = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """Settings of `bench paper`. Epochs None: 30 and 100, 10 and 20 for networks of over a million parameters.

    `episodes` are those of a search whose method says no more (`Method.times`).
    """

    data: str = "mnist"
    data_dir: Path | None = None
    #: A network of the zoo, or FILE.py:FUNCTION; None: the papers'.
    model: str | None = None
    #: None: those of `TABLE`.
    methods: tuple[str, ...] | None = None
    seeds: int = 3
    episodes: int = 80
    train_epochs: int | None = None
    finetune_epochs: int | None = None
    #: The published table this is held against; "" for data of one's own.
    published: str = ""
    #: NCR to reach per method; "" is for those that are not named.
    targets: Mapping[str, float] = field(default_factory=dict)
    #: Compare searches at so many evaluations instead of running the table's rows.
    budget_evals: int | None = None
    #: Sweep beta as well; None: with the whole table.
    beta: bool | None = None
    out: Path = Path("bench/mnist")

    def __post_init__(self) -> None:
        for name in ("seeds", "episodes", "train_epochs", "finetune_epochs", "budget_evals"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1", "see edgeprune bench paper --help")
        if self.budget_evals is not None and self.budget_evals < 10:
            raise UsageError("--budget-evals must be at least 10", "searches need a few candidates to differ")
        if self.budget_evals is not None and (self.beta or self.methods is not None):
            raise UsageError(
                f"--budget-evals compares {', '.join(COMPARED)}, and nothing else",
                f"leave out --{'beta' if self.beta else 'methods'}",
            )
        for label in self.rows:
            parse_label(label)

    @property
    def rows(self) -> tuple[str, ...]:
        """The table's rows."""
        return TABLE if self.methods is None else self.methods

    @property
    def sweeps(self) -> bool:
        """Whether beta is swept."""
        return self.methods is None if self.beta is None else self.beta

    @property
    def ncr(self) -> float:
        """The NCR of rows that have none of their own."""
        return self.targets.get("") or NCR

    @property
    def asked(self) -> dict[str, Any]:
        """Settings that all cells of a folder share, as far as they are given."""
        shared = {
            "data": self.published or self.data,
            "episodes": self.episodes,
            "train_epochs": self.train_epochs,
            "finetune_epochs": self.finetune_epochs,
        }
        return {"model": self.model, **{name: value for name, value in shared.items() if value is not None}}


@dataclass(frozen=True, slots=True)
class Label:
    """A row: `METHOD[@NCR][+CRITERION]`, as `edgeprune@5` or `random+taylor`."""

    text: str
    method: str
    ncr: float | None
    criterion: str | None


def parse_label(text: str) -> Label:
    """Read a row's name. Raises UsageError."""
    rest, plus, criterion = text.partition("+")
    method, at, rate = rest.partition("@")
    if method not in KNOWN:
        raise UsageError(f"unknown method '{method}'", did_you_mean(method, KNOWN))
    if plus and criterion not in CRITERIA:
        raise UsageError(f"'{text}': unknown criterion '{criterion}'", did_you_mean(criterion, CRITERIA))
    if plus and method not in METHODS:
        raise UsageError(f"'{text}': {method} has no criterion", f"write {rest}")
    if at and method == UNPRUNED:
        raise UsageError(f"'{text}': {UNPRUNED} is not pruned", f"write {UNPRUNED}")
    try:
        ncr = float(rate) if at else None
    except ValueError:
        ncr = 0.0
    if ncr is not None and not 1 < ncr < 1000:
        raise UsageError(f"'{text}': '{rate}' is no neuron compression rate", "write for example edgeprune@5")
    return Label(text, method, ncr, criterion or None)


def target(config: BenchConfig, label: Label) -> float:
    """The NCR a row must reach: its own, the published one, that of rows without one."""
    return label.ncr or config.targets.get(label.method) or config.ncr
