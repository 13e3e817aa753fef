from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

from edgeprune.core.design import INPUTS, PruningPlan
from edgeprune.models.zoo import build
from edgeprune.pruning.groups import discover
from edgeprune.pruning.shapley import FunctionGame, NetworkGame, evaluations, exact, sample, shapley_values
from edgeprune.pruning.structure import Coupling
from edgeprune.pruning.surgery import cut, mask


def glove(coalitions: Tensor) -> Tensor:
    """Players 0 and 1 have a left glove, player 2 the right one; a pair is worth 1."""
    return (coalitions[:, 2] & coalitions[:, :2].any(1)).double()


def test_glove_game_by_hand() -> None:
    found = exact(FunctionGame(3, glove))
    assert found.values.tolist() == pytest.approx([1 / 6, 1 / 6, 4 / 6])
    assert (found.everybody, found.nobody, found.evaluations) == (1.0, 0.0, 8)


def test_exact_values_are_the_mean_over_all_orders() -> None:
    worth = torch.rand(2**5, generator=torch.Generator().manual_seed(3)).double()
    game = FunctionGame(5, lambda c: worth[(c.long() << torch.arange(5)).sum(1)], together=7)
    added = torch.zeros(5).double()
    orders = list(permutations(range(5)))
    for order in orders:
        before = worth[0]
        for place in range(5):
            after = worth[sum(1 << player for player in order[: place + 1])]
            added[order[place]] += after - before
            before = after
    torch.testing.assert_close(exact(game).values, added / len(orders))


class TenNeurons(nn.Module):
    """Neurons 3 and 7 are alike, neuron 5 is dead."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 10), nn.Linear(10, 8), nn.Linear(8, 4)
        with torch.no_grad():
            self.fc1.weight[7], self.fc1.bias[7] = self.fc1.weight[3], self.fc1.bias[3]
            self.fc2.weight[:, 7] = self.fc2.weight[:, 3]
            self.fc1.weight[5], self.fc1.bias[5] = 0.0, -1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(x)))))


def ten_neurons() -> tuple[NetworkGame, nn.Module, Coupling, Tensor, Tensor]:
    torch.manual_seed(0)
    # In double precision, or rounding breaks ties between classes.
    network = TenNeurons()
    structure = discover(network, (6,), runtime="onnxruntime", prune_inputs=False)
    network = network.double()
    x = torch.randn(300, 6).double()
    with torch.no_grad():
        network.fc3.bias.sub_(network(x).mean(0))
    y = network(x).argmax(1)
    coupling = next(c for c in structure.couplings if c.group.name == "fc1")
    return NetworkGame(network, coupling, x, y), network, coupling, x, y


def test_axioms_on_a_layer_of_ten() -> None:
    game, *_ = ten_neurons()
    found = exact(game)
    assert found.evaluations == evaluations(10, 99) == 1024
    assert float(found.values.sum()) == pytest.approx(found.everybody - found.nobody)
    assert found.everybody == 1.0
    assert float(found.values[3]) == pytest.approx(float(found.values[7]), abs=1e-12)
    assert float(found.values[5]) == pytest.approx(0, abs=1e-12)
    assert float(found.values.abs().max()) > 0.05


def test_sampled_values_are_near_the_exact_ones() -> None:
    game, *_ = ten_neurons()
    truth, found = exact(game), sample(game, 200, 0, tolerance=0)
    assert float(found.values.sum()) == pytest.approx(found.everybody - found.nobody)
    assert ((found.values - truth.values).abs() <= 3 * found.errors + 1e-12).all()
    # The dead one never adds anything, so nothing about it is uncertain.
    assert found.errors[5] == 0
    assert 0.001 < float(found.errors.max()) < 0.05
    # Four times the permutations, half the error.
    fewer = sample(game, 50, 1, tolerance=0)
    assert float(found.errors.mean() / fewer.errors.mean()) == pytest.approx(0.5, abs=0.15)


def test_truncation_saves_evaluations_and_stays_near() -> None:
    def worth(coalitions: Tensor) -> Tensor:
        return (coalitions[:, :40].double().sum(1) / 10).clamp(max=1.0)

    game = FunctionGame(60, worth, together=5)
    full, cut = sample(game, 40, 0, tolerance=0), sample(game, 40, 0, tolerance=0.01)
    assert cut.evaluations < 0.5 * full.evaluations == 0.5 * (2 + 40 * 60)
    torch.testing.assert_close(cut.values, full.values, atol=0.01, rtol=0)


def test_same_seed_same_values() -> None:
    game = FunctionGame(12, lambda c: c.double().sum(1).sqrt())
    one, two, other = (shapley_values(game, 5, seed) for seed in (1, 1, 2))
    assert torch.equal(one.values, two.values)
    assert not torch.equal(one.values, other.values)


def masked_accuracy(network: nn.Module, coupling: Coupling, kept: list[int], x: Tensor, y: Tensor) -> float:
    plan = PruningPlan({coupling.group.name: tuple(kept)})
    with torch.no_grad():
        return float((mask(network, (coupling,), plan)(x).argmax(1) == y).double().mean())


@pytest.mark.parametrize(
    ("model", "shape"),
    [("lenet-300-100", (1, 8, 8)), ("lenet5", (1, 12, 12)), ("resnet20", (3, 8, 8))],
)
def test_the_game_is_played_by_masked_networks(model: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = build(model, shape, 5).eval()
    x = torch.randn(40, *shape)
    with torch.no_grad():
        # An untrained network answers the same whatever it sees, and masking would not show.
        list(network.modules())[-1].bias.sub_(network(x).mean(0))
    y = network(x).argmax(1)
    y[::3] = torch.randint(0, 5, (14,))
    structure = discover(network, shape, runtime="litert", multiple_of=1)
    names = [c.group.name for c in structure.couplings]
    before = {name: each.clone() for name, each in network.state_dict().items()}
    for coupling in (structure.couplings[0], structure.couplings[len(names) // 2], structure.couplings[-1]):
        game = NetworkGame(network, coupling, x, y)
        order = torch.randperm(game.players, generator=torch.Generator().manual_seed(1))
        sizes = sorted({1, game.players // 2, game.players})
        truth = [masked_accuracy(network, coupling, order[:size].tolist(), x, y) for size in sizes]
        coalitions = torch.zeros(len(sizes), game.players, dtype=torch.bool)
        for row, size in enumerate(sizes):
            coalitions[row, order[:size]] = True
        assert game.values(coalitions).tolist() == pytest.approx(truth, abs=0.026)
        stepwise = torch.cat([game.prefixes(order, 0, 1), game.prefixes(order, 1, game.players)])
        assert [float(stepwise[size - 1]) for size in sizes] == pytest.approx(truth, abs=0.026)
        assert len(set(truth)) > 1
    assert (INPUTS in names) == (model == "lenet-300-100")
    # Nothing of the game is left behind in the network.
    assert all(torch.equal(before[name], each) for name, each in network.state_dict().items())
    assert not any("forward" in module.__dict__ or module._forward_pre_hooks for module in network.modules())


class InPlace(nn.Module):
    """A residual block that adds and rectifies in place, as torchvision's do."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        out = self.b(x)
        out += x
        out = self.relu(out)
        out = self.relu(self.c(out))
        out += 1.0
        return self.head(out.mean((2, 3)))


