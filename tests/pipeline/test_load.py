"""The pruned network is rebuilt where the code was moved or commented, refused where it computes otherwise."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

import edgeprune
from edgeprune.core.errors import EdgepruneError, ModelError
from edgeprune.core.progress import Silent
from edgeprune.core.store import RunFolder
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.export import save_network
from edgeprune.pipeline.prepare import untrained
from edgeprune.pruning.criteria import Ranked
from edgeprune.pruning.rankings import l1
from edgeprune.pruning.surgery import prune

CODE = """
from torch import nn

def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
"""


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Path, nn.Module]:
    """The user's file, a run folder as fine-tuning leaves it, and the network it holds."""
    file = tmp_path / "mine.py"
    file.write_text(CODE)
    prepared = untrained(RunConfig(model=f"{file}:network"), Silent(), "onnxruntime")
    criterion = Ranked(prepared.network, prepared.structure, l1(prepared.network, prepared.structure), None)
    plan = criterion.plan({group.name: group.snap(group.channels / 2) for group in prepared.structure.groups})
    pruned = prune(criterion, prepared.structure, plan).eval()
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    save_network(prepared, folder, pruned, plan)
    return file, folder.path, pruned


def answers(network: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = network(torch.linspace(0, 1, 128).reshape(2, 1, 8, 8))
    return found


def test_a_comment_or_another_place_changes_nothing(saved: tuple[Path, Path, nn.Module]) -> None:
    file, run, pruned = saved
    file.write_text(f"# A comment.\n{CODE}")
    assert torch.equal(answers(edgeprune.load(run)), answers(pruned))
    moved = file.rename(file.with_name("moved.py"))
    with pytest.raises(
        ModelError, match=r"mine.py does not exist any more; give load\(run, model='FILE.py:FUNCTION'\)"
    ):
        edgeprune.load(run)
    assert torch.equal(answers(edgeprune.load(run, model=f"{moved}:network")), answers(pruned))
    spec = importlib.util.spec_from_file_location("moved", moved)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert torch.equal(answers(edgeprune.load(run, model=module.network())), answers(pruned))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("nn.ReLU()", "nn.Tanh()"), "computes something else than at the run; restore it, or run again"),
        (("24", "20"), "give the model of the run as it was then"),
        (("nn.Flatten(), ", ""), "give the model of the run as it was then"),
        (("return nn", "1 / 0; return nn"), "ZeroDivisionError"),
    ],
)
def test_code_that_computes_otherwise_is_one_line(
    saved: tuple[Path, Path, nn.Module], change: tuple[str, str], says: str
) -> None:
    file, run, _ = saved
    file.write_text(CODE.replace(*change))
    with pytest.raises(EdgepruneError, match=says) as caught:
        edgeprune.load(run)
    assert "\n" not in str(caught.value)
