"""What a network is made of, what of it may be pruned, and what a run could reach at best: `edgeprune inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from torch import nn

from edgeprune.core.errors import EdgepruneError, UnexpectedError
from edgeprune.core.inputs import Shape
from edgeprune.core.kinds import Unit
from edgeprune.core.measurement import Measurement, MeasureSettings
from edgeprune.core.progress import Progress
from edgeprune.core.schema import INSPECT_SCHEMA
from edgeprune.core.session import Session
from edgeprune.core.store import RunFolder, TrialStore
from edgeprune.core.temporary import temporary_folder
from edgeprune.core.text import first_line
from edgeprune.core.version import VERSION
from edgeprune.pipeline.candidates import RunIdentity, needed
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.prepare import Prepared, untrained
from edgeprune.pipeline.workshop import workshop
from edgeprune.profilers.statistics import Interval, quotient_interval
from edgeprune.pruning.cost import count_macs, count_parameters
from edgeprune.pruning.criteria import Ranked
from edgeprune.pruning.rankings import l1
from edgeprune.pruning.structure import OWN, Structure
from edgeprune.pruning.surgery import cut
from edgeprune.search.frontier import narrow_plans


@dataclass(frozen=True, slots=True)
class LayerFound:
    """A module with work or parameters of its own; `group` says with which it is pruned, else `stays` why not."""

    name: str
    kind: str
    macs: int
    macs_share: float
    parameters: int
    group: str | None
    stays: str | None


@dataclass(frozen=True, slots=True)
class GroupFound:
    """Channels that go together; shares are of the unpruned network's, left when this group alone is at its narrowest.

    Latency is measured, with its 95 % interval; None where it was not.
    """

    name: str
    kind: str
    channels: int
    #: Rows of the first layer's weight that make one channel (see `Group.rows_per_channel`).
    rows: int
    floor: int
    #: Whether all of it may go.
    removable: bool
    #: Widths are multiples of it.
    step: int
    #: Those that are coupled.
    layers: tuple[str, ...]
    macs_left: float
    latency_left: Interval | None = None


@dataclass(frozen=True, slots=True)
class AtBest:
    """The narrowest network that is allowed, as shares of the unpruned one's; None: not measured.

    The latency is that of the fastest narrow network, which may have whole blocks of channels.
    """

    ncr: float
    macs_left: float
    parameters_left: float
    latency_left: Interval | None = None
    memory_left: float | None = None
    bytes_left: float | None = None


@dataclass(frozen=True, slots=True)
class OnDevice:
    """Where it was measured, and what the unpruned network costs there."""

    name: str
    runtime: str
    unit: Unit
    #: Median, in `unit`.
    latency: float
    #: Heap that the model holds, and size of its file, in bytes.
    memory: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Everything that is told of a network before a run: what `inspect --json` prints."""

    schema: int = INSPECT_SCHEMA
    #: The version that wrote it.
    edgeprune: str = VERSION
    model: str
    data: str
    task: str
    #: Of one example; of several inputs, or of integers, each.
    input_shape: Shape
    #: Multiply-accumulates of one input to the unpruned network.
    macs: int
    parameters: int
    neurons: int
    #: Every module with work or parameters of its own, in the network's order.
    layers: tuple[LayerFound, ...]
    groups: tuple[GroupFound, ...]
    #: Heavy operations that are not counted as MACs, by the module that runs them.
    uncounted: Mapping[str, tuple[str, ...]]
    #: Every group at its floor.
    best: AtBest
    device: OnDevice | None = None


def inspect(
    config: RunConfig, progress: Progress, session: Session | None = None, settings: MeasureSettings | None = None
) -> Inspection:
    """Look at the untrained network of `config`; what it costs does not hang on its weights.

    With a `session` every group, and all of them together, are measured at their narrowest beside the unpruned network,
    as `settings` say. Raises UsageError and its children for what cannot be used, NothingToPrune where nothing can be
    pruned (it names every reason), DeviceError.
    """
    settings = settings or MeasureSettings("onnxruntime")
    try:
        return _inspected(config, progress, session, settings)
    except EdgepruneError:
        raise
    except Exception as error:
        raise UnexpectedError(
            f"unexpected {type(error).__name__} while looking at {config.model}: {first_line(error)}",
            "mend the model's code, or report it",
        ) from error


