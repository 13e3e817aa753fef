"""Several arrays as one: whatever handles a tensor (N, K) handles what a network answers with many, or is taught by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Joined:
    """How arrays (N, ...) lie side by side in one (N, K), and how they are taken apart again.

    Example: boxes (N, 4) and scores (N, 3) are (N, 7).
    """

    names: tuple[str, ...]
    #: Of each array without its first axis.
    shapes: tuple[tuple[int, ...], ...]
    #: Whether they came by name; otherwise in order.
    named: bool
    #: Which of them hold integers: they come apart as such.
    integers: tuple[bool, ...]

    @classmethod
    def of(cls, arrays: Mapping[str, Any] | tuple[Any, ...], prefix: str) -> Joined:
        """That of such arrays; those without names are called `prefix` and their number."""
        named = isinstance(arrays, Mapping)
        given = arrays if isinstance(arrays, Mapping) else {f"{prefix}{i}": each for i, each in enumerate(arrays)}
        integers = tuple("int" in str(each.dtype) for each in given.values())
        return cls(tuple(given), tuple(tuple(each.shape[1:]) for each in given.values()), named, integers)

    def split(self, joined: Any) -> Any:
        """The arrays, or tensors, that lie in `joined` (N, K): a mapping by name, or a tuple."""
        parts, start = [], 0
        for shape, whole in zip(self.shapes, self.integers, strict=True):
            stop = start + math.prod(shape)
            part = joined[:, start:stop].reshape(len(joined), *shape)
            if whole:  # a tensor's method, or an array's
                part = part.long() if hasattr(part, "long") else part.astype("int64")
            parts.append(part)
            start = stop
        return dict(zip(self.names, parts, strict=True)) if self.named else tuple(parts)
