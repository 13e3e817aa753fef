"""Whole branches: the inside of a residual block may go where the network does without it, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_random_graphs import SHAPE, networks
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.core.errors import NothingToPrune
from edgeprune.core.inputs import InputSpec
from edgeprune.core.runtimes import Format
from edgeprune.data.dataset import Preprocessing, Split
from edgeprune.exporters import EXPORTERS
from edgeprune.exporters.parity import compare
from edgeprune.exporters.slicing import Slicer
from edgeprune.models.zoo import build
from edgeprune.pruning.calibration import gram_matrices
from edgeprune.pruning.constant import Constant
from edgeprune.pruning.cost import count_macs, count_parameters
from edgeprune.pruning.criteria import Ranked
from edgeprune.pruning.groups import discover
from edgeprune.pruning.rankings import l1
from edgeprune.pruning.structure import Structure, neurons_left
from edgeprune.pruning.surgery import cut, prune
from edgeprune.pruning.widening import widen
from edgeprune.training.aware import learnt, rounding
from edgeprune.training.batches import Batches
from edgeprune.training.recalibration import recalibrate

IMAGES = (3, 16, 16)


def lively(network: nn.Module) -> nn.Module:
    """Norms that are not those of an untrained network: a mistake in their shifts would not show."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


def zoo(name: str) -> tuple[nn.Module, Structure, Ranked]:
    torch.manual_seed(0)
    network = lively(build(name, IMAGES, 10))
    structure = discover(network, IMAGES, runtime="onnxruntime")
    return network, structure, Ranked(network, structure, l1(network, structure), None)


def removable(structure: Structure) -> set[str]:
    return {group.name for group in structure.groups if group.removable}


def found(network: nn.Module, shape: object = IMAGES, **rules: object) -> set[str]:
    return removable(discover(network, shape, runtime="onnxruntime", **rules))  # type: ignore[arg-type]


# --- which may go


def test_blocks_with_a_shortcut_may_lose_their_inside() -> None:
    _, structure, _ = zoo("resnet20")
    assert removable(structure) == {f"layer{s}.{b}.conv1" for s in (1, 2, 3) for b in (0, 1, 2)}
    assert all(group.snap(group.floor - 1) == 0 for group in structure.groups if group.removable)


def test_blocks_that_begin_a_stream_stay() -> None:
    # Blocks 1, 3 and 5 of the MobileNet change its width: what they make others only add to.
    _, structure, _ = zoo("mobilenetv2-small")
    assert removable(structure) == {f"blocks.{number}.expand" for number in (0, 2, 4, 6)}


@pytest.mark.parametrize("name", ["ds-cnn", "lenet5"])
def test_without_shortcuts_none_may_go(name: str) -> None:
    assert found(build(name, (1, 28, 28), 10), (1, 28, 28)) == set()


def test_where_less_of_a_group_may_go_none_goes_as_a_whole() -> None:
    assert found(build("resnet20", IMAGES, 10), max_sparsity=0.8) == set()


class TwoSides(nn.Module):
    """Each input has a way of its own into one sum."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(5, 12)
        self.aa, self.bb = nn.Linear(8, 8), nn.Linear(12, 8)
        self.inner, self.outer, self.out = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        x = self.aa(F.relu(self.a(a))) + self.bb(F.relu(self.b(b)))
        return self.out(x + self.outer(F.relu(self.inner(x))))  # type: ignore[no-any-return]


def test_no_input_is_cut_off() -> None:
    shape = (InputSpec("a", (6,)), InputSpec("b", (5,)))
    assert found(TwoSides(), shape) == {"inner"}


class Bottleneck(nn.Module):
    """What its first layer makes is read by the second alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, 16, 3), nn.Linear(16, 4)
        self.one, self.two, self.three = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x + self.three(F.relu(self.two(F.relu(self.one(x)))))
        return self.out(x.mean((2, 3)))  # type: ignore[no-any-return]


