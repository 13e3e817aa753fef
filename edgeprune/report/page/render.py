"""A page as one HTML file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from edgeprune.report.page.finished import Run
from edgeprune.report.page.sections import page_of
from edgeprune.report.page.views import Pill

_STYLES = ("vendor/uPlot.min.css", "page.css")


def render(runs: Sequence[Run]) -> str:
    """The page of some runs. Whatever they hold is escaped, and its content policy runs no script but ours."""
    # A copy of the library comes with its licence.
    scripts = (f"/*\n{_part('vendor/LICENSE-uPlot')}*/\n{_part('vendor/uPlot.iife.min.js')}", _part("page.js"))
    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.tests["pill"] = lambda value: isinstance(value, Pill)
    return environment.get_template("page.html.j2").render(
        page=page_of(runs),
        scripts=scripts,
        styles=[_part(name) for name in _STYLES],
        allowed=" ".join(f"'sha256-{_hash(script)}'" for script in scripts),
    )


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
