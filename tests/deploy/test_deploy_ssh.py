"""Deployments over a bad link to a real sshd: cut anywhere, and never a mix, never without a working model."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from boards.board import HOST_PROGRAMS, Board
from boards.relay import Fault, Relay
from fakes.made_bundles import made_bundle
from needs import needs

from edgeprune.core.files import sha256_file
from edgeprune.deploy.bundle import SUMS
from edgeprune.deploy.place import Place
from edgeprune.deploy.release import Switched, deploy, listed, rollback
from edgeprune.devices import ChannelError
from edgeprune.devices.ssh.session import SshSession
from edgeprune.pipeline.bundle import verify_bundle

pytestmark = needs(*HOST_PROGRAMS)


def runs(to: Path) -> str:
    """The bundle that runs, by the hash of its SHA256SUMS; every file of it is whole."""
    while True:
        link = os.readlink(to / "current")
        try:
            for line in (to / link / SUMS).read_text().splitlines():
                digest, _, name = line.partition("  ")
                assert hashlib.sha256((to / link / name).read_bytes()).hexdigest() == digest, (link, name)
            return sha256_file(to / link / SUMS)
        except FileNotFoundError:
            # It may go after two more deployments, while this looks at it; else it is a release without a file.
            assert os.readlink(to / "current") != link


class Watcher:
    """Looks at DIR/current again and again, as an application would."""

    def __init__(self, to: Path) -> None:
        self.to, self.allowed, self.looks = to, set[str](), 0
        self.wrong: list[object] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *rest: object) -> None:
        self._end.set()
        self._thread.join()
        assert not self.wrong, self.wrong[:3]
        assert self.looks > 10

    def _watch(self) -> None:
        while not self._end.wait(0.005):
            self.looks += 1
            try:
                if (found := runs(self.to)) not in self.allowed:
                    self.wrong.append(found)
            except (OSError, AssertionError) as error:
                self.wrong.append(error)


def put(board: Board, relay: Relay | None, bundle: Path, to: Path, patience_s: float = 20.0) -> Switched:
    with SshSession(board.spec(relay, folder=str(board.home / "deploys")), patience_s=patience_s) as session:
        return deploy(bundle, session, str(to), lambda _, remote: 0.0, lambda _: None)


def cuts(seed: int, count: int) -> list[Fault]:
    """In handshakes, uploads and between any two steps: after some bytes, or when a step is being done."""
    chance = random.Random(seed)
    most = [400, 3_000, 20_000, 60_000]
    return [Fault("reset", chance.randrange(most[i % 4]), silence=chance.random() < 0.3) for i in range(count)]


def under_cuts(board: Board, relay: Relay, folder: Path, count: int) -> None:
    """Deployments over a link that is cut so many times; some give up at the first cut, some go on."""
    to, chance = folder / "app é's", random.Random(0)
    bundles = [made_bundle(folder / f"bundle{n}", n, widths=(16, 300, 8, 4)) for n in range(4)]
    hashes = [sha256_file(each / SUMS) for each in bundles]
    old = 0
    put(board, None, bundles[old], to)
    outcomes = {"done": 0, "cut": 0}
    with Watcher(to) as watcher:
        planned = cuts(1, count)
        while planned or relay.faults:
            new = (old + 1) % len(bundles)
            watcher.allowed |= {hashes[old], hashes[new]}
            relay.faults.extend(planned[:3])
            del planned[:3]
            try:
                put(board, relay, bundles[new], to, patience_s=0 if chance.random() < 0.5 else 20)
                outcomes["done"] += 1
            except ChannelError as error:
                assert error.kind in ("lost", "busy"), error  # the board may not have heard yet that the last one ended
                outcomes["cut"] += 1
            found = runs(to)
            assert found in (hashes[old], hashes[new])
            old = hashes.index(found)
            watcher.allowed = {found}
    assert len(relay.fired) == count
    assert min(outcomes.values()) > 0, outcomes
    relay.faults.clear()
    put(board, None, bundles[(old + 1) % 4], to)
    assert [each.name for each in (to / ".edgeprune").iterdir()] == []
    assert len(list((to / "releases").iterdir())) == 3


def test_ten_cuts(host_board: Board, relay: Relay, tmp_path: Path) -> None:
    under_cuts(host_board, relay, tmp_path, 10)


@pytest.mark.soak
def test_a_hundred_cuts(host_board: Board, relay: Relay, tmp_path: Path) -> None:
    under_cuts(host_board, relay, tmp_path, 100)
