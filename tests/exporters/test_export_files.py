"""Real exports: parity, a batch that is dynamic, metadata, errors in one line, nothing printed."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from exporter_nets import LeNet5, Mlp, MobileNet, images, seasoned
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.artifacts import describe, read_metadata, run_model
from edgeprune.artifacts.tflite_file import pack
from edgeprune.core.artifact import TensorSpec
from edgeprune.core.errors import ExportError, ModelError, StorageError
from edgeprune.core.runtimes import FORMATS, Format, runtime_for
from edgeprune.exporters import EXPORTERS, Template, TemplateError, check_parity

METADATA = {"model": "lenet", "kept": {"fc1": [1, 2]}, "note": "é\n"}


def small() -> nn.Module:
    return Mlp(20, 8, 6).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> dict[Format, bytes]:
    """The files of `small()` with METADATA, exported once."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    network = small()
    for format in FORMATS:
        EXPORTERS[format].export(network, images(2, 20), folder / f"net.{format}", METADATA)
    return {format: (folder / f"net.{format}").read_bytes() for format in FORMATS}


def again() -> nn.Module:
    """The network that `exported` holds."""
    torch.manual_seed(0)
    return small()


def test_every_format_has_its_rows() -> None:
    assert set(EXPORTERS) == set(FORMATS) == {runtime_for(name).format.name for name in FORMATS}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("make", "x"), [(LeNet5, images(5, 1, 28, 28)), (MobileNet, images(5, 3, 16, 16))])
def test_file_computes_what_the_network_computes(make, x: Tensor, format: Format, tmp_path: Path) -> None:
    network = seasoned(make()).train()
    artifact = EXPORTERS[format].export(network, x, tmp_path / f"net.{format}", METADATA)
    parity = check_parity(network, artifact, x.numpy())
    assert parity.max_abs < 1e-5
    assert (parity.agreement, parity.images) == (1.0, 5)
    assert network.training
    assert read_metadata(artifact.path) == METADATA
    assert artifact == describe(artifact.path)
    batch = None if format == "onnx" else 1
    assert artifact.inputs == (TensorSpec("input", (batch, *x.shape[1:]), "float32"),)
    assert artifact.outputs == (TensorSpec("logits", (batch, 10), "float32"),)
    assert artifact.precision == "fp32"
    assert list(tmp_path.iterdir()) == [artifact.path]


def test_onnx_batch_is_dynamic(tmp_path: Path) -> None:
    import onnxruntime

    network = LeNet5().eval()
    artifact = EXPORTERS["onnx"].export(network, images(2, 1, 28, 28), tmp_path / "net.onnx", {})
    session = onnxruntime.InferenceSession(str(artifact.path), providers=["CPUExecutionProvider"])
    for size in (1, 2, 5):
        x = images(size, 1, 28, 28)
        (logits,) = session.run(["logits"], {"input": x.numpy()})
        np.testing.assert_allclose(logits, network(x).detach().numpy(), atol=1e-5)


class _Contracted(nn.Module):
    """Three factors in one product, as attention without softmax has them."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(x.shape[0], 4, 5)
        return torch.einsum("nij,njk,nk->ni", x, x.transpose(1, 2), x.sum(2))


def test_the_batch_of_a_product_of_three_is_dynamic(tmp_path: Path) -> None:
    artifact = EXPORTERS["onnx"].export(_Contracted().eval(), images(2, 20), tmp_path / "net.onnx", {})
    assert check_parity(_Contracted(), artifact, images(5, 20).numpy()).max_abs < 1e-5


def _rows(x: Tensor) -> Tensor:
    return x.view(len(x), -1)


class _Measured(nn.Module):
    """Of PyTorch's first examples: the batch is the length of a tensor; so is that of a list."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 3)])

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(len(x), 2, 4)
        assert len(self.parts) == 2
        for place in range(len(self.parts)):
            x = self.parts[place](_rows(x))
        return x


def test_the_length_of_a_tensor_is_its_batch(tmp_path: Path) -> None:
    artifact = EXPORTERS["onnx"].export(net := _Measured().eval(), images(2, 8), tmp_path / "net.onnx", {})
    assert check_parity(net, artifact, images(5, 8).numpy()).max_abs < 1e-5
    assert "len" not in globals()


