"""Several inputs and outputs, norms, shared weights, gates."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from benchmarks.families.modern import LayerNorm2d
from benchmarks.families.parts import IMAGE, conv, family, head
from edgeprune.core.inputs import InputSpec


@family((InputSpec("image", (3, 16, 16)), InputSpec("numbers", (10,))), "image and numbers")
class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Sequential(conv(3, 20, s=2), conv(20, 32, s=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.read, self.join = nn.Sequential(nn.Linear(10, 24), nn.ReLU()), nn.Sequential(nn.Linear(56, 40), nn.ReLU())
        self.out = nn.Linear(40, 6)

    def forward(self, image: Tensor, numbers: Tensor) -> Tensor:
        return self.out(self.join(torch.cat([self.see(image), self.read(numbers)], dim=1)))


@family(
    (InputSpec("numbers", (12,)), InputSpec("ids", (4,), "int64", 30)), "embeddings of categories, a linear part beside"
)
class WideAndDeep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.wide = nn.Embedding(30, 8), nn.Linear(12, 1)
        self.deep = nn.Sequential(nn.Linear(44, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, numbers: Tensor, ids: Tensor) -> Tensor:
        return self.wide(numbers) + self.deep(torch.cat([numbers, self.embed(ids).flatten(1)], dim=1))


@family(IMAGE, "a mapping with two names")
class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 24, s=2), conv(24, 40, s=2), conv(40, 40), nn.AdaptiveAvgPool2d(1))
        self.kind, self.age = nn.Linear(40, 5), nn.Sequential(nn.Linear(40, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = torch.flatten(self.body(x), 1)
        return {"kind": self.kind(y), "age": self.age(y)}


def normed(norm: Callable[[int], nn.Module]) -> nn.Module:
    def block(i: int, o: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), norm(o), nn.ReLU())

    return nn.Sequential(block(3, 24), block(24, 48), block(48, 48), head(48))


@family(IMAGE, "8 groups")
def group_norm() -> nn.Module:
    return normed(lambda c: nn.GroupNorm(8, c))


@family(IMAGE, "affine")
def instance_norm() -> nn.Module:
    return normed(lambda c: nn.InstanceNorm2d(c, affine=True))


@family(IMAGE, "permuted layer norm")
def layer_norm_2d() -> nn.Module:
    return normed(LayerNorm2d)


@family(IMAGE, "one slope for each channel")
def prelu() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 24, 3, 2, 1), nn.PReLU(24), nn.Conv2d(24, 40, 3, 2, 1), nn.PReLU(40)),
        *(nn.Conv2d(40, 40, 3, padding=1), nn.PReLU(), head(40)),
    )


@family(IMAGE, "one convolution runs three times")
class SharedConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again, self.tail = conv(3, 36, s=2), conv(36, 36), nn.Sequential(conv(36, 48, s=2), head(48))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = self.again(x)
        return self.tail(x)


@family((1, 8, 16, 16), "volumes")
def conv3d() -> nn.Module:
    def block(i: int, o: int) -> nn.Module:
        return nn.Sequential(nn.Conv3d(i, o, 3, padding=1), nn.BatchNorm3d(o), nn.ReLU(), nn.MaxPool3d(2))

    return nn.Sequential(block(1, 12), block(12, 24), block(24, 32), nn.Flatten(), nn.Linear(128, 6))


@family((18,), "one value")
def regression_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(18, 56), nn.ReLU(), nn.Linear(56, 28), nn.ELU(), nn.Linear(28, 1))


@family((1, 20, 20), "mean of three networks of different widths")
class Ensemble(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList(nn.Sequential(conv(1, c, s=2), conv(c, 2 * c), head(2 * c)) for c in (12, 16, 20))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x).softmax(-1) for member in self.members]).mean(0)


@family((30,), "F.linear and @ on bare parameters")
class FunctionalWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1, self.b1 = nn.Parameter(torch.randn(64, 30) / 5), nn.Parameter(torch.randn(64))
        self.w2 = nn.Parameter(torch.randn(64, 40) / 8)
        self.out = nn.Linear(40, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(F.relu(F.linear(x, self.w1, self.b1)) @ self.w2))


@family((24,), "transform gate and carry")
def highway() -> nn.Module:
    class Layer(nn.Module):
        def __init__(self, d: int) -> None:
            super().__init__()
            self.change, self.gate = nn.Linear(d, d), nn.Linear(d, d)

        def forward(self, x: Tensor) -> Tensor:
            share = torch.sigmoid(self.gate(x))
            return share * F.relu(self.change(x)) + (1 - share) * x

    return nn.Sequential(nn.Linear(24, 48), Layer(48), Layer(48), nn.Linear(48, 4))


@family(IMAGE, "convolutions and a linear layer")
def spectral_norm() -> nn.Module:
    sn = parametrizations.spectral_norm
    return nn.Sequential(
        *(sn(nn.Conv2d(3, 24, 4, 2, 1)), nn.LeakyReLU(0.2), sn(nn.Conv2d(24, 40, 4, 2, 1)), nn.LeakyReLU(0.2)),
        *(nn.Flatten(), sn(nn.Linear(40 * 64, 32)), nn.LeakyReLU(0.2), sn(nn.Linear(32, 1))),
    )


@family((8, 96), "WaveNet-like: gated activations, skip sum")
class WaveNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start, self.out = nn.Conv1d(8, 24, 1), nn.Sequential(nn.ReLU(), nn.Conv1d(24, 16, 1), nn.ReLU())
        self.both = nn.ModuleList(nn.Conv1d(24, 48, 3, padding=d, dilation=d) for d in (1, 2, 4))
        self.res = nn.ModuleList(nn.Conv1d(24, 24, 1) for _ in range(3))
        self.skip = nn.ModuleList(nn.Conv1d(24, 24, 1) for _ in range(3))
        self.fc, self.scale = nn.Linear(16, 5), math.sqrt(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.start(x), 0
        for both, res, skip in zip(self.both, self.res, self.skip, strict=True):
            a, b = both(x).chunk(2, 1)
            y = torch.tanh(a) * torch.sigmoid(b)
            total = total + skip(y)
            x = (x + res(y)) * self.scale
        return self.fc(self.out(total).mean(-1))
