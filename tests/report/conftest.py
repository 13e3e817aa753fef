"""A browser that opens pages, and a run that is long to show."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.made_pages import made_run
from playwright.sync_api import Browser, sync_playwright


@pytest.fixture(scope="session")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of 1,000 trials."""
    return made_run(tmp_path_factory.mktemp("long") / "long", trials=1000)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window. Tests that use it are marked `needs("chromium")`."""
    with sync_playwright() as playwright:
        # Root, as in a container, has no sandbox.
        opened = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield opened
        opened.close()
