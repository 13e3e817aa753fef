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


def _reduce(t: Tracker, out: Any, x: Tensor, dims: Any, keepdim: bool, why: str) -> None:
    gone = over(x, dims)
    axes: list[Axis] = []
    for place, axis in enumerate(t.of(x)):
        if place not in gone:
            axes.append(axis)
            continue
        if why:
            t.hold(axis, t.here(why))
        if keepdim:
            axes.append(None)
    for each in tree_leaves(out):
        if isinstance(each, Tensor) and each.ndim == len(axes):
            t.set(each, axes)


def _mean(t: Tracker, out: Any, x: Tensor, dims: Any = None, keepdim: bool = False, **_: Any) -> None:
    labelled = [dim for dim in over(x, dims) if t.of(x)[dim] is not None]
    t.looks_at_all |= bool(labelled)
    _reduce(
        t,
        out,
        x,
        dims,
        keepdim,
        "a mean over two axes that could be narrowed is not followed" if len(labelled) > 1 else "",
    )


def _sum(t: Tracker, out: Any, x: Tensor, dims: Any = None, keepdim: bool = False, **_: Any) -> None:
    _reduce(t, out, x, dims, keepdim, "a sum over channels is not followed")


def _extreme(t: Tracker, out: Any, x: Tensor, dims: Any = None, keepdim: bool = False, *_: Any, **__: Any) -> None:
    _reduce(t, out, x, dims, keepdim, "a maximum or a spread over channels needs all of them")


def _softmax(t: Tracker, out: Any, x: Tensor, dim: int, *_: Any) -> None:
    t.hold(t.of(x)[dim], t.here("a softmax over channels needs all of them"))
    t.contracted(t.of(x)[dim])
    t.set(out, t.of(x))


def _running(t: Tracker, out: Any, x: Tensor, dim: int, **_: Any) -> None:
    t.hold(t.of(x)[dim], t.here("a running sum over channels needs all of them"))
    t.set(out, t.of(x))


def _vector_norm(
    t: Tracker, out: Any, x: Tensor, _order: float = 2, dims: Any = None, keepdim: bool = False, **_: Any
) -> None:
    _extreme(t, out, x, dims, keepdim)


REDUCTIONS: Mapping[str, Rule] = {
    "mean": _mean,
    "sum": _sum,
    **dict.fromkeys(("amax", "amin", "max", "min", "var", "std", "argmax", "logsumexp"), _extreme),
    "linalg_vector_norm": _vector_norm,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "safe_softmax": _softmax,
    "cumsum": _running,
}
