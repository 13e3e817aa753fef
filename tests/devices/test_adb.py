"""The real adb client against a device-side double, on which a double of benchmark_model really runs models."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from boards.phone import BINARY
from fakes.fake_adbd import FakePhone
from fakes.foreign import write_signatures
from fakes.stateful_tflite import write_double, write_recurrent
from fakes.tiny_tflite import write_tflite
from needs import needs
from torch import Tensor, nn

from edgeprune.core.clock import Deadline
from edgeprune.core.errors import DeviceError, RuntimeMissing
from edgeprune.core.files import sha256_file
from edgeprune.core.measurement import Failure, Measurement, MeasureSettings
from edgeprune.core.processes import this_host
from edgeprune.core.progress import Silent
from edgeprune.core.session import DeviceSpec
from edgeprune.data.arrays import Raw
from edgeprune.data.preprocessing import resolve
from edgeprune.data.split import make_dataset
from edgeprune.devices.adb import channel as adb_channel
from edgeprune.devices.adb import lock as adb_lock
from edgeprune.devices.adb import session as adb
from edgeprune.devices.adb.channel import AdbChannel
from edgeprune.devices.adb.session import AdbSession
from edgeprune.devices.channel import ChannelError
from edgeprune.exporters.tflite import export_tflite
from edgeprune.models.inputs import Several, to_numpy
from edgeprune.probe import PROBE
from edgeprune.profilers.accuracy import accuracy_on_device
from edgeprune.profilers.client import ProbeClient, push
from edgeprune.profilers.fresh import compare_fresh
from edgeprune.profilers.inputs import GivenInputs
from edgeprune.profilers.loop import LoopProfiler
from edgeprune.profilers.ports import Feeding
from edgeprune.profilers.predict import predict_on_device
from edgeprune.profilers.replies import Fed, Opened
from edgeprune.profilers.ways import Asked, Scaling

pytestmark = [needs("adb"), pytest.mark.usefixtures("adb_server")]

QUICK = MeasureSettings("litert", warmup_runs=2, warmup_s=0.0, rounds=2, round_s=0.0005, min_runs=3)
SOON = 60.0


@pytest.fixture
def spec(phone: FakePhone) -> DeviceSpec:
    return DeviceSpec("phone", "adb", f"adb://{phone.address}", benchmark_model=str(BINARY))


@pytest.fixture
def session(spec: DeviceSpec) -> Iterator[AdbSession]:
    with AdbSession(spec, patience_s=10.0) as opened:
        yield opened


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    full = write_tflite(folder / "full.tflite", (64, 256, 128, 10))
    return full, write_tflite(folder / "half.tflite", (64, 128, 64, 10), seed=1)


def pushed(session: AdbSession, model: Path) -> dict[str, Any]:
    return {"path": session.push(model), "sha256": sha256_file(model)}


def greeted(session: AdbSession, **message: Any) -> AdbChannel:
    channel = session.start(PROBE)
    ask(channel, "hello", runtime="litert", threads=1, warm=[], **message)
    return channel


def ask(channel: AdbChannel, op: str, within_s: float = SOON, **message: Any) -> dict[str, Any]:
    return channel.request({"op": op, **message}, Deadline.after(within_s))


def race(channel: AdbChannel, one: Any, two: Any, **more: Any) -> dict[str, Any]:
    how: dict[str, Any] = {"rounds": 2, "round_s": 0.0, "min_runs": 3, "warmup_runs": 1, "warmup_s": 0.0, "most_s": 60}
    return ask(channel, "race", a=one, b=two, **{**how, **more})


def files(phone: FakePhone, folder: str = "cache") -> set[str]:
    return {path.name for path in (phone.root / "edgeprune" / folder).iterdir()}


HOST = """
import sys
from pathlib import Path
from edgeprune.core.clock import Deadline
from edgeprune.core.files import sha256_file
from edgeprune.core.session import DeviceSpec
from edgeprune.devices.adb.session import AdbSession
from edgeprune.profilers.client import ProbeClient, push
from edgeprune.profilers.replies import Fed, Opened
from edgeprune.probe import PROBE
address, binary, model = sys.argv[1:]
with AdbSession(DeviceSpec("phone", "adb", address, benchmark_model=binary)) as session:
    channel = session.start(PROBE)
    channel.request({"op": "hello", "runtime": "litert", "threads": 1, "warm": []}, Deadline.after(60))
    file = {"path": session.push(Path(model)), "sha256": sha256_file(Path(model))}
    channel.request({"op": "load", "id": "m", **file}, Deadline.after(600))
