"""Networks with something unusual between their layers: filters in buffers, tables, reductions, neighbourhoods."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.families.parts import IMAGE, conv, family, head, tokens


@family(IMAGE, "BlurPool: a filter in a buffer, padding by reflection")
class AntiAliased(nn.Module):
    blur: Tensor

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        table = row[:, None] * row
        self.register_buffer("blur", (table / table.sum()).expand(24, 1, 3, 3).clone())
        self.first, self.second, self.head = conv(3, 24), conv(24, 32), head(32)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.first(x), (1, 1, 1, 1), "reflect")
        return self.head(self.second(F.conv2d(x, self.blur, stride=2, groups=x.shape[1])))


@family((1, 4000), "spectrogram by convolution with buffers")
class Mel(nn.Module):
    waves: Tensor
    mel: Tensor

    def __init__(self) -> None:
        super().__init__()
        angles = torch.arange(65)[:, None] * torch.arange(128) * 2 * math.pi / 128
        self.register_buffer("waves", (torch.cos(angles) * torch.hann_window(128))[:, None])
        self.register_buffer("mel", torch.rand(24, 65))
        self.net = nn.Sequential(conv(1, 16, s=2), conv(16, 32, s=2), head(32, 6))

    def forward(self, x: Tensor) -> Tensor:
        power = F.conv1d(x, self.waves, stride=64).square()
        return self.net(torch.log(self.mel @ power + 1e-5).unsqueeze(1))


@family(IMAGE, "CoordConv: places as channels")
class Coordinates(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = conv(5, 24), conv(26, 32, s=2), head(32)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.placed(self.first(self.placed(x)))))

    @staticmethod
    def placed(x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        rows = torch.linspace(-1, 1, h).view(1, 1, h, 1).expand(n, 1, h, w)
        columns = torch.linspace(-1, 1, w).view(1, 1, 1, w).expand(n, 1, h, w)
        return torch.cat([x, rows, columns], 1)


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


@family(IMAGE, "weights of mean 0 and spread 1, group norm")
def weight_standardised() -> nn.Module:
    first, second = Standardised(3, 32, 3, 2, 1), Standardised(32, 48, 3, 2, 1)
    return nn.Sequential(first, nn.GroupNorm(8, 32), nn.ReLU(), second, nn.GroupNorm(8, 48), nn.ReLU(), head(48))


@family((3, 64), "points: a learnt rotation, a maximum over all of them")
class PointNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Sequential(nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 64, 1))
        self.angles = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 9))
        self.points = nn.Sequential(nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 96, 1))
        self.out = nn.Sequential(nn.Linear(96, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 10))

    def forward(self, x: Tensor) -> Tensor:
        turn = self.angles(self.turn(x).max(2)[0]).view(-1, 3, 3) + torch.eye(3)
        x = torch.bmm(x.transpose(1, 2), turn).transpose(1, 2)
        return self.out(self.points(x).max(2, keepdim=True)[0].view(-1, 96))


@family((20, 6), "GRU, and attention by a sum of products while it decodes")
class Seq2Seq(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.cell = nn.GRU(6, 32, batch_first=True), nn.GRUCell(32, 32)
        self.query, self.out = nn.Linear(32, 32), nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        states, last = self.encoder(x)
        state = context = last[-1]
        steps = []
        for _ in range(4):
            state = self.cell(context, state)
            share = torch.softmax((states * self.query(state).unsqueeze(1)).sum(-1), 1)
            context = (share.unsqueeze(-1) * states).sum(1)
            steps.append(self.out(torch.cat([state, context], 1)))
        return torch.cat(steps, 1)


@family((16, 100), "x-vectors: mean and spread over time")
class XVector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = (nn.Conv1d(16, 32, 5), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 64, 3, dilation=2), nn.ReLU())
        self.frames, self.out = nn.Sequential(*layers), nn.Sequential(nn.Linear(128, 48), nn.ReLU(), nn.Linear(48, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.frames(x)
        return self.out(torch.cat([x.mean(-1), x.std(-1)], 1))


@family(IMAGE, "kernels made for each place, over unfolded neighbourhoods")
class Involution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.squeeze, self.kernels = conv(3, 32, s=2), conv(32, 8, 1), nn.Conv2d(8, 36, 1)
        self.head = head(32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        n, c, h, w = x.shape
        kernels = self.kernels(self.squeeze(x)).view(n, 4, 1, 9, h, w)
        around = F.unfold(x, 3, padding=1).view(n, 4, c // 4, 9, h, w)
        return self.head((kernels * around).sum(3).view(n, c, h, w))


@family(tokens(6, 50), "factorisation machine: squares of sums")
class DeepFM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.values, self.first = nn.Embedding(50, 16), nn.Embedding(50, 1)
        self.deep = nn.Sequential(nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> Tensor:
        values = self.values(x)
        pairs = 0.5 * (values.sum(1).square() - values.square().sum(1)).sum(1, keepdim=True)
        return self.first(x).sum(1) + pairs + self.deep(values.flatten(1))


@family((64, 3), "LSTM beside convolutions with kernels of even width")
class LstmFcn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(3, 24, batch_first=True), nn.Linear(72, 6)
        layers = (nn.Conv1d(3, 32, 8, padding="same"), nn.BatchNorm1d(32), nn.ReLU(), nn.Conv1d(32, 48, 5, padding=2))
        self.layers = nn.Sequential(*layers, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat([self.lstm(x)[0][:, -1], self.layers(x.transpose(1, 2)).mean(2)], 1))


@family((20, 16), "attention without softmax, a product of three factors")
class LinearAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.out = nn.Linear(16, 32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 4, c // 4).permute(2, 0, 3, 1, 4)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        whole = 1 / (torch.einsum("nhtd,nhd->nht", q, k.sum(2)) + 1e-6)
        read = torch.einsum("nhtd,nhde,nht->nhte", q, torch.einsum("nhtd,nhte->nhde", k, v), whole)
        return self.head((x + self.out(read.transpose(1, 2).reshape(n, t, c))).mean(1))


@family((10, 8), "graph attention: scores of pairs by a sum over channels")
class GraphAttention(nn.Module):
    near: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.nodes, self.out = nn.Linear(8, 32, bias=False), nn.Linear(32, 4)
        self.source, self.target = nn.Parameter(torch.randn(4, 8)), nn.Parameter(torch.randn(4, 8))
        self.register_buffer("near", (torch.rand(10, 10) > 0.5) | torch.eye(10, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        nodes = self.nodes(x).view(x.shape[0], 10, 4, 8)
        scores = (nodes * self.source).sum(-1).unsqueeze(2) + (nodes * self.target).sum(-1).unsqueeze(1)
        scores = F.leaky_relu(scores, 0.2).masked_fill(~self.near[None, :, :, None], -1e9).softmax(2)
        return self.out(F.elu(torch.einsum("nijh,njhd->nihd", scores, nodes).reshape(x.shape[0], 10, 32)).mean(1))
