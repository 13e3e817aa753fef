"""How images are laid out for a model file: channels first or last, flat, with or without an axis of batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to lay images out. `shape` is of one image as the model takes it."""

    name: str
    shape: tuple[int, ...]
    channels_last: bool = False
    #: Images per run: above 1 where the file fixes it.
    batch: int = 1

    def apply(self, images: NDArray[Any]) -> NDArray[Any]:
        """(N, C, H, W) or (N, D) as (N, *shape)."""
        turned = np.moveaxis(images, 1, -1) if self.channels_last else images
        return np.ascontiguousarray(turned.reshape(len(images), *self.shape))


def layouts(one: tuple[int, ...], declared: tuple[int, ...]) -> list[Layout]:
    """All layouts in which images of shape `one`, (C, H, W) or (D,), fit an input (-1: an open axis), likeliest first.

    Channels stay first where that fits. Where the shape does not tell, both orders are there: (3, 32, 3) and colour
    images that are flattened. An input without an axis of batches takes one image at a time.
    """
    if not declared:  # a model may leave even the number of axes open
        return [Layout("as they come", one)]
    batch = max(1, declared[0])
    found = _fitting(one, declared[1:], batch, "")
    return found or _fitting(one, declared, 1, ", without an axis of batches")


def _fitting(one: tuple[int, ...], wanted: tuple[int, ...], batch: int, remark: str) -> list[Layout]:
    last = (*one[1:], one[0]) if len(one) > 1 else one
    orders = [("as they come", one, False)]
    # With one channel both orders are the same numbers one after the other.
    if len(one) > 1:
        orders.append(("NHWC", last, True))
    exact = [
        Layout(name + remark, shape, turned, batch)
        for name, shape, turned in orders
        if len(shape) == len(wanted) and all(side in (-1, size) for side, size in zip(wanted, shape, strict=True))
    ]
    if exact:
        return exact
    filled = _filled(wanted, math.prod(one))
    # (3, 32, 32) as (32, 32, 3) would only look right.
    if filled is None or len(filled) == len(one) or (remark and len(filled) > len(one) > 1):
        return []
    if len(one) == 1 or one[0] == 1:
        return [Layout(f"{_written(one)} as {_written(filled)}{remark}", filled, False, batch)]
    flat = "flattened" if len(filled) == 1 else f"as {_written(filled)}"
    return [
        Layout(f"{flat}, channel after channel (CHW){remark}", filled, False, batch),
        Layout(f"{flat}, pixel after pixel (HWC){remark}", filled, True, batch),
    ]


def _filled(wanted: tuple[int, ...], size: int) -> tuple[int, ...] | None:
    """`wanted` with at most one open axis filled so that it holds `size` values; None where that cannot be."""
    known = math.prod(side for side in wanted if side > 0)
    opened = sum(side < 1 for side in wanted)
    if not wanted or opened > 1 or size % known or (not opened and size != known):
        return None
    return tuple(side if side > 0 else size // known for side in wanted)


def _written(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
