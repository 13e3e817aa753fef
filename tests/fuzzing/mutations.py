"""Small damage to files, all of it drawn from one generator: flips, cuts, splices, and values that cannot be."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import sqlite3
import tempfile
import zipfile
from pathlib import Path
from random import Random
from typing import Any

LEAVES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 1.5, -0.0, 2**63, -(2**63), 10**40, 10**400, 1e308, 5e-324),
    *(float("nan"), float("inf"), float("-inf"), "", "x", "\0", "é" * 300, "1e999", [], {}, [[]], [1], {"": 0}),
)
_TEXT = (".json", ".toml")


def mutate(name: str, data: bytes, draw: Random) -> bytes:
    """`data` of the file `name`, damaged."""
    kind = draw.random()
    suffix = Path(name).suffix.lower()
    if suffix == ".json" and kind < 0.6:
        return _json(data, draw)
    if suffix in _TEXT and kind < 0.8:
        return _text(data, draw)
    if suffix in (".zip", ".npz", ".pt") and kind < 0.5:
        return _zip(data, draw)
    if suffix == ".gz" and kind < 0.5:
        return gzip.compress(_bytes(gzip.decompress(data), draw), 1)
    if suffix == ".sqlite" and kind < 0.6:
        return _sqlite(data, draw)
    return _bytes(data, draw)


def _bytes(data: bytes, draw: Random) -> bytes:
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        if not out:
            return bytes(draw.randrange(256) for _ in range(draw.randrange(20)))
        at, kind = draw.randrange(len(out)), draw.random()
        length = min(len(out) - at, draw.choice((1, 2, 4, 8, 64, 512)))
        if kind < 0.35:
            out[at] ^= 1 << draw.randrange(8)
        elif kind < 0.55:
            out[at : at + length] = draw.choice((b"\0", b"\xff", b"\x7f")) * length
        elif kind < 0.65:
            del out[at:]
        elif kind < 0.75:
            del out[at : at + length]
        elif kind < 0.9:
            to = draw.randrange(len(out))
            out[to:to] = out[at : at + length]
        else:
            out[at:at] = bytes(draw.randrange(256) for _ in range(length))
    return bytes(out)


def _json(data: bytes, draw: Random) -> bytes:
    """One to three places of the tree hold something else, or are gone."""
    tree = json.loads(data)
    for _ in range(draw.choice((1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            break
        holder, key = draw.choice(places)
        if isinstance(holder, dict) and draw.random() < 0.3:
            del holder[key]
        elif draw.random() < 0.05:
            # The last change: walking such a tree is more than Python does.
            holder[key] = _nested(draw.choice((50, 200)))
            break
        else:
            holder[key] = draw.choice(LEAVES)
    return json.dumps(draw.choice(LEAVES) if draw.random() < 0.03 else tree).encode()


def _nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def _places(tree: Any) -> Any:
    for key, value in list(
        tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    ):
        yield tree, key
        yield from _places(value)


def _text(data: bytes, draw: Random) -> bytes:
    text = data.decode()
    numbers = list(re.finditer(r"-?[0-9][0-9.e+-]*", text))
    kind = draw.random()
    if numbers and kind < 0.4:
        found = draw.choice(numbers)
        value = draw.choice(("9" * 5000, "0x" + "f" * 5000, "1e999", "nan", "-inf", "-1", "1" * 25, "1979-99-99", '""'))
        return (text[: found.start()] + value + text[found.end() :]).encode()
    at = draw.randrange(len(text) + 1)
    depth = draw.choice((30, 500, 20_000))
    if kind < 0.55:
        return (text[:at] + draw.choice(("[", "{", '{"a":', "[[")) * depth + text[at:]).encode()
    if kind < 0.65:
        return (text + "\n" + ".".join("a" * draw.choice((60, 2000))) + " = 1\n").encode()
    return _bytes(data, draw)


def _zip(data: bytes, draw: Random) -> bytes:
    """One member is damaged, and its checksum is right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w") as made:
        names = archive.namelist()
        chosen = draw.choice(names)
        for name in names:
            content = archive.read(name)
            made.writestr(name, mutate(name, content, draw) if name == chosen else content)
    return out.getvalue()


def _sqlite(data: bytes, draw: Random) -> bytes:
    """One column of a table holds something else, or a table is another."""
    with tempfile.NamedTemporaryFile(suffix=".sqlite") as file:
        Path(file.name).write_bytes(data)
        base = sqlite3.connect(file.name, isolation_level=None)
        base.execute("PRAGMA journal_mode = OFF")
        base.execute("PRAGMA synchronous = OFF")
        table = draw.choice([name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")])
        columns = base.execute(f"PRAGMA table_info({table})").fetchall()
        column = draw.choice(columns)[1]
        kind = draw.random()
        if kind < 0.05:
            base.execute(f"DROP TABLE {table}")
        elif kind < 0.1:
            base.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO other")
        elif kind < 0.15:
            base.execute(f"PRAGMA user_version = {draw.choice((0, 2, 99, -1))}")
        else:
            (old,) = base.execute(f"SELECT {column} FROM {table} LIMIT 1").fetchone()
            if isinstance(old, str) and old[:1] in "[{" and draw.random() < 0.7:
                value: Any = mutate("x.json", old.encode(), draw)
                value = value.decode(errors="replace") if draw.random() < 0.8 else value
            else:
                value = draw.choice((None, -1, 0, 2**62, 1e308, float("inf"), "", "x", "[", b"\xff\x00", "9" * 5000))
            # A primary key takes whole numbers only.
            with contextlib.suppress(sqlite3.IntegrityError):
                base.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", (value,))
        base.close()
        return Path(file.name).read_bytes()
