"""Networks made for phones and keyword spotting."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.families.classic import SqueezeConv
from benchmarks.families.parts import IMAGE, Plus, conv, family, head


def separable(i: int, o: int, s: int = 1) -> nn.Sequential:
    return nn.Sequential(conv(i, i, 3, s, i), conv(i, o, 1))


@family(IMAGE, "depthwise separable")
def mobilenet_v1() -> nn.Module:
    return nn.Sequential(conv(3, 20, s=2), separable(20, 40), separable(40, 72, 2), separable(72, 72), head(72))


class Inverted(nn.Module):
    """Expansion, depthwise, squeeze and excitation where there is `se`, projection."""

    def __init__(
        self, i: int, o: int, s: int = 1, t: int = 4, k: int = 3, act: type[nn.Module] = nn.ReLU6, se: bool = False
    ) -> None:
        super().__init__()
        m = i * t
        gate = F.hardsigmoid if act is nn.Hardswish else torch.sigmoid
        squeeze = [SqueezeConv(m, gate, max(8, i // 4))] if se else []
        self.body = nn.Sequential(conv(i, m, 1, act=act), conv(m, m, k, s, m, act), *squeeze, conv(m, o, 1, act=None))
        self.adds = (i, s) == (o, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


@family(IMAGE, "inverted residuals, ReLU6")
def mobilenet_v2() -> nn.Module:
    return nn.Sequential(
        *(conv(3, 16, s=2, act=nn.ReLU6), Inverted(16, 24, 2), Inverted(24, 24), Inverted(24, 32, 2)),
        *(Inverted(32, 32), conv(32, 96, 1, act=nn.ReLU6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2)),
        nn.Linear(96, 10),
    )


@family(IMAGE, "hard swish, squeeze and excitation")
def mobilenet_v3() -> nn.Module:
    act = nn.Hardswish
    return nn.Sequential(
        *(conv(3, 16, s=2, act=act), Inverted(16, 24, 2, 4, 3, nn.ReLU, True), Inverted(24, 24, 1, 3, 5, act, True)),
        *(Inverted(24, 40, 2, 4, 5, act), conv(40, 96, 1, act=act), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *(nn.Linear(96, 64), nn.Hardswish(), nn.Linear(64, 10)),
    )


@family(IMAGE, "SiLU, squeeze and excitation")
def efficientnet() -> nn.Module:
    act = nn.SiLU
    return nn.Sequential(
        *(conv(3, 20, s=2, act=act), Inverted(20, 16, 1, 1, 3, act, True), Inverted(16, 28, 2, 6, 5, act, True)),
        *(Inverted(28, 28, 1, 6, 5, act, True), conv(28, 112, 1, act=act), head(112)),
    )


@family(IMAGE, "separable first block")
def mnasnet() -> nn.Module:
    first = nn.Sequential(conv(24, 24, g=24), conv(24, 16, 1, act=None))
    blocks = (Inverted(16, 24, 2, 3, 3, nn.ReLU), Inverted(24, 24, 1, 3, 5, nn.ReLU))
    return nn.Sequential(conv(3, 24, s=2), first, *blocks, conv(24, 80, 1), head(80))


def shuffled(x: Tensor, groups: int) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


@family(IMAGE, "grouped 1x1, shuffle")
def shufflenet_v1() -> nn.Module:
    class Unit(nn.Module):
        def __init__(self, c: int, g: int) -> None:
            super().__init__()
            self.one, self.two = conv(c, c // 2, 1, g=g), conv(c // 2, c // 2, g=c // 2, act=None)
            self.three, self.g = conv(c // 2, c, 1, g=g, act=None), g

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x + self.three(self.two(shuffled(self.one(x), self.g))))

    return nn.Sequential(conv(3, 48, s=2), Unit(48, 4), Unit(48, 4), conv(48, 72, s=2), Unit(72, 3), head(72))


@family(IMAGE, "chunk, concatenation, shuffle")
def shufflenet_v2() -> nn.Module:
    def branch(i: int, o: int, s: int) -> nn.Module:
        return nn.Sequential(conv(i, o, 1), conv(o, o, 3, s, o, None), conv(o, o, 1))

    class Same(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.branch = branch(c // 2, c // 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            left, right = x.chunk(2, dim=1)
            return shuffled(torch.cat((left, self.branch(right)), 1), 2)

    class Down(nn.Module):
        def __init__(self, i: int, o: int) -> None:
            super().__init__()
            self.left = nn.Sequential(conv(i, i, 3, 2, i, None), conv(i, o // 2, 1))
            self.right = branch(i, o // 2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return shuffled(torch.cat((self.left(x), self.right(x)), 1), 2)

    return nn.Sequential(conv(3, 20, s=2), Down(20, 56), Same(56), Same(56), conv(56, 96, 1), head(96))


@family(IMAGE, "cheap depthwise features, sliced")
def ghostnet() -> nn.Module:
    class Ghost(nn.Module):
        def __init__(self, i: int, o: int, act: type[nn.Module] | None = nn.ReLU) -> None:
            super().__init__()
            self.o, half = o, (o + 1) // 2
            self.main, self.cheap = conv(i, half, 1, act=act), conv(half, half, g=half, act=act)

        def forward(self, x: Tensor) -> Tensor:
            y = self.main(x)
            return torch.cat([y, self.cheap(y)], dim=1)[:, : self.o]

    block = Plus(Ghost(32, 80), Ghost(80, 32, None))
    return nn.Sequential(conv(3, 32, s=2), block, Ghost(32, 48), nn.MaxPool2d(2), Ghost(48, 64), head(64))


@family((1, 49, 10), "keyword spotting on MFCC")
def ds_cnn() -> nn.Module:
    first = nn.Sequential(nn.Conv2d(1, 48, (10, 4), (2, 2), (5, 1)), nn.BatchNorm2d(48), nn.ReLU(), nn.Dropout(0.2))
    return nn.Sequential(first, separable(48, 48), separable(48, 48), separable(48, 48), head(48, 12))


@family((1, 101, 40), "keyword spotting, dilation-free residuals")
def kws_res8() -> nn.Module:
    class Res8(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.pool = nn.Conv2d(1, 28, 3, padding=1, bias=False), nn.AvgPool2d((4, 3))
            self.convs = nn.ModuleList(nn.Conv2d(28, 28, 3, padding=1, bias=False) for _ in range(4))
            self.norms = nn.ModuleList(nn.BatchNorm2d(28, affine=False) for _ in range(4))
            self.out = nn.Linear(28, 12)

        def forward(self, x: Tensor) -> Tensor:
            x = old = self.pool(F.relu(self.first(x)))
            for index, (layer, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
                y = F.relu(layer(x))
                if index % 2:
                    y = old = y + old
                x = norm(y)
            return self.out(x.view(x.size(0), x.size(1), -1).mean(2))

    return Res8()
