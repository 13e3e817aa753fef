"""Recurrent networks, and networks of words."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.families.parts import STEPS, Call, conv, family, tokens


class Recurrent(nn.Module):
    def __init__(self, body: nn.RNNBase, width: int, middle: int = 0) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, 5)
        if middle:
            self.head = nn.Sequential(nn.Linear(width, middle), nn.ReLU(), nn.Linear(middle, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1, :])


@family(STEPS, "one layer, last step")
def lstm() -> nn.Module:
    return Recurrent(nn.LSTM(10, 40, batch_first=True), 40)


@family(STEPS, "two layers, a hidden layer behind")
def lstm_two_layers() -> nn.Module:
    return Recurrent(nn.LSTM(10, 32, 2, batch_first=True, dropout=0.2), 32, 24)


@family(STEPS, "one layer, hidden layer behind")
def gru() -> nn.Module:
    return Recurrent(nn.GRU(10, 40, batch_first=True), 40, 24)


@family(STEPS, "both directions, last states concatenated")
class BiLstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = nn.LSTM(10, 28, batch_first=True, bidirectional=True), nn.Linear(56, 5)

    def forward(self, x: Tensor) -> Tensor:
        _, (h, _) = self.body(x)
        return self.out(torch.cat((h[-2], h[-1]), dim=1))


@family(STEPS, "nn.LSTMCell in a loop, states from new_zeros")
class LstmCellLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(10, 36), nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], 36)
        for step in range(8):
            h, c = self.cell(x[:, step], (h, c))
        return self.out(h)


@family(STEPS, "nn.GRUCell in a loop, state is None at first")
class GruCellLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRUCell(10, 36), nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = None
        for part in x[:, :8].unbind(1):
            h = self.cell(part, h)
        return self.out(h)


@family((1, 16, 64), "convolutions, columns as steps, BiLSTM, scores for each")
class Crnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(conv(1, 20), nn.MaxPool2d(2), conv(20, 32), nn.MaxPool2d((2, 4)))
        self.rnn, self.out = nn.LSTM(32 * 4, 32, bidirectional=True, batch_first=True), nn.Linear(64, 12)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cnn(x)
        b, c, h, w = y.shape
        return self.out(self.rnn(y.permute(0, 3, 1, 2).reshape(b, w, c * h))[0])


# ---- text


@family(tokens(24, 80), "kernels of three widths, maximum over time")
class TextCnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(80, 28)
        self.convs = nn.ModuleList(nn.Conv1d(28, 20, k) for k in (3, 4, 5))
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(60, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).transpose(1, 2)
        return self.fc(self.drop(torch.cat([F.relu(c(x)).max(dim=2).values for c in self.convs], 1)))


@family(tokens(20, 200), "nn.EmbeddingBag, one layer")
def fasttext_bag() -> nn.Module:
    return nn.Sequential(nn.EmbeddingBag(200, 32, mode="mean"), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 4))


@family(tokens(20, 200), "mean of embeddings, one layer")
def fasttext_mean() -> nn.Module:
    return nn.Sequential(nn.Embedding(200, 48), Call(lambda x: x.mean(dim=1)), nn.Linear(48, 4))
