"""Reads a bench folder: the methods of a paper, each with several seeds, on one data set.

FOLDER/
├── bench.json                     what is compared, on which machine
├── baseline-S.json                the unpruned network of seed S
├── cells/METHOD-S.json            a finished cell; one that is not finished has no file
├── weights/baseline-S.safetensors, weights/METHOD-S.safetensors
└── beta.json, sparsity.json, evals.json      where these were asked for
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

from pydantic import Field

from edgeprune.core.errors import StorageError, UsageError
from edgeprune.core.reading import Source
from edgeprune.core.schema import BENCH_SCHEMA, read_record

#: Methods as tables and figures list them; variants ("edgeprune@5", "random+taylor") follow, others come last.
ORDER = (
    "unpruned", "cges", "l0", "autoprune", "amc", "acnn", "acnn-noprox", "uniform", "random", "greedy", "edgeprune",
    "edgeprune-noprox",
)  # fmt: skip

#: A cell's NCR meets its target from 1 % below (widths are whole numbers) to 5 % above.
NCR_MET = (0.99, 1.05)

Share = Annotated[float, Field(ge=0, le=1)]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What every cell and every unpruned network says of where it comes from."""

    schema: int = BENCH_SCHEMA
    #: The version that made it, and on what; "" in files of before it was noted.
    edgeprune: str = ""
    machine: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline(Origin):
    """The unpruned network of one seed. Accuracies are shares, of the test and of the validation set."""

    seed: int
    #: Its fingerprint; None in files of before it was noted.
    data: str | None = None
    accuracy: Share
    validation: Share
    epochs: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell(Origin):
    """One method with one seed. Accuracies, `macs_share` and `agent_sparsity` are shares; `error` is in points."""

    #: The row's name.
    method: str
    seed: int
    #: Channels that stay, by group.
    widths: Mapping[str, int]
    #: Neuron compression rate, and the one that was asked for.
    ncr: float
    ncr_target: float | None
    macs_share: float
    #: On the test set: of the unpruned network, before fine-tuning, and after.
    baseline_accuracy: float
    accuracy_before: float
    accuracy: float
    #: Points of test accuracy lost after fine-tuning; below 0 where it rose.
    error: float
    validation_accuracy: float | None = None
    #: The search with its ranking, or the method's own training.
    search_seconds: float
    finetune_seconds: float
    #: Epochs of the method's own training, and of fine-tuning.
    method_epochs: int
    finetune_epochs: int
    #: How often a search asked what a plan is worth.
    evaluations: int
    agent_sparsity: float | None
    #: One per episode.
    rewards: tuple[float, ...]
    #: (critic, actor), one pair per iteration.
    losses: tuple[tuple[float, float], ...]
    criterion: str | None
    repair: bool
    #: Relative to the bench folder.
    weights: str | None

    @property
    def layers(self) -> str:
        """The widths, as `219-81-43`."""
        return "-".join(map(str, self.widths.values()))

    @property
    def missed(self) -> bool:
        """Whether the NCR is not the one asked for (see `NCR_MET`); of what is not pruned none is."""
        if self.ncr_target is None or self.method == "unpruned":
            return False
        low, high = NCR_MET
        return not low * self.ncr_target <= self.ncr <= high * self.ncr_target


@dataclass(frozen=True, slots=True)
class BetaPoint:
    """What came of one weight of NCR in the reward (equation 3). `accuracy` is a share."""

    beta: float
    accuracy: float
    ncr: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BetaSweep:
    """One method and seed, searched with several β."""

    schema: int = BENCH_SCHEMA
    method: str
    seed: int
    points: tuple[BetaPoint, ...]


@dataclass(frozen=True, slots=True)
class Agents:
    """Agents trained alike: the final reward of each, and its share of zero weights."""

    rewards: tuple[float, ...]
    sparsity: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsityTrial:
    """Agents with the proximal step (`penalty`) and without (`none`)."""

    schema: int = BENCH_SCHEMA
    penalty: Agents
    none: Agents


@dataclass(frozen=True, slots=True)
class Searched:
    """One method of an equal-evaluation comparison; entries follow the comparison's seeds."""

    #: Best reward of the whole search.
    final: tuple[float, ...]
    #: Best reward so far after evaluation 1, 2, ...
    curves: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared(Origin):
    """One search of an equal-evaluation comparison."""

    method: str
    seed: int
    #: Best reward so far after evaluation 1, 2, ...; 0 until a plan reaches the NCR.
    curve: Annotated[tuple[float, ...], Field(min_length=1)]
    #: Of the best plan, and its accuracy, a share of the validation images.
    widths: Mapping[str, int]
    accuracy: float
    seconds: float
    agent_sparsity: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluations:
    """Methods that were given the same number of evaluations, `budget`."""

    schema: int = BENCH_SCHEMA
    budget: int
    seeds: tuple[int, ...]
    methods: Mapping[str, Searched]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchHeader:
    """What a bench.json holds: a folder has one data set and one choice of settings."""

    schema: int = BENCH_SCHEMA
    data: str
    #: As it was given; None: the papers' network.
    model: str | None = None
    #: Of a search whose method says no more; None in files of before it was noted.
    episodes: int | None = None
    #: Neurons per layer, input and output included.
    net: tuple[int, ...]
    train_epochs: int | None = None
    finetune_epochs: int
    seeds: tuple[int, ...]
    #: The table's rows.
    methods: tuple[str, ...] = ()
    #: What the seconds were taken on.
    machine: str
    #: Whether the paper has a table for it.
    published: bool