"""


def test_what_runs_on_a_phone_ends_with_its_host(phone: FakePhone, spec: DeviceSpec, models: tuple[Path, Path]) -> None:
    phone.env["FAKE_BENCHMARK"] = "hang"
    host = subprocess.Popen([sys.executable, "-c", HOST, spec.address, str(BINARY), str(models[0])])
    pid = phone.root / "edgeprune" / "scratch" / "pid"
    until = time.monotonic() + 60
    while not (pid.exists() and pid.read_text().strip()) and time.monotonic() < until:
        time.sleep(0.1)
    there = Path(f"/proc/{pid.read_text().strip()}")
    assert there.exists()
    host.kill()
    host.wait()
    until = time.monotonic() + 5
    while there.exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not there.exists()


class TestFiles:
    def test_push_names_by_content_and_pull_gives_back(self, session: AdbSession, tmp_path: Path) -> None:
        one, same, other = tmp_path / "file with spaces é.bin", tmp_path / "same.bin", tmp_path / "other.bin"
        one.write_bytes(bytes(range(256)) * 1000)
        same.write_bytes(one.read_bytes())
        other.write_bytes(b"2")
        remote = session.push(one)
        assert remote == session.push(same) != session.push(other)
        assert sha256_file(one) in remote
        assert remote.startswith("/data/local/tmp/edgeprune/cache/")
        session.pull(remote, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == one.read_bytes()

    def test_what_is_there_is_not_sent_again(
        self, session: AdbSession, phone: FakePhone, models: tuple[Path, Path]
    ) -> None:
        session.push(models[0])
        phone.room = 0
        session.push(models[0])

    def test_a_damaged_file_there_is_replaced(
        self, session: AdbSession, phone: FakePhone, models: tuple[Path, Path]
    ) -> None:
        there = Path(phone.here(session.push(models[0])))
        there.write_bytes(b"damaged")
        session.push(models[0])
        assert there.read_bytes() == models[0].read_bytes()

    def test_missing_files_are_device_errors(self, session: AdbSession, tmp_path: Path) -> None:
        with pytest.raises(DeviceError, match="cannot read"):
            session.push(tmp_path / "missing")
        with pytest.raises(DeviceError, match="no file"):
            session.pull(session.scratch("missing"), tmp_path / "back")
        assert not (tmp_path / "back").exists()

    def test_remove_and_remove_again_but_nothing_else(
        self, session: AdbSession, phone: FakePhone, models: tuple[Path, Path]
    ) -> None:
        remote = session.push(models[0])
        session.remove(remote)
        session.remove(remote)
        assert not files(phone)
        for path in ("/etc/passwd", "/data/local/tmp/edgeprune/cache/../x", "/data/local/tmp/edgeprune/lock", "x"):
            with pytest.raises(DeviceError, match="is not in"):
                session.remove(path)

    def test_a_scratch_name_is_no_path(self, session: AdbSession) -> None:
        for name in ("../x", "/etc/x", "", "..", "a/b", "a\nb"):
            with pytest.raises(ValueError, match="plain file name"):
                session.scratch(name)

    def test_the_least_recently_used_goes_first(self, spec: DeviceSpec, phone: FakePhone, tmp_path: Path) -> None:
        sent = [tmp_path / name for name in "abc"]
        for number, path in enumerate(sent):
            path.write_bytes(bytes([number]) * 1000)
        small = replace(spec, cache_bytes=2500)
        with AdbSession(small) as session:
            there = [Path(phone.here(session.push(path))) for path in sent[:2]]
        os.utime(there[0], (1000, 1000))
        os.utime(there[1], (500, 500))
        with AdbSession(small) as session:
            session.push(sent[2])
            assert files(phone) == {sha256_file(sent[0]), sha256_file(sent[2])}
            # What this session uses stays, over the limit too.
            session.push(sent[1])
            assert files(phone) == {sha256_file(path) for path in sent[1:]} | {sha256_file(sent[0])}
            assert session.clean() == 1000
        with AdbSession(small) as session:
            assert session.clean() == 2000
            assert session.clean() == 0

    def test_use_counts_not_age(self, spec: DeviceSpec, phone: FakePhone, tmp_path: Path) -> None:
        old, new, third = tmp_path / "old", tmp_path / "new", tmp_path / "third"
        for path in (old, new, third):
            path.write_bytes(path.name.encode() * 200)
        with AdbSession(spec) as session:
            for at, path in enumerate((old, new)):
                os.utime(phone.here(session.push(path)), (1000 + at, 1000 + at))
        with AdbSession(spec) as session:
            session.push(old)
        with AdbSession(replace(spec, cache_bytes=1800)) as session:
            session.push(third)
            assert files(phone) == {sha256_file(old), sha256_file(third)}

    def test_a_full_phone(self, session: AdbSession, phone: FakePhone, models: tuple[Path, Path]) -> None:
        phone.room = 100
        with pytest.raises(ChannelError, match="no room") as caught:
            session.push(models[0])
        assert (caught.value.kind, caught.value.retryable) == ("full", False)
        assert not files(phone)
        assert not files(phone, "scratch")
        phone.room = None
        session.push(models[0])

    def test_a_link_cut_in_mid_upload_leaves_no_file(
        self, session: AdbSession, phone: FakePhone, tmp_path: Path
    ) -> None:
        file = tmp_path / "large.tflite"
        file.write_bytes(os.urandom(3 << 20))
        phone.cut_upload = 1 << 20
        with pytest.raises(ChannelError) as caught:
            session.push(file)
        assert caught.value.kind == "lost"
        assert not files(phone)
        there = session.push(file)
        assert Path(phone.here(there)).read_bytes() == file.read_bytes()


class TestLink:
    def test_a_cut_command_is_lost_though_the_client_exits_0(self, session: AdbSession, phone: FakePhone) -> None:
        phone.cut_command = "sleep 30"
        bare = subprocess.run(
            ["adb", "-s", phone.address, "shell", "echo said; sleep 30; echo never"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (bare.stdout, bare.returncode) == ("said\n", 0)
        with pytest.raises(ChannelError, match="was cut"):
            session.shell("true", Deadline.after(20))
        phone.cut_command = "sleep 31"
        with pytest.raises(ChannelError) as caught:
            session.shell("echo said; sleep 31; echo never", Deadline.after(20))
        assert (caught.value.kind, caught.value.retryable) == ("lost", True)
        assert session.shell("echo back", Deadline.after(20)).text == "back\n"

    def test_a_phone_that_stays_away(self, spec: DeviceSpec, phone: FakePhone) -> None:
        with AdbSession(spec, patience_s=0.5) as session:
            phone.away = True
            phone.cut()
            start = time.monotonic()
            for _ in range(2):
                with pytest.raises(ChannelError) as caught:
                    session.push(BINARY)
                assert caught.value.kind == "lost"
                assert caught.value.hint
            assert time.monotonic() - start < 30
            phone.away = False
            session.push(BINARY)

    def test_a_phone_that_is_not_there(self, spec: DeviceSpec, phone: FakePhone) -> None:
        phone.away = True
        with pytest.raises(ChannelError) as caught:
            AdbSession(spec, patience_s=0.5)
        assert caught.value.kind == "lost"
        assert phone.address in caught.value.message

    def test_a_phone_that_does_not_trust_us(self, spec: DeviceSpec, phone: FakePhone) -> None:
        phone.untrusting = True
        with pytest.raises(ChannelError, match="Allow USB debugging"):
            AdbSession(spec, patience_s=10)

    def test_a_slow_phone_meets_the_deadline(self, session: AdbSession, phone: FakePhone) -> None:
        start = time.monotonic()
        with pytest.raises(ChannelError) as caught:
            session.shell("sleep 30", Deadline.after(0.5))
        assert caught.value.kind == "timeout"
        assert time.monotonic() - start < 10

    def test_a_flood_is_garbled(self, session: AdbSession) -> None:
        with pytest.raises(ChannelError) as caught:
            session.shell("yes", Deadline.after(60))
        assert caught.value.kind == "garbled"

    def test_exit_codes_and_an_exit_in_the_command(self, session: AdbSession) -> None:
        for code in (0, 1, 7, 137):
            assert session.shell(f"echo x; exit {code}", Deadline.after(20)) == adb.Answer(code, "x\n")

    def test_several_phones(self, phone: FakePhone, tmp_path: Path, spec: DeviceSpec) -> None:
        with FakePhone(tmp_path / "other") as other:
            for each in (phone, other):
                subprocess.run(["adb", "connect", each.address], capture_output=True, timeout=20, check=True)
            with pytest.raises(DeviceError, match=r"several phones.*adb://") as caught:
                AdbSession(replace(spec, address="adb://"))
            assert phone.address in caught.value.message
            subprocess.run(["adb", "disconnect", other.address], capture_output=True, timeout=20, check=True)
        with AdbSession(replace(spec, address="adb://"), patience_s=1.0) as session:
            assert session.facts()["serial"] == phone.address
            with FakePhone(tmp_path / "third") as third:
                subprocess.run(["adb", "connect", third.address], capture_output=True, timeout=20, check=True)
                session._connected = False
                assert session.shell("echo back", Deadline.after(20)).text == "back\n"
                subprocess.run(["adb", "disconnect", phone.address], capture_output=True, timeout=20, check=True)
                session._connected = False
                with pytest.raises(ChannelError, match=f"{phone.address} is not connected"):
                    session.shell("true", Deadline.after(20))
                subprocess.run(["adb", "disconnect", third.address], capture_output=True, timeout=20, check=True)

    @pytest.mark.parametrize("name", ["a'; touch PWNED; '", "$(touch PWNED)", "a b", "-rf", "`touch PWNED`", 'q"; id'])
    def test_a_hostile_folder_is_just_a_folder(
        self, spec: DeviceSpec, phone: FakePhone, name: str, models: tuple[Path, Path]
    ) -> None:
        with AdbSession(replace(spec, folder=f"/data/local/tmp/{name}")) as session:
            channel = greeted(session)
            assert ask(channel, "load", id="m", **pushed(session, models[0]))["load_s"] > 0
            session.clean()
        assert {path.name for path in phone.root.iterdir()} == {name}
        assert not list(phone.root.rglob("PWNED"))


class TestLock:
    def test_one_program_at_a_time(self, spec: DeviceSpec, session: AdbSession, phone: FakePhone) -> None:
        with pytest.raises(
            ChannelError, match=rf"in use by edgeprune on \S+ process {os.getpid()}|in use by"
        ) as caught:
            AdbSession(spec)
        assert (caught.value.kind, caught.value.retryable) == ("busy", True)
        assert "adb -s" in caught.value.hint
        session.close()
        AdbSession(spec).close()
        assert "lock" not in files(phone, ".")

    @pytest.mark.parametrize(
        ("owner", "age_s", "free"),
        [
            ("elsewhere 12 0123456789abcdef", 10, False),
            ("elsewhere 12 0123456789abcdef", 1000, True),
            (f"{this_host()} {os.getppid()} 0123456789abcdef", 1000, False),
            (f"{this_host()} 999999999 0123456789abcdef", 10, True),
            (f"{this_host()} {os.getppid()} 0123456789abcdef", 10, False),
            (f"{this_host()} {os.getpid()} 0123456789abcdef", 10, True),
            ("", 10, False),
            ("", 1000, True),
        ],
        ids=[
            "alive",
            "stale",
            "silent but alive",
            "dead",
            "another of ours",
            "a lost one of ours",
            "just made",
            "never owned",
        ],
    )
    def test_locks_of_others(self, spec: DeviceSpec, phone: FakePhone, owner: str, age_s: int, free: bool) -> None:
        lock = phone.root / "edgeprune" / "lock"
        lock.mkdir(parents=True)
        told = lock / "owner" if owner else lock
        if owner:
            told.write_text(owner + "\n")
        os.utime(told, (time.time() - age_s, time.time() - age_s))
        if free:
            AdbSession(spec).close()
            assert not lock.exists()
        else:
            with pytest.raises(ChannelError, match="in use") as caught:
                AdbSession(spec)
            assert caught.value.kind == "busy"
            assert lock.exists()

    def test_a_lock_that_was_taken_over(self, session: AdbSession, phone: FakePhone) -> None:
        owner = phone.root / "edgeprune" / "lock" / "owner"
        owner.write_text("elsewhere 12 0123456789abcdef\n")
        with pytest.raises(ChannelError, match="took phone") as caught:
            session.push(BINARY)
        assert (caught.value.kind, caught.value.retryable) == ("busy", False)
        session.close()
        assert owner.exists()

    def test_what_was_left_running_is_ended(self, spec: DeviceSpec, phone: FakePhone) -> None:
        """By the session at its end, and by the next one after a crash."""
        ours = phone.here("/data/local/tmp/edgeprune/cache/benchmark_model")
        for crashed in (False, True):
            session = AdbSession(spec)
            with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", ours]) as left:
                (phone.root / "edgeprune" / "scratch" / "pid").write_text(f"{left.pid}\n")
                if crashed:
                    adb_lock._HELD.clear()
                    AdbSession(spec).close()
                else:
                    session.close()
                assert left.wait(timeout=20) == -9

    def test_a_folder_that_is_somebody_s_own(self, spec: DeviceSpec, phone: FakePhone) -> None:
        (phone.root / "mine" / "scratch").mkdir(parents=True)
        with pytest.raises(DeviceError, match="not ours; give another --folder") as caught:
            AdbSession(replace(spec, folder="/data/local/tmp/mine"))
        assert not caught.value.retryable
        assert [each.name for each in (phone.root / "mine").iterdir()] == ["scratch"]

    def test_commands_keep_the_lock_fresh(self, session: AdbSession, phone: FakePhone) -> None:
        owner = phone.root / "edgeprune" / "lock" / "owner"
        os.utime(owner, (1000, 1000))
        session.shell("true", Deadline.after(20))
        assert owner.stat().st_mtime > 1000

    def test_closed_is_closed(self, session: AdbSession, phone: FakePhone) -> None:
        channel = greeted(session)
        session.close()
        session.close()
        for work in (lambda: ask(channel, "state"), lambda: session.push(BINARY)):
            with pytest.raises(ChannelError):
                work()


class TestChannel:
    def test_facts(self, session: AdbSession) -> None:
        facts = dict(session.facts())
        assert facts == dict(session.facts())
        assert (facts["device"], facts["kind"], facts["system"], facts["emulated"]) == (
            "phone",
            "adb",
            "Android",
            False,
        )
        assert (facts["machine"], facts["cpu"], facts["model"]) == ("arm64-v8a", "FK1000", "Nobody Fake Phone")
        assert (facts["android"], facts["cores"]) == ("14", os.cpu_count())

    def test_hello(self, session: AdbSession, models: tuple[Path, Path]) -> None:
        channel = session.start(PROBE)
        answer = ask(channel, "hello", runtime="litert", threads=2, warm=[pushed(session, models[0])])
        facts = answer["facts"]
        assert (facts["unit"], facts["runtime"], facts["threads"]) == ("s", "benchmark_model", 2)
        assert facts["runtime_version"] == sha256_file(BINARY)[:12]
        assert {"race", "memory", "predict", "state"} <= set(answer["ops"])
        assert "single" not in answer["ops"]

    def test_no_onnxruntime(self, session: AdbSession) -> None:
        with pytest.raises(RuntimeMissing, match="--runtime litert"):
            ask(session.start(PROBE), "hello", runtime="onnxruntime", threads=1, warm=[])

    def test_no_emulator(self, session: AdbSession, phone: FakePhone) -> None:
        phone.tell(ro__kernel__qemu="1")
        with pytest.raises(DeviceError, match="emulator"):
            ask(session.start(PROBE), "hello", runtime="litert", threads=1, warm=[])

    @pytest.mark.parametrize("given", ["", "/nowhere/benchmark_model"])
    def test_no_benchmark_model(self, spec: DeviceSpec, given: str) -> None:
        with (
            AdbSession(replace(spec, benchmark_model=given)) as session,
            pytest.raises(DeviceError, match="--benchmark-model FILE") as caught,
        ):
            session.start(PROBE)
        assert not caught.value.retryable
        assert "arm64-v8a" in caught.value.hint

    def test_a_benchmark_model_of_another_processor(
        self, spec: DeviceSpec, tmp_path: Path, models: tuple[Path, Path]
    ) -> None:
        alien = tmp_path / "alien"
        alien.write_bytes(b"\x7fELF" + bytes(60))
        with (
            AdbSession(replace(spec, benchmark_model=str(alien))) as session,
            pytest.raises(ChannelError, match="cannot be run on the phone") as caught,
        ):
            race(greeted(session), pushed(session, models[0]), None)
        assert caught.value.kind == "refused"

    @pytest.mark.parametrize("words", ["", "old,bare", "logcat", "scientific", "once"])
    def test_race(self, session: AdbSession, phone: FakePhone, models: tuple[Path, Path], words: str) -> None:
        phone.env["FAKE_BENCHMARK"] = words
        answer = race(greeted(session), *(pushed(session, model) for model in models), rounds=1)
        for name in "ab":
            for key in ("samples", "warmups", "load_s", "first_s"):
                assert len(answer[f"{key}_{name}"]) == 1
                assert 0 < answer[f"{key}_{name}"][0] < 5
        assert len(answer["states"]) == 2
        assert answer["states"][0]["thermal_status"] == 1
        assert "warnings" not in answer["states"][1]

    def test_the_order_alternates(self, session: AdbSession, phone: FakePhone, models: tuple[Path, Path]) -> None:
        race(greeted(session), *(pushed(session, model) for model in models))
        half = sha256_file(models[1])
        assert ["ab"[half in command] for command in phone.commands if "--graph=" in command] == ["a", "b", "b", "a"]

    def test_race_alone(self, session: AdbSession, models: tuple[Path, Path]) -> None:
        answer = race(greeted(session), pushed(session, models[0]), None)
        assert (len(answer["samples_a"]), answer["samples_b"]) == (2, [])

    def test_no_further_round_when_the_time_is_up(self, session: AdbSession, models: tuple[Path, Path]) -> None:
        answer = race(greeted(session), pushed(session, models[0]), None, rounds=9, most_s=0.0)
        assert len(answer["samples_a"]) == 3

    def test_values_and_signatures(self, session: AdbSession, phone: FakePhone, tmp_path: Path) -> None:
        phone.env["FAKE_BENCHMARK_PACKAGE"] = str(Path(__file__).parents[2])
        model = write_signatures(tmp_path / "m.tflite")
        np.save(tmp_path / "x.npy", np.arange(5, dtype=np.float32)[None])
        given = GivenInputs(values={"in": tmp_path / "x.npy"}, signature="decode")
        channel = greeted(session)
        client = ProbeClient(channel, MeasureSettings("litert", rounds=1, round_s=0.0, min_runs=2))
        opened = client.race(push(session, model, given), None, Deadline.after(SOON)).opened
        assert opened == Opened((Fed("in", (1, 5), "float32", "given"),), "decode", ("decode", "encode"))
        first = client.race(push(session, model, GivenInputs()), None, Deadline.after(SOON)).opened
        assert (first.signature, first.inputs[0].name, first.inputs[0].how) == ("encode", "encode_x", "random")
        for wrong, says in (
            (GivenInputs(values={"in": "x"}, signature="decode"), r"input in takes a number \(float32\), got x"),
            (GivenInputs(values={"other": "1"}), "no input 'other'; it has encode_x"),
            (GivenInputs(signature="train"), "no signature 'train'; it has decode, encode"),
        ):
            with pytest.raises(ChannelError, match=says):
                client.race(push(session, model, wrong), None, Deadline.after(SOON))
        phone.env["FAKE_BENCHMARK"] = "old"
        with pytest.raises(ChannelError, match="this benchmark_model cannot choose a signature"):
            client.race(push(session, model, given), None, Deadline.after(SOON))

    def test_memory(self, session: AdbSession, models: tuple[Path, Path], phone: FakePhone) -> None:
        channel = greeted(session)
        model = pushed(session, models[0])
        answer = ask(channel, "memory", **model)
        assert answer["method"] == "benchmark_model"
        assert answer["bytes"] > 100_000
        phone.env["FAKE_BENCHMARK"] = "no-memory"
        with pytest.raises(ChannelError, match="no memory footprint"):
            ask(channel, "memory", **model)

    def test_operators_state_and_what_cannot_be(self, session: AdbSession, models: tuple[Path, Path]) -> None:
        channel = greeted(session)
        model = pushed(session, models[0])
        found = ask(channel, "operators", **model, runs=3, scratch="")["operators"]
        assert found[0] == {"name": "[0]", "type": "FULLY_CONNECTED", "seconds": pytest.approx(4e-6)}
        assert ask(channel, "state")["state"]["battery_c"] == 31.2
        with pytest.raises(ChannelError, match="only aggregates") as caught:
            ask(channel, "single", **model, min_runs=1, min_s=0)
        assert caught.value.kind == "refused"
        with pytest.raises(ChannelError, match="unknown op"):
            ask(channel, "format")
        ask(channel, "quit")
        with pytest.raises(ChannelError, match="closed"):
            ask(channel, "state")

    def test_nothing_before_hello(self, session: AdbSession, models: tuple[Path, Path]) -> None:
        with pytest.raises(ChannelError, match="no hello yet"):
            ask(session.start(PROBE), "memory", **pushed(session, models[0]))

    @pytest.mark.parametrize(
        ("word", "kind", "said"),
        [
            ("refuse", "refused", "Didn't find op for builtin opcode"),
            ("crash", "crashed", "SIGABRT"),
            ("killed", "killed", "killed"),
            ("garbage", "garbled", "no timings"),
        ],
    )
    def test_failures(
        self, session: AdbSession, phone: FakePhone, models: tuple[Path, Path], word: str, kind: str, said: str
    ) -> None:
        channel = greeted(session)
        model = pushed(session, models[0])
        phone.env["FAKE_BENCHMARK"] = word
        with pytest.raises(ChannelError, match=said) as caught:
            race(channel, model, None)
        assert caught.value.kind == kind
        phone.env["FAKE_BENCHMARK"] = ""
        assert race(channel, model, None, rounds=1)["ok"]

    def test_no_model(self, session: AdbSession, tmp_path: Path) -> None:
        path = tmp_path / "x.tflite"
        path.write_bytes(b"these bytes are no model")
        with pytest.raises(ChannelError) as caught:
            race(greeted(session), pushed(session, path), None)
        assert caught.value.kind == "refused"
        assert "\n" not in caught.value.message

    def test_a_file_that_is_not_the_one_sent(
        self, session: AdbSession, phone: FakePhone, models: tuple[Path, Path]
    ) -> None:
        model = pushed(session, models[0])
        Path(phone.here(model["path"])).write_bytes(models[1].read_bytes())
        with pytest.raises(ChannelError, match="SHA-256"):
            race(greeted(session), model, None)

    def test_a_fall_back_is_told(self, session: AdbSession, phone: FakePhone, models: tuple[Path, Path]) -> None:
        phone.env["FAKE_BENCHMARK"] = "fallback"
        answer = race(greeted(session), pushed(session, models[0]), None)
        assert "will not be executed by the delegate" in answer["states"][-1]["warnings"]

    def test_what_hangs_is_ended_on_the_phone_too(
        self, session: AdbSession, phone: FakePhone, models: tuple[Path, Path]
    ) -> None:
        channel = greeted(session)
        model = pushed(session, models[0])
        phone.env["FAKE_BENCHMARK"] = "hang"
        with pytest.raises(ChannelError) as caught:
            ask(channel, "memory", within_s=3.0, **model)
        assert caught.value.kind == "timeout"
        with pytest.raises(ChannelError, match="closed"):
            ask(channel, "state")
        graph = phone.here(f"--graph={model['path']}").encode()
        limit = Deadline.after(10)
        while (left := [p for p in Path("/proc").glob("[0-9]*/cmdline") if graph in _read(p)]) and limit.left() > 0:
            time.sleep(0.02)  # what is killed takes a moment to go
        assert not left

    def test_cut_in_mid_race_then_another_channel(
        self, session: AdbSession, phone: FakePhone, models: tuple[Path, Path]
    ) -> None:
        channel = greeted(session)
        model = pushed(session, models[0])
        phone.cut_command, phone.cut_after_s = "--graph=", 0.05
        with pytest.raises(ChannelError) as caught:
            race(channel, model, None)
        assert caught.value.kind == "lost"
        with pytest.raises(ChannelError, match="closed"):
            race(channel, model, None)
        assert race(greeted(session), model, None)["ok"]

    def test_shapes_are_checked_and_passed(
        self, session: AdbSession, phone: FakePhone, models: tuple[Path, Path]
    ) -> None:
        channel = greeted(session)
        model = pushed(session, models[0])
        assert race(channel, {**model, "shapes": {"x": [1, 64]}}, None)["ok"]
        assert any("--input_layer_shape=1,64" in command for command in phone.commands)
        for wrong in ({"y": [1, 64]}, {"x": [1, 65]}):
            with pytest.raises(ChannelError) as caught:
                race(channel, {**model, "shapes": wrong}, None)
            assert caught.value.kind == "refused"


class TestProfilers:
    """What measures on every device does so on a phone, unchanged."""

    def test_loop(self, session: AdbSession, phone: FakePhone, models: tuple[Path, Path]) -> None:
        full, half = models
        with LoopProfiler(session, replace(QUICK, rounds=1), full) as profiler:
            measured = profiler.measure(half)
            assert isinstance(measured, Measurement)
            assert (measured.unit, measured.memory_method, measured.device) == ("s", "benchmark_model", "phone")
            assert len(measured.samples) == len(measured.against) == 1
            assert measured.facts["runtime"] == "benchmark_model"
            assert measured.peak_bytes > 0
            phone.cut_command = "--graph=.*--num_runs=3"
            assert isinstance(profiler.measure(half), Measurement)
            assert not phone.cut_command
            phone.env["FAKE_BENCHMARK"] = f"refuse@{sha256_file(half)}"
            refused = profiler.measure(half)
            assert isinstance(refused, Failure)
            assert refused.kind == "refused"
        assert sha256_file(half) not in "".join(files(phone))

    def test_fresh(self, session: AdbSession, models: tuple[Path, Path]) -> None:
        settings = replace(QUICK, processes=1, rounds=1)
        measured = compare_fresh(session, settings, models[1], models[0])
        assert isinstance(measured, Measurement)
        assert measured.sha256 == sha256_file(models[1])

    def test_predict(
        self, session: AdbSession, phone: FakePhone, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adb_channel, "_IMAGES", 3)
        images = np.random.default_rng(0).random((5, 64), np.float32)
        logits = predict_on_device(session, QUICK, models[0], images)
        interpreter = Interpreter(str(models[0]))
        interpreter.allocate_tensors()
        for image, row in zip(images, logits, strict=True):
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
            interpreter.invoke()
            here = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
            np.testing.assert_allclose(row, here, atol=1e-5)
        assert not [name for name in files(phone) if name.endswith(".npy")]

    def test_validate(self, session: AdbSession, models: tuple[Path, Path], tmp_path: Path) -> None:
        """As on other devices, but without variables: each run of benchmark_model is two of the model."""
        x = np.random.default_rng(0).random((6, 64), np.float32)
        interpreter = Interpreter(str(models[0]))
        interpreter.allocate_tensors()
        answers = []
        for image in x:
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
            interpreter.invoke()
            answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
        classes = tuple(map(str, range(len(answers[0]))))
        # Of two images the label is another class than the file's.
        y = np.array([np.argmax(answer) for answer in answers])
        y[:2] = (y[:2] + 1) % len(classes)
        raw = Raw(x, y, x, y, classes)
        data = make_dataset("made", raw, seed=0, validation_share=0.5)
        asked = Asked((Scaling("none", resolve("none", data)),))
        found = accuracy_on_device(session, QUICK, models[0], data, asked, Silent())
        assert (found.correct, found.images) == (4, 6)
        file = write_recurrent(tmp_path / "stateful.tflite", 64)
        with pytest.raises(DeviceError, match="has variables, and benchmark_model on phone runs a file twice"):
            accuracy_on_device(session, QUICK, file, data, asked, Silent())
        with pytest.raises(ChannelError, match="no variable outlives it"):
            predict_on_device(session, QUICK, models[0], x, feeding=Feeding(keep=True))

    def test_fixed_batches_are_filled(
        self, session: AdbSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adb_channel, "_IMAGES", 1)
        file = write_double(tmp_path / "double.tflite", (2, 3))
        images = np.arange(9, dtype=np.float32).reshape(3, 3)
        given = predict_on_device(session, QUICK, file, images, feeding=Feeding(batch=2))
        np.testing.assert_array_equal(given, 2 * images)
        with pytest.raises(ChannelError, match="does not fit"):
            predict_on_device(session, QUICK, file, images)

    def test_several_inputs_are_fed_at_once(self, session: AdbSession, tmp_path: Path) -> None:
        class Sum(nn.Module):
            def forward(self, a: Tensor, b: Tensor) -> Tensor:
                return a + 10 * b.float().sum(1, keepdim=True)

        x = Several(("a", "b"), (torch.arange(15.0).reshape(5, 3), torch.arange(10).reshape(5, 2)))
        file = export_tflite(Sum(), x, tmp_path / "sum.tflite", {}).path
        found = predict_on_device(session, QUICK, file, to_numpy(x))
        np.testing.assert_allclose(found, Sum()(*x.tensors).numpy())
        with pytest.raises(ChannelError, match="all of them must be given at once"):
            predict_on_device(session, QUICK, file, x.tensors[0].numpy())

    def test_integers_are_zeros_as_elsewhere(self, session: AdbSession, tmp_path: Path) -> None:
        table = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(6, 2))
        # benchmark_model's own integers go up to 99, far beyond this table.
        file = export_tflite(table, torch.zeros(2, 2, dtype=torch.int64), tmp_path / "table.tflite", {}).path
        channel = greeted(session)
        answer = ask(channel, "load", id="m", **pushed(session, file))
        assert [each[3] for each in answer["opened"]["inputs"]] == ["zeros"]

    @pytest.mark.parametrize(("word", "said"), [("no-output", "writes no outputs"), ("killed", "killed")])
    def test_predict_fails(
        self, session: AdbSession, phone: FakePhone, models: tuple[Path, Path], word: str, said: str
    ) -> None:
        channel = greeted(session)
        ask(channel, "load", id="m", **pushed(session, models[0]))
        images = phone.root / "images.npy"
        np.save(images, np.zeros((2, 64), np.float32))
        phone.env["FAKE_BENCHMARK"] = word
        with pytest.raises(ChannelError, match=said):
            ask(channel, "predict", id="m", inputs=session.push(images), outputs=session.scratch("out.npy"))


def _read(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""
