"""The parts of a page, in words and figures that are ready to be shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from edgeprune.core.budget import Answer
from edgeprune.report.checks import ANSWERS

#: What a colour says, always beside a word.
Tone = Literal["good", "bad", "open", "plain"]
TONES: dict[Answer, Tone] = {"met": "good", "not met": "bad", "open": "open"}


@dataclass(frozen=True, slots=True)
class Pill:
    """A verdict in one or two words."""

    text: str
    tone: Tone


Cell = str | Pill


def pill(answer: Answer) -> Pill:
    """The word for an answer, as every table of this program has it."""
    return Pill(ANSWERS[answer], TONES[answer])


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, the first of each its name. `words` are the columns that hold text, not figures."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: tuple[int, ...] = ()
    #: Whether a narrow screen shows each row as a block of its own, not in a frame that scrolls.
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure that counts, before and after."""

    label: str
    value: str
    note: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Key:
    """A mark of a picture and what it stands for; `mark` is a class of the style sheet."""

    mark: str
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture that the plot library draws from `data`; `alt` says what is to be seen, `table` has the figures."""

    id: str
    title: str
    alt: str
    data: dict[str, Any]
    keys: tuple[Key, ...] = ()
    notes: tuple[str, ...] = ()
    table: Table | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of a picture made of bars; lengths are percent of the room there is."""

    name: str
    note: str
    whole: float
    part: float
    figures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars below each other, with their figures beside them: picture and table in one."""

    title: str
    text: str
    head: tuple[str, ...]
    keys: tuple[Key, ...]
    bars: tuple[Bar, ...]
    #: Those that are shown at once; the others behind a summary.
    shown: int


@dataclass(frozen=True, slots=True)
class Spike:
    """One column of a histogram, in percent of the picture's width and height."""

    left: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Lane:
    """How the latencies of one file are spread; places are percent of the common axis."""

    name: str
    of: Literal["pruned", "unpruned"]
    spikes: tuple[Spike, ...]
    p50: float
    p90: float | None
    told: str


@dataclass(frozen=True, slots=True)
class Lanes:
    """Latencies of all files on one axis."""

    title: str
    alt: str
    ticks: tuple[tuple[float, str], ...]
    lanes: tuple[Lane, ...]
    notes: tuple[str, ...]
    table: Table


@dataclass(frozen=True, slots=True)
class Part:
    """One network of the page, from its verdict to how it is repeated."""

    id: str
    name: str
    title: str
    verdict: Pill
    sentences: tuple[str, ...]
    tiles: tuple[Tile, ...]
    drawbacks: tuple[str, ...]
    next_step: str
    checks: Table
    figures: Table
    widths: Bars
    staying: tuple[str, ...]
    lanes: Lanes | None
    charts: tuple[Chart, ...]
    classes: Bars | None
    #: Time per operator.
    operators: Bars | None
    device: Table
    #: What runtime and threads were chosen from.
    backends: Table | None
    device_note: str
    commands: tuple[tuple[str, str], ...]
    hashes: Table
    settings: Table


@dataclass(frozen=True, slots=True)
class FrontPart:
    """A run with several bounds: side by side, then each network."""

    id: str
    name: str
    title: str
    verdict: Pill
    sentences: tuple[str, ...]
    table: Table
    lines: tuple[str, ...]
    charts: tuple[Chart, ...]
    commands: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """All of it."""

    title: str
    version: str
    parts: tuple[Part | FrontPart, ...]
    beside: Table | None
    #: Why figures of the table are not to be compared; empty where they may be.
    unlike: tuple[str, ...] = field(default=())
