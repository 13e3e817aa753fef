import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.core.budget import Bound
from edgeprune.core.errors import UsageError
from edgeprune.core.units import (
    format_bytes,
    format_cost,
    format_figure,
    format_millions,
    format_percent,
    format_speedup,
    format_speedups,
    parse_bytes,
    parse_latency,
)


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("5ms", Bound(0.005)),
        ("800us", Bound(800e-6)),
        ("800 µs", Bound(800e-6)),
        ("1e-3s", Bound(0.001)),
        ("0.6x", Bound(0.6, True)),
    ],
)
def test_latency(text: str, bound: Bound) -> None:
    parsed = parse_latency(text, "--max-latency")
    assert parsed.relative == bound.relative
    assert parsed.value == pytest.approx(bound.value)


@pytest.mark.parametrize(("text", "value"), [("20MB", 20e6), ("300 kB", 3e5), ("1KiB", 1024), ("17b", 17)])
def test_bytes(text: str, value: float) -> None:
    assert parse_bytes(text, "--max-bytes") == Bound(value, unit="bytes")


@pytest.mark.parametrize(
    "text", ["5", "fast", "-5ms", "0x", "5 parsec", "", "ms", "1.2.3ms", "nanms", "1e400ms", "1e-400s", "0%"]
)
def test_nonsense_names_the_option(text: str) -> None:
    with pytest.raises(UsageError, match="--max-latency"):
        parse_latency(text, "--max-latency")


@pytest.mark.parametrize(
    ("option", "text", "hint"),
    [
        ("--max-latency", "2x", "for twice as fast write 0.5x"),
        ("--max-latency", "1.5x", "for 1.5 times as fast write 0.67x"),
        ("--max-latency", "200%", "for twice as fast write 0.5x"),
        ("--max-bytes", "2X", "for half of it write 0.5x"),
        ("--max-memory", "4x", "for one part in 4 write 0.25x"),
        ("--max-latency", "50%", "write 0.5x for 50 % of the unpruned network's, or 0.5x for 50 % less"),
        ("--max-bytes", "30 %", "write 0.3x for 30 % of the unpruned network's, or 0.7x for 30 % less"),
    ],
)
def test_a_bound_that_cannot_be_meant_is_refused_with_the_right_spelling(option: str, text: str, hint: str) -> None:
    parse = parse_latency if option == "--max-latency" else parse_bytes
    with pytest.raises(UsageError) as caught:
        parse(text, option)
    assert (caught.value.hint, caught.value.message.split(":")[0]) == (hint, option)


def test_all_of_the_unpruned_network_may_be_asked_for() -> None:
    assert parse_latency("1x", "--max-latency") == Bound(1.0, relative=True)


def test_a_relative_bound_is_of_the_unpruned_network() -> None:
    assert Bound(0.5, relative=True).limit(8.0) == 4.0
    assert Bound(3.0).limit(8.0) == 3.0


def test_figures_for_people() -> None:
    assert format_cost(605e-6, "s") == "605 µs"
    assert format_cost(0.0123, "s") == "12.3 ms"
    assert format_cost(515_329, "instructions") == "0.515 M instructions (emulated)"
    assert format_bytes(1_234_567) == "1.23 MB"
    assert format_bytes(12) == "12 B"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (999.96e-6, "1 ms"),
        (999.4e-6, "999 µs"),
        (0.9996, "1 s"),
        (0.0, "0 µs"),
        (1e-12, "0.000001 µs"),
        (1234.6, "1235 s"),
    ],
)
def test_a_time_is_rounded_before_its_unit_is_chosen(value: float, shown: str) -> None:
    assert format_cost(value, "s") == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(999.4, "999 B"), (999.6, "1 kB"), (999_960, "1 MB"), (999.96e6, "1 GB"), (5e15, "5000 TB")],
)
def test_bytes_are_rounded_before_their_unit_is_chosen(value: float, shown: str) -> None:
    assert format_bytes(value) == shown


@given(st.floats(0, 1e24))
def test_no_figure_has_an_exponent(value: float) -> None:
    shown = [
        format_cost(value, "s"), format_cost(value, "simulated s"), format_cost(value, "instructions"),
        format_bytes(value), format_percent(value), format_figure(value), format_millions(value),
        format_speedup(value + 1e-9, "s"),
    ]  # fmt: skip
    for text in shown:
        assert re.fullmatch(r"[0-9]+(\.[0-9]+)?(x| ?[a-zA-Zµ%].*|)", text), text


@given(st.floats(1e-12, 999.4))
def test_a_mantissa_is_below_a_thousand_and_near_the_value(value: float) -> None:
    for text, units in (
        (format_cost(value, "s"), {"µs": 1e-6, "ms": 1e-3, "s": 1.0}),
        (format_bytes(value * 1e12), {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}),
    ):
        figure, unit = text.split()
        assert float(figure) < 1000
        whole = 0.5 if unit == "B" else 0.0
        assert float(figure) * units[unit] == pytest.approx(
            value if "s" in unit else value * 1e12, rel=5.1e-3, abs=whole
        )


def test_what_was_not_measured_in_time_says_so() -> None:
    assert parse_latency("12Minsn", "--max-latency") == Bound(12e6, unit="instructions")
    assert format_cost(0.0123, "simulated s") == "12.3 ms (simulated)"


def test_fewer_instructions_are_not_called_faster() -> None:
    assert format_speedup(1.4, "s") == "1.40x faster"
    assert format_speedup(0.5, "s") == "2.00x slower"
    assert format_speedup(7.28, "instructions") == "7.28x fewer instructions"
    # The ends are of what was said: of 1.14x slower, and not of how many times as fast that is.
    assert format_speedups(0.8, 0.95) == "1.05 to 1.25"
    assert format_speedups(1.9, 2.1) == "1.90 to 2.10"
    assert format_speedups(0.9, 1.1) == "0.90 to 1.10"
