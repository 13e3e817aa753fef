import json

from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.budget import Bound, Budget
from edgeprune.core.design import Group, PruningPlan
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.plain import from_json, to_json
from edgeprune.core.trial import Candidate, Trial

positive = st.floats(1e-9, 1e3)
names = st.text(st.characters(codec="ascii", exclude_categories=("C",)), min_size=1, max_size=8)
plans = st.dictionaries(names, st.sets(st.integers(0, 99)).map(lambda kept: tuple(sorted(kept))), max_size=3).map(
    PruningPlan
)
settings_ = st.builds(MeasureSettings, runtime=st.sampled_from(["onnxruntime", "litert"]), rounds=st.integers(1, 99))
samples = st.lists(positive, min_size=2, max_size=5).map(tuple)
pairs = st.lists(st.tuples(positive, positive), min_size=1, max_size=5)


def measured(pairs: list[tuple[float, float]], **figures: object) -> Measurement:
    return Measurement(samples=tuple(a for a, _ in pairs), against=tuple(b for _, b in pairs), **figures)  # type: ignore[arg-type]


measurements = st.builds(
    measured,
    pairs=pairs,
    unit=st.sampled_from(["s", "instructions"]),
    warmups=samples,
    peak_bytes=st.integers(0, 2**40),
    against_peak_bytes=st.integers(0, 2**40),
    memory_method=st.just("mallinfo2"),
    sha256=names,
    against_sha256=names,
    device=names,
    facts=st.dictionaries(names, names, max_size=2),
    settings=settings_,
)
failures = st.builds(
    Failure, kind=st.sampled_from(["refused", "crashed", "lost"]), message=names, retryable=st.booleans()
)
bounds = st.none() | st.builds(Bound, positive, st.booleans())
budgets = st.builds(Budget, bounds, bounds, bounds, st.none() | positive, st.none() | positive)
groups = st.builds(
    Group, names, st.integers(1, 99), st.integers(1, 9), st.integers(1, 8), positive, positive, st.integers(0, 99),
    st.lists(names, max_size=3).map(tuple),
)  # fmt: skip
candidates = st.builds(Candidate, plans, positive, positive, measurements | failures | st.none(), st.integers(0, 9))
trials = st.builds(Trial, st.integers(0, 99), candidates, positive, positive)


@given(st.one_of(plans, settings_, measurements, failures, budgets, groups, trials))
def test_every_type_survives_json(value: object) -> None:
    assert from_json(type(value), json.loads(json.dumps(to_json(value)))) == value


@given(st.integers(1, 300), st.integers(1, 16), st.floats(0, 400))
def test_a_snapped_width_is_allowed(channels: int, step: int, width: float) -> None:
    floor = min(channels, step)
    group = Group("g", channels, floor, step, 1, 1, 1, ("g",))
    snapped = group.snap(width)
    assert floor <= snapped <= channels
    assert snapped in (floor, channels) or snapped % step == 0
    assert snapped <= max(width, floor)


def test_a_plan_is_named_by_its_channels_not_by_their_order() -> None:
    one, two = PruningPlan({"a": (0, 1), "b": (2,)}), PruningPlan({"b": (2,), "a": (0, 1)})
    assert one.key == two.key != PruningPlan({"a": (0, 2), "b": (2,)}).key
    assert one.widths == {"a": 2, "b": 1}


def test_quotient_is_the_median_of_paired_rounds() -> None:
    # Drift doubles both in the last round: paired quotients do not notice, a quotient of means would.
    measured = Measurement(
        "s", (1.0, 2.0, 8.0), (), (2.0, 4.0, 16.0), 10, 40, "mallinfo2", "a", "b", "d", {}, MeasureSettings("litert")
    )
    assert measured.quotient == 0.5
    assert measured.memory_quotient == 0.25
