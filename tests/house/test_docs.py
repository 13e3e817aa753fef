"""The documents say what the code does: options, errors, exit codes, rooms, commands."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from click.testing import CliRunner

from edgeprune.cli.main import cli
from edgeprune.core import errors
from edgeprune.papers.conv.config import NETWORKS
from edgeprune.pipeline.config import RunConfig

ROOT = Path(__file__).parents[2]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def option_rows() -> list[str]:
    rows = []
    for field in dataclasses.fields(RunConfig):
        default = "" if field.default is None else f"`{field.default}`"
        rows.append(f"| `--{field.name.replace('_', '-')}` | {default} | {field.metadata['help']} |")
    return rows


def test_every_option_stands_in_the_docs_as_in_the_help() -> None:
    page = text("docs/options.md")
    missing = [row for row in option_rows() if row not in page]
    assert not missing, "\n".join(missing)
    shown = CliRunner().invoke(cli, ["run", "--help"]).output
    for flag in re.findall(r"^  (--[a-z-]+)", shown, re.MULTILINE):
        assert f"`{flag}`" in page or flag == "--help", flag


def test_the_protocol_of_the_bench_stands_in_the_docs() -> None:
    page = text("docs/bench.md")
    for name, protocol in NETWORKS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}`") and line.count("|") == 8)
        told = [protocol.finetune_epochs, protocol.episodes, protocol.search_steps]
        assert row.endswith(" | ".join(map(str, told)) + " |"), row
        assert f"| {protocol.images:,} |" in row
        assert f"{protocol.train_epochs} " in row.split("|")[4]


def test_every_error_is_drawn_in_the_tree() -> None:
    tree = errors.__doc__ or ""
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.EdgepruneError):
            assert name in tree, name


def test_every_room_is_on_the_map() -> None:
    page = text("docs/architecture.md")
    for room in (ROOT / "edgeprune").iterdir():
        if (room / "__init__.py").exists():
            assert f"`{room.name}/`" in page, room.name


def test_every_page_is_reached_from_the_readme() -> None:
    readme = text("README.md")
    for page in sorted((ROOT / "docs").glob("*.md")):
        assert f"docs/{page.name}" in readme, page.name


def test_ci_runs_the_readmes_test_command() -> None:
    match = re.search(r"<!-- tests -->\n```sh\n(.+?)\n```", text("README.md"), re.DOTALL)
    assert match
    assert match[1].endswith("pytest -n 2")
    assert "<!-- tests -->" in text(".ci/run")


def test_every_case_names_tests_that_exist() -> None:
    for row in text("docs/cases.md").splitlines():
        if not row.startswith("| ") or row.startswith("| kind"):
            continue
        source = ""
        for file, test in re.findall(r"([\w/]+\.py)|::(?:[A-Z]\w*::)?(\w+)", row.rpartition(" | ")[2]):
            source = text(file if file.startswith("benchmarks/") else f"tests/{file}") if file else source
            assert file or f"def {test}(" in source, f"{test}: {row}"
        assert source, row
