"""Fixtures every room may use."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import hypothesis.configuration
import pytest
from boards.board import arm_board, host_board, relay, ssh_keys  # noqa: F401 - fixtures
from boards.phone import adb_server, phone  # noqa: F401 - fixtures

from edgeprune.core import quiet

# Threads that spin make a test run crawl on a machine with other work: the other worker's.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers side by side have a core each.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test reads, or writes, the developer's own devices.
os.environ["EDGEPRUNE_CONFIG_DIR"] = tempfile.mkdtemp(prefix="edgeprune-test-config-")
atexit.register(shutil.rmtree, os.environ["EDGEPRUNE_CONFIG_DIR"], ignore_errors=True)
# Nothing is written into the checkout, which may be read-only: examples are drawn anew, and caches lie elsewhere.
hypothesis.configuration.set_hypothesis_home_dir(os.environ["EDGEPRUNE_CONFIG_DIR"])
hypothesis.settings.register_profile("edgeprune", database=None)
hypothesis.settings.load_profile("edgeprune")


_converting = quiet.converting


@contextmanager
def _uncounted(what: str) -> Iterator[None]:
    """As `converting`, where coverage does not look on: converters call so much that it takes a fifth of all time."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        with _converting(what):
            yield
    finally:
        sys.settrace(tracer)


# Whoever converts imports it by name, and does so after this.
quiet.converting = _uncounted


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A test's name holds no bytes: packed files hold the time they were packed at, and test workers compare names."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real data sets: EDGEPRUNE_DATA, else ../shared/data beside the checkout."""
    folder = Path(os.environ.get("EDGEPRUNE_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}: point EDGEPRUNE_DATA at the folder that has them")
    return folder


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a device whose figures are made up and cost nothing, where measuring is not what is looked at.

    It really runs the files: what it answers to test examples is theirs.
    """
    from edgeprune.devices.names import book

    file = tmp_path_factory.mktemp("made-up") / "device.toml"
    file.write_text("seed = 1\n[latency]\nbase_s = 1e-5\ns_per_byte = 2e-9\n")
    book.add("made-up", {"address": f"simulated://{file}"})
    return "made-up"
