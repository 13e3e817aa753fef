"""Whatever a device says, the reader answers with an object or a ChannelError."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprune.core.clock import Deadline
from edgeprune.core.measurement import MeasureSettings
from edgeprune.devices.channel import MAX_ANSWER_BYTES, ChannelError, read_answer
from edgeprune.profilers.client import ProbeClient, Pushed

#: Strategies that build JSON cost ten times what is tested, so most cases grow from a seed.
LINES = settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
SEEDS = settings(max_examples=4500, deadline=None, suppress_health_check=list(HealthCheck))
seeds = st.integers(0, 2**64)
MODEL = Pushed("there", "0" * 64)
SETTINGS = MeasureSettings("onnxruntime", rounds=2)

KEYS = (
    *(
        "facts",
        "ops",
        "unit",
        "state",
        "states",
        "samples_a",
        "samples_b",
        "warmups_a",
        "load_s_a",
        "first_s_a",
        "runs_s",
    ),
    *("warmups_s", "count", "load_s", "first_s", "inferences", "seconds", "per_stream", "operators", "why", "bytes"),
    *("method", "inputs", "outputs", "error", "kind", "name", "type", "ok", "n"),
)
LEAVES = (
    None,
    True,
    False,
    0,
    1,
    -1,
    1.5,
    2**63,
    10**400,
    -(10**400),
    math.nan,
    math.inf,
    -math.inf,
    "",
    "s",
    "\0\x1b[2J",
    "é" * 500,
)
SANE = ([1.0, 2.0], [{}, {}], {"unit": "s"}, 1.0, [["x", [1, 2], "float32"]], [{"name": "a", "seconds": 1.0}])


def value(random: Random, depth: int = 0) -> Any:
    """Something JSON can say, mostly small, sometimes what was asked for."""
    kind = random.random()
    if kind < 0.25:
        return random.choice(SANE)
    if kind < 0.65 or depth > 3:
        return random.choice(LEAVES)
    if kind < 0.85:
        return [value(random, depth + 1) for _ in range(random.randrange(5))]
    return {random.choice(KEYS): value(random, depth + 1) for _ in range(random.randrange(5))}


def only_channel_errors(work: Callable[[], object]) -> None:
    """Work that may be refused, in few words, and in no other way."""
    try:
        work()
    except ChannelError as error:
        assert len(error.message) <= 1000  # noqa: PT017 - most cases raise nothing


class Scripted:
    """A channel whose device says one line."""

    def __init__(self, answer: Any) -> None:
        self._line = answer if isinstance(answer, bytes) else json.dumps({"ok": True, **answer, "n": 1}).encode()

    def request(self, message: object, deadline: Deadline) -> dict[str, Any]:
        return read_answer(self._line, 1)

    def close(self) -> None:
        pass


@LINES
@given(st.binary(max_size=300))
def test_any_bytes(line: bytes) -> None:
    for wrapped in (line, b'{"ok": true, "n": 1, "a": "' + line + b'"}'):
        only_channel_errors(lambda wrapped=wrapped: read_answer(wrapped, 1))


@SEEDS
@given(seeds)
def test_any_json(seed: int) -> None:
    line = json.dumps(value(Random(seed))).encode()
    only_channel_errors(lambda: read_answer(line, 1))
    only_channel_errors(lambda: read_answer(line[: seed % (len(line) + 1)], 1))


@SEEDS
@given(seeds)
def test_any_answer_to_any_request(seed: int) -> None:
    random, soon = Random(seed), Deadline.after(1)
    answer = {key: value(random, 1) for key in random.sample(KEYS, random.randrange(len(KEYS)))}
    client = ProbeClient(Scripted({"ok": True, **answer}), SETTINGS)
    for ask in (
        lambda: client.hello([], soon),
        lambda: client.load("m", MODEL, soon),
        lambda: client.memory(MODEL, soon),
        lambda: client.race(MODEL, MODEL, soon),
        lambda: client.state(soon),
        lambda: client.single(MODEL, 1.0, soon),
        lambda: client.throughput(MODEL, 1, 1.0, soon),
        lambda: client.operators(MODEL, 1, "there", soon),
        lambda: client.predict("m", "in", "out", soon),
    ):
        only_channel_errors(ask)


@pytest.mark.parametrize("depth", [10, 200, 400, 600, 800, 900, 950, 990, 1_000, 5_000, 1_000_000])
@pytest.mark.parametrize(
    "where", ["[%s]", '{"ok": true, "n": %s}', '{"ok": %s, "n": 1}', '{"ok": true, "n": 1, "facts": %s}']
)
def test_deep_nesting(depth: int, where: str) -> None:
    line = (where % ("[" * depth + "]" * depth)).encode()
    only_channel_errors(lambda: ProbeClient(Scripted(line), SETTINGS).hello([], Deadline.after(1)))


def test_a_huge_answer_costs_no_more_than_a_few_times_its_size() -> None:
    line = b'{"ok": true, "n": 1, "facts": {"a": "' + b"x" * (MAX_ANSWER_BYTES - 100) + b'"}}'
    tracemalloc.start()
    try:
        facts = ProbeClient(Scripted(line), SETTINGS).hello([], Deadline.after(1))
        assert len(facts["a"]) == 200
        assert tracemalloc.get_traced_memory()[1] < 6 * MAX_ANSWER_BYTES
    finally:
        tracemalloc.stop()


def test_an_answer_of_many_small_things_is_bounded_too() -> None:
    line = b'{"ok": true, "n": 1, "runs_s": [' + b"{}," * (MAX_ANSWER_BYTES // 30) + b"{}]}"
    tracemalloc.start()
    try:
        read_answer(line, 1)
        assert tracemalloc.get_traced_memory()[1] < 40 * len(line)
    finally:
        tracemalloc.stop()
