"""The files a run leaves: the pruned network that Python can load, and the models that ship."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.torch import load_file
from torch import nn

from edgeprune.artifacts import describe, read_metadata
from edgeprune.core.artifact import Artifact
from edgeprune.core.design import INPUTS, PruningPlan
from edgeprune.core.errors import ExportError, ModelError, StorageError, UsageError
from edgeprune.core.files import sha256_file, write_bytes
from edgeprune.core.inputs import InputSpec, Shape, fields
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Progress
from edgeprune.core.reading import Source
from edgeprune.core.runtimes import FORMATS, Format, Precision
from edgeprune.core.schema import PLAN_SCHEMA, read_record
from edgeprune.core.store import START_ANEW, RunFolder
from edgeprune.core.version import VERSION
from edgeprune.data.dataset import Scaled
from edgeprune.deploy.bundle import SAMPLE, packed
from edgeprune.exporters import EXPORTERS, Parity
from edgeprune.models.inputs import ask, made, to_numpy
from edgeprune.models.plain import is_waiting, make_plain
from edgeprune.models.source import make_model
from edgeprune.models.weights import save_weights
from edgeprune.pipeline.prepare import Prepared
from edgeprune.pipeline.records.files import EightBits
from edgeprune.pipeline.records.weights import WeightsFile
from edgeprune.pipeline.rehearse import check_file
from edgeprune.pruning.surgery import cut
from edgeprune.tasks.names import TaskName

PARITY_IMAGES = 256
#: Training images that ranges of 8-bit integers are taken from.
CALIBRATION = 512
#: Answers that tell whether a model computes what it did.
ANSWERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFile:
    """What a plan.json holds: the pruned network, beside its weights."""

    schema: int = PLAN_SCHEMA
    #: The version that wrote it.
    edgeprune: str = VERSION
    #: Its name in the zoo, or absolute FILE.py:FUNCTION.
    model: str
    #: Of one example; of several inputs, or of integers, each.
    input_shape: tuple[Annotated[int, Field(ge=1)], ...] | tuple[InputSpec, ...]
    task: TaskName
    #: Numbers that an answer has.
    outputs: Annotated[int, Field(ge=1)]
    #: Their names; empty where answers are numbers.
    classes: tuple[str, ...]
    preprocessing: Scaled
    #: The channels that stay, by group.
    plan: PruningPlan
    weights: WeightsFile
    #: The first answers to inputs that are the same everywhere.
    answers: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Exported:
    """One format: the pruned file, the unpruned one, and the pruned one's parity with PyTorch."""

    format: Format
    artifact: Artifact
    baseline: Artifact
    parity: Parity
    #: Of int8 files alone.
    eight_bits: EightBits | None = None


@dataclass(frozen=True, slots=True)
class NotExported:
    """One format, or precision of it, that was asked for and does not ship: it cannot be exported."""

    format: Format
    why: str
    precision: Precision = "fp32"


def model_name(format: Format, precision: Precision) -> str:
    """What a run's file is called: `model.onnx`, `model-int8.onnx`."""
    return f"model.{format}" if precision == "fp32" else f"model-{precision}.{format}"


def metadata(prepared: Prepared, plan: PruningPlan | None) -> dict[str, Any]:
    """What an application needs to know of the file, carried in the file itself."""
    kept = plan.kept.get(INPUTS) if plan else None
    return {
        "edgeprune": VERSION,
        "model": prepared.model,
        "data": prepared.dataset.name,
        "task": prepared.task.name,
        # Of several labels their names; null where answers are numbers.
        "classes": list(prepared.dataset.classes) or None,
        "input_shape": to_json(prepared.dataset.input_shape),
        "preprocessing": to_json(prepared.dataset.preprocessing),
        # The file takes the full input all the same: it gathers these features itself.
        "kept_inputs": list(kept) if kept is not None else None,
        "widths": plan.widths if plan else None,
    }


def save_network(prepared: Prepared, folder: RunFolder, network: nn.Module, plan: PruningPlan) -> None:
    """Write pruned.safetensors and plan.json, from which `load_network` rebuilds the network. No pickle."""
    path = folder / "pruned.safetensors"
    save_weights(path, network)
    file, _, function = prepared.model.rpartition(":")
    source = Path(file).expanduser().resolve() if file else None
    written = PlanFile(
        model=f"{source}:{function}" if source else prepared.model,
        input_shape=prepared.dataset.input_shape,
        task=prepared.task.name,
        outputs=prepared.dataset.outputs,
        classes=tuple(prepared.dataset.classes),
        preprocessing=prepared.dataset.preprocessing,
        plan=plan,
        weights=WeightsFile(path.name, sha256_file(path)),
        answers=tuple(_answers(network, prepared.dataset.input_shape)),
    )
    folder.write_json("plan.json", to_json(written))
    save_sample(prepared, folder)


def save_sample(prepared: Prepared, folder: RunFolder) -> None:
    """Write one validation example as the data hold it: what an application will be given."""
    example = fields(prepared.dataset.validation.x[:1])
    write_bytes(folder / SAMPLE, packed({name: x[0] for name, x in example.items()}))


