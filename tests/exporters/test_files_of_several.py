"""Files that take several inputs, or integers: under their own names, and what they compute is the network's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from exporter_nets import seasoned
from torch import Tensor, nn

from edgeprune.artifacts import describe, run_model
from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import ExportError
from edgeprune.core.inputs import InputSpec, records
from edgeprune.core.runtimes import Format
from edgeprune.exporters import EXPORTERS, Template, check_parity
from edgeprune.models.inputs import Inputs, Several, ask, made, mapped, to_numpy
from edgeprune.pruning.groups import discover
from edgeprune.pruning.surgery import cut

FORMATS: tuple[Format, ...] = ("onnx", "tflite")
SHAPE = (InputSpec("motion", (3, 6, 8)), InputSpec("words", (5,), "int64", 40))


class Two(nn.Module):
    """A convolution beside a table of words."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
        self.table, self.mix = nn.Embedding(40, 8), nn.Linear(8, 12)
        self.head = nn.Sequential(nn.Linear(28, 20), nn.ReLU(), nn.Linear(20, 4))

    def forward(self, motion: Tensor, words: Tensor) -> Tensor:
        """Logits (N, 4)."""
        found = torch.relu(self.mix(self.table(words))).mean(1)
        return self.head(torch.cat([self.conv(motion).mean((2, 3)), found], 1))


class Swapped(Two):
    """The same with its inputs in another order."""

    def forward(self, words: Tensor, motion: Tensor) -> Tensor:
        """Logits (N, 4)."""
        return super().forward(motion, words)


class Tokens(nn.Module):
    """Integers alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix = nn.Embedding(40, 16), nn.Linear(16, 24)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 3)."""
        return self.head(torch.relu(self.mix(self.table(x))).mean(1))


def example(shape: tuple[InputSpec, ...], count: int = 6) -> Inputs:
    return made(shape, count, lambda sizes: torch.randn(sizes, generator=torch.Generator().manual_seed(1)))


CASES = [(Two, SHAPE), (Swapped, SHAPE[::-1]), (Tokens, (InputSpec("input", (5,), "int64", 40),))]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("make", "shape"), [case for case in CASES if case[0] is not Two])
def test_a_file_computes_what_its_network_does(
    make: type[nn.Module], shape: tuple[InputSpec, ...], format: Format, tmp_path: Path
) -> None:
    network, x = seasoned(make()), example(shape)
    artifact = EXPORTERS[format].export(network, x, tmp_path / f"net.{format}", {})
    assert {spec.name for spec in artifact.inputs} == {spec.name for spec in shape}
    assert {spec.name: spec.shape[1:] for spec in describe(artifact.path).inputs} == {s.name: s.shape for s in shape}
    parity = check_parity(network, artifact, to_numpy(x))
    assert parity.max_abs <= 1e-5
    # Whoever mixes two inputs up gets something else.
    if isinstance(x, Several):
        other = Several(x.names, tuple(t.flip(0) if t.is_floating_point() else t for t in x.tensors))
        assert check_parity(_Always(network, x), artifact, to_numpy(other)).max_abs > 1e-3


class _Always(nn.Module):
    """Answers as to other inputs than it is given."""

    def __init__(self, network: nn.Module, x: Several) -> None:
        super().__init__()
        self.network, self.x = network, x

    def forward(self, *_: Tensor) -> Tensor:
        """Logits."""
        return self.network(*self.x.tensors)


def test_runtimes_take_the_inputs_by_their_names(tmp_path: Path) -> None:
    network, x = seasoned(Two()), example(SHAPE)
    assert isinstance(x, Several)
    with torch.no_grad():
        expected = network(*x.tensors).numpy()
    given = dict(zip(x.names, (t.numpy() for t in x.tensors), strict=True))
    for format in FORMATS:
        EXPORTERS[format].export(network, x, tmp_path / f"net.{format}", {})
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    # The batch is open in both: another size than it was exported with.
    found = session.run(None, {name: values[:3] for name, values in given.items()})[0]
    np.testing.assert_allclose(found, expected[:3], atol=1e-5)
    runner = Interpreter(str(tmp_path / "net.tflite")).get_signature_runner()
    one = runner(motion=given["motion"][:1], words=given["words"][:1].astype(np.int32))
    np.testing.assert_allclose(one["logits"], expected[:1], atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("make", "shape"), [case for case in CASES if case[0] is not Swapped])
