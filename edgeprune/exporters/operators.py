"""What torch knows of its operators, asked once instead of at every export.

`torch.onnx.export` parses the source of five hundred translations each time (1.2 of the 2 seconds that a small network
takes), and both exporters list all operators a few dozen times. Neither changes unless operators are registered.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch

#: By what is registered, and for which opset.
_REGISTRIES: dict[Any, Any] = {}


@contextmanager
def operators_known() -> Iterator[None]:
    """Exports in the block ask for nothing that was answered before; outside of it torch is as it was."""
    # Two seconds to import, which only an export should cost.
    listing = importlib.import_module("torch._export.utils")
    registry = importlib.import_module("torch.onnx._internal.exporter._registration").ONNXRegistry
    with (
        patch.object(registry, "from_torchlib", _remembered(registry.from_torchlib)),
        patch.object(listing, "_materialize_cpp_cia_ops", _once(listing._materialize_cpp_cia_ops)),
    ):
        yield


def _remembered(make: Callable[..., Any]) -> Callable[..., Any]:
    def known(*args: int, **kwargs: int) -> Any:
        key = (len(torch._C._dispatch_get_all_op_names()), args, tuple(kwargs.items()))
        if key not in _REGISTRIES:
            _REGISTRIES.clear()
            _REGISTRIES[key] = make(*args, **kwargs)
        return _REGISTRIES[key]

    return staticmethod(known)  # it is asked of the class and of instances


def _once(work: Callable[[], None]) -> Callable[[], None]:
    done: list[bool] = []

    def first() -> None:
        if not done:
            work()
            done.append(True)

    return first
