"""What a file is, told from its content before anything goes to a device; and the runtime that runs it."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgeprune.core.errors import ModelError, UsageError
from edgeprune.core.reading import Source
from edgeprune.core.runtimes import RUNTIMES, RuntimeName
from edgeprune.core.units import format_bytes

#: The runtime that runs a file, by the end of its name.
_RUNTIMES: Mapping[str, RuntimeName] = MappingProxyType(
    {suffix: row.name for row in RUNTIMES.values() for suffix in row.suffixes}
)
_NAMES = {".onnx": "an ONNX model", ".ort": "a model in ONNX Runtime's own format", ".tflite": "a TFLite model"}
_EXPORT = "export it first: edgeprune run writes .onnx and .tflite"
_CONVERT = "convert it first, to .tflite with tf.lite.TFLiteConverter or to .onnx with tf2onnx"
#: What to do about files of other programs, by the end of their names.
_OTHERS = {".pb": _CONVERT, ".h5": _CONVERT, ".keras": _CONVERT}

_HEAD = 512
_DOWNLOAD = "download the file itself: on GitHub and Hugging Face that is the link that says raw or resolve"
#: First bytes of what people have by mistake: what it is, and what to do.
_MARKS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", "a git-lfs pointer", "type: git lfs pull"),
    (b"PK\x03\x04", "a zip archive, as torch.save writes it too", "unpack it, or export the network in it"),
    (b"\x1f\x8b", "a gzip archive", "unpack it: gunzip FILE"),
    (b"BZh", "a bzip2 archive", "unpack it: bunzip2 FILE"),
    (b"\xfd7zXZ\x00", "an xz archive", "unpack it: unxz FILE"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it", _CONVERT),
    (b"\x93NUMPY", "an array that numpy saved", "give the model"),
    (b"GGUF", "a GGUF file, as llama.cpp reads it", "give a .onnx or .tflite file"),
    (b"\x80\x02", "a Python pickle, as old torch.save wrote it", _EXPORT),
    (b"\x80\x04", "a Python pickle", _EXPORT),
    (b"\x80\x05", "a Python pickle", _EXPORT),
    (b"\x89PNG", "a PNG picture", "give the model"),
    (b"\xff\xd8\xff", "a JPEG picture", "give the model"),
    (b"%PDF", "a PDF document", "give the model"),
    (b"\x7fELF", "a program", "give the model"),
)
#: Fields of ONNX's ModelProto with their wire types; 7 is the graph.
_ONNX_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_GRAPH = 7


def runtime_of(file: Path) -> RuntimeName:
    """The runtime for a file. Raises UsageError where it is no model file, is not there, or holds something else."""
    suffix = file.suffix.lower()
    if not file.is_file():
        raise UsageError(f"model file {file} does not exist", "give a .onnx, .ort or .tflite file")
    if suffix not in _RUNTIMES:
        raise UsageError(f"expected a .onnx, .ort or .tflite file, got {file}", _OTHERS.get(suffix, _EXPORT))
    check_content(file)
    return _RUNTIMES[suffix]


def check_content(file: Path) -> None:
    """Raises ModelError where a file is not what the end of its name says, or is cut off."""
    suffix = file.suffix.lower()
    expected = _NAMES[suffix]
    with Source(file, ModelError, "give a file that can be read").guarded(), file.open("rb") as stream:
        head = stream.read(_HEAD)
        if not head:
            raise ModelError(f"{file.name} is empty, expected {expected}", "download or export it again")
        wrong = _something_else(head)
        if wrong is not None:
            raise ModelError(f"{file.name} is not {expected}: this is {wrong[0]}", wrong[1])
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found, damage = _format(content)
    if found and found != suffix:
        raise ModelError(
            f"{file.name} is not {expected}: this is {_NAMES[found]}",
            f"name it by its content: mv {file.name} {file.stem}{found}",
        )
    if not found:
        raise ModelError(f"{file.name} is not {expected}: {damage}", "download or export it again")
    if damage:
        raise ModelError(f"{file.name} is {expected} that is damaged: {damage}", "download or export it again")


def _something_else(head: bytes) -> tuple[str, str] | None:
    """What a file is that begins like this, and what to do; None where it may be a model."""
    for mark, what, hint in _MARKS:
        if head.startswith(mark):
            return what, hint
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "a web page", _DOWNLOAD
    if start.startswith((b"<?xml", b"<svg")):
        return "an XML document", _DOWNLOAD
    if head[257:262] == b"ustar":
        return "a tar archive", "unpack it: tar xf FILE"
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 30:
        return "a file of weights (safetensors)", "give it to edgeprune run --weights, which exports the network"
    if start[:1] in (b"{", b"[") and head.isascii():
        return "a JSON document", "give the model"
    return None


def _format(content: mmap.mmap) -> tuple[str, str]:
    """The end that the file's name should have, "" where it is none of ours; and what is wrong with it, if anything."""
    if content[4:8] == b"TFL3":
        return ".tflite", _tflite_damage(content)
    if content[4:8] == b"ORTM":
        return ".ort", ""
    return _onnx(content)


