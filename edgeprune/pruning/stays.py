"""What of a network stays as it is, why, and what it costs: every layer that no group takes, not only those tried."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from edgeprune.core.inputs import Shape
from edgeprune.core.text import first_line
from edgeprune.core.units import format_share
from edgeprune.models.inputs import ask, made
from edgeprune.pruning.cost import WEIGHTED, Work, neurons_of
from edgeprune.pruning.held import FROZEN
from edgeprune.pruning.kinds import unprunable
from edgeprune.pruning.structure import OWN, Coupling, LayerCost, Structure


@dataclass(frozen=True, slots=True)
class Stay:
    """A group that stays whole, and why."""

    coupling: Coupling
    reason: str


def costs_of(network: nn.Module, work: Work) -> dict[str, LayerCost]:
    """What every module costs by itself, dearest first; those without work and parameters are left out.

    What is inside a layer of a kind that stays whole (see `kinds`), or of attention, is part of it. Shared parameters
    count once.
    """
    costs: dict[str, LayerCost] = {}
    seen: set[nn.Parameter] = set()
    for name, module in network.named_modules():
        own = [parameter for parameter in module.parameters(recurse=False) if parameter not in seen]
        seen.update(own)
        # A layer that does not run has no neurons, but it is in the file of weights all the same.
        neurons = (neurons_of(module) or 0) if name in work.macs else 0
        cost = LayerCost(
            work.macs.get(name, 0), sum(each.numel() for each in own), neurons + work.bare_neurons.get(name, 0)
        )
        if not (cost.macs or cost.parameters or cost.neurons):
            continue
        place = _whole(network, name)
        before = costs.get(place, LayerCost())
        costs[place] = LayerCost(
            before.macs + cost.macs, before.parameters + cost.parameters, before.neurons + cost.neurons
        )
    return dict(sorted(costs.items(), key=lambda item: (-item[1].macs, -item[1].parameters)))


def stays(
    network: nn.Module,
    work: Work,
    costs: Mapping[str, LayerCost],
    found: Iterable[Coupling],
    frozen: Iterable[Stay],
    outputs: Collection[str],
    untouchable: Collection[str],
    narrowest: Work | None,
) -> dict[str, str]:
    """Why every layer stays that is neither in a group of `found` nor in `outputs`; the dearest first.

    `frozen` are the groups that stay, `untouchable` the parameters that the user froze, `narrowest` the work of the
    network whose groups are as narrow as may be: products of activations go with what makes them.
    """
    grouped = {_whole(network, layer) for coupling in found for layer in coupling.group.layers}
    reasons: dict[str, str] = {}
    follows: dict[str, Stay] = {}
    for stay in frozen:
        name = stay.coupling.group.name
        if name in outputs:
            continue
        reasons.setdefault(name, stay.reason)
        for layer in stay.coupling.group.layers:
            if layer not in stay.coupling.readers:
                follows.setdefault(layer, stay)
    for place in costs:
        name = "" if place == OWN else place
        if place in reasons or name in outputs or place in grouped:
            continue
        alone = not costs[place].parameters
        if alone and narrowest is not None and narrowest.macs.get(name, 0) < work.macs.get(name, 0):
            continue
        held = any(f"{name}.{leaf}".lstrip(".") in untouchable for leaf, _ in _own(network, name))
        reasons[place] = _reason(network.get_submodule(name), name, work, held, follows.get(name))
    return dict(sorted(reasons.items(), key=lambda item: -costs.get(item[0], LayerCost()).macs))


def say_stays(structure: Structure, name: str) -> str:
    """One layer that stays: "mix: 97 % of the MACs, bilinear layers are not pruned yet"."""
    share = structure.share(name)
    amount = f"{format_share(share)} of the MACs, " if share else ""
    return f"{name}: {amount}{structure.frozen[name]}"


def list_stays(structure: Structure, most: int = 3) -> str:
    """The dearest layers that stay, on one line."""
    names = list(structure.frozen)
    more = f"; and {len(names) - most} more" if len(names) > most else ""
    return "; ".join(say_stays(structure, name) for name in names[:most]) + more


def advice(structure: Structure) -> str | None:
    """What to type where layers stay only since the user froze them; None where that is not so."""
    held = any(FROZEN in reason for reason in structure.frozen.values())
    return "add --prune-frozen, or set requires_grad=True where layers may be pruned" if held else None


def obstacle(network: nn.Module, shape: Shape, error: Exception) -> str:
    """Why a network cannot run any more: the layer in which `error` came up, where there is one."""
    running: list[tuple[str, nn.Module]] = []
    hooks = []
    for name, module in network.named_modules():

        def begin(module: nn.Module, _: object, name: str = name) -> None:
            running.append((name, module))

        def end(_: nn.Module, __: object, ___: object) -> None:
            running.pop()

        hooks += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
    try:
        with torch.no_grad():
            ask(network, made(shape, 2, torch.zeros))
    except Exception:  # noqa: BLE001 - it is the error that is being looked into
        pass
    finally:
        for hook in hooks:
            hook.remove()
    if not running or not running[-1][0]:
        return first_line(error)
    name, module = running[-1]
    why = unprunable(module)
    return f"{name} reads it, and {why}" if why else f"in {name}: {first_line(error)}"


def _own(network: nn.Module, name: str) -> Iterable[tuple[str, nn.Parameter]]:
    return network.get_submodule(name).named_parameters(recurse=False)


def _whole(network: nn.Module, name: str) -> str:
    """The outermost module around `name` that is one layer to us, else `name`; `OWN` for the network."""
    parts = name.split(".")
    for depth in range(1, len(parts)):
        outer = ".".join(parts[:depth])
        module = network.get_submodule(outer)
        if unprunable(module) is not None or isinstance(module, nn.MultiheadAttention):
            return outer
    return name or OWN


def _reason(module: nn.Module, name: str, work: Work, held: bool, follows: Stay | None) -> str:
    kind = unprunable(module)
    if kind is not None:
        return kind
    if held:
        return f"its parameters are {FROZEN}"
    if name not in work.macs and not any(
        name == each.rpartition(".")[0] for own in work.reads.values() for each in own
    ):
        return "it does not run"
    if follows is not None:
        return f"it goes with {follows.coupling.group.name}, which stays"
    if isinstance(module, WEIGHTED):
        return "no layer that can be narrowed reads it"
    if work.macs.get(name, 0):
        return "products of activations have no weights that could go"
    return "it has no channels of its own"
