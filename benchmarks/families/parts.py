"""Architecture families that users bring: compact definitions with random weights, for `benchmarks.architectures`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeprune.core.inputs import InputSpec, Shape


@dataclass(frozen=True, slots=True)
class Family:
    """`make` gives a network of its own for inputs (N, *shape); `note` says which variant it is."""

    make: Callable[[], nn.Module]
    shape: Shape
    note: str = ""


FAMILIES: dict[str, Family] = {}
IMAGE = (3, 32, 32)
#: A series of 20 steps of 10 values, and 12 values of 64 steps.
STEPS, SIGNAL = (20, 10), (12, 64)


def tokens(length: int, values: int) -> tuple[InputSpec, ...]:
    return (InputSpec("input", (length,), "int64", values),)


def family(shape: Shape, note: str = "") -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Put a class or a function that makes a network into FAMILIES, under its name."""

    def put(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        FAMILIES[make.__name__.lower()] = Family(make, shape, note)
        return make

    return put


# ---- parts


def conv(i: int, o: int, k: int = 3, s: int = 1, g: int = 1, act: type[nn.Module] | None = nn.ReLU) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    layers = [nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, *([act()] if act is not None else []))


def head(c: int, classes: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes))


class Plus(nn.Module):
    """x + body(x)."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Cat(nn.Module):
    """Branches side by side."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