def test_networks_that_work_in_place_are_played_alike() -> None:
    torch.manual_seed(0)
    network, x = InPlace().eval(), torch.randn(200, 3, 4, 4)
    with torch.no_grad():
        network.head.bias.sub_(network(x).mean(0))
    y = network(x).argmax(1)
    structure = discover(network, (3, 4, 4), runtime="litert", multiple_of=1)
    assert len(structure.couplings) >= 2
    for coupling in structure.couplings:
        game = NetworkGame(network, coupling, x, y)
        halves = torch.arange(game.players)[None] < torch.tensor([[game.players // 2], [game.players]])
        truth = [masked_accuracy(network, coupling, torch.nonzero(row)[:, 0].tolist(), x, y) for row in halves]
        for each in (halves, halves, halves[1:]):
            assert game.values(each).tolist() == pytest.approx(truth[-len(each) :], abs=1e-9)
        assert truth[1] == 1.0 > truth[0]


def test_an_interrupted_game_leaves_the_network_as_it_was() -> None:
    game, network, _, x, y = ten_neurons()

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exact(game, stop)
    with torch.no_grad():
        assert torch.equal(network(x).argmax(1), y)


def test_units_of_a_recurrent_layer_play_as_the_network_without_the_others() -> None:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(3, 6, batch_first=True), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    torch.manual_seed(0)
    network, shape = Sequence().eval(), (5, 3)
    with torch.no_grad():
        # Units must sway each other, or it does not show whether the others are left out.
        for parameter in network.rnn.parameters():
            parameter.mul_(4)
    structure = discover(network, shape, runtime="onnxruntime")
    x = torch.randn(300, *shape)
    labels = network(x).argmax(1)
    game = NetworkGame(network, structure.couplings[0], x, labels)
    members = torch.tensor([[True] * 6, [True, False, True, True, False, False]])
    plan = PruningPlan({"rnn": (0, 2, 3)})
    expected = [float((each(x).argmax(1) == labels).double().mean()) for each in (network, cut(network, shape, plan))]
    assert game.values(members).tolist() == expected
    assert float(game.prefixes(torch.tensor([2, 0, 3, 1, 4, 5]), 2, 3)) == expected[1]
