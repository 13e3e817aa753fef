from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from handmade import NO_GRAPH
from torch import Tensor, nn

from edgeprune.core.design import INPUTS, Group, PruningPlan
from edgeprune.core.errors import UsageError
from edgeprune.core.progress import Silent
from edgeprune.data.catalog import load_data
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.criterion import CRITERIA, make_criterion
from edgeprune.pruning import rankings
from edgeprune.pruning.calibration import fisher_matrices, gram_matrices
from edgeprune.pruning.criteria import Ranked, Ranking, augmented
from edgeprune.pruning.groups import discover
from edgeprune.pruning.structure import Consumer, Coupling, Structure
from edgeprune.pruning.surgery import mask, prune
from edgeprune.training.batches import Batches
from edgeprune.training.fit import score, train
from edgeprune.training.problem import Problem
from edgeprune.training.regime import Regime


def linear_reader(n: int, m: int, rows: int = 600) -> tuple[nn.Module, Structure, Tensor]:
    """One linear layer that reads a group of n correlated features, and what it reads."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(n, m))
    x = torch.randn(rows, n // 4) @ torch.randn(n // 4, n) + 0.3 * torch.randn(rows, n) + 1.0
    group = Group("g", n, 1, 1, 0, 0, 0, ("0",))
    coupling = Coupling(group, (), (Consumer("0", tuple((i,) for i in range(n))),))
    return network, Structure((n,), NO_GRAPH, (coupling,), {}, (), (), n, None), x


def left_error(network: nn.Module, structure: Structure, ranking: Ranking, x: Tensor, width: int) -> float:
    """Share of the output's variance that is lost at a width after the refit, measured on the data itself."""
    criterion = Ranked(network, structure, ranking, gram_matrices(network, ["0"], [x], len(x)))
    with torch.no_grad():
        y, z = network(x), criterion.weights(criterion.plan({"g": width}))(x)
    return float((y - z).square().sum() / (y - y.mean(0)).square().sum())


def test_forward_selection_is_the_exact_greedy_choice() -> None:
    network, structure, x = linear_reader(12, 5)
    grams = gram_matrices(network, ["0"], [x], len(x))
    ranking = rankings.reconstruction(network, structure, grams)
    rest, taken = set(range(12)), []
    for width in range(1, 12):
        # By brute force: of all that are left, the one whose refit rebuilds the output best.
        errors = {c: left_error(network, structure, Ranking({"g": (*taken, c)}, {}), x, width) for c in rest}
        best = min(errors, key=errors.__getitem__)
        assert errors[ranking.order["g"][width - 1]] == pytest.approx(errors[best], rel=1e-3)
        assert ranking.lost["g"][width] == pytest.approx(errors[best], rel=0.01, abs=1e-5)
        taken.append(ranking.order["g"][width - 1])
        rest.remove(taken[-1])


def test_wide_groups_are_chosen_from_as_well_in_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    network, structure, x = linear_reader(160, 30)
    grams = gram_matrices(network, ["0"], [x], len(x))
    whole = rankings.reconstruction(network, structure, grams)
    monkeypatch.setattr(rankings, "_WHOLE", 40)
    monkeypatch.setattr(rankings, "_POOL", 32)
    passes = rankings.reconstruction(network, structure, grams)
    assert sorted(passes.order["g"]) == list(range(160))
    for width in (10, 30, 60, 120):
        one, two = (left_error(network, structure, each, x, width) for each in (whole, passes))
        assert two <= 1.02 * one + 1e-6
        assert passes.lost["g"][width] == pytest.approx(two, rel=0.02, abs=1e-5)


