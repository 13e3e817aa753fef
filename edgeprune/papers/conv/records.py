"""Reads a folder of `bench conv`, and compares: points lost, cell by cell and method by method."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgeprune.core.budget import Answer
from edgeprune.core.errors import StorageError, UsageError
from edgeprune.core.kinds import Unit
from edgeprune.core.measurement import Verdict
from edgeprune.core.schema import BENCH_SCHEMA
from edgeprune.papers.records import Origin, read_file, source_of
from edgeprune.papers.statistics import Range, paired_range
from edgeprune.profilers.statistics import Interval

OURS = "edgeprune"
#: Methods as tables and figures list them.
METHODS = (OURS, "amc", "greedy", "random", "uniform", "tpe", "scratch")

_AGAIN = "remove that file and run the bench again"
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Latency:
    """A share of the unpruned network's, with its 95 % interval."""

    value: _Above
    low: _Above
    high: _Above
    #: Fresh processes it rests on, and outliers that were left out of them.
    processes: int = 1
    left_out: int = 0

    @classmethod
    def of(cls, interval: Interval) -> Latency:
        """As it was measured."""
        return cls(interval.value, interval.low, interval.high, interval.processes, interval.left_out)


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of a search: the host's (its agent included) and the device's."""

    host: float
    device: float
    agent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell(Origin):
    """One search, or the row without one: the plan it came to. `score` and `bound` are shares."""

    network: str
    bound: _Above
    method: str
    seed: int
    #: Of what was trained from scratch, the factor of all widths; None of a search.
    family_width: float | None
    #: Of the plan; equal plans of one network and seed have one.
    key: str
    widths: Mapping[str, int]
    #: Of validation images, briefly tuned; None where nothing was searched.
    score: _Share | None
    #: As confirmed in fresh processes; None where it was not measured.
    latency: Latency | None
    #: Whether it was found to keep the bound.
    keeps: bool
    evaluations: int
    seconds: Spent
    #: Score and latency (a share; None where measuring failed) of each candidate.
    tried: tuple[tuple[float, float | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Origin):
    """A plan that was fine-tuned: judged on the test set, and raced beside the unpruned network."""

    network: str
    seed: int
    key: str
    widths: Mapping[str, int]
    #: Gone through.
    epochs: float
    #: Shares of validation and of test images.
    validation: _Share
    accuracy: _Share
    baseline_accuracy: _Share
    #: One bit per test image, packed, base64.
    right: str
    images: Annotated[int, Field(gt=0)]
    latency: Latency
    #: What was measured.
    unit: Unit
    verdict: Verdict
    macs_share: _Above
    #: Of fine-tuning.
    seconds: float

    @property
    def lost(self) -> float:
        """Points of test accuracy; below 0 where it rose."""
        return 100 * (self.baseline_accuracy - self.accuracy)

    @property
    def answers(self) -> NDArray[np.bool_]:
        """Which test images it classifies right, (images,). Raises StorageError where that is not stored."""
        try:
            bits = np.frombuffer(base64.b64decode(self.right, validate=True), np.uint8)
        except (binascii.Error, ValueError) as error:
            raise StorageError(f"{self.network}, plan {self.key}, is damaged: {error}", _AGAIN) from error
        if len(bits) != -(-self.images // 8):
            raise StorageError(f"{self.network}, plan {self.key}, is damaged: not a bit per image", _AGAIN)
        return np.unpackbits(bits, count=self.images).astype(np.bool_)

    def answer(self, bound: float) -> Answer:
        """Whether its latency keeps the bound."""
        if self.latency.high <= bound:
            return "met"
        return "not met" if self.latency.low > bound else "open"


@dataclass(frozen=True, slots=True)
class Settings:
    """What all cells of a network share."""

    data: str
    #: A file in the folder of data sets; None: it is trained.
    weights: str | None
    #: Of training.
    images: int
    train_epochs: int
    finetune_epochs: int
    #: Candidates of every search, and the steps each is tuned for.
    episodes: int
    search_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvHeader(Origin):
    """What a bench.json holds: a folder has one choice of settings for each network."""

    kind: Literal["conv"]
    device: str
    networks: Mapping[str, Settings]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What a families/NETWORK.json holds."""

    schema: int = BENCH_SCHEMA
    #: By `WIDTH@BOUND`, whether a network of that width keeps that bound.
    keeps: Mapping[str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """What a networks/NETWORK-S/test.json holds."""

    schema: int = BENCH_SCHEMA
    #: Share of the test images that the unpruned network classifies right.
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """What a networks/NETWORK-S/seconds.json holds."""

    schema: int = BENCH_SCHEMA
    #: By a plan's key and the part of its evaluation.
    plans: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class ConvBench:
    """A folder's content, networks in the order in which they came."""

    device: str
    networks: Mapping[str, Settings]
    cells: tuple[Cell, ...]
    finished: Mapping[tuple[str, str, int], Finished]

    def places(self) -> Iterator[tuple[str, float]]:
        """Every network with every bound that has a cell, widest bound first."""
        for network in self.networks:
            for bound in sorted({cell.bound for cell in self.cells if cell.network == network}, reverse=True):
                yield network, bound

    def of(self, network: str, bound: float, method: str) -> dict[int, Cell]:
        """The cells of a method by seed."""
        return {
            cell.seed: cell
            for cell in self.cells
            if (cell.network, cell.bound, cell.method) == (network, bound, method)
        }

    def end(self, cell: Cell) -> Finished | None:
        """What came of a cell's plan; None where it was not finished."""
        return self.finished.get((cell.network, cell.key, cell.seed))

    def ends(self, network: str, bound: float, method: str) -> dict[int, Finished]:
        """What is finished of a method by seed."""
        found = {seed: self.end(cell) for seed, cell in self.of(network, bound, method).items()}
        return {seed: end for seed, end in found.items() if end is not None}

    def kept(self, network: str, bound: float, method: str) -> dict[int, Finished]:
        """Those of `ends` that were not found to break the bound: the others won nothing by it."""
        ends = self.ends(network, bound, method)
        return {seed: end for seed, end in ends.items() if end.answer(bound) != "not met"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`edgeprune` minus another method over all pairs of seed and bound: points lost, and points of score.

    Files that break their bound are left out of the points lost.
    """

    network: str
    method: str
    lost: Range | None
    lost_pairs: int
    score: Range | None
    score_pairs: int


@dataclass(frozen=True, slots=True)
class Standing:
    """`edgeprune` at one bound against the method that loses least there among the others whose files keep it.

    `difference` (points lost, ours minus theirs; mean over seeds) has the interval that the test images leave: the
    images that one network gets right and the other wrong, as in McNemar's test.
    """

    network: str
    bound: float
    rival: str
    difference: Range
    #: Ours minus each other method's, mean over the seeds that both have.
    others: Mapping[str, float]
    #: Whether no file of ours breaks the bound.
    kept: bool

    @property
    def holds(self) -> bool:
        """Whether `edgeprune` keeps the bound, and is best or within the interval of the best."""
        interval = self.difference.interval
        return self.kept and (self.difference.value <= 0 or (interval is not None and interval[0] <= 0))


def load_conv(folder: Path) -> ConvBench:
    """Read a folder of `bench conv`. Cells that are not finished are simply absent.

    Raises UsageError where `folder` is none or of another schema, StorageError where a file is damaged or foreign.
    """
    if not (folder / "bench.json").is_file():
        raise UsageError(f"{folder} is no bench folder: it has no bench.json", "make one with: edgeprune bench conv")
    header = read_file(folder / "bench.json", ConvHeader)
    cells = []
    for path in folder.glob("cells/*.json"):
        cell = read_file(path, Cell)
        if path.stem != f"{cell.network}@{cell.bound:g}-{cell.method}-{cell.seed}":
            raise source_of(path).refusal(f"it holds {cell.network}, {cell.method}")
        cells.append(cell)
    ends = [read_file(path, Finished) for path in folder.glob("finished/*.json")]
    return ConvBench(
        header.device,
        header.networks,
        tuple(sorted(cells, key=lambda cell: (-cell.bound, in_order(cell.method), cell.seed))),
        {(end.network, end.key, end.seed): end for end in ends},
    )


def in_order(method: str) -> int:
    """The place of a method in tables."""
    return METHODS.index(method) if method in METHODS else len(METHODS)


def compare(bench: ConvBench, network: str | None = None) -> list[Comparison]:
    """`edgeprune` against every other method, on one network or on all."""
    found = []
    places = [place for place in bench.places() if network in (None, place[0])]
    for method in METHODS[1:]:
        lost: list[tuple[float, float]] = []
        scores: list[tuple[float, float]] = []
        for name, bound in places:
            ours, theirs = bench.kept(name, bound, OURS), bench.kept(name, bound, method)
            lost += [(ours[seed].lost, theirs[seed].lost) for seed in ours.keys() & theirs.keys()]
            mine, other = bench.of(name, bound, OURS), bench.of(name, bound, method)
            for seed in mine.keys() & other.keys():
                one, two = mine[seed].score, other[seed].score
                if one is not None and two is not None:
                    scores.append((100 * one, 100 * two))
        if lost or scores:
            found.append(
                Comparison(network or "all", method, _paired(lost), len(lost), _paired(scores), len(scores))
            )  # fmt: skip
    return found


def _paired(pairs: Sequence[tuple[float, float]]) -> Range | None:
    return paired_range([a for a, _ in pairs], [b for _, b in pairs]) if pairs else None


def standings(bench: ConvBench) -> list[Standing]:
    """How `edgeprune` stands at every bound where it and another method are finished."""
    found = []
    for network, bound in bench.places():
        ours = bench.ends(network, bound, OURS)
        differences = {}
        for method in METHODS[1:]:
            theirs = bench.kept(network, bound, method)
            if both := sorted(ours.keys() & theirs.keys()):
                differences[method] = _by_images([(ours[seed], theirs[seed]) for seed in both])
        if differences:
            rival = max(differences, key=lambda method: differences[method].value)
            others = {method: difference.value for method, difference in differences.items()}
            kept = len(bench.kept(network, bound, OURS)) == len(ours)
            found.append(Standing(network, bound, rival, differences[rival], others, kept))
    return found


def _by_images(pairs: Sequence[tuple[Finished, Finished]]) -> Range:
    """Points lost, first minus second, mean over pairs; the interval is that of the test images, 1.96 errors wide."""
    means, variances = [], []
    for one, other in pairs:
        # +1 where only the other is right: the first loses it.
        apart = other.answers.astype(np.float64) - one.answers
        means.append(100 * float(apart.mean()))
        variances.append(100**2 * float(apart.var()) / len(apart))
    mean, half = sum(means) / len(means), 1.96 * math.sqrt(sum(variances)) / len(means)
    return Range(mean, (mean - half, mean + half))
