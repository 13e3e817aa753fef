"""A model file of others: what it takes and gives is found out, tried where several ways fit, and told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.core.clock import Deadline
from edgeprune.core.distributions import binomial_tail
from edgeprune.core.errors import DeviceError, ModelError
from edgeprune.core.inputs import fields, records
from edgeprune.core.kinds import KINDS
from edgeprune.core.measurement import MeasureSettings
from edgeprune.core.progress import Bar, Progress
from edgeprune.core.session import Session
from edgeprune.core.temporary import temporary_folder
from edgeprune.data.dataset import Dataset, EachInput
from edgeprune.devices.channel import ChannelError
from edgeprune.profilers.client import ProbeClient, Pushed, in_fresh_process, push_patiently
from edgeprune.profilers.encoding import encode, raw_values, takes_raw
from edgeprune.profilers.layouts import Layout, layouts
from edgeprune.profilers.modelfile import scale_in_graph, variables
from edgeprune.profilers.ports import Feeding, Output, Port, Ports, written
from edgeprune.profilers.predict import ENDLESS, OPEN_S, longest_example, predict_on_device, took_too_long
from edgeprune.profilers.ways import Asked, Attempt, Judge, Part, Scaling, Way

#: Images that a choice between layouts and scalings is made with, and seconds that it may take: with few images more.
_MOST_TRIED, _LEAST_TRIED, _TRY_S, _LONGEST_TRY_S = 500, 20, 20.0, 120.0
#: A convention is given up for another one where chance explains their difference with less than this probability.
SIGNIFICANT = 0.05
#: What converters from TensorFlow put around the names of inputs.
_PREFIX, _SUFFIX = "serving_default_", ":0"


class ForeignFile:
    """One file: what it takes and gives is found out when this is made."""

    def __init__(
        self,
        session: Session,
        settings: MeasureSettings,
        file: Path,
        dataset: Dataset,
        asked: Asked,
        judge: Judge,
        progress: Progress,
    ) -> None:
        self._session, self._settings, self._file = session, settings, file
        self._dataset, self._asked, self._judge, self._progress = dataset, asked, judge, progress
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
        one = judge.word.removesuffix("s")
        if asked.stream and not stateful:
            kind = "it has no variables" if file.suffix.lower() == ".tflite" else "only .tflite files have variables"
            raise ModelError(f"{file.name} keeps nothing from {one} to {one}: {kind}", "leave out --stream")
        # Of open axes nobody has to give sizes: those of the images are known, others are 1.
        pushed = push_patiently(session, file, asked.given)
        self._pushed: Pushed = replace(pushed, shapes=asked.given.shapes or None)
        self.ports: tuple[Port, ...]
        self._ways: list[Way] = []
        self._others: list[str] = []
        self._trial = ""
        with progress.bar(f"opening {file.name}, first {one}", None):
            outputs, self._first_s = self._look()
        self.outputs: tuple[str, ...] = judge.fit(outputs, self._ways[0].batch, file.name)

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
        """The inputs that take the examples, and the ways in which they fit."""
        self._others = []
        examples = fields(self._dataset.validation.x)
        matched = self._each_input(ports, tuple(examples)) if len(examples) > 1 else self._only_input(ports)
        self._in_graph: set[str] = set()
        for source, port in matched.items():
            if takes_raw(port) and (scale := scale_in_graph(self._file, port.name)):
                matched[source] = replace(port, scale=scale[0], zero=scale[1])
                self._in_graph.add(port.name)
        self.ports = tuple(matched.values())
        fitting = {source: self._layouts(source, port) for source, port in matched.items()}
        sizes = {each[0].batch for each in fitting.values()}
        if len(sizes) > 1:
            raise ModelError(f"inputs of {self._file.name} take batches of {sorted(sizes)} examples, expected one size")
        # Of several inputs the likeliest layout: to try all of them together would take too long.
        kinds = next(iter(fitting.values())) if len(fitting) == 1 else [None]
        scalings = self._asked.scalings
        raw = {source for source, port in matched.items() if takes_raw(port) and self._asked.raw_integers}
        own = len(scalings) == 1 and all(scalings[0].of(source) is None for source in matched)
        if raw == set(matched) and not own:
            scalings = (Scaling("raw", EachInput(dict.fromkeys(raw))),)

        def way(layout: Layout | None, scaling: Scaling) -> Way:
            parts = (
                Part(source, port, layout or fitting[source][0], None if source in raw else scaling.of(source))
                for source, port in matched.items()
            )
            return Way(scaling.name, tuple(parts))

        if any(port.scale for port in self.ports) and len(scalings) > 1:
            # The scaling whose values the inputs can hold is likelier than one that would be clipped.
            sample = self._dataset.validation.x[:_LEAST_TRIED]
            clipped = {each.name: sum(self._values(sample, way(kinds[0], each))[1].values()) for each in scalings}
            scalings = tuple(sorted(scalings, key=lambda each: clipped[each.name]))
        self._ways = [way(layout, scaling) for layout in kinds for scaling in scalings]

    def _layouts(self, source: str, port: Port) -> list[Layout]:
        """Those in which one of the data's inputs fits one of the file's. Raises ModelError where none does."""
        one = fields(self._dataset.validation.x)[source].shape[1:]
        if found := layouts(one, port.shape):
            return found
        takes, has, hint = written(port.shape), written(one), "give --data the file was made for"
        if len(self.ports) == 1:
            raise ModelError(f"{self._file.name} takes {takes}, the data has {self._judge.word} of {has}", hint)
        raise ModelError(f"input {port.name} of {self._file.name} takes {takes}, {source} of the data has {has}", hint)

    def _only_input(self, ports: Ports) -> dict[str, Port]:
        """The one input that is left for the examples; what is said of the others is kept."""
        left, word = self._left(ports), self._judge.word
        if len(left) != 1:
            raise ModelError(
                f"{self._takes(ports)}, and the {word} can only be one",
                "give each of the others a value: --input NAME=VALUE|FILE.npy",
            )
        return {next(iter(fields(self._dataset.validation.x))): left[0]}

    def _each_input(self, ports: Ports, sources: tuple[str, ...]) -> dict[str, Port]:
        """The file's input for each of the data's: that of its name, and the rest in order where as many are left."""
        left = {_plain(port.name): port for port in self._left(ports)}
        found = {source: left.pop(source) for source in sources if source in left}
        valued = set(map(_plain, ports.given))
        rest = [source for source in sources if source not in found and source not in valued]
        if left and len(left) != len(rest):
            missing = ", ".join(port.name for port in left.values())
            raise ModelError(
                f"{self._takes(ports)}, and the data have {', '.join(sources)}",
                f"give --data with {missing}, or one value for every example: --input NAME=VALUE|FILE.npy",
            )
        if left:
            names = ", ".join(port.name for port in left.values())
            self._others.append(f"{', '.join(rest)} of the data go into {names} in this order: the names are others")
            found |= dict(zip(rest, left.values(), strict=True))
        elif rest:
            self._others.append(f"{', '.join(rest)} of the data is left out: the file has no such input")
        return {source: found[source] for source in sources if source in found}

    def _left(self, ports: Ports) -> list[Port]:
        """The inputs that have no value yet; what is said of those that have is kept."""
        left = [port for port in ports.inputs if port.name not in ports.given]
        if not left:
            raise ModelError(
                f"{self._takes(ports)}, and each has a value: none is left for the {self._judge.word}",
                "leave out an --input",
            )
        for port in (port for port in ports.inputs if port.name in ports.given):
            line = f"input {port.name} gets the same value for every {self._judge.word.removesuffix('s')} (--input)"
            # A state goes out as it came in: of the same shape and type.
            states = [each.name for each in ports.outputs if (each.shape, each.dtype) == (port.shape, port.dtype)]
            if states and port.shape:
                line += f"; if it is a state, which output {' or '.join(states)} would give back, it is not carried on"
            self._others.append(line)
        return left

    def _takes(self, ports: Ports) -> str:
        count = len(ports.inputs)
        return f"{self._file.name} takes {count} input{'s' * (count > 1)} ({', '.join(map(str, ports.inputs))})"

    def choose(self) -> tuple[Way, tuple[Attempt, ...]]:
        """The way to feed examples: the only one, or the one that training examples speak for."""
        ways, judge = self._ways, self._judge
        each_s = max(1e-6, len(ways) * self._first_s / ways[0].batch)
        # Training images come in no order, so a stream cannot be tried.
        if len(ways) == 1 or _LEAST_TRIED * each_s > _LONGEST_TRY_S or self._asked.stream:
            return ways[0], ()
        count = max(_LEAST_TRIED, min(int(_TRY_S / each_s), _MOST_TRIED))
        # The part that is kept for validation first; of small data sets it is too small.
        parts = self._dataset.validation, self._dataset.train
        x = np.concatenate([part.x[:count] for part in parts])[:count]
        targets = np.concatenate([part.y[:count] for part in parts])[:count]
        count = len(targets)
        # One process per layout runs all its scalings one after the other.
        groups: dict[tuple[Layout, ...], list[Way]] = {}
        for way in ways:
            groups.setdefault(way.layouts, []).append(way)
        answers: list[NDArray[Any]] = []
        title = f"{len(ways)} ways to feed {judge.word}, {count:,} training {judge.word}"
        with self._progress.bar(title, len(ways) * count * len(self.outputs)) as bar:
            for group in groups.values():
                inputs = np.concatenate([self._values(x, way)[0] for way in group])
                rows = self._predict(inputs, group[0], bar)
                split = [np.split(each, len(group)) for each in rows]
                answers += [judge.read([each[index] for each in split])[0] for index in range(len(group))]
        figures = [judge.figure(each, targets) for each in answers]
        best = max(range(len(ways)), key=lambda index: judge.quality(figures[index], targets))
        marks, first = judge.marks(answers[best], targets), judge.marks(answers[0], targets)
        won, lost = int(np.sum(marks > first)), int(np.sum(marks < first))
        verdict = "taken"
        if judge.guesses(answers[best], targets):
            best, verdict = 0, "kept, as none is better than chance"
        elif not best or binomial_tail(won, max(1, won + lost), 0.5) > SIGNIFICANT:
            best, verdict = 0, "kept, as none is clearly better"
        tried = tuple(Attempt(way.layout, way.name, figure, count) for way, figure in zip(ways, figures, strict=True))
        self._trial = self._said(tried, best, verdict)
        return ways[best], tried

    # ------------------------------------------------------------------------------------------------- predicting

    def answers(self, x: NDArray[Any], way: Way) -> tuple[list[NDArray[Any]], list[str]]:
        """What the file gives to examples, of each of `outputs` (N, values), and what was remarkable."""
        inputs, clipped = self._values(x, way)
        remarks = [
            f"{100 * share:.2g} % of the values are beyond what input {name} can hold, and clipped"
            for name, share in clipped.items()
            if share
        ]
        with self._progress.bar(f"{len(x):,} {self._judge.word}", len(x) * len(self.outputs)) as bar:
            return self._predict(inputs, way, bar), remarks

    def _predict(self, inputs: NDArray[Any], way: Way, bar: Bar) -> list[NDArray[Any]]:
        feeding = self._feeding(way)
        try:
            return [
                predict_on_device(
                    self._session,
                    self._settings,
                    self._pushed,
                    inputs,
                    feeding=replace(feeding, output=output),
                    example_s=self._example_s,
                    bar=bar,
                )
                for output in self.outputs
            ]
        except ChannelError as error:
            hint = error.hint or (ENDLESS if error.kind == "timeout" else "")
            raise ChannelError(error.kind, error.message, hint, retryable=error.retryable) from error

    def _feeding(self, way: Way) -> Feeding:
        keep = self._asked.stream
        return Feeding(
            # Several inputs come by their names.
            input=way.parts[0].port.name if len(way.parts) == 1 else "",
            batch=way.batch,
            keep=keep,
            reopen=bool(self._variables.resources) and not keep,
        )

    def _values(self, x: NDArray[Any], way: Way) -> tuple[NDArray[Any], Mapping[str, float]]:
        """Stored examples as the file takes them, and the share of values that were clipped, by the input's name."""
        arrays, clipped, stored = {}, {}, fields(x)
        for part in way.parts:
            if part.preprocessing is None:
                values, what = raw_values(stored[part.source], part.port)
            else:
                values, what = part.preprocessing.apply(stored[part.source]), f"preprocessing {way.name}"
            name = part.port.name
            arrays[name], clipped[name] = encode(part.layout.apply(values), part.port, what)
        return next(iter(arrays.values())) if len(arrays) == 1 else records(arrays), clipped

    # ---------------------------------------------------------------------------------------------------- telling

    def told(self, chosen: Way) -> list[str]:
        """What was decided, a sentence each."""
        word = self._judge.word
        one, single = word.removesuffix("s"), len(chosen.parts) == 1
        lines = [
            f"{f'{word} go' if single else f'{part.source} goes'} into {part.port}, {part.layout.name}"
            for part in chosen.parts
        ]
        lines += self._others
        for part in chosen.parts:
            port = part.port
            if part.preprocessing is None:
                what = raw_values(fields(self._dataset.test.x[:1])[part.source], port)[1]
                why = f"takes {port.dtype} and has no scale" if takes_raw(port) else f"takes {port.dtype}"
                lines.append(f"input {port.name} {why}: it is given {what}")
            elif port.scale:
                where = "the operators that read it hold" if port.name in self._in_graph else "the file gives"
                lines.append(
                    f"input {port.name} takes {port.dtype}: values are divided by its scale {port.scale:.6g}, "
                    f"which {where}, and shifted by its zero point {port.zero}"
                )
        if self._trial:
            lines.append(self._trial)
        elif len(self._ways) > 1:
            others = ", ".join(f"{way.name} ({way.layout})" for way in self._ways[1:])
            stream = self._asked.stream
            why = "a stream cannot be tried" if stream else f"{self._first_s:.0f} s an {one} are too long to try"
            lines.append(f"preprocessing {chosen.name}: {why} other ways ({others}); --preprocessing chooses another")
        if chosen.batch > 1:
            lines.append(f"the file takes batches of {chosen.batch}: the last is filled up with its last {one}")
        lines.append(self._judge.told())
        kept = self._variables
        if kept.tensors or kept.resources:
            count = kept.tensors + kept.resources
            what = "1 variable, which is" if count == 1 else f"{count} variables, which are"
            how = f"reset before each {one}" + (", by opening the file anew" if kept.resources else "")
            if self._asked.stream:
                how = f"kept from {one} to {one}, in the data's order (--stream)"
            lines.append(f"the file has {what} {how}")
        return lines

    def _said(self, tried: Sequence[Attempt], best: int, verdict: str) -> str:
        """What was tried, how it did, and what was made of it."""
        several = len({way.layout for way in tried}) > 1
        names = [f"{way.preprocessing} ({way.layout})" if several else way.preprocessing for way in tried]
        figures = ", ".join(f"{name} {self._judge.show(way.figure)}" for name, way in zip(names, tried, strict=True))
        what = "preprocessing and layout" if several else "preprocessing"
        word = f"training {self._judge.word}"
        return f"{what} tried on {tried[0].images:,} {word}: {figures}; {names[best]} is {verdict}"


def _plain(name: str) -> str:
    """An input's name without what converters put around it."""
    return name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
