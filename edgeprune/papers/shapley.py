"""Shapley pruning of one layer, from the game to the files: the eight steps of [Shapley], section 2."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeprune.core.design import INPUTS
from edgeprune.core.errors import EdgepruneError, UsageError, did_you_mean
from edgeprune.core.files import storing
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Progress
from edgeprune.core.runtimes import RuntimeName
from edgeprune.core.store import RunFolder
from edgeprune.data.catalog import load_data
from edgeprune.models.source import make_model
from edgeprune.papers.shapley_record import (
    Coalition,
    DataNamed,
    Game,
    Parameters,
    Players,
    Scored,
    ShapleyResult,
    Shipped,
    Valued,
)
from edgeprune.pipeline.config import RunConfig, to_plain
from edgeprune.pipeline.criterion import announce
from edgeprune.pipeline.export import Exported, export_all, save_network
from edgeprune.pipeline.prepare import Prepared, default_stem, prepare
from edgeprune.pruning.cost import count_parameters, weighted
from edgeprune.pruning.criteria import Ranked
from edgeprune.pruning.groups import discover
from edgeprune.pruning.rankings import by_scores
from edgeprune.pruning.shapley import EXACT_UP_TO, TOLERANCE, NetworkGame, ShapleyValues, evaluations, shapley_values
from edgeprune.pruning.structure import Coupling, Structure
from edgeprune.training.batches import Batches
from edgeprune.training.distillation import Distillation
from edgeprune.training.fit import Fit, score, train
from edgeprune.training.narrow import narrow
from edgeprune.training.problem import Problem

#: Share of the training set that is kept for validation: v(S) is measured on it, so it is larger than a run's.
VALIDATION_SHARE = 0.2
#: Channels of convolutions go in blocks that suit it.
RUNTIME: RuntimeName = "onnxruntime"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapleyConfig:
    """What `edgeprune shapley` is asked for; the fields are its options.

    `layer` None: the last hidden one. `images` None: all validation images. `out` None: a fresh folder in runs/.
    """

    data: str = "digits"
    data_dir: Path | None = None
    model: str = "mlp-32-16"
    weights: Path | None = None
    layer: str | None = None
    keep: float = 0.5
    permutations: int = 200
    seed: int = 0
    images: int | None = None
    prune_frozen: bool = False
    finetune_epochs: int = 20
    out: Path | None = None

    def __post_init__(self) -> None:
        for name, holds, rule in (
            ("keep", 0 < self.keep < 1, "between 0 and 1"),
            ("permutations", self.permutations >= 2, "at least 2, or there is no standard error"),
            ("images", self.images is None or self.images >= 1, "at least 1"),
            ("finetune-epochs", self.finetune_epochs >= 0, "0 or more"),
        ):
            if not holds:
                raise UsageError(f"--{name} must be {rule}", "see edgeprune shapley --help")


@dataclass(frozen=True)
class ShapleyOutcome:
    """`result` is what shapley.json holds.

    `incoming` (players, before) and `outgoing` (after, players) are the sizes of the unpruned layer's weights, which a
    picture of the network needs; `incoming` is None for input features.
    """

    folder: Path
    result: dict[str, Any]
    incoming: NDArray[Any] | None
    outgoing: NDArray[Any]


def run_shapley(config: ShapleyConfig, progress: Progress) -> ShapleyOutcome:
    """Value the channels of one layer, prune the least useful, fine-tune, validate, export.

    Raises UsageError and its children for what cannot be used, ExportError, StorageError.
    """
    plain = RunConfig(
        data=config.data,
        data_dir=config.data_dir,
        model=config.model,
        weights=config.weights,
        seed=config.seed,
        criterion="shapley",
        repair=False,
        validation_share=VALIDATION_SHARE,
        prune_frozen=config.prune_frozen,
        finetune_epochs=config.finetune_epochs,
        runs_dir=Path("runs") if config.out is None else config.out.parent,
    )
    folder = _folder(config.out, plain)
    try:
        with contextlib.closing(folder.own()), storing(folder.path, denied=False):
            return _steps(config, plain, folder, progress)
    except EdgepruneError:
        # A mistyped option should not leave a folder behind.
        if not (folder / "baseline.safetensors").exists():
            folder.discard()
        raise


def _folder(out: Path | None, plain: RunConfig) -> RunFolder:
    if out is None:
        return RunFolder.create(plain.runs_dir, None, f"shapley-{default_stem(plain)}")
    if out.exists():
        raise UsageError(f"{out} exists", "choose another --out")
    with storing(out):
        out.mkdir(parents=True)
    return RunFolder(out)


def _steps(config: ShapleyConfig, plain: RunConfig, folder: RunFolder, progress: Progress) -> ShapleyOutcome:
    started = time.monotonic()
    progress.stage("1 game")
    prepared, coupling = _players(config, plain, folder, progress)
    group, network = coupling.group, prepared.network

    progress.stage("2 characteristic function")
    images = min(config.images or len(prepared.validation), len(prepared.validation))
    game = NetworkGame(network, coupling, prepared.validation.inputs(slice(0, images)), prepared.validation.y[:images])
    progress.say(
        f"v(S): accuracy on {images} validation images with only the {group.kind} in S active, nothing refitted"
    )

    progress.stage("3 Shapley values")
    found = _valued(config, game, progress)

    progress.stage("4 ranking")
    ranking = by_scores({group.name: found.values})
    order = ranking.order[group.name]
    width = max(group.floor, group.snap(round(config.keep * group.channels)))
    progress.say(f"most useful {_some(order)}, least useful {_some(order[::-1])}")
    coalitions = _coalitions(game, order, width, config.seed)

    progress.stage("5 prune and fine-tune")
    criterion = Ranked(network, prepared.structure, ranking, None)
    plan = criterion.plan({group.name: width})
    example = prepared.validation.inputs(slice(0, 16))
    pruned = narrow(criterion, prepared.structure, plan, prepared.train, check=example)
    fit = _fine_tuned(config, prepared, pruned, progress)
    parameters = Parameters(count_parameters(network), count_parameters(fit.network))
    progress.say(f"{group.channels} {group.kind} -> {width}; {parameters.unpruned} parameters -> {parameters.pruned}")

    progress.stage("6 validate")
    accuracy = _scored(prepared, pruned, fit.network, progress)

    progress.stage("7 further compression (int8)")
    progress.say("not done here: files are exported in float32")

    progress.stage("8 deploy")
    save_network(prepared, folder, fit.network, plan)
    exported, _ = export_all(prepared, folder, fit.network, plan, progress)
    result = ShapleyResult(
        config={**to_plain(plain), "layer": group.name, "keep": config.keep, "images": images},
        data=DataNamed(prepared.dataset.name, prepared.dataset.fingerprint),
        layer=Players(group.name, group.kind, group.channels, width),
        game=_game(found, images),
        values=_values(found, order, width),
        coalitions=coalitions,
        accuracy=accuracy,
        parameters=parameters,
        history=fit.history,
        artifacts=tuple(_shipped(item) for item in exported),
        seconds=round(time.monotonic() - started, 2),
    )
    told = to_json(result)
    folder.write_json("shapley.json", told)
    incoming, outgoing = _links(network, coupling)
    return ShapleyOutcome(folder.path, told, None if incoming is None else incoming.numpy(), outgoing.numpy())


def _players(
    config: ShapleyConfig, plain: RunConfig, folder: RunFolder, progress: Progress
) -> tuple[Prepared, Coupling]:
    """The trained network, and the layer whose channels play for the share of right answers."""
    dataset = load_data(plain.data, plain.data_dir, seed=plain.seed, progress=progress)
    dataset.check_classes("shapley")
    if config.layer is not None:
        # A mistyped layer should not cost a training first.
        untrained = make_model(plain.model, dataset.input_shape, dataset.outputs)
        structure = discover(untrained, dataset.input_shape, runtime=RUNTIME, prune_frozen=config.prune_frozen)
        _layer(structure, config.layer)
    prepared = prepare(plain, folder, progress, RUNTIME, dataset=dataset)
    coupling = _layer(prepared.structure, config.layer)
    progress.say(f"players: the {coupling.group.channels} {coupling.group.kind} of layer {coupling.group.name}")
    return prepared, coupling


def _valued(config: ShapleyConfig, game: NetworkGame, progress: Progress) -> ShapleyValues:
    exactly = game.players <= EXACT_UP_TO
    how = "all coalitions" if exactly else f"{config.permutations} permutations"
    progress.say(f"{how}: {announce(game, config.permutations)}")
    with progress.bar("valuing", evaluations(game.players, config.permutations)) as bar:
        found = shapley_values(game, config.permutations, config.seed, advance=bar.advance)
    progress.say(
        f"v(everybody) {100 * found.everybody:.2f} %, v(nobody) {100 * found.nobody:.2f} %; {found.evaluations} "
        f"evaluations; largest standard error {100 * float(found.errors.max()):.2f} points"
    )
    return found


def _fine_tuned(config: ShapleyConfig, prepared: Prepared, pruned: nn.Module, progress: Progress) -> Fit:
    schedule = prepared.schedule
    regime = schedule.finetuning(config.seed, prepared.place, "best").of(config.finetune_epochs)
    teacher = Distillation(prepared.network, schedule.temperature)
    problem = Problem(prepared.train, prepared.validation)
    return train(pruned, problem, regime, progress=progress, title="fine-tuning", distillation=teacher)


def _scored(prepared: Prepared, pruned: nn.Module, fine_tuned: nn.Module, progress: Progress) -> Scored:
    test = Batches(prepared.dataset.test, prepared.dataset.preprocessing)
    accuracy = Scored(
        test_images=len(test),
        unpruned=score(prepared.network, test),
        pruned=score(pruned, test),
        fine_tuned=score(fine_tuned, test),
    )
    progress.say(
        f"{len(test)} test images: unpruned {100 * accuracy.unpruned:.2f} %, "
        f"pruned {100 * accuracy.pruned:.2f} %, fine-tuned {100 * accuracy.fine_tuned:.2f} %"
    )
    return accuracy


def _layer(structure: Structure, wanted: str | None) -> Coupling:
    couplings = {coupling.group.name: coupling for coupling in structure.couplings}
    if wanted is None:
        hidden = [name for name, each in couplings.items() if name != INPUTS and each.consumers and not each.columns]
        wanted = hidden[-1] if hidden else INPUTS
    if wanted not in couplings:
        why = structure.frozen.get(wanted)
        raise UsageError(
            f"layer '{wanted}' cannot be pruned" + (f": {why}" if why else ""), did_you_mean(wanted, couplings)
        )
    if not couplings[wanted].consumers or couplings[wanted].columns:
        raise UsageError(
            f"layer '{wanted}' is read by other weights than those of linear layers and convolutions",
            "choose another --layer, or --criterion shapley in a run",
        )
    return couplings[wanted]


def _game(found: ShapleyValues, images: int) -> Game:
    return Game(
        images=images,
        everybody=found.everybody,
        nobody=found.nobody,
        permutations=found.permutations,
        evaluations=found.evaluations,
        tolerance=None if found.permutations is None else TOLERANCE,
    )


def _values(found: ShapleyValues, order: tuple[int, ...], width: int) -> tuple[Valued, ...]:
    """Of all channels in `order`, the first `width` of which stay."""
    return tuple(
        Valued(channel=c, value=float(found.values[c]), error=float(found.errors[c]), kept=place < width)
        for place, c in enumerate(order)
    )


def _shipped(item: Exported) -> Shipped:
    file = item.artifact
    return Shipped(file.path.name, file.bytes, item.baseline.bytes, file.sha256, item.parity)


def _coalitions(game: NetworkGame, order: tuple[int, ...], width: int, seed: int) -> tuple[Coalition, ...]:
    """Some coalitions that show what the ranking is worth: who stays beside as many others, and what one is missed."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = [torch.randperm(len(order), generator=generator).tolist()[:width] for _ in range(3)]
    named: list[tuple[str, list[int]]] = [
        ("nobody", []),
        (f"the {width} least useful", list(order[-width:])),
        *((f"{width} at random ({number})", each) for number, each in enumerate(shuffled, start=1)),
        (f"the {width} most useful", list(order[:width])),
        ("all but the most useful", list(order[1:])),
        ("all but the least useful", list(order[:-1])),
        ("everybody", list(order)),
    ]
    members = torch.zeros(len(named), len(order), dtype=torch.bool)
    for row, (_, channels) in enumerate(named):
        members[row, channels] = True
    accuracies = game.values(members).tolist()
    return tuple(
        Coalition(name, tuple(sorted(channels)), accuracy)
        for (name, channels), accuracy in zip(named, accuracies, strict=True)
    )


def _links(network: nn.Module, coupling: Coupling) -> tuple[Tensor | None, Tensor]:
    """Sizes of the weights into each channel (channels, before), and from it to its first reader (after, channels)."""

    def sizes(layer: str) -> Tensor:
        weight = weighted(network, layer).weight.detach().abs()
        return weight.reshape(*weight.shape[:2], math.prod(weight.shape[2:])).sum(2)

    reader = coupling.consumers[0]
    outgoing = sizes(reader.layer)[:, torch.tensor(reader.columns)].sum(2)
    return (sizes(coupling.makers[0]) if coupling.makers else None), outgoing


def _some(channels: tuple[int, ...]) -> str:
    return ", ".join(map(str, channels[:5]))