class Excited(nn.Module):
    """As in MobileNetV3: what gates the inside of the branch is read for nobody without it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, 16, 3), nn.Linear(16, 4)
        self.expand, self.project = nn.Conv2d(16, 32, 1), nn.Conv2d(32, 16, 1)
        self.each = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.squeeze, self.excite = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.relu(self.each(F.relu(self.expand(x))))
        y = y * torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return self.out((x + self.project(y)).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "may_go", "name", "with_it"),
    [
        (Bottleneck, {"two"}, "two", ("one", "two")),
        # Without what tells the gate it is one number for each channel.
        (Excited, {"expand", "squeeze"}, "expand", ("expand", "each", "squeeze", "excite")),
    ],
)
def test_what_is_then_for_nobody_goes_with_it(
    kind: type[nn.Module], may_go: set[str], name: str, with_it: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    network = kind().eval()
    structure = discover(network, IMAGES, runtime="onnxruntime")
    assert removable(structure) == may_go
    criterion = Ranked(network, structure, l1(network, structure), None)
    whole = {group.name: group.channels for group in structure.groups}
    pruned = prune(criterion, structure, criterion.plan({**whole, name: 0}), check=True)
    assert all(pruned.get_submodule(layer).silent for layer in with_it)
    assert count_macs(pruned, IMAGES) == sum(structure.costs[layer].macs for layer in ("stem", "out"))


class Stacked(nn.Module):
    """A constant in the place of `two` would have to be repeated before it can be put beside something."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, 16, 3), nn.Linear(16, 4)
        self.one, self.two = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        both = torch.stack([x, self.two(F.relu(self.one(x)))])
        return self.out(both.sum(0).mean((2, 3)))  # type: ignore[no-any-return]


def test_what_a_file_could_not_have_stays() -> None:
    assert found(Stacked()) == set()


# --- what is left


@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2-small"])
def test_what_is_left_is_the_masked_network_and_costs_what_was_said(name: str) -> None:
    network, structure, criterion = zoo(name)
    whole = {group.name: group.channels for group in structure.groups}
    for group in (each for each in structure.groups if each.removable):
        plan = criterion.plan({**whole, group.name: 0})
        pruned = prune(criterion, structure, plan, check=True)
        reader = next(c for c in structure.couplings if c.group is group).consumers[0].layer
        silent = network.get_submodule(group.name), network.get_submodule(reader)
        # All of both layers, and of what lies between them, but for one number each of norms.
        gone = sum(layer.weight.numel() for layer in silent)  # type: ignore[operator, union-attr, misc]
        assert gone <= count_parameters(network) - count_parameters(pruned)
        done = {*structure.couplings[structure.groups.index(group)].makers, reader}
        lost = sum(structure.costs[layer].macs for layer in done)
        assert count_macs(network, IMAGES) - count_macs(pruned, IMAGES) == lost
        assert structure.neurons(pruned) == neurons_left(structure.groups, structure.neurons(network), plan.widths)


def test_what_was_added_on_average_still_is() -> None:
    # A constant behind a norm: with statistics of its own the norm answers with its shift, its mean before.
    network, structure, criterion = zoo("resnet20")
    plan = criterion.plan(
        {group.name: 0 if group.name == "layer1.1.conv1" else group.channels for group in structure.groups}
    )
    pruned = prune(criterion, structure, plan)
    recalibrate(pruned, [torch.randn(8, *IMAGES)])
    norm = pruned.get_submodule("layer1.1.bn2")
    answers: list[Tensor] = []
    norm.register_forward_hook(lambda _, __, answer: answers.append(answer))
    with torch.no_grad():
        pruned(torch.randn(2, *IMAGES))
    expected = network.get_submodule("layer1.1.bn2").bias
    assert torch.allclose(answers[0].mean((0, 2, 3)), expected, atol=1e-5)  # type: ignore[arg-type]


def test_readers_are_refitted_to_nothing_but_their_bias() -> None:
    torch.manual_seed(0)
    network = Plain().eval()
    structure = discover(network, IMAGES, runtime="onnxruntime")
    assert removable(structure) == {"one"}
    x = torch.randn(64, *IMAGES)
    readers = [consumer.layer for coupling in structure.couplings for consumer in coupling.consumers]
    grams = gram_matrices(network, readers, [x], len(x))
    criterion = Ranked(network, structure, l1(network, structure), grams)
    whole = {group.name: group.channels for group in structure.groups}
    pruned = prune(criterion, structure, criterion.plan({**whole, "one": 0}), check=True)
    with torch.no_grad():
        inside = network.two(F.relu(network.one(F.relu(network.stem(x)))))
    bias = pruned.get_submodule("two").bias
    assert torch.allclose(bias, inside.mean((0, 2, 3)), atol=1e-3)  # type: ignore[arg-type]
    # It stays: what is learnt around it is not made uneasy by a bias in front of a norm.
    pruned.train()(x).square().sum().backward()
    assert bias.grad is None  # type: ignore[union-attr]


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, 16, 3), nn.Linear(16, 4)
        self.one, self.two = nn.Conv2d(16, 16, 3, padding="same"), nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.out((x + self.two(F.relu(self.one(x)))).mean((2, 3)))  # type: ignore[no-any-return]


