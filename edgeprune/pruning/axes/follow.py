"""A network is run once, and its axes are labelled; and its twin, which sees some channels alone.

It runs on an example, eagerly and on real numbers, so that whatever Python its `forward` is made of is followed. It is
only an analysis: nothing is offered to a search that was not proven by trial (see `trials`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

from edgeprune.models.inputs import Inputs, ask
from edgeprune.pruning.axes.calls import Recorder
from edgeprune.pruning.axes.labels import RIGID, Axis, Labelled, Numbers, Side, among
from edgeprune.pruning.axes.layers import LAYERS
from edgeprune.pruning.axes.places import PLACES
from edgeprune.pruning.axes.reductions import AGAIN, REDUCTIONS, over
from edgeprune.pruning.axes.shapes import SHAPES
from edgeprune.pruning.axes.tracker import Rule, Tracker

RULES: Mapping[str, Rule] = {**LAYERS, **PLACES, **REDUCTIONS, **SHAPES}


def label(network: nn.Module, inputs: Inputs) -> Labelled:
    """Label the axes of a network in evaluation mode; raises what its forward raises."""
    heads: frozenset[int] = frozenset()
    while True:
        tracker = Tracker(network, RULES, heads)
        with torch.no_grad(), plain_kernels(), tracker.inside(network), tracker, Recorder(tracker, network):
            out = ask(network, inputs)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                tracker.hold_output(tensor)
        found = tracker.labelled()
        if found.heads == heads:
            return found
        # Heads are known by what is summed over, which comes after the reshape that made them.
        heads = found.heads


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Without kernels that do many things at once, which nobody could look into."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    # The context manager `flags` sets more than this, and warns of it.
    set_flags: Any = torch.backends.mkldnn.set_flags
    enabled, *_ = set_flags(_enabled=False, _fp32_precision=None)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        set_flags(_enabled=enabled, _fp32_precision=None)
        torch.backends.mha.set_fastpath_enabled(fast)


class Twin(nn.Module):
    """A full-size network in which norms and means over channels see those alone that are not `gone`.

    Where readers ignore the others as well it computes what the pruned network does.
    """

    def __init__(self, network: nn.Module, labelled: Labelled, gone: Numbers) -> None:
        super().__init__()
        self.network, self._labelled, self._gone = network, labelled, gone

    def forward(self, *inputs: Tensor) -> Any:
        """What the network answers."""
        tracker = _Narrowed(self.network, self._labelled, self._gone)
        with torch.no_grad(), plain_kernels(), tracker, Recorder(tracker, self.network):
            return self.network(*inputs)


class _Narrowed(Tracker):  # type: ignore[no-untyped-call]
    """Follows channels by the numbers that they have, and leaves those that are gone out of norms and means."""

    def __init__(self, network: nn.Module, labelled: Labelled, gone: Numbers) -> None:
        super().__init__(network, RULES, labelled.heads)
        self._gone, self._known = gone, iter(labelled.asked)
        self._stored: set[int] = set()
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            self._stored.add(_storage(tensor))
            self.set(tensor, [labelled.axes.get(Side(name, axis)) for axis in range(tensor.ndim)])

    def fresh(self, size: int) -> NDArray[np.int64]:
        """What is known of places that no parameter makes."""
        known = next(self._known)
        # The batch may be larger than it was.
        return known if len(known) == size else np.full(size, RIGID)

    def join(self, one: NDArray[np.int64], two: NDArray[np.int64]) -> None:
        """All that goes together has one number already."""

    def follow(self, func: Any, out: Any, args: Any, kwargs: Any) -> None:
        """Pass labels on, and put right what looked at too much."""
        super().follow(func, out, args, kwargs)
        name = func._schema.name.split("::")[1]
        if (norm := _NORMS.get(name)) is not None:
            norm(self, out, *args, **kwargs)
        elif name in AGAIN:
            self._reduce_again(func, out, args, kwargs)
        elif name in _READERS:
            self._read_again(func, out, args, *_READERS[name])

    def _read_again(self, func: Any, out: Tensor, args: Any, place: int, axis: int) -> None:
        """What reads channels that are gone reads nothing, though it is no weight that was set to zero: one that was
        worked out, and has a mean of zero; keys, by queries."""
        if func._schema.name == "aten::convolution" and args[6]:
            axis = 0
        weight = args[place]
        if (left := self.left(self.of(weight)[axis])) is None or _storage(weight) in self._stored:
            # The weights themselves are the masked network's: that they are zero there is what is to be proven.
            return
        rest = torch.zeros_like(weight).index_copy_(axis, left, weight.index_select(axis, left))
        if not torch.equal(rest, weight):
            out.copy_(func(*args[:place], rest, *args[place + 1 :]))

    def _reduce_again(self, func: Any, out: Any, args: Any, kwargs: Any) -> None:
        """What is reduced is what is left, along every axis that goes."""
        given = dict(zip((each.name for each in func._schema.arguments), args, strict=False))
        x, dims = args[0], given.get("dim")
        left = {dim: places for dim in over(x, dims) if (places := self.left(self.of(x)[dim])) is not None}
        if not left:
            return
        for dim, places in left.items():
            x = x.index_select(dim, places)
        for whole, part in zip(tree_leaves(out), tree_leaves(func(x, *args[1:], **kwargs)), strict=True):
            whole.copy_(part)

    def left(self, axis: Axis) -> Tensor | None:
        """Places that are not gone; None where all are left."""
        if axis is None:
            return None
        gone = among(axis, self._gone)
        return torch.from_numpy(np.flatnonzero(~gone)) if gone.any() else None


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _layer_norm(t: _Narrowed, out: Any, x: Tensor, shape: Sequence[int], w: Any, b: Any, eps: float) -> None:
    left = t.left(t.of(x)[-1])
    if left is not None and len(shape) == 1:
        w, b = (None if each is None else each[left] for each in (w, b))
        out[0].zero_()[..., left] = torch.native_layer_norm(x[..., left], [len(left)], w, b, eps)[0]


def _group_norm(
    t: _Narrowed, out: Any, x: Tensor, w: Any, b: Any, n: int, _c: int, hw: int, groups: int, eps: float
) -> None:
    left = t.left(t.of(x)[1])
    if left is not None and groups == 1:
        w, b = (None if each is None else each[left] for each in (w, b))
        out[0].zero_()[:, left] = torch.native_group_norm(x[:, left], w, b, n, len(left), hw, 1, eps)[0]


#: Where the second factor of a product stands among its arguments, and its axis that is summed over.
_READERS: Mapping[str, tuple[int, int]] = {
    "convolution": (1, 1), "mm": (1, 0), "addmm": (2, 0), "bmm": (1, 1), "baddbmm": (2, 1),
}  # fmt: skip
_NORMS: Mapping[str, Any] = {"native_layer_norm": _layer_norm, "native_group_norm": _group_norm}
