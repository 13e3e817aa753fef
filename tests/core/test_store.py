import json
import sqlite3
from pathlib import Path

import pytest

from edgeprune.core.design import PruningPlan
from edgeprune.core.errors import StorageError, UsageError
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.schema import TRIALS_SCHEMA
from edgeprune.core.store import RunFolder, TrialStore
from edgeprune.core.trial import Candidate, Trial

MEASURED = Measurement(
    "s", (1.0, 1.1), (), (2.0, 2.2), 10, 40, "mallinfo2", "a", "b", "d", {"cpu": "x"}, MeasureSettings("litert")
)


def trial(index: int, cost: Measurement | Failure = MEASURED) -> Trial:
    return Trial(index, Candidate(PruningPlan({"fc1": (0, 2)}), 0.9, 2.5, cost, 123), 1.5, 0.2, (0.1,), (0.2,))


def test_trials_come_back_as_they_were(tmp_path: Path) -> None:
    store = TrialStore(tmp_path / "trials.sqlite")
    trials = [trial(0), trial(1, Failure("crashed", "died", True))]
    for one in trials:
        store.add(one)
    store.close()
    assert TrialStore(tmp_path / "trials.sqlite").trials() == trials


def test_a_reader_sees_trials_as_they_come_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trials.sqlite"
    with pytest.raises(StorageError, match=r"cannot open .*trials\.sqlite"):
        TrialStore(path, read_only=True)
    assert not path.exists()
    store = TrialStore(path)
    store.add(trial(0))
    reader = TrialStore(path, read_only=True)
    store.add(trial(1))
    assert [one.index for one in reader.trials()] == [0, 1]
    assert [one.index for one in reader.trials(first=1)] == [1]
    with pytest.raises(StorageError, match="readonly"):
        reader.add(trial(2))
    reader.close()
    store.close()


def test_the_documented_columns_are_there(tmp_path: Path) -> None:
    store = TrialStore(tmp_path / "trials.sqlite")
    store.add(trial(7))
    db = sqlite3.connect(tmp_path / "trials.sqlite")
    assert db.execute("PRAGMA user_version").fetchone() == (TRIALS_SCHEMA,)
    row = db.execute("SELECT trial, widths, latency_share, memory_share, failure FROM trials").fetchone()
    db.close()
    assert row == (7, json.dumps({"fc1": 2}), 0.5, 0.25, None)
    documented = (Path(__file__).parents[2] / "docs" / "interfaces.md").read_text(encoding="utf-8")
    for name in ("trial", "widths", "plan", "accuracy", "ncr", "latency_share", "memory_share", "bytes", "reward"):
        assert f"`{name}`" in documented


def test_evaluations_are_remembered(tmp_path: Path) -> None:
    store = TrialStore(tmp_path / "trials.sqlite")
    assert store.recall("k") is None
    store.remember("k", 0.5, 3.0)
    assert store.recall("k") == (0.5, 3.0)