def test_it_learns_is_stored_and_is_widened_again(tmp_path: Path) -> None:
    network, structure, criterion = zoo("resnet20")
    plan = criterion.plan({group.name: group.least for group in structure.groups})
    pruned = prune(criterion, structure, plan).train()
    before = pruned.get_submodule("layer1.0.bn2").bias.detach().clone()  # type: ignore[operator, union-attr]
    optimizer = torch.optim.SGD(pruned.parameters(), lr=0.1)
    pruned(torch.randn(8, *IMAGES)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(before, pruned.get_submodule("layer1.0.bn2").bias)  # type: ignore[arg-type]
    torch.save(pruned.state_dict(), tmp_path / "w.pt")
    again = cut(network, IMAGES, plan)
    again.load_state_dict(torch.load(tmp_path / "w.pt", weights_only=True))
    x = torch.randn(4, *IMAGES)
    with torch.no_grad():
        answers = pruned.eval()(x)
        assert torch.equal(again(x), answers)
        assert torch.allclose(widen(network, structure, plan, pruned)(x), answers, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), torch.randn(2, 3, 9, 8)),
        (nn.Conv2d(3, 5, 4, padding="same"), torch.randn(2, 3, 9, 8)),
        (nn.Conv1d(3, 5, 3, stride=2, padding="valid"), torch.randn(2, 3, 9)),
        (nn.Conv3d(3, 5, 2, padding=1), torch.randn(2, 3, 4, 5, 6)),
        (nn.Linear(3, 5), torch.randn(2, 7, 3)),
        (nn.Linear(3, 5, bias=False), torch.randn(2, 3)),
    ],
)
def test_a_constant_answers_as_a_layer_of_zeros_does(layer: nn.Module, x: Tensor) -> None:
    constant = Constant(layer, silent=False)  # type: ignore[arg-type]
    nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
    with torch.no_grad():
        assert torch.equal(constant(x), layer(x))
        assert torch.equal(constant.value(x).expand_as(layer(x)), layer(x))


# --- files


def operators(format: Format, path: Path) -> list[object]:
    if format == "onnx":
        import onnx

        return [node.op_type for node in onnx.load(path).graph.node]
    from edgeprune.artifacts.tflite_file import codes_of, load_tflite

    model = load_tflite(path)
    return [codes_of(model)[op.opcodeIndex] for op in model.subgraphs[0].operators]


@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2-small"])
@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_a_candidate_is_sliced_into_the_file_that_would_be_exported(name: str, format: Format, tmp_path: Path) -> None:
    network, structure, criterion = zoo(name)
    x = torch.randn(4, *IMAGES)
    slicer = Slicer(network, structure, x[:2], format, criterion.plan, partial(prune, criterion, structure))
    gone = sorted(removable(structure))
    some: dict[str, Callable[[str], bool]] = {"all": lambda _: True, "every other": lambda g: gone.index(g) % 2 == 0}
    for part, which in some.items():
        widths = {
            group.name: 0 if group.removable and which(group.name) else group.snap(0.55 * group.channels)
            for group in structure.groups
        }
        plan = criterion.plan(widths)
        assert slicer.fits(plan)
        pruned = prune(criterion, structure, plan)
        sliced, real = tmp_path / f"sliced.{format}", tmp_path / f"real.{format}"
        sliced.write_bytes(slicer.slice(pruned, plan, x))
        EXPORTERS[format].export(pruned, x[:2], real, {})
        # Where no convolution follows in the last stage the TFLite converter leaves channels where they were.
        if (name, format, part) != ("resnet20", "tflite", "all"):
            assert operators(format, sliced) == operators(format, real)
        assert compare(pruned, format, real.read_bytes(), x.numpy()).max_abs < 1e-4
        # A branch that is gone leaves numbers for its channels, and no layer.
        whole = tmp_path / f"whole.{format}"
        EXPORTERS[format].export(network, x[:2], whole, {})
        assert len(operators(format, sliced)) < len(operators(format, whole))