def _inspected(config: RunConfig, progress: Progress, session: Session | None, settings: MeasureSettings) -> Inspection:
    prepared = untrained(config, progress, settings.runtime)
    network, structure = prepared.network, prepared.structure
    macs, parameters = count_macs(network, structure.shape), count_parameters(network)
    criterion = Ranked(network, structure, l1(network, structure), None)
    whole = {group.name: group.channels for group in structure.groups}
    narrow = {group.name: group.least for group in structure.groups}

    def left(widths: dict[str, int]) -> nn.Module:
        return cut(network, structure.shape, criterion.plan(widths), structure.graph)

    smallest = left(narrow)
    measured: dict[str, Measurement] = {}
    fastest = device = None
    if session is not None:
        measured, fastest, device = _measured(prepared, session, settings, progress)
    everything = measured.get("")
    return Inspection(
        model=config.model,
        data=prepared.dataset.name,
        task=prepared.task.name,
        input_shape=prepared.dataset.input_shape,
        macs=macs,
        parameters=parameters,
        neurons=structure.neurons(network),
        layers=_layers(network, structure, macs),
        groups=tuple(
            GroupFound(
                name=group.name,
                kind=group.kind,
                channels=group.channels,
                rows=group.rows_per_channel,
                floor=group.floor,
                removable=group.removable,
                step=group.multiple_of,
                layers=group.layers,
                macs_left=count_macs(left({**whole, group.name: group.least}), structure.shape) / macs,
                latency_left=_interval(measured.get(group.name)),
            )
            for group in structure.groups
        ),
        uncounted=dict(structure.uncounted),
        best=AtBest(
            ncr=structure.neurons(network) / structure.neurons(smallest),
            macs_left=count_macs(smallest, structure.shape) / macs,
            parameters_left=count_parameters(smallest) / parameters,
            latency_left=_interval(fastest),
            memory_left=everything.memory_quotient if everything else None,
            bytes_left=everything.bytes / device.bytes if everything and device else None,
        ),
        device=device,
    )


def _layers(network: nn.Module, structure: Structure, macs: int) -> tuple[LayerFound, ...]:
    """In the order in which the network holds them."""
    grouped: dict[str, str] = {}
    read: dict[str, str] = {}
    for coupling in structure.couplings:
        for layer in coupling.group.layers:
            (read if layer in coupling.readers else grouped)[layer or OWN] = coupling.group.name
    found = []
    order = {name: place for place, (name, _) in enumerate(network.named_modules())}
    for name in sorted(structure.costs, key=lambda each: order.get(each, len(order))):
        cost = structure.costs[name]
        why = structure.frozen.get(name)
        if name in structure.output_layers:
            why = "it gives the output"
        elif why is None and name in read:
            why = f"only its inputs go, with group {read[name]}"
        kind = "forward" if name == OWN else type(network.get_submodule(name)).__name__
        group = grouped.get(name)
        found.append(
            LayerFound(name, kind, cost.macs, cost.macs / macs, cost.parameters, group, None if group else why)
        )
    return tuple(found)


def _interval(cost: Measurement | None) -> Interval | None:
    return None if cost is None else quotient_interval(cost.samples, cost.against, cost.process)


def _measured(
    prepared: Prepared, session: Session, settings: MeasureSettings, progress: Progress
) -> tuple[dict[str, Measurement], Measurement, OnDevice]:
    """Each group at its floor by its name, and all of them under ""; the fastest of the narrow plans; what the unpruned
    network costs.
    """
    groups = prepared.structure.groups
    narrowest, *others = narrow_plans(groups)
    with temporary_folder() as temporary:
        folder = RunFolder(temporary)
        run = RunIdentity("", folder.path, session.spec.name)
        with (
            closing(TrialStore(folder / "trials.sqlite")) as store,
            workshop(prepared, run, folder, session, settings, store, progress, ahead=False) as shop,
            progress.bar("measuring every group at its narrowest", len(groups) + 1 + len(others)) as bar,
        ):

            def measured(widths: dict[str, int], name: str = "") -> Measurement:
                cost = needed(shop.evaluator.cost(shop.evaluator.plan(widths)), session.spec.name)
                bar.advance(1, name)
                return cost

            whole = {group.name: group.channels for group in groups}
            found = {"": measured(narrowest)}
            for group in groups:
                found[group.name] = measured({**whole, group.name: group.least}, group.name)
            fastest = min((found[""], *map(measured, others)), key=lambda each: each.quotient)
            told = OnDevice(
                name=session.spec.name,
                runtime=settings.runtime,
                unit=found[""].unit,
                latency=found[""].against_median,
                memory=found[""].against_peak_bytes,
                bytes=shop.baseline_file.stat().st_size,
            )
    return found, fastest, told


def inspect_config(values: Mapping[str, Any]) -> RunConfig:
    """The settings of a run that only looks: channels go by their norms, nothing is tuned. Raises UsageError."""
    return RunConfig(**{**values, "criterion": "l1", "search_steps": 0})
