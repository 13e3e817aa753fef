"""Labels pass from arguments to results under every operation that torch carries out (ATen, below autograd).

An axis of n places carries n labels, or none where it can never be narrowed (the batch, places of an image, time). A
label is an atom: one row or column of one parameter, or a place that was padded. What an operation aligns becomes one
channel: the rows of a weight and the entries of its bias, two summands, the channels of an activation and the columns
that read them. What must stay is held, with the reason.
"""

from __future__ import annotations

import contextlib
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgeprune.models.inputs import ask
from edgeprune.pruning.axes.labels import FREE, RIGID, Axis, Call, Labelled, Role, Side

#: Why channels stay: those of the network's answer; beside such; where one of them is asked for.
OUTPUT = "it is the network's output"
MEETS, PICKED = "it meets what stays", "it is picked by its number"
#: What an operation does to labels: called with the tracker, the results and the arguments.
Rule = Callable[..., None]


class Tracker(TorchDispatchMode):
    """Labels of all tensors that a network met while this mode was on, by `rules` for operations' names."""

    def __init__(self, network: nn.Module, rules: Mapping[str, Rule], heads: frozenset[int] = frozenset()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rules, self._heads = rules, heads
        self._atoms = 0
        self._sides: list[Side | None] = []
        self._starts: list[int] = []
        self._asked: list[NDArray[np.int64]] = []
        self._pairs: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self._held: list[tuple[NDArray[np.int64], str]] = []
        self._roles: dict[Side, set[Role]] = {}
        self._running: list[str] = []
        self._calls: list[Call] = []
        #: Labels that reshapes carried on where they split an axis, by how many operations came before; and those that
        #: were summed over after that.
        self._splits: dict[int, NDArray[np.int64]] = {}
        self._contracted: list[NDArray[np.int64]] = []
        self.looks_at_all = False
        self._operations = 0
        #: By the tensor's identity; tensors are kept, so that no other gets it.
        self._labels: dict[int, tuple[Axis, ...]] = {}
        self._kept: list[Tensor] = []
        self._own: dict[str, tuple[Axis, ...]] = {}
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            self._own[name] = tuple(self._of_side(Side(name, axis), size) for axis, size in enumerate(tensor.shape))
            self.set(tensor, self._own[name])

    # Atoms

    def fresh(self, size: int) -> NDArray[np.int64]:
        """New labels, of places that no parameter makes."""
        self._asked.append(self._new(None, size))
        return self._asked[-1]

    def _new(self, side: Side | None, size: int) -> NDArray[np.int64]:
        self._sides.append(side)
        self._starts.append(self._atoms)
        self._atoms += size
        return np.arange(self._atoms - size, self._atoms)

    def _of_side(self, side: Side, size: int) -> Axis:
        return None if size < 2 else self._new(side, size)

    def side(self, atom: int) -> Side | None:
        """Where a label comes from."""
        return self._sides[bisect_right(self._starts, atom) - 1]

    def is_made(self, axis: Axis) -> bool:
        """Whether parameters make what lies there."""
        return axis is not None and any(self.side(atom) is not None for atom in axis[axis >= 0][:1].tolist())

    def join(self, one: NDArray[np.int64], two: NDArray[np.int64]) -> None:
        """Labels that go together, pair by pair, where both are there."""
        both = (one >= 0) & (two >= 0) & (one != two)
        if both.any():
            self._pairs.append((one[both], two[both]))

    def hold(self, axis: Axis, why: str) -> None:
        """These labels stay; the first reason is kept."""
        if axis is not None and (axis >= 0).any():
            self._held.append((axis[axis >= 0], why))

    def same(self, one: Axis, two: Axis, why: str) -> Axis:
        """Two axes that lie on each other; a label on a rigid place is held."""
        if one is None and two is None:
            return None
        size = len(one) if one is not None else len(two)  # type: ignore[arg-type]  # one of them is there
        a = np.full(size, RIGID) if one is None else one
        b = np.full(size, RIGID) if two is None else two
        self.join(a, b)
        self.hold(a[b == RIGID], why)
        self.hold(b[a == RIGID], why)
        found = np.where(a >= 0, a, b)
        found[(a == RIGID) | (b == RIGID)] = RIGID
        return None if (found == RIGID).all() else found

    def alike(self, table: NDArray[np.int64]) -> NDArray[np.int64]:
        """One row for (rows, n) labels, all rows of which go together; rigid where any is."""
        first = table[(table >= 0).argmax(0), np.arange(table.shape[1])]
        self.join(np.broadcast_to(first, table.shape).ravel(), table.ravel())
        rigid = (table == RIGID).any(0)
        self.hold(table[:, rigid].ravel(), self.here("a reshape mixes it with what stays"))
        return np.where(rigid, RIGID, first)

    # Tensors

    def set(self, tensor: Tensor, labels: Sequence[Axis]) -> None:
        """A tensor's axes have these labels."""
        self._labels[id(tensor)] = tuple(labels)
        self._kept.append(tensor)

    def of(self, tensor: Tensor) -> tuple[Axis, ...]:
        """The labels of a tensor's axes."""
        return self._labels.get(id(tensor), (None,) * tensor.ndim)

    def role(self, axis: Axis, role: Role) -> None:
        """What is done with the side that labels come from."""
        for atom in () if axis is None else axis[axis >= 0][:1].tolist():
            if (side := self.side(atom)) is not None:
                self._roles.setdefault(side, set()).add(role)

    def hold_all(self, tensor: Tensor, why: str) -> None:
        """Nothing that is labelled in it may go."""
        for axis in self.of(tensor):
            self.hold(axis, why)

    def hold_output(self, tensor: Tensor) -> None:
        """What the network answers stays, whatever else speaks against it."""
        for axis in self.of(tensor):
            if axis is not None and (axis >= 0).any():
                self._held.insert(0, (axis[axis >= 0], OUTPUT))

    def contracted(self, axis: Axis) -> None:
        """Two activations were multiplied and summed over these labels, as queries and keys are."""
        if axis is not None and (axis >= 0).any():
            self._contracted.append(axis[axis >= 0])

    def goes_as_heads(self) -> bool:
        """Whether the present reshape splits an axis in heads, which go as wholes: the outer of two carries labels."""
        return self._operations in self._heads

    def split(self, labels: NDArray[np.int64]) -> None:
        """The present reshape splits an axis, and these labels are carried on."""
        self._splits[self._operations] = labels[labels >= 0]

    def note(self, call: Call) -> None:
        """The network's forward made a call with numbers."""
        self._calls.append(call)

    # Modules

    @contextmanager
    def inside(self, network: nn.Module) -> Iterator[None]:
        """While it lasts the module that runs is known."""
        hooks = []
        for name, module in network.named_modules():

            def begin(_: nn.Module, __: object, name: str = name) -> None:
                self._running.append(name)

            def end(_: nn.Module, __: object, ___: object) -> None:
                self._running.pop()

            hooks += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def here(self, why: str) -> str:
        """A reason with the module that runs, and the line of the user's code."""
        module = f", in {self._running[-1]}" if self._running and self._running[-1] else ""
        line = _users_line()
        return f"{why}{module}{f' ({line})' if line else ''}"

    # Operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.follow(func, out, args, kwargs)
        return out

    def follow(self, func: Any, out: Any, args: Any, kwargs: Any) -> None:
        """Pass labels on."""
        self._operations += 1
        name = func._schema.name.split("::")[1].strip("_")
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        rule = self._rules.get(name)
        if not tensors:
            for each in _tensors(out):
                self.set(each, [np.full(size, FREE) for size in each.shape])
        elif torch.Tag.pointwise in func.tags and rule is None:
            self.pointwise(tensors, _tensors(out))
        elif name != "expand" and not any(axis is not None for each in tensors for axis in self.of(each)):
            # One place that is repeated follows what it meets, whatever made it.
            pass
        elif rule is None:
            self._unfollowed(name, tensors)
        else:
            try:
                rule(self, out, *args, **kwargs)
            except Exception:  # noqa: BLE001 - an operation that is called in a way nobody thought of
                self._unfollowed(name, tensors)

    def _unfollowed(self, name: str, tensors: Sequence[Tensor]) -> None:
        for each in tensors:
            self.hold_all(each, self.here(f"the operation {name} is not followed"))

    def pointwise(self, tensors: Sequence[Tensor], outs: Sequence[Tensor]) -> None:
        """Places that lie on each other, after broadcasting, go together."""
        for out in outs:
            axes: list[Axis] = []
            for back in range(out.ndim, 0, -1):
                size = out.shape[-back]
                meeting = [self.of(each)[-back] for each in tensors if each.ndim >= back and each.shape[-back] == size]
                found = meeting[0] if meeting else None
                for other in meeting[1:]:
                    found = self.same(found, other, self.here(MEETS))
                axes.append(found)
            self.set(out, axes)

    # What came out

    def labelled(self) -> Labelled:
        """What was found out, with the numbers of channels in place of atoms."""
        channels = self._channels()

        rooted = np.zeros(self._atoms, bool)
        for side, first, end in zip(self._sides, self._starts, [*self._starts[1:], self._atoms], strict=True):
            if side is not None:
                rooted[channels[first:end]] = True

        def named(axis: Axis) -> Axis:
            """None where no parameter has a say: the batch of a constant that was asked for."""
            if axis is None or not (rooted[channels[axis[axis >= 0]]]).any():
                return None
            return np.where(axis >= 0, channels[axis], axis)

        held: dict[int, str] = {}
        for atoms, why in self._held:
            for channel in np.unique(channels[atoms]).tolist():
                held.setdefault(channel, why)
        return Labelled(
            axes={
                Side(name, place): channels[axis]
                for name, own in self._own.items()
                for place, axis in enumerate(own)
                if axis is not None
            },
            roles={side: frozenset(each) for side, each in self._roles.items()},
            held=held,
            channels=channels,
            asked=tuple(channels[each] for each in self._asked),
            looks_at_all=self.looks_at_all,
            contracted=frozenset(channels[np.concatenate([np.empty(0, np.int64), *self._contracted])].tolist()),
            calls=tuple(
                replace(
                    call,
                    before=tuple(map(named, call.before)),
                    after=tuple(tuple(map(named, each)) for each in call.after),
                )
                for call in self._calls
            ),
            heads=self._heads | self._found_heads(channels),
        )

    def _found_heads(self, channels: NDArray[np.int64]) -> frozenset[int]:
        """Reshapes whose inner axis was summed over: of those that split these channels, the ones that split finest."""
        found: set[int] = set()
        for atoms in self._contracted:
            own = {
                number: len(labels)
                for number, labels in self._splits.items()
                if np.isin(channels[atoms], channels[labels]).all()
            }
            found.update(number for number, size in own.items() if size == min(own.values()))
        return frozenset(found)

    def _channels(self) -> NDArray[np.int64]:
        """The first atom of those that each atom goes together with."""
        if not self._atoms:
            return np.empty(0, np.int64)
        one, two = (np.concatenate([np.empty(0, np.int64), *(pair[side] for pair in self._pairs)]) for side in (0, 1))
        joined = coo_array((np.ones(len(one), bool), (one, two)), (self._atoms, self._atoms))
        _, component = connected_components(joined, directed=False)
        _, first = np.unique(component, return_index=True)
        channels: NDArray[np.int64] = first[component].astype(np.int64)
        return channels


def _users_line() -> str | None:
    """The line that runs, between whoever asked the network and torch: "net.py:42"; None where all of it is torch's."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        file = frame.f_code.co_filename
        if file == _ASK:
            return None
        if not file.startswith(_NOT_THE_USERS):
            return f"{Path(file).name}:{frame.f_lineno}"
    return None


#: Where networks are asked from; code that is torch's, ours, or Python's.
_ASK = ask.__code__.co_filename
_NOT_THE_USERS = (
    str(Path(torch.__file__).parent),
    str(Path(__file__).parents[2]),
    str(Path(contextlib.__file__).parent),
    "<",
)


def _tensors(out: Any) -> list[Tensor]:
    return [each for each in tree_leaves(out) if isinstance(each, Tensor)]