def _answers(network: nn.Module, shape: Shape) -> list[float]:
    """The first answers to inputs that are the same everywhere: whether code computes what it did is told by them."""
    inputs = made(shape, 2, partial(torch.rand, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        found: list[float] = ask(deepcopy(network).cpu().eval(), inputs).flatten()[:ANSWERS].tolist()
    return found


def load_network(run: Path, model: str | nn.Module | None = None) -> nn.Module:
    """The pruned network of a run folder, in evaluation mode; takes full-sized inputs (N, *input_shape).

    `model` is the unpruned network's FILE.py:FUNCTION, where that was moved since, or the unpruned network itself. Its
    code may have changed as long as it computes the same.

    Raises UsageError where `run` holds no finished network or another version's, StorageError where it is damaged,
    ModelError where the model is not there, or computes something else than at the run.
    """
    if not (run / "plan.json").is_file():
        raise UsageError(f"{run} holds no pruned network", "give the folder of a run that got as far as fine-tuning")
    source = Source(run / "plan.json", StorageError, START_ANEW)
    said = read_record(source, PlanFile, PLAN_SCHEMA, "load it with the version that wrote it")
    weights = run / said.weights.file
    with source.guarded():
        if sha256_file(weights) != said.weights.sha256:
            raise StorageError(f"{weights} is damaged: its hash is not the one in plan.json", "run again")
    name = said.model if model is None else model if isinstance(model, str) else type(model).__name__
    file = Path(name.rpartition(":")[0])
    if model is None and file.name and not file.exists():
        raise ModelError(f"{file} does not exist any more", "give load(run, model='FILE.py:FUNCTION')")
    if file.name or model is not None:
        # The plan fits the network that it was made for.
        source = Source(name, ModelError, f"give the model of the run as it was then, {said.model}", "model")
    with source.guarded():
        network = deepcopy(model) if isinstance(model, nn.Module) else make_model(name, said.input_shape, said.outputs)
        if is_waiting(network):
            ask(network.eval(), made(said.input_shape, 2, torch.zeros))
        make_plain(network)
        pruned = cut(network, said.input_shape, said.plan)
        pruned.load_state_dict(load_file(weights))
        answers = _answers(pruned, said.input_shape)
    if not np.allclose(answers, said.answers, rtol=1e-3, atol=1e-4):
        raise ModelError(f"{name} computes something else than at the run", "restore it, or run again")
    return pruned.eval()


def export_all(
    prepared: Prepared,
    folder: RunFolder,
    network: nn.Module,
    plan: PruningPlan | None,
    progress: Progress,
    measured: Format | None = None,
) -> tuple[list[Exported], list[NotExported]]:
    """Really export the pruned and the unpruned network in every format, in float32, and check both against PyTorch.

    Without a `plan` the network is the unpruned one, and its float32 file the one that others are compared to.

    Parity is checked on real validation images. Where a format was measured, another one that fails is left out and
    said; of the measured one, or without one, ExportError is raised where a file cannot be made or computes something
    else.
    """
    example = prepared.validation.inputs(slice(0, 2))
    inputs = to_numpy(prepared.validation.inputs(slice(0, PARITY_IMAGES)))
    done, lost = [], [NotExported(kind, why) for kind, why in prepared.shipped.left_out.items()]
    networks = {"baseline": (prepared.network, None), "model": (network, plan)}
    if plan is None:
        del networks["baseline"]
    with progress.bar("exporting", len(networks) * len(prepared.shipped.formats)) as bar:
        for kind in prepared.shipped.formats:
            files = {}
            try:
                for stem, (source, its_plan) in networks.items():
                    path, said = folder / f"{stem}.{kind}", metadata(prepared, its_plan)
                    known = _known(source, path, said, inputs) if stem == "baseline" else None
                    artifact = known[0] if known else EXPORTERS[kind].export(source, example, path, said)
                    files[stem] = known or (artifact, check_file(source, artifact, inputs))
                    bar.advance(1, artifact.path.name)
            except ExportError as error:
                if measured in (None, kind):
                    raise
                for stem in networks:
                    (folder / f"{stem}.{kind}").unlink(missing_ok=True)
                progress.say(f"{error}; the network ships without {FORMATS[kind].title}")
                lost.append(NotExported(kind, str(error)))
                continue
            artifact, parity = files["model"]
            done.append(Exported(kind, artifact, files.get("baseline", files["model"])[0], parity))
            progress.say(f"{kind}: parity with PyTorch {parity.max_abs:.1e} on {len(inputs)} images")
    return done, lost


def calibration(prepared: Prepared) -> NDArray[Any]:
    """Training images that ranges of 8-bit integers are taken from, as files take them; drawn by the run's seed."""
    order = torch.randperm(len(prepared.train), generator=torch.Generator().manual_seed(prepared.settled.seed))
    return to_numpy(prepared.train.inputs(order[:CALIBRATION]))


def _known(
    network: nn.Module, path: Path, said: Mapping[str, Any], inputs: NDArray[Any]
) -> tuple[Artifact, Parity] | None:
    """The file of the unpruned network that the search has exported; None where it is another one, or damaged."""
    if not path.exists():
        return None
    try:
        artifact = describe(path)
        return (artifact, check_file(network, artifact, inputs)) if read_metadata(path) == said else None
    except ExportError:
        return None
