from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.core.budget import Bound
from edgeprune.core.clock import Deadline
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.devices.channel import ChannelError
from edgeprune.devices.local import LocalSession
from edgeprune.profilers.fresh import Collector, compare_fresh, cool_down
from edgeprune.profilers.replies import Race
from edgeprune.profilers.statistics import Interval, cost_interval, quotient_interval
from edgeprune.profilers.verdict import judge


def test_samples_know_their_process(
    session: LocalSession, quick: MeasureSettings, full_model: Path, half_model: Path
) -> None:
    settings = replace(quick, processes=3)
    measured = compare_fresh(session, settings, half_model, full_model)
    assert isinstance(measured, Measurement)
    assert measured.process == (0, 0, 0, 1, 1, 1, 2, 2, 2)
    assert len(measured.samples) == len(measured.against) == 9
    assert measured.peak_bytes < measured.against_peak_bytes
    assert measured.settings == settings
    assert measured.load_s
    assert measured.first_s
    interval = quotient_interval(measured.samples, measured.against, measured.process)
    assert interval.processes == 3


def test_a_file_beside_itself_holds_the_same_memory(
    session: LocalSession, quick: MeasureSettings, full_model: Path
) -> None:
    measured = compare_fresh(session, replace(quick, processes=1), full_model, full_model)
    assert isinstance(measured, Measurement)
    assert measured.memory_quotient == pytest.approx(1, rel=0.01)


def test_a_refused_candidate_is_a_failure(
    session: LocalSession, quick: MeasureSettings, full_model: Path, not_a_model: Path
) -> None:
    failure = compare_fresh(session, replace(quick, processes=2), not_a_model, full_model)
    assert isinstance(failure, Failure)
    assert failure.kind == "refused"


def test_one_process_may_die(
    session: LocalSession,
    quick: MeasureSettings,
    full_model: Path,
    half_model: Path,
    fails_once: Callable[[str, str], Path],
) -> None:
    probe_file = fails_once("die", "race")
    settings = replace(quick, processes=2)
    assert isinstance(compare_fresh(session, settings, half_model, full_model, probe_file=probe_file), Measurement)


def test_when_all_die_it_is_a_failure(
    session: LocalSession, quick: MeasureSettings, full_model: Path, fails_always: Callable[[str], Path]
) -> None:
    settings = replace(quick, processes=2)
    failure = compare_fresh(session, settings, full_model, full_model, probe_file=fails_always("die"))
    assert isinstance(failure, Failure)
    assert failure.kind == "crashed"


def test_no_processes_is_a_mistake(session: LocalSession, quick: MeasureSettings, full_model: Path) -> None:
    with pytest.raises(ValueError, match="processes"):
        compare_fresh(session, quick, full_model, full_model)


def race(states: tuple[dict[str, object], ...] = (), cost: float = 1.0) -> Race:
    return Race((cost,) * 3, (1.0,) * 3, (1.0,), 0.1, 0.1, states)


CALM = {"wall_s": 0.0, "mono_s": 0.0, "throttled": 0}
GOOD, BAD = (CALM, CALM), (CALM, CALM | {"throttled": 4})


def collect(settings: MeasureSettings, states: list[tuple[dict[str, object], ...]]) -> Collector[Race]:
    collector: Collector[Race] = Collector(settings, lambda races: None)
    left = iter(states)
    while collector.wanted():
        collector.add(race(next(left)))
    assert next(left, None) is None
    return collector


def test_a_disturbed_process_is_measured_again(quick: MeasureSettings) -> None:
    collector = collect(replace(quick, processes=3), [GOOD, BAD, GOOD, BAD, GOOD])
    assert [each.states for each in collector.kept()] == [GOOD] * 3
    assert collector.rejected == 2


def test_where_all_are_disturbed_they_are_kept_and_told(quick: MeasureSettings) -> None:
    settings = replace(quick, processes=3)
    collector = collect(settings, [BAD] * 6)
    assert len(collector.kept()) == 3
    assert collector.rejected == 3
    states = [state for each in collector.kept() for state in each.states]
    assert judge(states, None, settings)[0] == "throttled"


def test_good_processes_go_before_disturbed_ones(quick: MeasureSettings) -> None:
    collector = collect(replace(quick, processes=3), [BAD, GOOD, BAD, BAD, BAD, BAD])
    assert [each.states for each in collector.kept()] == [GOOD, BAD, BAD]


