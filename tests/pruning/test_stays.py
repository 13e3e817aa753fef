"""What stays, why, and what it costs: kinds that are not pruned, shared parameters, the user's frozen ones."""

from __future__ import annotations

import re
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.core.design import INPUTS, PruningPlan
from edgeprune.core.errors import NothingToPrune
from edgeprune.pruning import rankings
from edgeprune.pruning.calibration import gram_matrices
from edgeprune.pruning.cost import count_macs, count_parameters
from edgeprune.pruning.criteria import Ranked
from edgeprune.pruning.groups import discover
from edgeprune.pruning.structure import Structure, neurons_left
from edgeprune.pruning.surgery import cut, prune
from edgeprune.pruning.widening import widen


def found(network: nn.Module, shape: tuple[int, ...], *, prune_frozen: bool = False) -> Structure:
    return discover(network, shape, runtime="onnxruntime", prune_frozen=prune_frozen)


class Sequence(nn.Module):
    """A recurrent layer with nearly all the work, and a head."""

    def __init__(self, rnn: nn.RNNBase) -> None:
        super().__init__()
        self.rnn, self.fc1, self.fc2 = rnn, nn.Linear(32, 32), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(self.rnn(x.squeeze(1))[0][:, -1])))


def test_what_is_left_of_a_sequence_network_counts_its_recurrent_layer() -> None:
    network = Sequence(nn.LSTM(12, 32, batch_first=True)).eval()
    structure = found(network, (1, 20, 12))
    assert [group.name for group in structure.groups] == ["rnn", "fc1"]
    lstm = 20 * 4 * 32 * (12 + 32)
    assert structure.share("rnn") == lstm / (lstm + 32 * 32 + 32 * 2)
    assert structure.neurons(network) == 240 + 32 + 32
    pruned = cut(network, (1, 20, 12), PruningPlan({"fc1": (0, 1, 2)}))
    assert structure.neurons(pruned) == 240 + 32 + 3
    left = count_macs(pruned, (1, 20, 12)) / count_macs(network, (1, 20, 12))
    assert left == (lstm + 32 * 3 + 3 * 2) / (lstm + 32 * 32 + 32 * 2)
    assert round(100 * left, 1) == 99.1


class Parts(nn.Module):
    """Attention, a transposed convolution, an embedding, bare weights, and a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 12)
        self.attend = nn.MultiheadAttention(12, 3, batch_first=True)
        self.up = nn.ConvTranspose1d(12, 6, 2, 2)
        self.gain = nn.Parameter(torch.randn(6, 10))
        self.norm = nn.LayerNorm(10)
        self.idle = nn.Linear(3, 3)
        self.fc1, self.fc2 = nn.Linear(10, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.embed(torch.zeros(1, 20, dtype=torch.long))
        x = self.attend(x, x, x)[0]
        x = self.up(x.transpose(1, 2)).mean(2)
        return self.fc2(F.relu(self.fc1(self.norm(x @ self.gain))))


def test_every_layer_that_stays_is_listed_the_dearest_first() -> None:
    network = Parts().eval()
    structure = found(network, (20, 12))
    # Heads of the attention and what it makes, the transposed convolution, and what bare weights make.
    widths = {group.name: group.channels for group in structure.groups}
    assert widths == {"attend": 3, "attend.out_proj": 12, "up": 6, "gain": 10, "fc1": 16}
    where = structure.frozen["embed"].removeprefix("it meets what stays")
    assert re.fullmatch(r" \(test_stays\.py:\d+\)", where)
    assert structure.frozen == {"embed": f"it meets what stays{where}", "idle": "it does not run"}
    assert structure.costs["attend"].parameters == count_parameters(network.attend)
    assert sum(cost.parameters for cost in structure.costs.values()) == count_parameters(network)
    assert sum(cost.macs for cost in structure.costs.values()) == count_macs(network, (20, 12))
    # The embedding, attention, what is bare and what can be pruned; not the answer, nor the layer that never runs.
    assert structure.neurons(network) == 20 + 12 + 48 + 6 + 10 + 16
    kept = {"attend": (0, 2), "attend.out_proj": (1, 2, 3), "up": (0, 1, 2, 3, 4), "gain": (0, 5), "fc1": (7,)}
    pruned = cut(network, (20, 12), PruningPlan(kept))
    assert structure.neurons(pruned) == 20 + 12 + 3 * 8 + 3 + 5 + 2 + 1
    assert neurons_left(structure.groups, 112, {name: len(each) for name, each in kept.items()}) == 67


def test_a_recurrent_layer_goes_with_its_units_and_what_it_reads() -> None:
    for rnn in (
        nn.LSTM(8, 32, batch_first=True),
        nn.LSTM(8, 16, 2, bidirectional=True, batch_first=True),
        nn.GRU(8, 16, bidirectional=True, batch_first=True),
    ):
        network = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), Sequence(rnn)).eval()
        structure = found(network, (20, 12))
        assert not structure.frozen
        assert [group.name for group in structure.groups] == ["0", "2.rnn", "2.fc1"]
        # Units of every layer and direction go together.
        assert structure.groups[1].neurons_per_channel == rnn.num_layers * (1 + rnn.bidirectional)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inp, self.a, self.b = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.free, self.out = nn.Linear(32, 24), nn.Linear(24, 10)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.b(torch.relu(self.a(torch.relu(self.inp(x))))))
        return self.out(torch.relu(self.free(x)))


class TiedBias(Tied):
    def __init__(self) -> None:
        super().__init__()
        self.b.weight = nn.Parameter(self.a.weight.detach().clone())
        self.b.bias = self.a.bias


class Decoded(Tied):
    """`a` is used the other way round a second time, without a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(F.linear(torch.relu(self.a(torch.relu(self.inp(x)))), self.a.weight.t()))
        return self.out(torch.relu(self.free(x)))


