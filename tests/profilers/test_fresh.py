from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.core.types import Failure, Measurement, MeasureSettings
from edgeprune.devices.local import LocalSession
from edgeprune.profilers.fresh import compare_fresh
from edgeprune.profilers.statistics import quotient_interval


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
    assert [name for name in os.listdir(session._work) if name.endswith(".onnx")] == []


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
