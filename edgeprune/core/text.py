"""What others said, made to fit into a message of ours."""

from __future__ import annotations

_GAP = " ... "


def shorten(text: str, most: int) -> str:
    """`text` on one line of at most `most` characters, `most` >= 20.

    What is too long loses its middle: the beginning says what it is about, and the end holds the numbers. A third of
    what is kept is of the beginning.
    """
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    start = (most - len(_GAP)) // 3
    return f"{line[:start]}{_GAP}{line[len(line) - (most - len(_GAP) - start) :]}"


def first_line(error: Exception) -> str:
    """What somebody else's error says, on one short line; its type where it says nothing."""
    return shorten((str(error).strip() or type(error).__name__).splitlines()[0], 160)


def printable(text: str) -> str:
    """`text` with a question mark in place of what would move a terminal's cursor, or end a line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
