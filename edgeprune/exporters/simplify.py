"""Operations that a converter refuses though the network could do without them, put otherwise.

`x * gate.expand_as(x)`, as squeeze-and-excitation is often written, repeats what a product repeats by itself; a maximum
over everything is asked for as an adaptive pool. Both are refused by litert-torch 0.10, which also forgets the shape of
what is expanded between convolutions, and answers something else. Tables that a forward works out of nothing but
numbers (`torch.arange`, `torch.eye`) it makes of operations that no runtime knows, and transposed convolutions whose
padding is not half of what kernel and stride make (3, stride 2, padding 1) it takes for malformed.
"""

from __future__ import annotations

import operator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

_ATEN = torch.ops.aten
_EXPAND = (_ATEN.expand.default, _ATEN.expand_as.default)
#: They repeat their operands where these are smaller.
_BROADCASTING = (
    _ATEN.mul.Tensor, _ATEN.add.Tensor, _ATEN.sub.Tensor, _ATEN.div.Tensor, _ATEN.maximum.default,
    _ATEN.minimum.default, _ATEN.mul_.Tensor, _ATEN.add_.Tensor,
)  # fmt: skip
#: Adaptive pools of a maximum, with the pool of windows that they come to.
_POOLS = {
    _ATEN.adaptive_max_pool1d.default: _ATEN.max_pool1d.default,
    _ATEN.adaptive_max_pool2d.default: _ATEN.max_pool2d.default,
}
_TRANSPOSED = (
    _ATEN.conv_transpose1d.default, _ATEN.conv_transpose2d.input, _ATEN.conv_transpose3d.input,
)  # fmt: skip
_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_DEFAULTS = {"padding": 0, "output_padding": 0, "stride": 1, "dilation": 1}
_REPEAT = (_ATEN.repeat.default, _ATEN.tile.default)
#: Convolutions whose padding is a word, and the same with numbers.
_PADDED = {
    _ATEN.conv1d.padding: _ATEN.conv1d.default,
    _ATEN.conv2d.padding: _ATEN.conv2d.default,
    _ATEN.conv3d.padding: _ATEN.conv3d.default,
}
#: Values of a tensor that is worked out before the conversion, at most.
_LARGEST = 1 << 20


def simplified(network: nn.Module, given: tuple[Tensor, ...]) -> nn.Module | None:
    """A network that computes the same without these operations; None where there are none.

    Raises whatever torch.export does of a network that it cannot follow.
    """
    program = torch.export.export(network, given)
    module = program.module()
    graph: Graph = module.graph
    changed = _fold_constants(module)
    graph.eliminate_dead_code()
    changed += [_without(graph, node) for node in list(graph.nodes)]
    if not any(changed):
        return None
    graph.eliminate_dead_code()
    module.recompile()
    return module


def _fold_constants(module: GraphModule) -> list[bool]:
    """Put what follows from numbers alone into buffers; for each such tensor True."""
    known: dict[Node, Tensor] = {}
    for node in module.graph.nodes:
        if not isinstance(node.target, OpOverload) or torch.Tag.nondeterministic_seeded in node.target.tags:
            continue
        if node.target._schema.is_mutable and any(each in known for each in node.all_input_nodes):
            # A table that is written into, under whatever name.
            return []
        made = node.meta.get("val")
        if (
            isinstance(made, Tensor)
            and made.numel() <= _LARGEST
            and all(each in known for each in node.all_input_nodes)
        ):
            args, kwargs = map_arg((node.args, node.kwargs), lambda each: known[each].clone())
            known[node] = node.target(*args, **kwargs)
    folded = [node for node in known if any(user not in known for user in node.users)]
    for number, node in enumerate(folded):
        module.register_buffer(f"_constant_{number}", known[node].contiguous())
        with module.graph.inserting_before(node):
            constant = module.graph.get_attr(f"_constant_{number}")
        constant.meta["val"] = known[node]
        node.replace_all_uses_with(constant)
    return [True for _ in folded]


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
    if node.target in _POOLS and (kernel := _kernel(node)) is not None and all(_first(user) for user in node.users):
        with graph.inserting_before(node):
            if set(_sizes(node)) == {1}:
                over = list(range(-len(kernel), 0))
                highest = graph.call_function(_ATEN.amax.default, (node.args[0], over, True))
            else:
                highest = graph.call_function(_POOLS[node.target], (node.args[0], kernel, kernel))
        for user in list(node.users):
            user.replace_all_uses_with(highest)
            graph.erase_node(user)
        return True
    if node.target in _TRANSPOSED:
        return _cut_behind(graph, node)
    if node.target in _REPEAT:
        _repeat(graph, node)
        return True
    if node.target in _PADDED and node.args[4:5] == ("same",):
        _pad_before(graph, node)
        return True
    return False