@pytest.mark.parametrize(
    ("kind", "prunable"),
    [
        # Rows and columns of one parameter: all three layers are narrowed alike.
        (Tied, [INPUTS, "inp", "free"]),
        (TiedBias, [INPUTS, "inp", "a", "free"]),
        (Decoded, [INPUTS, "inp", "a", "free"]),
    ],
)
def test_tied_parameters_stay_tied(kind: type[nn.Module], prunable: list[str]) -> None:
    network = kind().eval()
    structure = found(network, (64,))
    assert [group.name for group in structure.groups] == prunable
    criterion = repaired(network, structure, (64,))
    plan = criterion.plan({group.name: 6 for group in structure.groups})
    pruned = prune(criterion, structure, plan, check=True)
    names = {id(p): n for n, p in network.named_parameters()}
    ties = [(n, names[id(p)]) for n, p in network.named_parameters(remove_duplicate=False) if names[id(p)] != n]
    for one, other in ties:
        assert pruned.get_parameter(one) is pruned.get_parameter(other)
    assert count_parameters(pruned) < count_parameters(network)
    # Back in the full size, and read back from its state, it computes the same.
    again = cut(kind().eval(), (64,), plan)
    again.load_state_dict(pruned.state_dict())
    x = torch.randn(4, 64)
    with torch.no_grad():
        for other in (again.eval(), widen(network, structure, plan, pruned)):
            torch.testing.assert_close(other(x), pruned(x))


def test_a_module_with_two_names_or_two_runs_is_no_tie() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.head, self.out = nn.Linear(64, 24), nn.Linear(24, 16), nn.Linear(32, 5)
            self.other = self.one

        def forward(self, x: Tensor) -> Tensor:
            both = [F.relu(self.head(F.relu(layer(y)))) for layer, y in ((self.one, x), (self.other, -x))]
            return self.out(torch.cat(both, 1))

    structure = found(Twice().eval(), (64,))
    assert "one" in [group.name for group in structure.groups]


def repaired(network: nn.Module, structure: Structure, shape: tuple[int, ...]) -> Ranked:
    layers = sorted({reader.layer for coupling in structure.couplings for reader in coupling.consumers})
    x = torch.randn(300, *shape, generator=torch.Generator().manual_seed(0))
    grams = gram_matrices(network, layers, [x], len(x))
    return Ranked(network, structure, rankings.reconstruction(network, structure, grams), grams)


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Linear(64, 24),
        nn.ReLU(),
        nn.Linear(24, 20),
        nn.ReLU(),
        nn.Linear(20, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    ]
    return nn.Sequential(*layers).eval()


