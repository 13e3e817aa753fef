"""A bench folder is read as it is, and what is wrong with it is said in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_bench import METHODS, SEEDS, change, rename, write

from edgeprune.core.errors import StorageError, UsageError
from edgeprune.papers.bench import _gather
from edgeprune.papers.bench_config import BenchConfig
from edgeprune.papers.conv.bench import Ledger
from edgeprune.papers.records import ORDER, load_bench


def test_everything_is_read_in_table_order(bench_folder: Path) -> None:
    bench = load_bench(bench_folder)
    assert (bench.data, bench.net, bench.seeds, bench.published) == ("mnist", (784, 300, 100, 10), SEEDS, True)
    assert bench.methods == (*ORDER[:-1], "edgeprune@5")
    assert [(cell.method, cell.seed) for cell in bench.cells] == [
        (name, seed) for name in bench.methods for seed in SEEDS
    ]
    assert [each.accuracy for each in bench.baselines] == [0.985, 0.984, 0.986]
    cell = bench.of("acnn")[0]
    assert (cell.layers, cell.error, cell.agent_sparsity) == ("219-81-43", 0.5, 0.95)
    assert len(cell.rewards) == 120
    assert len(cell.losses) == 300
    assert bench.beta is not None
    assert bench.beta.points[1].beta == 0.3
    assert bench.evals is not None
    assert bench.evals.methods["greedy"].final == (1.93,) * 5


def test_baselines_of_other_seeds_do_not_count(bench_folder: Path) -> None:
    more = json.loads((bench_folder / "baseline-0.json").read_text()) | {"seed": 3, "accuracy": 0.9}
    (bench_folder / "baseline-3.json").write_text(json.dumps(more))
    assert [each.seed for each in load_bench(bench_folder).baselines] == list(SEEDS)


def test_what_is_not_finished_is_absent(bench_folder: Path) -> None:
    (bench_folder / "cells" / "acnn-1.json").unlink()
    for name in ("beta", "sparsity", "evals"):
        (bench_folder / f"{name}.json").unlink()
    bench = load_bench(bench_folder)
    assert [cell.seed for cell in bench.of("acnn")] == [0, 2]
    assert (bench.beta, bench.sparsity, bench.evals) == (None, None, None)


def test_a_half_written_file_is_no_cell(bench_folder: Path) -> None:
    write(bench_folder / "cells" / ".acnn-0.json.123.tmp", {})
    assert len(load_bench(bench_folder).of("acnn")) == 3


def test_variants_follow_their_method(bench_folder: Path) -> None:
    for old, new in (("cges", "random+taylor"), ("l0", "edgeprune-noprox"), ("uniform", "acnn@5+taylor")):
        rename(bench_folder, old, new, 0)
    methods = load_bench(bench_folder).methods
    assert methods[methods.index("random") + 1] == "random+taylor"
    assert methods[methods.index("acnn") + 1] == "acnn@5+taylor"
    assert methods[-3:] == ("edgeprune", "edgeprune@5", "edgeprune-noprox")


def test_what_is_not_pruned_misses_no_target(bench_folder: Path) -> None:
    change(bench_folder / "cells" / "unpruned-0.json", ncr_target=3.46)
    assert not load_bench(bench_folder).of("unpruned")[0].missed


def test_a_method_of_no_known_name_comes_last(bench_folder: Path) -> None:
    change(bench_folder / "bench.json", methods=["zeta", *METHODS])
    assert load_bench(bench_folder).methods[-1] == "zeta"


def test_a_folder_without_a_bench_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no bench folder"):
        load_bench(tmp_path)


@pytest.mark.parametrize(
    "name", ["bench.json", "baseline-1.json", "cells/l0-2.json", "beta.json", "sparsity.json", "evals.json"]
)
def test_another_schema_is_refused_with_the_one_that_is_read(bench_folder: Path, name: str) -> None:
    change(bench_folder / name, schema=2)
    with pytest.raises(UsageError, match=rf"{Path(name).name} was .* newer \w+ \(schema 2, this version reads 1\)"):
        load_bench(bench_folder)


def test_a_bench_that_goes_on_reads_nothing_of_another_schema(bench_folder: Path, tmp_path: Path) -> None:
    """What it continues from is looked at as what it shows."""
    change(bench_folder / "evals.json", schema=2)
    with pytest.raises(UsageError, match=r"evals\.json was .* newer \w+ \(schema 2, this version reads 1\)"):
        _gather(BenchConfig(budget_evals=10, out=bench_folder))
    write(tmp_path / "seconds.json", {"schema": 2, "plans": {}})
    with pytest.raises(UsageError, match=r"seconds\.json was .* newer"):
        Ledger(tmp_path / "seconds.json", {})
    write(tmp_path / "seconds.json", {"plans": {}})
    with pytest.raises(StorageError, match="expected schema 1, got None"):
        Ledger(tmp_path / "seconds.json", {})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"schema": 1, "meth', "Unterminated"),
        ("[1, 2]", "valid dictionary"),
        ('{"method": "l0"}', "expected schema 1, got None"),
        ('{"schema": 1, "method": "l0"}', "seed: "),
        ("\udcff", "UTF-8"),
    ],
)
def test_a_damaged_cell_is_named(bench_folder: Path, text: str, why: str) -> None:
    (bench_folder / "cells" / "l0-0.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(StorageError, match=rf"l0-0\.json.*{why}"):
        load_bench(bench_folder)


@pytest.mark.parametrize(
    ("name", "fields", "why"),
    [
        ("cells/l0-0.json", {"seed": 1}, "method 'l0', seed 1"),
        ("cells/l0-0.json", {"method": "cges"}, "method 'cges', seed 0"),
        ("cells/l0-0.json", {"accuracy": "high"}, "accuracy: "),
        ("cells/l0-0.json", {"widths": {"fc1": 2.5}}, "widths.fc1: "),
        ("evals.json", {"seeds": [0, 1]}, "one reward and one curve per seed"),
        ("sparsity.json", {"none": {"rewards": [], "sparsity": []}}, "no rewards"),
    ],
)
def test_a_foreign_value_is_named(bench_folder: Path, name: str, fields: dict[str, object], why: str) -> None:
    change(bench_folder / name, **fields)
    with pytest.raises(StorageError, match=why):
        load_bench(bench_folder)


def test_no_number_is_no_figure(bench_folder: Path) -> None:
    path = bench_folder / "cells" / "l0-0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"error": float("nan")}))
    with pytest.raises(StorageError, match="expected a finite number, got NaN"):
        load_bench(bench_folder)


@pytest.mark.parametrize(
    ("ncr", "target", "missed"),
    [
        (3.46, 3.46, False),
        (3.42, 3.46, True),
        (3.43, 3.46, False),
        (3.63, 3.46, False),
        (3.64, 3.46, True),
        (1.0, None, False),
    ],
)
def test_ncr_may_be_a_little_above_its_target(
    bench_folder: Path, ncr: float, target: float | None, missed: bool
) -> None:
    change(bench_folder / "cells" / "acnn-0.json", ncr=ncr, ncr_target=target)
    assert load_bench(bench_folder).of("acnn")[0].missed is missed
