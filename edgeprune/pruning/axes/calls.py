"""Numbers in a network's own code: sizes that its forward hands to `view`, `split`, `pad` and their kind.

Where channels go, `x.view(-1, 1024)` asks for what is no longer there. While labels are followed such calls are noted;
in the pruned network they get the sizes that are left. Nobody's code is changed: the network's class is given a forward
that corrects its calls while they are made, so exports see the right numbers as constants.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from edgeprune.pruning.axes.labels import FREE, Axis, Call, Numbers, Where, among
from edgeprune.pruning.axes.shapes import blocks
from edgeprune.pruning.axes.tracker import Tracker

#: Of every place of an axis whether it is left; None where that is not known.
Left = NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True)
class Change:
    """What is left of a call's tensors (see `Call`): of the one that it takes, and of those that it makes."""

    call: Call
    before: tuple[Left, ...]
    after: tuple[tuple[Left, ...], ...]

    @classmethod
    def of(cls, call: Call, gone: Numbers) -> Change:
        """What becomes of a call once channels are gone."""

        def left(axis: Axis) -> Left:
            # Free places beside others, in a concatenation, stay; an axis of nothing else follows what it meets.
            return None if axis is None or _follows(axis) else ~among(axis, gone)

        return cls(call, tuple(map(left, call.before)), tuple(tuple(map(left, axes)) for axes in call.after))


class Recorder(TorchFunctionMode):
    """Notes the calls of a network whose labels are followed."""

    def __init__(self, tracker: Tracker, network: nn.Module) -> None:
        super().__init__()
        self._tracker, self._places = tracker, _Places(network)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (function := _FUNCTIONS.get(func)) is None:
            return out
        where = self._places.now(function)
        if function == "convolve" and not (args and _groups(args, kwargs or {}) == args[0].shape[1]):
            return out
        made = [each for each in tree_leaves(out) if isinstance(each, Tensor)]
        for each in made if function in ("zeros", "expand") else ():
            # What was asked for in some size follows what it meets, and is asked for in that size.
            axes = zip(self._tracker.of(each), each.shape, strict=True)
            fresh = function == "zeros"
            self._tracker.set(each, [self._tracker.fresh(n) if fresh or _follows(axis) else axis for axis, n in axes])
        taken = args[0] if args and isinstance(args[0], Tensor) else None
        fixed = self._fixed(taken, made[0]) if function == "view" and taken is not None and made else ()
        before = () if taken is None else self._tracker.of(taken)
        after = tuple(map(self._tracker.of, made))
        padded = _padded(args, kwargs or {}) if function == "pad" else None
        given = (tuple(map(_untensored, args[1:])), {key: _untensored(each) for key, each in (kwargs or {}).items()})
        self._tracker.note(Call(where, function, before, after, tuple(fixed), padded, _factor(function, args), given))
        return out

    def _fixed(self, x: Tensor, out: Tensor) -> list[tuple[int, int]]:
        """Axes of a reshape that are made of nothing but channels, and are not narrowed: the three of queries, keys and
        values, the width of a head."""
        own, found = self._tracker.of(x), []
        for source, target in blocks(tuple(x.shape), tuple(out.shape)):
            if all(x.shape[place] == 1 or self._tracker.is_made(own[place]) for place in source):
                found += [(place, out.shape[place]) for place in target if self._tracker.of(out)[place] is None]
        return found


def _follows(axis: Axis) -> bool:
    return axis is not None and bool((axis == FREE).all())


def _untensored(value: Any) -> Any:
    return tree_map(lambda each: None if isinstance(each, Tensor) else each, value)


