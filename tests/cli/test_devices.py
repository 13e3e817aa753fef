"""`edgeprune devices`: results on stdout, one line per error on stderr, documented exit codes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgeprune.cli.devices import devices_command
from edgeprune.cli.main import main
from edgeprune.core.errors import EdgepruneError
from edgeprune.devices import find_device
from edgeprune.devices.names import book
from edgeprune.devices.ssh import session as ssh

SIMULATED = "[latency]\nbase_s = 1e-3\n"


class Said(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `edgeprune devices ARGUMENTS` with books of its own, in an empty folder."""
    monkeypatch.setenv("EDGEPRUNE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def go(*arguments: str) -> Said:
        with pytest.raises(SystemExit) as ended:
            main(["devices", *arguments])
        return Said(int(ended.value.code or 0), *capsys.readouterr())

    return go


def test_add_list_remove(run: Run) -> None:
    said = run("add", "rpi4", "ssh://pi@raspberrypi.local", "--threads", "2", "--cache-size", "64MB")
    assert said.out.startswith(f"rpi4 is in {book.user_file()}\nnext: edgeprune devices setup rpi4")
    shown = run("list").out
    assert "ssh://pi@raspberrypi.local" in shown
    assert "onnxruntime, 2 thread(s), python3" in shown
    listed = {each["name"]: each for each in json.loads(run("list", "--json").out)}
    assert {"local", "emulated-rpi3", "emulated-rpi4", "rpi4"} == set(listed)
    assert listed["rpi4"]["cache_bytes"] == 64_000_000
    assert (listed["rpi4"]["from"], listed["local"]["from"]) == (str(book.user_file()), "built in")
    assert run("remove", "rpi4") == Said(0, f"rpi4 is out of {book.user_file()}\n", "")
    assert "rpi4 " not in run("list").out.replace("emulated-rpi4", "")


def test_the_project_wins_and_that_is_said(run: Run) -> None:
    assert run("add", "rpi4", "ssh://project", "--project").err == ""
    assert f"here, rpi4 of {book.project_file()} wins" in run("add", "rpi4", "ssh://user").err
    assert f"rpi4 of {book.user_file()} counts now" in run("remove", "rpi4").err


def test_list_is_not_cut_where_it_is_narrow(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    run("add", "a", "ssh://pi@a-rather-long-name-of-a-host.example")
    assert "…" not in run("list").out


@pytest.mark.parametrize(
    ("code", "arguments", "says"),
    [
        (2, ["add", "rpi4", "pi@host"], "'pi@host' is no address of a device; did you mean 'ssh://pi@host'?"),
        (2, ["add", "rpi4", "ssh://pi:secret@host"], "an address holds no password"),
        (2, ["add", "rpi4", "adb://x"], "rpi4 is a board reached by ssh"),
        (2, ["add", "a b", "ssh://host"], "'a b' is no name for a device"),
        (2, ["add", "local", "ssh://host"], "'local' is built in"),
        (2, ["add", "x", "ssh://host", "--threads", "0"], "threads is '0'"),
        (2, ["add", "x", "ssh://host", "--threads", "many"], "Invalid value for '--threads'"),
        (2, ["add", "x", "ssh://host", "--runtime", "tvm"], "Invalid value for '--runtime'"),
        (2, ["add", "x", "ssh://host", "--board", "rpi44"], "did you mean 'rpi4'?"),
        (2, ["add", "x", "ssh://host", "--cache-size", "much"], "cache_size: 'much' is not a bound"),
        (2, ["add", "x", "ssh://host", "--benchmark-model", "b"], "benchmark_model does nothing"),
        (2, ["add", "x"], "Missing argument 'ADDRESS'"),
        (2, ["remove", "rpi4"], "there is no device 'rpi4' to remove"),
        (4, ["check", "rpi4"], "device 'rpi4' has no address; type: edgeprune devices add rpi4 ssh://pi@"),
        (4, ["clean", "rpi4"], "device 'rpi4' has no address"),
        (4, ["setup", "android"], "type: edgeprune devices add android adb://SERIAL"),
        (2, ["check", "rpi9"], "unknown device 'rpi9'; did you mean 'rpi"),
        (2, ["clean", "simulated://none.toml"], "cannot read the simulated device"),
        (2, ["lsit"], "No such command 'lsit'"),
    ],
)
def test_what_goes_wrong_is_one_line(run: Run, code: int, arguments: Sequence[str], says: str) -> None:
    said = run(*arguments)
    assert said.code == code
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert says in said.err
    assert "secret" not in said.err
    assert not book.user_file().exists()


def test_a_taken_name_needs_replace(run: Run) -> None:
    run("add", "x", "ssh://one")
    assert run("add", "x", "ssh://two").code == 2
    assert run("add", "x", "ssh://two", "--replace").code == 0
    assert book.entries()["x"].spec.address == "ssh://two"


def test_check_says_fit_or_not(run: Run) -> None:
    Path("sim.toml").write_text(SIMULATED)
    run("add", "sim", "simulated://sim.toml")
    said = run("check", "sim")
    assert (said.code, said.err) == (0, "")
    assert "onnxruntime  PASS" in said.out
    report = json.loads(run("check", "sim", "--json").out)
    assert (report["device"], report["kind"], report["fit"]) == ("sim", "simulated", True)
    assert report["checks"][0]["name"] == "reach"
    Path("sim.toml").unlink()
    said = run("check", "sim", "--json")
    assert said.code == 4
    assert json.loads(said.out)["checks"][0]["status"] == "FAIL"


def test_setup_keeps_the_python_it_made(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(spec: Any, say: Callable[[str], None], *, dry_run: bool) -> str:
        say("$ python3 -m venv there")
        return "/there/bin/python"

    monkeypatch.setattr(ssh, "setup_board", made)
    run("add", "rpi4", "ssh://pi@host")
    dry = run("setup", "rpi4", "--dry-run")
    assert dry.out == "python3 -m venv there\n"
    assert "nothing was done" in dry.err
    assert book.entries()["rpi4"].spec.python == "python3"
    assert "next: edgeprune devices check rpi4" in run("setup", "rpi4").out
    assert book.entries()["rpi4"].spec.python == "/there/bin/python"
    assert "devices add NAME ssh://pi@host --python /there/bin/python" in run("setup", "ssh://pi@host").out


def test_setup_of_other_kinds(run: Run) -> None:
    assert "needs no setting up" in run("setup", "local").out
    assert "would put an emulated board into" in run("setup", "emulated-rpi4", "--dry-run").out
    run("add", "phone", "adb://")
    assert "edgeprune devices add phone adb:// --benchmark-model PATH --replace" in run("setup", "phone").out
    assert "devices add NAME adb://SERIAL --benchmark-model" in run("setup", "adb://SERIAL").out


def test_clean_says_how_much(run: Run) -> None:
    assert run("clean", "local") == Said(0, "0 B freed on local\n", "")


hostile = st.text(max_size=60) | st.sampled_from(
    [
        "../x",
        "a" * 100_000,
        "\x1b[2J",
        "$(reboot)",
        "\ud800",
        "a\nb",
        "ssh://a;b",
        "ssh://u:secret@h",
        "simulated://\0",
        "-",
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["add", "check", "remove", "setup", "clean"]), hostile, hostile)
@example("add", "a", "simulated://" + "x/" * 500)
def test_any_name_and_address_is_served_or_one_clear_line(run: Run, command: str, name: str, address: str) -> None:
    if command in ("check", "setup", "clean"):
        with contextlib.suppress(EdgepruneError):
            find_device(name)
            return  # it would really connect somewhere; that is for other tests
    arguments = [command, "--", name, *([address] if command == "add" else [])]
    done = CliRunner().invoke(devices_command, arguments)
    if done.exit_code == 0:
        assert command == "add"
        return
    assert isinstance(done.exception, (EdgepruneError, SystemExit)), done.exception
    if isinstance(done.exception, EdgepruneError):
        assert done.exception.exit_code in (2, 4)
        assert str(done.exception).isprintable()
        assert len(str(done.exception)) < 600


def test_every_command_and_option_is_on_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "devices.md").read_text(encoding="utf-8")
    for name, command in devices_command.commands.items():
        assert f"edgeprune devices {name}" in page, name
        for option in (flag for each in command.params for flag in each.opts if flag.startswith("--")):
            assert f"`{option}" in page or f" {option}" in page, f"{name} {option}"
