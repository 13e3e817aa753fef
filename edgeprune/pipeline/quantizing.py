"""Files at lower precisions. Where 8 bits lose too much, parts of them stay in float32, or the network learns them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgeprune.artifacts import describe, run_model
from edgeprune.core.artifact import Artifact
from edgeprune.core.budget import Budget
from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import ExportError
from edgeprune.core.files import write_bytes
from edgeprune.core.progress import Progress
from edgeprune.core.runtimes import Format
from edgeprune.core.store import RunFolder
from edgeprune.core.temporary import temporary_folder
from edgeprune.exporters import EXPORTERS, check_parity, export_at
from edgeprune.exporters.formats import Calibrated
from edgeprune.models.inputs import to_numpy
from edgeprune.pipeline.export import (
    CALIBRATION,
    PARITY_IMAGES,
    Exported,
    NotExported,
    calibration,
    metadata,
    model_name,
)
from edgeprune.pipeline.finetune import Tuner
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.records.files import EightBits
from edgeprune.report.table import eight_bits_words
from edgeprune.tasks.metrics import Metric
from edgeprune.training.aware import learnt, rounding
from edgeprune.training.fit import judged, score
from edgeprune.training.frozen import trainable

#: Validation images that tell what an int8 file loses, and training images that tell which part of it does.
_VALIDATED, _COMPARED = 2000, 128
#: Of what the run may lose at most, the share that 8 bits may always take.
_ALWAYS = 0.25
#: Of a file's parts at most this share stays in float32: more of it is no int8 file.
_FLOATS = 0.25
#: Epochs of training that knows of 8 bits (of fine-tuning that has minutes: the share of these), and its peak learning
#: rate beside that of fine-tuning.
_EPOCHS, _SHARE, _RATE = 2.0, 0.25, 0.5


def at_precisions(
    prepared: Prepared,
    folder: RunFolder,
    network: nn.Module,
    plan: PruningPlan | None,
    floats: Sequence[Exported],
    most: float,
    progress: Progress,
    tuner: Tuner | None = None,
) -> tuple[list[Exported], list[NotExported]]:
    """The float32 files `floats` of `network`, pruned by `plan`, at the other precisions that ship.

    Ranges are of training data. An int8 file that loses more on validation than is left of `most` (in the metric's
    terms, beside the unpruned network) keeps its most sensitive parts in float32; where that is not enough the network
    is trained by `tuner`, if there is one, with the rounding of such files. What loses least ships.
    """
    shipped = prepared.shipped
    done: list[Exported] = []
    lost: list[NotExported] = []
    if not shipped.lower:
        return done, lost
    examples = calibration(prepared)
    inputs = to_numpy(prepared.validation.inputs(slice(0, PARITY_IMAGES)))
    eight = cache(lambda: _EightBits(prepared, network, examples, most, progress, tuner))
    with progress.bar("quantizing", len(floats) * len(shipped.lower)) as bar:
        for item in floats:
            for precision in shipped.lower:
                if (item.format, precision) in shipped.without:
                    lost.append(NotExported(item.format, shipped.without[item.format, precision], precision))
                    continue
                path, how = folder / model_name(item.format, precision), None
                said = {**metadata(prepared, plan), "precision": precision}
                try:
                    if precision == "int8":
                        artifact, how = eight().write(item.artifact, path, said)
                    else:
                        artifact = export_at(item.artifact, path, precision, examples, said)
                    parity = check_parity(network, artifact, inputs)
                except ExportError as error:
                    path.unlink(missing_ok=True)
                    progress.say(f"{error}; the network ships without it")
                    lost.append(NotExported(item.format, str(error), precision))
                    continue
                bar.advance(1, path.name)
                done.append(Exported(item.format, artifact, item.baseline, parity, how))
                progress.say(
                    f"{path.name}: same answers as PyTorch to {100 * parity.agreement:.1f} % of {len(inputs)} images"
                )
    return done, lost


def most_lost(budget: Budget, metric: Metric) -> float:
    """What may be lost at most, in the metric's terms: as asked for, or what is usual."""
    return metric.usual_drop if budget.max_drop is None else budget.max_drop


