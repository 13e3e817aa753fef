"""Which batch normalisations may be folded, and that folding changes nothing."""

from __future__ import annotations

import pytest
import torch
from exporter_nets import MobileNet, ResNet20, images, seasoned
from torch import Tensor, nn

from edgeprune.core.design import PruningPlan
from edgeprune.core.runtimes import Format
from edgeprune.exporters import Template
from edgeprune.pruning.folding import find_batchnorm_pairs, find_lone_batchnorms, fold_batchnorm, folded_state
from edgeprune.pruning.groups import discover
from edgeprune.pruning.surgery import cut


class Shared(nn.Module):
    """`a` is read by two, `b` is called twice, `c` has its own pair, `n` keeps no statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(3, 3, 1) for _ in range(4))
        self.na, self.nb, self.nc = (nn.BatchNorm2d(3) for _ in range(3))
        self.nd = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        y = y + self.na(y)
        y = self.nb(self.b(self.b(y)))
        return self.nd(self.d(self.nc(self.c(y))))


class Growing(nn.Module):
    """As in YOLO's C2f, a list grows while it is gone through; the shape of what a layer gives is asked for."""

    def __init__(self, *, twice: bool = False) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 * (n + 1), 3, 1) for n in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(3))
        self.up, self.norm, self.twice = nn.ConvTranspose2d(12, 4, 2, 2), nn.BatchNorm2d(4), twice

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = conv(torch.cat(found, 1))
            assert y.shape[1] == 3
            found += [norm(y) + y if self.twice else norm(y)]
        return self.norm(self.up(torch.cat(found, 1)))


def test_only_exclusive_pairs_are_found() -> None:
    assert find_batchnorm_pairs(Shared(), images(2, 3, 4, 4)) == [("c", "nc")]


def test_a_forward_may_be_any_code() -> None:
    network, x = seasoned(Growing()).eval(), images(2, 3, 4, 4)
    found = find_batchnorm_pairs(network, x)
    assert found == [*((f"convs.{n}", f"norms.{n}") for n in range(3)), ("up", "norm")]
    torch.testing.assert_close(fold_batchnorm(network, found)(x), network(x), atol=1e-5, rtol=1e-5)
    assert find_batchnorm_pairs(Growing(twice=True), x) == [("up", "norm")]
    # What a layer gives may be an output besides.
    assert find_batchnorm_pairs(Both(), x) == []


def test_a_network_that_cannot_answer_has_no_pairs() -> None:
    assert find_batchnorm_pairs(Growing(), images(2, 4, 4, 4)) == []


def test_in_groups_a_transposed_convolution_is_not_folded() -> None:
    network = nn.Sequential(nn.ConvTranspose2d(4, 6, 2, groups=2), nn.BatchNorm2d(6))
    assert find_batchnorm_pairs(network, images(2, 4, 3, 3)) == []


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.conv(x)
        return {"before": y, "after": self.norm(y)}


class NormAct(nn.BatchNorm2d):
    """As timm's: what follows is part of it. `before` scales what is normalised."""

    def __init__(self, channels: int, before: float = 1.0) -> None:
        super().__init__(channels)
        self.before, self.act = before, nn.Hardswish()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x * self.before if self.before != 1 else x))


class Derived(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 3), nn.Conv2d(24, 8, 3)
        self.norm1, self.norm2, self.norm3 = NormAct(16), NormAct(24), NormAct(8, before=2.0)
        self.squeeze, self.gate, self.head = nn.Conv2d(24, 6, 1), nn.Conv2d(6, 24, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm2(self.two(self.norm1(self.one(x))))
        # TFLite adds the 3 of the hard sigmoid to the bias before it.
        x = x * nn.functional.hardsigmoid(self.gate(self.squeeze(x.mean((2, 3), keepdim=True)).relu()))
        return self.head(self.norm3(self.three(x)).mean((2, 3)))


def test_a_norm_without_a_layer_before_it_takes_its_statistics_in() -> None:
    network = seasoned(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).eval()
    pairs = find_batchnorm_pairs(network, images(2, 3, 6, 6))
    lone = find_lone_batchnorms(network, pairs)
    assert (pairs, lone) == ([("2", "3")], ["1"])
    folded, x = fold_batchnorm(network, pairs, lone), images(2, 3, 6, 6)
    torch.testing.assert_close(folded(x), network(x), atol=1e-5, rtol=1e-5)
    state, quick = folded.state_dict(), folded_state(network, pairs, lone)
    assert torch.equal(state["1.running_mean"], torch.zeros(3))
    assert torch.equal(state["1.running_var"], torch.ones(3))
    assert state.keys() == quick.keys()
    assert all(torch.equal(state[name], quick[name]) for name in state)


def test_what_a_derived_class_does_besides_stays() -> None:
    network, x = seasoned(Derived()).eval(), images(2, 3, 12, 12)
    found = find_batchnorm_pairs(network, x)
    # The third normalises something else than what its convolution gives.
    assert found == [("one", "norm1"), ("two", "norm2")]
    folded = fold_batchnorm(network, found)
    torch.testing.assert_close(folded(x), network(x), atol=1e-5, rtol=1e-5)
    state, quick = folded.state_dict(), folded_state(network, found)
    assert state.keys() == quick.keys()
    assert all(torch.equal(state[name], quick[name]) for name in state)


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_candidates_with_derived_classes_and_gates_are_sliced(format: Format) -> None:
    network, x = seasoned(Derived()).eval(), images(2, 3, 12, 12)
    del network.norm3
    network.norm3 = NormAct(8)
    structure = discover(network, (3, 12, 12), runtime="onnxruntime", prune_inputs=False)
    plan = PruningPlan({group.name: tuple(range(1, group.channels, 2)) for group in structure.groups})
    assert len(plan.kept) == 4
    template = Template.build(network, x, format)
    pruned = cut(network, structure.shape, plan)
    template.slice(cut(template.coded_network(), structure.shape, plan), pruned, x)


@pytest.mark.parametrize(
    ("network", "x", "pairs"),
    [
        (ResNet20(), images(2, 3, 32, 32), 19),
        (MobileNet(), images(2, 3, 16, 16), 10),
        (nn.Sequential(nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)), images(2, 6), 1),
        (nn.Sequential(nn.Conv1d(3, 5, 3), nn.BatchNorm1d(5, affine=False)), images(2, 3, 9), 1),
    ],
)
def test_folding_keeps_the_function(network: nn.Module, x: Tensor, pairs: int) -> None:
    if not isinstance(network[-1] if isinstance(network, nn.Sequential) else None, nn.BatchNorm1d):
        seasoned(network)
    network.train()
    found = find_batchnorm_pairs(network, x)
    assert len(found) == pairs
    folded = fold_batchnorm(network, found)
    assert network.training
    assert not any(isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) for module in folded.modules())
    torch.testing.assert_close(folded(x), network.eval()(x), atol=1e-5, rtol=1e-5)
    state, quick = folded.state_dict(), folded_state(network, found)
    assert state.keys() == quick.keys()
    assert all(torch.equal(state[name], quick[name]) for name in state)
