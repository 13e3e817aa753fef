"""Third-party converters print, log and warn, down to C++ on file descriptor 2. Here that ends in a temporary file."""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeprune.core.errors import EdgepruneError, ExportError
from edgeprune.core.files import storing
from edgeprune.core.text import shorten

#: File descriptors belong to the process, so one conversion at a time.
_LOCK = threading.RLock()
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
#: How the converters name an operator, and the line that calls it, below the first line of what they say.
_OVERLOAD = re.compile(r"<OpOverload\(op='([\w.:]+)', overload='(\w+)'\)>")
_TARGET = re.compile(r"^While executing .*call_function\[target=torch\.ops\.([\w.]+)\]", re.MULTILINE)
_FRAME = re.compile(r"^File \"([^\"]+)\", line (\d+), in forward$", re.MULTILINE)
#: How much of a failed converter's output is worth keeping.
_NOTE_BYTES = 8000


@contextmanager
def converting(what: str) -> Iterator[None]:
    """Silence the block at file-descriptor level; any failure in it becomes an ExportError that starts with `what`.

    The message is one line, the first of the innermost cause; what the converter printed is attached as the error's
    note. Whatever other threads print meanwhile is swallowed too. Raises StorageError where the temporary disk is full.
    """
    with _LOCK, storing(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as log:
        try:
            with _redirected(log.fileno()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except EdgepruneError:
            raise
        except Exception as error:  # exporters, and the user's forward inside them, may raise anything
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            failure = ExportError(f"{what}: {first_line(error)}")
            log.seek(max(0, log.seek(0, os.SEEK_END) - _NOTE_BYTES))
            failure.add_note(log.read().decode(errors="replace"))
            raise failure from error


def first_line(error: BaseException) -> str:
    """What an exception's innermost cause says in its first line, without colours, at most 200 characters.

    Where the lines below name the operator that could not be converted, and the line that calls it, these follow.
    """
    seen = {id(error)}
    while error.__cause__ is not None and id(error.__cause__) not in seen:
        error = error.__cause__
        seen.add(id(error))
    said = _OVERLOAD.sub(r"\1.\2", _ANSI.sub("", str(error)))
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    target = _TARGET.search(said)
    frames = [(file, line) for file, line in _FRAME.findall(said) if "/site-packages/" not in file]
    where = [f"at {target[1]}"] if target is not None and target[1] not in first else []
    if frames:
        file, line = frames[-1]
        where.append(f"{Path(file).name} line {line}")
    return shorten(f"{first} ({', '.join(where)})" if where else first, 200)


@contextmanager
def _redirected(target: int) -> Iterator[None]:
    """Standard output and error of the whole process, C++ included, into the open file `target`."""
    # sys.stdout itself stays: a module imported meanwhile may keep it, and it must not be a file that closes.
    _flush()
    saved: dict[int, int] = {}
    try:
        for descriptor in (1, 2):
            try:
                saved[descriptor] = os.dup(descriptor)
            except OSError:  # closed, as in a daemon: nothing to guard
                continue
            os.dup2(target, descriptor)
        yield
    finally:
        _flush()
        for descriptor, copy in saved.items():
            os.dup2(copy, descriptor)
            os.close(copy)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