class _Attention(nn.Module):
    def __init__(self, axes: tuple[int, ...], mask: str) -> None:
        super().__init__()
        self.axes, self.mask, self.qkv, self.out = axes, mask, nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x.view(x.shape[0], *self.axes, 4)).chunk(3, -1)
        near = torch.ones(self.axes[-1], self.axes[-1], dtype=torch.bool).tril()
        masks = {"": {}, "causal": {"is_causal": True}, "given": {"attn_mask": near}}
        masks["wide"] = {"attn_mask": torch.where(near.expand(*self.axes[:-1], *near.shape), 0.0, -1.0)}
        return self.out(F.scaled_dot_product_attention(q, k, value=v, **masks[self.mask]).flatten(1, -2).mean(1))


@pytest.mark.parametrize(
    ("axes", "mask"),
    [((6,), ""), ((6,), "causal"), ((6,), "given"), ((2, 3), "wide"), ((2, 3, 4), "causal"), ((2, 3, 4), "wide")],
)
def test_attention_with_any_number_of_axes(axes: tuple[int, ...], mask: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = _Attention(axes, mask).eval(), torch.randn(5, 4 * int(np.prod(axes)))
    file = EXPORTERS["onnx"].export(net, x[:2], tmp_path / "net.onnx", {})
    assert check_parity(net, file, x.numpy()).max_abs < 1e-5


@pytest.mark.parametrize("format", FORMATS)
def test_exports_are_deterministic_and_tell_no_paths(format: Format, tmp_path: Path, exported) -> None:
    artifact = EXPORTERS[format].export(again(), images(2, 20), tmp_path / f"net.{format}", METADATA)
    assert artifact.path.read_bytes() == exported[format]
    assert b"exporter_nets.py" not in exported[format]


def test_tflite_constants_are_aligned_for_mapping(exported) -> None:
    from ai_edge_litert import schema_py_generated as schema

    data = np.frombuffer(exported["tflite"], np.uint8)
    model = schema.Model.GetRootAs(data, 0)
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.DataLength():
            offset = buffer.DataAsNumpy().__array_interface__["data"][0] - data.__array_interface__["data"][0]
            assert offset % 16 == 0


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_is_printed(format: Format, tmp_path: Path, capfd, monkeypatch) -> None:
    # pytest replaces sys.stdout by a file of its own; put back what writes to the descriptors.
    with open(1, "w", closefd=False) as out, open(2, "w", closefd=False) as err:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        artifact = EXPORTERS[format].export(small(), images(2, 20), tmp_path / f"net.{format}", {})
        check_parity(small(), artifact, images(2, 20).numpy())
        monkeypatch.undo()
    assert capfd.readouterr() == ("", "")


class Bessel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(self.fc(x))


def test_the_reason_names_the_operator_and_the_line_of_the_users_forward(tmp_path: Path) -> None:
    file = tmp_path / "spectral.py"
    text = "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x):\n"
    text += "        return torch.fft.rfft(x, dim=-1).permute(1, 0).abs()\n"
    file.write_text(text)
    space: dict[str, type[nn.Module]] = {}
    exec(compile(text, str(file), "exec"), space)
    with pytest.raises(ExportError, match=r"complex<f32> \(at aten\.\w+\.\w+, spectral\.py line 4\)$"):
        EXPORTERS["tflite"].export(space["Net"]().eval(), images(1, 4), tmp_path / "net.tflite", {})


class Frozen(Bessel):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.reshape(2, 4))


@pytest.mark.parametrize("format", FORMATS)
def test_unknown_operation_is_named_in_one_line(format: Format, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=rf"(?i)cannot export to {format}: .*bessel_j0") as caught:
        EXPORTERS[format].export(Bessel().eval(), images(2, 4), tmp_path / f"net.{format}", {})
    assert "\n" not in str(caught.value)
    assert caught.value.__notes__
    assert not list(tmp_path.iterdir())


