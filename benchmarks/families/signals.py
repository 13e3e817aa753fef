"""Networks of signals in time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from benchmarks.families.parts import SIGNAL, Call, family


class Temporal(nn.Module):
    def __init__(self, i: int, o: int, d: int, norm: Callable[[nn.Module], nn.Module] = lambda m: m) -> None:
        super().__init__()
        self.pad = 2 * d
        self.conv1, self.conv2 = norm(nn.Conv1d(i, o, 3, dilation=d)), norm(nn.Conv1d(o, o, 3, dilation=d))
        self.short = nn.Conv1d(i, o, 1) if i != o else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(F.pad(x, (self.pad, 0))))
        return F.relu(F.relu(self.conv2(F.pad(y, (self.pad, 0)))) + self.short(x))


def last(x: Tensor) -> Tensor:
    return x[:, :, -1]


@family(SIGNAL, "causal padding on the left")
def tcn() -> nn.Module:
    blocks = (Temporal(12, 28, 1), Temporal(28, 28, 2), Temporal(28, 40, 4))
    return nn.Sequential(*blocks, Call(last), nn.Linear(40, 5))


@family(SIGNAL, "weight norm")
def tcn_weight_norm() -> nn.Module:
    norm = parametrizations.weight_norm
    return nn.Sequential(Temporal(12, 28, 1, norm), Temporal(28, 28, 2, norm), Call(last), nn.Linear(28, 5))


@family((1, 4000), "raw audio, wide first kernel")
def m5_audio() -> nn.Module:
    def block(i: int, o: int, k: int, s: int = 1) -> nn.Module:
        return nn.Sequential(nn.Conv1d(i, o, k, s), nn.BatchNorm1d(o), nn.ReLU(), nn.MaxPool1d(4))

    pool = Call(lambda x: F.avg_pool1d(x, x.shape[-1]).permute(0, 2, 1))
    body = (block(1, 24, 80, 8), block(24, 24, 3), block(24, 48, 3))
    return nn.Sequential(*body, pool, nn.Linear(48, 12), Call(lambda x: F.log_softmax(x, dim=2).squeeze(1)))


@family((14, 30), "remaining useful life, one value")
def cmapss_cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(14, 24, 5, padding=2), nn.Tanh(), nn.Conv1d(24, 24, 5, padding=2), nn.Tanh()),
        *(nn.AvgPool1d(2), nn.Conv1d(24, 12, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Dropout(0.5)),
        *(nn.Linear(180, 64), nn.Tanh(), nn.Linear(64, 1), Call(lambda x: x.squeeze(-1))),
    )


@family((9, 128), "human activity: convolutions, then attention over time")
class AttentionPooling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(9, 32, 5, 2), nn.ReLU(), nn.Conv1d(32, 48, 5, 2), nn.ReLU())
        self.key, self.score, self.out = nn.Linear(48, 24), nn.Linear(24, 1), nn.Linear(48, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x).transpose(1, 2)
        weight = torch.softmax(self.score(torch.tanh(self.key(x))), dim=1)
        return self.out((weight * x).sum(1))
