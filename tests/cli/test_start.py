from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune.cli import main as command_line

#: Ctrl-C while the libraries are loaded, which takes a second.
INTERRUPTED = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "edgeprune.cli.main":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
from edgeprune.cli.start import main
main()
"""


def test_ctrl_c_while_loading_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_ctrl_c_while_text_runs_as_code_ends_with_our_code_too(tmp_path: Path) -> None:
    # As where a dataclass is made. Python would end `python -m` by the signal then, though it was handled.
    (tmp_path / "net.py").write_text("def net():\n    exec('raise KeyboardInterrupt')\n")
    command = [sys.executable, "-m", "edgeprune", "run", "--model", "net.py:net", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip().startswith("interrupted; what was done is kept")


def test_the_beginning_loads_nothing_that_takes_long() -> None:
    heavy = "import edgeprune.cli.start, sys; print({'numpy', 'pydantic', 'rich', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("number", ["SIGHUP", "SIGINT", "SIGTERM"])
def test_a_signal_that_was_swallowed_stops_at_the_next_sign_of_progress(number: str) -> None:
    program = (
        "import signal, sys\n"
        "from edgeprune.cli import start\n"
        f"signal.signal(signal.{number}, signal.default_int_handler)\n"
        "sys.argv = ['edgeprune', '--version']\n"
        "try: start.main()\n"
        "except SystemExit: pass\n"
        "start.stop_if_asked()\n"
        f"try: signal.raise_signal(signal.{number})\n"
        "except KeyboardInterrupt: start.stop_if_asked()\n"
        "try: start.stop_if_asked()\n"
        "except KeyboardInterrupt: print('stopped')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "stopped"


@pytest.mark.parametrize("number", ["SIGHUP", "SIGINT"])
@pytest.mark.parametrize(("ignored", "kept"), [(True, True), (False, False)], ids=["background", "terminal"])
def test_what_runs_in_the_background_outlives_its_terminal(ignored: bool, kept: bool, number: str) -> None:
    program = (
        "import signal, sys\n"
        # Set either way: these tests may themselves run under nohup.
        f"signal.signal(signal.{number}, signal.{'SIG_IGN' if ignored else 'SIG_DFL'})\n"
        "from edgeprune.cli import start\n"
        "sys.argv = ['edgeprune', '--version']\n"
        "try: start.main()\n"
        f"except SystemExit: print(signal.getsignal(signal.{number}) == signal.SIG_IGN)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(kept)


@pytest.mark.parametrize(
    ("command", "given", "busy", "expected"),
    [
        ("run", None, True, "PASSIVE"),
        ("run", None, False, None),
        ("run", "ACTIVE", True, "ACTIVE"),
        # It loads no torch, and does not look.
        ("runs", None, True, None),
    ],
)
def test_threads_sleep_while_they_wait_where_other_programs_are_busy(
    monkeypatch: pytest.MonkeyPatch, command: str, given: str | None, busy: bool, expected: str | None
) -> None:
    monkeypatch.setattr(command_line, "crowded", lambda: busy)
    # What it leaves behind is put back as well.
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    with pytest.raises(SystemExit):
        command_line.main([command, "--help"])
    assert os.environ.get("OMP_WAIT_POLICY") == expected