def test_a_composite_operator_makes_a_second_subgraph_and_runs(tmp_path: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.LocalResponseNorm(3), nn.Flatten(), nn.Linear(32, 10)).eval()
    x = images(4, 1, 4, 4)
    artifact = EXPORTERS["tflite"].export(network, x, tmp_path / "net.tflite", METADATA)
    assert len(schema.ModelT.InitFromPackedBuf(artifact.path.read_bytes(), 0).subgraphs) > 1
    assert check_parity(network, artifact, x.numpy()).max_abs < 1e-5
    # Its candidates are exported one by one: of several subgraphs slicing knows nothing.
    with pytest.raises(TemplateError, match="several subgraphs"):
        Template.build(network, x, "tflite")


def test_onnx_refuses_what_would_freeze_the_batch(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="fewer than 2 images"):
        EXPORTERS["onnx"].export(small(), images(1, 20), tmp_path / "net.onnx", {})
    with pytest.raises(ExportError, match="batch dimension was frozen"):
        EXPORTERS["onnx"].export(Frozen().eval(), images(2, 4), tmp_path / "net.onnx", {})


@pytest.mark.parametrize("format", FORMATS)
def test_full_disk_is_a_storage_error(format: Format, tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="no space left"):
        EXPORTERS[format].export(small(), images(2, 20), tmp_path / f"net.{format}", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"garbage" * 50, b"\x1c\0\0\0TFL3", b"\x1c\0\0\0TFL3" + bytes(range(256))])
@pytest.mark.parametrize("format", FORMATS)
def test_bad_files_are_one_line(content: bytes, format: Format, tmp_path: Path) -> None:
    path = tmp_path / f"net.{format}"
    path.write_bytes(content)
    for read in (describe, read_metadata, lambda p: run_model(format, p, images(1, 20).numpy())):
        with pytest.raises(ExportError) as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format", FORMATS)
