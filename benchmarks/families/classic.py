"""Convolutional networks up to 2017: plain, residual, branched."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.families.parts import IMAGE, Call, Cat, conv, family, head


@family((1, 28, 28), "LeNet-5, sequential")
def plain_cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 12, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 24, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(384, 80), nn.ReLU(), nn.Linear(80, 40), nn.ReLU(), nn.Linear(40, 10)),
    )


class Vgg(nn.Module):
    def __init__(self, flat: Callable[[Tensor], Tensor], bn: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        c = 3
        for o, times in ((24, 1), (40, 2), (56, 2)):
            for _ in range(times):
                layers += [nn.Conv2d(c, o, 3, padding=1), *([nn.BatchNorm2d(o)] if bn else []), nn.ReLU(inplace=True)]
                c = o
            layers.append(nn.MaxPool2d(2, 2))
        self.features, self.flat = nn.Sequential(*layers), flat
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(c * 16, 72), nn.ReLU(True), nn.Dropout(), nn.Linear(72, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.flat(self.features(x)))


@family(IMAGE, "torch.flatten")
def vgg_flatten() -> nn.Module:
    return Vgg(lambda x: torch.flatten(x, 1), bn=False)


@family(IMAGE, "x.view(x.size(0), -1), batch norm")
def vgg_view() -> nn.Module:
    return Vgg(lambda x: x.view(x.size(0), -1))


@family(IMAGE, "x.view(-1, 56 * 4 * 4)")
def vgg_hard_coded_view() -> nn.Module:
    return Vgg(lambda x: x.view(-1, 56 * 4 * 4))


@family((3, 67, 67), "local response norm")
def alexnet_lrn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 24, 11, 4), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(24, 48, 5, padding=2, groups=2), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(48, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 48, 3, padding=1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(48 * 9, 96), nn.ReLU(), nn.Dropout(), nn.Linear(96, 10)),
    )


@family(IMAGE, "log_softmax, dropout2d")
class MnistExample(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.drop = nn.Conv2d(3, 20, 5), nn.Conv2d(20, 36, 5), nn.Dropout2d()
        self.fc1, self.fc2 = nn.Linear(36 * 25, 60), nn.Linear(60, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.drop(self.conv2(x)), 2))
        x = F.dropout(F.relu(self.fc1(x.reshape(len(x), -1))), training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)


# ---- residual networks


class Basic(nn.Module):
    """Two 3x3 convolutions; `extra` is put on the branch."""

    def __init__(self, i: int, o: int, s: int, short: str = "conv", extra: Callable[[int], nn.Module] | None = None):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.extra = extra(o) if extra is not None else nn.Identity()
        self.short: nn.Module = nn.Identity()
        if (i, s) != (o, 1):
            pad = (o - i) // 2
            self.short = (
                Call(lambda x: F.pad(x[:, :, ::s, ::s], (0, 0, 0, 0, pad, o - i - pad)))
                if short == "pad"
                else conv(i, o, 1, s, act=None)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(self.extra(y) + self.short(x))


def stages(block: Callable[[int, int, int], nn.Module], widths: tuple[int, ...] = (20, 40), n: int = 2) -> nn.Module:
    layers: list[nn.Module] = [conv(3, widths[0])]
    c = widths[0]
    for stage, o in enumerate(widths):
        for index in range(n):
            layers.append(block(c, o, 2 if stage and not index else 1))
            c = o
    return nn.Sequential(*layers, head(c))


@family(IMAGE, "option A, F.pad of a strided slice")
def resnet_zero_pad() -> nn.Module:
    return stages(lambda i, o, s: Basic(i, o, s, "pad"), (16, 32, 64), 1)


@family(IMAGE, "option B, 1x1 shortcuts")
def resnet_projection() -> nn.Module:
    return stages(Basic)


class Bottleneck(nn.Module):
    def __init__(self, i: int, o: int, s: int, middle: int, groups: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(i, middle, 1), conv(middle, middle, 3, s, groups), conv(middle, o, 1, act=None))
        self.short = conv(i, o, 1, s, act=None) if (i, s) != (o, 1) else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.short(x))


@family(IMAGE)
def resnet_bottleneck() -> nn.Module:
    return stages(lambda i, o, s: Bottleneck(i, o, s, o // 4), (48, 96))


@family(IMAGE, "3x3 in 8 groups")
def resnext() -> nn.Module:
    return stages(lambda i, o, s: Bottleneck(i, o, s, o // 2, 8), (64, 128), 1)


@family(IMAGE, "wide, norm before the convolution")
def preact_resnet() -> nn.Module:
    class Block(nn.Module):
        def __init__(self, i: int, o: int, s: int) -> None:
            super().__init__()
            self.bn1, self.conv1 = nn.BatchNorm2d(i), nn.Conv2d(i, o, 3, s, 1, bias=False)
            self.bn2, self.conv2 = nn.BatchNorm2d(o), nn.Conv2d(o, o, 3, 1, 1, bias=False)
            self.short = nn.Conv2d(i, o, 1, s, bias=False) if (i, s) != (o, 1) else None

        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.bn1(x))
            short = x if self.short is None else self.short(y)
            return short + self.conv2(torch.relu(self.bn2(self.conv1(y))))

    return stages(Block, (24, 48))


class SqueezeLinear(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(nn.Linear(c, c // 4), nn.ReLU(), nn.Linear(c // 4, c), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        return x * self.fc(self.pool(x).view(b, c)).view(b, c, 1, 1).expand_as(x)


class SqueezeConv(nn.Module):
    def __init__(self, c: int, gate: Callable[[Tensor], Tensor] = torch.sigmoid, middle: int | None = None) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(c, middle or c // 4, 1), nn.Conv2d(middle or c // 4, c, 1)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


@family(IMAGE, "linear layers and view")
def se_linear() -> nn.Module:
    return stages(lambda i, o, s: Basic(i, o, s, extra=SqueezeLinear), (24, 48), 1)


@family(IMAGE, "1x1 convolutions")
def se_conv() -> nn.Module:
    return stages(lambda i, o, s: Basic(i, o, s, extra=SqueezeConv), (24, 48), 1)


class Eca(nn.Module):
    def __init__(self, _: int) -> None:
        super().__init__()
        self.pool, self.conv = nn.AdaptiveAvgPool2d(1), nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.pool(x).squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
        return x * torch.sigmoid(y).expand_as(x)


@family(IMAGE, "1-D convolution over channels")
def eca_net() -> nn.Module:
    return stages(lambda i, o, s: Basic(i, o, s, extra=Eca), (24, 48), 1)


class Cbam(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv2d(c, c // 4, 1, bias=False), nn.ReLU(), nn.Conv2d(c // 4, c, 1, bias=False))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.sigmoid(self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(F.adaptive_max_pool2d(x, 1)))
        both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.spatial(both))


@family(IMAGE, "channel and spatial attention")
def cbam_net() -> nn.Module:
    return stages(lambda i, o, s: Basic(i, o, s, extra=Cbam), (24, 48), 1)


# ---- branches


@family(IMAGE, "bottleneck layers, transitions")
def densenet() -> nn.Module:
    class Grow(nn.Module):
        def __init__(self, i: int) -> None:
            super().__init__()
            self.one = nn.Sequential(nn.BatchNorm2d(i), nn.ReLU(), nn.Conv2d(i, 40, 1, bias=False))
            self.two = nn.Sequential(nn.BatchNorm2d(40), nn.ReLU(), nn.Conv2d(40, 10, 3, padding=1, bias=False))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat((x, self.two(self.one(x))), 1)

    return nn.Sequential(
        *(conv(3, 20, s=2), Grow(20), Grow(30), nn.BatchNorm2d(40), nn.ReLU(), nn.Conv2d(40, 24, 1), nn.AvgPool2d(2)),
        *(Grow(24), Grow(34), nn.BatchNorm2d(44), nn.ReLU(), head(44)),
    )


@family(IMAGE, "four branches")
def inception() -> nn.Module:
    def block(i: int, k: int) -> nn.Module:
        three, five = nn.Sequential(conv(i, k, 1), conv(k, 2 * k)), nn.Sequential(conv(i, k, 1), conv(k, k, 5))
        return Cat(conv(i, k, 1), three, five, nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(i, k, 1)))

    return nn.Sequential(conv(3, 20, s=2), block(20, 12), nn.MaxPool2d(2), block(60, 16), head(80))


@family((3, 48, 48), "fire modules, convolution as classifier")
def squeezenet() -> nn.Module:
    def fire(i: int, s: int, e: int) -> nn.Module:
        one, three = nn.Conv2d(s, e, 1), nn.Conv2d(s, e, 3, padding=1)
        return nn.Sequential(nn.Conv2d(i, s, 1), nn.ReLU(), Cat(one, three), nn.ReLU())

    return nn.Sequential(
        *(nn.Conv2d(3, 24, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), fire(24, 12, 28), fire(56, 16, 36)),
        *(nn.Dropout(), nn.Conv2d(72, 10, 1), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten()),
    )
