"""What a network costs on paper: parameters, multiply-accumulates, neurons. All such figures come from here.

Multiply-accumulates are those of one input. They are counted operation by operation while the network runs (see
`operations`), so it does not matter whether a layer, a functional call or a plain `@` asked for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgeprune.core.inputs import Shape
from edgeprune.models.inputs import ask, cast, made
from edgeprune.pruning.constant import Constant
from edgeprune.pruning.operations import macs_of, name_of, outputs_of

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
Weighted = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, slots=True)
class Work:
    """What one input sets in motion, per module; the name `""` is the network's own forward.

    Work is put down to the innermost module that is running. A module that runs twice works twice.
    """

    #: Multiply-accumulates of every module that runs, in the order they begin.
    macs: Mapping[str, int]
    #: Names of the parameters that each module reads itself.
    reads: Mapping[str, frozenset[str]]
    #: Neurons of products with weights outside of any layer (F.linear, F.conv2d, @), those of the answer left out.
    bare_neurons: Mapping[str, int]
    #: Modules that run a convolution.
    convolve: frozenset[str]
    #: Heavy operations whose work is not known.
    uncounted: Mapping[str, tuple[str, ...]]
    #: The module that runs the last product as large as the network's answer; None where there is none.
    output: str | None

    @property
    def total(self) -> int:
        """Multiply-accumulates of all modules together."""
        return sum(self.macs.values())


def work(network: nn.Module, shape: Shape) -> Work:
    """Run `network` on inputs of `shape` and count what each of them adds; evaluation mode is the caller's.

    Two batch sizes are compared. What does not grow with the batch is done with weights alone (a normalised weight, a
    table of positions): it is no work of an input, and runtimes fold it away.
    """
    try:
        fewer, more, added = _run(network, shape, 1), _run(network, shape, 2), 1
    except Exception:  # noqa: BLE001 - the user's forward may raise anything on a batch of one, which batch norm may refuse
        fewer, more, added = _run(network, shape, 2), _run(network, shape, 4), 2
    macs = {name: max(0, count - fewer.macs.get(name, 0)) // added for name, count in more.macs.items()}
    bare = {name: neurons for name, neurons in more.bare_neurons.items() if macs[name]}
    return replace(more, macs=macs, bare_neurons=bare)


def count_macs(network: nn.Module, shape: Shape) -> int:
    """Multiply-accumulates for one input of `shape`."""
    return work(network, shape).total


def count_parameters(network: nn.Module) -> int:
    """Parameters of a network, each counted once however many modules share it; buffers do not count."""
    return sum(parameter.numel() for parameter in network.parameters())


def neurons_of(module: nn.Module) -> int | None:
    """Neurons of one layer, for NCR; None for a module that is not such a layer.

    | layer | neurons |
    |---|---|
    | linear, bilinear | output features |
    | convolution, transposed or not | output channels |
    | LSTM, GRU, RNN and their cells | hidden units of every layer and direction, and projected ones |
    | multi-head attention | queries, keys, values and outputs: four times the embedding before pruning |
    | embedding | its dimensions: it is a linear layer of one-hot inputs |
    | a layer that became a constant | as many as it had, unless nobody listens to it |
    """
    if isinstance(module, Constant):
        return 0 if module.silent else module.out
    if isinstance(module, WEIGHTED):
        return module.weight.shape[0]
    if isinstance(module, TRANSPOSED):
        return int(module.weight.shape[1]) * module.groups
    if isinstance(module, nn.RNNBase):
        return (module.hidden_size + module.proj_size) * module.num_layers * (2 if module.bidirectional else 1)
    if isinstance(module, nn.RNNCellBase):
        return int(module.hidden_size)
    if isinstance(module, nn.MultiheadAttention):
        return int(3 * module.num_heads * module.head_dim + module.out_proj.out_features)
    if isinstance(module, nn.Bilinear):
        return module.out_features
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return module.embedding_dim
    return None


def input_dtype(network: nn.Module) -> torch.dtype:
    """The type of number that a network computes with: that of its first parameter that is a floating-point one."""
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)


def weighted(network: nn.Module, name: str) -> Weighted:
    """The convolution or linear layer `name`. Raises TypeError where it is something else."""
    module = network.get_submodule(name)
    if not isinstance(module, WEIGHTED):
        raise TypeError(f"{name} is a {type(module).__name__}, not a convolution or linear layer")
    return module


def tensor_of(network: nn.Module, name: str) -> Tensor:
    """The parameter or buffer `name`. Raises AttributeError where there is none."""
    owner, _, leaf = name.rpartition(".")
    tensor: Tensor = getattr(network.get_submodule(owner), leaf)
    return tensor


def _run(network: nn.Module, shape: Shape, count: int) -> Work:
    counter = _Counter(network)
    # The fused path of attention and encoder layers is one opaque operation: the plain one does the same work.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), counter.listening(), counter:
            answer = ask(network, cast(made(shape, count, torch.zeros), input_dtype(network)))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.work(answer)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Puts every operation down to the module that is running."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._network = network
        self._running: list[str] = [""]
        #: Parameters by where their numbers are stored, so that views of them are known for what they are.
        self._parameters: dict[int, list[str]] = {}
        for name, parameter in network.named_parameters():
            self._parameters.setdefault(_storage(parameter), []).append(name)
        self._macs: dict[str, int] = {}
        self._reads: dict[str, set[str]] = {}
        self._bare: dict[str, dict[tuple[int, ...], int]] = {}
        self._uncounted: dict[str, dict[str, None]] = {}
        self._convolve: set[str] = set()
        #: Of every product: what it makes, the module, and which of the module's bare weights.
        self._products: list[tuple[list[int], str, tuple[int, ...] | None]] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While it lasts the counter knows which module is running."""
        hooks = []
        for name, module in self._network.named_modules():

            def begin(_: nn.Module, __: object, name: str = name) -> None:
                self._macs.setdefault(name, 0)
                self._running.append(name)

            def end(_: nn.Module, __: object, ___: object) -> None:
                self._running.pop()

            hooks.append(module.register_forward_pre_hook(begin, prepend=True))
            hooks.append(module.register_forward_hook(end, always_call=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # fmt: skip
        kwargs = kwargs or {}
        module = self._running[-1]
        self._reads.setdefault(module, set()).update(
            name for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) for name in self._names(leaf)
        )
        # Under inference mode composite operations arrive whole.
        with self:
            out = func.decompose(*args, **kwargs)
        if out is not NotImplemented:
            return out
        out = func(*args, **kwargs)
        macs = macs_of(func, args, kwargs, out)
        if macs is None:
            self._uncounted.setdefault(module, {})[name_of(func)] = None
        elif macs:
            self._macs[module] = self._macs.get(module, 0) + macs
            made = out if isinstance(out, Tensor) else out[0]
            self._products.append((_sizes(made), module, self._note_bare(func, args, module)))
            if name_of(func) == "convolution":
                self._convolve.add(module)
        return out

    def _note_bare(self, func: Any, args: tuple[Any, ...], module: str) -> tuple[int, ...] | None:
        if neurons_of(self._network.get_submodule(module)) is not None:
            return None
        found = outputs_of(func, args, lambda x: isinstance(x, Tensor) and bool(self._names(x)))
        if found is None:
            return None
        weight, neurons = found
        # The same weight used the other way round (a tied decoder) is another layer.
        key = (_storage(weight), int(weight.storage_offset()), neurons)
        self._bare.setdefault(module, {})[key] = neurons
        return key

    def _names(self, tensor: Tensor) -> list[str]:
        return self._parameters.get(_storage(tensor), [])

    def work(self, answer: object) -> Work:
        """What was counted, given the network's answer."""
        sizes = _sizes(answer) if isinstance(answer, Tensor) else None
        last = next((product for product in reversed(self._products) if product[0] == sizes), None)
        bare = {name: dict(layers) for name, layers in self._bare.items()}
        if last is not None and last[2] is not None:
            bare[last[1]].pop(last[2], None)
        return Work(
            macs=self._macs,
            reads={name: frozenset(parameters) for name, parameters in self._reads.items()},
            bare_neurons={name: sum(layers.values()) for name, layers in bare.items() if layers},
            convolve=frozenset(self._convolve),
            uncounted={name: tuple(operations) for name, operations in self._uncounted.items()},
            output=None if last is None else last[1],
        )


def _sizes(tensor: Tensor) -> list[int]:
    return [size for size in tensor.shape if size > 1]


def _storage(tensor: Tensor) -> int:
    """Where a tensor's numbers are; views have that of what they look at. -1 where there are none."""
    try:
        return tensor.untyped_storage().data_ptr() or -1
    except (NotImplementedError, RuntimeError):
        # A sparse tensor has no storage of its own.
        return -1
