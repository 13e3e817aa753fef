"""What a run says of layers that stay: lines at its start, result.json, and the reason of an impossible budget."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgeprune.core.budget import Bound, Budget
from edgeprune.core.errors import BudgetError
from edgeprune.core.plain import to_json
from edgeprune.core.progress import Bar, Silent
from edgeprune.core.store import RunFolder
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.possible import check_possible
from edgeprune.pipeline.prepare import prepare
from edgeprune.pipeline.records.search import Possible, Reference
from edgeprune.pipeline.staying import because_of, staying, tell_frozen, tell_stays
from edgeprune.pruning.groups import discover
from edgeprune.pruning.structure import LayerCost, Structure
from edgeprune.report.table import staying_lines


class Said(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def bar(self, title: str, total: float | None) -> AbstractContextManager[Bar]:
        return Silent().bar(title, total)


class Gru(nn.Module):
    """Sums that run over its units need all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.norm = nn.GRU(8, 32, batch_first=True), nn.LayerNorm(32)
        self.fc1, self.fc2 = nn.Linear(32, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(self.norm(self.gru(x.squeeze(1))[0][:, -1].cumsum(1)))))


@pytest.fixture(scope="module")
def gru() -> Structure:
    return discover(Gru(), (1, 8, 8), runtime="onnxruntime")


GRU, REST = 8 * 3 * 32 * (8 + 32), 32 * 64 + 64 * 10
SUM = "a running sum over channels needs all of them"
SHARE = round(100 * GRU / (GRU + REST))


def test_dear_layers_are_said_on_the_screen_and_all_in_the_log(gru: Structure) -> None:
    said, logged = Said(), []
    tell_stays(gru, said, logged.append)
    assert said.lines == [
        f"layer gru: {SHARE} % of the MACs, {gru.frozen['gru']}",
        "1 more layer stays, with 0 % of the MACs: see run.log",
    ]
    assert logged == ["layer norm: it goes with gru, which stays"]


def test_the_reason_has_the_line_of_the_users_code(gru: Structure) -> None:
    assert re.fullmatch(re.escape(SUM) + r" \(test_staying\.py:\d+\)", gru.frozen["gru"])


def test_the_result_holds_reason_and_share_of_every_layer_that_stays(gru: Structure) -> None:
    held = {name: to_json(each) for name, each in staying(gru).items()}
    assert held["gru"] == {
        "reason": gru.frozen["gru"],
        "macs": GRU,
        "macs_share": round(GRU / (GRU + REST), 6),
        "parameters": 3 * 32 * (8 + 32 + 2),
    }
    assert list(held) == ["gru", "norm"]
    lines = staying_lines({"compressed": {"frozen": held}})
    assert lines == [f"not pruned: gru, {100 * GRU / (GRU + REST):.0f} % of the MACs: {gru.frozen['gru']}"]


def test_work_that_is_not_counted_is_said(gru: Structure) -> None:
    said = Said()
    tell_stays(replace(gru, uncounted={"stft": ("_fft_r2c",)}), said, lambda _: None)
    assert said.lines[-1] == "layer stft runs _fft_r2c: such work is not counted as MACs"


POSSIBLE = Possible(1.8, 0.8, 0.7, Reference(0.01, 1000, 1000), 700)


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (
            Budget(max_latency=Bound(0.2, True)),
            f"; gru holds {SHARE} % of the MACs and stays: {SUM}",
        ),
        (
            Budget(max_memory=Bound(0.2, True)),
            f"; gru holds 59 % of the parameters and stays: {SUM}",
        ),
        (
            Budget(max_bytes=Bound(0.2, True)),
            f"; gru holds 59 % of the parameters and stays: {SUM}",
        ),
        # 64 inputs, 32 and 64 neurons.
        (
            Budget(min_ncr=3.0),
            "; the inputs hold 40 % of the neurons and stay: input features are not pruned",
        ),
    ],
)
def test_an_impossible_budget_names_the_layers_that_stay(gru: Structure, budget: Budget, says: str) -> None:
    with pytest.raises(BudgetError, match=says) as caught:
        check_possible(budget, POSSIBLE, "d", gru)
    assert "--max-sparsity" not in str(caught.value)


def test_layers_that_stay_are_not_blamed_for_what_floors_forbid(gru: Structure) -> None:
    free = replace(gru, costs={**gru.costs, "fc1": LayerCost(10 * GRU, 10 * GRU, 64)})
    assert because_of(free, "macs", 0.8) is None
    with pytest.raises(BudgetError, match="--max-sparsity"):
        check_possible(Budget(max_latency=Bound(0.2, True)), POSSIBLE, "d", free)


def test_frozen_layers_are_blamed_with_the_way_out() -> None:
    network = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 16), nn.ReLU(), nn.Linear(16, 10))
    network[0].requires_grad_(False)
    structure = discover(network, (64,), runtime="onnxruntime")
    assert because_of(structure, "macs", 0.9) == (
        "0 holds 79 % of the MACs and stays: 0.bias is frozen (requires_grad=False); add --prune-frozen, or set "
        "requires_grad=True where layers may be pruned"
    )


@pytest.mark.parametrize(
    ("frozen", "asked", "line"),
    [
        (True, False, "20 of 53 parameters are frozen (requires_grad=False): they keep their values, their layers are "
         "not pruned; --prune-frozen allows it"),
        (True, True, "20 of 53 parameters are frozen (requires_grad=False): their layers may be pruned "
         "(--prune-frozen), and what is left of them keeps its values"),
        (False, True, "--prune-frozen changes nothing: no parameter of the model has requires_grad=False"),
        (False, False, None),
    ],
)  # fmt: skip
def test_the_users_word_is_repeated(frozen: bool, asked: bool, line: str | None) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 5), nn.Linear(1, 4))
    network[0].requires_grad_(not frozen)
    said = Said()
    tell_frozen(network, asked, said)
    assert said.lines == ([] if line is None else [line])


BACKBONE = """
import torch
from torch import nn

def network(backbone=True):
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(),
                        nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 10))
    net[1].requires_grad_(not backbone)
    net[2].requires_grad_(not backbone)
    return net
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[nn.Module, list[str], str]]:
    model = tmp_path / "net.py"
    model.write_text(BACKBONE)

    def start() -> tuple[nn.Module, list[str], str]:
        config = RunConfig(data="digits", model=f"{model}:network", train_epochs=6, runs_dir=tmp_path)
        said = Said()
        prepared = prepare(config, RunFolder.create(tmp_path, None, "run"), said, "onnxruntime")
        return prepared.network, said.lines, prepared.baseline["source"]

    return start


def test_a_baseline_is_trained_around_what_is_frozen(
    run: Callable[..., tuple[nn.Module, list[str], str]], tmp_path: Path
) -> None:
    torch.manual_seed(3)
    given = nn.Linear(64, 24)
    network, lines, source = run()
    assert source == "trained"
    assert torch.equal(network[1].weight, given.weight)
    assert torch.equal(network[2].running_mean, torch.zeros(24))
    assert not network[1].weight.requires_grad
    assert (
        "1,608 of 2,318 parameters are frozen (requires_grad=False): they keep their values, their layers are not "
        in ("\n".join(lines))
    )
    # The same weights of the same function, without the user's word, are another baseline.
    (tmp_path / "net.py").write_text(BACKBONE.replace("backbone=True", "backbone=False"))
    network, lines, source = run()
    assert source == "trained"
    assert not torch.equal(network[1].weight, given.weight)
    assert not any("frozen" in line for line in lines)
