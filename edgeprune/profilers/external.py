"""The files in which an ONNX model keeps its weights outside itself, as torch.onnx.export does by default."""

from __future__ import annotations

import contextlib
import mmap
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeprune.core.errors import ModelError
from edgeprune.core.reading import Source

#: Every tensor that lies outside the model names this key; a file without these bytes has none.
_KEY = b"location"


def external_files(model: Path) -> dict[str, Path]:
    """The files that hold weights of `model`, by the place beside it where it looks for them.

    Example: `net.onnx` -> `{"net.onnx.data": Path("net.onnx.data")}`. Empty for other formats, and for what cannot be
    read as ONNX: a runtime says what is wrong with it. Raises ModelError where a file is missing, or would lie outside
    the model's folder.
    """
    found: dict[str, Path] = {}
    for location in _locations(model):
        place = posixpath.normpath(location)
        if posixpath.isabs(location) or place.split("/")[0] in ("..", "."):
            raise ModelError(
                f"{model.name} keeps weights in {location!r}, expected a place in its own folder",
                "save it again: onnx.save(onnx.load(FILE), NEW, save_as_external_data=True, location='weights.bin')",
            )
        there = model.parent / place
        if not there.is_file():
            raise ModelError(
                f"{model.name} keeps its weights in {place}, which does not exist beside it",
                f"copy that file to {model.parent}",
            )
        found[place] = there
    return found


def _locations(model: Path) -> list[str]:
    if model.suffix.lower() != ".onnx" or not _mentioned(model):
        return []
    # onnx takes a quarter of a second to import, which a file without such weights should not pay.
    import onnx  # noqa: PLC0415

    with Source(model, ModelError, "export it again").guarded():
        proto = onnx.load(str(model), load_external_data=False)
        return list(dict.fromkeys(_in_message(proto)))


def _mentioned(model: Path) -> bool:
    """Whether the key stands anywhere in the file. One that cannot be read is for whoever copies it to refuse."""
    with contextlib.suppress(OSError), model.open("rb") as stream:
        if stream.seek(0, os.SEEK_END):
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return content.find(_KEY) >= 0
    return False


def _in_message(message: Any) -> Iterator[str]:
    """The places that tensors anywhere in a message name: of weights, constants, bodies of loops, functions."""
    for entry in getattr(message, "external_data", ()):
        if entry.key == "location":
            yield entry.value
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in [value] if hasattr(value, "ListFields") else value:
                yield from _in_message(each)