def test_more_processes_until_the_interval_is_narrow_enough(quick: MeasureSettings) -> None:
    settings = replace(quick, processes=3, half_width=0.02, max_s=1000.0)
    widths = [0.07, 0.06, 0.05, 0.04, 0.01]
    collector: Collector[Race] = Collector(
        settings, lambda races: Interval(1.0, 1 - (w := widths[len(races) - 1]), 1 + w)
    )
    notes = []
    while collector.wanted():
        collector.add(race(GOOD))
        notes.append(collector.note())
    assert len(notes) == 5
    # No bar can tell how many they will be.
    assert [re.sub(r"\d+ s", "N s", note) for note in notes] == [
        "", "±6.0 %", "±5.0 %", "±4.0 %, 4 processes, N s more at most", "±1.0 %, 5 processes, N s more at most"
    ]  # fmt: skip
    spent: Collector[Race] = Collector(replace(settings, max_s=0.0), lambda races: Interval(1.0, 0.5, 1.5))
    for _ in range(3):
        assert spent.wanted()
        spent.add(race(GOOD))
    assert not spent.wanted()


def test_more_processes_until_the_interval_is_off_the_bound(quick: MeasureSettings) -> None:
    settings = replace(quick, processes=3, until_off=Bound(0.7, relative=True), max_s=1000.0)

    def processes(*intervals: Interval, settings: MeasureSettings = settings) -> int:
        left = iter(intervals)
        collector: Collector[Race] = Collector(settings, lambda races: next(left))
        while collector.wanted():
            collector.add(race(GOOD))
        assert next(left, None) is None
        return len(collector.kept())

    holds, off = Interval(0.7, 0.68, 0.72), Interval(0.66, 0.64, 0.68)
    assert processes(off) == 3
    assert processes(holds, holds, off) == 5
    # Barely off is not enough while there is time: who looks often would find that by luck.
    assert processes(Interval(0.68, 0.66, 0.699), off) == 4
    assert processes(settings=replace(settings, max_s=0.0)) == 3


def test_on_a_busy_machine_the_race_goes_on_with_what_there_is(quick: MeasureSettings) -> None:
    settings = replace(quick, processes=2, until_off=Bound(0.7, relative=True), max_s=1000.0)
    holds, off = Interval(0.7, 0.68, 0.72), Interval(0.66, 0.64, 0.68)
    seen: list[int] = []

    def interval(races: Sequence[Race]) -> Interval:
        seen.append(len(races))
        return off if len(races) == 4 else holds

    collector: Collector[Race] = Collector(settings, interval)
    for states in (BAD, GOOD, BAD, BAD, BAD, BAD, BAD, BAD):
        assert collector.wanted()
        collector.add(race(states))
    assert not collector.wanted()
    # Never are more than half of them thrown away.
    assert seen == [2, 2, 3, 3, 4]
    assert [each.states for each in collector.kept()] == [GOOD, BAD, BAD, BAD]


def test_an_absolute_bound_is_about_the_latency_of_the_file_itself(
    session: LocalSession, quick: MeasureSettings, half_model: Path
) -> None:
    # The quotient of a file and itself never leaves 1; its latency is far from a second.
    settings = replace(quick, processes=2, until_off=Bound(1.0), max_s=1000.0)
    measured = compare_fresh(session, settings, half_model, half_model, memories=1)
    assert isinstance(measured, Measurement)
    assert cost_interval(measured.samples, measured.against, measured.process, relative=False).answer(1.0) == "met"


class Thermometer:
    """A client whose device cools by ten degrees each time it is asked."""

    def __init__(self, temperature: float | None) -> None:
        self.temperature = temperature

    def state(self, deadline: Deadline) -> dict[str, object]:
        told = self.temperature
        if self.temperature is not None:
            self.temperature -= 10
        return {"temperature_c": told}


def test_it_waits_for_a_hot_device(quick: MeasureSettings) -> None:
    settings = replace(quick, cool_below_c=50.0)
    slept: list[float] = []
    cool_down(Thermometer(75.0), settings, Deadline.after(300), slept.append)  # type: ignore[arg-type]
    assert len(slept) == 3
    cool_down(Thermometer(75.0), settings, Deadline.after(0), slept.append)  # type: ignore[arg-type]
    assert len(slept) == 3  # no time left: what is measured then is tainted
    with pytest.raises(ChannelError, match="does not tell its temperature"):
        cool_down(Thermometer(None), settings, Deadline.after(300), slept.append)  # type: ignore[arg-type]


def test_states_and_a_verdict_come_with_the_measurement(
    session: LocalSession, quick: MeasureSettings, full_model: Path
) -> None:
    measured = compare_fresh(session, replace(quick, processes=2), full_model, full_model)
    assert isinstance(measured, Measurement)
    assert len(measured.states) == 4
    assert measured.states[0]["boot_id"]
    assert measured.verdict in {"stable", "noisy", "busy"}