def test_truncated_and_missing_files(format: Format, tmp_path: Path, exported) -> None:
    path = tmp_path / f"net.{format}"
    path.write_bytes(exported[format])
    artifact = describe(path)
    path.write_bytes(exported[format][: artifact.bytes // 2])
    with pytest.raises(ExportError):
        describe(artifact.path)
    with pytest.raises(ExportError, match="does not run"):
        check_parity(small(), artifact, images(2, 20).numpy())
    with pytest.raises(ExportError, match="No such file"):
        describe(tmp_path / f"none.{format}")


def test_unknown_suffix_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"did you mean '\.onnx'"):
        describe(tmp_path / "net.onx")


BAD_METADATA = (
    ("{", "not JSON"),
    (json.dumps([1]), "valid dictionary"),
    ('{"preprocessing": {"scale": NaN, "mean": [0], "std": [1]}}', "expected a finite number, got NaN"),
    ('{"preprocessing": {"scale": 1e400, "mean": [0], "std": [1]}}', "expected a finite number, got 1e400"),
    ('{"preprocessing": {"scale": 1, "mean": [0], "std": [0]}}', "expected every std above 0, got 0.0 at place 0"),
    ('{"preprocessing": {"scale": 1, "mean": [0, 1, 2, 5], "std": [1, 1]}}', "as many means as stds, got 4 and 2"),
    ('{"preprocessing": {"scale": 1, "mean": [0], "std": [1]}, "input_shape": [3, 8, 8]}', "expected 3 means"),
    ('{"preprocessing": {"scale": 1, "mean": [0]}}', "std: "),
    ('{"preprocessing": 7}', "preprocessing: "),
    ('{"classes": [0, 1]}', r"classes\.0: .*string"),
    ('{"classes": []}', "classes: "),
    ('{"input_shape": [1, -8]}', r"input_shape\.1: "),
    ('{"kept_inputs": [-1]}', r"kept_inputs\.0: "),
    ('{"widths": {"fc1": "wide"}}', r"widths\.fc1: "),
    ('{"x": ' + "[" * 50_000 + "]" * 50_000 + "}", "nested too deeply"),
    ('{"x": ' + "[" * 60 + "]" * 60 + "}", "at most 40 deep"),
    ('{"classes": ' + "9" * 5000 + "}", "digits"),
)


def test_metadata_that_cannot_be_are_refused_in_tflite_too(tmp_path: Path, exported) -> None:
    from ai_edge_litert import schema_py_generated as schema

    path = tmp_path / "net.tflite"
    model = schema.ModelT.InitFromPackedBuf(exported["tflite"], 0)
    buffer = next(entry.buffer for entry in model.metadata if entry.name == b"edgeprune")
    for text, match in (*((text.encode(), match) for text, match in BAD_METADATA), (b"\x8e{}", "not UTF-8")):
        model.buffers[buffer].data = np.frombuffer(text, np.uint8)
        path.write_bytes(pack(model))
        with pytest.raises(ModelError, match=match) as refused:
            read_metadata(path)
        assert str(path) in refused.value.message
    model.buffers[buffer].data = None
    path.write_bytes(pack(model))
    with pytest.raises(ExportError, match=r"cannot read .*net\.tflite"):
        read_metadata(path)


def test_foreign_metadata_is_an_error(tmp_path: Path, exported) -> None:
    import onnx

    path = tmp_path / "net.onnx"
    model = onnx.load_from_string(exported["onnx"])
    for text, match in BAD_METADATA:
        model.metadata_props[0].value = text
        onnx.save(model, path)
        with pytest.raises(ModelError, match=match):
            read_metadata(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    assert read_metadata(path) == {}


@pytest.mark.parametrize("format", FORMATS)
def test_parity_sees_a_difference(format: Format, tmp_path: Path, exported) -> None:
    network = again()
    x = images(4, 20)
    path = tmp_path / f"net.{format}"
    path.write_bytes(exported[format])
    artifact = describe(path)
    network.fc3.bias.data += torch.arange(10.0)
    parity = check_parity(network, artifact, x.numpy())
    assert parity.max_abs == pytest.approx(9, abs=1e-5)
    assert parity.agreement < 1
    network.fc3.bias.data[0] = torch.nan
    assert np.isnan(check_parity(network, artifact, x.numpy()).max_abs)
    with pytest.raises(ExportError, match="at least one image"):
        check_parity(network, artifact, x[:0].numpy())
    with pytest.raises(ExportError, match="does not run"):
        check_parity(network, artifact, x[:, :7].numpy())
    network.fc3 = nn.Linear(6, 3)
    with pytest.raises(ExportError, match="gives outputs"):
        check_parity(network, artifact, x.numpy())


class _Gated(nn.Module):
    """Squeeze-and-excitation as it is often written, by an average and by a maximum."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.gate, self.out = nn.Conv2d(1, 4, 3), nn.Linear(4, 4), nn.Linear(4, 3)
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        pool = F.adaptive_max_pool2d if self.how == "maximum" else F.adaptive_avg_pool2d
        gate = torch.sigmoid(self.gate(pool(x, 1).flatten(1)))[..., None, None]
        wide = gate.expand_as(x) if self.how == "like" else gate.expand(-1, -1, 10, 10)
        if self.how == "swapped":
            return self.out((wide * x).mean((2, 3)))
        if self.how == "alone":
            # Nothing else is as large: it stays.
            return self.out(wide.cumsum(2).mean((2, 3)) + x.mean((2, 3)))
        return self.out((x * wide).mean((2, 3)))


@pytest.mark.parametrize("how", ["like", "sizes", "maximum", "swapped", "alone"])
def test_gates_that_are_expanded_and_pools_of_a_maximum(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = _Gated(how).eval(), torch.randn(5, 1, 12, 12)
    file = EXPORTERS["tflite"].export(net, x, tmp_path / "gated.tflite", {})
    assert check_parity(net, file, x.numpy()).max_abs < 1e-5


class _Tables(nn.Module):
    """What a forward works out of numbers alone: places of an image (CoordConv), a unit matrix (PointNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 4, 3), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, _, h, w = x.shape
        rows = torch.linspace(-1, 1, h).view(1, 1, h, 1).expand(n, 1, h, w)
        columns = torch.arange(w).float().expand(n, 1, h, w) / w
        x = F.adaptive_max_pool2d(self.conv(torch.cat([x, rows, columns], 1)), 4).flatten(2)
        x = F.adaptive_max_pool1d(x, 8) + F.adaptive_max_pool1d(x, 1)
        return self.out((x @ x.transpose(1, 2) + torch.eye(4)).flatten(1))


def test_tables_and_pools_with_windows_of_one_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = _Tables().eval(), torch.randn(5, 1, 10, 10)
    file = EXPORTERS["tflite"].export(net, x, tmp_path / "tables.tflite", {})
    assert check_parity(net, file, x.numpy()).max_abs < 1e-5


def test_a_pool_with_windows_that_overlap_is_named(tmp_path: Path) -> None:
    pool = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveMaxPool2d(3)).eval()
    with pytest.raises(ExportError, match=r"aten\.adaptive_max_pool2d"):
        EXPORTERS["tflite"].export(pool, torch.randn(2, 1, 12, 12), tmp_path / "pool.tflite", {})


@pytest.mark.parametrize(
    "layer", [nn.Conv1d(3, 4, 8, padding="same", dilation=2), nn.Conv2d(3, 4, (4, 3), padding="same", bias=False)]
)
def test_padding_by_a_word_that_is_not_the_same_on_both_sides(layer: nn.Module, tmp_path: Path) -> None:
    net, x = nn.Sequential(layer, nn.ReLU()).eval(), torch.randn(2, 3, 20, *([9] if layer.weight.ndim == 4 else []))
    file = EXPORTERS["tflite"].export(net, x, tmp_path / "padded.tflite", {})
    assert check_parity(net, file, x.numpy()).max_abs < 1e-5


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "more", "groups"),
    [(3, 2, 1, 1, 1), (5, 2, 2, 1, 2), (3, 2, 1, 0, 1), (6, 3, 1, 1, 1)],
)
@pytest.mark.parametrize("axes", [pytest.param(1, marks=pytest.mark.soak), 2])
def test_transposed_convolutions(
    kernel: int, stride: int, padding: int, more: int, groups: int, axes: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    first, wide = (nn.Conv1d, nn.ConvTranspose1d) if axes == 1 else (nn.Conv2d, nn.ConvTranspose2d)
    layer = wide(8, 4, kernel, stride, padding, more, groups)
    net, x = nn.Sequential(first(3, 8, 3), nn.ReLU(), layer, nn.ReLU()).eval(), torch.randn(2, 3, *[9] * axes)
    file = EXPORTERS["tflite"].export(net, x, tmp_path / "wide.tflite", {})
    assert check_parity(net, file, x.numpy()).max_abs < 1e-5


class _Repeated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 4, 3), nn.Conv2d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        places = x.mean((2, 3), keepdim=True).repeat(1, 2, x.shape[2], x.shape[3])
        return self.out(torch.cat([x.tile(2, 1, 1), places], 1))


