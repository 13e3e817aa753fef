"""What operations do to labels that look at all places of an axis at once: sums, means, maxima, softmax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from edgeprune.pruning.axes.labels import Axis
from edgeprune.pruning.axes.tracker import Rule, Tracker


def over(x: Tensor, dims: Any) -> list[int]:
    """The axes that a reduction runs over, as torch takes them."""
    if dims is None or dims == []:
        return list(range(x.ndim))
    return [each % x.ndim for each in ([dims] if isinstance(dims, int) else dims)]


def _reduce(t: Tracker, out: Any, x: Tensor, dims: Any = None, keepdim: bool = False, **_: Any) -> None:
    gone = over(x, dims)
    axes: list[Axis] = []
    for place, axis in enumerate(t.of(x)):
        if place not in gone:
            axes.append(axis)
            continue
        # With fewer channels it is that of those that are left: the twin sees them alone.
        t.looks_at_all |= axis is not None
        if keepdim:
            axes.append(None)
    for each in tree_leaves(out):
        if isinstance(each, Tensor) and each.ndim == len(axes):
            t.set(each, axes)


def _sum(t: Tracker, out: Any, x: Tensor, dims: Any = None, keepdim: bool = False, **_: Any) -> None:
    for dim in over(x, dims):
        t.contracted(t.of(x)[dim])
    _reduce(t, out, x, dims, keepdim)


def _spread(
    t: Tracker, out: Any, x: Tensor, dims: Any = None, _unbiased: bool = True, keepdim: bool = False, **_: Any
) -> None:
    _reduce(t, out, x, dims, keepdim)


def _norm(
    t: Tracker, out: Any, x: Tensor, _order: float = 2, dims: Any = None, keepdim: bool = False, **_: Any
) -> None:
    _reduce(t, out, x, dims, keepdim)


def _place(t: Tracker, out: Any, x: Tensor, dims: Any = None, keepdim: bool = False, **_: Any) -> None:
    for dim in over(x, dims):
        t.hold(t.of(x)[dim], t.here("the place of a channel among all of them is asked for"))
    _reduce(t, out, x, dims, keepdim)


def _softmax(t: Tracker, out: Any, x: Tensor, dim: int, *_: Any) -> None:
    t.hold(t.of(x)[dim], t.here("a softmax over channels needs all of them"))
    t.contracted(t.of(x)[dim])
    t.set(out, t.of(x))


def _running(t: Tracker, out: Any, x: Tensor, dim: int, **_: Any) -> None:
    t.hold(t.of(x)[dim], t.here("a running sum over channels needs all of them"))
    t.set(out, t.of(x))


#: Reductions that the twin carries out again with what is left.
AGAIN: Mapping[str, Rule] = {
    **dict.fromkeys(("mean", "amax", "amin", "max", "min", "logsumexp", "median", "prod", "any", "all"), _reduce),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), _spread),
    "sum": _sum,
    "linalg_vector_norm": _norm,
}

REDUCTIONS: Mapping[str, Rule] = {
    **AGAIN,
    "argmax": _place,
    "argmin": _place,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "safe_softmax": _softmax,
    "cumsum": _running,
}
