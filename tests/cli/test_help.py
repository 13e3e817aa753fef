"""Help, unknown commands and completion: what somebody sees who does not know the names yet."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.made_runs import begun

from edgeprune.cli.main import PLACES, main
from edgeprune.data.catalog import DATASETS
from edgeprune.devices.names import book
from edgeprune.models.names import MODELS
from edgeprune.pipeline.config import SECTIONS, RunConfig

ROOT = Path(__file__).parents[2]
#: Commands inside of commands, some of them.
GROUPS = {"runs": ("list", "show", "rm", "export"), "devices": ("add", "check"), "bench": ("paper", "conv")}


def shown(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What a command says; it must not load torch."""
    code = (
        "import sys\nfrom edgeprune.cli.main import main\ncode = 0\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: code = end.code\n"
        "assert 'torch' not in sys.modules\nsys.exit(code)"
    )
    environment = os.environ | {"COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, env=environment
    )


def test_options_of_run_stand_in_the_sections_of_the_docs() -> None:
    import dataclasses

    page = shown("run", "--help").stdout
    headings = [*SECTIONS.values(), "The command itself"]
    parts = re.split(rf"^({'|'.join(map(re.escape, headings))}):$", page, flags=re.MULTILINE)
    assert parts[1::2] == headings
    in_help = dict(zip(parts[1::2], parts[2::2], strict=True))
    docs = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    in_docs = {part.splitlines()[0]: part for part in docs.split("\n## ")[1:]}
    assert list(in_docs) == headings
    for field in dataclasses.fields(RunConfig):
        flag, heading = "--" + field.name.replace("_", "-"), SECTIONS[field.metadata["section"]]
        assert re.search(rf"^  {flag}\b", in_help[heading], re.MULTILINE), flag
        assert f"| `{flag}` |" in in_docs[heading], flag
    for flag in ("--config", "--resume", "--quiet", "--json"):
        assert flag in in_help["The command itself"]
        assert f"| `{flag}` |" in in_docs["The command itself"]


def test_help_of_run_lists_networks_data_sets_and_examples_that_parse() -> None:
    page = shown("run", "--help").stdout
    assert all(len(line) <= 80 for line in page.splitlines())
    for name in (*MODELS, *DATASETS):
        assert re.search(rf"^  {name} ", page, re.MULTILINE), name
    examples = page.split("Examples:\n")[1].split("\n\n")[0].replace("\\\n", " ")
    known = set(re.findall(r"^  (--[a-z-]+)", page, re.MULTILINE))
    assert len(examples.splitlines()) >= 5
    assert set(re.findall(r"--[a-z-]+", examples)) <= known
    assert page.rstrip().endswith("130 interrupted.")


def test_every_help_fits_eighty_columns_and_is_light() -> None:
    code = (
        "import sys\nfrom edgeprune.cli.main import main\n"
        "for line in sys.argv[1:]:\n"
        "    try: main([*line.split(), '--help'])\n"
        "    except SystemExit as end: assert not end.code, line\n"
        "assert 'torch' not in sys.modules"
    )
    groups = [f"{group} {name}" for group, names in GROUPS.items() for name in names]
    done = subprocess.run(
        [sys.executable, "-c", code, "", *PLACES, *groups],
        capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "80"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: ") == 1 + len(PLACES) + len(groups)
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


def test_unknown_commands_name_the_known_ones_nearest_first(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, beginning in (
        (["rnu"], "error: No such command 'rnu'; the commands are: run, runs, "),
        (["wach"], "error: No such command 'wach'; the commands are: watch, bench, "),
        (["runs", "lst"], "error: No such command 'lst'; the commands are: list, "),
        (["devices", "chek"], "error: No such command 'chek'; the commands are: check, "),
        (["bench", "x\x1b[2J"], "error: No such command 'x?[2J'; the commands are: "),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        assert (ended.value.code, said.out, said.err.count("\n")) == (2, "", 1)
        assert said.err.startswith(beginning), said.err
    assert all(name in said.err for name in ("paper", "conv"))


def test_a_command_loads_only_what_it_needs() -> None:
    code = (
        "import sys\nfrom edgeprune.cli.main import main\n"
        "try: main(['runs', 'list'])\nexcept SystemExit: pass\n"
        "print({'scipy', 'sklearn', 'edgeprune.cli.bench', 'edgeprune.cli.profile'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.fixture
def completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], list[str]]:
    """What bash would be offered for the last of some words, typed in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEPRUNE_CONFIG_DIR", str(tmp_path / "config"))

    def go(words: str) -> list[str]:
        with monkeypatch.context() as patched:
            patched.setenv("_EDGEPRUNE_COMPLETE", "bash_complete")
            patched.setenv("COMP_WORDS", words)
            patched.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
            with pytest.raises(SystemExit):
                main([])
        said = capsys.readouterr()
        assert said.err == ""
        return said.out.split()

    return go


def test_names_are_completed(tmp_path: Path, completed: Callable[[str], list[str]]) -> None:
    begun(tmp_path / "runs", "first")
    begun(tmp_path / "runs", "other")
    begun(tmp_path / "elsewhere", "third")
    (tmp_path / "runs" / "bad\nname").mkdir()
    book.add("garage", {"address": "ssh://pi@garage"})
    assert completed("edgeprune wa") == ["plain,watch"]
    assert completed("edgeprune run --model lenet") == [
        "plain,lenet-300-100", "plain,lenet5", "plain,lenet-5-caffe",
    ]  # fmt: skip
    assert completed("edgeprune run --model net.p") == ["file,net.p"]
    assert completed("edgeprune run --data mni") == ["plain,mnist"]
    assert completed("edgeprune run --device ga") == ["plain,garage"]
    assert completed("edgeprune run --resume fi") == ["plain,first"]
    assert completed("edgeprune runs --runs-dir") == []
    assert completed("edgeprune watch ") == ["plain,first", "plain,other"]
    assert completed("edgeprune runs rm --runs-dir elsewhere ") == ["plain,third"]
    (tmp_path / "config" / "devices.toml").write_text("damaged")
    assert completed("edgeprune run --device loc") == ["plain,local"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_guide_says_how_to_switch_completion_on(shell: str) -> None:
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    variable = f"_EDGEPRUNE_COMPLETE={shell}_source"
    assert variable in guide
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("no bash here")
    environment = os.environ | {"_EDGEPRUNE_COMPLETE": f"{shell}_source"}
    code = "from edgeprune.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert "_EDGEPRUNE_COMPLETE" in done.stdout
