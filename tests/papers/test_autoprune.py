from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from edgeprune.papers.methods.autoprune import OPEN, Gated, Indicator, _AutoPrune
from edgeprune.papers.methods.columns import Columns
from edgeprune.pruning.groups import discover


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(32, 6, generator=generator), torch.randint(0, 3, (32,), generator=generator)


def held_out() -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield batch(1)


def sparsifier(ramp: int = 100) -> _AutoPrune:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    structure = discover(network, (6,), runtime="onnxruntime", max_sparsity=0.7)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    return _AutoPrune(network, Columns(structure), optimizer, ramp, held_out())


def state(one: _AutoPrune) -> list[Tensor]:
    return [tensor.clone() for tensor in one.network.state_dict().values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_indicator_is_exactly_zero_or_one_and_its_slope_is_softplus_s() -> None:
    m = torch.tensor([-3.0, -1e-9, 0.0, 1e-9, 2.0], dtype=torch.float64, requires_grad=True)
    h = Indicator.apply(m)
    assert h.tolist() == [0, 0, 0, 1, 1]
    above = torch.tensor([1.0, -2.0, 3.0, 0.5, -1.0], dtype=torch.float64)
    h.backward(above)
    plain = m.detach().clone().requires_grad_(True)
    nn.functional.softplus(plain).backward(above)
    torch.testing.assert_close(m.grad, plain.grad)


def test_the_straight_through_gradient_is_the_papers() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    m = torch.tensor([0.5, -0.5, 2.0], dtype=torch.float64, requires_grad=True)
    target = torch.randn_like(weight)
    t = Gated.apply(weight, Indicator.apply(m).reshape(1, 3, 1, 1))
    assert (t[:, 1] == 0).all()
    assert torch.equal(t[:, [0, 2]], weight[:, [0, 2]])
    (0.5 * (t - target).square().sum()).backward()
    by_t = (t - target).detach()
    h = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64).reshape(1, 3, 1, 1)
    torch.testing.assert_close(weight.grad, by_t * h)
    expected = torch.stack(
        [(by_t[:, c] * weight.detach()[:, c].sign()).sum() * torch.sigmoid(m.detach()[c]) for c in range(3)]
    )
    torch.testing.assert_close(m.grad, expected)


def test_the_two_levels_leave_each_other_alone() -> None:
    one = sparsifier()
    one.network.train()
    with torch.no_grad():
        one.auxiliary["0"][2] = -1.0
    weights, auxiliary = state(one), [m.clone() for m in one.auxiliary.values()]
    one.train_auxiliary(*batch(1), 0.1)
    assert same(weights, state(one))
    assert one.network.training
    changed = [m.clone() for m in one.auxiliary.values()]
    assert not any(torch.equal(a, b) for a, b in zip(auxiliary, changed, strict=True))
    silenced = one.network[3].weight[:, 2].clone()
    one.train_weights(*batch(0))
    assert same(changed, list(one.auxiliary.values()))
    assert not same(weights, state(one))
    # Of a channel that is out only weight decay (1e-2 times the rate of 1e-2) moves what reads it.
    torch.testing.assert_close(one.network[3].weight[:, 2], silenced * (1 - 1e-4))


def test_a_channel_that_went_comes_back_as_it_was() -> None:
    one = sparsifier(ramp=1000)
    with torch.no_grad():
        one.auxiliary["0"][:] = 1.0
        one.auxiliary["0"][4] = -0.02
    x, _ = batch(1)
    # Labels that only the full network gives: the loss asks for neuron 4.
    one.network.eval()
    with torch.no_grad():
        one.network[3].weight[:, 4] = torch.tensor([3.0, -3.0, 0.0])
        y = one.network(x).argmax(1)
    weights = state(one)
    for _ in range(50):
        one.train_auxiliary(x, y, 0.0)
    assert float(one.margins()["0"][4]) > 0
    assert same(weights, state(one))


def test_what_the_controller_brings_back_is_whole() -> None:
    one = sparsifier()
    with torch.no_grad():
        one.auxiliary["0"][4] = -0.02
    assert float(one.margins()["0"][4]) < 0
    assert bool((one.gates()["0"] == 1).all())


def test_the_strongest_are_held_open_against_any_penalty() -> None:
    one = sparsifier(ramp=10)
    for _ in range(10):
        one.train_auxiliary(*batch(1), 1e6)
    for group in one._columns.groups:
        assert int((one.margins()[group.name] > 0).sum()) == group.floor
        assert float(one.margins()[group.name].max()) >= OPEN * (1 - 1e-6)
