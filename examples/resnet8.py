"""MLPerf Tiny's ResNet-8 for pictures (Banbury et al. 2021): three blocks, 1x1 convolutions beside the last two.

edgeprune run --data cifar10 --model examples/resnet8.py:ResNet8 --max-latency 0.7x --precision fp32,int8
"""

from torch import Tensor, nn
from torch.nn import functional as F


def conv(n_in: int, n_out: int, side: int, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the size, and its normalisation."""
    return nn.Sequential(nn.Conv2d(n_in, n_out, side, stride, side // 2, bias=False), nn.BatchNorm2d(n_out))


class Block(nn.Module):
    """Two 3x3 convolutions and what they are added to."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.one, self.two = conv(n_in, n_out, 3, stride), conv(n_out, n_out, 3)
        self.beside = nn.Identity() if stride == 1 else conv(n_in, n_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, n_out, H / stride, W / stride) of x (N, n_in, H, W)."""
        return F.relu(self.two(F.relu(self.one(x))) + self.beside(x))


class ResNet8(nn.Sequential):
    """For pictures (N, 3, 32, 32); 16, 32 and 64 channels."""

    def __init__(self) -> None:
        blocks = Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)
        super().__init__(conv(3, 16, 3), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
