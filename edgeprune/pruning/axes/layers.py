"""What layers do to labels: convolutions, products, embeddings, and norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from edgeprune.pruning.axes.labels import RIGID, Axis
from edgeprune.pruning.axes.tracker import MEETS, Rule, Tracker

_READS = "it reads what stays"


def _convolution(
    t: Tracker, out: Tensor, x: Tensor, w: Tensor, bias: Tensor | None, _s: Any, _p: Any, _d: Any, transposed: bool,
    _o: Any, groups: int,
) -> None:  # fmt: skip
    for axis in t.of(w)[2:]:
        t.hold(axis, "places of a kernel stay")
    for axis in t.of(x)[2:]:
        t.hold(axis, t.here("a convolution runs over it"))
    makes, reads = t.of(w)[:2][:: -1 if transposed else 1]
    channels, why = t.of(x)[1], t.here(_READS)
    own = makes
    if transposed and groups > 1:
        for axis in (makes, reads, channels):
            t.hold(axis, t.here("transposed convolutions in groups are not followed"))
    elif groups == 1:
        t.same(reads, channels, why)
    elif makes is not None and x.shape[1] == groups:
        # Depthwise: an input channel and all that is made of it.
        each = w.shape[0] // groups
        t.same(makes, None if channels is None else np.repeat(channels, each), why)
        alike_blocks(t, makes, groups)
    elif makes is not None and reads is not None:
        # The same places in each of the convolution's groups.
        inputs = np.full(x.shape[1], RIGID) if channels is None else channels
        for block in inputs.reshape(groups, -1):
            t.same(reads, block, why)
        makes = np.tile(t.alike(makes.reshape(groups, -1)), groups)
    t.role(own, "makes")
    t.role(reads, "reads")
    if bias is not None:
        t.same(own, t.of(bias)[0], why)
    t.set(out, [t.of(x)[0], makes, *[None] * (out.ndim - 2)])


def alike_blocks(t: Tracker, axis: np.ndarray[Any, np.dtype[np.int64]], blocks: int) -> None:
    """All labels of a block go together."""
    t.alike(axis.reshape(blocks, -1).T)


def _mm(t: Tracker, out: Tensor, a: Tensor, b: Tensor) -> None:
    _contract(t, a, b)
    t.set(out, [t.of(a)[0], t.of(b)[1]])


def _addmm(t: Tracker, out: Tensor, bias: Tensor, a: Tensor, b: Tensor, **_: Any) -> None:
    _mm(t, out, a, b)
    t.pointwise([out, bias], [out])


def _bmm(t: Tracker, out: Tensor, a: Tensor, b: Tensor) -> None:
    _contract(t, a, b)
    for one, other in ((a, b), (b, a)):
        if t.is_made(t.of(one)[0]) and t.of(other)[0] is None:
            # Values of heads must go with their queries and keys.
            for axis in t.of(other)[1:]:
                t.contracted(axis)
    batch = t.same(t.of(a)[0], t.of(b)[0], t.here(MEETS))
    t.set(out, [batch, t.of(a)[1], t.of(b)[2]])


def _baddbmm(t: Tracker, out: Tensor, bias: Tensor, a: Tensor, b: Tensor, **_: Any) -> None:
    _bmm(t, out, a, b)
    t.pointwise([out, bias], [out])


def _mv(t: Tracker, out: Tensor, a: Tensor, b: Tensor) -> None:
    t.same(t.of(a)[1], t.of(b)[0], t.here(_READS))
    t.set(out, [t.of(a)[0]])


def _contract(t: Tracker, a: Tensor, b: Tensor) -> None:
    one, two = t.of(a)[-1], t.of(b)[-2]
    t.same(one, two, t.here(_READS))
    weights = [axes for tensor, axes in ((a, t.of(a)[:-3:-1]), (b, t.of(b)[-2:])) if _is_weight(t, tensor)]
    for reads, makes in weights:
        t.role(reads, "reads")
        t.role(makes, "makes")
    if not weights:
        t.contracted(one)
        # What is gone is no summand: the twin sees to that.
        t.looks_at_all |= one is not None


def _is_weight(t: Tracker, tensor: Tensor) -> bool:
    """Whether all its labels are of one parameter."""
    axes = [axis for axis, size in zip(t.of(tensor), tensor.shape, strict=True) if size > 1]
    if not all(map(t.is_made, axes)):
        return False
    return len({side.tensor for axis in axes if axis is not None and (side := t.side(axis[axis >= 0][0]))}) == 1


def _prelu(t: Tracker, out: Tensor, x: Tensor, w: Tensor) -> None:
    t.pointwise([x, w], [out])


def _embedding(t: Tracker, out: Tensor, w: Tensor, index: Tensor, *_: Any, **__: Any) -> None:
    t.hold(t.of(w)[0], "words stay")
    t.role(t.of(w)[1], "makes")
    t.set(out, [*[None] * index.ndim, t.of(w)[1]])


def _embedding_bag(t: Tracker, out: Any, w: Tensor, *_: Any, **__: Any) -> None:
    t.hold(t.of(w)[0], "words stay")
    t.role(t.of(w)[1], "makes")
    t.set(out[0], [None, t.of(w)[1]])


# Norms


def _beside(t: Tracker, axes: Sequence[Axis], *beside: Tensor | None) -> None:
    for each in beside:
        if each is not None:
            for axis, own in zip(axes, t.of(each), strict=True):
                t.same(axis, own, t.here(MEETS))


def _batch_norm(t: Tracker, out: Any, x: Tensor, w: Any, b: Any, mean: Any, var: Any, *_: Any) -> None:
    _beside(t, t.of(x)[1:2], w, b, *(each for each in (mean, var) if isinstance(each, Tensor)))
    t.set(out[0], t.of(x))


def _layer_norm(t: Tracker, out: Any, x: Tensor, shape: Sequence[int], w: Any, b: Any, *_: Any) -> None:
    axes = t.of(x)[x.ndim - len(shape) :]
    _beside(t, axes, w, b)
    t.looks_at_all |= any(axis is not None for axis in axes)
    t.set(out[0], t.of(x))


def _group_norm(
    t: Tracker, out: Any, x: Tensor, w: Any, b: Any, _n: int, c: int, _hw: int, groups: int, *_: Any
) -> None:
    axis = t.of(x)[1]
    _beside(t, [axis], w, b)
    t.looks_at_all |= axis is not None and groups == 1
    if axis is not None and 1 < groups < c:
        # Whole groups go: their statistics are their own.
        alike_blocks(t, axis, groups)
    t.set(out[0], t.of(x))


LAYERS: Mapping[str, Rule] = {
    "convolution": _convolution,
    "mm": _mm,
    "addmm": _addmm,
    "bmm": _bmm,
    "baddbmm": _baddbmm,
    "mv": _mv,
    "embedding": _embedding,
    "embedding_bag": _embedding_bag,
    "embedding_bag_forward_only": _embedding_bag,
    "prelu_kernel": _prelu,
    "native_batch_norm": _batch_norm,
    "native_batch_norm_legit": _batch_norm,
    "native_batch_norm_legit_no_training": _batch_norm,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
}
