"""`front.json` of a finished run, where it is damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.made_results import made_front, made_result

from edgeprune.core.errors import StorageError
from edgeprune.core.store import RunFolder
from edgeprune.pipeline.stored import finished_front


@pytest.mark.parametrize(("path", "says"), [("gone", "is missing in"), ("9" * 5000, "File name too long")])
def test_the_result_of_a_bound_that_is_not_there_is_one_line(path: str, says: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "0.6x").mkdir()
    (tmp_path / "result.json").write_text(json.dumps({**made_result(), "front": "front.json"}))
    (tmp_path / "0.6x" / "result.json").write_text(json.dumps(made_result()))
    front = made_front()
    (tmp_path / "front.json").write_text(json.dumps(front))
    assert finished_front(folder) == front
    front["points"][0]["path"] = path
    (tmp_path / "front.json").write_text(json.dumps(front))
    with pytest.raises(StorageError, match=f"the result of 0.6x.*{says}"):
        finished_front(folder)
