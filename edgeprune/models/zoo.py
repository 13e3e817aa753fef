"""The zoo: networks sized by the data they will see. Each takes (N, *input_shape) and gives logits (N, classes)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.core.errors import ModelError

Shape = tuple[int, ...]


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to a multiple of 8, at least 8: what kernels compute in blocks of."""
    return max(8, round(channels * width / 8) * 8)


class MLP(nn.Module):
    """Fully connected, ReLU between layers; flattens its input. `hidden` are the widths between input and logits."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], classes: int) -> None:
        super().__init__()
        sizes = (inputs, *hidden, classes)
        for index, (n_in, n_out) in enumerate(pairwise(sizes), start=1):
            self.add_module(f"fc{index}", nn.Linear(n_in, n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of x (N, ...)."""
        layers = list(self.children())
        x = x.flatten(1)
        for layer in layers[:-1]:
            x = F.relu(layer(x))
        return layers[-1](x)  # type: ignore[no-any-return]


class LeNet5(nn.Module):
    """LeNet-5 with ReLU and max pooling (LeCun et al. 1998): two convolutions, three fully connected layers."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        # Images under 12 pixels a side would shrink to nothing without padding in the second convolution.
        shrink = 4 if min(height, width) >= 12 else 0
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5, padding=2 - shrink // 2)
        self.fc1 = nn.Linear(16 * ((height // 2 - shrink) // 2) * ((width // 2 - shrink) // 2), 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of x (N, C, H, W)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))  # type: ignore[no-any-return]


class LeNet5Caffe(nn.Module):
    """LeNet-5 as Caffe has it (Jia et al. 2014), 20-50-800-500, on which papers on structured pruning print tables:
    two 5x5 convolutions without padding, each followed by max pooling alone, and two fully connected layers.
    """

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.conv1 = nn.Conv2d(channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * (((height - 4) // 2 - 4) // 2) * (((width - 4) // 2 - 4) // 2), 500)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of x (N, C, H, W)."""
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))  # type: ignore[no-any-return]


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions and an option-A shortcut (He et al. 2016): subsampled, zero-padded channels, no weights."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.stride = stride
        self.pad = (n_out - n_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(y + x)


class CifarResNet(nn.Module):
    """The CIFAR ResNet of He et al. 2016, depth 6n+2, option-A shortcuts; all widths times `width` (see `scaled`)."""

    def __init__(self, blocks: int, shape: Shape, classes: int, width: float = 1.0) -> None:
        super().__init__()
        first, second, third = (scaled(channels, width) for channels in (16, 32, 64))
        self.conv1 = nn.Conv2d(shape[0], first, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.layer1 = self._stage(first, first, blocks, 1)
        self.layer2 = self._stage(first, second, blocks, 2)
        self.layer3 = self._stage(second, third, blocks, 2)
        self.linear = nn.Linear(third, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    @staticmethod
    def _stage(n_in: int, n_out: int, blocks: int, stride: int) -> nn.Sequential:
        first = _BasicBlock(n_in, n_out, stride)
        return nn.Sequential(first, *(_BasicBlock(n_out, n_out, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of x (N, C, H, W)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))  # type: ignore[no-any-return]


class _InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 (Sandler et al. 2018)."""

    def __init__(self, n_in: int, n_out: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = n_in * expand
        self.expand = nn.Conv2d(n_in, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.project = nn.Conv2d(hidden, n_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.residual = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.bn1(self.expand(x)))
        y = F.relu6(self.bn2(self.depthwise(y)))
        y = self.bn3(self.project(y))
        return x + y if self.residual else y  # type: ignore[no-any-return]


class MobileNetV2Small(nn.Module):
    """A MobileNetV2 for small images: strides and widths cut down from Sandler et al. 2018.

    All widths times `width` (see `scaled`).
    """

    #: expand, channels, blocks, stride
    STAGES = ((1, 16, 1, 1), (4, 24, 2, 1), (4, 32, 2, 2), (4, 64, 2, 2))

    def __init__(self, shape: Shape, classes: int, width: float = 1.0) -> None:
        super().__init__()
        n_in, head = scaled(16, width), scaled(256, width)
        self.stem = nn.Conv2d(shape[0], n_in, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_in)
        blocks: list[nn.Module] = []
        for expand, channels, count, stride in self.STAGES:
            n_out = scaled(channels, width)
            for index in range(count):
                blocks.append(_InvertedResidual(n_in, n_out, stride if index == 0 else 1, expand))
                n_in = n_out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(n_in, head, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(head)
        self.linear = nn.Linear(head, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of x (N, C, H, W)."""
        x = self.blocks(F.relu6(self.bn1(self.stem(x))))
        x = F.relu6(self.bn2(self.head(x)))
        return self.linear(x.mean((2, 3)))  # type: ignore[no-any-return]


class _Separable(nn.Module):
    """Depthwise 3x3, pointwise 1x1, each with batch norm and ReLU (Howard et al. 2017)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.depthwise(x)))
        return F.relu(self.bn2(self.pointwise(x)))


class DSCNN(nn.Module):
    """The small DS-CNN of Zhang et al. 2017 (Hello Edge), its first layer 4x4 as images are square: 64 channels,
    stride 2, then four depthwise-separable blocks. All widths times `width` (see `scaled`).
    """

    def __init__(self, shape: Shape, classes: int, width: float = 1.0) -> None:
        super().__init__()
        channels = scaled(64, width)
        self.stem = nn.Conv2d(shape[0], channels, 4, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.blocks = nn.Sequential(*(_Separable(channels) for _ in range(4)))
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of x (N, C, H, W)."""
        x = self.blocks(F.relu(self.bn(self.stem(x))))
        return self.linear(x.mean((2, 3)))  # type: ignore[no-any-return]


class Family(Protocol):
    """Makes networks of one kind in any width; 1.0 is the zoo's own."""

    def __call__(self, shape: Shape, classes: int, width: float = 1.0) -> nn.Module:
        """For inputs (N, *shape)."""


FAMILIES: dict[str, Family] = {
    "resnet20": partial(CifarResNet, 3),
    "resnet56": partial(CifarResNet, 9),
    "mobilenetv2-small": MobileNetV2Small,
    "ds-cnn": DSCNN,
}

ZOO: dict[str, Callable[[Shape, int], nn.Module]] = {
    "lenet-300-100": lambda shape, classes: MLP(math.prod(shape), (300, 100), classes),
    "mlp-32-16": lambda shape, classes: MLP(math.prod(shape), (32, 16), classes),
    "mlp-1024-1024": lambda shape, classes: MLP(math.prod(shape), (1024, 1024), classes),
    "lenet5": LeNet5,
    "lenet-5-caffe": LeNet5Caffe,
    **FAMILIES,
}

#: Zoo networks that convolve: pixels a side that their images have at least.
CONVOLUTIONAL = {"lenet5": 8, "lenet-5-caffe": 16, **dict.fromkeys(FAMILIES, 8)}


def build(name: str, shape: Shape, classes: int) -> nn.Module:
    """The zoo network `name` for inputs (N, *shape). Raises ModelError where the data does not fit it."""
    least = CONVOLUTIONAL.get(name, 0)
    if least and (len(shape) != 3 or min(shape[1:]) < least):
        found = "x".join(map(str, shape))
        raise ModelError(
            f"model '{name}' needs images of at least {least}x{least} pixels, but the data is {found}",
            "choose --model lenet-300-100 or your own FILE.py:FUNCTION",
        )
    return ZOO[name](shape, classes)


def is_finite(network: nn.Module) -> bool:
    """Whether every parameter and buffer is finite."""
    return all(
        bool(torch.isfinite(tensor).all()) for tensor in network.state_dict().values() if tensor.is_floating_point()
    )
