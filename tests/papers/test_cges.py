from __future__ import annotations

import numpy as np
import pytest
import torch
from handmade import NO_GRAPH
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import nn

from edgeprune.core.design import Group
from edgeprune.papers.methods.cges import _CGES, exclusive_prox, exclusive_share, group_prox
from edgeprune.papers.methods.columns import Columns
from edgeprune.pruning.groups import discover
from edgeprune.pruning.structure import Consumer, Coupling, Structure

vectors = st.lists(st.floats(-3, 3), min_size=1, max_size=5)
thresholds = st.floats(0.01, 3)


def penalised(w, v, threshold, exclusive):  # type: ignore[no-untyped-def]
    penalty = threshold / 2 * np.abs(w).sum() ** 2 if exclusive else threshold * np.linalg.norm(w)
    return 0.5 * np.square(w - v).sum() + penalty


@pytest.mark.parametrize("exclusive", [False, True])
@given(v=vectors, threshold=thresholds)
@settings(max_examples=20, deadline=None)
def test_the_proximal_operators_minimise(exclusive: bool, v: list[float], threshold: float) -> None:
    prox = exclusive_prox if exclusive else group_prox
    v_ = np.array(v)
    ours = prox(torch.tensor([v], dtype=torch.float64), threshold)[0].numpy()
    least = penalised(ours, v_, threshold, exclusive)
    starts = [v_, np.zeros_like(v_)]
    found = [
        minimize(penalised, start, (v_, threshold, exclusive), "Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
        for start in starts
    ]
    assert least <= min(float(one.fun) for one in found) + 1e-9
    # Strictly convex: whatever is off the minimum by a little is above it.
    for step in 1e-3 * np.vstack([np.eye(len(v)), -np.eye(len(v))]):
        assert penalised(ours + step, v_, threshold, exclusive) > least


def test_the_group_term_zeroes_whole_rows_and_the_exclusive_term_parts_of_them() -> None:
    v = torch.tensor([[3.0, 4.0], [0.3, -0.4]])
    # ||v|| is 5 and 0.5.
    assert torch.allclose(group_prox(v, 0.5), torch.tensor([[2.7, 3.6], [0.0, 0.0]]))
    # S = 4 / (1 + 1) after the smaller one went: 4 - S = 2, 3 - S = 1 stay at threshold 0.5 with S = 7 / 2.
    torch.testing.assert_close(exclusive_prox(v[:1], 0.5), torch.tensor([[3 - 7 / 4, 4 - 7 / 4]]))
    torch.testing.assert_close(exclusive_prox(torch.tensor([[-1.0, 4.0]]), 1.0), torch.tensor([[0.0, 2.0]]))


@pytest.mark.parametrize(
    ("small", "threshold"), [(0.16666666666666669, 0.2), (0.4736842105263159, 0.9), (0.7500000000000002, 3.0)]
)
def test_an_entry_that_rounding_lets_come_and_go_is_no_endless_loop(small: float, threshold: float) -> None:
    # It lies at the threshold that the other one alone makes, but for the last bit.
    found = exclusive_prox(torch.tensor([[1.0, small]], dtype=torch.float64), threshold)[0]
    assert found.tolist() == pytest.approx([1 / (1 + threshold), 0.0], abs=1e-12)


@given(v=vectors, threshold=st.floats(0.01, 1e3))
@settings(max_examples=100, deadline=None)
def test_the_exclusive_term_never_empties_a_row(v: list[float], threshold: float) -> None:
    row = torch.tensor([v], dtype=torch.float64)
    assert bool(exclusive_prox(row, threshold).any()) == bool(row.any())


def test_a_step_leaves_whole_neurons_at_exact_zero_and_the_floor_alone() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    structure = discover(network, (6,), runtime="onnxruntime", max_sparsity=0.7)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.0)
    sparsifier = _CGES(network, Columns(structure), optimizer)
    x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))
    gone: list[list[int]] = []
    for exponent in range(-6, 7):
        sparsifier.step(x, y, 10.0**exponent)
        gone.append([])
        for group, layer in zip(structure.groups, (network[0], network[2]), strict=True):
            columns, margins = layer.weight.detach().abs().sum(0), sparsifier.margins()[group.name]
            assert torch.equal(columns > 0, margins > 0)
            gone[-1].append(int((columns == 0).sum()))
    most = [group.channels - group.floor for group in structure.groups]
    assert gone[0] == [0, 0]
    assert any(0 < sum(each) < sum(most) for each in gone)
    assert gone[-1] == most


def test_the_balance_grows_with_depth() -> None:
    assert [exclusive_share(depth, 4) for depth in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert exclusive_share(0, 1) == pytest.approx(0.2)


def test_outgoing_weights_are_those_that_read_a_channel_and_come_back_in_place() -> None:
    """Two readers, one a convolution that sees every channel twice, behind a concatenation with something else."""
    network = nn.ModuleDict({"conv": nn.Conv2d(5, 2, 3), "fc": nn.Linear(2, 4)})
    group = Group("g", 2, 1, 1, 0.0, 0.0, 0, ())
    readers = (Consumer("conv", ((0, 3), (1, 4))), Consumer("fc", ((1,), (0,))))
    columns = Columns(Structure((1,), NO_GRAPH, (Coupling(group, ("m",), readers),), {}, (), (), 1, None))
    conv, fc = network["conv"].weight, network["fc"].weight
    weights = {"conv": conv.detach(), "fc": fc.detach()}
    outgoing = columns.outgoing("g", weights)
    assert outgoing.shape == (2, 2 * 2 * 9 + 4)
    for channel, (pair, single) in enumerate((((0, 3), 1), ((1, 4), 0))):
        expected = torch.cat([conv[:, list(pair)].flatten(), fc[:, single]])
        torch.testing.assert_close(outgoing[channel].sort().values, expected.sort().values)
    before = conv.detach().clone()
    columns.put_outgoing_("g", weights, outgoing * torch.tensor([[2.0], [3.0]]))
    factors = torch.tensor([2.0, 3.0, 1.0, 2.0, 3.0]).reshape(1, 5, 1, 1)
    torch.testing.assert_close(conv.detach(), before * factors)
    torch.testing.assert_close(columns.factors(network, "conv", {"g": torch.tensor([2.0, 3.0])}), factors.flatten())
    columns.scale_(network, {"g": torch.tensor([0.0, 1.0])})
    assert (fc[:, 1] == 0).all()
    assert (fc[:, 0] != 0).all()
