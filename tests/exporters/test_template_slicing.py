"""A sliced file computes what its pruned network computes, in the default runtimes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exporter_nets import Kept, LeNet5, Mlp, MobileNet, ResNet20, images, operate, seasoned, some
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.artifacts import describe, run_model
from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import EdgepruneError, ExportError, SurgeryError
from edgeprune.core.runtimes import Format
from edgeprune.exporters import EXPORTERS, Template, TemplateError
from edgeprune.exporters import codes as codes_module
from edgeprune.exporters.slicing import Slicer
from edgeprune.models.zoo import build
from edgeprune.pruning.channels import follow
from edgeprune.pruning.folding import find_batchnorm_pairs, find_lone_batchnorms
from edgeprune.pruning.groups import discover
from edgeprune.pruning.inputs import SelectedInputs
from edgeprune.pruning.structure import Structure
from edgeprune.pruning.surgery import cut

FORMATS: tuple[Format, ...] = ("onnx", "tflite")
MNIST, CIFAR = images(3, 1, 28, 28), images(3, 3, 32, 32)


def assert_same(network: nn.Module, format: Format, data: bytes, x: Tensor) -> None:
    with torch.no_grad():
        expected = network(x).numpy()
    np.testing.assert_allclose(run_model(format, data, x.numpy()), expected, atol=1e-5)


def slice_widths(
    template: Template, network: nn.Module, x: Tensor, kept: Kept, inputs: list[int] | None = None
) -> bytes:
    coded, pruned = (operate(n, x, kept, inputs) for n in (template.coded_network(), network))
    data = template.slice(coded, pruned)
    assert_same(pruned, template.format, data, x)
    return data


NETS: dict[str, tuple[Callable[[], nn.Module], Tensor, dict[str, int]]] = {
    "lenet5": (LeNet5, MNIST, {"conv1": 6, "conv2": 16, "fc1": 84}),
    "resnet20": (
        ResNet20,
        CIFAR,
        {f"blocks.{i}.conv1": 16 * 2 ** (i // 3) for i in range(9)},
    ),
    "mobilenet": (
        MobileNet,
        images(3, 3, 16, 16),
        {"stem": 8, "one.expand": 24, "two.expand": 24, "two.project": 12, "three.expand": 36},
    ),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "name", ["lenet5", *(pytest.param(n, marks=pytest.mark.soak) for n in ("mobilenet", "resnet20"))]
)
def test_convolutions(name: str, format: Format) -> None:
    make, x, widths = NETS[name]
    network = seasoned(make())
    template = Template.build(network, x, format)
    for width in (lambda c: c // 2, lambda c: (3 * c // 4) | 1, lambda _: 1, lambda c: c):
        slice_widths(template, network, x, {layer: some(c, min(c, width(c))) for layer, c in widths.items()})


@pytest.mark.parametrize("format", FORMATS)
def test_mlp_with_pruned_inputs(format: Format) -> None:
    network = Mlp().eval()
    template = Template.build(network, MNIST, format, input_layer="fc1")
    for first, second, inputs in ((150, 51, 393), (1, 1, 1), (300, 100, 784), (7, 100, 783)):
        kept = {"fc1": some(300, first), "fc2": some(100, second)}
        slice_widths(template, network, MNIST, kept, some(784, inputs))
        slice_widths(template, network, MNIST, kept)


@pytest.mark.parametrize("format", FORMATS)
def test_inputs_that_were_selected_before(format: Format) -> None:
    network = Mlp(20, 8, 6).eval()
    network.fc1 = SelectedInputs(nn.Linear(5, 8), torch.tensor([3, 2, 17, 11, 19]))
    x = images(3, 20)
    template = Template.build(network, x, format)
    slice_widths(template, network, x, {"fc2": [0, 5]})
    slice_widths(template, network, x, {"fc2": [0, 5]}, [3, 17, 19])


@pytest.mark.soak
@pytest.mark.parametrize("format", FORMATS)
def test_a_sliced_file_is_as_large_as_a_real_export(format: Format, tmp_path) -> None:
    network = Mlp(64, 32, 16).eval()
    x = images(2, 64)
    data = slice_widths(Template.build(network, x, format), network, x, {"fc1": some(32, 9)})
    path = tmp_path / f"sliced.{format}"
    path.write_bytes(data)
    real = EXPORTERS[format].export(operate(network, x, {"fc1": some(32, 9)}), x, tmp_path / f"real.{format}", {})
    sliced = describe(path)
    assert abs(sliced.bytes - real.bytes) < 400
    assert (sliced.inputs, sliced.outputs) == (real.inputs, real.outputs)


@pytest.mark.parametrize("format", FORMATS)
def test_tflite_stores_the_candidates_shapes_and_onnx_none(format: Format, tmp_path) -> None:
    network = LeNet5().eval()
    data = slice_widths(Template.build(network, MNIST, format), network, MNIST, {"conv1": [0, 4, 5], "conv2": [3]})
    if format == "onnx":
        import onnx

        assert not onnx.load_from_string(data).graph.value_info
        return
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.ModelT.InitFromPackedBuf(data, 0).subgraphs[0]
    shapes = {tuple(map(int, tensor.shape)) for tensor in graph.tensors}
    assert {(1, 28, 28, 3), (1, 10, 10, 1), (1, 25)} <= shapes
    assert not {(1, 28, 28, 6), (1, 10, 10, 16), (1, 400)} & shapes


@pytest.mark.parametrize("format", FORMATS)
def test_batchnorm_behind_a_selected_input_layer_is_folded(format: Format) -> None:
    network = seasoned(nn.Sequential())
    network.fc1 = nn.Linear(12, 9, bias=False)
    network.bn = nn.BatchNorm1d(9)
    network.relu, network.fc2 = nn.ReLU(), nn.Linear(9, 4)
    seasoned(network)
    x = images(3, 12)
    template = Template.build(network, x, format, input_layer="fc1")
    slice_widths(template, network, x, {"fc1": [0, 1, 8]}, [2, 3, 11])


class NormApart(nn.Module):
    """Normalisations that no layer takes in, as in pre-activation ResNets and DenseNets: here they follow a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3)
        self.last, self.fc = nn.BatchNorm2d(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(F.max_pool2d(self.one(x), 2)))
        return self.fc(torch.relu(self.last(F.max_pool2d(self.two(x), 2))).mean((2, 3)))


