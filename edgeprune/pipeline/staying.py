"""What a run says of the layers that stay as they are: at the start, and where a budget fails because of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import nn

from edgeprune.core.design import INPUTS
from edgeprune.core.progress import Progress
from edgeprune.core.units import format_share
from edgeprune.pipeline.records.network import Staying
from edgeprune.pruning.held import frozen_parameters
from edgeprune.pruning.stays import advice, say_stays
from edgeprune.pruning.structure import Structure

#: Layers that stay are said one by one on the screen from this share of the multiply-accumulates, and so many at most.
SHOWN_SHARE, SHOWN = 0.01, 8

Measure = Literal["macs", "parameters", "neurons"]
_WORDS: dict[Measure, str] = {"macs": "MACs", "parameters": "parameters", "neurons": "neurons"}


def tell_frozen(network: nn.Module, prune_frozen: bool, progress: Progress) -> None:
    """Say which parameters the user froze, and what that means."""
    names = set(frozen_parameters(network))
    if not names:
        if prune_frozen:
            progress.say("--prune-frozen changes nothing: no parameter of the model has requires_grad=False")
        return
    every = {name: parameter.numel() for name, parameter in network.named_parameters()}
    count = sum(every[name] for name in names)
    then = "their layers may be pruned (--prune-frozen), and what is left of them keeps its values"
    if not prune_frozen:
        then = "they keep their values, their layers are not pruned; --prune-frozen allows it"
    progress.say(f"{count:,} of {sum(every.values()):,} parameters are frozen (requires_grad=False): {then}")


def tell_stays(structure: Structure, progress: Progress, log: Callable[[str], None]) -> None:
    """Say which layers stay, their share of the work, and why: the dear ones on the screen, all of them in the log."""
    names = list(structure.frozen)
    shown = [name for name in names if structure.share(name) >= SHOWN_SHARE or name == INPUTS][:SHOWN]
    for name in shown:
        progress.say(f"layer {say_stays(structure, name)}")
    rest = [name for name in names if name not in shown]
    for name in rest:
        log(f"layer {say_stays(structure, name)}")
    if rest:
        share = format_share(sum(structure.share(name) for name in rest))
        what = "1 more layer stays" if len(rest) == 1 else f"{len(rest)} more layers stay"
        progress.say(f"{what}, with {share} of the MACs: see run.log")
    for name, operations in structure.uncounted.items():
        progress.say(f"layer {name} runs {', '.join(operations)}: such work is not counted as MACs")


def staying(structure: Structure) -> dict[str, Staying]:
    """The layers that stay as `result.json` has them."""
    costs = structure.costs
    return {
        name: Staying(
            reason=reason,
            macs=costs[name].macs if name in costs else 0,
            macs_share=round(structure.share(name), 6),
            parameters=costs[name].parameters if name in costs else 0,
        )
        for name, reason in structure.frozen.items()
    }


def because_of(structure: Structure, measure: Measure, possible: float) -> str | None:
    """Why no network has less than a share `possible` of the unpruned one's: "gru holds 97 % of the MACs ...".

    None where the layers that stay make up less than half of it: then they are not the reason.
    """
    amounts = {name: getattr(cost, measure) for name, cost in structure.costs.items()}
    if measure == "neurons":
        amounts = {name: count for name, count in amounts.items() if name not in structure.output_layers}
        amounts[INPUTS] = structure.inputs
    total = sum(amounts.values())
    whole = set(structure.frozen) | ({INPUTS} - {group.name for group in structure.groups})
    held = {name: amounts[name] for name in whole if amounts.get(name)}
    if not total or not sum(held.values()) / total >= possible / 2:
        return None
    name = max(held, key=lambda each: held[each])
    reason = structure.frozen.get(name, "input features are not pruned here")
    joint = f"and {reason}" if reason.endswith("not pruned yet") else f"and stay{'s' * (name != INPUTS)}: {reason}"
    others = sum(held.values()) - held[name]
    more = f"; other layers that stay hold {format_share(others / total)}" if others else ""
    way_out = f"; {hint}" if (hint := advice(structure)) else ""
    holds = "the inputs hold" if name == INPUTS else f"{name} holds"
    return f"{holds} {format_share(held[name] / total)} of the {_WORDS[measure]} {joint}{more}{way_out}"
