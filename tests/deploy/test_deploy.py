"""Deployments on this machine: what is there afterwards, what is refused, and a kill between any two commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.made_bundles import made_bundle, runs

from edgeprune.cli.main import main
from edgeprune.core.errors import DeviceError, EdgepruneError, StorageError, UsageError
from edgeprune.core.files import sha256_file
from edgeprune.core.processes import this_host
from edgeprune.core.session import Answer
from edgeprune.deploy import place as places
from edgeprune.deploy.bundle import SUMS
from edgeprune.deploy.place import Place
from edgeprune.deploy.release import Switched, deploy, listed, rollback
from edgeprune.devices import ChannelError, find_device
from edgeprune.devices.local import LocalSession
from edgeprune.pipeline.bundle import verify_bundle

TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return [made_bundle(folder / f"bundle{seed}", seed) for seed in range(6)]


@pytest.fixture
def session() -> Iterator[LocalSession]:
    with LocalSession(find_device("local")) as opened:
        yield opened


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "an app"


def put(session: LocalSession, bundle: Path, to: Path, say: Callable[[str], None] = lambda _: None) -> Switched:
    return deploy(bundle, session, str(to), lambda _, remote: 0.0, say)


def tree(to: Path) -> dict[str, str]:
    """The bundle of each release by its name, "current" and whatever else there is."""
    found = {"current": os.readlink(to / "current")} if (to / "current").is_symlink() else {}
    for each in to.glob("*/*"):
        if each.parent.name == "releases":
            found[each.name] = sha256_file(each / SUMS)
        elif each.parent.name != "current":
            found[each.name] = "?"
    return found


# --- what is there afterwards


def test_a_bundle_is_put_beside_the_old_one_and_the_last_three_stay(
    session: LocalSession, bundles: list[Path], to: Path
) -> None:
    names = []
    for number, bundle in enumerate(bundles[:5]):
        done = put(session, bundle, to)
        assert (done.before, done.done) == (names[-1] if names else "", True)
        assert Path(done.here, "current").samefile(to / "releases" / done.name)
        names.append(done.name)
        assert tree(to) == {
            "current": f"releases/{names[-1]}",
            **{name: sha256_file(bundles[names.index(name)] / SUMS) for name in names[-3:]},
        }
        assert done.name.startswith(f"{number + 1:04d}-")
    note = json.loads((to / "current" / "deploy.json").read_text())
    assert (note["before"], note["file"], note["precision"]) == (names[3], "model.onnx", "fp32")


def test_the_same_bundle_again_does_nothing_unless_a_file_was_changed(
    session: LocalSession, bundles: list[Path], to: Path
) -> None:
    first = put(session, bundles[0], to)
    again = put(session, bundles[0], to)
    assert (again.name, again.done) == (first.name, False)
    with (to / "current" / "model.onnx").open("ab") as file:
        file.write(b"!")
    third = put(session, bundles[0], to)
    assert (third.done, third.before) == (True, first.name)
    assert runs(to) == sha256_file(bundles[0] / SUMS)


def test_back_to_what_ran_before_also_after_a_rollback(session: LocalSession, bundles: list[Path], to: Path) -> None:
    one, two, three = (put(session, bundle, to).name for bundle in bundles[:3])
    assert rollback(session, str(to), lambda _: None) == (two, three)
    # What was left for its predecessor is not what the next one goes back to.
    four = put(session, bundles[3], to)
    assert four.before == two
    assert three not in tree(to)
    assert rollback(session, str(to), lambda _: None) == (two, four.name)
    assert rollback(session, str(to), lambda _: None) == (one, two)
    assert runs(to) == sha256_file(bundles[0] / SUMS)


def test_back_one_by_one_until_there_is_none(session: LocalSession, bundles: list[Path], to: Path) -> None:
    names = [put(session, bundle, to).name for bundle in bundles[:3]]
    assert rollback(session, str(to), lambda _: None) == (names[1], names[2])
    assert rollback(session, str(to), lambda _: None) == (names[0], names[1])
    with pytest.raises(UsageError, match=f"no release before {names[0]}; see .* --list"):
        rollback(session, str(to), lambda _: None)
    assert runs(to) == sha256_file(bundles[0] / SUMS)


@pytest.mark.parametrize("harm", ["changed", "missing", "note"])
def test_a_damaged_release_is_not_gone_back_to(session: LocalSession, bundles: list[Path], to: Path, harm: str) -> None:
    first, second = (put(session, bundle, to).name for bundle in bundles[:2])
    folder = to / "releases" / first
    if harm == "changed":
        (folder / "model.onnx").write_bytes(b"?" * (folder / "model.onnx").stat().st_size)
    elif harm == "missing":
        (folder / "sample.npz").unlink()
    else:
        (folder / "deploy.json").write_text("{")
    with pytest.raises(DeviceError, match=f"{first} is damaged: .*; {second} runs on"):
        rollback(session, str(to), lambda _: None)
    assert runs(to) == sha256_file(bundles[1] / SUMS)


def test_it_is_the_uploaded_file_that_answers_and_a_wrong_one_never_runs(
    session: LocalSession, bundles: list[Path], to: Path, tmp_path: Path
) -> None:
    def verify(folder: Path, remote: str) -> float:
        assert Path(remote, "model.onnx").samefile(next(to.glob(".edgeprune/*/*/model.onnx")))
        return verify_bundle(folder, session, remote)[1]

    deploy(bundles[0], session, str(to), verify, lambda _: None)
    before = tree(to)
    with pytest.raises(DeviceError, match=r"model\.onnx answers its sample wrongly on local"):
        deploy(made_bundle(tmp_path / "wrong", 9, wrong=True), session, str(to), verify, lambda _: None)

    assert tree(to) == before
    assert list((to / ".edgeprune").iterdir()) == []


def test_a_file_that_arrives_changed_is_not_taken(
    session: LocalSession, bundles: list[Path], to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(session, bundles[0], to)
    before = tree(to)
    sent = session.push

    def push(path: Path) -> str:
        remote = sent(path)
        with open(remote, "ab") as file:
            file.write(b"!")
        return remote

    monkeypatch.setattr(session, "push", push)
    with pytest.raises(ChannelError, match=r"did not arrive in .* as it was sent"):
        put(session, bundles[1], to)
    assert tree(to) == before


def test_neither_the_current_release_nor_what_is_not_ours_is_removed(
    session: LocalSession, bundles: list[Path], to: Path
) -> None:
    name = put(session, bundles[0], to).name
    (to / "releases" / "mine").mkdir()
    place = Place(session, str(to))
    with place.locked():
        place.prune([name])
    assert runs(to) == sha256_file(bundles[0] / SUMS)
    for bundle in bundles[1:5]:
        put(session, bundle, to)
    assert (to / "releases" / "mine").is_dir()
    assert "mine" not in listed(Place(session, str(to))).releases


# --- what is refused


def refusal(work: Callable[[], Any]) -> str:
    with pytest.raises(EdgepruneError) as caught:
        work()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_only_a_folder_of_its_own_is_taken(
    session: LocalSession, bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    full = tmp_path / "full"
    full.mkdir()
    (full / "theirs").write_text("x")
    for folder, why in (
        ("/", "is / or a home folder"),
        (str(home), "is / or a home folder"),
        ("~", "is / or a home folder"),
        (str(full), "holds files that are not ours"),
        (str(tmp_path / "no" / "app"), "there is no folder .*/no on local"),
        (str(full / "theirs"), "cannot deploy to"),
        ("", "is no folder"),
        ("a\nb", "is no folder"),
    ):
        with pytest.raises(EdgepruneError, match=why):
            deploy(bundles[0], session, folder, lambda *_: 0.0, lambda _: None)
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["full", "home", "theirs"]
    # An empty one is taken, also under a name that is a link; and so is one under the home folder.
    (tmp_path / "link").symlink_to(home / "app")
    (home / "app").mkdir()
    put(session, bundles[0], tmp_path / "link")
    assert runs(home / "app") == sha256_file(bundles[0] / SUMS)


def test_a_current_that_is_no_link_stays(session: LocalSession, bundles: list[Path], to: Path) -> None:
    put(session, bundles[0], to)
    (to / "current").unlink()
    (to / "current").mkdir()
    assert "current on local is not a link of ours" in refusal(lambda: put(session, bundles[1], to))


def program(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands before the system's program of that name."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_file_system_without_links_is_refused_and_left_as_it_was(
    session: LocalSession, bundles: list[Path], to: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "ln", "echo ln: Operation not permitted >&2; exit 1\n", monkeypatch)
    assert "its file system has no links" in refusal(lambda: put(session, bundles[0], to))
    assert not to.exists()


def test_a_full_disk_leaves_the_old_one(
    session: LocalSession, bundles: list[Path], to: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(session, bundles[0], to)
    before = tree(to)
    program(tmp_path / "bin", "cat", "echo cat: write error: No space left on device >&2; exit 1\n", monkeypatch)
    with pytest.raises(ChannelError, match="no room for another release") as caught:
        put(session, bundles[1], to)
    assert caught.value.kind == "full"
    monkeypatch.undo()
    assert tree(to) == before
    assert list((to / ".edgeprune").iterdir()) == []


def test_a_folder_that_may_not_be_written_is_one_line(session: LocalSession, bundles: list[Path]) -> None:
    said = refusal(lambda: put(session, bundles[0], Path("/proc/app")))
    assert "cannot deploy to /proc/app on local: mkdir:" in said


def test_a_damaged_bundle_goes_nowhere(session: LocalSession, bundles: list[Path], to: Path, tmp_path: Path) -> None:
    shutil.copytree(bundles[0], tmp_path / "copy")
    (tmp_path / "copy" / "sample.npz").write_bytes(b"")
    with pytest.raises(StorageError, match="damaged"):
        put(session, tmp_path / "copy", to)
    assert not to.exists()


# --- two at once, and what one that was cut left


def now() -> tuple[str, int]:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return boot, int(float(Path("/proc/uptime").read_text().split()[0]))


def ended() -> int:
    """The number of a process that is gone."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid


