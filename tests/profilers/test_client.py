from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from edgeprune.core.clock import Deadline
from edgeprune.core.measurement import MeasureSettings
from edgeprune.devices.channel import ChannelError
from edgeprune.profilers.client import ProbeClient, Pushed

SETTINGS = MeasureSettings("onnxruntime", rounds=2)
MODEL = Pushed("there", "0" * 64)
RACE = {
    "samples_a": [1.0, 2.0],
    "samples_b": [1.0, 2.0],
    "warmups_a": [1.0],
    "load_s_a": [0.1, 0.3],
    "first_s_a": [0.1, 0.2],
}


class Scripted:
    """A channel that gives one answer, whatever it is asked."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self._answer = answer

    def request(self, message: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        return {"ok": True, **self._answer}

    def close(self) -> None:
        pass


def client(**answer: Any) -> ProbeClient:
    return ProbeClient(Scripted(answer), SETTINGS)


def test_a_race_is_read() -> None:
    race = client(**RACE).race(MODEL, MODEL, Deadline.after(1))
    assert race.samples == (1.0, 2.0)
    assert race.load_s == pytest.approx(0.2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0, "1", None, True])
@pytest.mark.parametrize("key", sorted(RACE))
def test_a_figure_that_cannot_be_is_garbled(key: str, bad: object) -> None:
    for value in ([1.0, bad], bad, []):
        with pytest.raises(ChannelError) as caught:
            client(**{**RACE, key: value}).race(MODEL, MODEL, Deadline.after(1))
        assert caught.value.kind == "garbled"


def test_zero_seconds_and_missing_rounds_cannot_be() -> None:
    for samples in ([0.0, 1.0], [1.0], [1.0, 1.0, 1.0]):
        with pytest.raises(ChannelError, match="cannot be"):
            client(**{**RACE, "samples_b": samples}).race(MODEL, MODEL, Deadline.after(1))


@pytest.mark.parametrize("held", [float("nan"), -5, "many", None])
def test_memory_that_cannot_be_is_garbled(held: object) -> None:
    with pytest.raises(ChannelError, match="not a figure"):
        client(bytes=held, method="mallinfo2").memory(MODEL, Deadline.after(1))


def test_facts_must_be_an_object() -> None:
    with pytest.raises(ChannelError, match="facts are none"):
        client(facts=[1]).hello([], Deadline.after(1))


@pytest.mark.parametrize(
    ("said", "kind"), [("refused", "refused"), ("lost", "lost"), ("nonsense", "crashed"), ([], "crashed")]
)
def test_a_failed_request_keeps_its_kind(said: object, kind: str) -> None:
    with pytest.raises(ChannelError) as caught:
        client(ok=False, kind=said, error="x" * 10_000).memory(MODEL, Deadline.after(1))
    assert caught.value.kind == kind
    assert caught.value.retryable == (kind != "refused")
    assert len(caught.value.message) <= 500


def test_a_probe_of_another_unit_is_refused() -> None:
    for unit in ("instructions", "parsecs", 3):
        with pytest.raises(ChannelError, match="measures in") as caught:
            client(facts={"unit": unit}).hello([], Deadline.after(1))
        assert not caught.value.retryable
