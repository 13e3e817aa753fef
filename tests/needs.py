"""What a test needs of the machine: skipped, with the reason, where it is absent. `.ci/run` tolerates no such skip."""

from __future__ import annotations

import os
import shutil

import pytest


def missing(*programs: str) -> list[str]:
    """Those of `programs` that are not installed; system folders count, though a user's PATH may leave them out."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/libexec/qemu-binfmt"])
    return [program for program in programs if shutil.which(program, path=path) is None]


def absent(reason: str) -> None:
    """Skip the test that is running; with EDGEPRUNE_REQUIRE_ALL set, fail it."""
    (pytest.fail if os.environ.get("EDGEPRUNE_REQUIRE_ALL") else pytest.skip)(reason)


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where one of the programs is absent; with EDGEPRUNE_REQUIRE_ALL set the test runs, and fails."""
    gone = missing(*programs)
    skip = bool(gone) and not os.environ.get("EDGEPRUNE_REQUIRE_ALL")
    return pytest.mark.skipif(skip, reason=f"needs the system program {', '.join(gone)}")
