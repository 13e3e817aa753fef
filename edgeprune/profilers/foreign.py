"""A model file of others: what it takes and gives is found out, tried where several ways fit, and told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError, ModelError
from edgeprune.core.inputs import plain_shape
from edgeprune.core.kinds import KINDS
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.progress import Bar, Progress
from edgeprune.core.session import Session
from edgeprune.core.temporary import temporary_folder
from edgeprune.core.units import format_percent
from edgeprune.data.dataset import Dataset, Preprocessing
from edgeprune.devices.channel import ChannelError
from edgeprune.profilers.answers import Reading, choose
from edgeprune.profilers.client import ProbeClient, Pushed, in_fresh_process, push_patiently
from edgeprune.profilers.encoding import encode, raw_values, takes_raw
from edgeprune.profilers.inputs import GivenInputs
from edgeprune.profilers.layouts import Layout, layouts
from edgeprune.profilers.modelfile import scale_in_graph, variables
from edgeprune.profilers.ports import Feeding, Output, Port, Ports, written
from edgeprune.profilers.predict import ENDLESS, OPEN_S, longest_example, predict_on_device, took_too_long

#: Images that a choice between layouts and scalings is made with, and seconds that it may take: with few images more.
_MOST_TRIED, _LEAST_TRIED, _TRY_S, _LONGEST_TRY_S = 500, 20, 20.0, 120.0
#: A convention is given up for another one where chance explains their difference with less than this probability.
_SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Scaling:
    """One way of scaling, and its name in the product's output."""

    name: str
    preprocessing: Preprocessing


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
class Tried:
    """What was right of `images` of the training set, in one layout and with one scaling."""

    layout: str
    preprocessing: str
    correct: int
    images: int


@dataclass(frozen=True, slots=True)
class Way:
    """A layout and a scaling. `preprocessing` None: what is stored."""

    layout: Layout
    name: str
    preprocessing: Preprocessing | None


