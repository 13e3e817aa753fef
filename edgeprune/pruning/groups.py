"""Groups of coupled channels, found by the labels of its axes, each one proven by removing channels.

A group is offered to the search only after a trial: some of its channels are removed from a copy, which must run and
equal the copy whose consumers ignore those channels. What fails stays as it is and is reported with the reason.
"""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from torch import nn

from edgeprune.core.errors import ModelError, NothingToPrune
from edgeprune.core.inputs import Shape, specs_of
from edgeprune.core.runtimes import RuntimeName
from edgeprune.core.text import first_line
from edgeprune.pruning.channels import NO_GROUPS, Graph, follow
from edgeprune.pruning.cost import Work, neurons_of, work
from edgeprune.pruning.graph import couplings
from edgeprune.pruning.held import Held
from edgeprune.pruning.inputs import flat_input_layer
from edgeprune.pruning.stays import advice, costs_of, list_stays, stays
from edgeprune.pruning.structure import OWN, Structure
from edgeprune.pruning.trials import Rules, Trials, output_shape

#: Share of a group that may go from which on all of it may, where the network does without it.
WHOLE_FROM = 0.9


def discover(
    network: nn.Module,
    shape: Shape,
    *,
    runtime: RuntimeName,
    prune_inputs: bool | None = None,
    multiple_of: int | None = None,
    max_sparsity: float = 0.9,
    max_columns: int | None = None,
    prune_frozen: bool = False,
    branches: bool = True,
) -> Structure:
    """Find and prove the groups of `network` for inputs (N, *shape).

    `prune_inputs` None: input features are a group where one linear layer reads the whole flattened input.
    `multiple_of` None: 1 for neurons, the runtime's block for convolution channels.
    `max_columns`: readers that are wider (inputs times kernel taps) are not refitted: their Gram matrix would not fit.
    `prune_frozen`: groups may also cut parameters that the user froze (requires_grad=False).
    `branches`: the inside of a residual branch may go as a whole, where `max_sparsity` is at least 0.9.
    Raises NothingToPrune where no group stands its trial.
    """
    if not any(True for _ in network.parameters()):
        raise NothingToPrune(
            "the model has nothing to prune: it has no parameters", "give a network with hidden layers"
        )
    network = _stirred(network)
    answer = output_shape(network, shape)
    done = work(network, shape)
    held = Held.of(network, done, prune_frozen=prune_frozen)
    # A layer that runs twice has the place of its first run.
    order = {name: index for index, name in enumerate(done.macs)}
    graph = _followed(network, shape)
    rules = Rules(runtime, multiple_of, max_sparsity, max_columns, branches and max_sparsity >= WHOLE_FROM)
    trials = Trials(network, shape, graph, done, held, rules, answer)
    trials.run(couplings(network, graph, order))
    trials.found.sort(key=lambda coupling: order.get(coupling.makers[0], len(order)))
    input_layer = flat_input_layer(network, shape)
    if prune_inputs and input_layer is None:
        raise ModelError(
            "no linear layer reads the model's whole input, so input features cannot be pruned",
            "leave out --prune-inputs",
        )
    if input_layer is not None and prune_inputs is not False:
        trials.add_inputs(input_layer)
    structure = _assembled(network, shape, graph, done, held, trials, input_layer)
    if not structure.couplings:
        staying = f": {list_stays(structure)}" if structure.frozen else ""
        raise NothingToPrune(
            f"the model has nothing to prune{staying}",
            advice(structure) or f"it needs a hidden Linear or Conv2d layer between input and logits {answer}",
        )
    return structure


def unpruned(network: nn.Module, shape: Shape) -> Structure:
    """What `network` is made of for inputs (N, *shape), with no groups: for one of which nothing is to go."""
    network = deepcopy(network).eval()
    done = work(network, shape)
    return Structure(
        shape=shape,
        graph=NO_GROUPS,
        couplings=(),
        frozen={},
        output_layers=() if done.output is None else (done.output,),
        hidden_layers=tuple(
            name for name in done.macs if name != done.output and neurons_of(network.get_submodule(name)) is not None
        ),
        inputs=_inputs(shape, channels=bool(done.convolve.difference((done.output,)))),
        input_layer=None,
        costs=costs_of(network, done),
        bare_neurons=sum(done.bare_neurons.values()),
        uncounted={name or OWN: operations for name, operations in done.uncounted.items()},
    )


def _assembled(
    network: nn.Module, shape: Shape, graph: Graph, done: Work, held: Held, trials: Trials, input_layer: str | None
) -> Structure:
    """What of the network may be pruned, and what stays."""
    found, outputs = trials.choices(), list(trials.outputs)
    # The trials know the outputs among layers whose channels are followed; another one is known by what it makes.
    if not outputs and done.output is not None and not any(done.output in coupling.makers for coupling in found):
        outputs.append(done.output)
    costs = costs_of(network, done)
    return Structure(
        shape=shape,
        graph=graph,
        couplings=tuple(found),
        frozen=stays(network, done, costs, found, trials.staying, outputs, held.untouchable, trials.narrowest(found)),
        output_layers=tuple(dict.fromkeys(outputs)),
        hidden_layers=tuple(
            name for name in done.macs if name not in outputs and neurons_of(network.get_submodule(name)) is not None
        ),
        # A network that convolves anywhere before its answer looks at channels, others at single values.
        inputs=_inputs(shape, channels=bool(done.convolve.difference(outputs))),
        input_layer=input_layer,
        costs=costs,
        bare_neurons=sum(done.bare_neurons.values()),
        uncounted={name or OWN: operations for name, operations in done.uncounted.items()},
    )


def _followed(network: nn.Module, shape: Shape) -> Graph:
    try:
        return follow(network, shape)
    except Exception as error:
        raise NothingToPrune(
            f"the model cannot be followed: {type(error).__name__}: {first_line(error)}",
            "simplify its forward, or leave out what it does between the layers that shall be pruned",
        ) from error


def _stirred(network: nn.Module) -> nn.Module:
    """A copy with a little seeded noise on all parameters and statistics.

    An untrained network has zeros and ones in places where a trained one has not (scales of residual branches, batch
    statistics), and a mistake behind a zero does not show.
    """
    network = deepcopy(network).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point() and tensor.numel():
                scale = 0.1 * max(float(tensor.std(correction=0)), 0.05)
                noise = scale * torch.randn(tensor.shape, generator=generator)
                tensor.add_(noise.abs() if name.endswith("running_var") else noise)
    return network


def _inputs(shape: Shape, *, channels: bool) -> int:
    """What a network looks at: channels where it convolves, else single values."""
    return sum(each.shape[0] if channels and each.shape else math.prod(each.shape) for each in specs_of(shape))
