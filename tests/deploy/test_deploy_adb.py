"""Deployments to a phone: the real adb client, and a double of the phone whose benchmark_model really runs models."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from boards.phone import BINARY
from fakes.fake_adbd import FakePhone
from fakes.made_bundles import Watcher, made_bundle, runs
from needs import needs

from edgeprune.core.errors import DeviceError, UsageError
from edgeprune.core.files import sha256_file
from edgeprune.core.session import DeviceSpec
from edgeprune.deploy.bundle import SUMS
from edgeprune.deploy.place import Place
from edgeprune.deploy.release import Switched, deploy, listed, rollback
from edgeprune.devices import ChannelError
from edgeprune.devices.adb.session import AdbSession
from edgeprune.pipeline.bundle import verify_bundle

pytestmark = needs("adb")

TO = "/data/local/tmp/an app's é"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return [made_bundle(folder / f"bundle{seed}", seed, format="tflite") for seed in range(3)]


@pytest.fixture
def session(phone: FakePhone) -> Iterator[AdbSession]:
    spec = DeviceSpec("phone", "adb", f"adb://{phone.address}", benchmark_model=str(BINARY))
    with AdbSession(spec, patience_s=10.0) as opened:
        yield opened


def put(session: AdbSession, bundle: Path, to: str = TO) -> Switched:
    return deploy(bundle, session, to, lambda *_: 0.0, lambda _: None)


def test_a_phone_runs_what_was_uploaded_and_goes_back(
    phone: FakePhone, session: AdbSession, bundles: list[Path]
) -> None:
    def verify(folder: Path, remote: str) -> float:
        phone.commands.clear()
        off = verify_bundle(folder, session, remote)[1]
        uploaded = f"{remote.partition('.edgeprune')[2]}/model.tflite"
        assert any("--graph=" in each and uploaded in each for each in phone.commands)
        return off

    here = Path(phone.here(TO))
    names = [deploy(bundle, session, TO, verify, lambda _: None).name for bundle in bundles]
    assert runs(here) == sha256_file(bundles[2] / SUMS)
    assert list(listed(Place(session, TO)).releases) == names
    assert not put(session, bundles[2]).done
    assert rollback(session, TO, lambda _: None) == (names[1], names[2])
    assert runs(here) == sha256_file(bundles[1] / SUMS)
    assert list((here / ".edgeprune").iterdir()) == []


def test_a_wrong_answer_leaves_the_old_one(
    phone: FakePhone, session: AdbSession, bundles: list[Path], tmp_path: Path
) -> None:
    put(session, bundles[0])
    bad = made_bundle(tmp_path / "bad", 5, format="tflite", wrong=True)
    with pytest.raises(DeviceError, match="answers its sample wrongly on phone"):
        deploy(bad, session, TO, lambda *where: verify_bundle(where[0], session, where[1])[1], lambda _: None)
    assert runs(Path(phone.here(TO))) == sha256_file(bundles[0] / SUMS)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 6))])
def test_a_plug_that_is_pulled_in_any_step(
    phone: FakePhone, session: AdbSession, bundles: list[Path], seed: int
) -> None:
    here, chance = Path(phone.here(TO)), random.Random(seed)
    put(session, bundles[0])
    with Watcher(here) as watcher:
        watcher.allowed = {sha256_file(each / SUMS) for each in bundles[:2]}
        for number, step in enumerate(("open", "put", "commit", "prune", "close", "list", "upload", "sound")):
            phone.cut_after_s = chance.uniform(0, 0.1)
            if step == "upload":
                phone.cut_upload = chance.randrange(1000)
            else:
                phone.cut_command = f" sh {step} "
            bundle = bundles[(number + 1) % 2]
            put(session, bundle)
            assert runs(here) == sha256_file(bundle / SUMS)
            assert not phone.cut_command or step in ("prune", "sound")
            phone.cut_command = ""
            phone.cut_upload = None
    assert list((here / ".edgeprune").iterdir()) == []


def test_where_there_are_no_links_it_says_what_to_type(
    phone: FakePhone, session: AdbSession, bundles: list[Path]
) -> None:
    phone.say("ln", "echo ln: Operation not permitted >&2; exit 1")
    with pytest.raises(UsageError, match=r"file system has no links.*--to /data/local/tmp/app"):
        put(session, bundles[0])
    assert not Path(phone.here(TO)).exists()


def test_a_relative_path_or_somebodys_folder_is_refused(session: AdbSession, bundles: list[Path]) -> None:
    with pytest.raises(UsageError, match="expected an absolute path on a phone, got 'app'; write --to /data/local"):
        put(session, bundles[0], "app")
    with pytest.raises(UsageError, match="holds files that are not ours"):
        put(session, bundles[0], "/data/local/tmp")


def test_a_full_phone_keeps_the_old_one(phone: FakePhone, session: AdbSession, bundles: list[Path]) -> None:
    put(session, bundles[0])
    phone.room = 100
    with pytest.raises(ChannelError, match="no room"):
        put(session, bundles[1])
    phone.room = None
    assert runs(Path(phone.here(TO))) == sha256_file(bundles[0] / SUMS)
    assert list((Path(phone.here(TO)) / ".edgeprune").iterdir()) == []
