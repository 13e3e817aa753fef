"""Fixtures every room may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# As the command line does: threads that spin make a test run crawl on a machine with other work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real data sets: EDGEPRUNE_DATA, else ../shared/data beside the checkout."""
    folder = Path(os.environ.get("EDGEPRUNE_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}: point EDGEPRUNE_DATA at the folder that has them")
    return folder
