"""Multiply-accumulates and neurons against counts by hand, exact."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.pruning.cost import count_macs, count_parameters, neurons_of, work


class Own(nn.Module):
    """A network from a function of itself and its input; its parts are attributes."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def bare(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


def last(layer: nn.Module) -> nn.Module:
    return Own(lambda net, x: net.fc(net.rnn(x)[0][:, -1]), rnn=layer, fc=nn.LazyLinear(5))


def attention(**options: int) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(12, 3, batch_first=True, **options)


# Sequences (T=20, F=12) unless the shape says something else.
NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...], int]] = {
    "lstm": (last(nn.LSTM(12, 16, batch_first=True)), (20, 12), 20 * 4 * 16 * (12 + 16) + 16 * 5),
    "lstm of two layers, both ways": (
        last(nn.LSTM(12, 16, 2, batch_first=True, bidirectional=True)),
        (20, 12),
        20 * 2 * 4 * 16 * ((12 + 16) + (32 + 16)) + 32 * 5,
    ),
    "lstm with projections": (
        last(nn.LSTM(12, 16, proj_size=6, batch_first=True)),
        (20, 12),
        20 * (4 * 16 * (12 + 6) + 16 * 6) + 6 * 5,
    ),
    "gru": (last(nn.GRU(12, 16, batch_first=True)), (20, 12), 20 * 3 * 16 * (12 + 16) + 16 * 5),
    "rnn of two layers": (
        last(nn.RNN(12, 16, 2, batch_first=True)), (20, 12), 20 * 16 * ((12 + 16) + (16 + 16)) + 16 * 5,
    ),
    "recurrent layer of ReLUs without biases": (
        last(nn.RNN(12, 16, nonlinearity="relu", bias=False, batch_first=True)), (20, 12), 20 * 16 * 28 + 16 * 5,
    ),
    "cells": (
        Own(lambda net, x: net.gru(net.lstm(x[:, 0])[0], net.rnn(x[:, 1])),
            lstm=nn.LSTMCell(12, 16), rnn=nn.RNNCell(12, 5), gru=nn.GRUCell(16, 5)),
        (20, 12),
        4 * 16 * (12 + 16) + 5 * (12 + 5) + 3 * 5 * (16 + 5),
    ),
    "attention without its weights": (
        Own(lambda net, x: net.fc(net.a(x, x, x, need_weights=False)[0].mean(1)), a=attention(), fc=nn.Linear(12, 5)),
        (20, 12),
        20 * 12 * 36 + 2 * 20 * 20 * 12 + 20 * 12 * 12 + 12 * 5,
    ),
    "attention with its weights": (
        Own(lambda net, x: net.fc(net.att(x, x, x)[0].mean(1)), att=attention(), fc=nn.Linear(12, 5)),
        (20, 12),
        20 * 12 * 36 + 2 * 20 * 20 * 12 + 20 * 12 * 12 + 12 * 5,
    ),
    "cross attention of other sizes": (
        Own(lambda net, x: net.att(x, x[:, :7, :6], x[:, :7, :4])[0].mean(1), att=attention(kdim=6, vdim=4)),
        (20, 12),
        20 * 12 * 12 + 7 * 12 * (6 + 4) + 2 * 20 * 7 * 12 + 20 * 12 * 12,
    ),
    "encoder layers": (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 2, 24, batch_first=True), 2),
        (20, 12),
        2 * (20 * 12 * 36 + 2 * 20 * 20 * 12 + 20 * 12 * 12 + 2 * 20 * 12 * 24),
    ),
    "scaled dot products": (
        Own(lambda _, x: F.scaled_dot_product_attention(x[:, None], x[:, None, :8], x[:, None, :8, :4])),
        (20, 12),
        20 * 8 * (12 + 4),
    ),
    "transposed convolutions": (
        nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2, 1, groups=2), nn.ConvTranspose2d(6, 2, 2, 2)),
        (4, 5, 5),
        4 * 25 * (6 // 2) * 9 + 6 * 81 * 2 * 4,
    ),
    "transposed convolution of a sequence": (nn.ConvTranspose1d(20, 3, 4, 2), (20, 12), 20 * 12 * 3 * 4),
    "grouped, dilated, strided convolutions": (
        nn.Sequential(nn.Conv1d(20, 20, 3, groups=20), nn.Conv1d(20, 8, 3, 2, dilation=2, groups=4)),
        (20, 12),
        20 * 10 * 3 + 8 * 3 * 5 * 3,
    ),
    "embedding": (
        Own(lambda net, x: net.fc(net.e(x[..., 0].long()).mean(1)), e=nn.Embedding(50, 8), fc=nn.Linear(8, 5)),
        (20, 12),
        8 * 5,
    ),
    "bare weights": (
        Own(lambda net, x: F.linear(F.conv1d(x, net.c, padding=1).mean(2), net.w, net.b),
            c=bare(7, 20, 3), w=bare(5, 7), b=bare(5)),
        (20, 12),
        7 * 12 * 20 * 3 + 7 * 5,
    ),
    "a bare transposed convolution": (
        Own(lambda net, x: F.conv_transpose1d(x, net.w), w=bare(20, 3, 2)), (20, 12), 20 * 12 * 3 * 2,
    ),
    "bilinear forms": (
        Own(lambda net, x: net.m(x[:, 0], x[:, 1]) + F.bilinear(x[:, 0], x[:, 1], net.w),
            m=nn.Bilinear(12, 12, 5), w=bare(5, 12, 12)),
        (20, 12),
        2 * 5 * 12 * 12,
    ),
    "products of activations": (
        Own(lambda _, x: (x @ x.mT).sum() + torch.einsum("bti,bsi->bts", x, x[:, :3]).sum() + torch.bmm(x, x.mT).sum()),
        (20, 12),
        20 * 20 * 12 + 20 * 3 * 12 + 20 * 20 * 12,
    ),
    "matrices and vectors": (
        Own(lambda net, x: torch.addmm(net.b, x[:, 0], net.w) + torch.matmul(x[:, 1], net.w) + (x[:, 2:3] @ net.w)[:, 0]
            + torch.einsum("bi,ij->bj", x[:, 3], net.w), w=bare(12, 5), b=bare(5)),
        (20, 12),
        4 * 12 * 5,
    ),
    "a layer that runs three times": (
        Own(lambda net, x: net.a(net.a(net.a(x))), a=nn.Linear(12, 12)), (12,), 3 * 144,
    ),
    "a tied decoder": (
        Own(lambda net, x: F.linear(torch.relu(net.enc(x)), net.enc.weight.t()), enc=nn.Linear(12, 4)), (12,), 2 * 48,
    ),
    "a normalised weight": (
        nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(12, 7)), nn.Linear(7, 5)), (12,), 84 + 35,
    ),
    "no multiplications": (
        nn.Sequential(nn.BatchNorm1d(20), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Softmax(1)), (20, 12), 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_multiply_accumulates_are_those_counted_by_hand(name: str) -> None:
    network, shape, expected = NETWORKS[name]
    network = network.eval()
    network(torch.zeros(2, *shape))
    done = work(network, shape)
    assert done.total == expected == count_macs(network, shape)
    assert not done.uncounted
    # Whoever runs it under inference mode sees the same.
    wrapped = Own(torch.inference_mode()(lambda net, x: net.inner(x)), inner=network).eval()
    assert count_macs(wrapped, shape) == expected


def test_a_network_that_takes_no_batch_of_one_is_counted_too() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        if len(x) < 2:
            raise ValueError("batches only")
        return net.fc(x)

    assert count_macs(Own(forward, fc=nn.Linear(12, 5)), (12,)) == 60


def test_work_is_put_down_to_the_module_that_runs_it() -> None:
    network = nn.Sequential(last(nn.GRU(12, 16, batch_first=True)).eval())
    network(torch.zeros(2, 20, 12))
    done = work(network, (20, 12))
    assert done.macs["0.rnn"] == 20 * 3 * 16 * 28
    assert done.macs["0.fc"] == 80
    assert done.output == "0.fc"


@pytest.mark.parametrize(
    ("forward", "operation"),
    [
        (lambda _, x: torch.fft.rfft(x).abs(), "_fft_r2c"),
        (lambda _, x: torch.linalg.inv(x @ x.mT + torch.eye(20)), "linalg_inv_ex"),
        (lambda _, x: torch.sparse.mm(torch.eye(20).to_sparse(), x[0])[None], "_sparse_addmm"),
    ],
)
def test_heavy_work_without_a_count_is_named(forward: Callable[[nn.Module, Tensor], Tensor], operation: str) -> None:
    assert work(Own(forward), (20, 12)).uncounted == {"": (operation,)}


def test_a_kernel_of_another_library_is_named() -> None:
    with torch.library._scoped_library("edgeprune_test", "FRAGMENT") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: 2 * x, "CPU")
        assert work(Own(lambda _, x: torch.ops.edgeprune_test.twice(x)), (12,)).uncounted == {"": ("twice",)}


