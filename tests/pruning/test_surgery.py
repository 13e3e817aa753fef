from functools import cache

import pytest
import torch
from handmade import NO_GRAPH
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeprune.core.design import INPUTS, PruningPlan
from edgeprune.core.errors import SurgeryError
from edgeprune.models.zoo import build
from edgeprune.pruning import rankings
from edgeprune.pruning.calibration import gram_matrices
from edgeprune.pruning.criteria import Ranked
from edgeprune.pruning.groups import discover
from edgeprune.pruning.structure import Structure, neurons_left
from edgeprune.pruning.surgery import check_equal, cut, mask, prune

SHAPES = {"lenet-300-100": (1, 8, 8), "lenet5": (1, 12, 12), "resnet20": (3, 8, 8), "mobilenetv2-small": (3, 8, 8)}


@cache
def prepared(model: str) -> tuple[nn.Module, Structure]:
    torch.manual_seed(0)
    network = build(model, SHAPES[model], 10).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            # A trained net's: zero means and unit variances would hide mistakes.
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    return network, discover(network, SHAPES[model], runtime="litert", multiple_of=1)


@given(st.sampled_from(sorted(SHAPES)), st.data())
@settings(max_examples=25, deadline=None)
def test_the_pruned_net_equals_the_masked_one(model: str, data: st.DataObject) -> None:
    network, structure = prepared(model)
    kept = {
        g.name: tuple(sorted(data.draw(st.sets(st.integers(0, g.channels - 1), min_size=1, max_size=g.channels))))
        for g in structure.groups
    }
    plan = PruningPlan(kept)
    pruned = cut(network, SHAPES[model], plan)
    assert check_equal(mask(network, structure.couplings, plan), pruned, SHAPES[model]) < 1e-9
    assert structure.neurons(pruned) == neurons_left(structure.groups, structure.neurons(network), plan.widths)


def test_the_pruned_net_still_takes_the_full_input() -> None:
    network, _ = prepared("lenet-300-100")
    pruned = cut(network, (1, 8, 8), PruningPlan({INPUTS: (3, 5, 60), "fc1": (0, 1)}))
    assert pruned(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert pruned.get_submodule("fc1").kept.tolist() == [3, 5, 60]


def test_a_wrong_net_is_found_out() -> None:
    network, structure = prepared("lenet-300-100")
    plan = PruningPlan({"fc1": tuple(range(100))})
    pruned = cut(network, (1, 8, 8), PruningPlan({"fc1": tuple(range(1, 101))}))
    with pytest.raises(SurgeryError, match="differs from the masked"):
        check_equal(mask(network, structure.couplings, plan), pruned, (1, 8, 8))


def batches(shape: tuple[int, ...], count: int = 400) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    # Correlated inputs, as real ones are: a few directions and a little noise.
    basis = torch.randn(12, *shape, generator=generator)
    weights = torch.randn(count, 12, generator=generator)
    noise = 0.05 * torch.randn(count, *shape, generator=generator)
    return list((torch.tensordot(weights, basis, 1) + noise).split(100))


def repaired(network: nn.Module, structure: Structure, layers: list[str], data: list[Tensor]) -> Ranked:
    grams = gram_matrices(network, layers, data, sum(map(len, data)))
    return Ranked(network, structure, rankings.reconstruction(network, structure, grams), grams)


def reconstruction(model: str) -> Ranked:
    network, structure = prepared(model)
    layers = sorted({reader.layer for coupling in structure.couplings for reader in coupling.consumers})
    return repaired(network, structure, layers, batches(SHAPES[model]))


@pytest.mark.parametrize("model", sorted(SHAPES))
def test_reconstruction_rebuilds_outputs_better_than_norms(model: str) -> None:
    network, structure = prepared(model)
    x = torch.cat(batches(SHAPES[model]))[:200]
    widths = {g.name: max(1, g.channels // 2) for g in structure.groups}
    errors = []
    for criterion in (reconstruction(model), Ranked(network, structure, rankings.l1(network, structure), None)):
        pruned = prune(criterion, structure, criterion.plan(widths), check=True)
        with torch.no_grad():
            errors.append(float((pruned(x) - network(x)).square().mean()))
    assert errors[0] < 0.6 * errors[1]


def test_a_duplicate_neuron_goes_without_loss() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    first, last = network[1], network[3]
    torch.manual_seed(0)
    with torch.no_grad():
        first.weight[3], first.bias[3] = first.weight[0], first.bias[0]
        last.weight.mul_(5)
    structure = discover(network, (6,), runtime="onnxruntime", prune_inputs=False)
    x = torch.randn(500, 6)
    criterion = repaired(network, structure, ["3"], [x])
    pruned = prune(criterion, structure, criterion.plan({"1": 3}), check=True)
    with torch.no_grad():
        assert float((pruned(x) - network(x)).abs().max()) < 1e-3


def test_orders_are_nested() -> None:
    criterion = reconstruction("lenet-300-100")
    small, large = (set(criterion.plan({"fc1": width}).kept["fc1"]) for width in (20, 60))
    assert small < large


def test_l1_keeps_the_largest_norms() -> None:
    network, structure = prepared("lenet-300-100")
    kept = Ranked(network, structure, rankings.l1(network, structure), None).plan({"fc1": 30}).kept["fc1"]
    norms = network.get_submodule("fc1").weight.abs().sum(1)
    assert set(kept) == set(torch.topk(norms, 30).indices.tolist())


class Fire(nn.Module):
    """A reader of two groups, behind a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 12), nn.Linear(6, 12), nn.Linear(24, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([torch.relu(self.a(x)), torch.relu(self.b(x))], 1))


def test_a_reader_of_several_groups_is_refitted_to_all_that_is_left() -> None:
    torch.manual_seed(0)
    network = Fire()
    structure = discover(network, (6,), runtime="onnxruntime", max_sparsity=0.8)
    assert [g.name for g in structure.groups] == ["a", "b"]
    x = torch.randn(500, 6)
    criterion = repaired(network, structure, ["head"], [x])
    for widths in ({"a": 9}, {"b": 9}, {"a": 9, "b": 9}, {"a": 12, "b": 9}):
        pruned = prune(criterion, structure, criterion.plan(widths), check=True)
        with torch.no_grad():
            error = (pruned(x) - network(x)).square().mean() / network(x).square().mean()
        # What was not pruned is still read: without it most of the output would be gone.
        assert float(error) < 0.2
        left = sum(widths.get(name, 12) for name in ("a", "b"))
        assert pruned.get_submodule("head").weight.shape == (5, left)
        assert (pruned.get_submodule("head").weight.abs().sum(0) > 0).all()


def test_a_plan_of_another_network_says_what_it_is() -> None:
    with pytest.raises(SurgeryError, match="the network has no channels 'conv9'") as caught:
        NO_GRAPH.channels("conv9")
    assert caught.value.hint == "the plan is another network's, or damaged"
    # A name may be anything where a file is damaged.
    with pytest.raises(SurgeryError) as caught:
        NO_GRAPH.channels("9" * 5000)
    assert len(str(caught.value)) < 200
