"""What of a file stays in float32 together."""

from __future__ import annotations

from edgeprune.exporters.units import Operator, Unit, units_of


def test_readers_are_found_behind_moves_and_names_are_told_apart() -> None:
    operators = [
        Operator("conv", ("x",), ("a",)),
        Operator(None, ("a",), ("b",)),
        Operator("conv", ("b",), ("c",)),
        Operator("add", ("a", "c"), ("d",)),
        Operator(None, ("y",), ("z",)),
    ]
    assert units_of(operators, ["x", "y"]) == (
        Unit("input", frozenset({0, 4})),
        Unit("conv", frozenset({0, 1, 2, 3})),
        Unit("conv (2)", frozenset({2, 3})),
        Unit("add", frozenset({3})),
    )
