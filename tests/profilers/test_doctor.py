from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from fakes.old_onnxruntime import write_old_python

from edgeprune.core.session import DeviceSpec
from edgeprune.core.version import ONNX_IR, ONNX_OPSET
from edgeprune.devices import find_device
from edgeprune.devices.local import LocalSession
from edgeprune.exporters.tiny import write_tiny_models
from edgeprune.probe import PROBE
from edgeprune.profilers import doctor
from edgeprune.profilers.doctor import Check, check
from edgeprune.profilers.tiny_models import TINY_MODELS

STATE = ("memory", "governor", "temperature", "throttling", "clock", "load")
NAMES = ("reach", "python", "onnxruntime", "litert", "disk", *STATE)
#: The real probe, its state replaced.
FAKE = """
import importlib.util
spec = importlib.util.spec_from_file_location("probe", {probe!r})
probe = importlib.util.module_from_spec(spec)
spec.loader.exec_module(probe)
known, changes = probe._state, {changes!r}
probe._state = lambda: dict(known(), **changes)
probe.main()
"""


@pytest.fixture
def examine(tmp_path: Path) -> Callable[..., dict[str, Check]]:
    def run(**changes: Any) -> dict[str, Check]:
        file = tmp_path / "probe_with_another_state.py"
        file.write_text(FAKE.format(probe=str(PROBE), changes=changes))
        return by_name(check(find_device("local"), watch_s=0.01, probe_file=file))

    return run


def by_name(checks: list[Check]) -> dict[str, Check]:
    assert tuple(each.name for each in checks) == NAMES
    assert all("\n" not in each.detail + each.advice for each in checks)
    return {each.name: each for each in checks}


def test_this_machine_runs_both_runtimes() -> None:
    found = by_name(check(find_device("local"), watch_s=0.05))
    for name in ("reach", "python", "onnxruntime", "litert", "clock"):
        assert found[name].status == "PASS", found[name]
    assert found["python"].detail.startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
    assert found["load"].status in ("PASS", "WARN")


def versions_and_operators(file: Path) -> list[Any]:
    """What decides whether a runtime opens a file."""
    if file.suffix == ".onnx":
        model = onnx.load(file)
        opsets = [(each.domain, each.version) for each in model.opset_import]
        return [model.ir_version, opsets, [node.op_type for node in model.graph.node]]
    lite = schema.ModelT.InitFromPackedBuf(file.read_bytes(), 0)
    return [lite.version, [(code.builtinCode, code.version, code.customCode) for code in lite.operatorCodes]]


def test_the_tiny_models_are_what_the_exporters_write_today(tmp_path: Path) -> None:
    write_tiny_models(tmp_path)
    for kept in TINY_MODELS.values():
        written = versions_and_operators(tmp_path / kept.name)
        assert versions_and_operators(kept) == written, "type: python -m edgeprune.exporters.tiny"
    ir, opsets, operators = versions_and_operators(tmp_path / "tiny.onnx")
    assert (ir, opsets) == (ONNX_IR, [("", ONNX_OPSET)])
    assert operators == ["Conv", "Relu", "MaxPool", "Reshape", "Gemm"]
    assert all(kept.stat().st_size < 4000 for kept in TINY_MODELS.values())


def test_an_old_onnxruntime_is_found_and_what_to_install(tmp_path: Path) -> None:
    board = DeviceSpec("x", "local", python=str(write_old_python(tmp_path)))
    found = by_name(check(board, watch_s=0.01))
    assert found["litert"].status == "PASS"
    assert found["onnxruntime"] == Check(
        "onnxruntime",
        "FAIL",
        "onnxruntime 1.16.3 cannot open the model: Unsupported model IR version: 10, max supported IR version: 9; this "
        "version writes opset 20 and IR version 10",
        "install onnxruntime>=1.18 there",
    )


def test_a_device_that_is_not_there_fails_once_and_says_what_to_type() -> None:
    found = by_name(check(DeviceSpec("x", "local", python="/nowhere/python")))
    assert found["reach"] == Check(
        "reach",
        "FAIL",
        "the device's Python '/nowhere/python' is not there or cannot be run",
        "give the path of a Python that has the runtime installed, for example /usr/bin/python3",
    )
    assert {each.status for name, each in found.items() if name != "reach"} == {"SKIP"}