class _EightBits:
    """What makes int8 files of one network."""

    def __init__(
        self,
        prepared: Prepared,
        network: nn.Module,
        examples: NDArray[Any],
        most: float,
        progress: Progress,
        tuner: Tuner | None,
    ) -> None:
        self._prepared, self._network, self._examples = prepared, network, examples
        self._progress, self._tuner = progress, tuner
        self._inputs = to_numpy(prepared.validation.inputs(slice(0, min(_VALIDATED, len(prepared.validation)))))
        unpruned, self._whole = (self._score(each) for each in (prepared.network, network))
        #: What a file may lose beside the float32 one, in the metric's terms.
        self._allowed = max(most - max(0.0, self._lost(unpruned, self._whole)), _ALWAYS * most)
        #: The network that was trained with rounding, once it was.
        self._learnt: nn.Module | None = None

    def write(self, source: Artifact, path: Path, said: Mapping[str, Any]) -> tuple[Artifact, EightBits]:
        """The int8 file of the float32 file `source`, and how it came about. Raises ExportError."""
        kind, ways = source.format, []
        with temporary_folder() as work:
            calibrated = EXPORTERS[kind].calibrate(source.path, self._examples)
            plain = calibrated.write(work / f"plain.{kind}", said).path
            ways.append(self._way(kind, plain, EightBits(refused=calibrated.refused)))
            if ways[0].lost > self._allowed:
                self._progress.say(
                    f"{path.name} loses {self._shown(ways[0].lost)} on validation, more than the "
                    f"{self._shown(self._allowed)} left: trying parts of it in float32"
                )
                ways += self._with_floats(calibrated, source, ways[0].file, work, said)
            tuner = self._tuner
            if ways[-1].lost > self._allowed and tuner is not None and tuner.regime.amount and trainable(self._network):
                ways.append(self._learning(kind, tuner, work, said))
            best = min(ways, key=lambda way: way.lost)
            write_bytes(path, best.file.read_bytes())
        how = best.how
        if len(ways) > 1 or how.refused:
            words = eight_bits_words(how.floats, how.learnt, how.refused)
            self._progress.say(f"{path.name}: {words}; {self._shown(best.lost)} lost on validation")
        return replace(describe(path), precision="int8"), how

    def _with_floats(
        self, calibrated: Calibrated, source: Artifact, plain: Path, work: Path, said: Mapping[str, Any]
    ) -> list[_Way]:
        """Files that keep ever more in float32, what costs most first, until one loses little enough."""
        kind, inputs = source.format, self._examples[:_COMPARED]
        wanted = run_model(kind, source.path, inputs)

        def off(file: Path) -> float:
            """How far answers are from the float32 file's: their mean squared deviation."""
            return float(np.mean((run_model(kind, file, inputs) - wanted) ** 2))

        whole, gained = off(plain), []
        with self._progress.bar("what 8 bits cost", len(calibrated.units)) as bar:
            for number, unit in enumerate(calibrated.units):
                file = calibrated.write(work / f"without.{kind}", said, unit.operators).path
                gained.append((off(file) - whole, number))
                bar.advance(1, unit.label)
        order = [calibrated.units[number] for _, number in sorted(gained)]
        ways: list[_Way] = []
        count = 1
        while count <= max(1, _FLOATS * len(order)):
            floats = frozenset[int]().union(*(unit.operators for unit in order[:count]))
            file = calibrated.write(work / f"floats-{count}.{kind}", said, floats).path
            how = EightBits(floats=tuple(unit.label for unit in order[:count]), refused=calibrated.refused)
            ways.append(self._way(kind, file, how))
            if ways[-1].lost <= self._allowed:
                break
            count *= 2
        return ways

    def _learning(self, kind: Format, tuner: Tuner, work: Path, said: Mapping[str, Any]) -> _Way:
        """The file of a network that was trained with the rounding of 8-bit files."""
        regime = tuner.regime
        amount = min(_EPOCHS, regime.amount) if regime.minutes is None else regime.minutes * _SHARE
        if self._learnt is None:
            self._progress.say("that is not enough: the network is trained with the rounding of 8 bits")
            rounded = rounding(self._network, self._prepared.train, CALIBRATION)
            short = replace(regime.of(amount), learning_rate=regime.learning_rate * _RATE)
            tuned = tuner.by(short)(rounded, "learning 8 bits").network
            self._learnt = learnt(self._network, tuned, self._prepared.train)
        example = self._prepared.validation.inputs(slice(0, 2))
        source = EXPORTERS[kind].export(self._learnt, example, work / f"learnt.{kind}", dict(said))
        calibrated = EXPORTERS[kind].calibrate(source.path, self._examples)
        file = calibrated.write(work / f"learnt-int8.{kind}", said).path
        return self._way(kind, file, EightBits(learnt=amount, refused=calibrated.refused))

    def _way(self, kind: Format, file: Path, how: EightBits) -> _Way:
        answers = torch.from_numpy(run_model(kind, file, self._inputs))
        return _Way(self._lost(self._whole, judged(answers, self._prepared.validation, self._prepared.task)), file, how)

    def _score(self, network: nn.Module) -> float:
        prepared = self._prepared
        return score(network, prepared.validation, len(self._inputs), task=prepared.task, place=prepared.place)

    def _lost(self, before: float, after: float) -> float:
        """What of a quality is lost, in the metric's terms."""
        yardstick = self._prepared.yardstick
        return self._prepared.task.metric.lost(yardstick.value(before), yardstick.value(after))

    def _shown(self, lost: float) -> str:
        return f"{lost:.2f} {self._prepared.task.metric.unit}"


@dataclass(frozen=True, slots=True)
class _Way:
    """An int8 file, what it loses beside the float32 one, and how it came about."""

    lost: float
    file: Path
    how: EightBits
