"""Convolutional networks since 2020, and detectors' backbones and necks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.families.parts import IMAGE, Plus, conv, family, head


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@family(IMAGE, "layer norm, layer scale, linear layers")
def convnext() -> nn.Module:
    class Block(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.dwconv, self.norm = nn.Conv2d(c, c, 7, padding=3, groups=c), nn.LayerNorm(c, eps=1e-6)
            self.pwconv1, self.pwconv2 = nn.Linear(c, 3 * c), nn.Linear(3 * c, c)
            self.scale = nn.Parameter(torch.rand(c))

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
            y = self.scale * self.pwconv2(F.gelu(self.pwconv1(y)))
            return x + y.permute(0, 3, 1, 2)

    return nn.Sequential(
        *(nn.Conv2d(3, 32, 4, 4), LayerNorm2d(32), Block(32), LayerNorm2d(32), nn.Conv2d(32, 56, 2, 2), Block(56)),
        *(LayerNorm2d(56), head(56)),
    )


@family(IMAGE, "global response norm (ConvNeXt v2)")
def convnext_v2() -> nn.Module:
    class Block(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.dwconv, self.norm = nn.Conv2d(c, c, 7, padding=3, groups=c), nn.LayerNorm(c)
            self.up, self.down = nn.Linear(c, 3 * c), nn.Linear(3 * c, c)
            self.gamma, self.beta = nn.Parameter(torch.rand(1, 1, 1, 3 * c)), nn.Parameter(torch.rand(1, 1, 1, 3 * c))

        def forward(self, x: Tensor) -> Tensor:
            y = F.gelu(self.up(self.norm(self.dwconv(x).permute(0, 2, 3, 1))))
            size = torch.norm(y, p=2, dim=(1, 2), keepdim=True)
            y = self.gamma * (y * (size / (size.mean(dim=-1, keepdim=True) + 1e-6))) + self.beta + y
            return x + self.down(y).permute(0, 3, 1, 2)

    return nn.Sequential(nn.Conv2d(3, 32, 4, 4), LayerNorm2d(32), Block(32), Block(32), head(32))


@family(IMAGE)
def convmixer() -> nn.Module:
    def block(c: int) -> nn.Module:
        deep = Plus(nn.Conv2d(c, c, 7, padding="same", groups=c), nn.GELU(), nn.BatchNorm2d(c))
        return nn.Sequential(deep, nn.Conv2d(c, c, 1), nn.GELU(), nn.BatchNorm2d(c))

    return nn.Sequential(nn.Conv2d(3, 56, 4, 4), nn.GELU(), nn.BatchNorm2d(56), block(56), block(56), head(56))


@family(IMAGE, "three branches of a block")
def repvgg() -> nn.Module:
    class Block(nn.Module):
        def __init__(self, i: int, o: int, s: int = 1) -> None:
            super().__init__()
            self.dense, self.one = conv(i, o, 3, s, act=None), conv(i, o, 1, s, act=None)
            self.same = nn.BatchNorm2d(i) if (i, s) == (o, 1) else None

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.dense(x) + self.one(x) + (0 if self.same is None else self.same(x)))

    return nn.Sequential(Block(3, 24, 2), Block(24, 24), Block(24, 48, 2), Block(48, 48), head(48))


# ---- detectors' backbones and necks


class C2f(nn.Module):
    def __init__(self, i: int, o: int, n: int = 2) -> None:
        super().__init__()
        self.c = o // 2
        self.cv1, self.cv2 = conv(i, 2 * self.c, 1, act=nn.SiLU), conv((2 + n) * self.c, o, 1, act=nn.SiLU)
        self.m = nn.ModuleList(
            Plus(conv(self.c, self.c, act=nn.SiLU), conv(self.c, self.c, act=nn.SiLU)) for _ in range(n)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


@family(IMAGE, "chunk and growing list")
def yolo_c2f() -> nn.Module:
    return nn.Sequential(conv(3, 24, s=2, act=nn.SiLU), C2f(24, 40), conv(40, 56, s=2, act=nn.SiLU), head(56))


@family(IMAGE, "two convolutions instead of a chunk")
def csp_c3() -> nn.Module:
    class C3(nn.Module):
        def __init__(self, i: int, o: int) -> None:
            super().__init__()
            h = o // 2
            self.cv1, self.cv2, self.cv3 = conv(i, h, 1), conv(i, h, 1), conv(2 * h, o, 1)
            self.m = nn.Sequential(Plus(conv(h, h, 1), conv(h, h)), Plus(conv(h, h, 1), conv(h, h)))

        def forward(self, x: Tensor) -> Tensor:
            return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))

    return nn.Sequential(conv(3, 24, s=2), C3(24, 48), conv(48, 64, s=2), C3(64, 64), head(64))


@family(IMAGE, "YOLOv7, LeakyReLU")
def elan() -> nn.Module:
    class Elan(nn.Module):
        def __init__(self, i: int, h: int, o: int) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = conv(i, h, 1), conv(i, h, 1), conv(h, h), conv(h, h)
            self.e, self.act = conv(4 * h, o, 1), nn.LeakyReLU(0.1)

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.a(x), self.b(x)
            c = self.act(self.c(b))
            return self.e(torch.cat([self.act(self.d(c)), c, b, a], 1))

    return nn.Sequential(conv(3, 24, s=2), Elan(24, 16, 48), nn.MaxPool2d(2), Elan(48, 24, 72), head(72))


@family(IMAGE, "pooled thrice and concatenated")
def sppf() -> nn.Module:
    class Sppf(nn.Module):
        def __init__(self, c: int) -> None:
            super().__init__()
            self.cv1, self.cv2, self.m = conv(c, c // 2, 1), conv(2 * c, c, 1), nn.MaxPool2d(5, 1, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.cv1(x)
            y1 = self.m(x)
            y2 = self.m(y1)
            return self.cv2(torch.cat((x, y1, y2, self.m(y2)), 1))

    return nn.Sequential(conv(3, 32, s=2), conv(32, 56, s=2), Sppf(56), head(56))


@family(IMAGE, "lateral layers, nearest upsampling, shared head, three maps out")
class Fpn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c2, self.c3, self.c4 = conv(3, 24, s=2), conv(24, 40, s=2), conv(40, 64, s=2)
        self.laterals = nn.ModuleList(nn.Conv2d(c, 32, 1) for c in (24, 40, 64))
        self.smooth = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in range(3))
        self.head = nn.Sequential(conv(32, 32), nn.Conv2d(32, 6, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        c2 = self.c2(x)
        c3 = self.c3(c2)
        p4 = self.laterals[2](self.c4(c3))
        p3 = self.laterals[1](c3) + F.interpolate(p4, scale_factor=2, mode="nearest")
        p2 = self.laterals[0](c2) + F.interpolate(p3, scale_factor=2, mode="nearest")
        return tuple(self.head(s(p)) for s, p in zip(self.smooth, (p2, p3, p4), strict=True))