def test_a_second_deployment_is_told_who_is_at_it(session: LocalSession, bundles: list[Path], to: Path) -> None:
    put(session, bundles[0], to)
    said = []

    def verify(folder: Path, remote: str) -> float:
        for work in (lambda: put(session, bundles[2], to), lambda: rollback(session, str(to), lambda _: None)):
            with pytest.raises(EdgepruneError) as caught:
                work()
            said.append(str(caught.value))
        return 0.0

    put(session, bundles[1], to)
    deploy(bundles[2], session, str(to), verify, lambda _: None)
    assert len(said) == 2
    for each in said:
        assert f"process {os.getpid()} on {this_host()} is deploying to" in each
    assert runs(to) == sha256_file(bundles[2] / SUMS)


@pytest.mark.parametrize("left_by", ["ended here", "silent elsewhere", "before a restart", "clock of nothing"])
def test_a_lock_does_not_outlive_its_owner(
    session: LocalSession, bundles: list[Path], to: Path, left_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "STALE_S", 5)
    put(session, bundles[0], to)
    boot, seconds = now()
    (to / ".edgeprune" / "lock").symlink_to({
        "ended here": f"{this_host()} {ended()} {TOKEN} {boot} {seconds}",
        "silent elsewhere": f"elsewhere 1 {TOKEN} {boot} {seconds - 10}",
        "before a restart": f"elsewhere 1 {TOKEN} another-boot {seconds}",
        "clock of nothing": f"elsewhere 1 {TOKEN} {boot} {seconds + 1000}",
    }[left_by])  # fmt: skip
    (to / ".edgeprune" / TOKEN / "0002-half").mkdir(parents=True)
    (to / ".edgeprune" / "theirs").mkdir()
    put(session, bundles[1], to)
    assert [each.name for each in (to / ".edgeprune").iterdir()] == ["theirs"]
    assert runs(to) == sha256_file(bundles[1] / SUMS)