class TwoReaders(nn.Module):
    """A convolution that two others read."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 40, 3), nn.Conv2d(40, 6, 3), nn.Conv2d(40, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        return self.head(torch.relu(self.b(x)).mean((2, 3)) + torch.relu(self.c(x)).mean((2, 3)))


def test_passes_know_convolutions_and_several_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = TwoReaders().eval()
    structure = discover(network, (3, 8, 8), runtime="litert", multiple_of=1)
    coupling = next(each for each in structure.couplings if each.group.name == "a")
    structure = replace(structure, couplings=(coupling,))
    assert {reader.layer for reader in coupling.consumers} == {"b", "c"}
    grams = gram_matrices(network, ["b", "c"], [torch.randn(60, 3, 8, 8)], 60)
    whole = rankings.reconstruction(network, structure, grams)
    monkeypatch.setattr(rankings, "_WHOLE", 100)
    monkeypatch.setattr(rankings, "_POOL", 90)
    passes = rankings.reconstruction(network, structure, grams)
    assert sorted(passes.order["a"]) == list(range(40))
    for width in (5, 10, 20, 30):
        assert passes.lost["a"][width] <= 1.02 * whole.lost["a"][width] + 1e-6


def test_the_fisher_matrix_of_logits_is_that_of_the_softmax() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    for parameter in network.parameters():
        parameter.requires_grad_(False)  # as a network that was loaded may come
    x = 2 * torch.randn(40_000, 6, dtype=torch.float64)
    found = fisher_matrices(network, ["0", "2"], x.split(10_000), seed=0)
    logits = network(x)
    p = logits.softmax(1)
    exact = (torch.diag_embed(p) - p[:, :, None] * p[:, None]).mean(0)
    torch.testing.assert_close(found["2"], exact, atol=4e-3, rtol=0.0)
    # A layer before it: by the chain rule.
    slope = (network[0](x) > 0)[:, None] * network[2].weight  # (N, classes, 8)
    chained = (slope.mT @ (torch.diag_embed(p) - p[:, :, None] * p[:, None]) @ slope).mean(0)
    torch.testing.assert_close(found["0"], chained, atol=6e-3, rtol=0.0)
    again = fisher_matrices(network, ["0", "2"], x.split(10_000), seed=0)
    assert all(torch.equal(found[name], again[name]) for name in found)


class Idle(nn.Module):
    """Nobody uses what `idle` gives."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Linear(6, 3), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        self.idle(x)
        return self.used(x)


def test_taylor_is_content_with_a_layer_whose_output_nobody_uses() -> None:
    torch.manual_seed(0)
    network, group = Idle(), Group("g", 6, 1, 1, 0, 0, 0, ("used", "idle"))
    columns = tuple((i,) for i in range(6))
    readers = (Consumer("used", columns), Consumer("idle", columns))
    both, one = (
        rankings.taylor(
            network,
            Structure((6,), NO_GRAPH, (Coupling(group, (), each),), {}, (), (), 6, None),
            [(torch.ones(3, 6), torch.arange(3))],
        )
        for each in (readers, readers[:1])
    )
    assert both == one


def test_a_layer_whose_output_nobody_uses_sways_nothing() -> None:
    told: list[int] = []
    batches = torch.randn(30, 6).split(20)
    found = fisher_matrices(Idle(), ["used", "idle"], batches, seed=0, advance=told.append)
    assert told == [20, 10]
    assert found["used"].any()
    assert torch.equal(found["idle"], torch.zeros(5, 5, dtype=torch.float64))


def test_fisher_matrices_sum_over_the_positions_of_a_convolution() -> None:
    torch.manual_seed(0)
    network = TwoReaders().eval()
    x = torch.randn(300, 3, 8, 8)
    found = fisher_matrices(network, ["c", "head"], [x], seed=0)
    # 1x1 outputs c enter the head as a mean over 64 positions, so positions that are on have one and the same slope.
    slopes = []

    def keep(_: nn.Module, __: object, output: Tensor) -> Tensor:
        slopes.append(torch.zeros_like(output, requires_grad=True))
        return output + slopes[-1]

    handle = network.c.register_forward_hook(keep)
    logs = network(x).log_softmax(1)
    handle.remove()
    drawn = torch.multinomial(logs.detach().exp(), 1, generator=torch.Generator().manual_seed(0))
    (slope,) = torch.autograd.grad(logs.gather(1, drawn).sum(), slopes)
    expected = torch.einsum("ncij,ndij->cd", slope, slope) / len(x)
    torch.testing.assert_close(found["c"], expected.double(), rtol=1e-4, atol=1e-9)
    assert found["head"].shape == (4, 4)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 3, 3, padding=1, bias=False),
        nn.Conv2d(2, 3, 3, padding=(2, 1), stride=2, padding_mode="reflect", bias=False),
        nn.Conv2d(2, 3, 5, padding=2, padding_mode="circular", bias=False),
        nn.Conv2d(2, 3, (2, 4), padding="same", dilation=(1, 3), bias=False),
        nn.Conv1d(2, 3, 4, padding="same", padding_mode="replicate", bias=False),
        nn.Conv1d(2, 3, 3, padding="valid", dilation=2, bias=False),
    ],
    ids=str,
)
def test_gram_matrices_hold_what_a_convolution_reads(layer: nn.Conv1d | nn.Conv2d) -> None:
    x = torch.randn(5, 2, 9) if isinstance(layer, nn.Conv1d) else torch.randn(5, 2, 9, 8)
    gram = gram_matrices(nn.Sequential(layer), ["0"], [x], len(x))["0"]
    weight = layer.weight.detach().double().flatten(1)
    outputs = layer(x).detach().double().movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(weight @ gram @ weight.T, outputs.T @ outputs / len(outputs), rtol=1e-5, atol=1e-6)


