"""Deployments over a bad link to a real sshd: cut anywhere, and never a mix, never without a working model."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from boards.board import HOST_PROGRAMS, Board
from boards.relay import Fault, Relay
from fakes.made_bundles import Watcher, made_bundle, runs
from needs import needs

from edgeprune.core.errors import DeviceError, UsageError
from edgeprune.core.files import sha256_file
from edgeprune.deploy.bundle import SUMS
from edgeprune.deploy.place import Place
from edgeprune.deploy.release import Switched, deploy, listed, rollback
from edgeprune.devices import ChannelError
from edgeprune.devices.ssh import link
from edgeprune.devices.ssh.session import SshSession
from edgeprune.pipeline.bundle import verify_bundle

pytestmark = needs(*HOST_PROGRAMS)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut links are tried again at once: a hundred cuts take a minute so."""
    monkeypatch.setattr(link, "_pauses", lambda: itertools.repeat(0.02))


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
    outcomes, kinds = {"done": 0, "cut": 0}, set[str]()
    with Watcher(to) as watcher:
        planned = cuts(1, count)
        while planned or relay.faults:
            new = (old + 1) % len(bundles)
            watcher.allowed = {hashes[old], hashes[new]}
            relay.faults.extend(planned[:4])
            del planned[:4]
            try:
                put(board, relay, bundles[new], to, patience_s=0 if chance.random() < 0.3 else 20)
                outcomes["done"] += 1
            except ChannelError as error:
                kinds.add(error.kind)
                outcomes["cut"] += 1
            found = runs(to)
            assert found in (hashes[old], hashes[new])
            old = hashes.index(found)
    assert len(relay.fired) == count
    assert min(outcomes.values()) > 0, outcomes
    assert kinds <= {"lost", "busy"}, kinds  # busy: the board has not heard yet that the last one ended
    relay.faults.clear()
    put(board, None, bundles[(old + 1) % 4], to)
    assert [each.name for each in (to / ".edgeprune").iterdir()] == []
    assert len(list((to / "releases").iterdir())) == 3


def test_ten_cuts(host_board: Board, relay: Relay, tmp_path: Path) -> None:
    under_cuts(host_board, relay, tmp_path, 10)


@pytest.mark.soak
def test_a_hundred_cuts(host_board: Board, relay: Relay, tmp_path: Path) -> None:
    under_cuts(host_board, relay, tmp_path, 100)


def test_the_model_is_run_on_the_board_over_a_link_that_is_cut(host_board: Board, relay: Relay, tmp_path: Path) -> None:
    to = tmp_path / "app"
    put(host_board, None, made_bundle(tmp_path / "old", 0), to)
    bundle = made_bundle(tmp_path / "new", 1)
    with SshSession(host_board.spec(relay), patience_s=20) as session:

        def verify(folder: Path, remote: str) -> float:
            relay.faults += [Fault("reset", 4_000), Fault("reset", 200, silence=True)]
            return verify_bundle(folder, session, remote)[1]

        done = deploy(bundle, session, str(to), verify, lambda _: None)
    assert len(relay.fired) == 2
    assert runs(to) == sha256_file(bundle / SUMS)
    with SshSession(host_board.spec()) as session:
        assert rollback(session, str(to), lambda _: None) == (done.before, done.name)
    assert runs(to) == sha256_file(tmp_path / "old" / SUMS)


def test_a_wrong_answer_on_the_board_leaves_the_old_one(host_board: Board, tmp_path: Path) -> None:
    to, old, bad = tmp_path / "app", made_bundle(tmp_path / "old"), made_bundle(tmp_path / "bad", 1, wrong=True)
    put(host_board, None, old, to)
    with SshSession(host_board.spec()) as session, pytest.raises(DeviceError, match="answers its sample wrongly"):
        deploy(bad, session, str(to), lambda *where: verify_bundle(where[0], session, where[1])[1], lambda _: None)
    assert runs(to) == sha256_file(old / SUMS)
    assert len(list((to / "releases").iterdir())) == 1


def test_a_folder_may_be_named_from_the_home_folder(host_board: Board) -> None:
    home = Path.home()
    name = f"edgeprune-test-{os.getpid()}"
    try:
        with SshSession(host_board.spec()) as session:
            bundle = made_bundle(host_board.home / "bundle")
            for to in (name, f"~/{name}/"):
                deploy(bundle, session, to, lambda *_: 0.0, lambda _: None)
            assert list(listed(Place(session, name)).releases) == [Path(os.readlink(home / name / "current")).name]
            for to in ("~", "/", str(home)):
                with pytest.raises(UsageError, match="is / or a home folder"):
                    deploy(bundle, session, to, lambda *_: 0.0, lambda _: None)
            with pytest.raises(UsageError, match="one in the home folder there: --to app"):
                deploy(bundle, session, "/no/where", lambda *_: 0.0, lambda _: None)
    finally:
        shutil.rmtree(home / name, ignore_errors=True)


CLIENT = """
import sys
from pathlib import Path
from edgeprune.core.session import DeviceSpec
from edgeprune.deploy.release import deploy
from edgeprune.devices.ssh.session import SshSession
address, folder, python, to, *bundles = sys.argv[1:]
with SshSession(DeviceSpec("board", "ssh", address, folder=folder, python=python)) as session:
    for bundle in bundles * 100:
        deploy(Path(bundle), session, to, lambda *_: 0.0, lambda step: print(step, flush=True))
"""


def killed(board: Board, folder: Path, kills: int) -> None:
    """A program that deploys in turns is killed (SIGKILL) so many times, each time somewhere else."""
    to, chance = folder / "app", random.Random(3)
    bundles = [made_bundle(folder / f"bundle{n}", n) for n in range(2)]
    spec = board.spec(folder=str(board.home / "killed"))
    put(board, None, bundles[0], to)
    with Watcher(to) as watcher:
        watcher.allowed = {sha256_file(each / SUMS) for each in bundles}
        for _ in range(kills):
            command = [sys.executable, "-c", CLIENT, spec.address, spec.folder, spec.python, str(to)]
            with subprocess.Popen([*command, *map(str, bundles)], stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                assert process.stdout.readline().startswith(b"lock")  # it took over what the killed one had locked
                time.sleep(chance.uniform(0, 1.5))
                process.kill()
    put(board, None, bundles[0], to)
    assert list((to / ".edgeprune").iterdir()) == []


def test_a_client_that_is_killed(host_board: Board, tmp_path: Path) -> None:
    killed(host_board, tmp_path, 3)


@pytest.mark.soak
def test_a_client_that_is_killed_again_and_again(host_board: Board, tmp_path: Path) -> None:
    killed(host_board, tmp_path, 20)