def test_a_python_without_runtimes(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    found = by_name(check(DeviceSpec("x", "local", python=str(bare)), watch_s=0.01))
    assert (found["reach"].status, found["python"].status) == ("PASS", "PASS")
    assert found["onnxruntime"].status == "FAIL"
    assert "pip install onnxruntime" in found["onnxruntime"].advice
    assert found["litert"].status == "WARN"
    assert found["memory"].status in ("PASS", "WARN")
    wanted = by_name(check(DeviceSpec("x", "local", python=str(bare), runtime="litert"), watch_s=0.01))
    assert (wanted["onnxruntime"].status, wanted["litert"].status) == ("WARN", "FAIL")


def test_a_python_that_is_none(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho cannot start >&2\nexit 3\n")
    broken.chmod(0o755)
    found = by_name(check(DeviceSpec("x", "local", python=str(broken)), watch_s=0.01))
    assert found["python"].status == found["onnxruntime"].status == "FAIL"
    assert "cannot start" in found["python"].detail
    assert found["memory"] == Check("memory", "SKIP", "no probe answered")


def test_a_runtime_that_takes_the_process_along_does_not_hide_the_other(tmp_path: Path) -> None:
    file = tmp_path / "probe_that_dies.py"
    text = "probe._Onnx.runner = lambda self: probe.os.abort()\nprobe.main()\n"
    file.write_text(FAKE.format(probe=str(PROBE), changes={}).replace("probe.main()\n", text))
    found = by_name(check(find_device("local"), watch_s=0.01, probe_file=file))
    assert found["python"].status == found["litert"].status == "PASS"
    assert found["onnxruntime"].status == "FAIL"
    assert "SIGABRT" in found["onnxruntime"].detail


def test_a_probe_without_a_state(tmp_path: Path) -> None:
    file = tmp_path / "older_probe.py"
    text = "ops = probe._ops\nprobe._ops = lambda p: {k: v for k, v in ops(p).items() if k != 'state'}\nprobe.main()\n"
    file.write_text(FAKE.format(probe=str(PROBE), changes={}).replace("probe.main()\n", text))
    found = by_name(check(find_device("local"), watch_s=0.01, probe_file=file))
    assert found["onnxruntime"].status == "PASS"
    assert found["clock"].status == "SKIP"
    assert "unknown op" in found["clock"].detail


@pytest.mark.parametrize(
    ("changes", "name", "status", "says"),
    [
        ({"temperature_c": 45.2}, "temperature", "PASS", "45 degrees"),
        ({"temperature_c": 79}, "temperature", "WARN", "will throttle"),
        ({"temperature_c": None}, "temperature", "SKIP", "does not tell"),
        ({"temperature_c": "hot"}, "temperature", "SKIP", "does not tell"),
        ({"throttled": 0}, "throttling", "PASS", "none"),
        ({"throttled": 0x50005}, "throttling", "FAIL", "now: under-voltage, throttled"),
        ({"throttled": 0x10000}, "throttling", "WARN", "since it was started: under-voltage"),
        ({"governor": "performance"}, "governor", "PASS", "performance"),
        ({"governor": "ondemand"}, "governor", "WARN", "ondemand"),
        ({"governor": None}, "governor", "SKIP", "does not tell"),
        ({"memory_available_bytes": 10_000_000}, "memory", "FAIL", "10 MB free"),
        ({"memory_available_bytes": 100_000_000}, "memory", "WARN", "100 MB free"),
        ({"memory_available_bytes": 1_000_000_000}, "memory", "PASS", "1 GB free"),
        ({"wall_s": 0.0}, "clock", "WARN", "behind ours"),
        ({"wall_s": 1e10}, "clock", "WARN", "ahead of ours"),
        ({"wall_s": None}, "clock", "SKIP", "does not tell"),
        ({"others_cpu_s": 0.0}, "load", "PASS", "0 %"),
        ({"mono_s": 5.0}, "load", "SKIP", "does not tell"),
    ],
)
def test_states_are_judged(
    examine: Callable[..., dict[str, Check]], changes: dict[str, Any], name: str, status: str, says: str
) -> None:
    found = examine(**changes)[name]
    assert found.status == status, found
    assert says in found.detail
    assert bool(found.advice) == (status in ("WARN", "FAIL"))


def test_a_link_that_is_cut_while_it_is_examined(tmp_path: Path) -> None:
    (tmp_path / "sim.toml").write_text('[latency]\nbase_s = 1e-3\n[faults]\nat = ["2-: lost"]\n')
    found = by_name(check(find_device(f"simulated://{tmp_path / 'sim.toml'}"), watch_s=0.01))
    assert found["reach"].status == "PASS"
    assert found["onnxruntime"].status == "FAIL"
    assert "lost" in found["python"].detail
    assert {found[name].status for name in STATE} == {"SKIP"}


def test_what_changes_no_count_is_not_asked_of_an_emulated_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    # The session is this machine's: the emulated ones take a set-up of minutes.
    monkeypatch.setattr(doctor, "open_session", LocalSession)
    found = by_name(check(DeviceSpec("emulated-rpi4", "emulated"), watch_s=0.01))
    assert {found[name].detail for name in ("governor", "temperature", "throttling", "load")} == {
        "it changes no count of instructions"
    }
    assert found["memory"] == Check("memory", "SKIP", "the emulated board's is made up")
    assert found["clock"].status == "PASS"
    assert found["reach"].detail.startswith("emulated, ")


def test_what_is_made_up_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / "sim.toml").write_text("[latency]\nbase_s = 1e-3\n")
    found = by_name(check(find_device(f"simulated://{tmp_path / 'sim.toml'}"), watch_s=0.01))
    assert {(found[name].status, found[name].detail) for name in STATE} == {
        ("SKIP", "made up: the device is simulated")
    }