def test_a_lock_of_another_machine_is_waited_for(session: LocalSession, bundles: list[Path], to: Path) -> None:
    put(session, bundles[0], to)
    boot, seconds = now()
    lock = to / ".edgeprune" / "lock"
    lock.symlink_to(f"elsewhere 1 {TOKEN} {boot} {seconds - 20}")
    with pytest.raises(ChannelError, match=r"process 1 on elsewhere is deploying .* \(last heard of 2\d s ago\)"):
        put(session, bundles[1], to)
    assert lock.is_symlink()
    # Looking needs no lock.
    assert len(listed(Place(session, str(to))).releases) == 1


def test_who_lost_the_lock_changes_nothing_more(session: LocalSession, bundles: list[Path], to: Path) -> None:
    put(session, bundles[0], to)
    boot, seconds = now()
    lock = to / ".edgeprune" / "lock"

    def verify(folder: Path, remote: str) -> float:
        lock.unlink()
        lock.symlink_to(f"elsewhere 1 {TOKEN} {boot} {seconds}")
        return 0.0

    with pytest.raises(ChannelError, match=r"another deployment .* took over"):
        deploy(bundles[1], session, str(to), verify, lambda _: None)
    assert runs(to) == sha256_file(bundles[0] / SUMS)
    assert lock.is_symlink()


KILLER = """
left=$(($({cat} "$COUNTER") - 1))
echo $left >"$COUNTER"
[ $left -ne 0 ] || kill -9 0
{real} "$@"
code=$?
left=$(($({cat} "$COUNTER") - 1))
echo $left >"$COUNTER"
[ $left -ne 0 ] || kill -9 0
exit $code
"""