def test_errors_count_as_they_sway_the_answer() -> None:
    # Feature 0 drives an output a hundred times the others' size that nobody listens to.
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 3, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.diag(torch.tensor([100.0, 1.0, 2.0])))
    group = Group("g", 3, 1, 1, 0, 0, 0, ("0",))
    coupling = Coupling(group, (), (Consumer("0", ((0,), (1,), (2,))),))
    structure = Structure((3,), NO_GRAPH, (coupling,), {}, (), (), 3, None)
    x = torch.randn(500, 3)
    grams = gram_matrices(network, ["0"], [x], len(x))
    fisher = torch.diag(torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64))
    assert rankings.reconstruction(network, structure, grams).order["g"] == (0, 2, 1)
    ranking = rankings.reconstruction(network, structure, grams, {"0": fisher})
    assert ranking.order["g"] == (2, 1, 0)
    assert ranking.lost["g"][2] < 0.01
    assert float(fisher[0, 0]) == 0.0  # the ridge is not put on what was handed in


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Structure, Batches, Batches]:
    data = load_data("digits", None, seed=0, progress=Silent())
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10))
    train_set, validation = Batches(data.train, data.preprocessing), Batches(data.validation, data.preprocessing)
    regime = Regime(epochs=8, learning_rate=5e-3, batch_size=64, seed=0)
    fit = train(network, Problem(train_set, validation), regime, progress=Silent(), title="")
    return fit.network, discover(fit.network, (1, 8, 8), runtime="onnxruntime"), train_set, validation


def criterion_of(name: str, digits: tuple[nn.Module, Structure, Batches, Batches], *, repair: bool) -> Ranked:
    network, structure, train_set, validation = digits
    return make_criterion(
        name,
        repair=repair,
        network=network,
        structure=structure,
        problem=Problem(train_set, validation),
        images=400,
        seed=0,
        progress=Silent(),
    )


@pytest.mark.parametrize("name", CRITERIA)
def test_every_ranking_with_and_without_repair(
    name: str, digits: tuple[nn.Module, Structure, Batches, Batches]
) -> None:
    network, structure, train_set, _ = digits
    before = {key: each.clone() for key, each in network.state_dict().items()}
    masked, repaired = (criterion_of(name, digits, repair=repair) for repair in (False, True))
    assert masked.ranking == repaired.ranking
    for group in structure.groups:
        assert sorted(masked.ranking.order[group.name]) == list(range(group.channels))
        lost = masked.ranking.lost[group.name]
        assert len(lost) == group.channels + 1
        assert lost[0] == 1.0
        assert lost[-1] == pytest.approx(0, abs=1e-6)
        assert list(lost) == sorted(lost, reverse=True)
    widths = {group.name: group.channels // 2 for group in structure.groups}
    x, _ = next(train_set.ordered(400))
    errors = []
    for criterion in (masked, repaired):
        pruned = prune(criterion, structure, criterion.plan(widths), check=True)
        with torch.no_grad():
            errors.append(float((pruned(x) - network(x)).square().mean()))
    assert errors[1] < 0.7 * errors[0]
    assert all(torch.equal(before[key], each) for key, each in network.state_dict().items())


@pytest.mark.parametrize("name", ["taylor", "activation", "shapley"])
def test_rankings_by_data_beat_their_reverse(name: str, digits: tuple[nn.Module, Structure, Batches, Batches]) -> None:
    network, structure, train_set, _ = digits
    ranking = criterion_of(name, digits, repair=False).ranking
    upside_down = Ranking({key: order[::-1] for key, order in ranking.order.items()}, ranking.lost)
    found = []
    for each in (ranking, upside_down):
        criterion = Ranked(network, structure, each, None)
        found.append(score(criterion.weights(criterion.plan({"1": 16, "3": 10})), train_set, 400))
    assert found[0] > found[1] + 0.1


def test_inputs_that_nobody_reads_go_first(digits: tuple[nn.Module, Structure, Batches, Batches]) -> None:
    network, *others = digits
    network = deepcopy(network)
    dead = {5, 20, 40}
    with torch.no_grad():
        network.get_submodule("1").weight[:, sorted(dead)] = 0.0
    for name in ("taylor", "activation"):
        ranking = criterion_of(name, (network, *others), repair=False).ranking
        assert set(ranking.order[INPUTS][-3:]) == dead
        assert ranking.lost[INPUTS][-4:] == (0.0, 0.0, 0.0, 0.0)


def test_taylor_predicts_a_linear_loss_change() -> None:
    # Of a channel that hardly matters the first-order estimate is nearly the true change of each example's loss.
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    with torch.no_grad():
        network[2].weight.mul_(0.01)
    structure = discover(network.float(), (5,), runtime="onnxruntime", prune_inputs=False)
    network = network.double()
    x, y = torch.randn(50, 5).double(), torch.randint(0, 3, (50,))
    changes = []
    with torch.no_grad():
        for channel in range(8):
            kept = tuple(c for c in range(8) if c != channel)
            masked = mask(network, structure.couplings, PruningPlan({"0": kept}))
            losses = [nn.functional.cross_entropy(each(x), y, reduction="none") for each in (network, masked)]
            changes.append(float((losses[1] - losses[0]).abs().mean()))
    ranking = rankings.taylor(network, structure, [(x[:20], y[:20]), (x[20:], y[20:])])
    assert list(ranking.order["0"]) == sorted(range(8), key=changes.__getitem__, reverse=True)
    tail = sum(sorted(changes)[:4]) / sum(changes)
    assert ranking.lost["0"][4] == pytest.approx(tail, rel=0.02)


def test_activation_by_hand() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, 0], [0, 2.0], [-1.0, 0]]))
        network[0].bias.zero_()
        network[2].weight.copy_(torch.tensor([[1.0, 1, 5], [-1.0, 0.25, 5]]))
    structure = discover(network, (2,), runtime="onnxruntime", prune_inputs=False)
    ranking = rankings.activation(network, structure, [torch.tensor([[3.0, 4], [4, 3]])])
    # Norms 5, 10 and 0; columns 2, 1.25 and 10.
    assert ranking.order["0"] == (1, 0, 2)
    assert ranking.lost["0"] == pytest.approx((1, 10 / 22.5, 0, 0))


