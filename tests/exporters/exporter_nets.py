"""Small networks that between them have every shape the exporters must get right, and surgery on them."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.pruning.inputs import SelectedInputs

#: Module name -> channels that stay.
Kept = dict[str, list[int]]


class Mlp(nn.Module):
    def __init__(self, inputs: int = 784, first: int = 300, second: int = 100) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(inputs, first), nn.Linear(first, second), nn.Linear(second, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))


class LeNet5(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = nn.Linear(400, 84), nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class Block(nn.Module):
    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.stride = n_out // n_in
        self.conv1 = nn.Conv2d(n_in, n_out, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1:
            pad = (y.shape[1] - x.shape[1]) // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad))
        return F.relu(x + y)


class ResNet20(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in pairwise(widths)))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.blocks(F.relu(self.bn(self.conv(x)))).mean((2, 3)))


class Inverted(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        hidden = 3 * n_in
        self.expand, self.bn1 = nn.Conv2d(n_in, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.project, self.bn3 = nn.Conv2d(hidden, n_out, 1, bias=False), nn.BatchNorm2d(n_out)
        self.residual = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.bn2(self.depthwise(F.relu6(self.bn1(self.expand(x))))))
        y = self.bn3(self.project(y))
        return x + y if self.residual else y


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.one, self.two, self.three = Inverted(8, 8, 1), Inverted(8, 12, 2), Inverted(12, 12, 1)
        self.linear = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.bn(self.stem(x)))
        return self.linear(self.three(self.two(self.one(x))).mean((2, 3)))


def seasoned(network: nn.Module) -> nn.Module:
    """The network as if trained: batch normalisation with statistics of its own, outputs of a tame scale."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            size = module.num_features
            module.running_mean = 0.3 * torch.randn(size, generator=generator)
            module.running_var = 0.5 + torch.rand(size, generator=generator)
            module.weight.data = 0.5 + 0.5 * torch.rand(size, generator=generator)
            module.bias.data = 0.1 * torch.randn(size, generator=generator)
    return network.eval()


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(2))


def operate(network: nn.Module, example: Tensor, kept: Kept, inputs: list[int] | None = None) -> nn.Module:
    """A copy that lost the channels not in `kept`, and of whose first linear layer `inputs` are read."""
    network = deepcopy(network).requires_grad_(True)
    graph = tp.DependencyGraph().build_dependency(network, example_inputs=example)
    for name, stay in kept.items():
        module = network.get_submodule(name)
        gone = sorted(set(range(module.weight.shape[0])) - set(stay))
        prune = tp.prune_linear_out_channels if isinstance(module, nn.Linear) else tp.prune_conv_out_channels
        if gone:
            graph.get_pruning_group(module, prune, idxs=gone).prune()
    if inputs is not None:
        layer = network.fc1
        linear = layer.linear if isinstance(layer, SelectedInputs) else layer
        before = layer.kept.tolist() if isinstance(layer, SelectedInputs) else list(range(linear.in_features))
        tp.prune_linear_in_channels(linear, idxs=[c for c, feature in enumerate(before) if feature not in inputs])
        network.fc1 = SelectedInputs(linear, torch.tensor(inputs))
    return network.eval()


def some(channels: int, width: int) -> list[int]:
    """`width` channels, spread unevenly, ascending."""
    return sorted(torch.randperm(channels, generator=torch.Generator().manual_seed(width))[:width].tolist())