def _cut_behind(graph: Graph, node: Node) -> bool:
    """A transposed convolution makes all its places; what its padding takes away is cut off behind it."""
    given: dict[str, Any] = dict(zip(_ARGUMENTS, node.args, strict=False))
    shape = list(node.meta["val"].shape)
    places = range(2, len(shape))
    pad, more, stride, dilation = (
        [*each] * (1 if len(each) == len(places) else len(places))
        for each in (given.get(name, [default]) for name, default in _DEFAULTS.items())
    )
    kernel = given["weight"].meta["val"].shape[2:]
    sides = list(zip(pad, more, stride, dilation, kernel, strict=True))
    if all(2 * p == d * (k - 1) + 1 - s and not o for p, o, s, d, k in sides):
        return False  # As the converter would have it.
    # Beyond all places there is the bias alone, which would have to come later.
    if not any(pad) or any(o > p for p, o, *_ in sides):
        return False
    zero = [0] * len(places)
    args = (*node.args[:3], stride, zero, zero, given.get("groups", 1), dilation)
    with graph.inserting_before(node):
        whole = graph.call_function(node.target, args)  # type: ignore[arg-type]
        for axis, start in zip(places, pad, strict=True):
            whole = graph.call_function(_ATEN.slice.Tensor, (whole, axis, start, start + shape[axis]))
    node.replace_all_uses_with(whole)
    return True


def _repeat(graph: Graph, node: Node) -> None:
    """Copies one behind the other; of a single place by what it is added to."""
    x, shape = cast(Node, node.args[0]), list(node.meta["val"].shape)
    given = list(x.meta["val"].shape)
    given = [1] * (len(shape) - len(given)) + given
    with graph.inserting_before(node):
        if len(given) > x.meta["val"].ndim:
            x = graph.call_function(_ATEN.view.default, (x, given))
        for axis, (own, whole) in enumerate(zip(given, shape, strict=True)):
            if own > 1 and whole > own:
                x = graph.call_function(_ATEN.cat.default, ([x] * (whole // own), axis))
        if any(own == 1 and whole > 1 for own, whole in zip(given, shape, strict=True)):
            zeros = graph.call_function(_ATEN.zeros.default, (shape,), {"dtype": node.meta["val"].dtype})
            x = graph.call_function(_ATEN.add.Tensor, (x, zeros))
    node.replace_all_uses_with(x)


def _pad_before(graph: Graph, node: Node) -> None:
    """Padding of a convolution by a word, in numbers."""
    assert isinstance(node.target, OpOverload)
    x, weight, bias, stride, _, *more = node.args
    dilation = (more or [[1]])[0]
    sizes = weight.meta["val"].shape[2:]  # type: ignore[union-attr]
    steps = list(dilation) * (1 if len(dilation) == len(sizes) else len(sizes))  # type: ignore[arg-type]
    sides = [(total // 2, total - total // 2) for total in (d * (k - 1) for d, k in zip(steps, sizes, strict=True))]
    with graph.inserting_before(node):
        pad = [each for side in reversed(sides) for each in side]
        padded = graph.call_function(_ATEN.constant_pad_nd.default, (x, pad))
        args = (padded, weight, bias, stride, [0] * len(sizes), *more)
        node.replace_all_uses_with(graph.call_function(_PADDED[node.target], args))


def _repeats(user: Node, expanded: Node) -> bool:
    """Whether `user` gives the same without the expansion: its other operand makes it as large."""
    if user.target not in _BROADCASTING:
        return False
    others = [each for each in user.args[:2] if isinstance(each, Node) and each is not expanded]
    shape = expanded.meta["val"].shape
    return user.args[0] is not user.args[1] and any(each.meta["val"].shape == shape for each in others)


def _sizes(pool: Node) -> Any:
    return pool.args[1] if isinstance(pool.args[1], list | tuple) else [pool.args[1]]


def _kernel(pool: Node) -> list[int] | None:
    """That of a pool with windows of one size that do not overlap; None where they would."""
    sizes = _sizes(pool)
    given = pool.args[0].meta["val"].shape[-len(sizes) :]  # type: ignore[union-attr]
    windows = [divmod(own, size) for own, size in zip(given, sizes, strict=True)]
    return None if any(rest for _, rest in windows) else [whole for whole, _ in windows]


def _first(user: Node) -> bool:
    """Whether it takes the values of a pool, or their places for nobody."""
    return user.target is operator.getitem and bool(user.args[1] == 0 or not user.users)