def test_a_damaged_store_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "trials.sqlite").write_bytes(b"not a database, not at all" * 100)
    with pytest.raises(StorageError, match=r"cannot read .*trials\.sqlite: file is not a database; .*start a new one"):
        TrialStore(tmp_path / "trials.sqlite")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("UPDATE trials SET plan = '[1]'", "trial 0 in .*Input should be .*dictionary"),
        ('UPDATE trials SET plan = \'{"kept": {"fc1": [0, "x"]}}\'', r"kept\.fc1\.1.*\(got 'x'\)"),
        ("UPDATE trials SET cost = '{'", "trial 0 in .*it is not JSON"),
        ("UPDATE trials SET cost = '5'", "trial 0 in "),
        ("UPDATE trials SET cost = replace(cost, '1.1', 'NaN')", "expected a finite number, got NaN"),
        ("UPDATE trials SET cost = replace(cost, '1.1', '0')", "expected finite samples above 0"),
        ("UPDATE trials SET cost = replace(cost, '1.1', '1.1, 1.2')", "expected pairs of samples, got 3 and 2"),
        ("UPDATE trials SET accuracy = 'good'", "accuracy: Input should be a valid number.*got 'good'"),
        ("UPDATE trials SET accuracy = x'00ff'", "accuracy: Input should be a valid number"),
        ("UPDATE trials SET ncr = 9e999", "ncr: Input should be a finite number"),
        ("UPDATE trials SET proposed = '[0.1, 7]'", "less than or equal to 1"),
        ("UPDATE trials SET executed = 3", "trial 0 in "),
        ("UPDATE trials SET failure = '{}'", "trial 0 in .*kind"),
        ("UPDATE trials SET cost = cast(x'ff5b' AS TEXT)", "decode"),
        ("UPDATE evaluations SET accuracy = 'x'", "evaluation 'k' in .*accuracy"),
        ("UPDATE evaluations SET ncr = -1", "greater than or equal to 1"),
        ("DROP TABLE trials; CREATE TABLE trials (a, b)", "other columns than this version writes"),
        ("DROP TABLE evaluations; CREATE VIEW evaluations AS SELECT * FROM trials", "other columns"),
    ],
)
def test_damaged_rows_are_one_line_that_names_the_file(tmp_path: Path, damage: str, says: str) -> None:
    store = TrialStore(tmp_path / "trials.sqlite")
    store.add(trial(0))
    store.remember("k", 0.5, 3.0)
    store.close()
    TrialStore.check(tmp_path / "trials.sqlite")
    db = sqlite3.connect(tmp_path / "trials.sqlite")
    db.executescript(damage)
    db.close()
    with pytest.raises(StorageError, match=says) as refused:
        TrialStore.check(tmp_path / "trials.sqlite")
    assert str(tmp_path / "trials.sqlite") in refused.value.message
    assert refused.value.hint == "the run is damaged: start a new one"


def test_a_truncated_store_is_refused_before_it_is_used(tmp_path: Path) -> None:
    store = TrialStore(tmp_path / "trials.sqlite")
    for index in range(100):
        store.add(trial(index))
    store.close()
    whole = (tmp_path / "trials.sqlite").read_bytes()
    (tmp_path / "trials.sqlite").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError, match=r"malformed|hang together"):
        TrialStore(tmp_path / "trials.sqlite")


def test_names_count_up_and_a_taken_name_is_refused(tmp_path: Path) -> None:
    assert RunFolder.create(tmp_path, None, "net-data").path.name == "net-data"
    assert RunFolder.create(tmp_path, None, "net-data").path.name == "net-data-2"
    with pytest.raises(UsageError, match="exists; choose another --name, or continue it with --resume net-data"):
        RunFolder.create(tmp_path, "net-data", "x")
    with pytest.raises(UsageError, match="not a folder name"):
        RunFolder.create(tmp_path, "../out", "x")


def test_a_name_is_free_again_where_a_run_was_killed_before_it_kept_its_settings(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "one", "x")
    folder.own().close()
    (folder / ".owner").write_text("{}")
    folder.write_json("result.json", {})
    assert RunFolder.create(tmp_path, "one", "x").path == folder.path
    (folder / "theirs").touch()
    with pytest.raises(UsageError, match="exists"):
        RunFolder.create(tmp_path, "one", "x")


def test_what_was_left_half_done_goes_and_the_rest_stays(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "one", "x")
    (folder / "candidates").mkdir()
    (folder / "candidates" / "baseline.onnx").touch()
    for name in (".result.json.123.tmp", "result.json", ".lock"):
        (folder / name).touch()
    assert folder.sweep() == [".result.json.123.tmp", "candidates"]
    assert sorted(each.name for each in folder.path.iterdir()) == [".lock", "result.json"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="choose another --runs-dir"):
        RunFolder.create(tmp_path / "file", None, "x")


def test_resuming_nothing_lists_what_there_is(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "one", "x")
    folder.write_json("config.json", {})
    with pytest.raises(UsageError, match="known runs: one"):
        RunFolder.existing(tmp_path, "two")
    assert RunFolder.existing(tmp_path, "one").path == folder.path
