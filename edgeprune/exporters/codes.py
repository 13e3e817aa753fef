"""Numbers that tell parameters apart: which element of which parameter a constant of an exported file is.

Every float parameter element of a network gets its own value. A converter may transpose, reshape or rename tensors, but
it copies values, so afterwards each constant says element by element where it came from. At most it adds the same small
number to a whole tensor (the 3 of a hard sigmoid to the bias before it), which the gaps between tensors give away.
Removing channels removes codes; what is left of a constant must be an outer product of kept indices, and is filled with
real weights by code.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeprune.core.errors import ExportError

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

#: Bit pattern of code 0, the float 8388608: a bound of ReLU6 or a 1/64 can then never be mistaken for a code.
_BASE = 0x4B000000
#: More parameters than this cannot be templated: a candidate would no longer be a matter of milliseconds.
MAX_CODES = 1 << 24
#: Codes between two tensors that are nobody's: what a converter may add at most.
_GAP = 8


class TemplateError(ExportError):
    """This network cannot be sliced from an exported template; a real export may still work."""


def assign_codes(network: nn.Module, plain: Collection[str] = ()) -> Codes:
    """Overwrite float parameters and buffers with distinct codes; returns who has which. Raises TemplateError.

    Those that are named in `plain` stay what they are: zeros and ones that a converter takes out.
    """
    stored = set(network.state_dict(keep_vars=True))
    named = [*network.named_parameters(), *network.named_buffers()]
    tensors = [tensor for name, tensor in named if name in stored - {*plain} and tensor.is_floating_point()]
    total = sum(tensor.numel() for tensor in tensors)
    if total > MAX_CODES:
        raise TemplateError(f"cannot slice: {total} parameters are more than {MAX_CODES}")
    start, starts = 0, []
    for tensor in tensors:
        starts.append(start)
        start += tensor.numel() + _GAP
    for first, tensor in zip(starts, tensors, strict=True):
        if tensor.dtype != torch.float32:
            raise TemplateError(f"cannot slice: parameters are {tensor.dtype}, not float32")
        bits = np.arange(_BASE + first, _BASE + first + tensor.numel(), dtype=np.uint32)
        tensor.data = torch.from_numpy(bits.view(np.float32)).reshape(tensor.shape)
    return Codes(np.array(starts, np.int64), start, frozenset(plain))


@dataclass(frozen=True, slots=True)
class Codes:
    """Where the codes of each tensor start, ascending; all codes are below `total`."""

    starts: Ints
    total: int
    #: Names of the tensors that have none.
    plain: frozenset[str] = frozenset()

    def shift(self, codes: Ints) -> int:
        """What was added to the codes of one whole tensor; 0 where they are of several."""
        number = int(np.searchsorted(self.starts, codes.min(), side="right")) - 1
        end = self.starts[number + 1] if number + 1 < len(self.starts) else self.total
        added = int(codes.min() - self.starts[number])
        # Of a whole tensor the last code lies as far from the next tensor as the first from its own start.
        return added if 0 < added < _GAP and codes.max() == end - _GAP + added - 1 else 0


def decode(array: Floats) -> Ints:
    """Code of every element, same shape; what is none comes out negative or too large."""
    return np.ascontiguousarray(array).view(np.uint32).astype(np.int64) - _BASE


@dataclass(frozen=True, slots=True)
class Gather:
    """An input gather in the template: a constant of feature indices, recognised by a shuffled order.

    | array | shape | |
    |---|---|---|
    | `label` | (k,) | the indices the template was exported with: the features in an order nothing else has |
    | `features` | (k,) | the indices it shall have: the features in the order of the weight's columns |
    | `columns` | (out, k) | codes of the weight that reads them |
    """

    label: Ints
    features: Ints
    columns: Ints

    def cut(self, lookup: Lookup) -> Ints:
        """The features whose weight columns are left."""
        return self.features[lookup.present[self.columns].any(axis=0)]


@dataclass(frozen=True, slots=True)
class Coded:
    """A float constant of the template: the codes of its elements, and what the converter added to all of them."""

    codes: Ints
    added: int = 0

    def is_gone(self, lookup: Lookup) -> bool:
        """Whether a candidate has nothing of it."""
        return not lookup.present[self.codes].any()

    def cut(self, lookup: Lookup) -> Floats:
        """What a candidate has there. Raises TemplateError."""
        values = lookup.cut(self.codes)
        return values + np.float32(self.added) if self.added else values


@dataclass(slots=True)
class Atlas:
    """Sorts a template's constants: float ones made of codes, index ones that are a gather's, and the rest."""

    known: Codes
    gathers: list[Gather]
    _seen: NDArray[np.bool_] = field(init=False)
    _found: list[int] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._seen = np.zeros(self.known.total, dtype=np.bool_)

    def coded(self, array: Floats) -> Coded | None:
        """What a float constant was made of, None where it is an ordinary one. Raises TemplateError for a mixture."""
        codes = decode(array)
        inside = (codes >= 0) & (codes < self.known.total)
        if not inside.any():
            return None
        if not inside.all():
            raise TemplateError("cannot slice: the converter mixed parameters with other numbers")
        added = self.known.shift(codes)
        self._seen[codes - added] = True
        return Coded(codes - added, added)

    def gather(self, array: NDArray[np.integer]) -> Gather | None:
        """The gather whose index constant this is."""
        for number, gather in enumerate(self.gathers):
            if np.array_equal(array.ravel(), gather.label):
                self._found.append(number)
                return gather
        return None

    def missing(self, network: nn.Module) -> list[str]:
        """Names of the coded `network`'s tensors that are not in the file: dropped, or arithmetic was done on them.

        Raises TemplateError where a part of one is missing, or a gather.
        """
        found = []
        for name, tensor in network.state_dict().items():
            if name in self.known.plain or not tensor.is_floating_point():
                continue
            seen = self._seen[decode(tensor.numpy())]
            if not seen.any():
                found.append(name)
            elif not seen.all():
                raise TemplateError(f"cannot slice: the converter does arithmetic on '{name}'")
        if sorted(set(self._found)) != list(range(len(self.gathers))):
            raise TemplateError("cannot slice: the converter rewrote the input gather")
        return found


class Lookup:
    """Code to value of one candidate. `present[code]`: whether that parameter element is still there."""

    def __init__(self, known: Codes, coded: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
        """From two state dicts of the same surgery, one on the coded network. Raises TemplateError if they differ."""
        total = known.total
        self.present = np.zeros(total, dtype=np.bool_)
        self._values = np.zeros(total, dtype=np.float32)
        for name, tensor in coded.items():
            if name in known.plain or not tensor.is_floating_point():
                continue
            value = values.get(name)
            if value is None or value.shape != tensor.shape:
                raise TemplateError(f"cannot slice: '{name}' of the coded network has no like in the pruned one")
            codes = decode(tensor.detach().numpy())
            if codes.size == 0 or codes.min() < 0 or codes.max() >= total:
                raise TemplateError(f"cannot slice: the surgery emptied or rewrote '{name}'")
            self.present[codes] = True
            self._values[codes] = value.detach().cpu().float().numpy()

    def cut(self, codes: Ints) -> Floats:
        """The constant with these codes as the candidate has it: removed slices gone, values filled in."""
        mask = self.present[codes]
        if mask.all():
            return self._values[codes]
        axes = range(mask.ndim)
        kept = [np.flatnonzero(mask.any(axis=tuple(a for a in axes if a != axis))) for axis in axes]
        if not np.prod([len(indices) for indices in kept]) == np.count_nonzero(mask) != 0:
            raise TemplateError("cannot slice: what is kept of a constant is not made of whole channels")
        return self._values[codes[np.ix_(*kept)]]


#: Of every place where channels are padded, in order: how many are put before and after them, and how many are left.
Padded = Sequence[tuple[tuple[int, int], tuple[int, int]]]


def check_padded(found: Sequence[tuple[int, int]], padded: Padded) -> list[tuple[int, int]]:
    """What is left of each of a file's paddings of channels. Raises TemplateError where the network has others."""
    if not padded:
        return [*found]
    if [whole for whole, _ in padded] != [*found]:
        raise TemplateError("cannot slice: the file pads channels elsewhere than the network does")
    return [left for _, left in padded]
