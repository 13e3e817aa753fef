"""Every command line that README and docs show: as it stands there it is taken."""

from __future__ import annotations

import ast
import shlex

import click
import pytest
from click.core import ParameterSource
from doc_commands import ROOT, shown

from edgeprune.cli.main import cli
from edgeprune.pipeline.config import RunConfig, make_config

OURS = sorted({(page, words[1:], block) for page, words, block in shown() if words[0].endswith("edgeprune")})
BENCHMARKS = sorted(
    {(page, words[1:]) for page, words, _ in shown() if words[0] == "python" and "benchmarks" in " ".join(words)}
)


def context_of(words: tuple[str, ...], *, whole: bool) -> click.Context | None:
    """The command with its parsed parameters. Raises ClickException where it would not be taken.

    Of a command that is not `whole`, as running text names one, only names and options must be right.
    """
    command: click.Command = cli
    context: click.Context | None = None
    name: str | None = "edgeprune"
    rest = list(words)
    while isinstance(command, click.Group):
        if not rest and not whole:
            return None
        context = command.make_context(name, rest, parent=context)
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command = found
    try:
        return command.make_context(name, rest, parent=context)
    except (click.MissingParameter, click.BadOptionUsage):
        if whole:
            raise
        options = {each for parameter in command.params for each in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in rest if word.startswith("--")} <= options
        return None


@pytest.mark.parametrize(("page", "words", "whole"), OURS, ids=[f"{each[0]}: {' '.join(each[1])}" for each in OURS])
def test_every_command_is_taken_as_it_stands(page: str, words: tuple[str, ...], whole: bool) -> None:
    try:
        context = context_of(words, whole=whole)
    except click.ClickException as error:
        pytest.fail(f"{page}: edgeprune {shlex.join(words)}: {error.format_message()}")
    if context is not None and context.command.name == "run":
        fields = RunConfig.__dataclass_fields__
        typed = {
            name: value
            for name, value in context.params.items()
            if name in fields and context.get_parameter_source(name) == ParameterSource.COMMANDLINE
        }
        make_config(typed, page)


def test_there_are_commands_to_look_at() -> None:
    names = {words[0] for _, words, _ in OURS if words}
    assert len(OURS) > 80
    assert names >= {"run", "profile", "validate", "compare", "bundle", "deploy", "report", "runs", "devices"}


@pytest.mark.parametrize(("page", "words"), BENCHMARKS, ids=[" ".join(words) for _, words in BENCHMARKS])
def test_every_benchmark_has_the_options_that_a_page_shows(page: str, words: tuple[str, ...]) -> None:
    name = words[1] if words[0] == "-m" else words[0].removesuffix(".py").replace("/", ".")
    file = ROOT / (name.replace(".", "/") + ".py")
    assert file.exists(), f"{page} shows {name}, which is not there"
    texts = {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}
    assert {word for word in words if word.startswith("--")} <= texts, page
