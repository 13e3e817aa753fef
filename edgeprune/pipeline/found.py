"""What is known before anything is trained or measured: data, network, task, structure, settings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import nn

from edgeprune.core.design import INPUTS
from edgeprune.core.errors import ModelError, UsageError
from edgeprune.core.inputs import written
from edgeprune.core.progress import Progress
from edgeprune.core.runtimes import RuntimeName
from edgeprune.core.userfile import is_user_function
from edgeprune.data.catalog import load_data
from edgeprune.data.dataset import Dataset, EachInput
from edgeprune.data.split import as_given, as_integers, channels_first, in_order
from edgeprune.models.plain import check_steady, is_waiting, make_plain
from edgeprune.models.source import Answered, answered, load_weights, make_model
from edgeprune.pipeline.bounds import Bounded, read_drop
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.settings import Facts, Settled, settle
from edgeprune.pipeline.staying import tell_frozen
from edgeprune.pruning.groups import discover, unpruned
from edgeprune.pruning.kinds import convolutional
from edgeprune.pruning.structure import Structure
from edgeprune.tasks.own import load_own, make_own, own_targets
from edgeprune.tasks.resolve import check_fits, is_same, settle_task
from edgeprune.tasks.task import CLASSIFICATION, Task

#: Values a layer may read and still be refitted: its Gram matrix then takes half a gigabyte.
MAX_COLUMNS = 8192


@dataclass(frozen=True, slots=True)
class Found:
    """What is known before anything is trained."""

    dataset: Dataset
    network: nn.Module
    structure: Structure
    task: Task
    facts: Facts
    settled: Settled


def find(
    config: RunConfig,
    progress: Progress,
    runtime: RuntimeName,
    dataset: Dataset | None = None,
    *,
    prunes: bool = True,
    branches: bool = False,
) -> Found:
    """Data, network with its weights made plain, task, structure and settings; `dataset`: loaded before.

    Where nothing `prunes` the network its structure has no groups. Whole `branches` may go where anything is bounded,
    or that is asked for.

    Raises UsageError and its children for what cannot be used, NothingToPrune where nothing can be pruned.
    """
    owner = load_own(config.own_task) if config.own_task else None
    dataset = dataset or _data(config, progress, owner)
    progress.say(
        f"data {dataset.name}: {len(dataset.train)} train, {len(dataset.validation)} validation, "
        f"{len(dataset.test)} test, "
        f"inputs {written(dataset.input_shape)}, {dataset.examples}"
    )
    torch.manual_seed(config.seed)
    network, dataset, task = _network(config, dataset, progress, owner)
    if config.max_drop is not None:
        task.metric.check_drop(read_drop(config.max_drop)[1])
    # As they were saved, which may be before they are plain.
    if config.weights is not None:
        load_weights(network, config.weights, progress.say)
    for line in make_plain(network):
        progress.say(line)
    check_steady(network, config.model, dataset.input_shape)
    if prunes:
        tell_frozen(network, config.prune_frozen, progress)
    # Groups are found before anything is trained: a model with nothing to prune should not cost an hour first.
    # What is aimed at where nothing is asked for is half-way to the narrowest network: one that still knows something.
    branches = branches or any(getattr(config, bound) is not None for bound in get_args(Bounded))
    structure = (
        _structure(config, network, dataset, runtime, branches=branches)
        if prunes
        else unpruned(network, dataset.input_shape)
    )
    facts = facts_of(dataset, network, structure, runtime, task)
    return Found(dataset, network, structure, task, facts, settle(config, facts))


def data_as_given(config: RunConfig, progress: Progress) -> Dataset:
    """The data, before it is known how the network takes them. Raises DataError."""
    return _data(config, progress, load_own(config.own_task) if config.own_task else None)


def _data(config: RunConfig, progress: Progress, owner: Any) -> Dataset:
    # A DataLoader that shuffles brings the same examples in the same order every time, so that a run can be resumed.
    torch.manual_seed(config.seed)
    return load_data(
        config.data,
        config.data_dir,
        seed=config.seed,
        validation_share=config.validation_share,
        progress=progress,
        task=own_targets(config.own_task, owner) if config.own_task else config.named_task,
    )


def _structure(
    config: RunConfig, network: nn.Module, dataset: Dataset, runtime: RuntimeName, *, branches: bool
) -> Structure:
    return discover(
        network,
        dataset.input_shape,
        runtime=runtime,
        prune_inputs=config.prune_inputs,
        multiple_of=config.multiple_of,
        max_sparsity=config.max_sparsity,
        max_columns=MAX_COLUMNS if config.repairs or config.criterion == "reconstruction" else None,
        prune_frozen=config.prune_frozen,
        branches=branches,
    )


def _network(config: RunConfig, dataset: Dataset, progress: Progress, owner: Any) -> tuple[nn.Module, Dataset, Task]:
    """The untrained network, the data in the layout that it takes, and the task.

    The user's own takes inputs as images (N, C, H, W), or, where it does not, as they were given, or integers as such
    (nothing else where it has a table to look them up in); one of the zoo takes images. Raises ModelError where none of
    these is taken, or the answers do not fit the targets.
    """
    network = make_model(config.model, dataset.input_shape, dataset.outputs)
    lazy = is_waiting(network)
    dataset = _as_forward_takes(network, dataset, progress)
    ways: tuple[Dataset | None, ...] = (dataset,)
    if is_user_function(config.model):
        whole = as_integers(dataset)
        ways = (dataset, as_given(dataset), channels_first(dataset), whole)
        # One that looks words up may take fractions as well, and cut them to integers itself: to other words.
        if whole and any(isinstance(module, nn.Embedding | nn.EmbeddingBag) for module in network.modules()):
            ways = (whole,)
    errors: dict[Dataset, ModelError] = {}
    for way in ways:
        if way is None:
            continue
        train = way.train
        if lazy:
            # A try that fails may have given its layers shapes.
            network = make_model(config.model, way.input_shape, way.outputs)
        try:
            output = answered(network, config.model, way.input_shape, several=owner is not None)
            task = _task(config, way, output, owner)
            check_fits(task, config.model, output.shape, train.y, way.classes, way.examples)
        except ModelError as misfit:
            errors[way] = misfit
            continue
        if way.anomalous is not None and task.name != "reconstruction":
            raise UsageError(f"the data mark anomalies, and the task is {task.name}", "give --task reconstruction")
        how = "" if config.task else ", worked out from the targets"
        progress.say(f"task: {task.name}{how}; judged by {task.metric.title}")
        if way is not dataset:
            how = "as they are given" if way.laid_out == "given" else "with their last axis as the first"
            if isinstance(way.preprocessing, EachInput):
                how = "as integers where they are"
            progress.say(f"inputs are taken {how}: {written(way.input_shape)}")
        return network, way, task
    raise _misfit(errors)


def _task(config: RunConfig, dataset: Dataset, output: Answered, owner: Any) -> Task:
    if config.own_task:
        return make_own(config.own_task, owner, output.layout, dataset.target_layout, output.shape[1:])
    x, y = dataset.train.x, dataset.train.y
    return settle_task(
        config.named_task, config.metric, dataset.targets, y, dataset.classes, output.shape, same=is_same(x, y)
    )


def _misfit(errors: Mapping[Dataset, ModelError]) -> ModelError:
    """What the data as they came are refused for; and, where they hold integers, what these are."""
    integers = [error for way, error in errors.items() if way.whole and isinstance(way.preprocessing, EachInput)]
    others = [error for error in errors.values() if error not in integers]
    if integers and others:
        return ModelError(f"{others[0].message}; as integers: {integers[0].message}", others[0].hint)
    return (others or integers)[0]


def _as_forward_takes(network: nn.Module, dataset: Dataset, progress: Progress) -> Dataset:
    """Several inputs in the order in which `forward` names them; as they come where it has other names.

    Raises ModelError where it has a parameter between them that the data do not fill: they are handed over by place.
    """
    given = dataset.train.x.dtype.names
    if given is None:
        return dataset
    parameters = list(inspect.signature(network.forward).parameters)
    if set(given) <= set(parameters):
        ordered = [name for name in parameters if name in given]
        if between := [name for name in parameters[: parameters.index(ordered[-1])] if name not in given]:
            raise ModelError(
                f"forward({', '.join(parameters)}) takes {between[0]} before {ordered[-1]}, which the data do not have",
                "let forward take the data's inputs first, or give the data that input",
            )
        return in_order(dataset, ordered)
    taken = ", ".join(parameters[: len(given)])
    progress.say(f"inputs {', '.join(given)} are handed to forward({taken}) in this order: its names are others")
    return dataset


def facts_of(
    dataset: Dataset, network: nn.Module, structure: Structure, runtime: RuntimeName, task: Task = CLASSIFICATION
) -> Facts:
    """What settings are decided by; `runtime` is the one that is measured."""
    return Facts(
        images=len(dataset.train),
        shape=dataset.input_shape,
        moves=task.moves,
        mirrors=dataset.mirrors,
        validation=len(dataset.validation),
        convolves=convolutional(network),
        macs=sum(cost.macs for cost in structure.costs.values()),
        groups=len(structure.groups),
        inputs=None if structure.input_layer is None else any(group.name == INPUTS for group in structure.groups),
        runtime=runtime,
    )