@pytest.mark.parametrize("format", FORMATS)
def test_a_norm_that_no_layer_takes_in_is_sliced(format: Format) -> None:
    network, x = seasoned(NormApart()), images(2, 3, 16, 16)
    assert find_lone_batchnorms(network, find_batchnorm_pairs(network, x)) == ["norm", "last"]
    template = Template.build(network, x, format)
    for kept in ({"one": [0, 5, 7]}, {"one": [3], "two": [1, 2, 5]}, {}):
        slice_widths(template, network, x, kept)


def test_arithmetic_on_weights_is_refused() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.fc = nn.Parameter(torch.ones(6)), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x * torch.exp(self.scale))

    with pytest.raises(TemplateError, match="does arithmetic on 'scale"):
        Template.build(Scaled().eval(), images(2, 6), "tflite")


def test_what_nothing_reads_is_dropped_and_the_rest_sliced() -> None:
    network, x = Mlp(20, 8, 6).eval(), images(2, 20)
    network.spare = nn.Linear(3, 3)
    template = Template.build(network, x, "onnx")
    slice_widths(template, network, x, {"fc1": [0, 5, 7]})


class _Waves(nn.Module):
    """Large multiples of its activations, of which codes in the place of weights leave no right figure."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(2, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.sin(30 * self.two(torch.sin(30 * self.one(x)))))


def test_what_cannot_be_exported_with_codes_is_not_sliced_and_no_more(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, x = _Waves().eval(), torch.rand(2, 2)
    EXPORTERS["tflite"].export(network, x, tmp_path / "real.tflite", {})
    with pytest.raises(TemplateError, match="with other numbers as weights"):
        Template.build(network, x, "tflite")


def test_too_many_parameters_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(codes_module, "MAX_CODES", 100)
    with pytest.raises(TemplateError, match="parameters are more than 100"):
        Template.build(Mlp(20, 8, 6).eval(), images(2, 20), "onnx")


def test_wrong_surgery_is_refused() -> None:
    network = Mlp(20, 8, 6).eval()
    x = images(2, 20)
    template = Template.build(network, x, "onnx")
    pruned = operate(network, x, {"fc1": [0, 1]})
    with pytest.raises(TemplateError, match="has no like"):
        template.slice(operate(template.coded_network(), x, {"fc1": [0, 1, 2]}), pruned)
    with pytest.raises(TemplateError, match="rewrote"):
        template.slice(pruned, pruned)
    # Other channels of the same number are no mistake: values go where their codes are.
    other = operate(template.coded_network(), x, {"fc2": [0, 1, 2, 3, 5]})
    template.slice(other, operate(network, x, {"fc2": [0, 1, 2, 3, 4]}), check=x)
    ragged = template.coded_network()
    ragged.fc1.weight.data[0, 0] = ragged.fc1.weight.data[0, 1]
    with pytest.raises(TemplateError, match="whole channels"):
        template.slice(ragged, network)


def test_a_file_that_computes_something_else_is_refused() -> None:
    network = Mlp(20, 8, 6).eval()
    x = images(2, 20)
    template = Template.build(network, x, "onnx")
    coded = template.coded_network()
    coded.fc1.weight.data = coded.fc1.weight.data.flip(0)
    with pytest.raises(TemplateError, match="differs by"):
        template.slice(coded, network, check=x)


@pytest.mark.parametrize("format", FORMATS)
def test_channels_of_zeros_are_padded_as_they_are_left(format: Format) -> None:
    shape = (3, 8, 8)
    network = build("resnet20", shape, 10).eval()
    structure = discover(network, shape, runtime="onnxruntime", multiple_of=1)
    template = Template.build(network, torch.rand(2, *shape), format)
    coded = follow(template.coded_network(), shape)
    for step in (2, 3):
        plan = PruningPlan({g.name: tuple(range(step - 1, g.channels, step)) for g in structure.groups})
        pruned = cut(network, shape, plan, structure.graph)
        narrow = cut(template.coded_network(), shape, plan, coded)
        # It compares the file with the network.
        template.slice(narrow, pruned, torch.rand(2, *shape), structure.graph.padded(plan))
    with pytest.raises(TemplateError, match="cannot slice"):
        template.slice(narrow, pruned, torch.rand(2, *shape))
    with pytest.raises(TemplateError, match="pads channels elsewhere"):
        template.slice(narrow, pruned, torch.rand(2, *shape), structure.graph.padded(plan)[:1])


class Recurrent(nn.Module):
    """The last step of two recurrent layers; `state`: what the first begins with."""

    def __init__(self, kind: type[nn.RNNBase], state: float | None = None) -> None:
        super().__init__()
        self.body, self.fc, self.state = kind(5, 12, 2, batch_first=True), nn.Linear(12, 4), state

    def forward(self, x: Tensor) -> Tensor:
        begin = None if self.state is None else torch.full((2, x.shape[0], 12), self.state)
        return self.fc(self.body(x, begin)[0][:, -1])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_are_sliced_and_begin_at_zero_by_themselves(kind: type[nn.RNNBase]) -> None:
    network, x = Recurrent(kind).eval(), images(3, 7, 5)
    structure = discover(network, (7, 5), runtime="onnxruntime", prune_inputs=False)
    template = Template.build(network, x, "onnx")
    for kept in ((0, 5, 7), (11,), tuple(range(12))):
        plan = PruningPlan({group.name: kept for group in structure.groups})
        pruned = cut(network, structure.shape, plan)
        template.slice(cut(template.coded_network(), structure.shape, plan), pruned, x)


@pytest.mark.parametrize("state", [0.0, 0.5])
def test_a_state_of_ones_own_stays_unless_it_is_zero(state: float, tmp_path: Path) -> None:
    network, x = Recurrent(nn.GRU, state).eval(), images(3, 7, 5)
    file = EXPORTERS["onnx"].export(network, x, tmp_path / "model.onnx", {}).path
    assert_same(network, "onnx", file.read_bytes(), x)
    graph = onnx.load(file).graph
    layers = [node for node in graph.node if node.op_type == "GRU"]
    assert [bool(node.input[5]) for node in layers] == [state != 0, state != 0]
    # What made the zeros went with them.
    assert ("Expand" in {node.op_type for node in graph.node}) == (state != 0)


class WithoutBias(nn.Module):
    """Layers without bias or norm, which a TFLite file gives a bias of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 3, groups=8, bias=False)
        self.up, self.fc = nn.ConvTranspose2d(8, 8, 2, 2, bias=False), nn.Linear(8, 8, bias=False)
        self.out = nn.Linear(8, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.up(torch.relu(self.two(torch.relu(self.one(x))))))
        return self.out(torch.relu(self.fc(x.mean((2, 3)))))


