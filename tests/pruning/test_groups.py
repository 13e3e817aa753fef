import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.core.design import INPUTS, PruningPlan
from edgeprune.core.errors import NothingToPrune
from edgeprune.models.zoo import build
from edgeprune.pruning import rankings
from edgeprune.pruning.calibration import gram_matrices
from edgeprune.pruning.cost import count_macs
from edgeprune.pruning.criteria import Ranked
from edgeprune.pruning.groups import discover
from edgeprune.pruning.surgery import cut, prune


def names(model: str, shape: tuple[int, ...], runtime: str = "onnxruntime") -> list[tuple[str, int, int, int]]:
    structure = discover(build(model, shape, 10), shape, runtime=runtime)
    return [(g.name, g.channels, g.floor, g.multiple_of) for g in structure.groups]


def test_a_fully_connected_net_has_its_inputs_as_first_group() -> None:
    assert names("lenet-300-100", (1, 28, 28)) == [(INPUTS, 784, 78, 1), ("fc1", 300, 30, 1), ("fc2", 100, 10, 1)]


def test_neurons_are_counted_as_the_paper_does() -> None:
    shape = (1, 28, 28)
    network = build("lenet-300-100", shape, 10)
    structure = discover(network, shape, runtime="onnxruntime")
    assert structure.output_layers == ("fc3",)
    assert structure.neurons(network) == 784 + 300 + 100
    kept = {INPUTS: tuple(range(219)), "fc1": tuple(range(81)), "fc2": tuple(range(43))}
    pruned = cut(network, shape, PruningPlan(kept))
    assert structure.neurons(pruned) == 219 + 81 + 43
    # method.md: 8.1 % of the multiply-accumulates are left.
    assert count_macs(pruned, shape) == 219 * 81 + 81 * 43 + 43 * 10
    assert count_macs(pruned, shape) / count_macs(network, shape) == pytest.approx(0.081, abs=0.001)


def test_inputs_stay_when_asked() -> None:
    shape = (1, 8, 8)
    network = build("lenet-300-100", shape, 10)
    structure = discover(network, shape, runtime="onnxruntime", prune_inputs=False)
    assert [g.name for g in structure.groups] == ["fc1", "fc2"]
    assert structure.neurons(network) == 64 + 300 + 100


def test_resnet_prunes_inside_its_blocks_and_between_them() -> None:
    shape = (3, 32, 32)
    structure = discover(build("resnet20", shape, 10), shape, runtime="onnxruntime")
    widths = {g.name: g.channels for g in structure.groups}
    inside = {f"layer{s}.{b}.conv1": 8 * 2**s for s in (1, 2, 3) for b in (0, 1, 2)}
    # Its stream grows by padding with zeros: what it had from the beginning, and what came with each stage.
    assert widths == inside | {"conv1": 16, "layer2.0.conv2": 16, "layer3.0.conv2": 32}
    assert not structure.frozen
    assert {g.multiple_of for g in structure.groups} == {8}


def test_coupled_channels_count_in_every_layer_that_makes_them() -> None:
    shape = (3, 16, 16)
    network = build("mobilenetv2-small", shape, 10)
    structure = discover(network, shape, runtime="litert")
    stream = next(c for c in structure.couplings if "stem" in c.makers)
    assert set(stream.makers) == {"stem", "blocks.0.project"}
    assert stream.group.neurons_per_channel == 2
    hidden = next(c.group for c in structure.couplings if c.group.name == "blocks.1.expand")
    # The depthwise layer goes with the layer that expands.
    assert hidden.neurons_per_channel == 2
    assert "blocks.1.depthwise" in hidden.layers


def test_costs_per_channel_add_up() -> None:
    shape = (1, 28, 28)
    structure = discover(build("lenet-300-100", shape, 10), shape, runtime="onnxruntime")
    fc1 = structure.groups[1]
    assert fc1.macs_per_channel == 784 + 100
    assert fc1.parameters_per_channel == 784 + 1 + 100


class Reshaped(nn.Module):
    """Its head reshapes to a fixed width."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.fc1 = nn.Linear(4 * 64, 20)
        self.fc2 = nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x)).view(-1, 4 * 64)
        return self.fc2(F.relu(self.fc1(x)))


class Normed(nn.Module):
    """A layer norm looks at all channels at once: its statistics are those of what is left."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.norm, self.fc2 = nn.Linear(64, 20), nn.LayerNorm(20), nn.Linear(20, 12)
        self.fc3 = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(F.relu(self.fc2(self.norm(self.fc1(x.flatten(1))))))


def test_numbers_in_a_forward_are_put_right() -> None:
    structure = discover(Reshaped(), (1, 8, 8), runtime="onnxruntime")
    assert [g.name for g in structure.groups] == ["conv", "fc1"]
    pruned = cut(Reshaped().eval(), (1, 8, 8), PruningPlan({"conv": (0, 2, 3)}))
    assert pruned.fc1.in_features == 3 * 64
    assert pruned(torch.zeros(5, 1, 8, 8)).shape == (5, 3)