def test_refits_are_least_squares_and_kept() -> None:
    network, structure, x = linear_reader(20, 4)
    grams = gram_matrices(network, ["0"], [x], len(x))
    criterion = Ranked(network, structure, Ranking({"g": tuple(range(20))}, {}), grams)
    found = criterion.weights(criterion.plan({"g": 7}))
    # Not one of its own plans: the first seven are not the best seven of this order.
    other = Ranked(network, structure, Ranking({"g": tuple(reversed(range(20)))}, {}), grams)
    alike = other.weights(PruningPlan({"g": tuple(range(7))}))
    torch.testing.assert_close(augmented(alike, "0"), augmented(found, "0"), atol=1e-4, rtol=1e-3)
    ones = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    columns = [*range(7), 20]
    truth = torch.linalg.lstsq(ones[:, columns], ones @ augmented(network, "0").T).solution.T
    torch.testing.assert_close(augmented(found, "0")[:, columns], truth, atol=1e-4, rtol=1e-3)
    assert (augmented(found, "0")[:, 7:20] == 0).all()
    again = criterion.weights(criterion.plan({"g": 7}))
    assert torch.equal(augmented(again, "0"), augmented(found, "0"))
    with torch.no_grad():
        again.get_submodule("0").weight.zero_()
    # What was handed out is a copy: changing it changes no later answer.
    assert torch.equal(augmented(criterion.weights(criterion.plan({"g": 7})), "0"), augmented(found, "0"))


def test_scores_become_shares() -> None:
    ranking = rankings.by_scores({"a": torch.tensor([1.0, -2.0, 3.0]), "b": torch.zeros(2)})
    assert ranking.order == {"a": (2, 0, 1), "b": (0, 1)}
    assert ranking.lost == {"a": (1.0, 0.25, 0.0, 0.0), "b": (1.0, 0.0, 0.0)}


def test_repair_follows_the_criterion_unless_it_is_asked_for() -> None:
    assert [RunConfig(criterion=name).repairs for name in ("reconstruction", "l1", "taylor")] == [True, False, True]
    assert RunConfig(criterion="l1", repair=True).repairs
    assert not RunConfig(repair=False).repairs


def test_an_unknown_criterion(digits: tuple[nn.Module, Structure, Batches, Batches]) -> None:
    with pytest.raises(UsageError, match="unknown criterion 'tailor'; did you mean 'taylor'"):
        criterion_of("tailor", digits, repair=False)
