"""The heart by itself: what evaluates plans, what searches and confirms, and what the result says of it.

Networks, surgery, scores, stores and choice are the product's; only measuring is made up (`fakes.fake_measuring`).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.fake_measuring import BASELINE_BYTES, BASELINE_S, FakeProfiler, cost

from edgeprune.core.artifact import Artifact
from edgeprune.core.budget import Bound, Budget
from edgeprune.core.errors import BudgetError, DeviceError
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.plain import from_json, to_json
from edgeprune.core.progress import Silent
from edgeprune.core.session import DeviceSpec
from edgeprune.core.store import RunFolder, TrialStore
from edgeprune.core.trial import Candidate, Trial
from edgeprune.exporters.parity import Parity
from edgeprune.pipeline import precisions
from edgeprune.pipeline import search as searching
from edgeprune.pipeline import workshop as working
from edgeprune.pipeline.candidates import RunIdentity
from edgeprune.pipeline.choose import rank
from edgeprune.pipeline.config import RunConfig
from edgeprune.pipeline.evaluator import Evaluator
from edgeprune.pipeline.export import Exported, NotExported, metadata
from edgeprune.pipeline.finetune import Tuned
from edgeprune.pipeline.metering import KnownCosts, Meter
from edgeprune.pipeline.prepare import Prepared, untrained
from edgeprune.pipeline.records.result import Result
from edgeprune.pipeline.records.search import MeanReward, Possible, Reference, Search
from edgeprune.pipeline.rehearse import Shipped
from edgeprune.pipeline.result import artifact_of, assemble
from edgeprune.pipeline.scoring import Scoring
from edgeprune.pipeline.search import Searched, run_search
from edgeprune.pipeline.seek import Wanted
from edgeprune.pipeline.validate import HostScores, NotValidated, Validated
from edgeprune.profilers.cache import MeasurementCache
from edgeprune.profilers.statistics import Interval
from edgeprune.pruning.criteria import Ranked
from edgeprune.pruning.rankings import l1
from edgeprune.search.environment import StopSearch
from edgeprune.search.reward import Reward
from edgeprune.search.states import Losses
from edgeprune.tasks.judging import Judged
from edgeprune.training.fit import Fit

WIDE, HALF = {"inputs": 64, "fc1": 32, "fc2": 16}, {"inputs": 64, "fc1": 16, "fc2": 8}
LOST, CRASHED = Failure("lost", "unplugged", True), Failure("crashed", "died", False)


def config(folder: Path, **options: Any) -> RunConfig:
    small = {"model": "mlp-32-16", "criterion": "l1", "search_steps": 0, "search_images": 40, "runs_dir": folder}
    return RunConfig(**{**small, **options})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return untrained(config(tmp_path_factory.mktemp("runs")), Silent(), "onnxruntime")


class Files:
    """Candidates of 1,000 bytes and one more for each neuron that is left."""

    how = "sliced"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.numbers = itertools.count()

    def make(self, pruned: Any, plan: Any, precision: str = "fp32") -> Path:
        path = self._folder / f"candidate-{next(self.numbers)}.onnx"
        size = 1000 + sum(plan.widths.values())
        path.write_bytes(b"x" * (size if precision == "fp32" else size // 4))
        return path


class Bench:
    """An evaluator with all that it needs; made again in the same folder it is that of a resumed run."""

    def __init__(self, prepared: Prepared, folder: Path, name: str = "one", **how: Any) -> None:
        policy, ahead, outcomes = how.get("policy", "stop"), how.get("ahead", False), how.get("outcomes", ())
        criterion = Ranked(prepared.network, prepared.structure, l1(prepared.network, prepared.structure), None)
        self.profiler = FakeProfiler(lambda file: file.stat().st_size / 1112, iter(outcomes))
        self.store = TrialStore(folder / f"{name}.sqlite")
        self.cache = MeasurementCache(folder / "cache.sqlite", lambda _: None)
        self.said: list[str] = []
        progress = Silent()
        progress.say = self.said.append  # type: ignore[method-assign]
        scoring = Scoring(prepared.network, prepared.structure, criterion, prepared.problem, None, 40)
        run = RunIdentity(name, folder, "board", policy)
        known = KnownCosts(self.cache, run, "network", MeasureSettings("onnxruntime"))
        self.meter = Meter(run, prepared, Files(folder), self.profiler, known, progress, ahead=ahead)  # type: ignore[arg-type]
        self.evaluator = Evaluator(criterion, scoring, self.meter, self.store)

    def __enter__(self) -> Evaluator:
        self.meter.__enter__()
        return self.evaluator

    def __exit__(self, *error: Any) -> None:
        self.meter.__exit__(*error)
        self.store.close()
        self.cache.close()


def test_a_candidate_is_scored_measured_and_remembered(prepared: Prepared, tmp_path: Path) -> None:
    bench = Bench(prepared, tmp_path)
    with bench as evaluator:
        found = evaluator.evaluate(HALF)
        again = evaluator.evaluate(HALF)
        assert again is found
        assert (evaluator.measured, evaluator.cache_hits, evaluator.failures) == (1, 1, 0)
        assert found.plan.widths == {**HALF, "inputs": 64}
        assert found.ncr == pytest.approx((64 + 32 + 16) / (64 + 16 + 8))
        assert isinstance(found.cost, Measurement)
        # A candidate carries no metadata, what ships does.
        size = 1000 + 88
        assert bench.profiler.sizes == [size]
        assert found.bytes == found.cost.bytes == size + len(json.dumps(metadata(prepared, found.plan)))
        assert found.cost.quotient == pytest.approx(size / 1112)
        assert not list(tmp_path.glob("candidate*"))
        assert set(evaluator.spent[found.plan.key].seconds) == {"narrowing", "scoring", "file", "device"}
    # A resumed run finds both out nowhere but in its stores.
    second = Bench(prepared, tmp_path)
    with second as evaluator:
        resumed = evaluator.evaluate(HALF)
        assert (resumed.accuracy, resumed.ncr, resumed.cost) == (found.accuracy, found.ncr, found.cost)
        assert (evaluator.measured, evaluator.cache_hits, second.profiler.sizes) == (0, 1, [])


def test_each_precision_has_its_own_costs_and_loses_what_it_loses(prepared: Prepared, tmp_path: Path) -> None:
    bench = Bench(prepared, tmp_path)
    with bench as evaluator:
        lower = evaluator.at("int8", 0.05)
        whole, quarter = evaluator.evaluate(HALF), lower.evaluate(HALF)
        assert (whole.precision, quarter.precision) == ("fp32", "int8")
        assert whole.design.key == whole.plan.key == quarter.plan.key != quarter.design.key
        assert quarter.accuracy == pytest.approx(whole.accuracy - 0.05)
        assert isinstance(whole.cost, Measurement)
        assert isinstance(quarter.cost, Measurement)
        assert quarter.cost.quotient < 0.3 * whole.cost.quotient
        # The network was scored once, and both files were measured.
        assert (evaluator.measured, lower.measured) == (2, 2)
        assert "narrowing" not in evaluator.spent[quarter.design.key].seconds
        assert lower.evaluate(HALF) is quarter
        bench.store.add(Trial(0, whole, 1.0, 0.1))
        bench.store.add(Trial(1, quarter, 1.0, 0.1))
        assert [trial.candidate for trial in bench.store.trials()] == [whole, quarter]
        ordered = rank(bench.store.trials(), Budget(max_bytes=Bound(1.0, relative=True)), Reference(1.0, 1.0, 3000.0))
        assert [trial.candidate.precision for trial in ordered] == ["fp32", "int8"]
        ordered = rank(bench.store.trials(), Budget(max_bytes=Bound(0.3, relative=True)), Reference(1.0, 1.0, 3000.0))
        assert [trial.candidate.precision for trial in ordered] == ["int8", "fp32"]


def test_figures_of_quiet_devices_are_for_other_runs_too_and_others_are_not(prepared: Prepared, tmp_path: Path) -> None:
    for verdict, measured in (("", 0), ("busy", 1)):
        folder = tmp_path / (verdict or "quiet")
        folder.mkdir()
        with Bench(prepared, folder, "one", outcomes=[cost(0.5, verdict=verdict)]) as evaluator:
            evaluator.evaluate(HALF)
        with Bench(prepared, folder, "two") as evaluator:
            evaluator.evaluate(HALF)
            assert evaluator.measured == measured
        with Bench(prepared, folder, "one") as evaluator:
            evaluator.evaluate(HALF)
            assert evaluator.measured == 0


def test_a_second_look_is_taken_afresh_and_changes_no_first_one(prepared: Prepared, tmp_path: Path) -> None:
    with Bench(prepared, tmp_path, outcomes=[cost(0.5, verdict=""), cost(0.9, verdict="")]) as evaluator:
        first = evaluator.evaluate(HALF).cost
        plan = evaluator.plan(HALF)
        assert isinstance(first, Measurement)
        fresh = evaluator.cost(plan, fresh=True)
        assert isinstance(fresh, Measurement)
        assert (first.quotient, fresh.quotient) == (pytest.approx(0.5), pytest.approx(0.9))
        assert evaluator.cost(plan) == first
    with Bench(prepared, tmp_path) as evaluator:
        assert evaluator.evaluate(HALF).cost == first


def test_a_race_in_fresh_processes_is_kept_for_this_run_alone(prepared: Prepared, tmp_path: Path) -> None:
    raced: list[int] = []

    def race(file: Path) -> Measurement:
        raced.append(file.stat().st_size)
        return cost(0.6, processes=3)

    alike = MeasureSettings("onnxruntime", processes=3)
    for name, races in (("one", 1), ("one", 1), ("two", 2)):
        bench = Bench(prepared, tmp_path, name)
        with bench as evaluator:
            found = evaluator.again(evaluator.plan(HALF), alike, race)
            assert isinstance(found, Measurement)
            assert found.bytes > 1088
            assert len(raced) == races
            # Two probes on one device would disturb each other.
            assert bench.profiler.closed == (name != "one" or evaluator.measured)


def test_what_failed_is_counted_and_not_tried_again_by_a_resumed_run(prepared: Prepared, tmp_path: Path) -> None:
    bench = Bench(prepared, tmp_path, outcomes=[CRASHED])
    with bench as evaluator:
        found = evaluator.evaluate(HALF)
        assert (found.cost, found.bytes, evaluator.failures, evaluator.measured) == (CRASHED, 0, 1, 0)
        bench.store.add(Trial(0, found, 1.0, 0.0))
    with Bench(prepared, tmp_path) as evaluator:
        assert evaluator.evaluate(HALF).cost == CRASHED
        assert (evaluator.failures, evaluator.measured) == (0, 0)


@pytest.mark.parametrize(
    ("policy", "error", "says"),
    [("stop", DeviceError, "board is lost: unplugged; when it is back, continue with --resume one"),
     ("continue", StopSearch, "board is lost: unplugged")],
)  # fmt: skip
def test_a_lost_device_ends_the_search_as_asked(
    prepared: Prepared, tmp_path: Path, policy: str, error: type[Exception], says: str
) -> None:
    bench = Bench(prepared, tmp_path, policy=policy, outcomes=[LOST, cost(0.5)])
    with bench as evaluator:
        for _ in range(2):
            with pytest.raises(error) as caught:
                evaluator.evaluate(HALF)
            assert str(caught.value) == says
        # The next one is not waited for as well.
        assert len(bench.profiler.sizes) == 1


def test_a_device_that_is_waited_for_is_told_once(prepared: Prepared, tmp_path: Path) -> None:
    bench = Bench(prepared, tmp_path, policy="wait", outcomes=[LOST, LOST, cost(0.5)])
    with bench as evaluator:
        found = evaluator.evaluate(HALF).cost
    assert isinstance(found, Measurement)
    assert bench.said == ["board is lost; waiting for it (Ctrl-C keeps the run): unplugged"]


def test_with_a_device_of_its_own_the_host_goes_on(prepared: Prepared, tmp_path: Path) -> None:
    bench = Bench(prepared, tmp_path, ahead=True)
    with bench as evaluator:
        begun = [evaluator({**WIDE, "fc1": width}) for width in (8, 16, 24)]
        costs = [each.result().cost for each in begun]  # type: ignore[union-attr]
    assert [each.quotient for each in costs if isinstance(each, Measurement)] == [
        pytest.approx((1000 + 64 + width + 16) / 1112) for width in (8, 16, 24)
    ]
    assert evaluator.measured == 3
    lost = Bench(prepared, tmp_path, "two", ahead=True, outcomes=[LOST])
    with pytest.raises(DeviceError), lost as evaluator:
        evaluator.evaluate({**WIDE, "fc1": 12})
    assert lost.profiler.abandoned


# --- the search and its confirmation


@pytest.fixture
def searched(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[list[Any], list[str]]]:
    """Runs a whole search; latency goes with the size of the file, and `again` says how it is confirmed.

    With `of` it chooses the precision: of each in `of` how many times slower its files are than their size says, and
    what they lose.
    """
    count = itertools.count()

    def run(
        *asked: Budget,
        again: Callable[[float], Measurement] | None = None,
        of: dict[Any, tuple[float, float]] | None = None,
        **options: Any,
    ) -> Any:
        folder = RunFolder(tmp_path / str(next(count)))
        folder.path.mkdir()
        said: list[str] = []
        progress = Silent()
        progress.say = said.append  # type: ignore[method-assign]
        whole: list[int] = []

        def share(file: Path) -> float:
            slower = next((each for one, (each, _) in (of or {}).items() if file.stem.endswith(f"-{one}")), 1.0)
            return slower * file.stat().st_size / whole[0]

        def quality(_: Any, __: Any, ___: Any, precision: Any) -> float:
            return 0.9 - (of or {})[precision][1]

        def profiler(_: Any, __: Any, baseline: Path, **___: Any) -> FakeProfiler:
            whole.append(baseline.stat().st_size)
            return FakeProfiler(share)

        confirmed = again or (lambda value: cost(value, processes=3, scatter=0.001))
        monkeypatch.setattr(working, "LoopProfiler", profiler)
        monkeypatch.setattr(searching, "compare_fresh", lambda _, __, file, *___, **____: confirmed(share(file)))
        settled = untrained(config(folder.path, max_latency="0.5x", **options), Silent(), "onnxruntime").settled
        monkeypatch.setattr(precisions, "quality_at", quality)
        shipped = Shipped(("onnx", "tflite"), precisions=("fp32", *(of or ())), choose=of is not None)
        ready = replace(prepared, settled=settled, validation_accuracy=0.9, shipped=shipped)
        session: Any = SimpleNamespace(spec=DeviceSpec("fake", "local"))
        wanted = [
            Wanted(each, options.get("episodes", 8), f"bound {index}" if len(asked) > 1 else "")
            for index, each in enumerate(asked)
        ]
        identity = RunIdentity("it", folder.path, "fake")
        found = run_search(wanted, ready, identity, folder, session, MeasureSettings("onnxruntime"), progress)
        return found, said

    return run


def latency(bound: float) -> Budget:
    return Budget(max_latency=Bound(bound, relative=True))


def test_a_search_ends_with_confirmed_plans_that_keep_the_bound(searched: Any) -> None:
    (found,), said = searched(latency(0.5), episodes=8, method="random")
    assert isinstance(found, Searched)
    assert found.summary.episodes == len(found.trials) == 8
    assert len({trial.candidate.plan.key for trial in found.trials}) == 8
    best = found.trials[0]
    assert isinstance(best.candidate.cost, Measurement)
    assert best.candidate.cost.settings.processes == 3
    assert best.candidate.cost.quotient <= 0.5
    # Proposals lie at the bound, as far as widths allow.
    near = [t.candidate.cost.quotient for t in found.trials if isinstance(t.candidate.cost, Measurement)]
    assert sum(0.4 < each <= 0.51 for each in near) >= 6
    assert found.possible.latency_share < 0.5
    assert found.summary.cost_model["latency"].median_error < 0.05
    assert any(line.startswith("trial ") and "in fresh processes: latency" in line for line in said)
    assert any("possible at best" in line for line in said)


def test_where_losses_add_up_plans_are_measured_that_may_lose_least(
    searched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    for additive in (False, True):

        def losses(_: Any, criterion: Any, __: Any, additive: bool = additive) -> Losses:
            return Losses(criterion.ranking.errors(), additive=additive)

        monkeypatch.setattr(working, "_losses", losses)
        (found,), _ = searched(latency(0.5), episodes=4, method="edgeprune")
        counts.append(found.summary.cost_model["latency"].measured)
    # Three groups, some of whose plans may be one.
    assert 1 <= counts[1] - counts[0] <= 3


def test_a_plan_that_kept_its_bound_by_luck_is_found_out(searched: Any) -> None:
    """In fresh processes everything takes a fifth more: what was raced again is not taken for what keeps the bound."""
    (found,), _ = searched(
        latency(0.5), episodes=6, method="random", again=lambda value: cost(1.2 * value, processes=3)
    )
    raced = [t for t in found.trials if t.candidate.cost.settings.processes == 3]
    assert raced
    assert all(t.candidate.cost.quotient > 0.5 for t in raced if t.candidate.cost.quotient > 0.45)
    assert found.trials[0].candidate.cost.quotient <= max(t.candidate.cost.quotient for t in found.trials)


def test_bounds_share_what_was_found_and_one_that_nothing_keeps_is_left_out(searched: Any) -> None:
    (loose, tight, none), said = searched(latency(0.8), latency(0.5), latency(0.01), episodes=4, method="random")
    assert isinstance(none, BudgetError)
    assert "0.01" not in str(none) or "cannot be reached" in str(none)
    assert any(line.startswith("bound 2 is left out: ") for line in said)
    assert {t.index for t in loose.trials} == {t.index for t in tight.trials} == set(range(8))
    for one, bound in ((loose, 0.8), (tight, 0.5)):
        best = one.trials[0].candidate.cost
        assert isinstance(best, Measurement)
        assert best.quotient <= bound
    with pytest.raises(BudgetError, match="cannot be reached on fake"):
        searched(latency(0.01), episodes=4, method="random")


# --- the result


def test_the_search_chooses_a_precision_that_is_faster_and_loses_little(searched: Any) -> None:
    (found,), said = searched(latency(0.5), of={"int8": (0.3, 0.02)}, max_drop=3, episodes=8, method="random")
    assert {trial.candidate.precision for trial in found.trials} == {"fp32", "int8"}
    assert sorted(trial.index for trial in found.trials) == list(range(8))
    # A quarter of the size keeps the bound with far wider networks, but each of them loses what integers lose.
    widest = {
        one: max(sum(t.candidate.plan.widths.values()) for t in found.trials if t.candidate.precision == one)
        for one in ("fp32", "int8")
    }
    assert widest["int8"] > widest["fp32"]
    assert all(trial.candidate.cost.quotient <= 0.51 for trial in found.trials)
    assert [(one.precision, one.why) for one in found.summary.precisions] == [("fp32", ""), ("int8", "")]
    assert found.summary.precisions[1].lost == pytest.approx(2.0)
    assert any(line.startswith("int8, unpruned: latency 0.") for line in said)


def test_integers_that_are_slower_are_measured_told_and_not_chosen(searched: Any) -> None:
    (found,), said = searched(latency(0.5), of={"int8": (5.0, 0.0)}, episodes=6, method="random")
    assert {trial.candidate.precision for trial in found.trials} == {"fp32"}
    assert [one.why for one in found.summary.precisions] == ["", "it is worse in latency"]
    assert any("not searched for: it is worse in latency" in line for line in said)


def test_a_bound_that_integers_alone_can_keep_is_searched_with_them_alone(searched: Any) -> None:
    (found,), _ = searched(latency(0.08), of={"int8": (0.1, 0.02)}, max_drop=3, episodes=6, method="random")
    assert {trial.candidate.precision for trial in found.trials} == {"int8"}
    assert found.trials[0].candidate.cost.quotient <= 0.08


def test_where_no_bound_knows_precisions_none_is_chosen(searched: Any) -> None:
    (found,), said = searched(Budget(min_ncr=2.0), of={"int8": (1.0, 0.0)}, episodes=4, method="random")
    assert {trial.candidate.precision for trial in found.trials} == {"fp32"}
    assert any("nothing is bounded that a precision changes" in line for line in said)


def validated(kind: Any, share: float, answers: Judged, folder: Path, unit: Any = "s") -> Validated:
    files = []
    for name, size in (("model", int(10_000 * share)), ("baseline", 10_000)):
        path = folder / f"{name}.{kind}"
        path.write_bytes(b"x" * size)
        files.append(Artifact(path, kind, "fp32", name, size, (), ()))
    measured = replace(cost(share, processes=3, scatter=0.01), unit=unit)
    parity = Parity(1e-6, 1.0, 9, 1.0)
    before = Judged({"accuracy": 0.9, "balanced-accuracy": 0.88}, (0.8, 0.95))
    speedup = Interval(1 / share, 0.99 / share, 1.01 / share)
    runtime = "onnxruntime" if kind == "onnx" else "litert"
    return Validated(Exported(kind, *files, parity), runtime, answers, before, 1.0, measured, speedup)


def summary(best: Trial) -> Search:
    return Search(
        method="random", agent=None, credit="episode", criterion="l1", episodes=4, converged=False, stopped="",
        seconds=1.0, device_seconds=0.5, measured=4, cache_hits=0, failures=0, candidates="sliced", agent_sparsity=None,
        warm_up_episodes=0, mean_reward=MeanReward(0.5, 0.6), losses=(), reward=Reward(0.9, 1.3, 0.6, 0.6),
        chance_level=0.1, at_chance=0, best_trial=best.index,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "share", "after", "quality", "status", "answers"),
    [
        ({"max_latency": "0.6x"}, 0.5, 0.895, 0.895, "done", {"max_latency": "met", "max_drop": "met"}),
        # By half a point more than may be lost.
        ({"max_latency": "0.6x"}, 0.5, 0.885, 0.885, "budget-not-met", {"max_drop": "not met"}),
        ({"max_latency": "0.6x", "max_drop": 2}, 0.5, 0.885, 0.885, "done", {"max_drop": "met"}),
        ({"max_latency": "0.5x"}, 0.5, 0.895, 0.895, "done", {"max_latency": "open"}),
        ({"max_latency": "0.4x"}, 0.5, 0.895, 0.895, "budget-not-met", {"max_latency": "not met"}),
        ({"max_latency": "1.1ms"}, 0.5, 0.895, 0.895, "done", {"max_latency": "met"}),
        ({"max_memory": "0.4x"}, 0.5, 0.895, 0.895, "budget-not-met", {"max_memory": "not met"}),
        ({"max_bytes": "6kB"}, 0.5, 0.895, 0.895, "done", {"max_bytes": "met"}),
        ({"expect_ncr": 1.2}, 0.5, 0.895, 0.895, "done", {"expect_ncr": "met"}),
        ({"expect_ncr": 1.3}, 0.5, 0.895, 0.895, "budget-not-met", {"expect_ncr": "not met"}),
        ({"max_latency": "0.6x", "max_drop": 90}, 0.5, 0.15, 0.15, "budget-not-met", {"above_chance": "not met"}),
    ],
)  # fmt: skip
def test_the_result_says_what_was_measured_and_whether_it_keeps_the_bounds(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], share: float,
    after: float, quality: float, status: str, answers: dict[str, str],
) -> None:  # fmt: skip
    monkeypatch.setattr("edgeprune.pipeline.result.drawbacks", lambda _: ())
    monkeypatch.setattr("edgeprune.pipeline.outcome.drawbacks", lambda _: ())
    criterion = Ranked(prepared.network, prepared.structure, l1(prepared.network, prepared.structure), None)
    plan = criterion.plan(dict(HALF))
    from edgeprune.pruning.surgery import prune

    pruned = prune(criterion, prepared.structure, plan)
    options = config(tmp_path, runtime="onnxruntime", **asked)
    possible = Possible(1.3, 0.4, 0.4, Reference(BASELINE_S, BASELINE_BYTES, 10_000), 4_000)
    best = Trial(3, Candidate(plan, 0.8, 1.27, cost(share), 1), 1.0, 0.0)
    budget = replace(options.budget(), max_drop=options.budget().max_drop or 1.0)
    searched = Searched([best], budget, possible, criterion, summary(best), 0.1, 40)
    now = Judged({"accuracy": after, "balanced-accuracy": after - 0.02}, (after - 0.01, after + 0.01), (0.5,) * 10)
    old = Judged({"accuracy": 0.9, "balanced-accuracy": 0.88}, (0.88, 0.92), (0.9,) * 10)
    scores = HostScores(old, Judged({"accuracy": 0.4, "balanced-accuracy": 0.3}, (0.3, 0.5)), now, 0.2, quality)
    tuned = Tuned(best, plan, pruned, Fit(pruned, 0.87, (0.87,), 1.0))
    tflite = NotValidated(validated("tflite", share, now, tmp_path).exported, "litert", "no litert there")
    files = [validated("onnx", share, now, tmp_path), tflite]
    prepared = replace(prepared, baseline={"source": "trained", "epochs": 3, "key": "k"})
    record = assemble(options, prepared, searched, tuned, scores, files, DeviceSpec("fake", "local"), 12.345)
    result = to_json(record)
    assert to_json(from_json(Result, result)) == result
    assert result["status"] == status
    checks = {check["bound"]: check for check in result["budget"]["checks"]}
    assert {bound: checks[bound]["answer"] for bound in answers} == answers
    assert result["budget"]["met"] == ({check["answer"] for check in checks.values()} == {"met"})
    assert result["compressed"]["lost"] == pytest.approx(100 * (0.9 - after))
    assert result["compressed"]["scores"]["balanced-accuracy"] == pytest.approx(after - 0.02)
    assert result["compressed"]["scores_before_finetune"]["accuracy"] == 0.4
    assert result["compressed"]["ncr"] == pytest.approx(112 / 88)
    assert (result["compressed"]["neurons"], result["baseline"]["neurons"]) == (88, 112)
    assert result["compressed"]["parameters"] == sum(each.numel() for each in pruned.parameters())
    assert result["compressed"]["macs"] == 64 * 16 + 16 * 8 + 8 * 10
    onnx, other = result["artifacts"]
    assert (onnx["bytes"], onnx["baseline_bytes"], onnx["peak_bytes"]) == (
        10_000 * share,
        10_000,
        BASELINE_BYTES * share,
    )
    assert onnx["latency"]["median"] == pytest.approx(BASELINE_S * share, rel=0.02)
    assert onnx["speedup"]["value"] == pytest.approx(1 / share)
    assert (other["validated"], other["why_not"]) == (False, "no litert there")
    assert (result["seconds"], result["search"]["best_trial"]) == (12.35, 3)
    if "max_latency" in asked and asked["max_latency"].endswith("x"):
        assert checks["max_latency"]["value"] == pytest.approx(share, rel=0.01)
        low, high = checks["max_latency"]["interval"]
        assert low < share < high


def test_a_format_that_was_not_exported_says_why(prepared: Prepared) -> None:

    said = to_json(artifact_of(NotExported("tflite", "no such operator", "int8")))
    assert said == {
        "format": "tflite", "exported": False, "precision": "int8", "path": None, "validated": False,
        "why_not": "no such operator",
    }  # fmt: skip


def test_a_front_shows_what_its_files_answer(prepared: Prepared) -> None:
    from edgeprune.pipeline.bounds import read_bounds
    from edgeprune.pipeline.front import _reached

    file = {
        "path": "model-int8.onnx", "precision": "int8", "device_scores": {"accuracy": 0.8},
        "baseline_device_scores": {"accuracy": 0.9}, "device_interval": [0.78, 0.82], "peak_bytes": 5,
        "baseline_peak_bytes": 10, "bytes": 3, "baseline_bytes": 9, "latency": {"median": 1e-3},
        "speedup": {"value": 2.0, "ci_low": 1.9, "ci_high": 2.1},
    }  # fmt: skip
    outcome = {
        "budget": {"artifact": "model-int8.onnx", "checks": [], "answer": "met", "recommended": True},
        "compressed": {"scores": {"accuracy": 0.89}, "interval": [0.88, 0.9], "lost": 1.0, "ncr": 2.0},
        "artifacts": [file], "status": "done", "search": {"best_trial": 1},
    }  # fmt: skip
    (asked,) = read_bounds("max_latency", "0.6x")
    found = _reached(asked, 0.6, outcome, prepared)
    assert (found.quality.value, found.quality.low, found.drop) == (0.8, 0.78, pytest.approx(10))
    file["precision"] = "fp32"
    found = _reached(asked, 0.6, outcome, prepared)
    assert (found.quality.value, found.quality.low, found.drop) == (0.89, 0.88, 1.0)