def test_a_layer_norm_goes_with_its_group() -> None:
    structure = discover(Normed(), (64,), runtime="onnxruntime")
    assert [g.name for g in structure.groups] == [INPUTS, "fc1", "fc2"]
    assert cut(Normed(), (64,), PruningPlan({"fc1": (0, 2, 3)})).norm.normalized_shape == (3,)


LONE_CONV = nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten())
LONE_LINEAR = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))


@pytest.mark.parametrize("network", [LONE_CONV, LONE_LINEAR])
def test_nothing_to_prune_is_said(network: nn.Module) -> None:
    with pytest.raises(NothingToPrune, match="nothing to prune"):
        discover(network, (1, 8, 8), runtime="onnxruntime")


def test_discovery_leaves_the_network_alone() -> None:
    network = build("lenet5", (1, 28, 28), 10)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    discover(network, (1, 28, 28), runtime="onnxruntime")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


class OneOfTwo(nn.Module):
    """Either of two layers may be narrow, but not both."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.a.out_features + self.b.out_features < 5:
            raise ValueError("both at once are too narrow")
        return self.c(F.relu(self.b(F.relu(self.a(2 * x)))))


def test_groups_that_only_fail_together_are_found_out() -> None:
    structure = discover(OneOfTwo(), (64,), runtime="onnxruntime")
    assert [g.name for g in structure.groups] == ["a"]
    assert "together" in structure.frozen["b"]


class Scaled(nn.Module):
    """Its branch counts for nothing until it is trained (ReZero), and looks at how many channels there are."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(64, 20), nn.Linear(20, 3)
        self.alpha = nn.Parameter(torch.zeros(1))
        self.skip = nn.Linear(64, 10)
        self.skip2 = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip2(F.relu(self.skip(x))) + self.alpha * self.fc2(self.fc1(x) + self.fc1.out_features)


def test_a_mistake_behind_a_zero_is_found_before_training() -> None:
    structure = discover(Scaled(), (64,), runtime="onnxruntime")
    assert [g.name for g in structure.groups] == ["skip"]
    assert "differs" in structure.frozen["fc1"]


class Gated(nn.Module):
    """Half of the channels gate the other half: they can only go in pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(64, 20), nn.Linear(10, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.fc1(x).chunk(2, 1)
        return self.fc3(F.relu(self.fc2(value * torch.sigmoid(gate))))


class Glued(Gated):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(F.relu(self.fc2(F.glu(self.fc1(x)))))


class Mixed(Gated):
    """Makes float32 tensors of its own, and has a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(30, 200)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1((2 * x).float()))[:, :10])))


@pytest.mark.parametrize("kind", [Gated, Glued, Mixed])
def test_channels_go_in_pairs_or_where_they_are_read(kind: type[nn.Module]) -> None:
    network = kind()
    structure = discover(network, (64,), runtime="onnxruntime", prune_inputs=False)
    assert [(g.name, g.channels) for g in structure.groups] == [("fc1", 10), ("fc2", 8)]
    # Input features count although they stay; a layer that never runs does not.
    assert structure.neurons(network) == 64 + 20 + 8
    pruned = cut(network, (64,), PruningPlan({"fc1": (0, 1, 2)}))
    assert structure.neurons(pruned) == 64 + (13 if kind is Mixed else 6) + 8


def test_sequences_are_pruned_too() -> None:
    network = nn.Sequential(
        nn.Conv1d(2, 16, 5, padding="same"), nn.ReLU(), nn.Conv1d(16, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3)
    )
    structure = discover(network, (2, 12), runtime="onnxruntime")
    assert [g.name for g in structure.groups] == ["0", "2"]
    x = torch.randn(200, 2, 12)
    grams = gram_matrices(network, ["2", "5"], [x], 200)
    criterion = Ranked(network, structure, rankings.reconstruction(network, structure, grams), grams)
    whole = prune(criterion, structure, criterion.plan({"0": 15, "2": 8}), check=True)
    with torch.no_grad():
        assert float((whole(x) - network(x)).square().mean()) < 0.1 * float(network(x).square().mean())


def test_a_layer_that_runs_twice_costs_twice() -> None:
    layer = nn.Linear(8, 8)
    assert count_macs(nn.Sequential(layer, nn.ReLU(), layer), (8,)) == 128


def test_readers_too_wide_to_calibrate_are_not_refitted() -> None:
    shape = (1, 28, 28)
    network = build("lenet5", shape, 10).eval()
    structure = discover(network, shape, runtime="onnxruntime", max_columns=300)
    assert [g.name for g in structure.groups] == ["conv1", "conv2", "fc1", "fc2"]
    conv2 = structure.couplings[1]
    assert not conv2.consumers
    criterion = Ranked(network, structure, rankings.l2(network, structure), None)
    prune(criterion, structure, criterion.plan({"conv2": 5, "fc1": 20}), check=True)
