"""Tables and lines as text, and as HTML for notebooks, where there is no terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

#: Wide enough for every table.
_COLUMNS = 100
_HTML = '<pre style="line-height: normal; font-family: monospace">{code}</pre>'


def as_text(tables: Sequence[Table], lines: Sequence[str] = ()) -> str:
    """Tables, then lines, without colours."""
    console = Console(file=io.StringIO(), width=_COLUMNS, highlight=False, markup=False)
    _print(console, tables, lines)
    found = console.file
    assert isinstance(found, io.StringIO)
    return "\n".join(line.rstrip() for line in found.getvalue().rstrip().splitlines())


def as_html(tables: Sequence[Table], lines: Sequence[str] = ()) -> str:
    """The same as a piece of HTML; what the texts hold is escaped."""
    console = Console(file=io.StringIO(), width=_COLUMNS, highlight=False, markup=False, record=True)
    _print(console, tables, lines)
    return console.export_html(code_format=_HTML, inline_styles=True)


def _print(console: Console, tables: Sequence[Table], lines: Sequence[str]) -> None:
    for table in tables:
        console.print(table)
    for line in lines:
        console.print(line, soft_wrap=True)
