"""Bounds as constraints: the reward, the cost model, and plans that are brought to the bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest

from edgeprune.core.design import Group, PruningPlan
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.trial import Candidate
from edgeprune.search import agent
from edgeprune.search.agent import equal_loss
from edgeprune.search.costs import CostModel, Costs
from edgeprune.search.drive import drive
from edgeprune.search.environment import Environment, Episode, Proposal, StopSearch
from edgeprune.search.frontier import MARGIN, Frontier, narrow_plans, next_narrower, next_wider
from edgeprune.search.least_loss import LeastLoss
from edgeprune.search.methods import make_method
from edgeprune.search.names import MethodName
from edgeprune.search.reward import VIOLATION, BoundedReward, Limits, Reward
from edgeprune.search.space import Space
from edgeprune.search.states import Losses, SensitiveStates
from edgeprune.search.survey import where_least_is_lost

#: A chain of convolutions: each group's channels are made by one layer and read by the next.
GROUPS = tuple(Group(f"g{i}", 64, 8, 8, 1.0, 1.0, 100, (f"g{i}",), "channels") for i in range(5))
NEURONS = 5 * 64
SPACE = Space(GROUPS, NEURONS)
WHOLE_BYTES = 100_000


def shares(widths: Mapping[str, int]) -> list[float]:
    left = [1.0, *(widths.get(g.name, g.channels) / g.channels for g in GROUPS)]
    work = sum(a * b for a, b in pairwise(left)) / len(GROUPS)
    return [work, work]


def latency(widths: Mapping[str, int]) -> float:
    """A made-up device: some of it fixed, the rest goes with the work, and group g2 is blocked by 32 channels."""
    blocked = {**widths, "g2": -(-widths.get("g2", 64) // 32) * 32}
    return 0.1 + 0.9 * shares(blocked)[0]


def measured(quotient: float, memory: float = 0.5, bytes: int = 50_000) -> Measurement:
    return Measurement(
        "s", (quotient,) * 3, (), (1.0,) * 3, int(1000 * memory), 1000, "mallinfo2", "", "", "d", {},
        MeasureSettings("litert"), bytes=bytes,
    )  # fmt: skip


def candidate(widths: Mapping[str, int], accuracy: float = 0.9, cost: Measurement | Failure | None = None) -> Candidate:
    plan = PruningPlan({g.name: tuple(range(widths.get(g.name, g.channels))) for g in GROUPS})
    found = cost or measured(latency(widths))
    return Candidate(plan, accuracy, ncr(widths), found, found.bytes if isinstance(found, Measurement) else 0)


def ncr(widths: Mapping[str, int]) -> float:
    return NEURONS / sum(widths.get(g.name, g.channels) for g in GROUPS)


def plans(count: int, seed: int = 0) -> list[dict[str, int]]:
    noise = np.random.default_rng(seed)
    return [{g.name: int(8 * noise.integers(1, 9)) for g in GROUPS} for _ in range(count)]


def taught(limits: Limits, count: int = 40) -> Frontier:
    costs = Costs(GROUPS, shares, WHOLE_BYTES)
    for widths in plans(count):
        costs.learn(widths, measured(latency(widths)))
    return Frontier(SPACE, limits, costs)


# --- the reward


def test_inside_the_bounds_only_quality_counts() -> None:
    reward = BoundedReward(0.9, Limits(latency=0.5), WHOLE_BYTES)
    just, far = candidate({}, 0.81, measured(0.5)), candidate({}, 0.81, measured(0.1, memory=0.1))
    assert reward(just) == reward(far) == pytest.approx(0.9)
    # Nor does what nobody bounded.
    assert reward(candidate({g.name: 8 for g in GROUPS}, 0.81, measured(0.5))) == pytest.approx(0.9)


def test_quality_above_the_unpruned_networks_is_worth_more() -> None:
    reward = BoundedReward(0.9, Limits(latency=0.5), WHOLE_BYTES)
    assert reward(candidate({}, 0.92, measured(0.5))) > reward(candidate({}, 0.9, measured(0.5)))


@pytest.mark.parametrize(
    ("limits", "broken"),
    [
        (Limits(latency=0.5), measured(0.55)),
        (Limits(memory=0.5), measured(0.3, memory=0.55)),
        (Limits(bytes=0.5), measured(0.3, bytes=55_000)),
    ],
)
def test_a_violation_costs_in_proportion(limits: Limits, broken: Measurement) -> None:
    reward = BoundedReward(0.9, limits, WHOLE_BYTES)
    assert reward(candidate({}, 0.9, broken)) == pytest.approx(1.0 - VIOLATION * 0.1)


def test_every_bound_that_is_broken_costs() -> None:
    limits = Limits(latency=0.5, memory=0.5, bytes=0.5, ncr=2.0)
    found = candidate({g.name: 40 for g in GROUPS}, 0.9, measured(0.55, memory=0.55, bytes=55_000))
    rate = 2.0 / (64 / 40) - 1.0
    expected = 1.0 - VIOLATION * (0.3 + rate)
    assert BoundedReward(0.9, limits, WHOLE_BYTES)(found) == pytest.approx(expected)


def test_what_could_not_be_measured_breaks_its_bounds_and_no_others() -> None:
    lost = candidate({}, 0.9, Failure("crashed", "gone", retryable=False))
    assert BoundedReward(0.9, Limits(latency=0.5), WHOLE_BYTES)(lost) == pytest.approx(1.0 - VIOLATION)
    assert BoundedReward(0.9, Limits(ncr=1.0), WHOLE_BYTES)(lost) == pytest.approx(1.0)


def test_weights_set_by_hand_pay_for_what_is_not_bounded() -> None:
    by_hand = Reward(0.9, 2.0, 0.5, 0.5, beta=0.0, gamma=0.0, delta=0.5)
    reward = BoundedReward(0.9, Limits(latency=0.5), WHOLE_BYTES, by_hand)
    assert reward(candidate({}, 0.9, measured(0.5, memory=1.0))) == pytest.approx(1.0 + 0.5 * 0.5)


# --- the cost model


def test_before_anything_is_measured_cost_goes_with_the_work() -> None:
    model = CostModel(GROUPS, shares)
    half = {g.name: 32 for g in GROUPS}
    assert model({}) == pytest.approx(1.0, abs=0.01)
    assert model({g.name: 8 for g in GROUPS}) < model(half) < 1.0


def test_costs_are_learnt_with_the_steps_of_a_device() -> None:
    model = CostModel(GROUPS, shares)
    for widths in plans(60):
        model.learn(widths, latency(widths))
    off = [abs(model(w) / latency(w) - 1.0) for w in plans(50, seed=1)]
    assert np.median(off) < 0.02
    # It tells how good it is: what it says of plans it has not seen is what they show.
    assert model.fit.measured == 60
    assert model.fit.median_error == pytest.approx(float(np.median(off)), rel=1.0, abs=0.005)
    # Within a block of 32 a narrower g2 is no faster, across it is.
    base = {g.name: 40 for g in GROUPS}
    within = model({**base, "g2": 56}) - model({**base, "g2": 40})
    across = model({**base, "g2": 40}) - model({**base, "g2": 32})
    assert within < 0.3 * across


def test_the_error_is_that_of_plans_left_out() -> None:
    noise = np.random.default_rng(0)
    model = CostModel(GROUPS, shares)
    for widths in plans(8):
        # Nothing can be learnt from noise: a model that had seen its own figures would seem right.
        model.learn(widths, float(noise.uniform(0.2, 1.0)))
    assert model.fit.median_error > 0.1


# --- the frontier


@pytest.mark.parametrize("bound", [0.3, 0.5, 0.7, 0.9])
def test_plans_are_narrowed_and_widened_to_the_bound(bound: float) -> None:
    frontier = taught(Limits(latency=bound))
    noise = np.random.default_rng(1)
    for _ in range(20):
        found = latency(frontier.fit((64 * noise.uniform(size=5)).tolist()))
        # Nothing is cut deeper than asked for: a step of one group is worth up to 5 per cent here.
        assert bound * 0.85 < found < bound * 1.1


def test_proportions_are_kept() -> None:
    widths = taught(Limits(latency=0.5)).fit([64, 16, 64, 16, 64])
    assert min(widths["g0"], widths["g4"]) > max(widths["g1"], widths["g3"])


def test_a_width_that_brings_nothing_is_not_proposed() -> None:
    frontier = taught(Limits(latency=0.5), count=120)
    noise = np.random.default_rng(1)
    widths = [frontier.fit((64 * noise.uniform(size=5)).tolist())["g2"] for _ in range(40)]
    # 8 to 24 cost what 32 does, 40 to 56 what 64 does: proposed blindly, 10 of 40 would hit one of the two.
    assert sum(width in (32, 64) for width in widths) >= 26


def test_every_bound_is_kept_and_one_of_them_just() -> None:
    limits = Limits(latency=0.6, ncr=2.0)
    widths = taught(limits).fit([64.0] * 5)
    assert ncr(widths) >= 2.0
    assert latency(widths) <= 0.6
    assert ncr(widths) < 2.3 or latency(widths) > 0.6 * (1 - MARGIN) * 0.9


def test_where_nothing_fits_it_is_the_narrowest() -> None:
    assert taught(Limits(latency=0.01)).fit([64.0] * 5) == {g.name: 8 for g in GROUPS}


def test_where_the_bound_asks_for_nothing_nothing_is_cut() -> None:
    assert taught(Limits(latency=1.1)).fit([10.0] * 5) == {g.name: 64 for g in GROUPS}


def test_steps_end_at_the_floor_and_at_the_whole_group() -> None:
    odd = Group("o", 30, 3, 4, 1.0, 1.0, 10, ("o",))
    up, width = [], odd.floor
    while width < odd.channels:
        width = next_wider(odd, width)
        up.append(width)
    assert up == [4, 8, 12, 16, 20, 24, 28, 30]
    down = [next_narrower(odd, 30)]
    while down[-1] > odd.floor:
        down.append(next_narrower(odd, down[-1]))
    assert down == [28, 24, 20, 16, 12, 8, 4, 3]
    # A wish takes all of it only where less than half a floor is wished for.
    assert [replace(odd, removable=True).fitting(width) for width in (1.4, 1.5, 2.9, 9.0)] == [0, 3, 3, 8]
    assert odd.fitting(0.1) == 3
    # What may go as a whole goes from its floor to nothing, and comes back as its floor.
    going = replace(odd, removable=True)
    assert (next_narrower(going, 4), next_narrower(going, 3), next_narrower(going, 0)) == (3, 0, 0)
    assert (next_wider(going, 0), going.snap(2.9), going.snap(3.0), going.least, odd.least) == (4, 0, 3, 0, 3)


# --- searches within bounds


def quality(widths: Mapping[str, int]) -> float:
    """What is left after pruning: the last groups matter more."""
    return 0.9 - sum(0.02 * (i + 1) * (1 - widths[g.name] / 64) ** 2 for i, g in enumerate(GROUPS))


def within(bound: float, name: MethodName, earlier: Sequence[Episode] = ()) -> Environment:
    limits, losses = Limits(latency=bound), {g.name: tuple(1 - k / 64 for k in range(65)) for g in GROUPS}
    return Environment(
        SPACE, lambda w: candidate(w, quality(w)), BoundedReward(0.9, limits, WHOLE_BYTES), min_ncr=None,
        credit="episode", states=make_method(name).states(GROUPS, lambda: Losses(losses)),
        frontier=taught(limits), earlier=earlier,
    )  # fmt: skip


def search(
    name: MethodName, bound: float = 0.5, episodes: int = 30, ahead: int = 0, seed: int = 0,
    earlier: Sequence[Episode] = (),
) -> list[Episode]:  # fmt: skip
    environment = within(bound, name, earlier)
    found: list[Episode] = []
    searching = make_method(name).search(environment, episodes=episodes, seed=seed)
    result = drive(searching, environment, ahead=ahead, on_episode=lambda _, e: found.append(e))
    assert result.episodes == len(found)
    return found


@pytest.mark.parametrize("name", ["edgeprune", "random", "amc"])
@pytest.mark.parametrize("ahead", [0, 1])
def test_every_proposal_lies_near_the_bound_and_none_comes_twice(name: MethodName, ahead: int) -> None:
    found = search(name, ahead=ahead)
    near = [0.85 * 0.5 < e.candidate.cost.quotient < 1.1 * 0.5 for e in found]  # type: ignore[union-attr]
    assert sum(near) >= 0.95 * len(found)
    assert len({e.executed for e in found}) == len(found) == 30


def test_uniform_begins_at_the_bound_and_greedy_ends_there() -> None:
    first, last = search("uniform")[0], search("greedy")[-1]
    for episode in (first, last):
        assert 0.8 * 0.5 < episode.candidate.cost.quotient < 1.1 * 0.5  # type: ignore[union-attr]


def test_how_many_are_under_way_does_not_hang_on_who_is_faster() -> None:
    one, two = ([e.executed for e in search("edgeprune", episodes=14, ahead=1)] for _ in range(2))
    assert one == two


def test_the_first_plan_is_that_of_equal_loss_at_the_bound() -> None:
    limits, losses = Limits(latency=0.5), {g.name: tuple(1 - k / 64 for k in range(65)) for g in GROUPS}
    environment = Environment(
        SPACE, candidate, BoundedReward(0.9, limits, WHOLE_BYTES), min_ncr=None, credit="episode",
        states=make_method("edgeprune").states(GROUPS, lambda: Losses(losses)),
        frontier=taught(limits),
    )  # fmt: skip
    widths = environment.widths(equal_loss(environment))
    assert 0.4 < latency(widths) < 0.51


def test_where_losses_add_up_the_first_plan_is_near_the_one_that_loses_least() -> None:
    """Cutting the first group is cheap at first, and brings much; a step down alone cannot tell that it gets dear."""
    dear = {"g0": 6.0, "g1": 0.5, "g2": 1.0, "g3": 2.0, "g4": 0.1}
    losses = {name: tuple(much * (1 - k / 64) ** 4 for k in range(65)) for name, much in dear.items()}
    limits, frontier = Limits(latency=0.35), taught(Limits(latency=0.35))

    def first(additive: bool) -> dict[str, int]:
        environment = Environment(
            SPACE, candidate, BoundedReward(0.9, limits, WHOLE_BYTES), min_ncr=None,
            frontier=frontier, credit="episode",
            states=make_method("edgeprune").states(GROUPS, lambda: Losses(losses, additive=additive)),
        )  # fmt: skip
        return environment.widths(equal_loss(environment))

    def lost(widths: Mapping[str, int]) -> float:
        return sum(losses[name][width] for name, width in widths.items())

    every = [dict(zip(losses, widths, strict=True)) for widths in product(range(8, 65, 8), repeat=5)]
    best = min(lost(plan) for plan in every if frontier.excess(plan) <= 0.0)
    assert frontier.excess(first(additive=True)) <= 0.0
    assert best <= lost(first(additive=True)) <= 1.05 * best
    assert lost(first(additive=False)) > 1.5 * best


def test_the_first_plan_is_worked_out_again_from_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {g.name: tuple((1 - k / 64) ** 2 for k in range(65)) for g in GROUPS}

    def judged(widths: Mapping[str, int]) -> Candidate:
        """The first group loses far more than it was told to."""
        lost = sum((1 + 7 * (g is GROUPS[0])) * (1 - widths[g.name] / 64) ** 2 for g in GROUPS)
        return candidate(widths, 0.9 - 0.02 * lost)

    def begin() -> Environment:
        return Environment(
            SPACE, judged, BoundedReward(0.9, Limits(latency=0.5), WHOLE_BYTES), min_ncr=None, credit="episode",
            states=make_method("edgeprune").states(GROUPS, lambda: Losses(told, additive=True)),
            frontier=taught(Limits(latency=0.5)),
        )  # fmt: skip

    environment, found, again = begin(), list[Episode](), dict[int, tuple[float, ...]]()

    def watched(environment: Environment, known: Sequence[Episode] = ()) -> list[float]:
        plan = equal_loss(environment, known)
        again[len(known)] = environment.executed(environment.widths(plan))
        return plan

    monkeypatch.setattr(agent, "equal_loss", watched)
    searching = make_method("edgeprune").search(environment, episodes=16, seed=0)
    drive(searching, environment, on_episode=lambda _, e: found.append(e))
    # Every third one asks; what it is told that nobody has tried is tried.
    assert set(again) == {0, 6, 9, 12, 15}
    tried = [episode.executed for episode in found]
    assert all(tried[index] == plan or plan in tried[:index] for index, plan in again.items() if index)
    assert any(tried[index] == plan for index, plan in again.items() if index)
    # Scores tell that the first group loses more than the others, which all were told to lose alike.
    fresh = begin()
    assert equal_loss(fresh, found)[0] < equal_loss(fresh)[0]


def test_when_every_plan_was_tried_the_search_ends() -> None:
    one = (Group("g", 32, 8, 8, 1.0, 1.0, 10, ("g",), "channels"),)
    environment = Environment(
        Space(one, 32),
        lambda w: Candidate(PruningPlan({"g": tuple(range(w["g"]))}), 0.9, 1.0, None, 0),
        lambda c: c.accuracy,
        min_ncr=None, credit="episode",
    )  # fmt: skip
    found: list[Episode] = []
    searching = make_method("random").search(environment, episodes=20, seed=0)
    result = drive(searching, environment, on_episode=lambda _, e: found.append(e))
    assert sorted(round(32 * (1 - e.executed[0])) for e in found) == [8, 16, 24, 32]
    assert (result.episodes, result.stopped) == (4, "")


def test_a_search_after_another_one_repeats_none_of_its_plans() -> None:
    first = search("edgeprune", bound=0.7, episodes=12)
    environment = within(0.5, "edgeprune", first)
    found: list[Episode] = []
    searching = make_method("edgeprune").search(environment, episodes=12, seed=0)
    drive(searching, environment, on_episode=lambda _, e: found.append(e))
    # Plans for 0.7 break this bound, and are worth less here than they were there.
    assert all(e.reward < old.reward for e, old in zip(environment.earlier, first, strict=True))
    assert not {e.executed for e in found} & {e.executed for e in first}


def test_plans_made_for_another_bound_do_not_spoil_a_search() -> None:
    """A critic that also learns their ranks proposes widths at the extremes: that happened to a DS-CNN."""
    alone, after = search("edgeprune", 0.3), search("edgeprune", 0.3, earlier=search("edgeprune", 0.6))
    assert [e.executed for e in alone] == [e.executed for e in after]


def test_plans_near_the_bound_are_learnt_from_whichever_search_made_them() -> None:
    alone, after = search("edgeprune", 0.5), search("edgeprune", 0.5, earlier=search("edgeprune", 0.52, seed=1))
    assert [e.executed for e in alone[:4]] == [e.executed for e in after[:4]]  # the first plans hang on no plan before
    assert [e.executed for e in alone] != [e.executed for e in after]


# --- the loop


class _Device:
    """A device that is asked for one candidate after the other, and writes down in which order things happen."""

    def __init__(self, lost_at: int | None = None) -> None:
        self.log: list[str] = []
        self.count = 0
        self._lost_at = lost_at

    def __call__(self, widths: Mapping[str, int]) -> _Measuring:
        self.count += 1
        self.log.append(f"host {self.count}")
        return _Measuring(self, self.count, dict(widths), lost=self.count == self._lost_at)


class _Measuring:
    def __init__(self, device: _Device, number: int, widths: dict[str, int], *, lost: bool) -> None:
        self._device, self._number, self._widths, self._lost = device, number, widths, lost

    def result(self) -> Candidate:
        if self._lost:
            raise StopSearch("the board is gone")
        self._device.log.append(f"device {self._number}")
        return candidate(self._widths)


def driven(device: _Device, ahead: int, episodes: int = 4) -> tuple[list[int], int, str]:
    environment = Environment(SPACE, device, lambda c: c.accuracy, min_ncr=None, credit="episode")
    heard: list[int] = []
    searching = make_method("random").search(environment, episodes=episodes, seed=0)
    result = drive(searching, environment, ahead=ahead, on_episode=lambda index, _: heard.append(index))
    return heard, result.episodes, result.stopped


def test_the_host_prepares_one_while_the_device_measures_the_one_before() -> None:
    device = _Device()
    heard, episodes, _ = driven(device, ahead=1)
    assert device.log == [
        "host 1", "host 2", "device 1", "host 3", "device 2", "host 4", "device 3", "device 4",
    ]  # fmt: skip
    assert (heard, episodes) == ([0, 1, 2, 3], 4)


def test_without_ahead_one_comes_after_the_other() -> None:
    device = _Device()
    driven(device, ahead=0)
    assert device.log == [f"{who} {n}" for n in range(1, 5) for who in ("host", "device")]


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_device_that_is_lost_leaves_the_episodes_before(ahead: int) -> None:
    heard, episodes, stopped = driven(_Device(lost_at=3), ahead, episodes=6)
    assert (heard, episodes, stopped) == ([0, 1], 2, "the board is gone")


# --- a device on which the narrowest network is not the fastest


def in_blocks(widths: Mapping[str, int]) -> float:
    """Kernels take 16 channels at a time, and what is left over otherwise: a layer of 8 or 24 costs a step more."""
    whole = {g.name: -(-widths.get(g.name, g.channels) // 16) * 16 for g in GROUPS}
    return 0.1 + 0.9 * shares(whole)[0] + 0.05 * sum(whole[g.name] != widths.get(g.name, 64) for g in GROUPS)


def blocked(limit: float) -> Frontier:
    """As a search begins: only the narrow plans were measured."""
    costs = Costs(GROUPS, shares, WHOLE_BYTES)
    for widths in narrow_plans(GROUPS):
        costs.learn(widths, measured(in_blocks(widths)))
    return Frontier(SPACE, Limits(latency=limit), costs)


NARROW, WHOLE_BLOCKS = ({g.name: width for g in GROUPS} for width in (8, 16))


def test_narrow_plans_are_the_narrowest_and_those_of_whole_blocks() -> None:
    assert narrow_plans(GROUPS) == [NARROW, WHOLE_BLOCKS]
    # Neurons have no blocks, a width must be allowed, and no group is wider than it is.
    others = (
        Group("neurons", 300, 30, 1, 1.0, 1.0, 1, ("a",)),
        Group("threes", 60, 6, 3, 1.0, 1.0, 1, ("b",), "channels"),
        Group("small", 12, 4, 4, 1.0, 1.0, 1, ("c",), "channels"),
    )
    assert [tuple(plan.values()) for plan in narrow_plans(others)] == [(30, 6, 4), (30, 6, 8), (30, 6, 12)]


def test_proposals_keep_a_bound_that_the_narrowest_network_breaks() -> None:
    assert in_blocks(WHOLE_BLOCKS) < 0.3 < in_blocks(NARROW)
    frontier = blocked(0.3)
    assert frontier.least() == WHOLE_BLOCKS
    for keep in ([1.0] * 5, [40.0, 8.0, 8.0, 8.0, 8.0], [0.0, 0.0, 64.0, 0.0, 0.0]):
        widths = frontier.fit(keep)
        # As far as is known by then.
        assert frontier.excess(widths) <= 0.0
        assert min(widths.values()) >= 16
    losses = Losses({g.name: tuple(1 - k / 64 for k in range(65)) for g in GROUPS}, additive=True)
    states = make_method("edgeprune").states(GROUPS, lambda: losses)
    assert isinstance(states, SensitiveStates)
    plan = LeastLoss(GROUPS, states, frontier.excess, least=frontier.least()).plan()
    assert frontier.excess(plan) <= 0.0
    # Where the narrowest keeps it that is where plans begin, and where nothing does what is nearest.
    assert blocked(0.6).least() == NARROW
    assert blocked(0.1).least() == WHOLE_BLOCKS


def test_the_plan_of_least_loss_stops_where_narrower_is_slower() -> None:
    # g0 loses nothing: it would go first, and to its floor.
    told = {g.name: tuple((1 - k / 64) * (g.name != "g0") for k in range(65)) for g in GROUPS}
    states = make_method("edgeprune").states(GROUPS, lambda: Losses(told, additive=True))
    assert isinstance(states, SensitiveStates)

    def missing(widths: Mapping[str, int]) -> float:
        return in_blocks(widths) / 0.2 - 1.0

    assert missing(LeastLoss(GROUPS, states, missing).plan()) > 0.0
    assert LeastLoss(GROUPS, states, missing, least=WHOLE_BLOCKS).plan() == WHOLE_BLOCKS


def test_first_plans_begin_at_the_fastest_narrow_network(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Mapping[str, int]] = []

    def plan(least_loss: LeastLoss) -> dict[str, int]:
        begun.append(least_loss.least)
        return WHOLE_BLOCKS

    monkeypatch.setattr(LeastLoss, "plan", plan)
    losses = Losses({g.name: tuple(1 - k / 64 for k in range(65)) for g in GROUPS}, additive=True)
    states, frontier = make_method("edgeprune").states(GROUPS, lambda: losses), blocked(0.2)
    assert isinstance(states, SensitiveStates)
    environment = Environment(
        SPACE, candidate, BoundedReward(0.9, frontier.limits, WHOLE_BYTES), min_ncr=None,
        credit="episode", states=states, frontier=frontier,
    )  # fmt: skip
    equal_loss(environment)
    assert begun == [WHOLE_BLOCKS]
    # Whatever costs may be, as many times as there are groups.
    assert len(list(where_least_is_lost(GROUPS, states, frontier, seed=0))) == len(GROUPS)
    assert all(least in (NARROW, WHOLE_BLOCKS) for least in begun)
    assert len(begun) == 1 + len(GROUPS)


def test_where_no_new_plan_is_predicted_to_keep_the_bound_the_nearest_is_tried() -> None:
    frontier = blocked(0.2)
    environment = Environment(
        SPACE, lambda w: candidate(w, quality(w)), BoundedReward(0.9, frontier.limits, WHOLE_BYTES), min_ncr=None,
        credit="episode", frontier=frontier,
    )  # fmt: skip
    begun = [environment.begin(Proposal((0.75,) * 5)) for _ in range(4)]
    plans = [each.widths for each in begun if each is not None]
    assert len({tuple(plan.values()) for plan in plans}) == 4
    over = [frontier.excess(plan) for plan in plans]
    assert over[0] < over[1] <= over[2] <= over[3] < 0.15
    assert over[1] > 0.0


@pytest.mark.parametrize("name", ["edgeprune", "amc", "random"])
def test_a_search_goes_on_where_hardly_a_plan_keeps_the_bound(name: MethodName) -> None:
    losses = {g.name: tuple(1 - k / 64 for k in range(65)) for g in GROUPS}
    limits = Limits(latency=0.3)
    environment = Environment(
        SPACE, lambda w: candidate(w, quality(w), measured(in_blocks(w))), BoundedReward(0.9, limits, WHOLE_BYTES),
        min_ncr=None, credit="episode", states=make_method(name).states(GROUPS, lambda: Losses(losses)),
        frontier=blocked(0.3),
    )  # fmt: skip
    found: list[Episode] = []
    searching = make_method(name).search(environment, episodes=20, seed=0)
    drive(searching, environment, on_episode=lambda _, e: found.append(e))
    costs = [in_blocks(e.candidate.plan.widths) for e in found]
    assert len({e.candidate.plan.key for e in found}) == 20
    assert sum(each <= 0.3 for each in costs) >= 5
    # What is tried besides lies near.
    assert sum(each <= 1.25 * 0.3 for each in costs) >= 16