class KilledSession(LocalSession):
    """Its shell is killed before the first command of each script, then after it, before the second, and so on."""

    def __init__(self, folder: Path, look: Callable[[], None]) -> None:
        super().__init__(find_device("local"))
        self._tools, self._look, self.kills = folder, look, 0
        folder.mkdir()
        for name in ("ln", "mv", "mkdir", "rm", "cat", "sync", "sha256sum", "rmdir", "readlink"):
            path = folder / name
            path.write_text("#!/bin/sh" + KILLER.format(real=shutil.which(name), cat=shutil.which("cat")))
            path.chmod(0o755)
        self._at: dict[tuple[str, ...], int] = {}

    def sh(self, script: str, words: Any, deadline: Any) -> Answer:
        key = tuple(words[:4])  # of all files of a release one: they are put alike
        at = self._at[key] = self._at.get(key, 0) + 1
        with pytest.MonkeyPatch.context() as patch:
            (self._tools / "counter").write_text(str(at))
            patch.setenv("COUNTER", str(self._tools / "counter"))
            patch.setenv("PATH", f"{self._tools}:{os.environ['PATH']}")
            answer = super().sh(script, words, deadline)
        self._look()
        if answer.code == 137:
            self.kills += 1
            raise ChannelError("lost", "killed")
        return answer


def test_a_kill_before_and_after_every_single_command(
    bundles: list[Path], to: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_PAUSE_S", 0.0)
    allowed = {sha256_file(bundle / SUMS) for bundle in bundles[2:4]}

    def look() -> None:
        assert runs(to) in allowed

    with LocalSession(find_device("local")) as session:
        for bundle in bundles[:3]:
            put(session, bundle, to)
    with KilledSession(tmp_path / "tools", look) as session:
        put(session, bundles[3], to)
        assert runs(to) == sha256_file(bundles[3] / SUMS)
        rollback(session, str(to), lambda _: None)
        assert session.kills > 80
    assert runs(to) == sha256_file(bundles[2] / SUMS)
    assert list((to / ".edgeprune").iterdir()) == []
    assert len(list((to / "releases").iterdir())) == 3


# --- the command


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """What `edgeprune deploy` with some words ends with: exit code, stdout, stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["deploy", *map(str, words)])
        code = end.value.code
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return run


def test_the_command_deploys_lists_and_goes_back(typed: Any, bundles: list[Path], to: Path) -> None:
    at = ("--device", "local", "--to", to)
    code, out, err = typed(bundles[0], *at)
    assert (code, out.count("\n")) == (0, 1)
    assert out.startswith("0001-")
    assert f" runs on local: {to}/current/model.onnx (model.onnx, fp32, " in out
    steps = [line.strip().partition(" ")[0] for line in err.splitlines()]
    assert steps[steps.index("lock") :] == ["lock", *["upload"] * 7, "run", "its", "switch"]
    code, out, err = typed(bundles[1], *at, "--quiet")
    assert (code, err) == (0, "")
    assert out.splitlines()[1].endswith(f"edgeprune deploy --device local --to '{to}' --rollback")
    code, out, _ = typed(bundles[1], *at)
    assert (code, "already and is this bundle" in out) == (0, True)
    code, out, err = typed(*at, "--list")
    assert (code, err, [line[:6] for line in out.splitlines()]) == (0, "", ["  0001", "* 0002"])
    assert "  model.onnx  fp32  " in out
    code, out, _ = typed(*at, "--rollback")
    assert (code, out[:4], "runs on local again; 0002-" in out) == (0, "0001", True)
    assert runs(to) == sha256_file(bundles[0] / SUMS)
    code, _, err = typed(*at, "--rollback")
    assert (code, "has no release before 0001-" in err) == (2, True)


def test_what_was_typed_wrongly_is_one_line(typed: Any, bundles: list[Path], to: Path, tmp_path: Path) -> None:
    (tmp_path / "sim.toml").write_text("seed = 1\n[latency]\nbase_s = 1e-3\n")
    at = ("--device", "local", "--to", to)
    for words, why, wanted in (
        (at, "expected one of BUNDLE, --rollback and --list", 2),
        ((bundles[0], *at, "--list"), "expected one of", 2),
        ((*at, "--list", "--rollback"), "expected one of", 2),
        ((bundles[0], "--to", to), "--device", 2),
        ((bundles[0], "--device", "local"), "--to", 2),
        ((bundles[0], "--device", "lokal", "--to", to), "did you mean 'local'", 2),
        ((tmp_path / "none", *at), "is no bundle", 2),
        ((*at, "--list"), "nothing was deployed to", 2),
        ((*at, "--rollback"), "nothing was deployed to", 2),
        ((bundles[0], "--device", "emulated-rpi4", "--to", to), "is emulated: nothing can be deployed", 2),
        ((bundles[0], "--device", f"simulated://{tmp_path}/sim.toml", "--to", to), "is simulated: nothing can", 2),
        ((bundles[0], "--device", "local", "--to", tmp_path), "holds files that are not ours", 2),
        ((bundles[0], "--device", "local", "--to", "/proc/app"), "cannot deploy to", 4),
    ):
        code, out, err = typed(*words, *(["--quiet"] if "--device" in words else []))
        assert (code, out) == (wanted, ""), words
        assert why in err, words
        assert err.startswith("error: ")
        assert err.count("\n") == 1, err
    assert not to.exists()
