"""What is possible at best: the fastest of the narrow networks, which need not be the narrowest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.fake_measuring import cost

from edgeprune.core.budget import Bound, Budget
from edgeprune.core.design import Group, PruningPlan
from edgeprune.core.errors import BudgetError, DeviceError
from edgeprune.core.measurement import Failure
from edgeprune.core.progress import Silent
from edgeprune.core.trial import Candidate
from edgeprune.pipeline import inspect as inspecting
from edgeprune.pipeline import seek
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.inspect import inspect
from edgeprune.pipeline.possible import check_possible
from edgeprune.pipeline.workshop import measure_narrowest

GROUPS = tuple(Group(f"g{i}", 64, 8, 4, 1.0, 1.0, 100, (f"g{i}",), "channels") for i in range(3))


def plan_of(widths: dict[str, int]) -> PruningPlan:
    return PruningPlan({name: tuple(range(width)) for name, width in widths.items()})


def shop_of(folder: Path, figures: dict[int, Any]) -> Any:
    """Where networks with so many channels in every layer have these figures."""
    (folder / "baseline.onnx").write_bytes(b"x" * 1000)

    def measured(plan: PruningPlan, *, fresh: bool = False) -> Any:
        del fresh
        (width,) = set(plan.widths.values())
        return figures[width]

    def evaluated(widths: dict[str, int]) -> Candidate:
        plan = plan_of(widths)
        return Candidate(plan, 0.3, 8.0, measured(plan), 100)

    return SimpleNamespace(
        evaluator=SimpleNamespace(evaluate=evaluated, cost=measured, plan=plan_of),
        prepared=SimpleNamespace(structure=SimpleNamespace(groups=GROUPS)),
        baseline_file=folder / "baseline.onnx",
    )


def test_the_fastest_of_the_narrow_networks_is_what_is_possible(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, {8: cost(0.44, memory=0.1), 16: cost(0.3, memory=0.2)})
    narrowest = measure_narrowest(shop)
    assert narrowest.candidate.plan.widths == {"g0": 8, "g1": 8, "g2": 8}
    assert [plan.widths["g0"] for plan, _ in narrowest.others] == [16]
    possible = narrowest.possible
    assert (possible.latency_share, possible.memory_share, possible.ncr) == (pytest.approx(0.3), 0.1, 8.0)
    structure: Any = SimpleNamespace(frozen={}, costs={}, groups=GROUPS)
    check_possible(Budget(max_latency=Bound(0.35, relative=True)), possible, "board", structure)
    with pytest.raises(BudgetError, match=r"cannot be reached on board: the fastest of the narrow networks has 600 µs"):
        check_possible(Budget(max_latency=Bound(0.1, relative=True)), possible, "board", structure)
    with pytest.raises(BudgetError, match="the smallest allowed network has"):
        check_possible(Budget(max_memory=Bound(0.05, relative=True)), possible, "board", structure)


def test_one_of_whole_blocks_that_cannot_be_measured_is_passed_over(tmp_path: Path) -> None:
    failed = Failure("crashed", "it ended", retryable=False)
    narrowest = measure_narrowest(shop_of(tmp_path, {8: cost(0.4), 16: failed}))
    assert narrowest.others == ()
    assert narrowest.possible.latency_share == pytest.approx(0.4)
    with pytest.raises(DeviceError, match="the smallest network could not be measured: it ended"):
        measure_narrowest(shop_of(tmp_path, {8: failed, 16: cost(0.4)}))


def test_a_search_learns_what_all_narrow_networks_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = shop_of(tmp_path, {8: replace(cost(0.44), bytes=300), 16: replace(cost(0.3), bytes=400)})
    shop.prepared.network = None

    def work(widths: dict[str, int]) -> list[float]:
        return [sum(widths.values()) / 192 if widths else 1.0] * 3

    monkeypatch.setattr(seek, "LayerShares", lambda *_: work)
    costs = seek._costs(shop, measure_narrowest(shop))
    assert costs.latency.fit.measured == 2
    # Wider, and known to be faster.
    assert costs.latency({group.name: 16 for group in GROUPS}) < costs.latency({group.name: 8 for group in GROUPS})


def test_inspect_tells_the_fastest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef net():\n"
        "    layers = [nn.Conv2d(1, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU()]\n"
        "    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))\n"
    )
    (tmp_path / "baseline.onnx").write_bytes(b"x" * 1000)

    def measured(plan: PruningPlan) -> Any:
        return cost(0.3 if set(plan.widths.values()) == {16} else 0.44)

    @contextmanager
    def opened(*_: Any, **__: Any) -> Iterator[Any]:
        evaluator = SimpleNamespace(cost=measured, plan=plan_of)
        yield SimpleNamespace(evaluator=evaluator, baseline_file=tmp_path / "baseline.onnx")

    monkeypatch.setattr(inspecting, "workshop", opened)
    session: Any = SimpleNamespace(spec=SimpleNamespace(name="board"))
    config = RunConfig(data="digits", model=f"{tmp_path / 'net.py'}:net", runs_dir=tmp_path / "runs")
    told = inspect(config, Silent(), session)
    assert [group.latency_left.value for group in told.groups if group.latency_left] == [pytest.approx(0.44)] * 2
    assert told.best.latency_left is not None
    assert told.best.latency_left.value == pytest.approx(0.3)
