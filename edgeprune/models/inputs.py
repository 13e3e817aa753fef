"""Batches of what a network takes: a tensor, or several, which go wherever one does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeprune.core.inputs import INPUT, InputSpec, Shape, fields, plain_shape, records, specs_of


@dataclass(frozen=True, slots=True)
class Several:
    """Inputs of a network that takes more than one: tensors (N, ...) in the order of `forward`, and their names."""

    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: Tensor | slice) -> Several:
        return self.mapped(lambda x: x[index])

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Several:
        """The same with every tensor changed."""
        return Several(self.names, tuple(map(change, self.tensors)))


#: What the one output of a network is called in a file.
OUTPUT = "logits"
#: A batch of inputs (N, ...).
Inputs = Tensor | Several


def ask(network: nn.Module, inputs: Inputs) -> Any:
    """What `network` answers; several outputs (N, ...) side by side, as one tensor (N, K)."""
    answer = network(*tensors_of(inputs))
    outputs = outputs_of(answer)
    if isinstance(answer, Tensor) or not outputs:
        return answer
    return torch.cat([each.reshape(len(each), -1) for each in outputs.values()], 1)


def outputs_of(answer: Any) -> dict[str, Tensor]:
    """The tensors (N, ...) of an answer by the names that they have in a file; {} where it is none of such."""
    if isinstance(answer, Tensor):
        return {OUTPUT: answer}
    if isinstance(answer, Mapping):
        found = {str(name): each for name, each in answer.items()}
    elif isinstance(answer, tuple | list):
        found = {f"output{number}": each for number, each in enumerate(answer)}
    else:
        return {}
    return found if all(isinstance(each, Tensor) and each.ndim for each in found.values()) else {}


def tensors_of(inputs: Inputs) -> tuple[Tensor, ...]:
    """All tensors, in the order in which the network takes them."""
    return inputs.tensors if isinstance(inputs, Several) else (inputs,)


def names_of(inputs: Inputs) -> tuple[str, ...]:
    """Names of the inputs in a file, in the same order."""
    return inputs.names if isinstance(inputs, Several) else (INPUT,)


def only(inputs: Inputs) -> Tensor:
    """The tensor of a network that takes one. Raises ValueError where it takes several."""
    if isinstance(inputs, Several):
        raise ValueError(f"expected one input, got {', '.join(inputs.names)}")
    return inputs


def mapped(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """The same with every tensor changed."""
    return inputs.mapped(change) if isinstance(inputs, Several) else change(inputs)


def cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """The same with real numbers as `dtype`; integers stay."""
    return mapped(inputs, lambda x: x.to(dtype) if x.is_floating_point() else x)


def one_after_the_other(parts: Iterable[Tensor], count: int) -> Tensor:
    """A tensor (count, ...) of parts that are made one by one.

    A part that is kept until the last one is there lies behind the large tensors that made it, and keeps the C library
    from using their memory for the next: answers to a test set would cost as much as a copy of it in float32.
    """
    whole: Tensor | None = None
    done = 0
    for part in parts:
        if whole is None:
            whole = part.new_empty((count, *part.shape[1:]))
        whole[done : done + len(part)] = part
        done += len(part)
    assert whole is not None
    assert done == count
    return whole


def parts_of(inputs: Inputs, size: int) -> Iterator[Inputs]:
    """The batch in parts of `size`; the last may be smaller."""
    return (inputs[start : start + size] for start in range(0, len(inputs), size))


def numel(inputs: Inputs) -> int:
    """Numbers in one example."""
    return sum(each[0].numel() for each in tensors_of(inputs))


def to_numpy(inputs: Inputs) -> NDArray[Any]:
    """As `edgeprune.core.inputs` keeps examples: an array (N, ...), or records (N,)."""
    if isinstance(inputs, Tensor):
        return np.asarray(inputs.numpy())
    return records({name: x.numpy() for name, x in zip(inputs.names, inputs.tensors, strict=True)})


def from_numpy(x: NDArray[Any]) -> Inputs:
    """Back again; numbers keep their types."""
    if x.dtype.names is None:
        return torch.from_numpy(np.ascontiguousarray(x))
    tensors = tuple(torch.from_numpy(np.ascontiguousarray(field)) for field in fields(x).values())
    return Several(x.dtype.names, tensors)


def made(shape: Shape, count: int, draw: Callable[[Sequence[int]], Tensor]) -> Inputs:
    """A batch of `count` inputs of `shape` by `draw`, `torch.zeros` say, which is given each one's sizes (count, ...).

    Integers are drawn from those that may occur: evenly, from a seed of their own.
    """
    if plain_shape(shape) or not shape:
        return draw((count, *plain_shape(shape)))
    generator = torch.Generator().manual_seed(0)

    def one(spec: InputSpec) -> Tensor:
        sizes = (count, *spec.shape)
        if not spec.values:
            return draw(sizes)
        x = torch.randint(0, spec.values, sizes, generator=generator)
        # The largest is always there: a table that is too small for it is found out at once.
        x.view(-1)[0] = spec.values - 1
        return x

    specs = specs_of(shape)
    tensors = tuple(map(one, specs))
    return tensors[0] if specs[0].name == INPUT and len(specs) == 1 else Several(tuple(s.name for s in specs), tensors)
