"""Files keep to the layout of fast kernels, candidates' and finished ones' alike; what cannot be put so stays."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.artifacts.formats import READERS
from edgeprune.core.design import PruningPlan
from edgeprune.core.runtimes import FORMATS, Format
from edgeprune.exporters.formats import EXPORTERS
from edgeprune.exporters.parity import compare
from edgeprune.exporters.template import Template
from edgeprune.models.zoo import CifarResNet
from edgeprune.pruning.channels import follow
from edgeprune.pruning.groups import discover
from edgeprune.pruning.surgery import cut


class Shortcut(nn.Module):
    """A convolution beside every `rows`-th row and `columns`-th column, with `pads` (before, after) of the channels."""

    def __init__(
        self, rows: int = 2, columns: int = 2, pads: tuple[int, int] = (2, 4), value: float = 0.0, first: int = 0
    ) -> None:
        super().__init__()
        self.steps, self.pads, self.value, self.first = (rows, columns), pads, value, first
        self.stem = nn.Conv2d(3, 5, 3, padding=1)
        self.conv = nn.Conv2d(5, 5 + sum(pads), 3, self.steps, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        (rows, columns), first = self.steps, self.first
        taken = x[:, :, first::rows, first::columns]
        y = self.conv(x)[:, :, : taken.shape[2], : taken.shape[3]]
        return (y + F.pad(taken, (0, 0, 0, 0, *self.pads), value=self.value)).mean((2, 3))


class Reused(Shortcut):
    """The pixels that are taken have another reader."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        taken = x[:, :, :: self.steps[0], :: self.steps[1]]
        padded = F.pad(taken, (0, 0, 0, 0, *self.pads))
        return torch.cat([(self.conv(x) + padded).mean((2, 3)), taken.amax((2, 3))], 1)


class Sides(Shortcut):
    """Rows and columns are padded as well as channels."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        taken = x[:, :, :: self.steps[0], :: self.steps[1]]
        return F.pad(taken, (1, 1, 1, 1, *self.pads)).mean((2, 3)) + self.conv(x).mean((2, 3))


def exported(network: nn.Module, x: Tensor, format: Format, folder: Path) -> Counter[str]:
    """How many operators of which kind the file has, which is seen to compute what `network` does."""
    path = folder / f"model.{format}"
    EXPORTERS[format].export(network, x, path, {})
    parity = compare(network, format, path.read_bytes(), x.numpy())
    assert parity.max_abs <= 1e-5 * max(1.0, parity.scale)
    return READERS[format].contents(path).operators


#: What a shortcut is exported as otherwise.
TAKING = {"onnx": "Slice", "tflite": "STRIDED_SLICE"}
PADDING = {"onnx": "Pad", "tflite": "PAD"}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "network", [Shortcut(), Shortcut(2, 3, (0, 3)), Shortcut(3, 2, (1, 0))], ids=["even", "before", "after"]
)
def test_pixels_that_are_taken_and_padded_are_a_convolution(network: Shortcut, format: Format, tmp_path: Path) -> None:
    found = exported(network.eval(), torch.randn(2, 3, 13, 11), format, tmp_path)
    assert not found[TAKING[format]]
    assert sum(found[name] for name in ("Conv", "CONV_2D")) == 3


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "network",
    [
        Shortcut(value=0.5),
        Shortcut(first=1),
        Shortcut(1, 2),
        Shortcut(pads=(-1, 3)),
        Reused(),
        Sides(),
    ],
    ids=["other values than zero", "from the second", "columns alone", "cut off", "read by another", "sides as well"],
)  # fmt: skip
def test_what_is_something_else_stays(network: Shortcut, format: Format, tmp_path: Path) -> None:
    found = exported(network.eval(), torch.randn(2, 3, 12, 12), format, tmp_path)
    assert found[TAKING[format]]
    assert sum(found[name] for name in ("Conv", "CONV_2D")) == 2


@pytest.mark.parametrize("format", FORMATS)
def test_a_candidate_is_the_file_that_would_be_exported(format: Format, tmp_path: Path) -> None:
    shape = (3, 8, 8)
    network, x = CifarResNet(1, shape, 10).eval(), torch.rand(2, *shape)
    structure = discover(network, shape, runtime="onnxruntime", multiple_of=1)
    template = Template.build(network, x, format)
    plan = PruningPlan({group.name: tuple(range(1, group.channels, 3)) for group in structure.groups})
    pruned = cut(network, shape, plan, structure.graph)
    narrow = cut(template.coded_network(), shape, plan, follow(template.coded_network(), shape))
    path = tmp_path / f"sliced.{format}"
    path.write_bytes(template.slice(narrow, pruned, x, structure.graph.padded(plan)))
    assert READERS[format].contents(path).operators == exported(pruned, x, format, tmp_path)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_eight_bits_computes_it_too(format: Format, tmp_path: Path) -> None:
    network, x = Shortcut().eval(), torch.randn(32, 3, 12, 12)
    EXPORTERS[format].export(network, x, tmp_path / "float", {})
    EXPORTERS[format].calibrate(tmp_path / "float", x.numpy()).write(tmp_path / "int8", {})
    parity = compare(network, format, (tmp_path / "int8").read_bytes(), x.numpy())
    assert parity.max_abs < 0.1 * parity.scale


class Reduced(nn.Module):
    """Over pixels, and over one side alone, from which another order of axes would come."""

    def __init__(self, over: str, axes: tuple[int, ...], keepdim: bool) -> None:
        super().__init__()
        self.conv, self.over, self.axes, self.keepdim = nn.Conv2d(3, 6, 3, padding=1), over, axes, keepdim

    def forward(self, x: Tensor) -> Tensor:
        return getattr(torch, self.over)(F.relu(self.conv(x)), self.axes, self.keepdim)


@pytest.mark.parametrize("over", ["mean", "sum", "amax", "amin"])
def test_pixels_are_reduced_where_they_lie(over: str, tmp_path: Path) -> None:
    # One transposition is that of the input.
    found = exported(Reduced(over, (2, 3), False).eval(), torch.randn(2, 3, 6, 5), "tflite", tmp_path)
    assert found["TRANSPOSE"] == 1


@pytest.mark.parametrize("axes", [(2,), (1, 3), (1,), (1, 2, 3)])
@pytest.mark.parametrize("keepdim", [False, True])
def test_whatever_axes_go_the_rest_comes_in_its_order(axes: tuple[int, ...], keepdim: bool, tmp_path: Path) -> None:
    exported(Reduced("mean", axes, keepdim).eval(), torch.randn(2, 3, 6, 5), "tflite", tmp_path)


def test_what_others_read_is_transposed_for_them(tmp_path: Path) -> None:
    class Both(Reduced):
        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.conv(x))
            return torch.cat([x.mean((2, 3)), x.flatten(1)], 1)

    exported(Both("mean", (2, 3), False).eval(), torch.randn(2, 3, 6, 5), "tflite", tmp_path)


class Kept(nn.Module):
    """The axis that goes stays as one of length 1, where the transposition put it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).transpose(1, 2).mean(2, keepdim=True) * torch.arange(1.0, 4.0)


def test_an_axis_that_stays_stays_where_it_was_put(tmp_path: Path) -> None:
    exported(Kept().eval(), torch.randn(2, 7, 5), "tflite", tmp_path)