def test_what_is_repeated(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = _Repeated().eval(), torch.randn(3, 3, 10, 10)
    file = EXPORTERS["tflite"].export(net, x, tmp_path / "repeated.tflite", {})
    assert check_parity(net, file, x.numpy()).max_abs < 1e-5


class _Pooled(nn.Module):
    """Context of the whole picture beside its places, as DeepLab has it, between a convolution and a resize."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.wide = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=2, dilation=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        pooled = y.mean((2, 3), keepdim=True).expand(-1, -1, y.shape[2], y.shape[3])
        y = torch.cat([y, F.relu(self.wide(y)), pooled], 1)
        return F.interpolate(y, scale_factor=4, mode="bilinear", align_corners=False)


def test_a_file_that_answers_something_else_is_made_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net, x = _Pooled().eval(), torch.randn(3, 3, 16, 16)
    file = EXPORTERS["tflite"].export(net, x, tmp_path / "pooled.tflite", {})
    assert check_parity(net, file, x.numpy()).max_abs < 1e-5
    monkeypatch.setattr("edgeprune.exporters.tflite.simplified", lambda *_: None)
    with pytest.raises(ExportError, match=r"cannot export to TFLite: (the file answers something else|.*BROADCAST_TO)"):
        EXPORTERS["tflite"].export(net, x, tmp_path / "other.tflite", {})
    assert not (tmp_path / "other.tflite").exists()
