"""The last stage: the files that ship, on the device. Only here is the test set looked at, and only once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from edgeprune.artifacts import run_model
from edgeprune.core.artifact import Artifact, kind_of
from edgeprune.core.budget import Bound
from edgeprune.core.errors import DeviceError
from edgeprune.core.kinds import Unit
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.progress import Progress
from edgeprune.core.runtimes import RuntimeName, runtime_for
from edgeprune.core.session import Session
from edgeprune.core.units import format_speedups
from edgeprune.devices.channel import ChannelError
from edgeprune.models.inputs import to_numpy
from edgeprune.pipeline.export import Exported
from edgeprune.pipeline.prepare import Prepared
from edgeprune.profilers.fresh import compare_fresh
from edgeprune.profilers.operators import time_operators
from edgeprune.profilers.ports import Feeding
from edgeprune.profilers.predict import predict_on_device
from edgeprune.profilers.replies import Operator
from edgeprune.profilers.statistics import Interval, quotient_interval
from edgeprune.report.table import faster
from edgeprune.tasks.judging import Judged, judge
from edgeprune.tasks.metrics import Answers
from edgeprune.training.batches import Batches, InParts
from edgeprune.training.fit import predict

#: Rounds of the races that count, longer ones than the search's.
_ROUNDS, _ROUND_S = 15, 0.01
#: Seconds after which the shipped file's race ends, though its interval still holds the bound.
FINAL_S = 90.0
#: Answers of a file that are compared with this machine's, and how far off they may be: a share of their spread.
_COMPARED, _OFF = 256, 0.1


def as_at_the_end(
    settings: MeasureSettings, unit: Unit, processes: int, bound: Bound | None = None, max_s: float = 0.0
) -> MeasureSettings:
    """How the shipped file is raced, and a trial that is to hold at the end: in `processes` fresh ones or more.

    More follow until the latency's interval is off `bound`, or `max_s` seconds are spent. Counts of instructions get
    two processes at most: two that agree prove as much as many.
    """
    alike = replace(settings, rounds=_ROUNDS, round_s=_ROUND_S)
    if unit == "instructions":
        return replace(alike, processes=min(processes, 2))
    return replace(alike, processes=processes, until_off=bound, max_s=max_s if bound else 0.0)


@dataclass(frozen=True, slots=True)
class HostScores:
    """What the answers to the test set are worth, by PyTorch on the host."""

    baseline: Judged
    before_finetune: Judged
    compressed: Judged
    #: The quality up to which the compressed network's answers are not told from guessing, and theirs.
    chance: float
    quality: float


@dataclass(frozen=True, slots=True)
class Validated:
    """One format as measured on the device."""

    exported: Exported
    runtime: RuntimeName
    device: Judged
    baseline_device: Judged
    #: Share of the answers to the test set that are the same on device and host (see `Task.agreement`).
    agreement: float
    measurement: Measurement
    speedup: Interval
    #: See `profilers.operators`; of this file and of the unpruned one.
    operators: tuple[Operator, ...] = ()
    baseline_operators: tuple[Operator, ...] = ()
    operators_why: str = ""


@dataclass(frozen=True, slots=True)
class NotValidated:
    """One format that the device cannot run: exported and equal to PyTorch on the host, but proven nowhere."""

    exported: Exported
    runtime: RuntimeName
    why: str


def validate(
    prepared: Prepared,
    before: nn.Module,
    network: nn.Module,
    exported: list[Exported],
    session: Session,
    settings: MeasureSettings,
    progress: Progress,
) -> tuple[HostScores, list[Validated | NotValidated]]:
    """Accuracy of every file over the whole test set on the device, and its speed beside the unpruned file's.

    The file of `settings.runtime` is the one that bounds are judged on: only its race goes on until it is off the bound
    of `settings.until_off`. A format the device has no runtime for, or whose runtime refuses the file, is NotValidated.

    Raises DeviceError where the file of `settings.runtime` does not run there, or one cannot be measured.
    """
    exam = _Exam(prepared, network, session, progress)
    scores = exam.on_host(before)
    done: list[Validated | NotValidated] = []
    for item in exported:
        alike = replace(settings, runtime=runtime_for(item.format).name)
        if alike.runtime != settings.runtime:
            alike = replace(alike, until_off=None)
        try:
            done.append(exam.on_device(item, alike))
        except DeviceError as error:
            gone = error.kind in ("lost", "busy") if isinstance(error, ChannelError) else error.retryable
            if gone or (alike.runtime == settings.runtime and item.artifact.precision == "fp32"):
                raise
            progress.say(f"{item.artifact.path.name} is not validated: {error.message}")
            done.append(NotValidated(item, alike.runtime, error.message))
    return scores, done


#: What is answered to the test set, and to the anomalies where the data mark some.
_Answered = list[Answers]


class _Exam:
    """The test set, and the anomalies that data may mark beside it; what the compressed network answers on the host."""

    def __init__(self, prepared: Prepared, network: nn.Module, session: Session, progress: Progress) -> None:
        self._prepared, self._session, self._progress = prepared, session, progress
        data = prepared.dataset
        splits = (data.test,) if data.anomalous is None else (data.test, data.anomalous)
        self._asked = [Batches(split, data.preprocessing) for split in splits]
        self._targets = self._asked[0].y.numpy()
        self._network = network
        self._answers = self._predicted(network)

    def on_host(self, before: nn.Module) -> HostScores:
        """Of the unpruned network, the pruned one `before` it was tuned, and the one that ships."""
        metric, targets, host = self._prepared.task.metric, self._targets, self._answers[0]
        return HostScores(
            baseline=self._judged(self._answered(self._prepared.network), interval=True),
            before_finetune=self._judged(self._answered(before)),
            compressed=self._judged(self._answers, interval=True),
            chance=metric.chance(targets, host),
            quality=metric.quality(metric.value(host, targets), targets),
        )

    def on_device(self, item: Exported, alike: MeasureSettings) -> Validated:
        """One format's file and the unpruned one: what they answer there, and how long they take."""
        session, task = self._session, self._prepared.task
        # Several outputs are fetched one after the other: "" is a file's only one.
        names = [spec.name for spec in item.artifact.outputs] if len(item.artifact.outputs) > 1 else [""]

        def answered(file: Path) -> _Answered:
            return [
                np.concatenate(
                    [
                        predict_on_device(session, alike, file, InParts(asked), bar=bar, feeding=Feeding(output=name))
                        for name in names
                    ],
                    axis=1,
                ).reshape(host.shape)
                for asked, host in zip(self._asked, self._answers, strict=True)
            ]

        count = sum(map(len, self._asked))
        what = kind_of(item.artifact)
        with self._progress.bar(f"{what}: accuracy on the device", 2 * count * len(names)) as bar:
            ours, theirs = answered(item.artifact.path), answered(item.baseline.path)
        if item.artifact.precision != "fp32":
            self._check_arithmetic(item.artifact, ours[0], alike)
        measured = self._raced(item, alike)
        speedup = quotient_interval(measured.samples, measured.against, measured.process).inverse()
        # Of float32 files the host's interval is theirs.
        here = self._judged(ours, interval=item.artifact.precision != "fp32")
        there = self._judged(theirs)
        agreement = task.agreement(ours[0], self._answers[0])
        told = faster(speedup.value, speedup.low, speedup.high, measured.unit)
        self._progress.say(
            f"{what} on {session.spec.name} ({alike.runtime}): {task.metric.title} "
            f"{task.metric.show(here.values[task.metric.name])}, agreement with the host {100 * agreement:.2f} %, "
            f"{told} ({format_speedups(speedup.low, speedup.high)}); {measured.verdict or 'not judged'}"
        )
        operators, why = time_operators(session, alike, item.artifact.path, measured.median)
        before: tuple[Operator, ...] = ()
        if operators:
            before, why = time_operators(session, alike, item.baseline.path, measured.against_median)
        return Validated(
            item, alike.runtime, here, there, agreement, measured, speedup, operators, before, operators_why=why
        )

    def _check_arithmetic(self, artifact: Artifact, answers: Answers, alike: MeasureSettings) -> None:
        """Raises DeviceError where the device's runtime computes something else of the file than this machine's.

        Kernels of integers round differently; what is wrong is further off than that (tflite-runtime 2.14 and products
        with a scale for each channel).
        """
        inputs = to_numpy(self._asked[0].inputs(slice(0, _COMPARED)))
        here = run_model(artifact.format, artifact.path, inputs).reshape(len(inputs), -1)
        there = answers[: len(inputs)].reshape(len(inputs), -1)
        off = float(np.sqrt(np.mean((there - here) ** 2)) / max(float(np.std(here)), 1e-12))
        if not off <= _OFF:
            raise DeviceError(
                f"{alike.runtime} on {self._session.spec.name} computes {artifact.path.name} wrongly: its answers "
                f"differ from this machine's by {100 * off:.0f} % of their spread",
                "use another precision, or a newer runtime there",
                retryable=False,
            )

    def _raced(self, item: Exported, alike: MeasureSettings) -> Measurement:
        name = self._session.spec.name
        measured = compare_fresh(self._session, alike, item.artifact.path, item.baseline.path, self._progress)
        if isinstance(measured, Failure):
            raise ChannelError(
                measured.kind,
                f"{item.artifact.path.name} could not be measured on {name}: {measured.message}",
                measured.advice or "check the device, then continue with --resume and the run's name",
                retryable=measured.retryable,
            )
        return measured

    def _answered(self, network: nn.Module) -> _Answered:
        return self._answers if network is self._network else self._predicted(network)

    def _predicted(self, network: nn.Module) -> _Answered:
        return [predict(network, asked).numpy() for asked in self._asked]

    def _judged(self, answers: _Answered, *, interval: bool = False) -> Judged:
        anomalous = (answers[1], self._asked[1].y.numpy()) if len(answers) > 1 else None
        task, classes = self._prepared.task, len(self._prepared.dataset.classes)
        return judge(task, answers[0], self._targets, classes, interval=interval, anomalous=anomalous)
