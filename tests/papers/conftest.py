"""Fixtures of the room's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_bench import make_bench


@pytest.fixture
def bench_folder(tmp_path: Path) -> Path:
    return make_bench(tmp_path / "bench")
