"""Operations that a converter refuses though the network could do without them, put otherwise.

`x * gate.expand_as(x)`, as squeeze-and-excitation is often written, repeats what a product repeats by itself; a maximum
over everything is asked for as an adaptive pool. Both are refused by litert-torch 0.10, which also forgets the shape of
what is expanded between convolutions, and answers something else.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node

_ATEN = torch.ops.aten
_EXPAND = (_ATEN.expand.default, _ATEN.expand_as.default)
#: They repeat their operands where these are smaller.
_BROADCASTING = (
    _ATEN.mul.Tensor, _ATEN.add.Tensor, _ATEN.sub.Tensor, _ATEN.div.Tensor, _ATEN.maximum.default,
    _ATEN.minimum.default, _ATEN.mul_.Tensor, _ATEN.add_.Tensor,
)  # fmt: skip
_POOL = _ATEN.adaptive_max_pool2d.default


def simplified(network: nn.Module, given: tuple[Tensor, ...]) -> nn.Module | None:
    """A network that computes the same without these operations; None where there are none.

    Raises whatever torch.export does of a network that it cannot follow.
    """
    program = torch.export.export(network, given)
    module = program.module()
    graph: Graph = module.graph
    changed = [_without(graph, node) for node in list(graph.nodes)]
    if not any(changed):
        return None
    graph.eliminate_dead_code()
    module.recompile()
    return module


def _without(graph: Graph, node: Node) -> bool:
    if node.target in _EXPAND and all(_repeats(user, node) for user in node.users):
        node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
        return True
    if node.target in _EXPAND and node.meta["val"].is_floating_point():
        # Told by the numbers that it is added to, not by a shape, which a change of layout forgets.
        with graph.inserting_before(node):
            zeros = graph.call_function(_ATEN.zeros.default, (list(node.meta["val"].shape),))
            node.replace_all_uses_with(graph.call_function(_ATEN.add.Tensor, (node.args[0], zeros)))
        return True
    if node.target is _POOL and list(_sizes(node)) == [1, 1] and all(_first(user) for user in node.users):
        with graph.inserting_before(node):
            highest = graph.call_function(_ATEN.amax.default, (node.args[0], [-2, -1], True))
        for user in list(node.users):
            user.replace_all_uses_with(highest)
            graph.erase_node(user)
        return True
    return False


def _repeats(user: Node, expanded: Node) -> bool:
    """Whether `user` gives the same without the expansion: its other operand makes it as large."""
    if user.target not in _BROADCASTING:
        return False
    others = [each for each in user.args[:2] if isinstance(each, Node) and each is not expanded]
    shape = expanded.meta["val"].shape
    return user.args[0] is not user.args[1] and any(each.meta["val"].shape == shape for each in others)


def _sizes(pool: Node) -> Any:
    return pool.args[1] if isinstance(pool.args[1], list | tuple) else [pool.args[1]] * 2


def _first(user: Node) -> bool:
    """Whether it takes the values of a pool, or their places for nobody."""
    return user.target is operator.getitem and bool(user.args[1] == 0 or not user.users)