def _padded(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[int, int] | None:
    pad, place = args[1] if len(args) > 1 else kwargs["pad"], 2 * (args[0].ndim - 2)
    low, high = (*pad, *[0] * (place + 2))[place : place + 2]
    return (low, high) if low > 0 or high > 0 else None


def padded_channels(calls: Sequence[Call], gone: Numbers) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Of every call that pads channels, in order: how many were put before and after them, and how many are left."""
    found = []
    for call in calls:
        if call.padded is not None:
            low, high = whole = call.padded
            left = Change.of(call, gone).after[0][1]
            own = whole if left is None else (_count(left, 0, low), _count(left, len(left) - high, None))
            found.append((whole, own))
    return found


def _factor(function: str, args: Sequence[Any]) -> float | None:
    return args[1] if function == "scale" and len(args) > 1 and isinstance(args[1], int | float) else None


class _Places:
    """Tells the calls of one run of a network apart."""

    def __init__(self, network: nn.Module) -> None:
        self._names = {id(module): name for name, module in network.named_modules()}
        self._times: Counter[tuple[str, str, int, str]] = Counter()

    def now(self, function: str) -> Where:
        """Where the call is made that is being handled: in the innermost method of a module."""
        frame, place = sys._getframe(1).f_back, ("", "", 0, function)
        while frame is not None:
            code = frame.f_code
            own = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
            if isinstance(own, nn.Module) and id(own) in self._names:
                place = (self._names[id(own)], code.co_filename, frame.f_lineno, function)
                break
            frame = frame.f_back
        self._times[place] += 1
        return Where(*place, self._times[place])


class Corrections(TorchFunctionMode):
    """Gives calls of `network` the numbers that are right once channels are gone. `stale` had asked for others."""

    def __init__(self, changes: Mapping[Where, Change], network: nn.Module) -> None:
        super().__init__()
        self._changes, self._places = changes, _Places(network)
        self.stale: dict[Where, Change] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        function = _FUNCTIONS.get(func)
        if function is None:
            return func(*args, **kwargs)
        where = self._places.now(function)
        if (change := self._changes.get(where)) is None:
            return func(*args, **kwargs)
        right = _CORRECT[function](change, list(args), dict(kwargs))
        if _plain(right) != _plain((args, kwargs)):
            self.stale[where] = change
        return func(*right[0], **right[1])


def _plain(arguments: Any) -> list[Any]:
    """Everything but tensors, which are never corrected."""
    return [each for each in tree_leaves(arguments) if not isinstance(each, Tensor)]


class Corrected(nn.Module):
    """What a network's class is given beside its own: a forward whose calls ask for the sizes that are left."""

    _changes: Mapping[Where, Change]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network answers."""
        with Corrections(self._changes, self):
            return super().forward(*args, **kwargs)


def correct(network: nn.Module, changes: Mapping[Where, Change]) -> None:
    """From now on the forward of `network` makes these calls with the numbers that are right."""
    own = type(network)
    network.__class__ = type(own.__name__, (Corrected, own), {"__module__": own.__module__})
    network._changes = changes  # type: ignore[assignment]  # nn.Module says that it may hold modules and tensors alone


# Corrections: the arguments of a call, with the sizes that are left.

_Arguments = tuple[list[Any], dict[str, Any]]


def _count(left: Left, *between: int | None) -> int:
    assert left is not None
    return int(left[slice(*between)].sum()) if between else int(left.sum())


def _sizes(change: Change, sizes: Sequence[Any], first: int = 0) -> list[Any]:
    right = dict(change.call.fixed) | {
        axis: _count(left) for axis, left in enumerate(change.after[0]) if left is not None
    }
    return [right.get(first + place, size) if not _is(size, -1) else size for place, size in enumerate(sizes)]


def _is(size: Any, number: int) -> bool:
    return isinstance(size, int) and size == number


def _view(change: Change, args: list[Any], kwargs: dict[str, Any]) -> _Arguments:
    start = 1 if args and isinstance(args[0], Tensor) else 0
    key = next((key for key in ("size", "shape", "sizes") if key in kwargs), None)
    if key is not None:
        return args, kwargs | {key: tuple(_sizes(change, kwargs[key]))}
    if len(args) > start and isinstance(args[start], Sequence):
        return [*args[:start], type(args[start])(_sizes(change, args[start])), *args[start + 1 :]], kwargs
    return [*args[:start], *_sizes(change, args[start:])], kwargs


def _unflatten(change: Change, args: list[Any], kwargs: dict[str, Any]) -> _Arguments:
    names = ["dim", "sizes"]
    given = dict(zip(names, args[1:], strict=False)) | kwargs
    first = given["dim"] % len(change.before)
    given["sizes"] = tuple(_sizes(change, given["sizes"], first))
    return [args[0], given["dim"], given["sizes"]], {}


def _split(change: Change, args: list[Any], kwargs: dict[str, Any]) -> _Arguments:
    places, names = change.call.given
    given, whole = _pieces(args[1:], kwargs), _pieces(places, names)
    dim = (places[1] if len(places) > 1 else names.get("dim", 0)) % len(change.before)
    left = change.before[dim]
    if left is None:
        return args, kwargs
    # By what is split: of a part of it alone it may not be known where it comes from.
    ends = np.cumsum(whole) if isinstance(whole, Sequence) else range(whole, len(left) + whole, whole)
    sizes = [_count(left, start, end) for start, end in pairwise((0, *ends))]
    right: Any = sizes[0] if isinstance(given, int) and len({*sizes}) == 1 else sizes
    return [args[0], type(given)(right) if isinstance(given, tuple) else right], {"dim": dim}


def _pieces(places: Sequence[Any], names: Mapping[str, Any]) -> Any:
    """Of a split's arguments the size, or the sizes."""
    return places[0] if places else next(value for name, value in names.items() if name != "dim")


def _pad(change: Change, args: list[Any], kwargs: dict[str, Any]) -> _Arguments:
    (places, names), given = change.call.given, args[1] if len(args) > 1 else kwargs.pop("pad")
    whole, pad = places[0] if places else names["pad"], list(given)
    for back in range(len(pad) // 2):
        left = change.after[0][-1 - back]
        if left is not None:
            low, high = whole[2 * back : 2 * back + 2]
            pad[2 * back] = _count(left, 0, low) if low > 0 else low
            pad[2 * back + 1] = _count(left, len(left) - high, None) if high > 0 else high
    return [args[0], type(given)(pad) if isinstance(given, list | tuple) else pad, *args[2:]], kwargs


def _item(change: Change, args: list[Any], kwargs: dict[str, Any]) -> _Arguments:
    given = args[1] if isinstance(args[1], tuple) else (args[1],)
    whole = change.call.given[0][0]
    whole = whole if isinstance(whole, tuple) else (whole,)
    if len(whole) != len(given):
        return args, kwargs
    taken = sum(each is not None and each is not Ellipsis for each in given)
    right, axis = [], 0
    for each, before in zip(given, whole, strict=True):
        place = each
        if each is Ellipsis:
            axis += len(change.before) - taken
        elif each is not None:
            left = change.before[axis] if axis < len(change.before) else None
            axis += 1
            if left is not None and isinstance(before, int) and not isinstance(before, bool):
                place = _count(left, 0, before % len(left))
            elif left is not None and isinstance(before, slice) and before.step in (None, 1):
                start, stop, _ = before.indices(len(left))
                place = slice(
                    None if before.start is None else _count(left, 0, start),
                    None if before.stop is None else _count(left, 0, stop),
                )
        right.append(place)
    return [args[0], tuple(right) if isinstance(args[1], tuple) else right[0]], kwargs


def _narrow(change: Change, args: list[Any], kwargs: dict[str, Any]) -> _Arguments:
    places, names = change.call.given
    whole = dict(zip(("dim", "start", "length"), places, strict=False)) | dict(names)
    left = change.before[whole["dim"]]
    if left is None:
        return args, kwargs
    start, end = whole["start"], whole["start"] + whole["length"]
    return [args[0], whole["dim"], _count(left, 0, start), _count(left, start, end)], {}


def _attention(change: Change, args: list[Any], kwargs: dict[str, Any]) -> _Arguments:
    left = change.before[-1]
    if left is not None and kwargs.get("scale") is None:
        # As many values as before are thought to be summed over.
        kwargs["scale"] = len(left) ** -0.5
    return args, kwargs


def _groups(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    groups: int = args[6] if len(args) > 6 else kwargs.get("groups", 1)
    return groups


def _convolve(change: Change, args: list[Any], kwargs: dict[str, Any]) -> _Arguments:
    if (left := change.before[1]) is None:
        return args, kwargs
    # A filter for each channel, as many as there are.
    return (args, kwargs | {"groups": _count(left)}) if len(args) < 7 else ([*args[:6], _count(left)], kwargs)


def _scale(change: Change, args: list[Any], kwargs: dict[str, Any]) -> _Arguments:
    factor = change.call.factor
    return args if factor is None else [args[0], factor, *args[2:]], kwargs


_FUNCTIONS: Mapping[Any, str] = {
    **dict.fromkeys((Tensor.view, Tensor.reshape, torch.reshape), "view"),
    Tensor.expand: "expand",
    **dict.fromkeys(
        (
            *(torch.zeros, torch.ones, torch.empty, torch.full),
            *(Tensor.new_zeros, Tensor.new_ones, Tensor.new_empty, Tensor.new_full),
        ),
        "zeros",
    ),
    **dict.fromkeys((Tensor.unflatten, torch.unflatten), "unflatten"),
    **dict.fromkeys((Tensor.split, torch.split, Tensor.split_with_sizes), "split"),
    **dict.fromkeys((Tensor.narrow, torch.narrow), "narrow"),
    F.pad: "pad",
    Tensor.__getitem__: "item",
    F.scaled_dot_product_attention: "attention",
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), "convolve"),
    # Scales worked out from a width.
    **dict.fromkeys(
        (
            *(Tensor.mul, Tensor.__mul__, Tensor.__rmul__, Tensor.mul_, torch.mul),
            *(Tensor.div, Tensor.__truediv__, Tensor.div_, torch.div),
        ),
        "scale",
    ),
}
_CORRECT: Mapping[str, Callable[[Change, list[Any], dict[str, Any]], _Arguments]] = {
    "view": _view,
    "zeros": _view,
    "expand": _view,
    "unflatten": _unflatten,
    "split": _split,
    "narrow": _narrow,
    "pad": _pad,
    "item": _item,
    "attention": _attention,
    "convolve": _convolve,
    "scale": _scale,
}
