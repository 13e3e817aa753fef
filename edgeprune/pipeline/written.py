"""Settings as a TOML file that people edit: every option with its help, most of them commented out."""

from __future__ import annotations

import dataclasses
import textwrap
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from edgeprune.pipeline.config import SECTIONS, RunConfig, make_config

_WIDTH = 100


def config_text(values: Mapping[str, Any], head: str) -> str:
    """A TOML file in which `values` (fields of `RunConfig`) are set, and every other option is there as a comment.

    `head` is the first comment. Raises UsageError where the values make no `RunConfig`.
    """
    make_config(dict(values), "the settings")
    lines = [_comment(head)]
    for section, title in SECTIONS.items():
        lines += ["", "", _comment(f"--- {title}")]
        for field in dataclasses.fields(RunConfig):
            if field.metadata["section"] == section:
                lines += ["", _comment(field.metadata["help"]), _setting(field, values)]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    # What is no letter of a line would end the comment.
    line = " ".join(text.split())
    return textwrap.fill(line, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _setting(field: dataclasses.Field[Any], values: Mapping[str, Any]) -> str:
    if field.name in values:
        return f"{field.name} = {_toml(values[field.name])}"
    if field.default is not None:
        return f"# {field.name} = {_toml(field.default)}"
    kinds = typing.get_args(typing.get_type_hints(RunConfig)[field.name])
    example = {bool: "true", int: "1", float: "1.0"}.get(kinds[0])
    if example is None:
        options = typing.get_args(kinds[0])
        example = _toml(options[0] if options else field.metadata["metavar"])
    return f"# {field.name} = {example}"


def _toml(value: Any) -> str:
    return str(tomlkit.item(str(value) if isinstance(value, Path) else value).as_string())
