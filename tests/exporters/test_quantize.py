"""Files at other precisions: what they weigh, what they say of themselves, and what they answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exporter_nets import LeNet5, Mlp
from handmade import ScaledLayer
from torch import Tensor, nn

from edgeprune.artifacts import read_metadata, run_model
from edgeprune.artifacts.running import Array
from edgeprune.core.errors import ExportError
from edgeprune.core.runtimes import PRECISIONS, Format, Precision
from edgeprune.exporters import EXPORTERS, export_at
from edgeprune.models.inputs import Inputs, Several, to_numpy

LOWER = PRECISIONS[1:]
#: How much of a float file's bytes a file may have at most: of weights a quarter, or half, is left.
MOST = {"fp16": 0.6, "int8": 0.45, "int8-dynamic": 0.45}


#: How far answers may be off, as a share of their spread: of untrained networks, whose answers hardly differ.
OFF = {"fp16": 0.01, "int8": 0.15, "int8-dynamic": 0.15}


class Two(nn.Module):
    """Tokens and a sensor."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.read, self.out = nn.Embedding(50, 64), nn.Linear(5, 64), nn.Linear(128, 3)

    def forward(self, tokens: Tensor, sensor: Tensor) -> Tensor:
        return self.out(torch.cat([self.words(tokens).mean(1), torch.relu(self.read(sensor))], 1))


def given(net: nn.Module, count: int) -> Inputs:
    generator = torch.Generator().manual_seed(1)
    if isinstance(net, Two):
        tokens = torch.randint(0, 50, (count, 7), generator=generator)
        return Several(("tokens", "sensor"), (tokens, torch.randn(count, 5, generator=generator)))
    return torch.randn(count, 1, 28, 28, generator=generator)


def made(net: nn.Module, kind: Format, precision: Precision, folder: Path) -> tuple[Path, Path, Array]:
    torch.manual_seed(0)
    examples = given(net, 64)
    source = EXPORTERS[kind].export(net.eval(), given(net, 2), folder / f"model.{kind}", {"classes": ["a", "b"]})
    artifact = export_at(source, folder / f"lower.{kind}", precision, to_numpy(examples), read_metadata(source.path))
    assert artifact.precision == precision
    assert artifact.inputs == source.inputs
    assert artifact.outputs == source.outputs
    return source.path, artifact.path, to_numpy(examples)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize("net", [Mlp, LeNet5, Two])
def test_it_is_smaller_and_answers_nearly_the_same(
    net: type[nn.Module], precision: Precision, kind: Format, tmp_path: Path
) -> None:
    source, path, examples = made(net(), kind, precision, tmp_path)
    expected, found = run_model(kind, source, examples), run_model(kind, path, examples)
    assert found.shape == expected.shape
    assert np.sqrt(np.mean((found - expected) ** 2)) < OFF[precision] * expected.std()
    assert not np.array_equal(found, expected)
    if net is Mlp:
        assert path.stat().st_size < MOST[precision] * source.stat().st_size
    # What the float file says, it says as well, and its precision.
    assert read_metadata(path) == {"classes": ["a", "b"], "precision": precision}


def test_onnx_files_take_any_batch_and_need_no_newer_runtime(tmp_path: Path) -> None:
    for precision in LOWER:
        source, path, _ = made(Mlp(), "onnx", precision, tmp_path)
        before, after = onnx.load(source), onnx.load(path)
        assert after.graph.input[0].type.tensor_type.shape.dim[0].dim_param
        assert after.ir_version <= before.ir_version
        assert [each.key for each in after.metadata_props] == ["edgeprune"]


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_what_is_rare_is_in_the_ranges(kind: Format, tmp_path: Path) -> None:
    net = Mlp().eval()
    examples = np.zeros((64, 1, 28, 28), np.float32)
    examples[:] = np.random.default_rng(0).normal(size=examples.shape) * 0.1
    # One in 64 has values that none of the others comes near to.
    examples[7] *= 30
    source = EXPORTERS[kind].export(net, torch.from_numpy(examples[:2]), tmp_path / f"model.{kind}", {})
    path = export_at(source, tmp_path / f"lower.{kind}", "int8", examples, {}).path
    expected, found = (run_model(kind, each, examples[7:8]) for each in (source.path, path))
    # Clipped to what is usual it would be a tenth of it.
    assert np.abs(found - expected).max() < 0.35 * np.abs(expected).max()


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_network_without_anything_to_quantize_is_refused(kind: Format, tmp_path: Path) -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x).flatten(1)

    with pytest.raises(ExportError, match="none"):
        made(Nothing(), kind, "int8-dynamic", tmp_path)
    assert not (tmp_path / f"lower.{kind}").exists()


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_the_same_file_every_time(kind: Format, tmp_path: Path) -> None:
    files = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        files.append(made(LeNet5(), kind, "int8", tmp_path / name)[1].read_bytes())
    assert files[0] == files[1]


class Odd(nn.Module):
    """One channel between its layers is a thousand times as large as the others, and they share a range."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(784, 24), nn.Linear(24, 24), nn.Linear(24, 4)
        with torch.no_grad():
            self.first.weight[0] *= 1000
            self.second.weight[:, 0] /= 1000

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.second(torch.relu(self.first(x.flatten(1))))))


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_what_one_range_hides_is_seen_where_it_stays_in_float(kind: Format, tmp_path: Path) -> None:
    net = Odd().eval()
    x = given(net, 64)
    examples = to_numpy(x)
    source = EXPORTERS[kind].export(net, given(net, 2), tmp_path / f"model.{kind}", {"precision": "fp32"})
    whole = run_model(kind, source.path, examples)
    calibrated = EXPORTERS[kind].calibrate(source.path, examples)

    def off(floats: frozenset[int] = frozenset()) -> float:
        file = calibrated.write(tmp_path / f"lower.{kind}", {"precision": "int8"}, floats)
        assert read_metadata(file.path) == {"precision": "int8"}
        return float(np.std(run_model(kind, file.path, examples) - whole) / np.std(whole))

    plain = off()
    found = {unit.label: off(unit.operators) for unit in calibrated.units}
    first, second = list(found)[1:3]
    # What the first layer gives is what is coarse.
    assert min(found, key=lambda label: found[label]) == first
    assert found[first] < plain / 5
    assert found[second] > plain / 2
    # All in float is the float file's answer.
    assert off(frozenset().union(*(unit.operators for unit in calibrated.units))) < 1e-5


def test_what_the_quantizer_fails_at_stays_in_float(tmp_path: Path) -> None:
    source, lower, examples = made(ScaledLayer(), "tflite", "int8", tmp_path)
    calibrated = EXPORTERS["tflite"].calibrate(source, examples)
    calibrated.write(tmp_path / "again.tflite", {})
    # The other layers have 8 bits.
    assert calibrated.refused == ("FULLY_CONNECTED 2",)
    wanted, found = run_model("tflite", source, examples), run_model("tflite", lower, examples)
    assert np.abs(wanted - found).max() < OFF["int8"] * np.ptp(wanted)
    assert lower.stat().st_size < 0.8 * source.stat().st_size
