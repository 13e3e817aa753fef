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
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

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


class FourAxes(TorchFunctionMode):
    """Attention over sequences without an axis of heads, or with several, which torch's ONNX exporter refuses."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args, strict=False))
        given |= kwargs or {}
        if func is not F.scaled_dot_product_attention or given["query"].ndim in (2, 4):
            return func(*args, **(kwargs or {}))
        lead = given["query"].shape[:-2]
        if (mask := given.get("attn_mask")) is not None and mask.ndim > 2:
            given["attn_mask"] = _four(mask.expand(*lead, *mask.shape[-2:]))
        out = func(**given | {name: _four(given[name]) for name in ("query", "key", "value")})
        return out.reshape(*lead, *out.shape[-2:])


@contextmanager
def open_lengths(network: nn.Module) -> Iterator[None]:
    """`len(x)` in the files of a network's forwards is `x.shape[0]`: Python's own makes a number of the batch."""
    forwards = (vars(each).get("forward") for module in network.modules() for each in type(module).__mro__)
    scopes = {id(scope): scope for each in forwards if (scope := getattr(each, "__globals__", None)) is not None}
    patched = [
        scope for scope in scopes.values() if "len" not in scope and scope["__name__"].partition(".")[0] != "torch"
    ]
    for scope in patched:
        scope["len"] = _length
    try:
        yield
    finally:
        for scope in patched:
            del scope["len"]


def _length(x: Any) -> Any:
    return x.shape[0] if isinstance(x, Tensor) and x.ndim else len(x)


def _four(x: Tensor) -> Tensor:
    """(batch, ..., length, width) with one axis between the batch and the sequence."""
    return x.unsqueeze(1) if x.ndim == 3 else x.flatten(1, -3)


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
