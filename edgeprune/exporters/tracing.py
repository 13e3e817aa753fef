"""What torch's ONNX exporter refuses, or makes a number of, while it runs a forward: put otherwise there.

(What litert-torch refuses is put otherwise in the exported graph, see `simplify`.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


@contextmanager
def traceable(network: nn.Module) -> Iterator[None]:
    """Exports of `network` in the block keep their batch open, and know attention of any number of axes.

    An optional package orders products of three and more factors by their sizes, which makes a number of the batch;
    without it torch goes from left to right.
    """
    with torch.backends.opt_einsum.flags(enabled=False), _FourAxes(), _open_lengths(network):
        yield


class _FourAxes(TorchFunctionMode):
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
def _open_lengths(network: nn.Module) -> Iterator[None]:
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