class InPlace(nn.Module):
    """As torchvision writes its blocks: what is added, and activations, are written into what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out, self.relu = nn.Conv2d(3, 16, 3), nn.Linear(16, 4), nn.ReLU(inplace=True)
        self.one, self.norm_one = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.two, self.norm_two = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        x = identity = self.relu(self.stem(x))
        out = self.relu(self.norm_one(self.one(x)))
        out = self.norm_two(self.two(out))
        out += identity
        return self.out(self.relu(out).mean((2, 3)))  # type: ignore[no-any-return]


class Unbiased(nn.Module):
    """Norms stand first, and nothing is left of the layer behind them but zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, 16, 3), nn.Linear(16, 4)
        self.norm_one, self.one = nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm_two, self.two = nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.two(F.relu(self.norm_two(self.one(F.relu(self.norm_one(x))))))
        return self.out(F.relu(x).mean((2, 3)))  # type: ignore[no-any-return]


class Turned(nn.Module):
    """As in ConvNeXt: channels last inside of the branch, and turned back behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = nn.Conv2d(3, 16, 3), nn.Linear(16, 4)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.scale = nn.Parameter(torch.rand(16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.scale * self.down(F.gelu(self.up(x.permute(0, 2, 3, 1))))
        return self.out((x + y.permute(0, 3, 1, 2)).mean((2, 3)))  # type: ignore[no-any-return]


class Words(nn.Module):
    """Of a transformer: its file holds the stream's width as numbers, too, which are learnt from other exports."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.out = nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 4)
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        n, length, _ = x.shape
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return self.out(x.reshape(n * length, -1).reshape(n, length, -1).mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "shape", "format"),
    [
        *((kind, IMAGES, format) for kind in (InPlace, Unbiased, Bottleneck) for format in ("onnx", "tflite")),
        # The TFLite converter multiplies weights of one with those of another: every candidate is exported.
        (Words, (5, 6), "onnx"),
        (Turned, IMAGES, "onnx"),
    ],
)
def test_networks_as_people_write_them(
    kind: type[nn.Module], shape: tuple[int, ...], format: Format, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = lively(kind())
    structure = discover(network, shape, runtime="onnxruntime", multiple_of=1, prune_inputs=False)
    (name,) = removable(structure)
    criterion = Ranked(network, structure, l1(network, structure), None)
    x = torch.randn(4, *shape)
    slicer = Slicer(network, structure, x[:2], format, criterion.plan, partial(prune, criterion, structure))
    assert slicer.branches_refused is None
    for share in (1.0, 0.6):
        plan = criterion.plan({g.name: 0 if g.name == name else g.snap(share * g.channels) for g in structure.groups})
        pruned = prune(criterion, structure, plan, check=True)
        slicer.slice(pruned, plan, x)
        real = EXPORTERS[format].export(pruned, x[:2], tmp_path / f"real.{format}", {}).path
        assert compare(pruned, format, real.read_bytes(), x.numpy()).max_abs < 1e-4


def test_eight_bits_are_learnt_around_it() -> None:
    network = lively(InPlace())
    structure = discover(network, IMAGES, runtime="onnxruntime")
    criterion = Ranked(network, structure, l1(network, structure), None)
    pruned = prune(criterion, structure, criterion.plan({g.name: g.least for g in structure.groups}))
    x = np.random.default_rng(0).normal(size=(40, *IMAGES)).astype(np.float32)
    batches = Batches(Split(x, np.zeros(40, np.int64)), Preprocessing(1.0, (0.0,), (1.0,)))
    rounded = rounding(pruned, batches, 40)
    rounded.train()(torch.from_numpy(x)).sum().backward()
    plain = learnt(pruned, rounded, batches)
    with torch.no_grad():
        close = (plain(torch.from_numpy(x)) - pruned(torch.from_numpy(x))).abs().max()
    # Weights are rounded.
    assert close < 0.02 * plain(torch.from_numpy(x)).abs().max()


@settings(max_examples=25, deadline=None)
@given(networks(), st.data())
def test_any_of_them_may_go_from_any_network(network: nn.Module, data: st.DataObject) -> None:
    try:
        structure = discover(network, SHAPE, runtime="onnxruntime")
    except NothingToPrune:
        return
    criterion = Ranked(network, structure, l1(network, structure), None)
    widths = {
        group.name: data.draw(st.sampled_from([group.least, group.floor, group.channels])) for group in structure.groups
    }
    prune(criterion, structure, criterion.plan(widths), check=True)
