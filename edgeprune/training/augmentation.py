"""Small random changes of training images, chosen to fit the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeprune.core.inputs import Shape, plain_shape

#: Images from this size on are changed while training; smaller ones lose too much of themselves.
SMALLEST = 16


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far images are changed at most; every change is drawn evenly between its bounds.

    Example: `Augmentation(shift=1/14, rotation=10)` moves 28x28 images by up to 2 pixels and turns them by up to 10
    degrees to either side.
    """

    #: Share of the image's height and width, rounded to whole pixels.
    shift: float = 0.0
    #: Share of the images that are moved at all.
    moved: float = 1.0
    #: Degrees, to either side.
    rotation: float = 0.0
    #: Share by which it grows or shrinks.
    scale: float = 0.0
    #: Whether every second image is mirrored, left to right.
    mirror: bool = False

    @classmethod
    def fit(cls, shape: Shape, *, mirrors: bool) -> Augmentation | None:
        """What suits inputs of one `shape`, (C, H, W) or (D,); `mirrors`: a mirror image is still of its class.

        | inputs | changes |
        |---|---|
        | three channels: photographs | moved by up to an eighth, mirrored if they may be |
        | other images that may be mirrored | mirrored, every second one moved by up to a 28th |
        | any other images, digits say | moved by up to a 28th, turned by 5 degrees, scaled by a twentieth |
        | vectors, images under 16 pixels a side | none: None |

        Networks pruned to a fraction have no room for more: turning Fashion-MNIST's images as well, or moving all of
        them, cost 0.3 points (docs/decisions/0009-inputs-last.md).
        """
        sides = plain_shape(shape)
        if len(sides) != 3 or min(sides[1:]) < SMALLEST:
            return None
        if sides[0] == 3:
            return cls(shift=1 / 8, mirror=mirrors)
        return cls(shift=1 / 28, moved=0.5, mirror=True) if mirrors else cls(shift=1 / 28, rotation=5.0, scale=0.05)

    def apply(self, x: Tensor, generator: torch.Generator, changes: int = 128) -> Tensor:
        """Images (N, C, H, W) changed at random, in a fresh tensor; beyond the border they are continued.

        `generator` is one of the CPU, wherever the images are: the same seed draws the same changes.

        Image i gets change i modulo `changes`, so consecutive batches of that size hold each change once: one grid of
        sampling points serves many images, which costs a fifth of a grid for each. Pixels are interpolated bilinearly
        where images are turned or scaled, and copied where they are only moved or mirrored.
        """
        count, channels, height, width = x.shape
        changes = min(changes, count)
        matrices = self._matrices(changes, height, width, generator).to(x.device)
        grid = F.affine_grid(matrices, [changes, 1, height, width], False)
        # The images that share a change become channels of one; the last round is filled up with any images.
        rounds = -(-count // changes)
        missing = rounds * changes - count
        filled = torch.cat([x, x[:missing]]) if missing else x
        shared = filled.reshape(rounds, changes, channels, height, width).transpose(0, 1).flatten(1, 2)
        # Inputs are preprocessed: zero is not "black" after standardising, so the border is continued.
        moved = F.grid_sample(shared, grid, padding_mode="border", align_corners=False)
        back = moved.reshape(changes, rounds, channels, height, width).transpose(0, 1).flatten(0, 1)
        return back[:count]

    def _matrices(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Affine maps (count, 2, 3) from places in the changed image to places in the given one, both in [-1, 1]."""

        def evenly(bound: float) -> Tensor:
            return bound * (2 * torch.rand(count, generator=generator) - 1)

        angle, zoom = evenly(math.radians(self.rotation)), 1 + evenly(self.scale)
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        down, right = (
            torch.randint(-reach, reach + 1, (count,), generator=generator)
            for reach in (round(self.shift * height), round(self.shift * width))
        )
        if self.moved < 1:
            stays = torch.rand(count, generator=generator) >= self.moved
            down[stays] = right[stays] = 0
        flip = 1.0 - 2.0 * (torch.rand(count, generator=generator) < 0.5) if self.mirror else torch.ones(count)
        tall = height / width
        across = (flip * cos, flip * sin * tall, 2 * right / width)
        along = (-sin / tall, cos, 2 * down / height)
        return torch.stack(across + along, 1).reshape(count, 2, 3)