@dataclass(frozen=True, slots=True)
class Bench:
    """A bench folder's content. `net` counts neurons, input and output included; cells are in table order.

    `baselines` are those of `seeds`: a comparison of searches may have made more.
    """

    folder: Path
    data: str
    net: tuple[int, ...]
    seeds: tuple[int, ...]
    methods: tuple[str, ...]
    finetune_epochs: int
    machine: str
    published: bool
    baselines: tuple[Baseline, ...]
    cells: tuple[Cell, ...]
    beta: BetaSweep | None
    sparsity: SparsityTrial | None
    evals: Evaluations | None

    def of(self, method: str) -> tuple[Cell, ...]:
        """The finished cells of a method, by seed."""
        return tuple(cell for cell in self.cells if cell.method == method)


def load_bench(folder: Path) -> Bench:
    """Read a bench folder. Cells that are not finished, and comparisons that were not made, are simply absent.

    Raises UsageError where `folder` is none or of another schema, StorageError where a file is damaged or foreign.
    """
    if not (folder / "bench.json").is_file():
        raise UsageError(f"{folder} is no bench folder: it has no bench.json", "make one with: edgeprune bench paper")
    header = read_file(folder / "bench.json", BenchHeader)
    baselines = [read_file(path, Baseline) for path in folder.glob("baseline-*.json")]
    cells = [_cell(path) for path in folder.glob("cells/*.json")]
    return Bench(
        folder=folder,
        data=header.data,
        net=header.net,
        seeds=header.seeds,
        methods=tuple(in_order({*header.methods, *(cell.method for cell in cells)})),
        finetune_epochs=header.finetune_epochs,
        machine=header.machine,
        published=header.published,
        baselines=tuple(sorted((b for b in baselines if b.seed in header.seeds), key=lambda each: each.seed)),
        cells=tuple(sorted(cells, key=lambda each: (_rank(each.method), each.seed))),
        beta=_read_extra(folder / "beta.json", BetaSweep),
        sparsity=_sparsity(folder / "sparsity.json"),
        evals=_evals(folder / "evals.json"),
    )


def in_order(methods: set[str]) -> list[str]:
    """Method names as tables list them (see `ORDER`)."""
    return sorted(methods, key=_rank)


def base_method(label: str) -> str:
    """The method of a row: `edgeprune` of `edgeprune@5`, `random` of `random+taylor`."""
    return label.partition("+")[0].partition("@")[0]


def _rank(method: str) -> tuple[int, str]:
    name = base_method(method)
    return (ORDER.index(name) if name in ORDER else len(ORDER), method)


def _cell(path: Path) -> Cell:
    cell = read_file(path, Cell)
    if path.stem != f"{cell.method}-{cell.seed}":
        _damaged(path, f"it holds method '{cell.method}', seed {cell.seed}")
    return cell


def _sparsity(path: Path) -> SparsityTrial | None:
    trial = _read_extra(path, SparsityTrial)
    if trial is not None and not (trial.penalty.rewards and trial.none.rewards):
        _damaged(path, "it has no rewards")
    return trial


def _evals(path: Path) -> Evaluations | None:
    evals = _read_extra(path, Evaluations)
    for name, each in evals.methods.items() if evals else ():
        if not len(each.final) == len(each.curves) == len(evals.seeds) or not all(each.curves):  # type: ignore[union-attr]
            _damaged(path, f"'{name}' has not one reward and one curve per seed")
    return evals


def _read_extra(path: Path, kind: type[T]) -> T | None:
    return read_file(path, kind) if path.exists() else None


def source_of(path: Path) -> Source:
    """A file of a bench folder, to be read: its faults are StorageErrors."""
    return Source(path, StorageError, "remove that file and run the bench again")


def read_file(path: Path, kind: type[T]) -> T:
    """A JSON file of a bench folder. Raises UsageError where it is of another schema, StorageError where damaged."""
    hint = "read it with the version that wrote it, or run the bench again in a new folder"
    return read_record(source_of(path), kind, BENCH_SCHEMA, hint)


def _damaged(path: Path, why: str) -> NoReturn:
    raise source_of(path).refusal(why)
