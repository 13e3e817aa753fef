"""What operations do to labels that run over other axes: pools, neighbourhoods, orders, transforms. Channels pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_leaves

from edgeprune.pruning.axes.tracker import MEETS, PICKED, Rule, Tracker

_POOL, _RESIZE = "a pool", "an interpolation"


def _over(last: int, what: str) -> Rule:
    """The last axes are run over by `what`."""

    def rule(t: Tracker, out: Any, x: Tensor, *_: Any, **__: Any) -> None:
        axes = list(t.of(x))
        for place in range(x.ndim - last, x.ndim):
            t.hold(axes[place], t.here(f"{what} runs over it"))
            axes[place] = None
        for each in tree_leaves(out):
            if isinstance(each, Tensor) and each.ndim == x.ndim:
                t.set(each, axes)

    return rule


def _along(name: str, number: int = 0, *, more: int = 0) -> Rule:
    """The operation `name` runs along axes that the argument `number` behind the tensor tells, and leaves the others as
    they are; `more` axes come behind them."""

    def rule(t: Tracker, out: Any, x: Tensor, *given: Any, dim: Any = -1, **_: Any) -> None:
        dims = given[number] if len(given) > number else dim
        along = {each % x.ndim for each in ([dims] if isinstance(dims, int) else dims)}
        axes = list(t.of(x))
        for place in along:
            t.hold(axes[place], t.here(f"the operation {name} runs along channels and needs all of them"))
            axes[place] = None
        for other in (each for each in given if isinstance(each, Tensor) and each.ndim == x.ndim):
            for place in set(range(x.ndim)) - along:
                if other.shape[place] == x.shape[place]:
                    axes[place] = t.same(axes[place], t.of(other)[place], t.here(MEETS))
        for each in tree_leaves(out):
            if all(each.shape[place] == x.shape[place] for place in set(range(x.ndim)) - along):
                t.set(each, [*axes, *[None] * more])
            else:
                for axis in axes:
                    t.hold(axis, t.here(PICKED))

    return rule


def _diagonal(t: Tracker, out: Tensor, x: Tensor, _offset: int = 0, one: int = 0, two: int = 1) -> None:
    axes = list(t.of(x))
    for place in sorted((one % x.ndim, two % x.ndim), reverse=True):
        t.hold(axes.pop(place), t.here(PICKED))
    t.set(out, [*axes, None])


def _triangle(t: Tracker, out: Tensor, x: Tensor, *_: Any) -> None:
    for axis in t.of(x)[-2:]:
        t.hold(axis, t.here(PICKED))
    t.set(out, [*t.of(x)[:-2], None, None])


def _unfold(t: Tracker, out: Tensor, x: Tensor, kernel: Sequence[int], *_: Any) -> None:
    """(N, C, H, W) to (N, C * places of the kernel, L)."""
    for axis in t.of(x)[2:]:
        t.hold(axis, t.here("a kernel runs over it"))
    channels = t.of(x)[1]
    t.set(out, [t.of(x)[0], None if channels is None else np.repeat(channels, math.prod(kernel)), None])


def _fold(t: Tracker, out: Tensor, x: Tensor, _size: Any, kernel: Sequence[int], *_: Any) -> None:
    axis = t.of(x)[1]
    channels = None if axis is None else t.alike(axis.reshape(-1, math.prod(kernel)).T)
    t.set(out, [t.of(x)[0], channels, *[None] * (out.ndim - 2)])


PLACES: Mapping[str, Rule] = {
    **{
        f"{kind}{last}d{more}": _over(last, what)
        for last in (1, 2, 3)
        for kind, what, more in (
            *((kind, _POOL, "") for kind in ("avg_pool", "max_pool", "adaptive_avg_pool", "adaptive_max_pool")),
            *(("max_pool", _POOL, "_with_indices"), ("max_unpool", _POOL, "")),
            *((f"{kind}_pad", "padding", "") for kind in ("reflection", "replication")),
            *((f"upsample_{kind}", _RESIZE, "") for kind in ("nearest", "nearest_exact", "linear", "trilinear")),
            *((f"upsample_{kind}", _RESIZE, more) for kind in ("bilinear", "bicubic") for more in ("", "_aa")),
        )
    },
    "grid_sampler_2d": _over(2, _RESIZE),
    "grid_sampler_3d": _over(3, _RESIZE),
    **{
        name: _along(name)
        for name in (
            *("sort", "cumprod", "cummax", "cummin", "logcumsumexp", "fft_r2c", "fft_c2c", "fft_c2r"),
            *("gather", "scatter", "scatter_add", "scatter_reduce", "index_add", "index_copy"),
        )
    },
    "topk": _along("topk", 1),
    "rot90": _along("rot90", 1),
    "unfold": _along("unfold", more=1),
    "diagonal": _diagonal,
    **dict.fromkeys(("tril", "triu"), _triangle),
    "im2col": _unfold,
    "col2im": _fold,
}