def freeze(network: nn.Module, *names: str) -> nn.Module:
    for name in names:
        network.get_parameter(name).requires_grad_(False)
    return network


@pytest.mark.parametrize(
    ("names", "prunable", "why"),
    [
        # Its rows, and its columns: two groups would cut it.
        (["2.weight"], ["4"], {"0": "2.weight is frozen (requires_grad=False)", "2": "2.weight is frozen"}),
        # A bias has no columns; the layers that feed it may be narrowed, but it is not refitted.
        (["2.bias"], ["0", "4"], {"2": "2.bias is frozen (requires_grad=False)"}),
        (["0.weight", "0.bias"], ["2", "4"], {"0": "0.bias is frozen"}),
        (["6.weight", "6.bias"], ["0", "2"], {"4": "6.weight is frozen"}),
    ],
)
def test_layers_with_frozen_parameters_stay_unless_asked(
    names: list[str], prunable: list[str], why: dict[str, str]
) -> None:
    network = freeze(chain(), *names)
    structure = discover(network, (64,), runtime="onnxruntime", prune_inputs=False)
    assert [group.name for group in structure.groups] == prunable
    for name, reason in why.items():
        assert structure.frozen[name].startswith(reason)
    allowed = discover(network, (64,), runtime="onnxruntime", prune_inputs=False, prune_frozen=True)
    assert [group.name for group in allowed.groups] == ["0", "2", "4"]
    # Discovery leaves the user's word as it is.
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == names


def test_inputs_stay_where_the_layer_that_reads_them_is_frozen() -> None:
    structure = found(freeze(chain(), "0.weight"), (64,))
    assert INPUTS not in [group.name for group in structure.groups]
    assert structure.frozen[INPUTS] == "0.weight is frozen (requires_grad=False)"


@pytest.mark.parametrize("names", [["2.weight", "2.bias"], ["2.bias"], ["4.weight"]])
@pytest.mark.parametrize("prune_frozen", [False, True])
def test_what_is_left_of_frozen_parameters_has_their_values(names: list[str], prune_frozen: bool) -> None:
    network = freeze(chain(), *names)
    structure = found(network, (64,), prune_frozen=prune_frozen)
    criterion = repaired(network, structure, (64,))
    plan = criterion.plan({group.name: group.channels // 2 for group in structure.groups})
    pruned = prune(criterion, structure, plan, check=True)
    # The same cut of what was not repaired holds the user's own numbers.
    plain = cut(network, (64,), plan)
    frozen = [name for name, parameter in pruned.named_parameters() if not parameter.requires_grad]
    assert [name.replace(".linear", "") for name in frozen] == names
    for name in frozen:
        assert torch.equal(pruned.get_parameter(name), plain.get_parameter(name)), name
    assert not all(torch.equal(p, plain.get_parameter(n)) for n, p in pruned.named_parameters())


def test_a_network_that_is_frozen_as_a_whole_says_what_to_type() -> None:
    network = freeze(chain(), *(name for name, _ in chain().named_parameters()))
    with pytest.raises(NothingToPrune, match=r"is frozen \(requires_grad=False\).*; add --prune-frozen"):
        found(network, (64,))
    assert len(found(network, (64,), prune_frozen=True).groups) == 4


def test_discovery_of_a_network_without_frozen_parts_is_not_changed_by_the_option() -> None:
    network = chain()
    one, other = found(network, (64,)), found(deepcopy(network), (64,), prune_frozen=True)
    assert one == other


def test_a_table_of_integers_is_frozen_by_nature_and_no_obstacle() -> None:
    class Looked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.order = nn.Parameter(torch.arange(63, -1, -1), requires_grad=False)
            self.fc1, self.fc2 = nn.Linear(64, 24), nn.Linear(24, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc2(F.relu(self.fc1(x[:, self.order])))

    network = Looked().eval()
    structure = found(network, (64,))
    assert [group.name for group in structure.groups] == ["fc1"]
    pruned = cut(network, (64,), PruningPlan({"fc1": (1, 2, 3)}))
    assert [name for name, parameter in pruned.named_parameters() if not parameter.requires_grad] == ["order"]
