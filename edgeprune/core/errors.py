"""Every error this package raises on purpose.

    EdgepruneError            something the user can act on; carries a hint: what to type next
    ├── UsageError            the request is wrong: an option, a key, a name (exit 2)
    │   ├── DataError         the data set is missing, truncated or not usable (exit 2)
    │   ├── ModelError        the model or its weights cannot be used (exit 2)
    │   └── NothingToPrune    the model has no layer whose channels can go (exit 2)
    ├── BudgetError           no network this tool may make can meet the budget (exit 3)
    ├── DeviceError           the target device is missing, unreachable or refused the work (exit 4)
    │   └── RuntimeMissing    the device's Python has no such runtime (exit 4)
    ├── StorageError          this machine could not keep the results: disk full, folder not writable (exit 1)
    ├── ExportError           a network could not be exported, or the file computes something else (exit 1)
    ├── UnexpectedError       a bug of ours or of the user's model; the traceback is in the run's log (exit 1)
    └── SurgeryError          a pruned network does not run, or does not equal the masked one (exit 1)

A measurement that failed is not an error: it is a `Failure` value (see `edgeprune.core.measurement`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgepruneError(Exception):
    """Something the user can act on. `message` says what is wrong, `hint` what to type next (may be empty)."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = _at_most(" ".join(message.split()))
        self.hint = " ".join(hint.split())

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


def _at_most(message: str) -> str:
    """A message that repeats what somebody wrote, or a damaged file holds, keeps its beginning and its end."""
    most, end = 1000, 300
    return message if len(message) <= most else f"{message[: most - end]} ... {message[-end:]}"


class UsageError(EdgepruneError):
    """The request is wrong: an option, a key, a name."""

    exit_code = 2


class DataError(UsageError):
    """The data set is missing, truncated or not usable."""


class ModelError(UsageError):
    """The model or its weights cannot be used."""


class NothingToPrune(ModelError):  # noqa: N818 - it reads as the sentence it is
    """The model has no layer whose channels can go."""


class BudgetError(EdgepruneError):
    """No network this tool may make can meet the budget."""

    exit_code = 3


class DeviceError(EdgepruneError):
    """The target device is missing, unreachable or refused the work. `retryable` says whether trying again can help."""

    exit_code = 4

    def __init__(self, message: str, hint: str = "", *, retryable: bool = True) -> None:
        super().__init__(message, hint)
        self.retryable = retryable


class RuntimeMissing(DeviceError):  # noqa: N818 - it reads as the sentence it is
    """The device's Python has no such runtime."""


class StorageError(EdgepruneError):
    """This machine could not keep the results."""


class ExportError(EdgepruneError):
    """A network could not be written as ONNX or TFLite, or the written file computes something else."""


class UnexpectedError(EdgepruneError):
    """A bug of ours or of the user's model; the traceback is in the run's log."""


class SurgeryError(EdgepruneError):
    """A pruned network does not run, or does not equal the masked one."""


def nearest_first(word: str, known: Iterable[str]) -> list[str]:
    """The known words, those that are most like `word` first."""
    return sorted(known, key=lambda each: (-difflib.SequenceMatcher(None, word, each).ratio(), each))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The nearest known word as a hint, or all of them: "minst" of ["mnist"] -> "did you mean 'mnist'?"."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"choose one of: {', '.join(known)}"