class ForeignFile:
    """One file: what it takes and gives is found out when this is made."""

    def __init__(
        self,
        session: Session,
        settings: MeasureSettings,
        file: Path,
        dataset: Dataset,
        asked: Asked,
        progress: Progress,
    ) -> None:
        self._session, self._settings, self._file = session, settings, file
        self._dataset, self._asked, self._progress = dataset, asked, progress
        self._example_s = asked.example_s or longest_example(session)
        try:
            self._variables = variables(file)
        except ValueError as error:
            raise ModelError(f"{file.name} cannot be read as a .tflite file: {error}", "export it again") from error
        stateful = bool(self._variables.tensors or self._variables.resources)
        if stateful and not KINDS[session.spec.kind].probed:
            raise DeviceError(
                f"{file.name} has variables, and benchmark_model on {session.spec.name} runs a file twice before it "
                "writes what it gives: the second run would begin with what the first left",
                "validate it on this machine (--device local) or on a board over ssh",
                retryable=False,
            )
        if asked.stream and not stateful:
            kind = "it has no variables" if file.suffix.lower() == ".tflite" else "only .tflite files have variables"
            raise ModelError(f"{file.name} keeps nothing from image to image: {kind}", "leave out --stream")
        # Of open axes nobody has to give sizes: those of the images are known, others are 1.
        pushed = push_patiently(session, file, asked.given)
        self._pushed: Pushed = replace(pushed, shapes=asked.given.shapes or None)
        self.port: Port
        self._ways: list[Way] = []
        self._others: list[str] = []
        self._trial = ""
        with progress.bar(f"opening {file.name}, first image", None):
            outputs, self._first_s = self._look()
        batch = self._ways[0].layout.batch
        self.reading: Reading = choose(
            outputs, batch, len(dataset.classes), file.name, asked.output, asked.label_offset
        )

    # ---------------------------------------------------------------------------------------------- finding out

    def _look(self) -> tuple[tuple[Output, ...], float]:
        """Open the file and run one batch; what its outputs are, and the seconds that took."""

        def look(client: ProbeClient, deadline: Deadline) -> tuple[tuple[Output, ...], float]:
            try:
                client.hello([], deadline)
                self._decide(client.open("model", self._pushed, deadline))
            except ChannelError as error:
                if error.kind == "timeout":
                    said = f"opening it took longer than {OPEN_S:.0f} s"
                    raise ChannelError("timeout", said, error.hint, retryable=False) from error
                raise
            way = self._ways[0]
            first = self._values(self._dataset.validation.x[:1], way)[0]
            with temporary_folder() as folder:
                here = folder / "example.npy"
                np.save(here, first, allow_pickle=False)
                sent = self._session.push(here)
                try:
                    return client.outputs("model", sent, self._feeding(way), Deadline.after(self._example_s))
                except ChannelError as error:
                    if error.kind == "timeout":
                        raise took_too_long((0, 1), self._example_s, again=False) from error
                    raise
                finally:
                    self._session.remove(sent)

        try:
            return in_fresh_process(self._session, self._settings, look, timeout_s=OPEN_S)
        except ChannelError as error:
            hint = error.hint or (ENDLESS if error.kind == "timeout" else "")
            said = f"{self._file.name} does not run on {self._session.spec.name}: {error.message}"
            raise DeviceError(said, hint, retryable=error.retryable) from error

    def _decide(self, ports: Ports) -> None:
        """The input that takes the images, and the ways in which they fit it."""
        self._others = []
        port = self._only_input(ports)
        self._in_graph = False
        if takes_raw(port) and (scale := scale_in_graph(self._file, port.name)):
            port, self._in_graph = replace(port, scale=scale[0], zero=scale[1]), True
        self.port = port
        one = plain_shape(self._dataset.input_shape)
        fitting = layouts(one, port.shape)
        if not fitting:
            takes, has = written(port.shape), written(one)
            raise ModelError(
                f"{self._file.name} takes {takes}, the data has images of {has}", "give --data the file was made for"
            )
        scalings: list[tuple[str, Preprocessing | None]] = [
            (each.name, each.preprocessing) for each in self._asked.scalings
        ]
        if takes_raw(port) and self._asked.raw_integers:
            scalings = [("raw", None)]
        elif port.scale and len(scalings) > 1:
            # The scaling whose values the input can hold is likelier than one that would be clipped.
            sample = self._dataset.validation.x[:_LEAST_TRIED]
            scalings.sort(key=lambda each: self._values(sample, Way(fitting[0], *each))[1])
        self._ways = [Way(layout, *scaling) for layout in fitting for scaling in scalings]

    def _only_input(self, ports: Ports) -> Port:
        """The one input that is left for the images; what is said of the others is kept."""
        left = [port for port in ports.inputs if port.name not in ports.given]
        if len(left) != 1:
            takes = f"{self._file.name} takes {len(ports.inputs)} inputs ({', '.join(map(str, ports.inputs))})"
            if not left:
                raise ModelError(f"{takes}, and each has a value: none is left for the images", "leave out an --input")
            raise ModelError(
                f"{takes}, and the images can only be one",
                "give each of the others a value: --input NAME=VALUE|FILE.npy",
            )
        for port in (port for port in ports.inputs if port.name in ports.given):
            line = f"input {port.name} gets the same value for every image (--input)"
            # A state goes out as it came in: of the same shape and type.
            states = [each.name for each in ports.outputs if (each.shape, each.dtype) == (port.shape, port.dtype)]
            if states and port.shape:
                line += f"; if it is a state, which output {' or '.join(states)} would give back, it is not carried on"
            self._others.append(line)
        return left[0]

    def choose(self) -> tuple[Way, tuple[Tried, ...]]:
        """The way to feed images: the only one, or the one that training images speak for."""
        ways = self._ways
        each_s = max(1e-6, len(ways) * self._first_s / ways[0].layout.batch)
        # Training images come in no order, so a stream cannot be tried.
        if len(ways) == 1 or _LEAST_TRIED * each_s > _LONGEST_TRY_S or self._asked.stream:
            return ways[0], ()
        count = max(_LEAST_TRIED, min(int(_TRY_S / each_s), _MOST_TRIED))
        # The part that is kept for validation first; of small data sets it is too small.
        parts = self._dataset.validation, self._dataset.train
        x = np.concatenate([part.x[:count] for part in parts])[:count]
        labels = np.concatenate([part.y[:count] for part in parts])[:count]
        count = len(labels)
        # One process per layout runs all its scalings one after the other.
        groups = [[way for way in ways if way.layout == layout] for layout in dict.fromkeys(w.layout for w in ways)]
        right: list[NDArray[np.bool_]] = []
        title = f"{len(ways)} ways to feed images, {count:,} training images"
        with self._progress.bar(title, len(ways) * count) as bar:
            for group in groups:
                inputs = np.concatenate([self._values(x, way)[0] for way in group])
                rows = self._predict(inputs, self._feeding(group[0]), bar)
                right += [self._classes(part)[0] == labels for part in np.split(rows, len(group))]
        best = max(range(len(ways)), key=lambda index: int(right[index].sum()))
        won, lost = int(np.sum(right[best] & ~right[0])), int(np.sum(right[0] & ~right[best]))
        hits, chance = int(right[best].sum()), float(np.bincount(labels).max() / count)
        verdict = "taken"
        if binomtest(hits, count, chance, alternative="greater").pvalue > _SIGNIFICANT:
            best, verdict = 0, "kept, as none is better than chance"
        elif not best or binomtest(won, max(1, won + lost), 0.5, alternative="greater").pvalue > _SIGNIFICANT:
            best, verdict = 0, "kept, as none is clearly better"
        tried = tuple(
            Tried(way.layout.name, way.name, int(each.sum()), count) for way, each in zip(ways, right, strict=True)
        )
        self._trial = _said(tried, best, verdict)
        return ways[best], tried

    # ------------------------------------------------------------------------------------------------- predicting

    def classes(self, x: NDArray[Any], way: Way) -> tuple[NDArray[np.int64], list[str]]:
        """Classes that the file gives to images, and what was remarkable."""
        inputs, clipped = self._values(x, way)
        remarks = []
        if clipped:
            share = 100 * clipped
            remarks.append(f"{share:.2g} % of the values are beyond what input {self.port.name} can hold, and clipped")
        with self._progress.bar(f"{len(x):,} images", len(x)) as bar:
            rows = self._predict(inputs, self._feeding(way), bar)
        found, remark = self._classes(rows)
        return found, [*remarks, remark] if remark else remarks

    def _classes(self, rows: NDArray[Any]) -> tuple[NDArray[np.int64], str]:
        return self.reading.classes(rows, self._dataset.classes)

    def _predict(self, inputs: NDArray[Any], feeding: Feeding, bar: Bar) -> NDArray[Any]:
        try:
            return predict_on_device(
                self._session,
                self._settings,
                self._pushed,
                inputs,
                feeding=replace(feeding, output=self.reading.output),
                example_s=self._example_s,
                bar=bar,
            )
        except ChannelError as error:
            hint = error.hint or (ENDLESS if error.kind == "timeout" else "")
            raise ChannelError(error.kind, error.message, hint, retryable=error.retryable) from error

    def _feeding(self, way: Way) -> Feeding:
        keep = self._asked.stream
        return Feeding(
            input=self.port.name,
            batch=way.layout.batch,
            keep=keep,
            reopen=bool(self._variables.resources) and not keep,
        )

    def _values(self, x: NDArray[Any], way: Way) -> tuple[NDArray[Any], float]:
        """Stored images as the file takes them, and the share of values that were clipped."""
        if way.preprocessing is None:
            values, what = raw_values(x, self.port)
        else:
            values, what = way.preprocessing.apply(x), f"preprocessing {way.name}"
        return encode(way.layout.apply(values), self.port, what)

    # ---------------------------------------------------------------------------------------------------- telling

    def told(self, chosen: Way) -> list[str]:
        """What was decided, a sentence each."""
        port, layout = self.port, chosen.layout
        lines = [f"images go into {port}, {layout.name}", *self._others]
        if chosen.preprocessing is None:
            what = raw_values(self._dataset.test.x[:1], port)[1]
            lines.append(f"input {port.name} takes {port.dtype} and has no scale: it is given {what}")
        elif port.scale:
            where = "which the operators that read it hold" if self._in_graph else "which the file gives"
            lines.append(
                f"input {port.name} takes {port.dtype}: values are divided by its scale {port.scale:.6g}, {where}, and "
                f"shifted by its zero point {port.zero}"
            )
        if self._trial:
            lines.append(self._trial)
        elif len(self._ways) > 1:
            others = ", ".join(f"{way.name} ({way.layout.name})" for way in self._ways[1:])
            stream = self._asked.stream
            why = "a stream cannot be tried" if stream else f"{self._first_s:.0f} s an image are too long to try"
            lines.append(f"preprocessing {chosen.name}: {why} other ways ({others}); --preprocessing chooses another")
        if layout.batch > 1:
            lines.append(f"the file takes batches of {layout.batch}: the last is filled up with its last image")
        lines.append(f"the class is read from {self.reading}")
        kept = self._variables
        if kept.tensors or kept.resources:
            count = kept.tensors + kept.resources
            what = "1 variable, which is" if count == 1 else f"{count} variables, which are"
            how = "reset before each image" + (", by opening the file anew" if kept.resources else "")
            if self._asked.stream:
                how = "kept from image to image, in the data's order (--stream)"
            lines.append(f"the file has {what} {how}")
        return lines


def _said(tried: Sequence[Tried], best: int, verdict: str) -> str:
    """What was tried, how it did, and what was made of it."""
    several = len({way.layout for way in tried}) > 1
    names = [f"{way.preprocessing} ({way.layout})" if several else way.preprocessing for way in tried]
    figures = ", ".join(
        f"{name} {format_percent(way.correct / way.images)}" for name, way in zip(names, tried, strict=True)
    )
    what = "preprocessing and layout" if several else "preprocessing"
    return f"{what} tried on {tried[0].images:,} training images: {figures}; {names[best]} is {verdict}"
