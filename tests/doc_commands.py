"""The command lines that README and docs show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: What stands for something in running text, and no command has.
STANDS_FOR_SOMETHING = re.compile(r"\.\.\.|[|\[\]]")


def shown() -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """Page and words of each command, and whether it stands in a block, to be typed, or in running text."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = [
            (command, True)
            for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
            for line in block.replace("\\\n", " ").splitlines()
            for command in line.split("&&")
        ]
        without_blocks = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        named = re.findall(r"`((?:edgeprune|python) [^`]*)`", without_blocks)
        for line, block in [*lines, *((" ".join(each.split()), False) for each in named)]:
            words = tuple(shlex.split(line, comments=True))
            if words and not STANDS_FOR_SOMETHING.search(line.partition(" #")[0]):
                yield page.relative_to(ROOT).as_posix(), words, block
