"""The work of single operations: multiply-accumulates of every aten operation that multiplies and adds up.

torch's own table of flop formulas, halved, and what it leaves out. By the field's convention only products count:
pooling, norms, activations, look-ups, interpolation and element-wise arithmetic have none. A padded position of a
convolution and a masked score of attention count like others: the runtimes compute them all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    # Every head has (L, S) scores of E products each, and L means of S rows of Ev numbers.
    return query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _recurrent(x: Tensor, to_gates: Tensor, from_hidden: Tensor, *_: Any, **__: Any) -> int:
    # oneDNN runs one layer and direction over a whole sequence (T, N, features) as a single operation.
    return x.shape[:2].numel() * (to_gates.numel() + from_hidden.numel())


def _trilinear(one: Tensor, two: Tensor, three: Tensor, *expand: Sequence[int], **_: Any) -> int:
    # A bilinear layer: each of its weights is used once for an input.
    shapes = []
    for tensor, dims in zip((one, two, three), expand[:3], strict=True):
        shapes.append(list(tensor.shape))
        for dim in sorted(dims):
            shapes[-1].insert(dim, 1)
    broadcast: torch.Size = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    return broadcast.numel()


#: What torch's table leaves out, by name; arguments are the operation's own.
_OURS: Mapping[str, Callable[..., int]] = {
    "mv": lambda matrix, _: matrix.numel(),
    "addmv": lambda _, matrix, __, **___: matrix.numel(),
    "dot": lambda one, _: one.numel(),
    "vdot": lambda one, _: one.numel(),
    "addbmm": lambda _, one, two, **__: one.numel() * two.shape[-1],
    "_addmm_activation": lambda _, one, two, **__: one.numel() * two.shape[-1],
    "_cdist_forward": lambda one, two, *_: one.numel() * two.shape[-2],
    "_trilinear": _trilinear,
    "mkldnn_rnn_layer": _recurrent,
}
#: Where the factors of a product of matrices stand among its arguments.
_FACTORS: Mapping[str, tuple[int, int]] = {
    "mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "addmm": (1, 2), "_addmm_activation": (1, 2), "baddbmm": (1, 2),
    "addbmm": (1, 2), "addmv": (1, 2),
}  # fmt: skip
#: Words in the names of operations that multiply matrices or do worse.
_HEAVY = frozenset(
    (
        "mm", "addmm", "bmm", "mv", "dot", "conv", "conv1d", "conv2d", "conv3d", "convolution", "linear", "rnn", "lstm",
        "gru", "attention", "transformer", "fft", "linalg", "cdist", "pdist", "solve", "cholesky", "svd", "qr", "lu",
        "eig", "eigh", "inverse", "det", "matrix",
    )
)  # fmt: skip
#: Operations that are cheap although their names hold such a word.
_LIGHT = frozenset(("linalg_vector_norm", "_linalg_check_errors", "linalg_cross", "linalg__powsum", "lu_unpack"))
_LIBRARIES = frozenset(("aten", "prim", "prims"))


def name_of(operation: OpOverload) -> str:
    """An operation's name without library and overload, in-place variants like the others: `addmm`."""
    return operation._schema.name.rpartition("::")[2].rstrip("_")


def macs_of(operation: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int | None:
    """Multiply-accumulates of one call, 0 where it multiplies nothing; None where it is heavy and its work unknown.

    Fourier transforms, solvers and decompositions, sparse and quantized products, and kernels of other libraries than
    torch's own have no formula here.
    """
    name = name_of(operation)
    if name in _OURS:
        return _OURS[name](*args, **kwargs)
    if name.startswith("_scaled_dot_product") and isinstance(args[0], Tensor):
        return _attention(*args)
    formula = flop_registry.get(operation.overloadpacket) or flop_registry.get(getattr(torch.ops.aten, name, None))
    if formula is not None and operation.namespace == "aten":
        return int(formula(*args, **kwargs, out_val=out)) // 2
    heavy = operation.namespace not in _LIBRARIES or not _HEAVY.isdisjoint(name.split("_"))
    return None if heavy and name not in _LIGHT else 0


def outputs_of(
    operation: OpOverload, args: tuple[Any, ...], is_weight: Callable[[Any], bool]
) -> tuple[Tensor, int] | None:
    """The weight that a product multiplies its input by, and how many outputs it makes of it: a layer's neurons.

    None where there is no weight among the factors, or nothing else.
    """
    name = name_of(operation)
    if name == "convolution" and is_weight(args[1]):
        weight, transposed, groups = args[1], args[6], args[8]
        return weight, weight.shape[1] * groups if transposed else weight.shape[0]
    if name == "_trilinear" and is_weight(args[1]):
        return args[1], args[1].shape[0]
    if name == "mkldnn_rnn_layer" and is_weight(args[1]):
        return args[1], args[2].shape[1]
    if name not in _FACTORS:
        return None
    one, two = (args[place] for place in _FACTORS[name])
    if is_weight(one) == is_weight(two):
        return None
    weight, inner = (one if is_weight(one) else two), one.shape[-1]
    # A weight that is the same for the whole batch has been expanded: it counts once.
    size = torch.Size(n for n, stride in zip(weight.shape, weight.stride(), strict=True) if stride or n == 1).numel()
    return weight, size // max(1, inner)