@pytest.mark.parametrize(
    ("layer", "neurons"),
    [
        (nn.Linear(3, 7), 7),
        (nn.Conv2d(4, 6, 3, groups=2), 6),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), 6),
        (nn.LSTM(3, 8, 2, bidirectional=True), 8 * 2 * 2),
        (nn.LSTM(3, 8, proj_size=5), 8 + 5),
        (nn.GRU(3, 8), 8),
        (nn.GRUCell(3, 8), 8),
        (nn.MultiheadAttention(12, 3), 48),
        (nn.Embedding(50, 8), 8),
        (nn.Bilinear(3, 4, 5), 5),
        (nn.LayerNorm(8), None),
    ],
)
def test_neurons_of_layers(layer: nn.Module, neurons: int | None) -> None:
    assert neurons_of(layer) == neurons


def test_bare_weights_have_neurons_but_for_the_answers_own() -> None:
    network = Own(
        lambda net, x: torch.log_softmax(torch.relu(F.conv1d(x, net.c)).mean(2) @ net.hidden @ net.out, 1),
        c=bare(7, 20, 3), hidden=bare(7, 9), out=bare(9, 5),
    )  # fmt: skip
    assert work(network, (20, 12)).bare_neurons == {"": 7 + 9}


def test_shared_parameters_count_once() -> None:
    layer = nn.Linear(8, 8)
    other = nn.Linear(8, 8)
    other.weight = layer.weight
    assert count_parameters(nn.Sequential(layer, layer, other)) == 64 + 8 + 8