def _onnx(content: mmap.mmap) -> tuple[str, str]:
    """Goes over the outermost fields only: what is in them is for the runtime."""
    at, size, seen, known = 0, len(content), set(), True
    while at < size:
        tag, at = _varint(content, at)
        field, wire = tag >> 3, tag & 7
        if wire == 2:
            length, at = _varint(content, at)
            at += length
        elif wire == 0:
            _, at = _varint(content, at)
        else:
            at += {1: 8, 5: 4}.get(wire, size + 1)
        known = known and _ONNX_FIELDS.get(field) == wire
        seen.add(field)
        if at > size:
            break
    if at > size and known:
        more = f", at least {format_bytes(at - size)} are missing" if at - size < 1 << 40 else ""
        return ".onnx", f"it ends after {format_bytes(size)} in the middle of a field{more}"
    if at > size or (not known and _GRAPH not in seen):
        return "", "its content is of no kind that is known here"
    return ".onnx", "" if _GRAPH in seen else "it holds no graph"


def _varint(content: mmap.mmap, at: int) -> tuple[int, int]:
    """A number in seven bits a byte, and where it ends: past the end where it is cut off."""
    value = 0
    for index in range(10):
        if at + index >= len(content):
            return 0, len(content) + 1
        byte = content[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    return 0, len(content) + 1


def _tflite_damage(content: mmap.mmap) -> str:
    """ "" where every constant lies in the file. A runtime that maps a file cut off may crash."""
    # The schema takes a tenth of a second to import, which ONNX files should not pay.
    from ai_edge_litert import schema_py_generated  # noqa: PLC0415

    # It has no types.
    schema: Any = schema_py_generated
    size = len(content)
    try:
        model = schema.Model.GetRootAs(content, 0)
        ends = [0]
        for index in range(model.BuffersLength()):
            buffer = model.Buffers(index)
            if buffer.Offset() > 1:  # constants of files over 2 GB lie behind the table
                ends.append(buffer.Offset() + buffer.Size())
            elif not buffer.DataIsNone():
                table = buffer._tab
                ends.append(table.Vector(table.Offset(4)) + buffer.DataLength())
        for index in range(model.SubgraphsLength()):
            graph = model.Subgraphs(index)
            # Each is read: that fails where the file ends before it.
            for tensor in map(graph.Tensors, range(graph.TensorsLength())):
                tensor.Name()
            for operator in map(graph.Operators, range(graph.OperatorsLength())):
                operator.OpcodeIndex()
    except Exception:  # noqa: BLE001 - a damaged file makes the reader raise anything
        return f"it ends after {format_bytes(size)}, before its tables do"
    if not model.SubgraphsLength():
        return "it holds no graph"
    fits = max(ends) <= size
    return "" if fits else f"it ends after {format_bytes(size)}, its constants after {format_bytes(max(ends))}"