@pytest.mark.parametrize("format", FORMATS)
def test_layers_without_a_bias_are_sliced(format: Format) -> None:
    network, x = WithoutBias().eval(), images(2, 3, 8, 8)
    template = Template.build(network, x, format)
    # All of a width share one bias in the file, and each is cut to another.
    for kept in ({"one": [0, 5, 7]}, {"one": [3], "up": [1, 2, 5], "fc": [0, 1, 2, 6, 7]}, {}):
        slice_widths(template, network, x, kept)


class Shuffled(nn.Module):
    """Channels are split, shuffled and looked at in groups: sizes that stand in the file as numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Conv2d(3, 16, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(16, 12, 1)
        self.norm, self.head = nn.GroupNorm(4, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.one(x).relu().chunk(2, 1)
        x = torch.cat((left, self.two(right).relu()), 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(self.norm(self.three(x)).relu().mean((2, 3)))


class Attentive(nn.Module):
    """Two heads of self-attention: heads, their width and the stream can be narrowed."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(16, 2, batch_first=True)
        self.embed, self.norm = nn.Linear(6, 16), nn.LayerNorm(16)
        self.up, self.down, self.head = nn.Linear(16, 24), nn.Linear(24, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        y = self.norm(x)
        x = x + self.attend(y, y, y, need_weights=False)[0]
        return self.head((x + self.down(self.up(x).relu())).mean(1))


def slicer_of(network: nn.Module, shape: tuple[int, ...], format: Format) -> tuple[Slicer, Structure]:
    structure = discover(network, shape, runtime="onnxruntime", multiple_of=1, prune_inputs=False)

    def prune(plan: PruningPlan) -> nn.Module:
        return cut(network, shape, plan, structure.graph)

    def first(widths: dict[str, int]) -> PruningPlan:
        return PruningPlan({name: tuple(range(width)) for name, width in widths.items()})

    return Slicer(network, structure, images(2, *shape), format, first, prune), structure


@pytest.mark.parametrize(
    ("make", "shape", "format"),
    [
        (Shuffled, (3, 8, 8), "onnx"),
        (Attentive, (5, 6), "onnx"),
        pytest.param(Shuffled, (3, 8, 8), "tflite", marks=pytest.mark.soak),
        pytest.param(lambda: Recurrent(nn.LSTM), (7, 5), "tflite", marks=pytest.mark.soak),
    ],
)
def test_numbers_that_follow_from_widths_are_learnt_from_other_exports(
    make: Callable[[], nn.Module], shape: tuple[int, ...], format: Format, tmp_path: Path
) -> None:
    network = make().eval()
    slicer, structure = slicer_of(network, shape, format)
    for step in (2, 3):
        kept = {g.name: tuple(range(0, g.channels, step)) for g in structure.groups}
        plan = PruningPlan({g.name: kept[g.name] for g in structure.groups if len(kept[g.name]) >= g.floor})
        pruned = cut(network, shape, plan, structure.graph)
        data = slicer.slice(pruned, plan)
        x = images(3, *shape)
        assert_same(pruned, format, data, x)
        whole = EXPORTERS[format].export(pruned, x, tmp_path / f"model.{format}", {}).path
        # Nothing of the unpruned network is carried along.
        assert len(data) < 1.3 * whole.stat().st_size


@pytest.mark.parametrize("error", [ExportError("the converter died"), SurgeryError("no such width")])
def test_whatever_fails_at_other_widths_is_no_more_than_not_sliced(
    error: EdgepruneError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(Template, "learn", fails)
    with pytest.raises(TemplateError, match=f"cannot slice: .*; {error.message}"):
        slicer_of(Shuffled().eval(), (3, 8, 8), "onnx")
