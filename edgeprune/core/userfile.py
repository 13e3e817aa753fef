"""The user's own Python: `FILE.py:FUNCTION`, loaded and called so that its failures read as one line."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from edgeprune.core.errors import UsageError, did_you_mean

_numbers = itertools.count()


def is_user_function(spec: str) -> bool:
    """Whether `spec` is written like FILE.py:FUNCTION (or FILE.py, its function forgotten)."""
    return ".py:" in spec or spec.endswith(".py")


def load_function(spec: str, what: str) -> Callable[..., Any]:
    """The function that `FILE.py:FUNCTION` names; `what` it makes ("model", "data") appears in messages.

    The file runs as a fresh module each time, with its own folder on the import path. Raises UsageError when the file
    is missing or fails (with the line and the exception), or has no such function.
    """
    file, _, name = spec.rpartition(":")
    if not file.endswith(".py") or not name:
        raise UsageError(
            f"{what} '{spec}' names no function", f"write FILE.py:FUNCTION, as in {_file_of(spec)}:make_{what}"
        )
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"{what} file {file} does not exist", f"check the path in '{spec}'")
    module = _run(path, what)
    # Not what the file imported.
    own = [k for k, v in vars(module).items() if callable(v) and getattr(v, "__module__", None) == module.__name__]
    hint = did_you_mean(name, own) if own else f"define it: def {name}(): ..."
    if not hasattr(module, name):
        raise UsageError(f"{what} file {file} has no function '{name}'", hint)
    function = getattr(module, name)
    if not callable(function):
        raise UsageError(f"'{name}' in {what} file {file} is of type {type(function).__name__}, not a function", hint)
    return function  # type: ignore[no-any-return]  # whatever the user wrote, `callable` is all that can be said


def call_user(function: Callable[..., Any], what: str, *args: Any, of: Callable[[], Any] | None = None) -> Any:
    """What the user's `function` returns of `args`; `what` names it in messages (its FILE.py:FUNCTION).

    Or what `of` returns, which runs more of his code: an iterator that the function returned, say.

    Raises UsageError with the line of the user's file and the exception, whatever the function raised.
    """
    # A class or a decorated function has no code of its own, but knows its module.
    path = Path(getattr(sys.modules.get(getattr(function, "__module__", "")), "__file__", None) or "")
    code = getattr(function, "__code__", None)
    try:
        with _on_import_path(path.parent):
            return function(*args) if of is None else of()
    except (Exception, SystemExit) as error:
        # Anything may come from the user's code, sys.exit() included.
        # A call with missing arguments fails before the first line runs: then the `def` is the place.
        where = _where(error, path, code.co_firstlineno if code else None)
        raise UsageError(
            f"{what} fails{where}: {_one_line(error)}",
            "correct the function" + ("" if args or of else "; it is called without arguments"),
        ) from error


class _Uncached(SourceFileLoader):
    """Compiles the source as it is now: no `__pycache__` beside the user's file, and never a stale one."""

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - the loader's interface
        return self.source_to_code(self.get_data(self.path), self.path)


def _run(path: Path, what: str) -> ModuleType:
    name = f"edgeprune_user_{next(_numbers)}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_Uncached(name, str(path)))
    if spec is None or spec.loader is None:
        raise UsageError(f"{what} file {path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look their module up by name.
    sys.modules[name] = module
    try:
        with _on_import_path(path.parent):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UsageError(
            f"{what} file {path.name} fails{_where(error, path)}: {_one_line(error)}", f"correct {path}"
        ) from error
    return module


@contextmanager
def _on_import_path(folder: Path) -> Iterator[None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        # The user's code may have changed the list as well.
        if entry in sys.path:
            sys.path.remove(entry)


def _where(error: BaseException, path: Path, otherwise: int | None = None) -> str:
    """` at FILE.py line N`: the deepest line of the user's file that the error passed."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f" at {path.name} line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = lines[-1] if lines else otherwise
    return f" at {path.name} line {line}" if line else ""


def _one_line(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _file_of(spec: str) -> str:
    return spec.rstrip(":") if spec.rstrip(":").endswith(".py") else "FILE.py"
