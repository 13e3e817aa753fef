"""What the package imports is what it says it needs: the base install, or the extra that is asked for by name."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from edgeprune.core.parts import COMPRESS

_ROOT = Path(__file__).parents[2]
#: Run on devices, by interpreters that have other packages.
_ELSEWHERE = {"probe/probe.py", "deploy/predict.py"}
#: Asked for with a word of its own where it is missing.
_ASKED_FOR = {"optuna"}


def _imported() -> set[str]:
    """Top-level modules of others that the package imports anywhere."""
    found: set[str] = set()
    for path in (_ROOT / "edgeprune").rglob("*.py"):
        if path.relative_to(_ROOT / "edgeprune").as_posix() in _ELSEWHERE:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            found |= {name.partition(".")[0] for name in names}
    return found - sys.stdlib_module_names - {"edgeprune"}


def _named(lines: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[; ]", line)[0].lower().replace("_", "-") for line in lines}


def test_every_import_is_a_dependency() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    base, extra = _named(project["dependencies"]), _named(project["optional-dependencies"]["compress"])
    owners = packages_distributions()
    missing = {}
    for module in _imported() - _ASKED_FOR:
        distributions = {each.lower().replace("_", "-") for each in owners.get(module, [module])}
        allowed = base | (extra if module in COMPRESS else set())
        if not distributions & allowed:
            missing[module] = distributions
    assert not missing