def test_candidates_are_sliced(make: type[nn.Module], shape: tuple[InputSpec, ...], format: Format) -> None:
    network = seasoned(make())
    structure = discover(network, shape, runtime="onnxruntime")
    assert {"mix"} <= {group.name for group in structure.groups}
    template = Template.build(network, example(shape, 2), format)
    plan = PruningPlan({group.name: tuple(range(0, group.channels, 3)) for group in structure.groups})
    pruned = cut(network, shape, plan)
    # It compares the file with the network.
    template.slice(cut(template.coded_network(), shape, plan), pruned, example(shape))


@pytest.mark.parametrize("format", FORMATS)
def test_an_input_that_nobody_reads_stays(format: Format, tmp_path: Path) -> None:
    class Deaf(Two):
        def forward(self, motion: Tensor, words: Tensor) -> Tensor:
            return super().forward(motion, torch.zeros_like(words))

    network, x = seasoned(Deaf()), example(SHAPE)
    artifact = EXPORTERS[format].export(network, x, tmp_path / f"net.{format}", {})
    assert {spec.name for spec in artifact.inputs} == {"motion", "words"}
    assert check_parity(network, artifact, to_numpy(x)).max_abs <= 1e-5


def test_changes_reach_every_tensor() -> None:
    x = example(SHAPE)
    assert [t.dtype for t in mapped(x, lambda t: t.double()).tensors] == [torch.float64] * 2


class Heads(nn.Module):
    """Two outputs in a tuple, one of them a number each."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(8, 1)

    def answers(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 2, 2), and (N,)."""
        seen = torch.relu(self.body(x))
        return self.one(seen).reshape(-1, 2, 2), self.two(seen)[:, 0]

    def forward(self, x: Tensor) -> object:
        """As a tuple."""
        return self.answers(x)


class Named(Heads):
    """The same, in a dict whose order is not that of the alphabet."""

    def forward(self, x: Tensor) -> object:
        """By name."""
        return dict(zip(("sides", "area"), self.answers(x), strict=True))


@pytest.mark.parametrize(
    ("make", "names", "format"),
    [(Heads, ["output0", "output1"], "onnx"), (Named, ["sides", "area"], "tflite")],
)
def test_several_outputs_lie_side_by_side(
    make: type[nn.Module], names: list[str], format: Format, tmp_path: Path
) -> None:
    network, x = seasoned(make()), torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    artifact = EXPORTERS[format].export(network, x, tmp_path / f"net.{format}", {})
    assert [spec.name for spec in artifact.outputs] == names
    with torch.no_grad():
        sides, area = network.answers(x)  # type: ignore[operator]
    expected = torch.cat([sides.flatten(1), area[:, None]], 1)
    np.testing.assert_allclose(run_model(format, artifact.path, x.numpy()), expected, atol=1e-5)
    torch.testing.assert_close(ask(network, x), expected)
    assert check_parity(network, artifact, x.numpy()).max_abs <= 1e-5
    structure = discover(network, (6,), runtime="onnxruntime", prune_inputs=False)
    plan = PruningPlan({"body": (0, 2, 5)})
    template = Template.build(network, x, format)
    template.slice(cut(template.coded_network(), (6,), plan), cut(network, (6,), plan), x)
    assert [group.name for group in structure.groups] == ["body"]


@pytest.mark.parametrize("format", FORMATS)
def test_an_input_and_an_output_of_one_name_are_refused(format: Format, tmp_path: Path) -> None:
    x = Several(("logits", "words"), (torch.randn(2, 3, 6, 8), torch.ones(2, 5, dtype=torch.int64)))
    with pytest.raises(ExportError, match="an input and an output are both called logits; rename the input"):
        EXPORTERS[format].export(seasoned(Two()), x, tmp_path / f"net.{format}", {})


def test_only_integers_are_converted_for_a_file(tmp_path: Path) -> None:
    network, x = seasoned(Two()), example(SHAPE)
    assert isinstance(x, Several)
    file = EXPORTERS["tflite"].export(network, x, tmp_path / "net.tflite", {}).path
    swapped = records({"motion": x.tensors[0].double().numpy(), "words": x.tensors[1].numpy()})
    with pytest.raises(ExportError, match="FLOAT64"):
        run_model("tflite", file, swapped)


def test_the_largest_integer_is_always_tried() -> None:
    x = made((InputSpec("input", (3,), "int64", 1000),), 2, torch.zeros)
    assert isinstance(x, Tensor)
    assert int(x.max()) == 999
