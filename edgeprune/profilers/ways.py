"""Ways to feed a model file of others, what the user says of them, and who tells which is right."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from edgeprune.data.dataset import EachInput, Preprocessing, Scaled
from edgeprune.profilers.inputs import GivenInputs
from edgeprune.profilers.layouts import Layout
from edgeprune.profilers.ports import Output, Port


@dataclass(frozen=True, slots=True)
class Scaling:
    """One way of scaling, and its name in the product's output."""

    name: str
    preprocessing: Scaled

    def of(self, source: str) -> Preprocessing | None:
        """That of one of the data's inputs; None: what is stored."""
        own = self.preprocessing
        return own.of(source) if isinstance(own, EachInput) else own


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user says of a file's conventions; the rest is found out."""

    #: Scalings to choose from, the likeliest first; one alone is the user's word, or the file's own.
    scalings: tuple[Scaling, ...]
    #: Whether an input of integers without a scale takes what is stored, whatever `scalings` holds.
    raw_integers: bool = False
    #: Values of further inputs, their sizes, and the signature.
    given: GivenInputs = field(default_factory=GivenInputs)
    output: str = ""
    label_offset: int | None = None
    #: Variables stay as the image before left them.
    stream: bool = False
    #: Seconds that one image may take; None: what the device is given otherwise.
    example_s: float | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """How one of the data's inputs goes into the file. `preprocessing` None: what is stored."""

    source: str
    port: Port
    layout: Layout
    preprocessing: Preprocessing | None


@dataclass(frozen=True, slots=True)
class Way:
    """How examples go into the file: each input's part, and the name of the scaling."""

    name: str
    parts: tuple[Part, ...]

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Of each input."""
        return tuple(part.layout for part in self.parts)

    @property
    def layout(self) -> str:
        """Their names, each once."""
        return "; ".join(dict.fromkeys(layout.name for layout in self.layouts))

    @property
    def batch(self) -> int:
        """Examples per run."""
        return self.parts[0].layout.batch


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a way got of `images` of the training set: a figure in the judge's terms."""

    layout: str
    preprocessing: str
    figure: float
    images: int


#: What a file gave of each output that is read: (N, values) each.
Rows = Sequence[NDArray[Any]]


class Judge(ABC):
    """What is read of a file's outputs, and how ways to feed it are compared by that."""

    #: What the data's examples are called.
    word = "images"

    @abstractmethod
    def fit(self, outputs: tuple[Output, ...], batch: int, file: str) -> tuple[str, ...]:
        """Decide which outputs are read, of those that a batch gave; their names. Raises ModelError where none fits."""

    @abstractmethod
    def told(self) -> str:
        """How they are read, a sentence."""

    @abstractmethod
    def read(self, rows: Rows) -> tuple[NDArray[Any], str]:
        """The answers (N, ...), and what was decided by looking at the values."""

    @abstractmethod
    def figure(self, answers: NDArray[Any], targets: NDArray[Any]) -> float:
        """What the answers get, in the judge's terms."""

    @abstractmethod
    def quality(self, figure: float, targets: NDArray[Any]) -> float:
        """More is better."""

    @abstractmethod
    def marks(self, answers: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
        """How good each answer is (N,), more is better."""

    @abstractmethod
    def guesses(self, answers: NDArray[Any], targets: NDArray[Any]) -> bool:
        """Whether the answers are no better than chance."""

    @abstractmethod
    def show(self, figure: float) -> str:
        """A figure for people."""
