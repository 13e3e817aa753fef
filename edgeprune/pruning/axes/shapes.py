"""What operations do to labels that move values about: reshapes, slices, concatenations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves

from edgeprune.pruning.axes.labels import FREE, RIGID, Axis
from edgeprune.pruning.axes.tracker import MEETS, PICKED, Rule, Tracker


def _keep(t: Tracker, out: Any, x: Tensor, *_: Any, **__: Any) -> None:
    """As the input is."""
    for each in tree_leaves(out):
        if isinstance(each, Tensor) and each.shape == x.shape:
            t.set(each, t.of(x))


def _as_strided(t: Tracker, out: Tensor, x: Tensor, size: Sequence[int], *_: Any, **__: Any) -> None:
    """Another memory format; nothing else is followed."""
    if tuple(size) != tuple(x.shape):
        raise NotImplementedError
    t.set(out, t.of(x))


def _free(t: Tracker, out: Tensor, *_: Any, **__: Any) -> None:
    """A constant that is as large as what it meets."""
    t.set(out, [np.full(size, FREE) for size in out.shape])


def _permute(t: Tracker, out: Tensor, x: Tensor, dims: Sequence[int]) -> None:
    t.set(out, [t.of(x)[dim] for dim in dims])


def _t(t: Tracker, out: Tensor, x: Tensor) -> None:
    t.set(out, t.of(x)[::-1])


def _transpose(t: Tracker, out: Tensor, x: Tensor, one: int, two: int) -> None:
    axes = list(t.of(x))
    axes[one], axes[two] = axes[two], axes[one]
    t.set(out, axes)


def _unsqueeze(t: Tracker, out: Tensor, x: Tensor, dim: int) -> None:
    axes = list(t.of(x))
    axes.insert(dim % out.ndim, None)
    t.set(out, axes)


def _squeeze(t: Tracker, out: Tensor, x: Tensor, dims: Any = None) -> None:
    over = range(x.ndim) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {each % x.ndim for each in over if x.shape[each] == 1}
    t.set(out, [axis for place, axis in enumerate(t.of(x)) if place not in gone])


def _expand(t: Tracker, out: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    own = [None] * (out.ndim - x.ndim) + list(t.of(x))
    before = [1] * (out.ndim - x.ndim) + list(x.shape)
    t.set(
        out, [np.full(now, FREE) if was != now else axis for axis, was, now in zip(own, before, out.shape, strict=True)]
    )


def _repeat(t: Tracker, out: Tensor, x: Tensor, times: Sequence[int]) -> None:
    own = [None] * (out.ndim - x.ndim) + list(t.of(x))
    t.set(out, [None if axis is None else np.tile(axis, count) for axis, count in zip(own, times, strict=True)])


def _slice(t: Tracker, out: Tensor, x: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> None:
    axes = list(t.of(x))
    axis = axes[dim]
    axes[dim] = None if axis is None else axis[slice(start, end, step)]
    t.set(out, axes)


def _select(t: Tracker, out: Tensor, x: Tensor, dim: int, index: int) -> None:
    axes = list(t.of(x))
    axis = axes.pop(dim % x.ndim)
    if axis is not None:
        t.hold(axis[[index]], t.here(PICKED))
    t.set(out, axes)


def _unbind(t: Tracker, out: Sequence[Tensor], x: Tensor, dim: int = 0) -> None:
    axes = list(t.of(x))
    t.hold(axes.pop(dim % x.ndim), t.here(PICKED))
    for each in out:
        t.set(each, axes)


def _index_select(t: Tracker, out: Tensor, x: Tensor, dim: int, _index: Tensor) -> None:
    axes = list(t.of(x))
    t.hold(axes[dim], t.here(PICKED))
    axes[dim] = None
    t.set(out, axes)


def _index(t: Tracker, out: Tensor, x: Tensor, indices: Sequence[Tensor | None]) -> None:
    own = list(t.of(x))
    taken = [place for place, index in enumerate(indices) if index is not None]
    for place in taken:
        t.hold(own[place], t.here(PICKED))
    if taken == list(range(taken[0], taken[-1] + 1)):
        rest = own[taken[-1] + 1 :]
        t.set(out, [*own[: taken[0]], *[None] * (out.ndim - taken[0] - len(rest)), *rest])
    else:
        t.hold_all(x, t.here(PICKED))


def _split(t: Tracker, out: Sequence[Tensor], x: Tensor, size: Any, dim: int = 0) -> None:
    axes, start, dim = list(t.of(x)), 0, dim % x.ndim
    axis = axes[dim]
    sizes = [each.shape[dim] for each in out]
    if axis is not None and isinstance(size, int) and len(set(sizes)) == 1:
        # Parts of one size are told by their number: they must stay alike.
        t.alike(axis.reshape(len(sizes), -1))
    for each, places in zip(out, sizes, strict=True):
        axes[dim] = None if axis is None else axis[start : start + places]
        start += places
        t.set(each, axes)


def _glu(t: Tracker, out: Tensor, x: Tensor, dim: int = -1) -> None:
    axes = list(t.of(x))
    axis = axes[dim]
    axes[dim] = None if axis is None else t.alike(axis.reshape(2, -1))
    t.set(out, axes)


def _cat(t: Tracker, out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> None:
    tensors = [each for each in tensors if each.ndim == out.ndim]
    dim %= out.ndim
    axes: list[Axis] = []
    for place in range(out.ndim):
        own = [t.of(each)[place] for each in tensors]
        if place == dim:
            parts = [
                np.full(each.shape[place], RIGID) if axis is None else axis
                for each, axis in zip(tensors, own, strict=True)
            ]
            joined = np.concatenate(parts)
            axes.append(None if (joined == RIGID).all() else joined)
            continue
        found = own[0]
        for other in own[1:]:
            found = t.same(found, other, t.here(MEETS))
        axes.append(found)
    t.set(out, axes)


def _stack(t: Tracker, out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> None:
    t.pointwise(tensors, [tensors[0]])
    axes = list(t.of(tensors[0]))
    axes.insert(dim % out.ndim, None)
    t.set(out, axes)


def _flip(t: Tracker, out: Tensor, x: Tensor, dims: Sequence[int]) -> None:
    axes = list(t.of(x))
    for dim in dims:
        axis = axes[dim]
        axes[dim] = None if axis is None else axis[::-1]
    t.set(out, axes)


def _roll(t: Tracker, out: Tensor, x: Tensor, _shifts: Any, dims: Any = ()) -> None:
    for dim in [dims] if isinstance(dims, int) else dims or range(x.ndim):
        t.hold(t.of(x)[dim], t.here("it is rolled"))
    t.set(out, t.of(x))


def _pad(t: Tracker, out: Tensor, x: Tensor, pad: Sequence[int], *_: Any) -> None:
    axes = list(t.of(x))
    for back in range(len(pad) // 2):
        place, (low, high) = x.ndim - 1 - back, pad[2 * back : 2 * back + 2]
        axis = axes[place]
        if (low or high) and axis is not None:
            # Padded channels are made of nothing: they follow what they meet.
            padded = np.concatenate([t.fresh(max(low, 0)), axis, t.fresh(max(high, 0))])
            axes[place] = padded[max(-low, 0) : len(padded) - max(-high, 0)]
    t.set(out, axes)


def _pixel_shuffle(t: Tracker, out: Tensor, x: Tensor, factor: int) -> None:
    axes = list(t.of(x))
    axis = axes[-3]
    if axis is not None:
        # What becomes the places of one channel goes together.
        axes[-3] = t.alike(axis.reshape(-1, factor**2).T)
    t.set(out, axes)


def _pixel_unshuffle(t: Tracker, out: Tensor, x: Tensor, factor: int) -> None:
    axes = list(t.of(x))
    axes[-3] = None if axes[-3] is None else np.repeat(axes[-3], factor**2)
    t.set(out, axes)


def _view(t: Tracker, out: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    t.set(out, _reshaped(t, t.of(x), tuple(x.shape), tuple(out.shape)))


def _copy(t: Tracker, out: Tensor, x: Tensor, source: Tensor, *_: Any) -> None:
    t.pointwise([x, source], [x])
    t.set(out, t.of(x))


def _reshaped(t: Tracker, axes: Sequence[Axis], before: tuple[int, ...], after: tuple[int, ...]) -> list[Axis]:
    found: list[Axis] = []
    for source, target in blocks(before, after):
        labelled = [place for place in source if axes[place] is not None]
        if len(labelled) > 1:
            free = [place for place in labelled if np.all(np.asarray(axes[place]) == FREE)]
            labelled = [place for place in labelled if place not in free] or labelled[:1]
        if len(labelled) > 1:
            for place in labelled:
                t.hold(axes[place], t.here("a reshape joins it with another that could be narrowed"))
        if len(labelled) != 1:
            found += [None] * len(target)
            continue
        shape = [1] * len(source)
        own = axes[labelled[0]]
        assert own is not None
        shape[source.index(labelled[0])] = len(own)
        table = np.broadcast_to(own.reshape(shape), [before[place] for place in source])
        found += _carried(t, table.reshape([after[place] for place in target]))
    return found


def _carried(t: Tracker, table: NDArray[np.int64]) -> list[Axis]:
    """Labels of each axis of a block: one of them carries all, and what it is repeated over goes together."""
    varies = [axis for axis in range(table.ndim) if table.shape[axis] > 1 and (table != table.take([0], axis)).any()]
    if not varies:
        return [None if (table == RIGID).all() else np.full(size, table.flat[0]) for size in table.shape]
    carrier = varies[-2] if len(varies) > 1 and t.goes_as_heads() else varies[-1]
    rows = np.moveaxis(table, carrier, -1).reshape(-1, table.shape[carrier])
    labels = rows[0]
    if len(varies) > 1:
        labels = t.alike(rows)
        t.split(labels)
    return [labels if axis == carrier else None for axis in range(table.ndim)]


def blocks(before: tuple[int, ...], after: tuple[int, ...]) -> Iterator[tuple[list[int], list[int]]]:
    """Axes that become others in a reshape, in the least parts: (0, 1), (0) for (4, 5, 6) to (20, 6)."""
    i = j = 0
    while i < len(before) or j < len(after):
        source: list[int] = []
        target: list[int] = []
        left, right = 1, 1
        while not (left == right and (source or target)):
            if (left <= right and i < len(before)) or j >= len(after):
                source.append(i)
                left *= before[i]
                i += 1
            else:
                target.append(j)
                right *= after[j]
                j += 1
            if i >= len(before) and j >= len(after):
                break
        # Axes of one place go with either side.
        while i < len(before) and before[i] == 1 and (j >= len(after) or after[j] != 1):
            source.append(i)
            i += 1
        while j < len(after) and after[j] == 1 and (i >= len(before) or before[i] != 1):
            target.append(j)
            j += 1
        yield source, target


def _shuffle(t: Tracker, out: Tensor, x: Tensor, groups: int) -> None:
    axes = list(t.of(x))
    if (axis := axes[1]) is not None:
        axes[1] = np.repeat(t.alike(axis.reshape(groups, -1)), groups)
    t.set(out, axes)


def _fresh(t: Tracker, out: Tensor, *_: Any, **__: Any) -> None:
    """What will be written into follows what is written."""
    t.set(out, [t.fresh(size) for size in out.shape])


SHAPES: Mapping[str, Rule] = {
    "channel_shuffle": _shuffle,
    "as_strided": _as_strided,
    "permute": _permute,
    "t": _t,
    "transpose": _transpose,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "expand": _expand,
    "repeat": _repeat,
    "slice": _slice,
    "select": _select,
    "unbind": _unbind,
    "index_select": _index_select,
    "index": _index,
    "glu": _glu,
    "cat": _cat,
    "stack": _stack,
    "flip": _flip,
    "roll": _roll,
    "constant_pad_nd": _pad,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "chunk", "unsafe_chunk"), _split),
    **dict.fromkeys(("view", "unsafe_view", "reshape", "reshape_alias", "flatten", "view_as"), _view),
    "copy": _copy,
    "new_empty": _fresh,
    **dict.fromkeys(
        (
            *("clone", "detach", "alias", "contiguous", "lift_fresh", "to_copy", "native_dropout", "dropout"),
            *("hardswish", "hardsigmoid", "gelu", "silu", "rrelu_with_noise"),
            *("log_sigmoid_forward", "fill", "bucketize"),
        ),
        _keep,
    ),
    **dict.fromkeys(
        (
            *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"),
            *("new_zeros", "new_ones", "new_full"),
        ),
        _free,
    ),
}
