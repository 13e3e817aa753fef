"""What the user says of a model's inputs: `--shape`, `--input` and `--signature`, as values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from edgeprune.core.errors import UsageError
from edgeprune.core.reading import reason
from edgeprune.core.units import format_bytes

#: The largest file that gives an input its values.
MAX_INPUT_BYTES = 1 << 30
_SIZES = re.compile(r"[0-9]+(x[0-9]+)*")
#: What stands before a colon and ends so is the name of a model file; names of inputs may hold colons, too.
_MODEL = re.compile(r"(?P<file>.+?\.(?:onnx|tflite|ort)):(?P<rest>.+)", re.IGNORECASE)

#: Sizes of inputs whose axes are open, by the input's name.
Shapes = Mapping[str, tuple[int, ...]]
#: Values of inputs: one as it was written, which fills the whole input, or a .npy file with all of them.
Values = Mapping[str, str | Path]


@dataclass(frozen=True, slots=True)
class GivenInputs:
    """What is known of one file's inputs beside the file itself.

    Example: `--shape ids=1x16 --input sr=16000` -> `GivenInputs({"ids": (1, 16)}, {"sr": "16000"})`.
    """

    shapes: Shapes = field(default_factory=lambda: MappingProxyType({}))
    values: Values = field(default_factory=lambda: MappingProxyType({}))
    #: The signature of a .tflite file that is run; "": its first subgraph.
    signature: str = ""
    #: Names that were given for several files at once: a file without such an input leaves them to the others.
    shared: frozenset[str] = frozenset()


def given_for(
    files: Sequence[Path], shapes: Sequence[str] = (), inputs: Sequence[str] = (), signatures: Sequence[str] = ()
) -> list[GivenInputs]:
    """What the options say of each of `files`.

    shapes      `NAME=1x16`
    inputs      `NAME=VALUE` or `NAME=FILE.npy`
    signatures  `NAME`

    Each may begin with `FILE:` and is then that file's alone. Otherwise it holds for every file; one may lack an input
    of that name where another file has it. Raises UsageError, also for a .npy file that cannot be read.
    """
    found = [GivenInputs() for _ in files]

    def meant(option: str, text: str) -> tuple[list[int], str, bool]:
        """Indices of the files meant, the text without the file's name, whether other files may be meant."""
        named = _named(text, files, option)
        if named is None:
            return list(range(len(files))), text, len({str(file) for file in files}) > 1
        return *named, False

    for text in shapes:
        indices, rest, shared = meant("--shape", text)
        name, sizes = _shape(rest)
        for index in indices:
            each = found[index]
            found[index] = replace(
                each,
                shapes={**each.shapes, name: sizes},
                shared=each.shared | {name} if shared else each.shared - {name},
            )
    for text in inputs:
        indices, rest, shared = meant("--input", text)
        name, value = _value(rest)
        for index in indices:
            each = found[index]
            found[index] = replace(
                each,
                values={**each.values, name: value},
                shared=each.shared | {name} if shared else each.shared - {name},
            )
    for text in signatures:
        indices, rest, _ = meant("--signature", text)
        for index in indices:
            found[index] = replace(found[index], signature=rest)
    for each in found:
        for name in each.shapes.keys() & each.values.keys():
            if isinstance(each.values[name], Path):
                raise UsageError(
                    f"--input {name} and --shape {name} both give sizes",
                    f"leave out --shape {name}: the file has its own",
                )
    return found


def _named(text: str, files: Sequence[Path], option: str) -> tuple[list[int], str] | None:
    """The files that `FILE:rest` means, and the rest; None where the text begins with the name of none."""
    for called in (str, lambda file: file.name):
        indices = [index for index, file in enumerate(files) if text.startswith(f"{called(file)}:")]
        if indices:
            longest = max(len(called(files[index])) for index in indices)
            return [index for index in indices if len(called(files[index])) == longest], text[longest + 1 :]
    match = _MODEL.fullmatch(text)
    if match is not None and "=" not in match["file"]:
        names = ", ".join(sorted({file.name for file in files}))
        raise UsageError(f"{option}: {match['file']} is not among the files", f"name one of them: {names}")
    return None


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    """`"ids=1x16"` -> `("ids", (1, 16))`. Raises UsageError."""
    name, _, written = text.rpartition("=")
    sizes = tuple(int(size) for size in written.split("x")) if _SIZES.fullmatch(written) else ()
    if not name or not sizes or not all(0 < size < 2**31 for size in sizes):
        raise UsageError(f"--shape: expected an input and its sizes, got '{text}'", "write it like ids=1x16")
    return name, sizes


def _value(text: str) -> tuple[str, str | Path]:
    """`"sr=16000"` -> `("sr", "16000")`; `"x=a.npy"` -> `("x", Path("a.npy"))`. Raises UsageError."""
    name, equals, written = text.partition("=")
    if not name or not equals:
        raise UsageError(
            f"--input: expected an input and its value, got '{text}'", "write it like sr=16000 or ids=FILE.npy"
        )
    if not written.lower().endswith(".npy"):
        return name, written
    file = Path(written)
    if not file.is_file():
        raise UsageError(f"--input {name}: there is no file {file}", "give a file that numpy.save wrote")
    if file.stat().st_size > MAX_INPUT_BYTES:
        raise UsageError(
            f"--input {name}: {file} holds {format_bytes(file.stat().st_size)}, expected at most "
            f"{format_bytes(MAX_INPUT_BYTES)}",
            "give a smaller example",
        )
    try:
        # Mapped and not read: only the header and the size are looked at. Objects would need pickle, which runs code.
        np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        # numpy reads the header as Python, and lets through what its tokenizer raises.
        raise UsageError(
            f"--input {name}: {file} is not an array that numpy.save wrote: {reason(error)}",
            "give an array of numbers that numpy.save wrote",
        ) from error
    return name, file
