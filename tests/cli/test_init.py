"""`edgeprune init`: the file it writes is one that `run --config` takes, and means what was answered."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from edgeprune.cli.main import main
from edgeprune.models.names import MODELS
from edgeprune.pipeline.config import RunConfig, make_config, read_toml
from edgeprune.pipeline.written import config_text

Init = Callable[..., tuple[int, str, str]]


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Init:
    """Runs `edgeprune init ARGUMENTS` in an empty folder; `answers` are typed one after the other."""
    monkeypatch.chdir(tmp_path)

    def go(*arguments: str, answers: Sequence[str] = ()) -> tuple[int, str, str]:
        left = list(answers)
        monkeypatch.setattr("sys.stdin.isatty", lambda: bool(answers), raising=False)
        monkeypatch.setattr("click.termui.visible_prompt_func", lambda _="": left.pop(0))
        with pytest.raises(SystemExit) as ended:
            main(["init", *arguments])
        assert not left
        return int(ended.value.code or 0), *capsys.readouterr()

    return go


def config_of(file: str) -> RunConfig:
    return make_config(read_toml(Path(file)), file)


def test_yes_writes_the_defaults(init: Init) -> None:
    code, out, _ = init("--yes")
    assert (code, out) == (0, "edgeprune.toml is written; next: edgeprune run --config edgeprune.toml\n")
    assert config_of("edgeprune.toml") == RunConfig()


def test_answers_are_set_and_asked_again_where_they_are_wrong(init: Init, tmp_path: Path) -> None:
    (tmp_path / 'my "net".py').write_text("")
    (tmp_path / "w.pt").write_text("")
    model = 'my "net".py:make'
    answers = ["minst", "mnist", "lenet", model, "none.pt", "w.pt", "rpi9", "emulated-rpi4", "5", "0.8x,0.6x"]
    code, _, err = init("--out", "my.toml", answers=answers)
    assert code == 0
    for said in (
        "did you mean 'mnist'?",
        "did you mean 'lenet5'?",
        "no file 'none.pt'",
        "unknown device 'rpi9'",
        "'5' is",
    ):
        assert said in err
    assert config_of("my.toml") == RunConfig(
        data="mnist", model=model, weights=Path("w.pt"), device="emulated-rpi4", max_latency="0.8x,0.6x"
    )


def test_what_is_left_open_stays_open(init: Init) -> None:
    init(answers=["", "", "", "", ""])
    assert config_of("edgeprune.toml") == RunConfig()


def test_every_setting_is_there_with_its_help_and_may_be_uncommented(tmp_path: Path) -> None:
    import dataclasses

    text = config_text({}, "head")
    assert all(len(line) <= 100 for line in text.splitlines())
    flat = " ".join(line.removeprefix("# ") for line in text.splitlines())
    file = tmp_path / "all.toml"
    for field in dataclasses.fields(RunConfig):
        assert " ".join(field.metadata["help"].split()) in flat, field.name
        line = re.search(rf"^# ({field.name} = .*)$", text, re.MULTILINE)
        assert line, field.name
        if field.default is not None:
            file.write_text(line[1])
            assert make_config(read_toml(file), "all") == RunConfig(), field.name
        else:
            assert tomllib.loads(line[1]).keys() == {field.name}


def test_nothing_is_written_over_without_asking(init: Init, tmp_path: Path) -> None:
    (tmp_path / "edgeprune.toml").write_text("mine")
    code, _, err = init("--yes")
    assert (code, err) == (2, "error: edgeprune.toml exists; choose another --out, or leave --yes out to be asked\n")
    assert init(answers=["n"])[0] == 0
    assert (tmp_path / "edgeprune.toml").read_text() == "mine"
    assert init(answers=["y", "", "", "", "", ""])[0] == 0
    assert config_of("edgeprune.toml") == RunConfig()
    (tmp_path / "folder").mkdir()
    assert init("--yes", "--out", "folder")[0] == 2
    assert init("--yes", "--out", "none/x.toml")[0] == 1


def test_without_a_terminal_one_line_says_what_to_add(init: Init, tmp_path: Path) -> None:
    said = init()
    assert said == (2, "", "error: there is no terminal to ask questions on; add --yes to take the defaults\n")
    assert list(tmp_path.iterdir()) == []


def test_the_names_of_the_zoo_are_those_that_it_builds() -> None:
    from edgeprune.models.zoo import ZOO

    assert list(MODELS) == list(ZOO)


def test_it_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from edgeprune.cli.main import main\n"
        "try: main(['init', '--yes'])\n"
        "except SystemExit as end: assert not end.code\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
