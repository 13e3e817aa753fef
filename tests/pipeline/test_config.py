from pathlib import Path

import pytest

from edgeprune.core.budget import Bound
from edgeprune.core.errors import UsageError
from edgeprune.pipeline.config import RunConfig, make_config, read_toml, to_plain


def test_settings_survive_their_json() -> None:
    config = RunConfig(data="mnist", data_dir=Path("/d"), max_latency="0.6x", prune_inputs=False, episodes=7)
    assert make_config(to_plain(config), "x") == config


def test_budget_is_parsed() -> None:
    budget = RunConfig(max_latency="5ms", max_memory="20MB", max_bytes="0.5x", max_drop=1.5, expect_ncr=3).budget()
    assert budget.max_latency == Bound(0.005)
    assert budget.max_memory == Bound(20e6, unit="bytes")
    assert budget.max_bytes == Bound(0.5, relative=True, unit="bytes")
    assert (budget.max_drop, budget.min_ncr) == (1.5, 3)
    grown = make_config({"max_drop": "5%"}, "it").budget()
    assert (grown.max_drop, grown.relative_drop) == (5.0, True)
    assert make_config({"max_drop": "0.5"}, "it").max_drop == 0.5


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"episode": 3}, "unknown key 'episode' in f; did you mean 'episodes'"),
        ({"episodes": "many"}, "f: episodes: .*integer.*'many'"),
        ({"episodes": 0}, "--episodes must be at least 1"),
        ({"runtime": "tvm"}, "f: runtime: .*'tvm'"),
        ({"max_sparsity": 1.0}, "--max-sparsity must be between 0 and 1"),
        ({"validation_share": 0}, "--validation-share"),
        ({"processes": 1}, "--processes must be at least 3"),
        ({"max_latency": "fast"}, "--max-latency: 'fast' is not a bound; write it like 5ms"),
        ({"expect_ncr": 0.5}, "--expect-ncr must be at least 1"),
        ({"seed": -1}, "--seed must be between 0 and"),
        ({"max_drop": float("inf")}, "--max-drop must be a finite number"),
        ({"beta": 1e308, "gamma": 1e308}, "--beta must be between 0 and 1,000,000"),
        ({"agent_lr": 1e10}, "--agent-lr must be above 0 and at most 1"),
        ({"penalty": 1e9}, "--penalty must be between 0 and 1,000,000"),
        ({"finetune_minutes": 1e308}, "--finetune-minutes must be above 0 and at most 1,000,000"),
        ({"runs_dir": "a\0b"}, "--runs-dir must be without a null character"),
        ({"seed": [[[[1]]]]}, r"f: seed: .*integer"),
        ({"threads": "many"}, r"f: threads: Input should be a valid integer or 'auto' \(got 'many'\)"),
        (
            {"threads": 2.5, "episodes": "x", "seed": "y"},
            r"f: threads: .* or 'auto' \(got 2.5\), and 2 more faults",
        ),
        ({"beta": -1}, "--beta must be between 0 and 1,000,000"),
        ({"max_drop": "few"}, "--max-drop must be 0 or more, got 'few'; write 1 for a point .* or 5% for an error"),
        ({"max_drop": "-5%"}, "--max-drop must be 0 or more, got '-5%'"),
        ({"max-sparsity": "90 %"}, "--max-sparsity takes a plain number, .*; write 0.9$"),
        ({"expect_ncr": "3x"}, "--expect-ncr takes a plain number, .*; write 3$"),
        ({"episodes": "5%"}, "--episodes takes a plain number"),
        ({"max_latency": "2x"}, "--max-latency: '2x' would allow more than .*; for twice as fast write 0.5x$"),
    ],
)
def test_wrong_values_are_named(values: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        make_config(values, "f")
    assert "\n" not in str(caught.value)


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('data = "mnist"\nexpect-ncr = 4\nmax_drop = 0.5\n')
    assert read_toml(path) == {"data": "mnist", "expect_ncr": 4, "max_drop": 0.5}
    for text, says in (("data = ", "is not TOML"), ("epsiodes = 3", "did you mean 'episodes'")):
        path.write_text(text)
        with pytest.raises(UsageError, match=says):
            read_toml(path)
    with pytest.raises(UsageError, match="cannot read"):
        read_toml(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("field", "given", "names"),
    [
        ("max_latency", "0.4x, 0.80x,0.6x", ["0.8x", "0.6x", "0.4x"]),
        ("max_latency", "800us,0.005s", ["5ms", "0.8ms"]),
        ("max_latency", "12Minsn,3e1Minsn", ["30Minsn", "12Minsn"]),
        ("max_memory", "300kB,2MB", ["2MB", "300kB"]),
        ("max_bytes", "0.5x,0.25x", ["0.5x", "0.25x"]),
        ("expect_ncr", "8,3,5.0", ["ncr-3", "ncr-5", "ncr-8"]),
    ],
)
def test_several_bounds_come_loosest_first(field: str, given: str, names: list[str]) -> None:
    config = make_config({field: given, "max_drop": 2}, "f")
    assert config.front == field
    singles = config.singles()
    assert list(singles) == names
    for single in singles.values():
        assert single.front is None
        assert (single.budget().max_drop, single.singles()) == (2, {})
    assert make_config(to_plain(config), "x") == config
    with pytest.raises(UsageError, match="holds several bounds; give one, or call"):
        config.budget()


def test_one_bound_is_no_front() -> None:
    assert RunConfig(max_latency="0.6x").front is None
    assert make_config({"expect_ncr": "4"}, "f") == RunConfig(expect_ncr=4.0)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"max_latency": "0.6x,0.60x"}, "--max-latency: the bound 0.6x is there twice .*; leave one out"),
        ({"max_latency": "0.6x,5ms"}, "--max-latency: 0.6x,5ms cannot be put in order before .*; give all as shares"),
        ({"max_latency": "3ms,5Minsn"}, "cannot be put in order"),
        ({"max_latency": "0.6x,"}, "--max-latency: '' is not a bound"),
        ({"max_latency": "0.6x,2x"}, "--max-latency: '2x' would allow more"),
        ({"expect_ncr": "3,0.5"}, "--expect-ncr must be at least 1"),
        ({"expect_ncr": "3,4x"}, "--expect-ncr takes a plain number, and '4x' has a unit; write 4$"),
        ({"expect_ncr": "many,4"}, "--expect-ncr: 'many' is not a number; write it like 4"),
        (
            {"max_latency": "0.6x,0.4x", "max_bytes": "0.6x,0.4x"},
            "--max-latency and --max-bytes hold several bounds each; give several for one of them only",
        ),
    ],
)
def test_bounds_that_make_no_front_are_named(values: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_config(values, "f")
