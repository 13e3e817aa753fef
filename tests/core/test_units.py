import pytest

from edgeprune.core.errors import UsageError
from edgeprune.core.types import Bound
from edgeprune.core.units import format_bytes, format_cost, format_speedup, parse_bytes, parse_latency


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


def test_what_was_not_measured_in_time_says_so() -> None:
    assert parse_latency("12Minsn", "--max-latency") == Bound(12e6, unit="instructions")
    assert format_cost(0.0123, "simulated s") == "12.3 ms (simulated)"


def test_fewer_instructions_are_not_called_faster() -> None:
    assert format_speedup(1.4, "s") == "1.40x faster"
    assert format_speedup(0.5, "s") == "2.00x slower"
    assert format_speedup(7.28, "instructions") == "7.28x fewer instructions"
